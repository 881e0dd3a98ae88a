//! Which keystores would stop with one more node down, as one node sees the others.

use conclave_consensus::GroupId;

use crate::actors::parts::Parts;
use crate::actors::views::keys;
use crate::identifier::LocalId;
use crate::membership::SYMMETRIC_NEEDED;
use crate::telemetry::status::{MAX_OPEN_LISTED, SymmetricStatus};

/// Keys that are looked at before `/status/symmetric` answers with what it has.
const MAX_KEYS: usize = 1_000_000;

/// Which keystores would stop with one more node down, as this node sees the others. A use of a symmetric key needs three
/// of its holders.
pub(super) fn symmetric(parts: &Parts) -> SymmetricStatus {
    let is_there = |node: &&u64| **node == parts.node || parts.network.connected(**node);
    let mut status = SymmetricStatus {
        complete: true,
        ..SymmetricStatus::default()
    };
    let mut looked = 0;
    // What is on other nodes those tell.
    let here = (1..parts.rules.groups).map(GroupId);
    for group in here.filter(|group| !parts.is_outside(*group)) {
        let Ok(view) = parts.consensus.view(group) else {
            status.complete = false;
            continue;
        };
        // Keys of one keystore follow each other: the one with the fewest holders counts.
        let mut worst: Option<(LocalId, usize)> = None;
        for stored in keys(&view).flatten() {
            if let Some(sharing) = stored.record.material.sharing() {
                status.keys += 1;
                let there = sharing.holders.iter().filter(is_there).count();
                match &mut worst {
                    Some((same, fewest)) if *same == stored.keystore => *fewest = there.min(*fewest),
                    other => status.count(other.replace((stored.keystore, there))),
                }
            }
            looked += 1;
            if looked >= MAX_KEYS {
                status.complete = false;
                break;
            }
        }
        status.count(worst);
    }
    status
}

impl SymmetricStatus {
    /// Takes a keystore with the holders of its worst key that are there.
    fn count(&mut self, keystore: Option<(LocalId, usize)>) {
        let Some((keystore, there)) = keystore.filter(|(_, there)| *there <= SYMMETRIC_NEEDED) else {
            return;
        };
        match there < SYMMETRIC_NEEDED {
            true => self.stopped += 1,
            false => self.at_risk += 1,
        }
        if self.keystores.len() < MAX_OPEN_LISTED {
            self.keystores.push(keystore.to_string());
        }
    }
}
