//! Renewing shares that are due, in the background: each group's leader looks for them and runs a ceremony with every
//! member, one after the other, at a bounded rate. What is left undone is found again by whoever leads then.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::{GroupId, View};
use futures::future::join_all;

use super::generate::lives;
use crate::actors::holder::renewal_id;
use crate::actors::parts::Parts;
use crate::actors::renewals::Policy;
use crate::actors::views::GROUP_ZERO;
use crate::actors::wire::{Answer, Beginning, Call, Renewal, Round, ToRenew};
use crate::identifier::LocalId;
use crate::keystore::command::MAX_RENEWED;
use crate::keystore::state::decode;
use crate::keystore::{Endorsement, Entry, KeyRecord, Outcome, StateError, Statement, layout, query};

/// Shortest and longest time between two looks at a group.
const LOOK: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));
/// Keys of one read.
const PAGE: usize = 256;
/// Ceremonies before the group is looked at again.
const BATCHES: usize = 256;
/// A keystore whose renewal failed is left alone for this long.
const POSTPONED: Duration = Duration::from_secs(60);
/// Longest wait for a participant's round, and for the entry.
const ROUND: Duration = Duration::from_secs(2);
const COMMIT: Duration = Duration::from_secs(5);

/// Keys of one keystore that are due, each with the ceremony whose shares are to be replaced, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Batch {
    keystore: LocalId,
    keys: Vec<(LocalId, [u8; 32])>,
}

/// What a look at a group has found.
#[derive(Default)]
struct Found {
    batches: Vec<Batch>,
    /// Keys that are due, those that are postponed or left for the next look among them.
    due: u64,
    /// When the first of the others will be, ms.
    next: Option<u64>,
}

/// Renews what is due, again and again.
pub async fn run(parts: Arc<Parts>) {
    let mut renewer = Renewer::new(parts);
    let mut ticks = tokio::time::interval(LOOK.0);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        renewer.pass().await;
    }
}

/// A node's renewals in the groups that it leads.
pub(crate) struct Renewer {
    parts: Arc<Parts>,
    /// When a group is to be looked at again, with the keys that were left due in it.
    looks: HashMap<GroupId, (Instant, u64)>,
    /// Keystores whose renewal failed, until when.
    postponed: HashMap<LocalId, Instant>,
    /// Shares from before this are due by the operators' order, ms.
    ordered: u64,
}

impl Renewer {
    /// One that has looked at nothing yet.
    pub(crate) fn new(parts: Arc<Parts>) -> Self {
        Self {
            parts,
            looks: HashMap::new(),
            postponed: HashMap::new(),
            ordered: 0,
        }
    }

    /// Looks at each group that this node leads, if it is time to; the keys that are left due.
    pub(crate) async fn pass(&mut self) -> u64 {
        let orders = self.parts.consensus.view(GROUP_ZERO);
        let ordered = orders.ok().and_then(|view| query::orders(&view).ok());
        if let Some(orders) = ordered.filter(|orders| orders.renew_before != self.ordered) {
            self.ordered = orders.renew_before;
            self.looks.clear();
        }
        let led: Vec<GroupId> = (self.parts.consensus.status().into_iter())
            .filter(|status| status.leader == Some(self.parts.node) && status.group.0 > 0)
            .map(|status| status.group)
            .collect();
        self.looks.retain(|group, _| led.contains(group));
        self.postponed.retain(|_, until| *until > Instant::now());
        for group in led {
            if self.looks.get(&group).is_some_and(|(at, _)| *at > Instant::now()) {
                continue;
            }
            let found = self.renew_group(group).await;
            let until_next = found.next.map_or(LOOK.1, |next| {
                Duration::from_millis(next.saturating_sub(self.parts.now().unwrap_or(next)))
            });
            let pause = match found.due {
                0 => until_next.clamp(LOOK.0, LOOK.1),
                _ => LOOK.0,
            };
            self.looks.insert(group, (Instant::now() + pause, found.due));
        }
        let due = self.looks.values().map(|(_, due)| due).sum();
        self.parts.metrics.due.set(i64::try_from(due).unwrap_or(i64::MAX));
        due
    }

