//! What stands in clear at the front of a backup: whose it is, of when, what it holds, and its keys, sealed to the recovery
//! officers. Signed by the node, whose key is pinned inside: by the genesis statement, whose hash is the cluster's id, or by one of
//! the operators' orders that changed the members since.
//!
//! ```text
//! magic 16, length 4 (big endian), header (postcard), the node's Ed25519 signature 64
//! ```

use std::io::{self, Read, Write};

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::RecoveryError;
use super::officers::{OfficerKeys, SealedKey};
use crate::config::Hex32;
use crate::membership::Lineage;
use crate::provision::Genesis;
use crate::provision::introduction::{MAX_ORDERS, Orders, first_members};

const MAGIC: &[u8; 16] = b"conclave backup\0";
const SIGNATURE_PREFIX: &[u8] = b"conclave backup header v1\0";
/// The present format. Format 1 had no orders, and was never released.
pub const FORMAT: u16 = 2;
/// The longest header: a genesis statement of 64 KiB and 1,024 groups leave room beside the orders.
const MAX_HEADER: usize = 256 * 1024 + MAX_ORDERS;
const SIGNATURE: usize = 64;

/// One group, as its state is in the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, Default)]
pub struct GroupHead {
    /// Index of the last entry whose effects it has.
    pub applied: u64,
    /// That entry's time, ms.
    pub time: u64,
    /// Keystores.
    pub keystores: u64,
    /// Keys.
    pub keys: u64,
}

/// A backup's header.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u16,
    /// The version of the program that wrote it.
    pub version: String,
    /// The cluster.
    pub cluster: [u8; 32],
    /// The URL under which clients know its keys, without a slash at the end.
    pub public_url: String,
    /// The node.
    pub node: u64,
    /// When it was made, ms.
    pub made: u64,
    /// The cluster's genesis statement, JSON.
    pub genesis: Vec<u8>,
    /// The recovery officers' public keys.
    pub officers: Vec<u8>,
    /// The key of its state, sealed to the officers.
    pub state_key: Vec<u8>,
    /// The key of its shares, sealed to the officers.
    pub shares_key: Vec<u8>,
    /// Its groups, by number.
    pub groups: Vec<GroupHead>,
    /// The operators' orders that changed the members, JSON; nothing where none has.
    pub orders: Vec<u8>,
}

/// A header whose signature, genesis statement and sealed keys have been verified.
#[derive(Clone, Debug)]
pub struct VerifiedHeader {
    /// What it says.
    pub header: Header,
    /// The genesis statement in it.
    pub genesis: Genesis,
    /// The members by the last order in it, and those that they replace.
    pub members: Lineage,
    /// The officers in it.
    pub officers: OfficerKeys,
    /// The sealed key of its state.
    pub state_key: SealedKey,
    /// The sealed key of its shares.
    pub shares_key: SealedKey,
    bytes: Vec<u8>,
}

fn signed_bytes(header: &[u8]) -> Vec<u8> {
    [SIGNATURE_PREFIX, header].concat()
}

impl Header {
    /// Encodes and signs.
    ///
    /// # Errors
    /// [`RecoveryError::Header`] if it is too long, or not one that [`VerifiedHeader::parse`] takes.
    pub fn sign(&self, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Result<VerifiedHeader, RecoveryError> {
        let text = postcard::to_stdvec(self).map_err(|_| RecoveryError::Header("it cannot be encoded"))?;
        let length = u32::try_from(text.len()).map_err(|_| RecoveryError::Header("it is too long"))?;
        let signature = sign(&signed_bytes(&text));
        VerifiedHeader::parse(&[MAGIC, &length.to_be_bytes()[..], &text, &signature].concat())
    }
}

impl VerifiedHeader {
    /// Reads a header from the front of a backup and verifies it.
    ///
    /// # Errors
    /// [`RecoveryError::Header`], [`RecoveryError::Io`].
    pub fn read(from: &mut impl Read) -> Result<Self, RecoveryError> {
        let mut bytes = vec![0; MAGIC.len() + 4];
        from.read_exact(&mut bytes).map_err(short)?;
        let length = Self::length(&bytes)?;
        bytes.resize(MAGIC.len() + 4 + length + SIGNATURE, 0);
        from.read_exact(&mut bytes[MAGIC.len() + 4..]).map_err(short)?;
        Self::parse(&bytes)
    }

