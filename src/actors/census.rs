//! What this node should hold of its groups' keys and does not, and which keys have no holder to spare: looked through now and
//! then. A share that is lost is noticed by nobody else, as long as enough others are there.

use std::sync::Arc;
use std::time::Duration;

use conclave_consensus::GroupId;

use super::parts::Parts;
use super::views::believed;
use crate::identifier::LocalId;
use crate::keystore::state::decode;
use crate::keystore::{KeyRecord, layout};
use crate::membership::SYMMETRIC_NEEDED;

/// The first look after a start, and the time between two.
const FIRST: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_secs(600);
/// A look waits for this long at most for the node to have less to do.
const QUIET: Duration = Duration::from_secs(60);
/// Keys of one read.
const PAGE: usize = 256;

/// What a look has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Keys of which this node should have a share, by their records, and has none.
    pub missing: u64,
    /// Symmetric keys that need every one of their holders.
    pub unspared: u64,
}

/// Looks for as long as the node runs.
pub async fn run(parts: Arc<Parts>) {
    tokio::time::sleep(FIRST).await;
    loop {
        parts.quiet(QUIET).await;
        let looked = tokio::task::spawn_blocking({
            let parts = parts.clone();
            move || look(&parts)
        });
        match looked.await {
            Ok(Ok(census)) => {
                if census.missing > 0 {
                    tracing::error!(keys = census.missing, "this node lacks its shares of keys");
                }
                *parts.census.lock() = census;
            }
            Ok(Err(error)) => tracing::warn!(error, "keys could not be looked through"),
            Err(_) => {}
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// One look; blocks on the disk.
pub(crate) fn look(parts: &Parts) -> Result<Census, String> {
    let mut census = Census::default();
    for group in (1..parts.rules.groups).map(GroupId) {
        // What cannot be read now is looked at the next time.
        let Ok(view) = believed(parts, group) else {
            continue;
        };
        if parts.is_outside(group) {
            continue;
        }
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = view.scan(layout::KEYS, after.as_deref(), PAGE).map_err(text)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (at, record) in &page {
                let Some(named) = layout::names_of_key(at) else {
                    continue;
                };
                let record: KeyRecord = decode(record).map_err(text)?;
                let sharing = record.material.sharing();
                if sharing.is_some_and(|sharing| sharing.holders.len() == SYMMETRIC_NEEDED) {
                    census.unspared += 1;
                }
                let holders = parts.numbered_in(&view, record.committee).map_err(text)?;
                let holds = match sharing {
                    Some(sharing) => sharing.holders.contains(&parts.node),
                    None => holders.member(parts.node).is_some(),
                };
                if holds && !has(parts, named, &record)? {
                    census.missing += 1;
                }
            }
        }
    }
    Ok(census)
}

/// Whether this node has its share, or it is on record that it was away and will get it.
fn has(parts: &Parts, (keystore, key): (LocalId, LocalId), record: &KeyRecord) -> Result<bool, String> {
    let index = parts.member(parts.node).map(|member| member.index);
    if index.is_some_and(|index| record.away.contains(&index)) {
        return Ok(true);
    }
    let sessions = parts.shares.sessions(&keystore.0, &key.0).map_err(text)?;
    Ok(sessions
        .iter()
        .any(|session| session.id.session == record.session))
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
