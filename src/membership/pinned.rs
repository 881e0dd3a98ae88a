//! Members as operators' statements have them.

use serde::{Deserialize, Serialize};

use super::Placement;
use crate::config::Hex32;

/// One node with the public keys that operators pin.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    /// Its number, 1 or more.
    pub node: u64,
    /// Where other nodes dial it, host:port.
    pub peer: String,
    /// Its Ed25519 public key: certificate, endorsements, ceremony messages.
    pub identity: Hex32,
    /// Its X25519 public key: envelopes.
    pub envelope: Hex32,
}

impl Pinned {
    /// As operators sign it: its number, its address with the length before it, its keys.
    pub(crate) fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = self.node.to_be_bytes().to_vec();
        bytes.extend_from_slice(&(self.peer.len() as u64).to_be_bytes());
        bytes.extend_from_slice(self.peer.as_bytes());
        bytes.extend_from_slice(&self.identity.0);
        bytes.extend_from_slice(&self.envelope.0);
        bytes
    }
}

/// The whole list of members after a change, with the public keys of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMembers {
    /// The number of this list: that of the list before it, and 1.
    pub number: u64,
    /// [`Membership::digest`] of the list before it: an operator signs what is replaced, too.
    pub replaces: Hex32,
    /// All members, by rising number.
    pub members: Vec<Pinned>,
    /// Who of them has which group; none: everybody has all.
    pub placement: Option<Placement>,
}
