//! One renewal from its coordinator's side: the proposal, three rounds with every member and whoever deals, the entry that
//! all members signed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::GroupId;
use conclave_threshold::dkg::is_signed;
use conclave_threshold::{Edwards25519, Session};
use futures::future::join_all;

use super::Batch;
use super::computing::compute;
use crate::actors::coordinator::generate::lives;
use crate::actors::holder::renewal_id;
use crate::actors::parts::Parts;
use crate::actors::renewals::Id;
use crate::actors::wire::{Abstention, Answer, Beginning, Call, Renewal, Round, ToRenew};
use crate::identifier::LocalId;
use crate::keystore::{Endorsement, Entry, Outcome, Statement};
use crate::membership::Membership;

/// Longest wait for a participant's round, and for the entry.
const ROUND: Duration = Duration::from_secs(2);
const COMMIT: Duration = Duration::from_secs(5);
/// Longest wait until participants know that nothing came of it.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why an attempt failed, and at which node, if one is to blame.
struct Broken {
    node: Option<u64>,
    reason: String,
    /// Only because the node has too much to do.
    is_busy: bool,
}

impl<T: Into<String>> From<T> for Broken {
    fn from(reason: T) -> Self {
        Self {
            node: None,
            reason: reason.into(),
            is_busy: false,
        }
    }
}

/// Why nothing came of a renewal.
pub(super) enum Failed {
    /// A member is not there.
    Away(u64),
    /// A participant has too much to do.
    Busy(String),
    /// For another reason.
    Because(String),
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self::Because(reason)
    }
}

impl From<&str> for Failed {
    fn from(reason: &str) -> Self {
        Self::Because(reason.to_owned())
    }
}

/// One batch, from the proposal to the applied entry.
pub(super) async fn renew(parts: &Arc<Parts>, batch: &Batch) -> Result<(), Failed> {
    let group = parts.group_of(&batch.keystore);
    let unread = |abstention: Abstention| abstention.to_string();
    let committee = parts.roster(group).map_err(unread)?.births().clone();
    let before = parts.numbered(group, batch.committee).map_err(unread)?;
    let members = committee.nodes();
    let is_there = |node: &u64| *node == parts.node || parts.network.connected(*node);
    if let Some(node) = members.iter().find(|node| !is_there(node)) {
        return Err(Failed::Away(*node));
    }
    // Those that leave deal as far as they are there; where nobody leaves, these are all members.
    let mut dealers: Vec<u64> = before.nodes().into_iter().filter(is_there).collect();
    if dealers.len() < before.quorum() {
        return Err("too few that hold the keys' shares are there".into());
    }
    let mut nodes: Vec<u64> = members.iter().chain(&dealers).copied().collect();
    nodes.sort_unstable();
    nodes.dedup();
    let lives = lives(parts, &nodes).map_err(|unknown| format!("{unknown:?} have just started"))?;
    let mut participants = Participants {
        nodes,
        members,
        lives,
        committee,
    };
    let mut keys: Vec<ToRenew> = Vec::with_capacity(batch.keys.len());
    keys.extend(batch.keys.iter().map(|(key, replaces)| ToRenew {
        key: *key,
        replaces: *replaces,
        dealers: dealers.clone(),
    }));
    // Whoever lacks a share says so once, and gets one in the next attempt.
    for _ in 0..=2 * dealers.len() {
        let attempted = match attempt(parts, batch, &participants, keys.clone()).await {
            Ok(attempted) => attempted,
            // Who leaves and does not go on is left out, as long as enough deal: it may be why it leaves.
            Err(Broken {
                reason,
                is_busy: true,
                ..
            }) => return Err(Failed::Busy(reason)),
            Err(Broken {
                node: Some(node),
                reason,
                ..
            }) if participants.committee.member(node).is_none() && dealers.len() > before.quorum() => {
                tracing::warn!(node, reason, "a member that leaves is left out of moving keys");
                dealers.retain(|dealer| *dealer != node);
                participants.nodes.retain(|other| *other != node);
                participants.lives.retain(|(other, _)| *other != node);
                let each = keys.iter_mut();
                each.for_each(|of_key| of_key.dealers.retain(|dealer| *dealer != node));
                continue;
            }
            Err(Broken { reason, .. }) => return Err(reason.into()),
        };
        match attempted {
            Attempt::Done => return Ok(()),
            Attempt::Lacking(node, lacking) => {
                let known = keys.iter_mut().filter(|of_key| lacking.contains(&of_key.key));
                known.for_each(|of_key| of_key.dealers.retain(|dealer| *dealer != node));
                tracing::info!(
                    node,
                    keys = lacking.len(),
                    "a member has no share of keys and gets one"
                );
            }
        }
    }
    Err("members go on saying that they lack shares".into())
}

