//! Whether a disk may be used, and what a start does to it before the groups are opened (consensus.md 4).

use crate::ids::{GroupId, NodeId};
use crate::keys;
use crate::records::{self, Bootstrap, Identity, Joining, Restore};
use crate::settings::Settings;
use crate::store::{Batch, Store, StoreError};
use std::collections::BTreeSet;

/// Why a disk is not used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Neither groups nor permission to create them: a new or wiped disk. Only a new node id may join.
    #[error(
        "the data directory is empty: run `conclave init` for a new cluster, or join under a new node id"
    )]
    Joining,
    /// Another version of the program wrote it. Nothing was changed.
    #[error(
        "the database has format {found}, and this version knows format {known}: start the version that wrote it"
    )]
    Format {
        /// Its format.
        found: u32,
        /// That of this version.
        known: u32,
    },
    /// The disk belongs to another cluster or node.
    #[error("the disk belongs to cluster {cluster}, node {node}")]
    Mismatch {
        /// First bytes of the cluster's identity, in hex.
        cluster: String,
        /// The node that it belongs to.
        node: NodeId,
    },
    /// `init` on a disk that has something.
    #[error("the disk is already initialized")]
    AlreadyInitialized,
    /// Groups are missing and no bootstrap record allows to create them.
    #[error("the disk lacks {0}, and nothing allows to create it again")]
    GroupMissing(GroupId),
    /// A restore was begun and not brought to its end.
    #[error("a restore was broken off: run `conclave restore run` again")]
    RestoreUnderWay,
    /// The bootstrap record differs from the settings.
    #[error("the bootstrap record names other groups or voters than the configuration")]
    Bootstrap,
    /// The node is not among the voters, or a setting cannot be.
    #[error("settings: {0}")]
    Settings(&'static str),
    /// The disk failed or is corrupt: the node is quarantined.
    #[error("the disk cannot be used")]
    Store(#[from] StoreError),
}

pub(crate) fn validate(settings: &Settings) -> Result<(), OpenError> {
    let unique: BTreeSet<_> = settings.voters.iter().collect();
    let wrong = match () {
        () if settings.node == 0 || settings.voters.contains(&0) => "a node id of 0",
        () if unique.len() != settings.voters.len() => "a voter is named twice",
        () if settings.groups == 0 || settings.groups > 4_096 => "groups must be 1 to 4096",
        () if !settings
            .placed
            .values()
            .flatten()
            .all(|node| unique.contains(node)) =>
        {
            "a group is placed on a node that is no voter"
        }
        () if settings.heartbeat_ticks == 0 || settings.election_ticks <= settings.heartbeat_ticks => {
            "an election must take longer than a heartbeat"
        }
        () if settings.tick_ms == 0 => "a tick of no length",
        () => return Ok(()),
    };
    Err(OpenError::Settings(wrong))
}

/// A group begins with its voters.
pub(crate) fn validate_voter(settings: &Settings) -> Result<(), OpenError> {
    validate(settings)?;
    if settings.voters.contains(&settings.node) {
        Ok(())
    } else {
        Err(OpenError::Settings("this node is not among the voters"))
    }
}

/// Whatever is there, it is not a new disk.
pub(crate) fn check_empty<S: Store>(store: &S) -> Result<(), OpenError> {
    match store.scan(&[], &[u8::MAX], 1)?.is_empty() {
        true => Ok(()),
        false => Err(OpenError::AlreadyInitialized),
    }
}

pub(crate) fn check_identity<S: Store>(store: &S, settings: &Settings) -> Result<(), OpenError> {
    let record = store.get(&keys::identity())?.ok_or(OpenError::Joining)?;
    let identity = records::identity_of(&record)?;
    if identity.format != records::FORMAT {
        return Err(OpenError::Format {
            found: identity.format,
            known: records::FORMAT,
        });
    }
    let ours = Identity {
        cluster: settings.cluster,
        node: settings.node,
        format: records::FORMAT,
    };
    if identity != ours {
        let cluster = identity.cluster[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        return Err(OpenError::Mismatch {
            cluster,
            node: identity.node,
        });
    }
    Ok(())
}

/// Creates the groups and removes the permission to, in one synced batch.
pub(crate) fn consume_bootstrap<S: Store>(store: &S, settings: &Settings) -> Result<(), OpenError> {
    let Some(record) = records::read::<Bootstrap>(store, &keys::bootstrap())? else {
        return Ok(());
    };
    let expected = Bootstrap {
        groups: settings.groups,
        voters: settings.voters.clone(),
    };
    if record != expected {
        return Err(OpenError::Bootstrap);
    }
    let mut batch = Batch::default();
    for group in (0..record.groups).map(GroupId) {
        create(&mut batch, group, settings, [0; 32])?;
    }
    batch.delete(keys::bootstrap());
    store.write(&batch, true)?;
    Ok(())
}

/// Creates a group with what its state begins with; where this node is none of its voters, with nothing.
fn create(batch: &mut Batch, group: GroupId, settings: &Settings, state: [u8; 32]) -> Result<(), StoreError> {
    let voters = settings.voters_of(group);
    if voters.contains(&settings.node) {
        return records::create_group(batch, group, voters, state);
    }
    let states = keys::states(group);
    batch.delete_range(states.clone(), keys::after_prefix(&states));
    records::create_empty_group(batch, group)
}

/// Creates the groups with nothing in them and removes the permission to, in one synced batch.
pub(crate) fn consume_joining<S: Store>(store: &S, settings: &Settings) -> Result<(), OpenError> {
    let Some(record) = records::read::<Joining>(store, &keys::joining())? else {
        return Ok(());
    };
    if record.groups != settings.groups {
        return Err(OpenError::Bootstrap);
    }
    let mut batch = Batch::default();
    for group in (0..record.groups).map(GroupId) {
        records::create_empty_group(&mut batch, group)?;
    }
    batch.delete(keys::joining());
    store.write(&batch, true)?;
    Ok(())
}

/// Creates the groups with the state that a restore has put here, and removes the permission to, in one synced batch.
pub(crate) fn consume_restore<S: Store>(store: &S, settings: &Settings) -> Result<(), OpenError> {
    let (groups, voters, states) = match records::read::<Restore>(store, &keys::restore())? {
        None => return Ok(()),
        Some(Restore::UnderWay) => return Err(OpenError::RestoreUnderWay),
        Some(Restore::Whole {
            groups,
            voters,
            states,
        }) => (groups, voters, states),
    };
    if groups != settings.groups || voters != settings.voters || states.len() != groups as usize {
        return Err(OpenError::Bootstrap);
    }
    let mut batch = Batch::default();
    for (group, state) in (0..groups).map(GroupId).zip(states) {
        create(&mut batch, group, settings, state)?;
    }
    batch.delete(keys::restore());
    store.write(&batch, true)?;
    Ok(())
}

/// What a snapshot left behind that was never installed, or was replaced.
pub(crate) fn remove_nameless_generations<S: Store>(
    store: &S,
    group: GroupId,
    generation: u64,
) -> Result<(), StoreError> {
    let all = keys::states(group);
    let named = keys::state(group, generation);
    let mut batch = Batch::default();
    for (from, to) in [
        (all.clone(), named.clone()),
        (keys::after_prefix(&named), keys::after_prefix(&all)),
    ] {
        if !store.scan(&from, &to, 1)?.is_empty() {
            batch.delete_range(from, to);
        }
    }
    if batch.is_empty() {
        Ok(())
    } else {
        store.write(&batch, false)
    }
}
