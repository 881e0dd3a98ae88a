//! The birth of a symmetric key: pieces that no holder chooses, then what the holders compute on them, then the entry
//! that all of them signed. All must take part; one that restarts is waited for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;

use super::generate::{Done, lives, propose};
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
use crate::keystore::record::{Purpose as KeyPurpose, number_of};
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
    /// Something fell out; the reason is in the log.
    Fallen,
    /// Two holders refuse, or this node does.
    Refused(Problem),
}

/// Generates a symmetric key and describes it.
pub(super) async fn key(work: &Work) -> Result<Reply, Problem> {
    let parts = &work.parts;
    for attempt in 1..=ATTEMPTS {
        let weighed = work.weigh(Purpose::Endorse).await?;
        let Intent::Generate(terms) = weighed.judgement.intent.clone() else {
            return Err(Problem::malformed("This request generates no key."));
        };
        let holders = births::holders(parts, parts.node, &terms);
        all_there(work, &holders).await?;
        let birth = Birth {
            work,
            weighed: &weighed,
            attempt,
            terms: &terms,
            holders: &holders,
        };
        let born = match birth.run().await {
            Ok(born) => born,
            Err(Failed::Refused(problem)) => return Err(problem),
            Err(Failed::Fallen) => {
                let pause = SETTLING * u32::from(attempt);
                if attempt < ATTEMPTS && work.left() > pause + STEP {
                    tokio::time::sleep(pause).await;
                    continue;
                }
                break;
            }
        };
        if let Some(answer) = propose(work, &weighed, born, &terms).await {
            weighed.conclude(attempt, holders, &answer);
            return answer;
        }
    }
    Err(Problem::unavailable(
        "The key's holders did not agree on a key; nothing was made. Try again in a moment.",
    ))
}

/// Waits until all holders are there.
async fn all_there(work: &Work, holders: &[u64]) -> Result<(), Problem> {
    let parts = &work.parts;
    let until = Instant::now() + RESTART;
    loop {
        let is_away = |node: &&u64| **node != parts.node && !parts.network.connected(**node);
        let away: Vec<u64> = holders.iter().filter(is_away).copied().collect();
        if holders.len() < 3 {
            return Err(Problem::unavailable(
                "A symmetric key needs a cluster of three nodes.",
            ));
        }
        if away.is_empty() {
            return Ok(());
        }
        if Instant::now() > until || work.left() < 2 * STEP {
            return Err(Problem::unavailable(format!(
                "A symmetric key is made by all of its holders, and {} cannot be reached; try again when it is back.",
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
}

type Id = [u8; 32];

impl Birth<'_> {
    async fn run(&self) -> Result<Done, Failed> {
        let parts = &self.work.parts;
        let participants = lives(parts, self.holders).map_err(|_| Failed::Fallen)?;
        let beginning = Beginning {
            start: parts.now().map_err(|_| Failed::Refused(busy()))?,
            participants,
            configuration: parts.membership.index,
        };
        let forwarded = self
            .work
            .forwarded(self.attempt, self.weighed.group, self.holders.to_vec());
        let id = ceremony_id(parts, &forwarded, self.terms, &beginning, &self.work.request.hash);
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
                return Err(Failed::Fallen);
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
            false => Err(Failed::Fallen),
        }
    }

    /// Computes with two garblers at a time until every other holder has decoded the outcome itself.
    async fn compute(&self, id: Id, computed: Computed) -> Result<(), Failed> {
        let parts = &self.work.parts;
        let others: Vec<u64> = self
            .holders
            .iter()
            .copied()
            .filter(|node| *node != parts.node)
            .collect();
        let turn = usize::try_from(self.work.operation.counter).unwrap_or(0) % others.len();
        let at = |place: usize| others[(turn + place) % others.len()];
        for place in (0..others.len()).step_by(2) {
            let garblers = [at(place), at(place + 1)];
            let [first, second] = garblers;
            let roles = Roles {
                number: parts.symmetric.next_number(),
                nodes: [first, second, parts.node],
            };
            let computation = computation(parts, id, computed, &roles).ok_or(Failed::Fallen)?;
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
                return Err(Failed::Fallen);
            };
            if one != two {
                tracing::error!(
                    ?garblers,
                    "the holders of a new key decode the same labels to two values"
                );
                parts.metrics.aborts.inc();
                return Err(Failed::Fallen);
            }
            heard(parts, id, computed, &one).ok_or(Failed::Fallen)?;
        }
        Ok(())
    }

    async fn sign(&self, id: Id) -> Result<Done, Failed> {
        let parts = &self.work.parts;
        let (sharing, inner) = outcome(parts, id).ok_or(Failed::Fallen)?;
        let sign = |_| Call::BirthStep(id, BirthStep::Sign(sharing.clone(), inner));
        let signed = self.all(sign).await?;
        let own = number_of(self.holders, parts.node);
        let Some(Answer::Generated(statement, mine)) = own.and_then(|own| signed.get(&own)) else {
            return Err(Failed::Fallen);
        };
        let mut endorsements = Vec::new();
        for (number, answer) in &signed {
            let node = self.holders[usize::from(*number) - 1];
            let member = parts.membership.member(node).ok_or(Failed::Fallen)?;
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
                    return Err(Failed::Fallen);
                }
            }
        }
        Ok((statement.as_ref().clone(), endorsements))
    }

    /// Asks all holders; all must say something.
    async fn all(&self, call: impl Fn(u8) -> Call) -> Result<BTreeMap<u8, Answer>, Failed> {
        let parts = &self.work.parts;
        let asked = (1..).zip(self.holders).map(|(number, node)| {
            let call = call(number);
            async move {
                (
                    number,
                    *node,
                    parts.ask(*node, &call, STEP.min(self.work.left())).await,
                )
            }
        });
        let asked = parts.metrics.stages.time(Stage::round, join_all(asked));
        let (mut answers, mut refusals) = (BTreeMap::new(), Vec::new());
        for (number, node, answer) in asked.await {
            match answer {
                Ok(Answer::Refused(problem)) => refusals.push(*problem),
                Ok(Answer::Misfit(reason)) => {
                    tracing::warn!(node, reason, "a holder of a new key did not go on")
                }
                Ok(Answer::Abstained(reason)) => {
                    tracing::debug!(node, %reason, "a holder of a new key cannot now")
                }
                Ok(answer) => drop(answers.insert(number, answer)),
                Err(error) => tracing::debug!(node, %error, "a holder of a new key does not answer"),
            }
        }
        // Of two that refuse one is honest.
        if refusals.len() > 1
            && let Some(problem) = refusals.pop()
        {
            return Err(Failed::Refused(problem));
        }
        match answers.len() == self.holders.len() {
            true => Ok(answers),
            false => Err(Failed::Fallen),
        }
    }

    fn messages(&self, answers: BTreeMap<u8, Answer>) -> Result<BTreeMap<u8, Vec<u8>>, Failed> {
        let message = |(number, answer)| match answer {
            Answer::Message(message) => Ok((number, message)),
            _ => Err(Failed::Fallen),
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
        Failed::Fallen
    }
}
