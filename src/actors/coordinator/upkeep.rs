//! What a node does now and then without being asked: destroy shares that no key refers to, let time pass in idle groups,
//! finish what a dead coordinator left, forget what has expired, count on record what was refused in a flood.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::GroupId;
use conclave_shares::{Session, ShareId};

use super::change::{self, pass_time};
use super::{Caller, Work, rests_on_state};
use crate::actors::decide::record_held_back;
use crate::actors::parts::Parts;
use crate::actors::views::{Stored, believed, keys};
use crate::identifier::LocalId;
use crate::keystore::apply::CEREMONY_LIFE;
use crate::keystore::query;
use crate::membership::FIRST;
use crate::overload::Class;

/// How often it looks.
const CHORES: Duration = Duration::from_secs(5);
/// Shares of one read.
const PAGE: usize = 256;
/// A group whose last entry is older than this gets one of time, ms.
const IDLE: u64 = 60_000;

/// Does all of it, again and again.
pub async fn chores(parts: Arc<Parts>) {
    let mut swept = HashMap::new();
    let mut ticks = tokio::time::interval(CHORES);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        if let Ok(now) = parts.now() {
            record_held_back(&parts, now);
            parts.denials.lock().sweep(now);
            let moment = parts.moment(now);
            parts.replays.lock().advance(moment);
            idle_groups(&parts, now).await;
            orphans(&parts, now).await;
        }
        let settled = tokio::task::spawn_blocking({
            let parts = parts.clone();
            move || settle(&parts, CEREMONY_LIFE)
        });
        if let Ok(Err(error)) = settled.await {
            tracing::warn!(error, "shares could not be looked through");
        }
        for group in (1..parts.rules.groups).map(GroupId) {
            sweep_moved(&parts, group, &mut swept).await;
        }
        if !parts.renewals.lock().is_erased() {
            let none_left = !parts.holds_any_share();
            if parts.renewals.lock().take_erasure(Instant::now(), none_left) {
                erase(&parts).await;
            }
        }
    }
}

async fn idle_groups(parts: &Arc<Parts>, now: u64) {
    for status in parts.consensus.status() {
        if status.leader != Some(parts.node) {
            continue;
        }
        let last = parts
            .consensus
            .view(status.group)
            .ok()
            .and_then(|view| query::last_time(&view).ok());
        if last.is_some_and(|last| last > 0 && last + IDLE < now)
            && let Err(problem) = pass_time(parts, status.group).await
        {
            tracing::debug!(group = %status.group, reason = problem.message, "no entry of time");
        }
    }
}

/// Finishes the revocations and removals that this member endorsed and whose coordinator died: their client signed
/// them and got no answer, so that they are to be made, or refused, and not half of each.
pub(crate) async fn orphans(parts: &Arc<Parts>, now: u64) {
    let orphans = parts.denials.lock().orphans(now);
    for (keystore, operation, request) in orphans {
        let work = Work::new(parts, parts.next_operation(), request, Caller::Itself);
        let finished = work.turn_of(Class::Changes).scope(change::apply(&work)).await;
        match finished {
            Ok(_) => tracing::info!(%keystore, "a change whose coordinator died was finished here"),
            // Confirmed: made already, or never to be made. What the state says holds everywhere.
            Err(problem) if rests_on_state(&problem) => {}
            Err(problem) => {
                tracing::debug!(%keystore, reason = problem.message, "a change is left for later");
                // What was endorsed in this attempt; the first endorsement still denies.
                parts.denials.lock().decided(&keystore, &work.operation);
                continue;
            }
        }
        parts.denials.lock().decided(&keystore, &operation);
    }
}

/// A share is live when the replicated state names its ceremony. One that no key names is an orphan once the
/// group's applied time is past the ceremony's life: then no entry can name it any more. Looks at shares older than `age`,
/// ms; blocks on the disk.
pub(crate) fn settle(parts: &Parts, age: u64) -> Result<(), String> {
    // A backup is made of what there is: it may be later.
    let Some(_alone) = parts.removal.try_write() else {
        return Ok(());
    };
    let latest = (1..parts.rules.groups)
        .filter_map(|group| applied_time(parts, GroupId(group)))
        .max()
        .unwrap_or(0);
    let before = latest.saturating_sub(age);
    let mut after: Option<Session> = None;
    loop {
        // What cannot be decided yet stays on the list, and keeps nobody from what follows.
        let page = parts
            .shares
            .unsettled(before, after.as_ref(), PAGE)
            .map_err(text)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        for session in &page {
            settle_one(parts, session)?;
        }
    }
}

