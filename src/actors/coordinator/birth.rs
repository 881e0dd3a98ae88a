//! The birth of a symmetric key: pieces that no holder chooses, then what the holders compute on them, then the entry
//! that all of them signed. Of four holders three are enough, and the fourth gets its part when it is back; of three one
//! that restarts is waited for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;

use super::generate::{Done, committee, lives, propose};
use super::symmetric::{LOOK, RESTART, list};
use super::{Work, busy};
use crate::actors::decide::{Purpose, Weighed};
use crate::actors::holder::births;
use crate::actors::holder::births::computing::{computation, heard};
use crate::actors::holder::births::outcome::outcome;
use crate::actors::holder::{ceremony_id, near};
use crate::actors::stages::Stage;
use crate::actors::symmetric::evaluate::{Fallen, evaluate};
use crate::actors::wire::{Answer, Beginning, BirthStep, Call, Computed, Roles};
use crate::keystore::record::{Purpose as KeyPurpose, Sharing, number_of};
use crate::membership::Membership;
use crate::operation::judge::{Intent, NewKeyTerms};
use crate::problem::Problem;
use crate::reply::Reply;

/// Attempts, each after a pause.
const ATTEMPTS: u8 = 3;
/// Before another attempt, times its number.
const SETTLING: Duration = Duration::from_millis(200);
/// Longest wait for a holder's step.
const STEP: Duration = Duration::from_millis(1_500);

/// Why an attempt made no key.
enum Failed {
    /// Something fell out; the reason is in the log. Nothing came from these.
    Fallen(Vec<u64>),
    /// Two holders refuse, or this node does.
    Refused(Problem),
}

/// Generates a symmetric key and describes it.
pub(super) async fn key(work: &Work) -> Result<Reply, Problem> {
    let parts = &work.parts;
    let mut silent: Vec<u64> = Vec::new();
    for attempt in 1..=ATTEMPTS {
        let weighed = work.weigh(Purpose::Endorse).await?;
        let Intent::Generate(terms) = weighed.judgement.intent.clone() else {
            return Err(Problem::malformed("This request generates no key."));
        };
        let committee = committee(work)?;
        let holders = births::holders(&committee, parts.node, (&terms.keystore, &terms.key));
        let participants = participants(work, &holders, &silent).await?;
        let birth = Birth {
            work,
            weighed: &weighed,
            attempt,
            terms: &terms,
            holders: &holders,
            participants: &participants,
            committee: &committee,
        };
        let born = match birth.run().await {
            Ok(born) => born,
            Err(Failed::Refused(problem)) => return Err(problem),
            Err(Failed::Fallen(nodes)) => {
                // Who was left out for its silence is asked again: that others do not agree may be why this one failed.
                silent = if silent.is_empty() { nodes } else { Vec::new() };
                let pause = SETTLING * u32::from(attempt);
                if attempt < ATTEMPTS && work.left() > pause + STEP {
                    tokio::time::sleep(pause).await;
                    continue;
                }
                break;
            }
        };
        if let Some(answer) = propose(work, &weighed, born, &terms).await {
            weighed.conclude(attempt, participants, &answer);
            return answer;
        }
    }
    Err(Problem::unavailable(
        "The key's holders did not agree on a key; nothing was made. Try again in a moment.",
    ))
}

