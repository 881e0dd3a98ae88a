//! What this node should hold of its groups' keys and does not, and which keys have no holder to spare: looked through now and
//! then. A share that is lost is noticed by nobody else, as long as enough others are there.

use std::sync::Arc;
use std::time::Duration;

use conclave_consensus::GroupId;

use super::parts::Parts;
use super::views::{believed, keys};
use crate::membership::SYMMETRIC_NEEDED;

/// The first look after a start, and the time between two.
const FIRST: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_secs(600);
/// A look waits for this long at most for the node to have less to do.
const QUIET: Duration = Duration::from_secs(60);

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
        if parts.is_outside(group) {
            continue;
        }
        // What cannot be read now is looked at the next time.
        let Ok(view) = believed(parts, group) else {
            continue;
        };
        for stored in keys(&view) {
            let stored = stored.map_err(text)?;
            let record = &stored.record;
            let committee = parts.numbered_in(&view, record.committee).map_err(text)?;
            let is_member = committee.member(parts.node).is_some();
            census.missing += u64::from(parts.lacks_share(&stored, is_member).map_err(text)?);
            let sharing = record.material.sharing();
            let is_unspared = sharing.is_some_and(|sharing| sharing.holders.len() == SYMMETRIC_NEEDED);
            census.unspared += u64::from(is_unspared);
        }
    }
    Ok(census)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
