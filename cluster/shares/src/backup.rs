//! Reading everything, for a backup: the names of all shares, and the shares themselves, opened one page at a time.

use crate::error::Error;
use crate::identity::{Session, ShareId};
use crate::record::{SHARE, above, id_of, share_key};
use crate::secret::SecretBytes;
use crate::store::{PAGE_LIMIT, ShareStore};

impl ShareStore {
    /// The places of shares after the place of `after`, in order, `limit` at most. Type and epoch are empty: only an opened
    /// share's record is believed.
    pub fn places(&self, after: Option<&ShareId>, limit: usize) -> Result<Vec<ShareId>, Error> {
        // The key of `after` itself is the shortest that is above it, with one byte more.
        let begin = after.map_or(vec![SHARE], |id| [share_key(id), vec![0]].concat());
        self.range(begin, above(&[SHARE]))
            .take(limit.min(PAGE_LIMIT))
            .map(|entry| id_of(&entry?.0))
            .collect()
    }

    /// The share at a place with its name, opened; `None` if it has been removed. [`Error::Quarantine`] if it is not what
    /// was put.
    pub fn open_at(&self, place: &ShareId) -> Result<Option<(Session, SecretBytes)>, Error> {
        let read = self.read(place)?;
        Ok(read.map(|(record, secret)| (record.session(place), secret)))
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::OsRng;

    use super::*;
    use crate::secret::NodeKey;

    #[test]
    fn every_share_is_named_once_and_opens_at_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let key = NodeKey::new(Box::new([1; 32]));
        let (shares, epochs) = (folder.path().join("shares"), folder.path().join("epochs"));
        let store = ShareStore::open(&shares, &epochs, key, [2; 32], 3, OsRng).unwrap();
        assert!(store.places(None, 10).unwrap().is_empty());
        let id = |number: u8| ShareId {
            keystore: [number / 4; 16],
            key: [number; 16],
            session: [number; 32],
            key_type: "t".into(),
            epoch: 7,
        };
        for number in 0..10 {
            store
                .put(&id(number), &[number; 5], &[], u64::from(number))
                .unwrap();
        }
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = store.places(after.as_ref(), 3).unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            found.extend(page);
        }
        assert_eq!(found.len(), 10);
        for (number, place) in (0..).zip(&found) {
            let (session, secret) = store.open_at(place).unwrap().unwrap();
            assert_eq!(
                (&session.id, session.started_ms),
                (&id(number), u64::from(number))
            );
            assert!(secret.expose() == [number; 5]);
        }
        store.remove_session(&id(4)).unwrap();
        assert!(store.open_at(&id(4)).unwrap().is_none());
    }
}