    /// Looks at one group and renews what is due in it; what was found, with what is still due.
    async fn renew_group(&mut self, group: GroupId) -> Found {
        let parts = self.parts.clone();
        let policy = parts.renewals.lock().policy;
        let (Ok(now), Ok(view)) = (parts.now(), parts.consensus.view(group)) else {
            return Found::default();
        };
        let skipped: Vec<LocalId> = self.postponed.keys().copied().collect();
        let due = (policy, self.ordered);
        let looked = tokio::task::spawn_blocking(move || look(&view, due, now, &skipped));
        let mut found = match looked.await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(%group, %error, "keys could not be looked through for old shares");
                return Found::default();
            }
            Err(_) => return Found::default(),
        };
        for batch in std::mem::take(&mut found.batches) {
            let began = Instant::now();
            let count = batch.keys.len() as u64;
            match renew(&parts, &batch).await {
                Ok(()) => {
                    parts.metrics.renewed.inc_by(count);
                    found.due -= count;
                }
                Err(reason) => {
                    parts.metrics.failed_renewals.inc();
                    tracing::warn!(keystore = %batch.keystore, reason, "shares that are due could not be renewed");
                    self.postponed.insert(batch.keystore, Instant::now() + POSTPONED);
                }
            }
            let pace = Duration::from_secs(count) / policy.keys_per_second.max(1);
            tokio::time::sleep(pace.saturating_sub(began.elapsed())).await;
        }
        found
    }
}

/// The keys that are due, keystore by keystore; blocks on the disk.
fn look(
    view: &View,
    (policy, ordered): (Policy, u64),
    now: u64,
    skipped: &[LocalId],
) -> Result<Found, StateError> {
    let mut found = Found::default();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = view.scan(layout::KEYS, after.as_deref(), PAGE);
        let page = page.map_err(|error| StateError(error.to_string()))?;
        let Some((last, _)) = page.last() else {
            return Ok(found);
        };
        after = Some(last.clone());
        for (at, record) in &page {
            let Some((keystore, key)) = layout::names_of_key(at) else {
                continue;
            };
            let record: KeyRecord = decode(record)?;
            let Some(due) = policy.due(query::shared_at(view, &keystore, &key, &record)?, ordered) else {
                continue;
            };
            if due > now {
                found.next = Some(found.next.map_or(due, |next| next.min(due)));
                continue;
            }
            found.due += 1;
            if skipped.contains(&keystore) {
                continue;
            }
            let fits = |batch: &&mut Batch| batch.keystore == keystore && batch.keys.len() < MAX_RENEWED;
            let (due, full) = ((key, record.session), found.batches.len() >= BATCHES);
            match found.batches.last_mut().filter(fits) {
                Some(batch) => batch.keys.push(due),
                None if full => {}
                None => found.batches.push(Batch {
                    keystore,
                    keys: vec![due],
                }),
            }
        }
    }
}

