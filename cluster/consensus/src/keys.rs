//! The whole key layout of the database `raft/`.
//!
//! ```text
//! 01                              identity: cluster, node, format
//! 02                              bootstrap: one use; groups and voters
//! 03                              restore: under way, or one use; groups, voters, what the groups begin with
//! 04                              joining: one use; groups
//! 10 group                        group record: generation, truncated index and term, configuration, who left
//! 11 group                        hard state: term, vote, commit
//! 12 group                        applied record: index, term, last restricting index, chain hash
//! 13 group index                  log entry
//! 14 group generation key         state of the application
//! 15 group                        the last restricting entry that was truncated from the log
//! 16 node                         the highest that a node has stated of its disk, signed by it
//! 17 group                        digest of the state, and whose word it is while nobody else has vouched for it
//! ```
//! Numbers are big endian, so that keys sort as they count: group 4 bytes, index, generation and node 8.

use crate::ids::{GroupId, NodeId};

const IDENTITY: u8 = 0x01;
const BOOTSTRAP: u8 = 0x02;
const RESTORE: u8 = 0x03;
const JOINING: u8 = 0x04;
const GROUP: u8 = 0x10;
const HARD_STATE: u8 = 0x11;
const APPLIED: u8 = 0x12;
const ENTRY: u8 = 0x13;
const STATE: u8 = 0x14;
const SHOWN: u8 = 0x15;
const REMEMBERED: u8 = 0x16;
const DIGEST: u8 = 0x17;

fn in_group(tag: u8, group: GroupId) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.push(tag);
    key.extend_from_slice(&group.0.to_be_bytes());
    key
}

pub(crate) fn identity() -> Vec<u8> {
    vec![IDENTITY]
}

pub(crate) fn bootstrap() -> Vec<u8> {
    vec![BOOTSTRAP]
}

pub(crate) fn restore() -> Vec<u8> {
    vec![RESTORE]
}

pub(crate) fn joining() -> Vec<u8> {
    vec![JOINING]
}

pub(crate) fn group(group: GroupId) -> Vec<u8> {
    in_group(GROUP, group)
}

pub(crate) fn hard_state(group: GroupId) -> Vec<u8> {
    in_group(HARD_STATE, group)
}

pub(crate) fn applied(group: GroupId) -> Vec<u8> {
    in_group(APPLIED, group)
}

pub(crate) fn digest(group: GroupId) -> Vec<u8> {
    in_group(DIGEST, group)
}

pub(crate) fn entry(group: GroupId, index: u64) -> Vec<u8> {
    let mut key = in_group(ENTRY, group);
    key.extend_from_slice(&index.to_be_bytes());
    key
}

/// Prefix of a generation's state.
pub(crate) fn state(group: GroupId, generation: u64) -> Vec<u8> {
    let mut key = in_group(STATE, group);
    key.extend_from_slice(&generation.to_be_bytes());
    key
}

pub(crate) fn shown(group: GroupId) -> Vec<u8> {
    in_group(SHOWN, group)
}

/// Prefix of the state of all groups.
pub(crate) fn all_states() -> Vec<u8> {
    vec![STATE]
}

pub(crate) fn remembered(node: NodeId) -> Vec<u8> {
    let mut key = vec![REMEMBERED];
    key.extend_from_slice(&node.to_be_bytes());
    key
}

/// Prefix of what all nodes have stated.
pub(crate) fn all_remembered() -> Vec<u8> {
    vec![REMEMBERED]
}

/// Whose word is under this key of [`remembered`].
pub(crate) fn remembered_node(key: &[u8]) -> Option<NodeId> {
    let number = key.strip_prefix(&[REMEMBERED])?;
    Some(NodeId::from_be_bytes(number.try_into().ok()?))
}

/// Prefix of all generations of a group.
pub(crate) fn states(group: GroupId) -> Vec<u8> {
    in_group(STATE, group)
}

/// The first key after all keys that start with `prefix`.
pub(crate) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // All bytes were 0xff: no key of ours starts like that (tags are below 0x20).
    vec![u8::MAX; prefix.len() + 1]
}

/// The smallest key after `key`.
pub(crate) fn after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_group_sort_by_number() {
        assert!(entry(GroupId(1), 255) < entry(GroupId(1), 256));
        assert!(entry(GroupId(1), u64::MAX) < entry(GroupId(2), 0));
        assert!(state(GroupId(1), 2) > state(GroupId(1), 1));
    }

    #[test]
    fn the_end_of_a_prefix_is_after_everything_in_it() {
        let prefix = state(GroupId(u32::MAX), u64::MAX);
        let mut inside = prefix.clone();
        inside.extend_from_slice(&[0xff; 40]);
        assert!(after_prefix(&prefix) > inside);
        assert!(after_prefix(&state(GroupId(3), 7)) <= state(GroupId(3), 8));
    }
}
