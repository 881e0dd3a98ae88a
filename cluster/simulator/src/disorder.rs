//! A replica that applies some entries in another order than the log's: a bug put in on purpose.

use crate::wrapped::{Wrapped, Wrapper};
use conclave_consensus::{Application, GroupId, Halt, StateTransaction};
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// One entry in so many is applied after the one that follows it.
const EVERY: u64 = 16;

/// An application as it would be if its replica lost the order of the log now and then.
pub struct Disorderly<A> {
    inner: A,
    /// The entry of each group that waits for the next one.
    kept_back: Mutex<BTreeMap<GroupId, (u64, Vec<u8>)>>,
}

impl<A: Application> Disorderly<A> {
    /// Around the real one.
    pub fn new(inner: A) -> Wrapped<Self> {
        Wrapped(Self {
            inner,
            kept_back: Mutex::default(),
        })
    }
}

impl<A: Application> Wrapper for Disorderly<A> {
    fn inner(&self) -> &dyn Application {
        &self.inner
    }

    fn apply(
        &self,
        group: GroupId,
        index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        if index.is_multiple_of(EVERY) {
            self.kept_back.lock().insert(group, (index, entry.to_vec()));
            return Ok(Vec::new());
        }
        let result = self.inner.apply(group, index, entry, state)?;
        let kept_back = self.kept_back.lock().remove(&group);
        if let Some((index, entry)) = kept_back {
            self.inner.apply(group, index, &entry, state)?;
        }
        Ok(result)
    }
}