/// One batch, from the proposal to the applied entry.
async fn renew(parts: &Arc<Parts>, batch: &Batch) -> Result<(), String> {
    let nodes: Vec<u64> = parts
        .membership
        .members
        .iter()
        .map(|member| member.node)
        .collect();
    let away = |node: &&u64| **node != parts.node && !parts.network.connected(**node);
    if let Some(node) = nodes.iter().find(away) {
        return Err(format!("node {node} is away, and every member has to take part"));
    }
    let participants = lives(parts, &nodes).map_err(|unknown| format!("{unknown:?} have just started"))?;
    let mut keys: Vec<ToRenew> = Vec::with_capacity(batch.keys.len());
    keys.extend(batch.keys.iter().map(|(key, replaces)| ToRenew {
        key: *key,
        replaces: *replaces,
        dealers: nodes.clone(),
    }));
    // Whoever lacks a share says so once, and gets one in the next attempt.
    for _ in 0..=nodes.len() {
        match attempt(parts, batch, (&nodes, participants.clone()), keys.clone()).await? {
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

/// What came of one attempt.
enum Attempt {
    Done,
    /// A member has no share of some of the keys.
    Lacking(u64, Vec<LocalId>),
}

async fn attempt(
    parts: &Arc<Parts>,
    batch: &Batch,
    (nodes, participants): (&[u64], Vec<(u64, [u8; 16])>),
    keys: Vec<ToRenew>,
) -> Result<Attempt, String> {
    let group = parts.group_of(&batch.keystore);
    let proposal = Renewal {
        operation: parts.next_operation(),
        keystore: batch.keystore,
        keys,
        beginning: Beginning {
            start: parts.now().map_err(|error| error.to_string())?,
            participants,
            configuration: parts.membership.index,
        },
        applied: parts.consensus.applied_index(group),
    };
    let id = renewal_id(&parts.membership, &proposal);
    let mut call = Call::Renew(proposal);
    for round in [Round::Package, Round::Deal, Round::Outcome] {
        let said = ask(parts, nodes, &call).await?;
        let lacking = said.iter().find_map(|(node, answer)| match answer {
            Answer::Lacking(keys) => Some(Attempt::Lacking(*node, keys.clone())),
            _ => None,
        });
        if let Some(lacking) = lacking {
            return Ok(lacking);
        }
        call = Call::RenewStep(id, round, by_key(parts, said, batch.keys.len())?);
    }
    let (statement, endorsements) = signatures(parts, ask(parts, nodes, &call).await?)?;
    let entry = Entry {
        statement,
        request: Vec::new(),
        endorsements,
    };
    let proposed = parts
        .consensus
        .propose(group, entry.encode(), Instant::now() + COMMIT);
    let applied = proposed.await.map_err(|error| error.to_string())?;
    match postcard::from_bytes(&applied.result) {
        Ok(Outcome::Applied(_)) => Ok(Attempt::Done),
        Ok(Outcome::Refused(rejection)) => Err(rejection.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Everybody's answer; all have to give one.
async fn ask(parts: &Arc<Parts>, nodes: &[u64], call: &Call) -> Result<Vec<(u64, Answer)>, String> {
    let asked = nodes
        .iter()
        .map(|node| async move { (*node, parts.ask(*node, call, ROUND).await) });
    let mut said = Vec::new();
    for (node, answer) in join_all(asked).await {
        match answer {
            Ok(answer @ (Answer::Renewing(_) | Answer::Lacking(_) | Answer::Generated(..))) => {
                said.push((node, answer))
            }
            Ok(Answer::Abstained(reason)) => return Err(format!("node {node} abstains: {reason}")),
            Ok(Answer::Misfit(reason)) => return Err(format!("node {node} does not go on: {reason}")),
            Ok(_) => return Err(format!("node {node} answers another question")),
            Err(error) => return Err(format!("node {node} does not answer: {error}")),
        }
    }
    Ok(said)
}

/// For each key everybody's message that has one, by share index.
fn by_key(
    parts: &Parts,
    said: Vec<(u64, Answer)>,
    keys: usize,
) -> Result<Vec<BTreeMap<u16, Vec<u8>>>, String> {
    let mut all = vec![BTreeMap::new(); keys];
    for (node, answer) in said {
        let member = parts.membership.member(node).ok_or("a stranger")?;
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
fn signatures(parts: &Parts, said: Vec<(u64, Answer)>) -> Result<(Statement, Vec<Endorsement>), String> {
    let own = said.iter().find_map(|(node, answer)| match answer {
        Answer::Generated(statement, _) if *node == parts.node => Some(statement.as_ref().clone()),
        _ => None,
    });
    let own = own.ok_or("this node has no outcome")?;
    let mut endorsements = Vec::with_capacity(said.len());
    for (node, answer) in said {
        let member = parts.membership.member(node).ok_or("a stranger")?;
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
