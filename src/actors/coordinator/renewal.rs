//! Renewing shares that are due, in the background: each group's leader looks for them and runs a ceremony with every
//! member, one after the other, at a bounded rate. What is left undone is found again by whoever leads then.

mod ceremony;
mod computing;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::{GroupId, View};

use self::ceremony::{Failed, renew};
use super::moves;
use crate::actors::metrics::OfNode;
use crate::actors::parts::Parts;
use crate::actors::renewals::Policy;
use crate::actors::views::{GROUP_ZERO, Stored, keys};
use crate::identifier::LocalId;
use crate::keystore::command::MAX_RENEWED;
use crate::keystore::{StateError, query};

/// How often it is looked whether a group is to be looked at.
const TICK: Duration = Duration::from_secs(1);
/// Shortest and longest time between two looks at a group whose members stay.
const LOOK: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));
/// Symmetric keys that move in one ceremony: each is computed with before it is signed, within the ceremony's life.
const MOST_MOVED: usize = 4;
/// Ceremonies before the group is looked at again.
const BATCHES: usize = 256;
/// A batch waits for this long, no longer, for this node to have less to do: shares must not grow old because it never has.
const QUIET: Duration = Duration::from_secs(60);
/// An order to renew is pressing for this long, ms.
const ORDERED: u64 = 24 * 3_600 * 1_000;
/// A keystore whose renewal failed is left alone for this long; while its keys move, only for a moment.
const POSTPONED: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_secs(1);

/// Keys of one keystore that are due, each with the ceremony whose shares are to be replaced, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Batch {
    keystore: LocalId,
    /// The number of the list of members that hold them.
    committee: u64,
    keys: Vec<(LocalId, [u8; 32])>,
    /// How many of them are symmetric, while keys move.
    moved: usize,
}

/// What a look at a group has found.
#[derive(Default)]
struct Found {
    batches: Vec<Batch>,
    /// Keys that are due, those that are postponed or left for the next look among them.
    due: u64,
    /// When the first of the others will be, ms.
    next: Option<u64>,
    /// Whether the group's keys are on their way to other members, and how many still are with the old ones.
    moving: Option<u64>,
}