/// Those that make the key: all holders, or the three of four that are there and were not silent; waited for, if need be.
async fn participants(work: &Work, holders: &[u64], silent: &[u64]) -> Result<Vec<u64>, Problem> {
    let parts = &work.parts;
    if holders.len() < Sharing::TRIO {
        return Err(Problem::unavailable(
            "A symmetric key needs a cluster of three nodes.",
        ));
    }
    let until = Instant::now() + RESTART;
    loop {
        let is_there = |node: &u64| *node == parts.node || parts.network.connected(*node);
        let (there, away): (Vec<u64>, Vec<u64>) = holders.iter().partition(|node| is_there(node));
        if there.len() >= Sharing::TRIO {
            let heard: Vec<u64> = there
                .iter()
                .copied()
                .filter(|node| !silent.contains(node))
                .collect();
            return Ok(if heard.len() < Sharing::TRIO { there } else { heard });
        }
        if Instant::now() > until || work.left() < 2 * STEP {
            return Err(Problem::unavailable(format!(
                "A symmetric key is made by three of its holders, and {} cannot be reached; try again when it is back.",
                list(&away)
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// One attempt.
struct Birth<'a> {
    work: &'a Work,
    weighed: &'a Weighed,
    attempt: u8,
    terms: &'a NewKeyTerms,
    holders: &'a [u64],
    participants: &'a [u64],
    committee: &'a Membership,
}

type Id = [u8; 32];

impl Birth<'_> {
    async fn run(&self) -> Result<Done, Failed> {
        let parts = &self.work.parts;
        let participants = lives(parts, self.participants).map_err(Failed::Fallen)?;
        let beginning = Beginning {
            start: parts.now().map_err(|_| Failed::Refused(busy()))?,
            participants,
            configuration: self.committee.index,
        };
        let forwarded = self
            .work
            .forwarded(self.attempt, self.weighed.group, self.participants.to_vec());
        let id = ceremony_id(
            self.committee,
            &forwarded,
            self.terms,
            &beginning,
            &self.work.request.hash,
        );
        self.share(id, Call::Birth(forwarded, beginning)).await?;
        if self.terms.key_type.purpose() == KeyPurpose::Authenticate {
            self.compute(id, Computed::States).await?;
        }
        self.compute(id, Computed::Check).await?;
        self.sign(id).await
    }

    /// Pieces that nobody chose.
    async fn share(&self, id: Id, begin: Call) -> Result<(), Failed> {
        let commitments = self.messages(self.all(|_| begin.clone()).await?)?;
        let open = |_| Call::BirthStep(id, BirthStep::Open(commitments.clone()));
        // What each has sealed for each other one.
        let mut openings: BTreeMap<u8, BTreeMap<u8, Vec<u8>>> = BTreeMap::new();
        for (from, answer) in self.all(open).await? {
            let Answer::Messages(sealed) = answer else {
                return Err(Failed::nobody());
            };
            for (to, opening) in sealed {
                openings.entry(to).or_default().insert(from, opening);
            }
        }
        let combine = |number: u8| {
            let openings = openings.get(&number).cloned().unwrap_or_default();
            Call::BirthStep(id, BirthStep::Combine(openings))
        };
        let pieces = self.messages(self.all(combine).await?)?;
        let agree = |_| Call::BirthStep(id, BirthStep::Agree(pieces.clone()));
        let agreed = self.all(agree).await?;
        match agreed.values().all(|answer| matches!(answer, Answer::Confirmed)) {
            true => Ok(()),
            false => Err(Failed::nobody()),
        }
    }

    /// Computes with two garblers at a time until every other holder has decoded the outcome itself.
    async fn compute(&self, id: Id, computed: Computed) -> Result<(), Failed> {
        let parts = &self.work.parts;
        let others: Vec<u64> = self
            .participants
            .iter()
            .copied()
            .filter(|node| *node != parts.node)
            .collect();
        let turn = usize::try_from(self.work.operation.counter).unwrap_or(0) % others.len();
        let at = |place: usize| others[(turn + place) % others.len()];
        for place in (0..others.len()).step_by(2) {
            let garblers = [at(place), at(place + 1)];
            let [first, second] = garblers;
            let mut roles = Roles {
                number: parts.symmetric.next_number(),
                nodes: [first, second, parts.node],
                circuit: [0; 32],
            };
            let computation = computation(parts, id, computed, &roles).ok_or_else(Failed::nobody)?;
            roles.circuit = computation.task.id;
            let call = Call::BirthStep(id, BirthStep::Garble(computed, roles));
            let evaluated = evaluate(parts, computation, &call, self.work.left())
                .await
                .map_err(|fallen| self.fallen(&fallen))?;
            let decode = Call::BirthStep(id, BirthStep::Decode(computed, evaluated.kept.to_vec()));
            let asked = garblers.map(|node| parts.ask(node, &decode, STEP));
            let mut decoded = join_all(asked).await.into_iter().map(|answer| match answer {
                Ok(Answer::Message(decoded)) => Some(decoded),
                _ => None,
            });
            let (Some(Some(one)), Some(Some(two))) = (decoded.next(), decoded.next()) else {
                return Err(Failed::nobody());
            };
            if one != two {
                tracing::error!(
                    ?garblers,
                    "the holders of a new key decode the same labels to two values"
                );
                parts.metrics.aborts.inc();
                return Err(Failed::nobody());
            }
            heard(parts, id, computed, &one).ok_or_else(Failed::nobody)?;
        }
        Ok(())
    }

    async fn sign(&self, id: Id) -> Result<Done, Failed> {
        let parts = &self.work.parts;
        let (sharing, inner) = outcome(parts, id).ok_or_else(Failed::nobody)?;
        let sign = |_| Call::BirthStep(id, BirthStep::Sign(sharing.clone(), inner));
        let signed = self.all(sign).await?;
        let own = number_of(self.holders, parts.node);
        let Some(Answer::Generated(statement, mine)) = own.and_then(|own| signed.get(&own)) else {
            return Err(Failed::nobody());
        };
        let mut endorsements = Vec::new();
        for (number, answer) in &signed {
            let node = self.holders[usize::from(*number) - 1];
            let member = self.committee.member(node).ok_or_else(Failed::nobody)?;
            match answer {
                Answer::Generated(_, endorsement)
                    if endorsement.node == node
                        && near(endorsement.time, mine.time)
                        && statement.is_endorsed(endorsement, &member.verifying_key) =>
                {
                    endorsements.push(endorsement.clone());
                }
                _ => {
                    tracing::warn!(node, "a holder of a new key signs something else");
                    return Err(Failed::nobody());
                }
            }
        }
        Ok((statement.as_ref().clone(), endorsements))
    }

    /// Asks all holders; all must say something.
    async fn all(&self, call: impl Fn(u8) -> Call) -> Result<BTreeMap<u8, Answer>, Failed> {
        let parts = &self.work.parts;
        let number = |node: &u64| Some((number_of(self.holders, *node)?, *node));
        let asked = self.participants.iter().filter_map(number).map(|(number, node)| {
            let call = call(number);
            async move {
                (
                    number,
                    node,
                    parts.ask(node, &call, STEP.min(self.work.left())).await,
                )
            }
        });
        let asked = parts.metrics.stages.time(Stage::round, join_all(asked));
        let (mut answers, mut refusals, mut silent) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (number, node, answer) in asked.await {
            match answer {
                Ok(Answer::Refused(problem)) => refusals.push(*problem),
                Ok(Answer::Misfit(reason)) => {
                    tracing::warn!(node, reason, "a holder of a new key did not go on")
                }
                Ok(Answer::Abstained(reason)) => {
                    tracing::debug!(node, %reason, "a holder of a new key cannot now");
                    silent.push(node);
                }
                Ok(answer) => drop(answers.insert(number, answer)),
                Err(error) => {
                    tracing::debug!(node, %error, "a holder of a new key does not answer");
                    silent.push(node);
                }
            }
        }
        // Of two that refuse one is honest.
        if refusals.len() > 1
            && let Some(problem) = refusals.pop()
        {
            return Err(Failed::Refused(problem));
        }
        match answers.len() == self.participants.len() {
            true => Ok(answers),
            false => Err(Failed::Fallen(silent)),
        }
    }

    fn messages(&self, answers: BTreeMap<u8, Answer>) -> Result<BTreeMap<u8, Vec<u8>>, Failed> {
        let message = |(number, answer)| match answer {
            Answer::Message(message) => Ok((number, message)),
            _ => Err(Failed::nobody()),
        };
        answers.into_iter().map(message).collect()
    }

    fn fallen(&self, fallen: &Fallen) -> Failed {
        if let Fallen::Aborted = fallen {
            self.work.parts.metrics.aborts.inc();
        }
        tracing::warn!(
            attempt = self.attempt,
            ?fallen,
            "a new key's holders could not compute"
        );
        match fallen {
            Fallen::Silent(node) | Fallen::Busy(node) => Failed::Fallen(vec![*node]),
            _ => Failed::nobody(),
        }
    }
}

impl Failed {
    /// Something did not fit, and this node does not know whose fault it is.
    fn nobody() -> Self {
        Self::Fallen(Vec::new())
    }
}
