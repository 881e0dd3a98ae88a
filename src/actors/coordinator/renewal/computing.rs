//! Symmetric keys that move: once their new holders agree on pieces, they compute each key's check value with two garblers at a
//! time for this node, until every holder but this one has decoded it itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use crate::actors::holder::renew::{computation, heard, moving};
use crate::actors::parts::Parts;
use crate::actors::renewals::Id;
use crate::actors::symmetric::evaluate::{Fallen, evaluate};
use crate::actors::wire::{Answer, Call, RenewCompute, Roles};
use crate::identifier::OperationId;

/// Longest wait for a holder's step.
const STEP: Duration = Duration::from_millis(1_500);
/// Longest time for one computation.
const COMPUTATION: Duration = Duration::from_secs(2);

/// Does so for each key of a renewal that moves; `messages` are what everybody said about each key in the round before the last.
pub(super) async fn compute(
    parts: &Arc<Parts>,
    operation: OperationId,
    id: &Id,
    messages: &[BTreeMap<u16, Vec<u8>>],
) -> Result<(), String> {
    for (place, holders) in moving(parts, id) {
        let of_key = Moving {
            parts,
            id: *id,
            place,
            holders,
        };
        let said = messages.get(usize::from(place)).cloned().unwrap_or_default();
        of_key.agree(said).await?;
        of_key.check(operation).await?;
    }
    Ok(())
}

/// One of them.
struct Moving<'a> {
    parts: &'a Arc<Parts>,
    id: Id,
    place: u8,
    holders: Vec<u64>,
}

impl Moving<'_> {
    fn call(&self, step: RenewCompute) -> Call {
        Call::RenewCompute(self.id, self.place, step)
    }

    async fn agree(&self, said: BTreeMap<u16, Vec<u8>>) -> Result<(), String> {
        let call = self.call(RenewCompute::Agree(said));
        let asked = self.holders.iter().map(|node| self.parts.ask(*node, &call, STEP));
        for (node, answer) in self.holders.iter().zip(join_all(asked).await) {
            match answer {
                Ok(Answer::Confirmed) => {}
                answer => return Err(self.unanswered(*node, answer.ok())),
            }
        }
        Ok(())
    }

    /// With every pair of garblers that is needed for each to have decoded the value once.
    async fn check(&self, operation: OperationId) -> Result<(), String> {
        let own = self.parts.node;
        let others: Vec<u64> = self.holders.iter().copied().filter(|node| *node != own).collect();
        let turn = usize::try_from(operation.counter).unwrap_or(0);
        let at = |place: usize| others.get((turn + place) % others.len().max(1)).copied();
        for place in (0..others.len()).step_by(2) {
            let garblers = at(place).zip(at(place + 1)).ok_or("too few new holders")?;
            self.check_by(garblers.into()).await?;
        }
        Ok(())
    }

    async fn check_by(&self, garblers: [u64; 2]) -> Result<(), String> {
        let parts = self.parts;
        let [first, second] = garblers;
        let mut roles = Roles {
            number: parts.symmetric.next_number(),
            nodes: [first, second, parts.node],
            circuit: [0; 32],
        };
        let computation = computation(parts, &self.id, self.place, &roles);
        let computation = computation.ok_or("this node has no part in the computation")?;
        roles.circuit = computation.task.id;
        let garble = self.call(RenewCompute::Garble(roles));
        let evaluated = evaluate(parts, computation, &garble, COMPUTATION).await;
        let evaluated = evaluated.map_err(|fallen| self.fallen(garblers, &fallen))?;
        let decode = &self.call(RenewCompute::Decode(evaluated.kept.to_vec()));
        let [one, two] = garblers.map(|node| async move {
            match parts.ask(node, decode, STEP).await {
                Ok(Answer::Message(decoded)) => Ok(decoded),
                answer => Err(self.unanswered(node, answer.ok())),
            }
        });
        let (one, two) = futures::join!(one, two);
        let (one, two) = (one?, two?);
        if one != two {
            tracing::error!(
                ?garblers,
                "the new holders of a key decode the same labels to two values"
            );
            parts.metrics.aborts.inc();
            return Err("the new holders of a key have computed two values".into());
        }
        heard(parts, &self.id, self.place, &one).ok_or_else(|| "another check value than before".into())
    }

    fn unanswered(&self, node: u64, answer: Option<Answer>) -> String {
        match answer {
            Some(Answer::Ended(reason) | Answer::Misfit(reason)) => {
                format!("node {node} does not go on: {reason}")
            }
            Some(Answer::Abstained(reason)) => format!("node {node} abstains: {reason}"),
            Some(_) => format!("node {node} answers another question"),
            None => format!("node {node} does not answer"),
        }
    }

    fn fallen(&self, garblers: [u64; 2], fallen: &Fallen) -> String {
        if let Fallen::Aborted = fallen {
            self.parts.metrics.aborts.inc();
        }
        tracing::warn!(?garblers, ?fallen, "a key's new holders could not compute");
        format!("nodes {garblers:?} could not compute with this one")
    }
}
