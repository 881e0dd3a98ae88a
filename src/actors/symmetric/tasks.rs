//! From a client's request, as this node judged it, to what is computed.

use conclave_garbled::held::{Held, InnerState};
use conclave_garbled::operations;
use conclave_garbled::session::{Context, Task};
use conclave_garbled::sharing::{self, GarblerParts, Name};
use sha2::{Digest, Sha256};

use crate::identifier::OperationId;
use crate::keystore::record::{KeyType, Sharing, number_of};
use crate::operation::judge::Using;

/// The sharing that a key lives by: an HMAC key's by its outer state. The second one, at an HMAC key's birth, is the key's
/// itself.
pub(crate) const LIVE: u8 = 0;

/// The name of a sharing of a key.
pub(crate) fn name<'a>(cluster: &'a [u8; 32], key: &'a [u8], epoch: u64, sharing: u8) -> Name<'a> {
    Name {
        cluster,
        key,
        epoch,
        sharing,
    }
}

/// What a use of a symmetric key computes; none for other uses, and for what needs no computation.
pub(crate) fn task(using: &Using, inner: Option<&InnerState>) -> Option<Task> {
    match using {
        Using::Authenticate(message) => Some(operations::tag(inner?, &message.0)),
        Using::Verify(message, tag) => Some(operations::verify(inner?, &message.0, tag.as_ref()?)),
        Using::Wrap(payload) => operations::wrap(&payload.0).ok(),
        Using::Unwrap(wrapped) => operations::unwrap(&wrapped.0).ok(),
        Using::Sign(_) | Using::DeriveSecret(_) => None,
    }
}

/// Longest message that is hashed where it is: a way to the pool and back costs as much.
const QUICK: usize = 4 * 1024;

/// Whether the task of a key that is open takes less than the way to the pool.
pub(crate) fn is_quick(using: &Using) -> bool {
    matches!(using, Using::Authenticate(message) | Using::Verify(message, _) if message.0.len() <= QUICK)
}

/// Builds the programs of quick tasks, so that whoever opens a key does it and nobody else.
pub(crate) fn warm(held: &Held) {
    if let Some(inner) = &held.inner {
        operations::tag(inner, &[]);
        operations::verify(inner, &[], &[0; operations::TAG_BYTES]);
    }
}

/// Everything that an operation's secrets depend on beside the key and the request.
pub(crate) struct About<'a> {
    pub(crate) cluster: [u8; 32],
    pub(crate) roles: [u64; 3],
    pub(crate) holders: &'a [u64],
    pub(crate) boot: [u8; 16],
    pub(crate) number: u64,
    pub(crate) operation: OperationId,
    pub(crate) attempt: u8,
}

impl About<'_> {
    /// The context of an operation on the key of this name.
    pub(crate) fn context(
        &self,
        key: Vec<u8>,
        key_type: KeyType,
        sharing: [u8; 32],
        request: [u8; 32],
    ) -> Context {
        let takes_no_part = |node: &&u64| !self.roles.contains(node);
        Context {
            cluster: self.cluster,
            roles: self.roles,
            absent: self.holders.iter().filter(takes_no_part).copied().collect(),
            boot: self.boot,
            number: self.number,
            operation: self.operation.to_bytes(),
            attempt: self.attempt,
            key,
            key_type: key_type as u8,
            sharing,
            request,
        }
    }
}

/// Names everything that the holders agreed on when the key was born.
pub(crate) fn digest(sharing: &Sharing) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(b"conclave sharing of a key 1");
    hash.update(sharing::digest(&sharing.pieces));
    for holder in &sharing.holders {
        hash.update(holder.to_be_bytes());
    }
    hash.update(sharing.inner.unwrap_or_default());
    hash.update(sharing.correction);
    hash.update(sharing.check);
    hash.finalize().into()
}

/// The numbers of three holders.
pub(crate) fn trio(holders: &[u64], roles: [u64; 3]) -> Option<[u8; 3]> {
    let number = |node: u64| number_of(holders, node);
    let [first, second, evaluator] = roles;
    let differ = first != second && first != evaluator && second != evaluator;
    differ.then_some(())?;
    Some([number(first)?, number(second)?, number(evaluator)?])
}

/// What is shared is the secret under a correction that everybody knows: the garblers add it to what both of them know.
pub(crate) fn corrected(mut parts: GarblerParts, correction: &[u8; 32]) -> GarblerParts {
    for (byte, correction) in parts.common.iter_mut().zip(correction) {
        *byte ^= correction;
    }
    parts
}