fn settle_one(parts: &Parts, session: &Session) -> Result<(), String> {
    let ShareId { keystore, key, .. } = &session.id;
    let (keystore, key) = (LocalId(*keystore), LocalId(*key));
    // One view for the record and the time: between two, the entry that names this share could be applied.
    let Ok(view) = believed(parts, parts.group_of(&keystore)) else {
        return Ok(());
    };
    let record = query::key(&view, &keystore, &key).map_err(text)?;
    if let Some(record) = record.filter(|record| record.session == session.id.session) {
        // The members that a key comes from may be asked for it until the last key has moved and they no longer vote.
        let roster = parts.roster_in(&view).map_err(text)?;
        if roster.current.index < record.committee {
            return Ok(());
        }
        remove_replaced(parts, &session.id)?;
        return parts.shares.settle(session).map_err(text);
    }
    if query::last_time(&view).map_err(text)? > session.started_ms + CEREMONY_LIFE {
        parts.shares.remove_session(&session.id).map_err(text)?;
        parts.renewals.lock().removed(Instant::now());
    }
    Ok(())
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// The shares of a key's earlier epochs, once those of this one are live.
fn remove_replaced(parts: &Parts, live: &ShareId) -> Result<(), String> {
    let sessions = parts.shares.sessions(&live.keystore, &live.key).map_err(text)?;
    for old in sessions
        .into_iter()
        .filter(|session| session.id.epoch < live.epoch)
    {
        remove_old(parts, &old.id)?;
    }
    Ok(())
}

fn remove_old(parts: &Parts, old: &ShareId) -> Result<(), String> {
    parts.shares.remove_session(old).map_err(text)?;
    parts.open_keys.lock().remove(old);
    parts.symmetric.forget(old);
    parts.renewals.lock().removed(Instant::now());
    Ok(())
}

/// Once a group's members have changed: removes the shares of earlier epochs that this node holds and nobody asks for any more,
/// also where it is a member no longer. `swept` remembers for which list of members that was done.
pub(crate) async fn sweep_moved(parts: &Arc<Parts>, group: GroupId, swept: &mut HashMap<GroupId, u64>) {
    let Ok(roster) = parts.roster(group) else { return };
    let index = roster.current.index;
    if roster.next.is_some() || index == FIRST || swept.get(&group) == Some(&index) {
        return;
    }
    let removed = tokio::task::spawn_blocking({
        let parts = parts.clone();
        move || {
            parts
                .removal
                .try_write()
                .map(|_alone| remove_passed(&parts, group))
        }
    });
    let Ok(Some(removed)) = removed.await else {
        return;
    };
    match removed {
        Ok(0) => drop(swept.insert(group, index)),
        Ok(removed) => {
            tracing::info!(%group, removed, "shares of members that there were are gone");
            swept.insert(group, index);
        }
        Err(error) => tracing::warn!(%group, error, "old shares could not be removed"),
    }
}

/// Removes what this node holds of all earlier epochs in a group; how much that was. Blocks on the disk.
fn remove_passed(parts: &Parts, group: GroupId) -> Result<usize, String> {
    let view = believed(parts, group).map_err(text)?;
    let mut removed = 0;
    for stored in keys(&view) {
        let Stored {
            keystore,
            key,
            record,
        } = stored.map_err(text)?;
        let sessions = parts.shares.sessions(&keystore.0, &key.0).map_err(text)?;
        for old in sessions
            .into_iter()
            .filter(|session| session.id.epoch < record.epoch)
        {
            remove_old(parts, &old.id)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Makes unreadable what was removed: until then its sealed bytes are in the database's files, with the key that opens
/// them beside them.
async fn erase(parts: &Arc<Parts>) {
    let rotated = tokio::task::spawn_blocking({
        let parts = parts.clone();
        move || parts.shares.rotate()
    });
    match rotated.await {
        Ok(Ok(())) => tracing::info!("shares of earlier epochs are gone: the epoch key is a new one"),
        Ok(Err(error)) => {
            parts.renewals.lock().removed(Instant::now());
            tracing::warn!(%error, "the epoch key could not be replaced; it will be tried again");
        }
        Err(_) => {}
    }
}

fn applied_time(parts: &Parts, group: GroupId) -> Option<u64> {
    let view = parts.consensus.view(group).ok()?;
    query::last_time(&view).ok()
}
