//! Members' endorsements of a change: of as many as make a quorum, by clocks that agree.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ed25519_dalek::VerifyingKey;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::task::JoinHandle;

use crate::actors::holder::close;
use crate::actors::parts::Parts;
use crate::actors::wire::{Abstention, Answer, Call};
use crate::keystore::{Endorsement, Roster, Statement};
use crate::overload::Turn;
use crate::problem::Problem;

/// Longest wait for one member's endorsement.
const ENDORSEMENT: Duration = Duration::from_secs(3);
/// The same for the rest, once one has judged on another version.
const REST: Duration = Duration::from_millis(300);

/// What every member is asked.
pub(super) struct Question {
    pub(super) call: Call,
    pub(super) statement: Statement,
    pub(super) deadline: Instant,
}

/// What a member made of a change.
enum Endorsed {
    Here(Endorsement),
    /// It does not allow it.
    Refused(Box<Problem>),
    /// It signed something else: most likely the same change of another version of the keystore.
    Otherwise,
    /// It gave nothing.
    Nothing,
}

/// What was gathered.
pub(super) enum Gathered {
    /// A quorum, this node among it.
    Quorum(Vec<Endorsement>),
    /// More refuse than may be wrong.
    Refused(Box<Problem>),
    /// Too few agree, and some say no or something else: they may have applied what this node has not.
    Overtaken,
    /// Too few say anything.
    TooFew,
}

/// Members that are asked all at once.
pub(super) struct Gathering {
    roster: Arc<Roster>,
    asked: FuturesUnordered<JoinHandle<(u64, Endorsed)>>,
    deadline: Instant,
}

impl Gathering {
    /// Asks every member that decides and has a live link.
    pub(super) fn start(parts: &Arc<Parts>, roster: Arc<Roster>, question: &Arc<Question>) -> Self {
        let members = roster.deciders().into_iter();
        let others = members.filter(|node| *node != parts.node && parts.network.connected(*node));
        let asked = others.map(|node| {
            let (parts, question) = (parts.clone(), question.clone());
            let key = roster.decider(node).map(|member| member.verifying_key);
            let asked = async move { (node, endorse(&parts, (node, key), &question).await) };
            tokio::spawn(Turn::inherited(asked))
        });
        Self {
            asked: asked.collect(),
            deadline: question.deadline,
            roster,
        }
    }

    /// Waits until a quorum agrees, or will not.
    pub(super) async fn quorum(&mut self, own: Endorsement) -> Gathered {
        let roster = self.roster.clone();
        let decides = |endorsements: &[Endorsement]| {
            let nodes: Vec<u64> = endorsements.iter().map(|endorsement| endorsement.node).collect();
            roster.is_quorum(&nodes)
        };
        let (mut gathered, mut refused, mut overtaken) = (vec![own], Vec::new(), false);
        loop {
            if let Some(endorsements) = at_one_time(&gathered, decides) {
                return Gathered::Quorum(endorsements);
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            let patience = if overtaken { REST.min(left) } else { left };
            match tokio::time::timeout(patience, self.asked.next()).await {
                Ok(Some(Ok((_, Endorsed::Here(endorsement))))) => gathered.push(endorsement),
                Ok(Some(Ok((node, Endorsed::Refused(problem))))) => {
                    refused.push(node);
                    // Quorums meet: one member's word stops nothing, more than n - k of them do.
                    if self.roster.is_blocked(&refused) {
                        return Gathered::Refused(problem);
                    }
                }
                Ok(Some(Ok((_, Endorsed::Otherwise)))) => overtaken = true,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) if overtaken || !refused.is_empty() => return Gathered::Overtaken,
                Ok(None) | Err(_) => return Gathered::TooFew,
            }
        }
    }

    /// Waits for everybody else.
    pub(super) async fn rest(mut self) {
        while self.asked.next().await.is_some() {}
    }
}

/// A quorum of endorsements, the first (this node's) among them, whose clocks are as close as an entry's must be: a member
/// whose clock is off must not spoil what the others signed.
fn at_one_time(
    gathered: &[Endorsement],
    decides: impl Fn(&[Endorsement]) -> bool,
) -> Option<Vec<Endorsement>> {
    let own = gathered.first()?;
    let earliest = gathered.iter().map(|endorsement| endorsement.time);
    let windows = earliest.filter(|earliest| *earliest <= own.time && close(*earliest, own.time));
    windows
        .map(|earliest| {
            let within = |endorsement: &&Endorsement| {
                endorsement.time >= earliest && close(earliest, endorsement.time)
            };
            gathered.iter().filter(within).cloned().collect::<Vec<_>>()
        })
        .find(|within| decides(within))
}

async fn endorse(
    parts: &Arc<Parts>,
    (node, key): (u64, Option<VerifyingKey>),
    question: &Question,
) -> Endorsed {
    for wait in [0, 50, 200] {
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        let left = question.deadline.saturating_duration_since(Instant::now());
        match parts.ask(node, &question.call, ENDORSEMENT.min(left)).await {
            Ok(Answer::Endorsed(endorsement)) if endorsement.node != node => {
                parts.name_liar(node, "an endorsement in another's name");
                return Endorsed::Nothing;
            }
            Ok(Answer::Endorsed(endorsement)) => {
                let signed = |key| question.statement.is_endorsed(&endorsement, key);
                return match key.as_ref().is_some_and(signed) {
                    true => Endorsed::Here(endorsement),
                    false => Endorsed::Otherwise,
                };
            }
            Ok(Answer::Refused(problem)) => return Endorsed::Refused(problem),
            // It may have caught up in a moment.
            Ok(Answer::Abstained(Abstention::Behind | Abstention::Busy)) => continue,
            _ => return Endorsed::Nothing,
        }
    }
    Endorsed::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(times: &[(u64, u64)]) -> Vec<Endorsement> {
        let one = |(node, time): &(u64, u64)| Endorsement {
            node: *node,
            time: *time,
            format: crate::format::NEWEST,
            signature: Vec::new(),
        };
        times.iter().map(one).collect()
    }

    fn quorum(times: &[(u64, u64)], quorum: usize) -> Option<Vec<u64>> {
        let within = at_one_time(&at(times), |within| within.len() >= quorum)?;
        Some(within.iter().map(|endorsement| endorsement.node).collect())
    }

    #[test]
    fn a_clock_that_is_off_spoils_no_quorum() {
        let own = (1, 100_000);
        assert_eq!(quorum(&[own], 2), None);
        assert_eq!(quorum(&[own, (2, 105_001)], 2), None);
        assert_eq!(quorum(&[own, (2, 94_999), (3, 100_001)], 2), Some(vec![1, 3]));
        assert_eq!(quorum(&[own, (2, 105_000)], 2), Some(vec![1, 2]));
        // Close to ours, and not to each other.
        let five = [own, (2, 104_900), (3, 99_800), (4, 99_900)];
        assert_eq!(quorum(&five[..3], 3), None);
        assert_eq!(quorum(&five, 3), Some(vec![1, 3, 4]));
        assert_eq!(
            quorum(&[(1, 100_000), (2, 200_000), (3, 200_000)], 2),
            None,
            "ours is among them"
        );
    }
}
