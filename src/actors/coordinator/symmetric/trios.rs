//! Who computes with this node: two other holders that are there, and that have not aborted too often.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{LOOK, PAUSE, RESTART, Use, list};
use crate::actors::symmetric::aborts::{Barred, Trio};
use crate::problem::Problem;

impl Use<'_> {
    /// Two other holders that are there, those that have not failed first; who garbles first changes with every attempt.
    pub(super) async fn garblers(
        &self,
        attempt: u8,
        failures: &BTreeMap<u64, u32>,
    ) -> Result<[u64; 2], Problem> {
        let parts = &self.work.parts;
        loop {
            let others = self.sharing.holders.iter().filter(|node| **node != parts.node);
            let (mut able, away): (Vec<u64>, Vec<u64>) =
                others.partition(|node| parts.network.connected(**node));
            if able.len() >= 2 {
                let turn = self.work.operation.counter.wrapping_add(attempt.into());
                let turns = usize::try_from(turn).unwrap_or(0) % able.len();
                able.rotate_left(turns);
                let failed = |node: &u64| {
                    let here = failures.get(node).copied().unwrap_or(0);
                    (here, parts.symmetric.has_failed(*node))
                };
                able.sort_by_key(failed);
                return self.allowed(&able);
            }
            // Counted from when the link was lost: only a restart is waited for.
            let waits = away.iter().all(|node| parts.symmetric.lost_for(*node) < RESTART);
            if !waits || self.work.left() < PAUSE || !self.weighed.is_fresh() {
                return Err(Problem::unavailable(format!(
                    "A symmetric key needs three of its holders, and {} cannot be reached: it works again when one is \
                     back. With a fourth node it would go on.",
                    list(&away)
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The first two of these that have not aborted too often with this node.
    fn allowed(&self, able: &[u64]) -> Result<[u64; 2], Problem> {
        let aborts = self.work.parts.symmetric.aborts.lock();
        let pairs =
            (1..able.len()).flat_map(|second| (0..second).map(move |first| [able[first], able[second]]));
        let (key, now) = (self.key_name(), Instant::now());
        let mut barred = None;
        for garblers in pairs {
            match aborts.check(self.trio(garblers), &key, now) {
                Ok(()) => return Ok(garblers),
                Err(why) => barred = Some(why),
            }
        }
        Err(match barred {
            Some(Barred::Paused(left)) => Problem {
                retry_after: u32::try_from(left.as_secs() + 1).ok(),
                ..Problem::unavailable(
                    "What the holders of this key computed did not fit together, more than once; it is tried again later.",
                )
            },
            _ => Problem::unavailable(
                "The holders of this key have been stopped after ten computations that did not fit together; an operator \
                 must look at this node's log.",
            ),
        })
    }

    pub(super) fn succeeded(&self, garblers: [u64; 2]) {
        let mut aborts = self.work.parts.symmetric.aborts.lock();
        aborts.succeeded(self.trio(garblers), &self.key_name());
    }

    pub(super) fn aborted(&self, garblers: [u64; 2]) {
        let parts = &self.work.parts;
        parts.metrics.aborts.inc();
        tracing::error!(
            ?garblers,
            "a computation was aborted: one of the garblers is corrupt, or a disk"
        );
        let trio = self.trio(garblers);
        let mut aborts = parts.symmetric.aborts.lock();
        if aborts.aborted(trio, &self.key_name(), Instant::now()) {
            tracing::error!(
                ?trio,
                "these three are asked no more: find out which of them is corrupt, then restart this node"
            );
        }
    }

    fn trio(&self, [first, second]: [u64; 2]) -> Trio {
        let mut trio = [first, second, self.work.parts.node];
        trio.sort_unstable();
        trio
    }
}
