//! The small records of the database, and how they and raft's own messages become bytes.

use crate::configuration::Configuration;
use crate::ids::{GroupId, NodeId};
use crate::keys;
use crate::settings::Settings;
use crate::store::{Batch, Reading, StoreError};
use protobuf::Message as _;
use raft::eraftpb::HardState;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The format of keys and records. Another one refuses to start.
pub(crate) const FORMAT: u32 = 1;

/// The first record: whose disk this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) cluster: [u8; 32],
    pub(crate) node: NodeId,
    pub(crate) format: u32,
}

/// Permission to create the groups, good for one start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bootstrap {
    pub(crate) groups: u32,
    pub(crate) voters: Vec<NodeId>,
}

/// Permission to create the groups with nothing in them, to be filled by their leaders; good for one start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joining {
    pub(crate) groups: u32,
}

/// The state of the groups that were put here from a backup, before the first start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Restore {
    /// Not all of it is here: nothing may start from it.
    UnderWay,
    /// Permission to create the groups with it, good for one start.
    Whole {
        groups: u32,
        voters: Vec<NodeId>,
        /// A hash over each group's state.
        states: Vec<[u8; 32]>,
    },
}

/// What a group's log and state start from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupRecord {
    /// The generation of state keys that is the group's state.
    pub(crate) generation: u64,
    pub(crate) truncated_index: u64,
    pub(crate) truncated_term: u64,
    /// Empty until a node that joins has installed its first snapshot.
    pub(crate) configuration: Configuration,
    /// Index of the entry that made this configuration.
    pub(crate) configuration_index: u64,
    /// Nodes that were in a configuration until lately, and the index of the entry that removed them.
    pub(crate) departed: Vec<(NodeId, u64)>,
}

/// The same from before configurations could change. Its bytes end where the newer record needs more, so that neither can
/// be taken for the other.
#[derive(Deserialize)]
struct UnchangingGroupRecord {
    generation: u64,
    truncated_index: u64,
    truncated_term: u64,
    voters: Vec<NodeId>,
    configuration_index: u64,
}

/// Nodes that left a group and are still known by name.
const MAX_DEPARTED: usize = 32;

impl GroupRecord {
    /// What the disk has of the group.
    pub(crate) fn read(from: &dyn Reading, group: GroupId) -> Result<Option<Self>, StoreError> {
        from.get(&keys::group(group))?
            .map(|bytes| Self::decode(&bytes))
            .transpose()
    }

    fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let error = match decode(bytes) {
            Ok(record) => return Ok(record),
            Err(error) => error,
        };
        let older: UnchangingGroupRecord = decode(bytes).map_err(|_| error)?;
        Ok(GroupRecord {
            generation: older.generation,
            truncated_index: older.truncated_index,
            truncated_term: older.truncated_term,
            configuration: Configuration::stable(&older.voters),
            configuration_index: older.configuration_index,
            departed: Vec::new(),
        })
    }

    /// An entry made this configuration.
    pub(crate) fn configure(&mut self, index: u64, configuration: Configuration) {
        let before = std::mem::replace(&mut self.configuration, configuration);
        self.configuration_index = index;
        let gone = before.nodes().into_iter().map(|node| (node, index));
        self.departed.extend(gone);
        self.departed
            .retain(|(node, _)| !self.configuration.contains(*node));
        let over = self.departed.len().saturating_sub(MAX_DEPARTED);
        self.departed.drain(..over);
    }

    /// The index of the entry that removed a node, if it was in a configuration until lately.
    pub(crate) fn departed_at(&self, node: NodeId) -> Option<u64> {
        let found = self.departed.iter().rev().find(|(departed, _)| *departed == node);
        found.map(|(_, index)| *index)
    }
}

/// How far the state has come. Written with every apply batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppliedRecord {
    pub(crate) index: u64,
    pub(crate) term: u64,
    /// Index of the last applied entry that restricts something; what statements to peers carry.
    pub(crate) restricting: u64,
    /// Hash chained over every applied entry and all that it wrote.
    pub(crate) chain: [u8; 32],
    /// What this node says of its state at the last index that is a multiple of 64, or at which a snapshot was installed; the
    /// first index if its state was put there from a backup, 0 if nothing was.
    pub(crate) mark: (u64, [u8; 32]),
}

/// Every group starts as a snapshot at this index and term (a joiner could otherwise be sent entries without
/// a configuration).
pub(crate) const FIRST_INDEX: u64 = 1;
pub(crate) const FIRST_TERM: u64 = 1;
/// The generation of a new group's state.
pub(crate) const FIRST_GENERATION: u64 = 1;

/// Writes everything that a new group consists of. `state` is the hash over what its state begins with, 0 if that is nothing:
/// the chain starts from it.
pub(crate) fn create_group(
    batch: &mut Batch,
    group: GroupId,
    voters: &[NodeId],
    state: [u8; 32],
) -> Result<(), StoreError> {
    let mark = match state == [0; 32] {
        true => 0,
        false => FIRST_INDEX,
    };
    let record = GroupRecord {
        generation: FIRST_GENERATION,
        truncated_index: FIRST_INDEX,
        truncated_term: FIRST_TERM,
        configuration: Configuration::stable(voters),
        configuration_index: FIRST_INDEX,
        departed: Vec::new(),
    };
    let applied = AppliedRecord {
        index: FIRST_INDEX,
        term: FIRST_TERM,
        restricting: FIRST_INDEX,
        chain: state,
        mark: (mark, state),
    };
    let hard = HardState {
        term: FIRST_TERM,
        commit: FIRST_INDEX,
        ..HardState::default()
    };
    batch.put(keys::group(group), encode(&record)?);
    batch.put(keys::applied(group), encode(&applied)?);
    batch.put(keys::hard_state(group), encode_raft(&hard)?);
    Ok(())
}

