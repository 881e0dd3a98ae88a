//! What consensus needs of this node to state how far its disk is: signatures by the members' pinned keys, and how far the
//! audit chain is. A peer that remembers more of the chain than the disk has shows that the disk is an older copy, or that
//! somebody cut the chain (trust.md 7).

use conclave_consensus::{Attestor, Mark, NodeId};
use ed25519_dalek::{Signature, Signer, SigningKey};

use super::directory::Directory;
use crate::audit::Audit;

/// The adapter.
pub struct NodeAttestor {
    directory: Directory,
    signing_key: SigningKey,
    audit: Audit,
}

impl NodeAttestor {
    /// Of the node with this key and this record.
    pub fn new(directory: Directory, signing_key: SigningKey, audit: Audit) -> Self {
        Self {
            directory,
            signing_key,
            audit,
        }
    }
}

impl Attestor for NodeAttestor {
    fn sign(&self, message: &[u8]) -> [[u8; 32]; 2] {
        let signature = self.signing_key.sign(message);
        [*signature.r_bytes(), *signature.s_bytes()]
    }

    fn is_signed(&self, by: NodeId, message: &[u8], [r, s]: &[[u8; 32]; 2]) -> bool {
        let signature = Signature::from_components(*r, *s);
        self.directory
            .member(by)
            .is_some_and(|member| member.verifying_key.verify_strict(message, &signature).is_ok())
    }

    fn mark(&self) -> Mark {
        let (number, hash) = self.audit.attestable();
        Mark { number, hash }
    }

    fn lacks(&self, stated: &Mark) -> Option<String> {
        self.audit.lacks(stated.number, &stated.hash)
    }
}