    fn length(front: &[u8]) -> Result<usize, RecoveryError> {
        let length = front.strip_prefix(MAGIC).and_then(|rest| rest.first_chunk::<4>());
        let length = length.ok_or(RecoveryError::Header("this is no backup"))?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let bounded = (length <= MAX_HEADER).then_some(length);
        bounded.ok_or(RecoveryError::Header("it is longer than any header"))
    }

    /// Parses and verifies one that is whole.
    ///
    /// # Errors
    /// [`RecoveryError::Header`] says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecoveryError> {
        let wrong = RecoveryError::Header;
        let length = Self::length(bytes)?;
        let rest = &bytes[MAGIC.len() + 4..];
        if rest.len() != length + SIGNATURE {
            return Err(wrong("it has another length than it says"));
        }
        let (text, signature) = rest.split_at(length);
        // The format stands first for ever; what follows it is a later version's to say.
        match postcard::take_from_bytes::<u16>(text) {
            Ok((FORMAT, _)) => {}
            Ok(_) => return Err(wrong("it has a format that this version does not know")),
            Err(_) => return Err(wrong("it cannot be read")),
        }
        let header = match postcard::take_from_bytes::<Header>(text) {
            Ok((header, [])) => header,
            _ => return Err(wrong("it cannot be read")),
        };
        let genesis = Genesis::parse(&header.genesis)?;
        if genesis.cluster_id() != header.cluster || header.groups.len() != genesis.body().groups as usize {
            return Err(wrong("it is not of the cluster of its genesis statement"));
        }
        let (members, key) = members(&genesis, &header.orders, header.node)?;
        let signature = Signature::from_slice(signature);
        let verified = signature.and_then(|signature| key.verify_strict(&signed_bytes(text), &signature));
        if verified.is_err() {
            return Err(wrong("it is not signed by the node that it names"));
        }
        Ok(Self {
            officers: OfficerKeys::from_bytes(&header.officers)?,
            state_key: SealedKey::from_bytes(&header.state_key)?,
            shares_key: SealedKey::from_bytes(&header.shares_key)?,
            genesis,
            members,
            header,
            bytes: bytes.to_vec(),
        })
    }

    /// Magic, length, header and signature as they stand at the front of a backup.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes them.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.bytes)
    }

    /// Names this backup: everything in it is sealed under this hash.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }

    /// Keystores in all groups.
    pub fn keystores(&self) -> u64 {
        self.header.groups.iter().map(|group| group.keystores).sum()
    }

    /// Keys in all groups.
    pub fn keys(&self) -> u64 {
        self.header.groups.iter().map(|group| group.keys).sum()
    }

    /// In a line, for people.
    pub fn describe(&self) -> String {
        let Header {
            cluster, node, made, ..
        } = self.header;
        format!(
            "node {node} of cluster {}, {}: {} keystores, {} keys",
            Hex32(cluster),
            super::time_text(made),
            self.keystores(),
            self.keys()
        )
    }
}

/// The members after all orders, and the key of `node`, which is or was one of them: numbers are never given twice.
fn members(genesis: &Genesis, orders: &[u8], node: u64) -> Result<(Lineage, VerifyingKey), RecoveryError> {
    let wrong = RecoveryError::Header;
    let orders = match orders {
        [] => Orders::default(),
        text => serde_json::from_slice(text).map_err(|_| wrong("its orders cannot be read"))?,
    };
    let first = first_members(genesis).ok_or(wrong("a member's key or number cannot be"))?;
    let mut key = first.member(node).map(|member| member.verifying_key);
    let lineage = orders.each(first, |lineage| {
        key = key.or_else(|| Some(lineage.last().member(node)?.verifying_key));
    });
    let lineage = lineage.map_err(|_| wrong("one of its orders does not follow from those before it"))?;
    let key = key.ok_or(wrong("its node is no member of its cluster"))?;
    Ok((lineage, key))
}

fn short(error: io::Error) -> RecoveryError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => RecoveryError::Header("the file ends in its header"),
        _ => RecoveryError::Io(error),
    }
}