/// Who takes part.
struct Participants {
    /// All, ascending.
    nodes: Vec<u64>,
    /// Those that will hold the new shares.
    members: Vec<u64>,
    /// Everybody's present life.
    lives: Vec<(u64, [u8; 16])>,
    /// The members, with their keys.
    committee: Arc<Membership>,
}

/// What came of one attempt.
enum Attempt {
    Done,
    /// A member has no share of some of the keys.
    Lacking(u64, Vec<LocalId>),
}

async fn attempt(
    parts: &Arc<Parts>,
    batch: &Batch,
    participants: &Participants,
    keys: Vec<ToRenew>,
) -> Result<Attempt, Broken> {
    let group = parts.group_of(&batch.keystore);
    let proposal = Renewal {
        operation: parts.next_operation(),
        keystore: batch.keystore,
        keys,
        beginning: Beginning {
            start: parts.now().map_err(|error| error.to_string())?,
            participants: participants.lives.clone(),
            configuration: participants.committee.index,
        },
        applied: parts.consensus.applied_index(group),
    };
    let id = renewal_id(&participants.committee, &proposal);
    let attempted = run(parts, group, participants, (id, proposal)).await;
    if !matches!(attempted, Ok(Attempt::Done)) {
        let end = Call::EndRenewal(id);
        let told = participants
            .nodes
            .iter()
            .map(|node| parts.ask(*node, &end, FAREWELL));
        join_all(told).await;
    }
    attempted
}

/// The rounds of an attempt and its entry.
async fn run(
    parts: &Arc<Parts>,
    group: GroupId,
    participants: &Participants,
    (id, proposal): (Id, Renewal),
) -> Result<Attempt, Broken> {
    let (keys, operation) = (proposal.keys.len(), proposal.operation);
    let mut call = Call::Renew(proposal);
    let mut handed_out = HandedOut::default();
    for round in [Round::Package, Round::Deal, Round::Outcome] {
        let said = match ask(parts, &participants.nodes, &call).await {
            Ok(said) => said,
            Err(reason) => return Err(handed_out.blame(parts, reason).await),
        };
        let lacking = said.iter().find_map(|(node, answer)| match answer {
            Answer::Lacking(keys) => Some(Attempt::Lacking(*node, keys.clone())),
            _ => None,
        });
        if let Some(lacking) = lacking {
            return Ok(lacking);
        }
        let messages = by_key(parts, said, keys)?;
        handed_out.take(parts, &id, (round.before(), &messages));
        if round == Round::Outcome {
            Box::pin(compute(parts, operation, &id, &messages)).await?;
        }
        call = Call::RenewStep(id, round, messages);
    }
    let said = match ask(parts, &participants.members, &call).await {
        Ok(said) => said,
        Err(reason) => return Err(handed_out.blame(parts, reason).await),
    };
    let (statement, endorsements) = signatures(parts, &participants.committee, said)?;
    let entry = Entry {
        statement,
        request: Vec::new(),
        endorsements,
    };
    let encoded = parts.encode_entry(group, &entry);
    let encoded = encoded.map_err(|problem| problem.message)?;
    let proposed = parts.propose(group, encoded, Instant::now() + COMMIT);
    let applied = proposed.await.map_err(|error| error.to_string())?;
    match postcard::from_bytes(&applied.result) {
        Ok(Outcome::Applied(_)) => Ok(Attempt::Done),
        Ok(Outcome::Refused(rejection)) => Err(rejection.to_string().into()),
        Err(error) => Err(error.to_string().into()),
    }
}

