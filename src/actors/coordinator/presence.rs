//! Waiting for members whose link was lost a moment ago: a node that restarts is linked to again within a second or two, and what
//! can wait that long is not refused.

use std::time::Duration;

use super::Work;
use super::symmetric::{LOOK, RESTART};

/// What has to be left of a request's time to go on after waiting.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// Waits until enough of these are there, this node among them; no longer than a restart takes, counted from when the links were
/// lost, and not at all for who has been away for longer.
pub(super) async fn wait_for(work: &Work, members: &[u64], enough: impl Fn(&[u64]) -> bool) {
    let parts = &work.parts;
    loop {
        let is_there = |node: &u64| *node == parts.node || parts.network.connected(*node);
        let (there, away): (Vec<u64>, Vec<u64>) = members.iter().partition(|node| is_there(node));
        let restarting = away.iter().any(|node| parts.symmetric.lost_for(*node) < RESTART);
        if enough(&there) || !restarting || work.left() < AFTERWARDS {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}
