//! Reading the next chunk of a snapshot: the part that may wait for a disk, done beside the store loop.

use crate::ids::{GroupId, NodeId};
use crate::keys;
use crate::store::{Pair, Reading, StoreError};
use std::sync::Arc;

/// Pairs read from the store at a time.
const PAGE: usize = 256;

/// One chunk to read. [`SnapshotRead::run`] it on any thread and give the result back to
/// [`crate::Driver::chunk_read`].
pub struct SnapshotRead {
    pub(crate) group: GroupId,
    pub(crate) peer: NodeId,
    pub(crate) id: u64,
    pub(crate) reading: Arc<dyn Reading>,
    pub(crate) prefix: Vec<u8>,
    /// The last key of the chunk before, without prefix.
    pub(crate) after: Option<Vec<u8>>,
    pub(crate) budget: usize,
}

/// What was read.
pub struct ChunkRead {
    pub(crate) group: GroupId,
    pub(crate) peer: NodeId,
    pub(crate) id: u64,
    pub(crate) result: Result<(Vec<Pair>, bool), StoreError>,
}

impl SnapshotRead {
    /// Reads pairs until the budget is reached.
    pub fn run(self) -> ChunkRead {
        let result = self.pairs();
        ChunkRead {
            group: self.group,
            peer: self.peer,
            id: self.id,
            result,
        }
    }

    fn pairs(&self) -> Result<(Vec<Pair>, bool), StoreError> {
        let end = keys::after_prefix(&self.prefix);
        let full = |key: &[u8]| [&self.prefix[..], key].concat();
        let mut from = match &self.after {
            Some(after) => keys::after(&full(after)),
            None => self.prefix.clone(),
        };
        let (mut pairs, mut bytes) = (Vec::new(), 0);
        loop {
            let page = self.reading.scan(&from, &end, PAGE)?;
            let whole = page.len() < PAGE;
            for (key, value) in page {
                if bytes >= self.budget {
                    return Ok((pairs, false));
                }
                bytes += key.len() + value.len();
                from = keys::after(&key);
                pairs.push((key[self.prefix.len()..].to_vec(), value));
            }
            if whole {
                return Ok((pairs, true));
            }
        }
    }
}