/// Everybody's answer; all have to give one.
async fn ask(parts: &Arc<Parts>, nodes: &[u64], call: &Call) -> Result<Vec<(u64, Answer)>, Broken> {
    let asked = nodes
        .iter()
        .map(|node| async move { (*node, parts.ask(*node, call, ROUND).await) });
    let mut said = Vec::new();
    for (node, answer) in join_all(asked).await {
        let broken = |reason: String| Broken {
            node: Some(node),
            reason,
            is_busy: false,
        };
        match answer {
            Ok(answer @ (Answer::Renewing(_) | Answer::Lacking(_) | Answer::Generated(..))) => {
                said.push((node, answer))
            }
            Ok(Answer::Abstained(Abstention::Busy)) => {
                return Err(Broken {
                    is_busy: true,
                    ..broken(format!("node {node} has too much to do"))
                });
            }
            Ok(Answer::Abstained(reason)) => return Err(broken(format!("node {node} abstains: {reason}"))),
            Ok(Answer::Ended(reason) | Answer::Misfit(reason)) => {
                return Err(broken(format!("node {node} does not go on: {reason}")));
            }
            Ok(_) => return Err(broken(format!("node {node} answers another question"))),
            Err(error) => return Err(broken(format!("node {node} does not answer: {error}"))),
        }
    }
    Ok(said)
}

/// What everybody said about one key in a round, by share index.
type Messages = BTreeMap<u16, Vec<u8>>;

/// What participants said in a round and were all given in the next one, for the case that it fails there.
#[derive(Default)]
struct HandedOut {
    /// Of each key pair, while this node takes part itself.
    sessions: Vec<Option<Arc<Session>>>,
    /// The number of the round, and of each key what everybody said.
    last: Option<(u8, Vec<Messages>)>,
}

impl HandedOut {
    fn take(&mut self, parts: &Parts, id: &Id, (round, messages): (Option<Round>, &[Messages])) {
        let sessions = parts.renewals.lock().sessions(id);
        if !sessions.is_empty() {
            self.sessions = sessions;
        }
        let number = round.and_then(Round::number);
        self.last = number.map(|number| (number, messages.to_vec()));
    }

    /// Why the round after it failed: a message that a participant did not sign goes before what others make of it, and
    /// names that participant.
    async fn blame(self, parts: &Arc<Parts>, broken: Broken) -> Broken {
        let Self { sessions, last } = self;
        let looked = parts.pool.run(move || {
            let (number, messages) = last?;
            let of_keys = sessions.into_iter().zip(messages);
            let mut said = of_keys.flat_map(|(session, said)| {
                let signed = move |(index, message): (u16, Vec<u8>)| {
                    let session = session.as_ref()?;
                    (!is_signed::<Edwards25519>(session, number, index, &message)).then_some(index)
                };
                said.into_iter().filter_map(signed)
            });
            said.next()
        });
        let liar = looked.await.ok().flatten();
        let Some(member) = liar.and_then(|index| parts.directory.by_index(index)) else {
            return broken;
        };
        parts.name_liar(member.node, "a message of a renewal that it did not sign");
        Broken {
            node: Some(member.node),
            is_busy: false,
            reason: format!("node {} said what it did not sign", member.node),
        }
    }
}

/// For each key everybody's message that has one, by share index.
fn by_key(parts: &Parts, said: Vec<(u64, Answer)>, keys: usize) -> Result<Vec<Messages>, String> {
    let mut all = vec![Messages::new(); keys];
    for (node, answer) in said {
        let member = parts.member(node).ok_or("a stranger")?;
        match answer {
            Answer::Renewing(messages) if messages.len() == keys => {
                let said = all
                    .iter_mut()
                    .zip(messages)
                    .filter(|(_, message)| !message.is_empty());
                said.for_each(|(of_key, message)| drop(of_key.insert(member.index, message)));
            }
            _ => return Err(format!("node {node} says something about other keys")),
        }
    }
    Ok(all)
}

/// This node's own outcome, with everybody's signature over it.
fn signatures(
    parts: &Parts,
    committee: &Membership,
    said: Vec<(u64, Answer)>,
) -> Result<(Statement, Vec<Endorsement>), String> {
    let own = said.iter().find_map(|(node, answer)| match answer {
        Answer::Generated(statement, _) if *node == parts.node => Some(statement.as_ref().clone()),
        _ => None,
    });
    let own = own.ok_or("this node has no outcome")?;
    let mut endorsements = Vec::with_capacity(said.len());
    for (node, answer) in said {
        let member = committee.member(node).ok_or("a stranger")?;
        match answer {
            Answer::Generated(_, endorsement)
                if endorsement.node == node && own.is_endorsed(&endorsement, &member.verifying_key) =>
            {
                endorsements.push(endorsement);
            }
            _ => return Err(format!("node {node} has not signed this outcome")),
        }
    }
    Ok((own, endorsements))
}
