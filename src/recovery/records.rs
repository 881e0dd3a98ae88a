//! What the sections of a backup consist of.

use serde::{Deserialize, Serialize};

/// A record of the state section: groups one after the other, then the names of the shares, then the audit segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum StateRecord<'a> {
    /// The pairs that follow are this group's.
    Group(u32),
    /// One pair of its state.
    Pair {
        /// As in `keystore/layout.rs`.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// This node has the share of this session of a key: what is missing elsewhere is known without anybody's shares.
    Holding {
        /// The keystore.
        keystore: [u8; 16],
        /// The key.
        key: [u8; 16],
        /// The ceremony.
        session: [u8; 32],
    },
    /// The audit segment whose bytes follow.
    Segment {
        /// Its file's name.
        name: &'a str,
        /// Its file's length.
        length: u64,
    },
    /// Bytes of it; between them are zeros.
    Bytes {
        /// Where they belong.
        offset: u64,
        /// They.
        bytes: &'a [u8],
    },
}

/// A record of the section of shares. No Debug: the secret is in it.
#[derive(Deserialize, Serialize)]
pub struct ShareRecord<'a> {
    /// The keystore.
    pub keystore: [u8; 16],
    /// The key.
    pub key: [u8; 16],
    /// The ceremony.
    pub session: [u8; 32],
    /// The key's type.
    pub key_type: &'a str,
    /// Its epoch.
    pub epoch: u64,
    /// The ceremony's start, ms.
    pub started: u64,
    /// The share.
    pub secret: &'a [u8],
}