/// Renews what is due, again and again.
pub async fn run(parts: Arc<Parts>) {
    let mut renewer = Renewer::new(parts);
    let mut ticks = tokio::time::interval(TICK);
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
            .filter(|status| status.group.0 > 0 && moves::conducts(&self.parts, status))
            .map(|status| status.group)
            .collect();
        self.looks.retain(|group, _| led.contains(group));
        self.parts
            .renewals
            .lock()
            .waits
            .retain(|group, _| led.contains(group));
        self.postponed.retain(|_, until| *until > Instant::now());
        for group in led {
            // A group whose members change is looked at at once, whenever it was to be.
            let moving = self.parts.roster(group).is_ok_and(|roster| roster.next.is_some());
            let now = Instant::now();
            let latest = if moving { now + TICK } else { now + 2 * LOOK.1 };
            let is_later = |(at, _): &(Instant, u64)| *at > now && *at <= latest;
            if self.looks.get(&group).is_some_and(is_later) {
                continue;
            }
            let found = self.renew_group(group).await;
            let mut renewals = self.parts.renewals.lock();
            match found.moving {
                Some(left) => drop(renewals.unmoved.insert(group, left)),
                None => drop(renewals.unmoved.remove(&group)),
            }
            drop(renewals);
            let until_next = found.next.map_or(LOOK.1, |next| {
                Duration::from_millis(next.saturating_sub(self.parts.now().unwrap_or(next)))
            });
            let pause = match found.due {
                _ if found.moving.is_some() => TICK,
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
        let Ok(roster) = parts.roster_in(&view) else {
            return Found::default();
        };
        let moving_to = roster.next.is_some().then(|| roster.births().index);
        // What operators have ordered they want soon, and a group whose keys move has two lists of members that decide.
        let pressing = moving_to.is_some() || now.saturating_sub(self.ordered) < ORDERED;
        if !pressing && policy.rests(now) {
            return Found::default();
        }
        let looked = tokio::task::spawn_blocking(move || look(&view, due, (now, moving_to), &skipped));
        let mut found = match looked.await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(%group, %error, "keys could not be looked through for old shares");
                return Found::default();
            }
            Err(_) => return Found::default(),
        };
        let patience = if pressing { MOMENT } else { QUIET };
        for batch in std::mem::take(&mut found.batches) {
            parts.quiet(patience).await;
            let began = Instant::now();
            let count = batch.keys.len() as u64;
            let left = self.renew_batch(&batch).await;
            found.due -= count - left;
            if let Some(unmoved) = &mut found.moving {
                *unmoved -= count - left;
                parts.renewals.lock().unmoved.insert(group, *unmoved);
            }
            let pace = Duration::from_secs(count) / policy.keys_per_second.max(1);
            tokio::time::sleep(pace.saturating_sub(began.elapsed())).await;
        }
        found
    }

    /// Renews a batch; if that fails, each of its keys by itself, so that one that cannot be renewed keeps no other from it. How
    /// many are left.
    async fn renew_batch(&mut self, batch: &Batch) -> u64 {
        let all = batch.keys.len() as u64;
        let group = self.parts.group_of(&batch.keystore);
        let reason = match renew(&self.parts, batch).await {
            Ok(()) => {
                self.parts.metrics.renewed.inc_by(all);
                self.parts.renewals.lock().waits.remove(&group);
                return 0;
            }
            Err(Failed::Away(node)) => {
                self.parts.metrics.awaited.get_or_create(&OfNode { node }).inc();
                format!("node {node} is away, and every member has to take part")
            }
            // Each by itself would only be more to do.
            Err(Failed::Busy(reason)) => reason,
            Err(Failed::Because(reason)) if all == 1 => reason,
            Err(Failed::Because(reason)) => {
                let mut left = 0;
                for key in &batch.keys {
                    let alone = Batch {
                        keys: vec![*key],
                        ..batch.clone()
                    };
                    left += Box::pin(self.renew_batch(&alone)).await;
                }
                tracing::warn!(keystore = %batch.keystore, reason, left, "keys were renewed one by one");
                return left;
            }
        };
        self.parts.metrics.failed_renewals.inc();
        self.parts.renewals.lock().waits.insert(group, reason.clone());
        tracing::warn!(keystore = %batch.keystore, reason, "shares that are due could not be renewed");
        let roster = self.parts.roster(group);
        let pause = match roster.is_ok_and(|roster| roster.next.is_some()) {
            true => MOMENT,
            false => POSTPONED,
        };
        self.postponed.insert(batch.keystore, Instant::now() + pause);
        all
    }
}

/// The keys that are due, keystore by keystore; blocks on the disk.
fn look(
    view: &View,
    (policy, ordered): (Policy, u64),
    (now, moving_to): (u64, Option<u64>),
    skipped: &[LocalId],
) -> Result<Found, StateError> {
    let mut found = Found {
        moving: moving_to.map(|_| 0),
        ..Found::default()
    };
    for stored in keys(view) {
        let Stored {
            keystore,
            key,
            record,
        } = stored?;
        match moving_to {
            // Keys move first; those that have are young.
            Some(committee) if record.committee == committee => continue,
            Some(_) => found.moving = found.moving.map(|left| left + 1),
            None => {
                let shared_at = query::shared_at(view, &keystore, &key, &record)?;
                let Some(due) = policy.due(shared_at, ordered) else {
                    continue;
                };
                if due > now {
                    found.next = Some(found.next.map_or(due, |next| next.min(due)));
                    continue;
                }
            }
        }
        found.due += 1;
        if skipped.contains(&keystore) {
            continue;
        }
        let moved = usize::from(moving_to.is_some() && record.material.sharing().is_some());
        let fits = |batch: &&mut Batch| {
            (batch.keystore, batch.committee) == (keystore, record.committee)
                && batch.keys.len() < MAX_RENEWED
                && batch.moved + moved <= MOST_MOVED
        };
        let (due, full) = ((key, record.session), found.batches.len() >= BATCHES);
        match found.batches.last_mut().filter(fits) {
            Some(batch) => {
                batch.keys.push(due);
                batch.moved += moved;
            }
            None if full => {}
            None => found.batches.push(Batch {
                keystore,
                committee: record.committee,
                keys: vec![due],
                moved,
            }),
        }
    }
    Ok(found)
}
