//! Secret bytes: no Debug, no Clone, no Serialize; wiped when dropped.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// The 32 bytes that open this node's store; whoever unseals the node gives them.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct NodeKey(Box<[u8; 32]>);

impl NodeKey {
    /// Takes the key; the caller wipes its own copy, if there is one.
    pub fn new(bytes: Box<[u8; 32]>) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A share, opened.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, for as long as the caller holds this.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}
