//! Local identifiers of keystores, keys and meters: 16 bytes, written `z` + base58btc(0x00 0x10 || bytes).
//!
//! The form is the one that WebKMS servers use (multibase, then an identity multihash of 16 bytes). Parsing
//! accepts the canonical spelling only, so that one thing has one URL.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The multihash prefix of an identifier: identity, 16 bytes.
const PREFIX: [u8; 2] = [0x00, 0x10];

/// The 16 bytes that name a keystore, a key or a meter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LocalId(pub [u8; 16]);

impl LocalId {
    /// The identifier of the `item`-th thing that an operation makes. Every member of a committee derives the
    /// same one, so no node chooses an identifier.
    pub fn derive(cluster: &[u8; 32], operation: &OperationId, item: u32) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"conclave id");
        hash.update(cluster);
        hash.update(operation.to_bytes());
        hash.update(item.to_be_bytes());
        let digest = hash.finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }

    /// The identifier of the keystore that an operation makes: the first derived one that belongs to the group to
    /// which the request's `name` hashes. The same bytes, whoever brings them and whenever, are so counted by one
    /// group, which refuses them as a replay; the identifier of each operation is its own all the same.
    pub fn of_new_keystore(
        cluster: &[u8; 32],
        operation: &OperationId,
        name: &[u8; 32],
        groups: u32,
    ) -> Self {
        let wanted = group(b"conclave name", name, groups);
        // One in `groups` fits; that none of so many does will not happen, and would only place it elsewhere.
        let fitting = (0..groups.saturating_mul(64))
            .map(|item| Self::derive(cluster, operation, item))
            .find(|id| id.group(groups) == wanted);
        fitting.unwrap_or_else(|| Self::derive(cluster, operation, 0))
    }

    /// The number of the Raft group that the keystore of this identifier belongs to: 1 to `groups` - 1.
    pub fn group(&self, groups: u32) -> u32 {
        group(b"conclave group", &self.0, groups)
    }

    /// Parses the canonical spelling; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 32 {
            return None;
        }
        let bytes = bs58::decode(text.strip_prefix('z')?).into_vec().ok()?;
        let id = Self(bytes.strip_prefix(&PREFIX)?.try_into().ok()?);
        (id.to_string() == text).then_some(id)
    }
}

fn group(purpose: &[u8], bytes: &[u8], groups: u32) -> u32 {
    let hash = Sha256::new().chain_update(purpose).chain_update(bytes).finalize();
    let number = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    1 + number % groups.saturating_sub(1).max(1)
}

impl fmt::Display for LocalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 18];
        bytes[..2].copy_from_slice(&PREFIX);
        bytes[2..].copy_from_slice(&self.0);
        write!(f, "z{}", bs58::encode(bytes).into_string())
    }
}

impl fmt::Debug for LocalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names one acceptance of a client's request by one node: (node, its boot nonce, a counter).
///
/// The node that a request reached draws it; everybody else checks `node` against the sender's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OperationId {
    /// The node that accepted the request.
    pub node: u64,
    /// Drawn anew at every start of that node.
    pub boot: u64,
    /// Counts from 1 within a boot.
    pub counter: u64,
}

impl OperationId {
    /// 24 bytes, big-endian: node, boot, counter.
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.node.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.boot.to_be_bytes());
        bytes[16..].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }
}

impl OperationId {
    /// What the client and all nodes' logs call the request: tells nothing of the node or of how much it serves.
    pub fn request_id(&self) -> String {
        let hash = Sha256::new()
            .chain_update(b"conclave request")
            .chain_update(self.to_bytes())
            .finalize();
        let first = [
            hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7],
        ];
        format!("{:016x}", u64::from_be_bytes(first))
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}-{}", self.node, self.boot, self.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_parses() {
        let id = LocalId([7; 16]);
        let text = id.to_string();
        assert!(text.starts_with("z1"), "{text}");
        assert_eq!(LocalId::parse(&text), Some(id));
        for other in [
            &text[1..],
            &format!("{text}1"),
            &format!("z1{}", &text[1..]),
            "z",
            "",
            "../x",
        ] {
            assert_eq!(LocalId::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_same_request_makes_its_keystores_in_one_group() {
        let operation = |node, counter| OperationId {
            node,
            boot: 7,
            counter,
        };
        for name in 0..32 {
            for groups in [2, 16, 64] {
                let ids = [operation(1, 1), operation(1, 2), operation(2, 1)]
                    .map(|operation| LocalId::of_new_keystore(&[1; 32], &operation, &[name; 32], groups));
                assert!(ids.iter().all(|id| id.group(groups) == ids[0].group(groups)));
                assert!((1..groups).contains(&ids[0].group(groups)));
                assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
            }
        }
    }

    #[test]
    fn an_identifier_of_the_existing_server_parses() {
        assert!(LocalId::parse("z1A6zRzwpJTtjzWqchPunwkcH").is_some());
    }
}