/// Writes a group of which this node has nothing yet: no entry, no configuration. It gets a snapshot, since every group's
/// log begins with one.
pub(crate) fn create_empty_group(batch: &mut Batch, group: GroupId) -> Result<(), StoreError> {
    let record = GroupRecord {
        generation: FIRST_GENERATION,
        truncated_index: 0,
        truncated_term: 0,
        configuration: Configuration::default(),
        configuration_index: 0,
        departed: Vec::new(),
    };
    let applied = AppliedRecord {
        index: 0,
        term: 0,
        restricting: 0,
        chain: [0; 32],
        mark: (0, [0; 32]),
    };
    batch.put(keys::group(group), encode(&record)?);
    batch.put(keys::applied(group), encode(&applied)?);
    batch.put(keys::hard_state(group), encode_raft(&HardState::default())?);
    Ok(())
}

/// Whose disk it is, and in which format: what stands first in that record for ever. What follows is a later version's.
pub(crate) fn identity_of(record: &[u8]) -> Result<Identity, StoreError> {
    match postcard::take_from_bytes::<Identity>(record) {
        Ok((identity, rest)) if rest.is_empty() || identity.format != FORMAT => Ok(identity),
        Ok(_) => Err(StoreError::message("a record has bytes after its end")),
        Err(error) => Err(StoreError(error.into())),
    }
}

fn identity(settings: &Settings) -> Identity {
    Identity {
        cluster: settings.cluster,
        node: settings.node,
        format: FORMAT,
    }
}

/// Writes the records of a node that joins a cluster.
pub(crate) fn joining(settings: &Settings) -> Result<Batch, StoreError> {
    let mut batch = Batch::default();
    let joining = Joining {
        groups: settings.groups,
    };
    batch.put(keys::identity(), encode(&identity(settings))?);
    batch.put(keys::joining(), encode(&joining)?);
    Ok(batch)
}

/// Writes the records of `init` for this node.
pub(crate) fn initial(settings: &Settings) -> Result<Batch, StoreError> {
    let mut batch = Batch::default();
    let bootstrap = Bootstrap {
        groups: settings.groups,
        voters: settings.voters.clone(),
    };
    batch.put(keys::identity(), encode(&identity(settings))?);
    batch.put(keys::bootstrap(), encode(&bootstrap)?);
    Ok(batch)
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(value).map_err(|error| StoreError(error.into()))
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|error| StoreError(error.into()))?;
    if !rest.is_empty() {
        return Err(StoreError::message("a record has bytes after its end"));
    }
    Ok(value)
}

pub(crate) fn read<T: DeserializeOwned>(from: &dyn Reading, key: &[u8]) -> Result<Option<T>, StoreError> {
    from.get(key)?.map(|bytes| decode(&bytes)).transpose()
}

pub(crate) fn encode_raft<M: protobuf::Message>(message: &M) -> Result<Vec<u8>, StoreError> {
    message.write_to_bytes().map_err(|error| StoreError(error.into()))
}

pub(crate) fn decode_raft<M: protobuf::Message>(bytes: &[u8]) -> Result<M, StoreError> {
    M::parse_from_bytes(bytes).map_err(|error| StoreError(error.into()))
}

pub(crate) fn read_hard_state(from: &dyn Reading, group: GroupId) -> Result<Option<HardState>, StoreError> {
    from.get(&keys::hard_state(group))?
        .map(|bytes| HardState::parse_from_bytes(&bytes))
        .transpose()
        .map_err(|error| StoreError(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_from_before_configurations_changed_is_read_as_it_was() {
        let older = encode(&(7u64, 300u64, 5u64, vec![1u64, 2, 3], FIRST_INDEX)).unwrap();
        let record = GroupRecord::decode(&older).unwrap();
        assert_eq!(record.configuration, Configuration::stable(&[1, 2, 3]));
        assert_eq!((record.generation, record.configuration_index), (7, FIRST_INDEX));
        let newer = encode(&record).unwrap();
        assert_eq!(GroupRecord::decode(&newer).unwrap(), record);
        assert!(GroupRecord::decode(&newer[..newer.len() - 1]).is_err());
        assert!(GroupRecord::decode(&[&older[..], &[0]].concat()).is_err());
    }

    #[test]
    fn who_left_is_known_until_it_comes_again_and_not_without_end() {
        let older = encode(&(1u64, 1u64, 1u64, vec![1u64, 2, 3], FIRST_INDEX)).unwrap();
        let mut record = GroupRecord::decode(&older).unwrap();
        record.configure(9, Configuration::stable(&[1, 2]));
        assert_eq!((record.departed_at(3), record.departed_at(2)), (Some(9), None));
        record.configure(10, Configuration::stable(&[1, 3]));
        assert_eq!((record.departed_at(3), record.departed_at(2)), (None, Some(10)));
        for node in 4..100 {
            record.configure(11, Configuration::stable(&[1, node]));
        }
        assert_eq!(record.departed.len(), MAX_DEPARTED);
    }
}
