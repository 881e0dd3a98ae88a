//! The first state of a new node's groups, put there from a backup in place of nothing.
//!
//! Only where `init` has been and no start: the permission to create empty groups is exchanged for one to create them with
//! this state. In between nothing starts ([`OpenError::RestoreUnderWay`]), and a restore that was broken off begins anew.
//! Every node must be given the same pairs in the same order: peers compare the hash over them when they meet.

use crate::ids::GroupId;
use crate::keys;
use crate::opening::{self, OpenError};
use crate::records::{self, Bootstrap, FIRST_GENERATION, Restore};
use crate::rocks::RocksStore;
use crate::settings::{MAX_PAIR, Settings};
use crate::store::{Batch, Store, StoreError};
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::sync::Arc;

/// Bytes that are written at a time.
const BATCH_BYTES: u64 = 1024 * 1024;

/// A restore under way.
pub struct Restoration<S: Store = RocksStore> {
    store: Arc<S>,
    settings: Settings,
    states: Vec<Sha256>,
    batch: Batch,
    bytes: u64,
}

impl Restoration {
    /// Begins in the database at `path`, which `init` made for this node and nothing has started from.
    ///
    /// # Errors
    /// [`OpenError::AlreadyInitialized`] once the node has started; what the disk says.
    pub fn begin(path: &Path, settings: Settings) -> Result<Self, OpenError> {
        Self::begin_on(Arc::new(RocksStore::open(path)?), settings)
    }
}

impl<S: Store> Restoration<S> {
    /// The same on an open store.
    ///
    /// # Errors
    /// As [`Restoration::begin`].
    pub fn begin_on(store: Arc<S>, settings: Settings) -> Result<Self, OpenError> {
        opening::validate_voter(&settings)?;
        opening::check_identity(&*store, &settings)?;
        let bootstrap = records::read::<Bootstrap>(&*store, &keys::bootstrap())?;
        let begun = records::read::<Restore>(&*store, &keys::restore())?;
        match (bootstrap, begun) {
            (Some(record), _) if record.groups != settings.groups || record.voters != settings.voters => {
                return Err(OpenError::Bootstrap);
            }
            (None, None) => return Err(OpenError::AlreadyInitialized),
            _ => {}
        }
        let mut batch = Batch::default();
        batch.delete(keys::bootstrap());
        batch.put(keys::restore(), records::encode(&Restore::UnderWay)?);
        let states = keys::all_states();
        batch.delete_range(states.clone(), keys::after_prefix(&states));
        store.write(&batch, true)?;
        Ok(Self {
            states: (0..settings.groups).map(|_| Sha256::new()).collect(),
            store,
            settings,
            batch: Batch::default(),
            bytes: 0,
        })
    }

    /// Puts one pair of a group's state.
    ///
    /// # Errors
    /// A pair that no state has, or what the disk says.
    pub fn put(&mut self, group: GroupId, key: &[u8], value: &[u8]) -> Result<(), OpenError> {
        let state = usize::try_from(group.0)
            .ok()
            .and_then(|at| self.states.get_mut(at));
        let state = state.ok_or(OpenError::Settings("a pair of a group that is not there"))?;
        if key.is_empty() || key.len() + value.len() > MAX_PAIR {
            return Err(OpenError::Settings("a pair that is too long"));
        }
        for part in [key, value] {
            state.update((part.len() as u64).to_be_bytes());
            state.update(part);
        }
        let full = [&keys::state(group, FIRST_GENERATION), key].concat();
        self.bytes += (full.len() + value.len()) as u64;
        self.batch.put(full, value.to_vec());
        if self.bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.bytes = 0;
        self.store.write(&std::mem::take(&mut self.batch), false)
    }

    /// Everything is here: the next start creates the groups with it. The hash over all of it, the same on every node.
    ///
    /// # Errors
    /// What the disk says.
    pub fn finish(mut self) -> Result<[u8; 32], OpenError> {
        self.flush()?;
        let states: Vec<[u8; 32]> = self
            .states
            .into_iter()
            .map(|state| state.finalize().into())
            .collect();
        let all = Sha256::digest(states.concat()).into();
        let record = Restore::Whole {
            groups: self.settings.groups,
            voters: self.settings.voters,
            states,
        };
        let mut batch = Batch::default();
        batch.put(keys::restore(), records::encode(&record)?);
        self.store.write(&batch, true)?;
        Ok(all)
    }
}
