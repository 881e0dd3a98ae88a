//! The whole key layout of one group's state. One letter, then fixed-width parts, big-endian.
//!
//! ```text
//! t                                  last entry time, ms
//! k keystore                         KeystoreRecord
//! y keystore key                     KeyRecord
//! e keystore key                     u64: when a key's shares were last renewed, ms; absent for those of its birth
//! a                                  Orders: what operators have ordered (group 0)
//! g                                  MembersRecord: who the group's members are, and are to become; absent: genesis
//! f                                  u8: the newest format of the entries that the group has taken; absent: the first
//! h number                           SignedOrder: the order that made the list of members of this number
//! c SHA-256(controller) keystore     (empty): keystores by controller
//! r keystore link                    RevocationRecord; link = SHA-256(capability id, 0, delegator)
//! v keystore SHA-256(revoker)        u32: live revocations by one revoker
//! d keystore                         Hold: delegations are refused since a restore, until the configuration is updated
//! m meter                            Meter
//! o operation                        Outcome of an applied operation
//! n name                             Repeat: how often a signed request was applied
//! x expiry ...                       what to delete once the group's time has passed expiry
//! ```

use sha2::{Digest, Sha256};

use crate::identifier::{LocalId, OperationId};

/// The group's last entry time.
pub const LAST_TIME: &[u8] = b"t";
/// What operators have ordered (group 0).
pub const ORDERS: &[u8] = b"a";
/// Who the group's members are, and are to become.
pub const MEMBERS: &[u8] = b"g";
/// The newest format of the entries that the group has taken.
pub const FORMAT: &[u8] = b"f";
/// Prefix of the expiry index.
pub const EXPIRY: &[u8] = b"x";

fn key(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// The order that made the list of members of this number.
pub fn members(number: u64) -> Vec<u8> {
    key(&[b"h", &number.to_be_bytes()])
}

/// Whether a key says who the members are, or were.
pub fn names_members(key: &[u8]) -> bool {
    key == MEMBERS || key.len() == 9 && key[0] == b'h'
}

/// A keystore's record.
pub fn keystore(keystore: &LocalId) -> Vec<u8> {
    key(&[KEYSTORES, &keystore.0])
}

/// A key's record.
pub fn of_key(keystore: &LocalId, id: &LocalId) -> Vec<u8> {
    key(&[KEYS, &keystore.0, &id.0])
}

/// The keystore and the id of a key's record.
pub fn names_of_key(key: &[u8]) -> Option<(LocalId, LocalId)> {
    let (keystore, id) = key.strip_prefix(KEYS)?.split_first_chunk()?;
    Some((LocalId(*keystore), LocalId(id.try_into().ok()?)))
}

/// The keystore of its own record.
pub fn named_keystore(key: &[u8]) -> Option<LocalId> {
    Some(LocalId(key.strip_prefix(KEYSTORES)?.try_into().ok()?))
}

/// Prefix of all keys, keystore by keystore.
pub const KEYS: &[u8] = b"y";

/// The keystore of a key's record.
pub fn keystore_of(key: &[u8]) -> Option<LocalId> {
    let (id, _) = key.strip_prefix(KEYS)?.split_first_chunk()?;
    Some(LocalId(*id))
}

/// When a key's shares were last renewed.
pub fn renewal(keystore: &LocalId, id: &LocalId) -> Vec<u8> {
    key(&[b"e", &keystore.0, &id.0])
}

/// Prefix of all keystores of one controller.
pub fn controller(controller: &str) -> Vec<u8> {
    key(&[b"c", &Sha256::digest(controller.as_bytes())])
}

/// One keystore of one controller.
pub fn controlled(by: &str, keystore: &LocalId) -> Vec<u8> {
    key(&[&controller(by), &keystore.0])
}

/// A revocation of what `delegator` signed under the id `capability`.
pub fn revocation(keystore: &LocalId, capability: &str, delegator: &str) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(capability.as_bytes());
    hash.update([0]);
    hash.update(delegator.as_bytes());
    key(&[b"r", &keystore.0, &hash.finalize()])
}

/// The count of live revocations that one revoker made in a keystore.
pub fn revoker(keystore: &LocalId, revoker: &str) -> Vec<u8> {
    key(&[b"v", &keystore.0, &Sha256::digest(revoker.as_bytes())])
}

/// Prefix of all keystores' records.
pub const KEYSTORES: &[u8] = b"k";

/// That the delegations of a keystore are held back since a restore.
pub fn hold(keystore: &LocalId) -> Vec<u8> {
    key(&[b"d", &keystore.0])
}

/// A meter.
pub fn meter(id: &LocalId) -> Vec<u8> {
    key(&[b"m", &id.0])
}

/// The outcome of an applied operation.
pub fn operation(operation: &OperationId) -> Vec<u8> {
    key(&[b"o", &operation.to_bytes()])
}

/// How often the request with this name was applied.
pub fn name(name: &[u8; 32]) -> Vec<u8> {
    key(&[b"n", name])
}

/// Index entry: `target` goes when the group's time has passed `expiry` (ms).
pub fn expiry(expiry: u64, target: &[u8]) -> Vec<u8> {
    key(&[EXPIRY, &expiry.to_be_bytes(), target])
}

/// Splits an expiry index key into (expiry, target).
pub fn parse_expiry(key: &[u8]) -> Option<(u64, &[u8])> {
    let (expiry, target) = key.strip_prefix(EXPIRY)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*expiry), target))
}
