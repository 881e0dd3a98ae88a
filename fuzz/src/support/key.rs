//! The keys of the capability vectors' people, which every target may sign with.

use std::sync::LazyLock;

use conclave::authorization::DidKey;
use ed25519_dalek::SigningKey;
use sha2::{Digest, Sha256};

/// Somebody whom the vectors know.
pub(crate) struct Person {
    /// Their key, as `tests/vectors/zcap/keys.json` derives it.
    pub(crate) key: SigningKey,
    /// Its names.
    pub(crate) names: DidKey,
}

/// All of them; the first controls the keystore.
pub(crate) static PEOPLE: LazyLock<[Person; 5]> =
    LazyLock::new(|| ["alice", "bob", "carol", "dave", "mallory"].map(person));

fn person(name: &str) -> Person {
    let seed = Sha256::digest(format!("relsec zcap test vector key: {name}"));
    let key = SigningKey::from_bytes(&seed.into());
    let names = DidKey::of(&key.verifying_key());
    Person { key, names }
}

/// Who controls the keystore.
pub(crate) fn alice() -> &'static Person {
    &PEOPLE[0]
}
