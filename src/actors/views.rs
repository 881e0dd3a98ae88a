//! The replicated state as the judgement and the reads want it: snapshots of the groups concerned, with the denials
//! that this member has endorsed laid over them when a use is judged.

use std::sync::Arc;

use conclave_consensus::{GroupId, View};

use super::coordinator::busy;
use super::parts::Parts;
use super::wire::Abstention;
use crate::identifier::LocalId;
use crate::keystore::record::{Hold, KeyRecord, KeystoreRecord, Meter};
use crate::keystore::state::{Pair, decode};
use crate::keystore::{ReadState, StateError, layout, query};
use crate::operation::judge::Facts;
use crate::problem::Problem;

/// The group that knows meters and nodes.
pub const GROUP_ZERO: GroupId = GroupId(0);

impl ReadState for View {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        View::get(self, key).map_err(|error| StateError(error.to_string()))
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> Result<Vec<Pair>, StateError> {
        View::scan(self, prefix, None, limit).map_err(|error| StateError(error.to_string()))
    }
}

/// Why nothing may rest on this node's state of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unbelieved {
    /// The store does not give it.
    #[error("the group's state cannot be read")]
    Unreadable,
    /// Nobody but its leader vouches for it.
    #[error("the group's state is not vouched for yet")]
    Unvouched,
}

impl From<Unbelieved> for Abstention {
    fn from(_: Unbelieved) -> Self {
        Self::Fenced
    }
}

impl From<Unbelieved> for Problem {
    /// 503.
    fn from(reason: Unbelieved) -> Self {
        match reason {
            Unbelieved::Unreadable => busy(),
            Unbelieved::Unvouched => {
                Self::unavailable("This node is being filled and does not serve yet; try another node.")
            }
        }
    }
}

/// A group's state, unless it is one node's word: what is answered by it could be wrong, and what is signed, destroyed or kept by
/// it could not be taken back.
///
/// # Errors
/// [`Unbelieved`].
pub(crate) fn believed(parts: &Parts, group: GroupId) -> Result<View, Unbelieved> {
    // Asked after the view: an installation says so before it writes.
    let view = parts.consensus.view(group).map_err(|_| Unbelieved::Unreadable)?;
    match parts.consensus.freshness().is_vouched_for(group) {
        true => Ok(view),
        false => Err(Unbelieved::Unvouched),
    }
}

/// A key in a group's state.
pub(crate) struct Stored {
    /// Its keystore.
    pub(crate) keystore: LocalId,
    /// Its id.
    pub(crate) key: LocalId,
    /// Its record.
    pub(crate) record: KeyRecord,
}

/// Keys of one read.
const PAGE: usize = 256;

/// Every key of a group's state, keystore by keystore; blocks on the disk. Nothing comes after a read that failed.
pub(crate) fn keys(view: &View) -> impl Iterator<Item = Result<Stored, StateError>> {
    let mut after = Some(None::<Vec<u8>>);
    let pages = std::iter::from_fn(move || {
        let begin = after.take()?;
        let page = view.scan(layout::KEYS, begin.as_deref(), PAGE);
        if let Ok(page) = &page {
            after = Some(Some(page.last()?.0.clone()));
        }
        Some(page.map_err(|error| StateError(error.to_string())))
    });
    pages.flat_map(|page| {
        let (page, failed) = match page {
            Ok(page) => (page, None),
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        page.into_iter().filter_map(|pair| stored(&pair)).chain(failed)
    })
}

fn stored((at, record): &Pair) -> Option<Result<Stored, StateError>> {
    let (keystore, key) = layout::names_of_key(at)?;
    Some(decode(record).map(|record| Stored {
        keystore,
        key,
        record,
    }))
}

/// Snapshots of group 0 and of a keystore's group.
pub struct Views {
    /// Group 0.
    pub zero: View,
    /// The keystore's group; group 0's again for requests about meters.
    pub own: View,
    /// Whose endorsed denials count, and at which time (ms): set when a use is judged.
    pub denials: Option<(Arc<Parts>, u64)>,
}

impl Facts for Views {
    fn keystore(&self, id: &LocalId) -> Result<Option<KeystoreRecord>, StateError> {
        let mut record = query::keystore(&self.own, id)?;
        if let (Some(record), Some((parts, now))) = (&mut record, &self.denials) {
            parts.denials.lock().restrict(id, record, *now);
        }
        Ok(record)
    }

    fn meter(&self, id: &LocalId) -> Result<Option<Meter>, StateError> {
        query::meter(&self.zero, id)
    }

    fn key(&self, keystore: &LocalId, id: &LocalId) -> Result<Option<KeyRecord>, StateError> {
        query::key(&self.own, keystore, id)
    }

    fn hold(&self, keystore: &LocalId) -> Result<Option<Hold>, StateError> {
        query::hold(&self.own, keystore)
    }

    fn revoked(&self, keystore: &LocalId, capability: &str, delegator: &str) -> Result<bool, StateError> {
        if let Some((parts, now)) = &self.denials
            && parts
                .denials
                .lock()
                .denies_link(keystore, capability, delegator, *now)
        {
            return Ok(true);
        }
        query::revoked(&self.own, keystore, capability, delegator)
    }
}
