//! Envelopes of members that were away when a key was made: kept with the share, handed out, confirmed.

use std::sync::atomic::Ordering;

use crate::error::Error;
use crate::identity::{OpenEnvelope, ShareId};
use crate::record::{ENVELOPE, EnvelopeRecord, above, decode, envelope_key, id_of};
use crate::store::{Entry, PAGE_LIMIT, ShareStore, database, written};

impl ShareStore {
    /// Envelopes that wait for a member, in the order of their names, after `after`, `limit` at most.
    pub fn envelopes_for(
        &self,
        member: u16,
        after: Option<&ShareId>,
        limit: usize,
    ) -> Result<Vec<OpenEnvelope>, Error> {
        let [high, low] = member.to_be_bytes();
        let prefix = vec![ENVELOPE, high, low];
        let end = above(&prefix);
        // The key of `after` itself is the shortest that is above it, with one byte more.
        let begin = after.map_or(prefix, |id| [envelope_key(member, id), vec![0]].concat());
        let open = |entry: Result<Entry, Error>| {
            let (key, value) = entry?;
            let place = id_of(&key)?;
            let record: EnvelopeRecord = decode(&value)?;
            let id = ShareId {
                key_type: record.key_type,
                epoch: record.epoch,
                ..place
            };
            Ok(OpenEnvelope {
                id,
                bytes: record.bytes,
            })
        };
        self.range(begin, end)
            .take(limit.min(PAGE_LIMIT))
            .map(open)
            .collect()
    }

    /// The member has its share on disk: its envelope goes. `false` if there was none. Not synced: after a crash the
    /// envelope may be back and is confirmed again.
    pub fn confirm(&self, member: u16, id: &ShareId) -> Result<bool, Error> {
        let _changes = self.changes.lock();
        let key = envelope_key(member, id);
        if self.database.get_pinned(&key).map_err(database)?.is_none() {
            return Ok(false);
        }
        written(self.database.delete(key))?;
        self.open_envelopes.fetch_sub(1, Ordering::Relaxed);
        Ok(true)
    }

    /// How many envelopes wait, for all members.
    pub fn open_envelopes(&self) -> u64 {
        self.open_envelopes.load(Ordering::Relaxed)
    }
}
