//! Who may be left out of the generation of a key, by what this node knows itself: a coordinator cannot choose
//! (threshold.md, Generation 3), and one member that lies, is silent or hangs stops nothing.
//!
//! Kept by operation, so that it outlasts the attempt in which it was learnt. Pure but for the age of what it keeps.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use conclave_threshold::Evidence;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::identifier::OperationId;

const PREFIX: &[u8] = b"conclave abort 1";
/// An operation is over after this: its client has an answer within 8 s.
const LIFE: Duration = Duration::from_secs(20);
/// Operations that are looked through for old ones beyond this many.
const MANY: usize = 1_024;
/// Members that must blame one without proof before everybody believes it: one member may be corrupt.
const ACCUSERS: usize = 2;

/// A participant's word that a ceremony ended for it, and whose fault it was. Signed, so that whoever ends ceremonies
/// may be left out, and proven where it can be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    /// What the client's request is called.
    pub operation: OperationId,
    /// The ceremony that ended.
    pub ceremony: [u8; 32],
    /// Who says so.
    pub node: u64,
    /// Who is blamed; nobody where the coordinator may be at fault.
    pub culprit: Option<u64>,
    /// For everybody who took part.
    pub evidence: Option<Box<Evidence>>,
    signature: Vec<u8>,
}

impl Abort {
    /// `node`'s word.
    pub fn sign(
        (operation, ceremony): (OperationId, [u8; 32]),
        (node, key): (u64, &SigningKey),
        culprit: Option<u64>,
        evidence: Option<Box<Evidence>>,
    ) -> Self {
        let mut abort = Self {
            operation,
            ceremony,
            node,
            culprit,
            evidence,
            signature: Vec::new(),
        };
        abort.signature = key.sign(&abort.signed_bytes()).to_bytes().to_vec();
        abort
    }

    /// Whether `key` signed it. The evidence proves itself and is not signed.
    pub fn is_signed(&self, key: &VerifyingKey) -> bool {
        Signature::from_slice(&self.signature)
            .is_ok_and(|signature| key.verify_strict(&self.signed_bytes(), &signature).is_ok())
    }

    fn signed_bytes(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(PREFIX);
        hash.update(self.operation.to_bytes());
        hash.update(self.ceremony);
        hash.update(self.node.to_be_bytes());
        // Nodes are numbered from 1.
        hash.update(self.culprit.unwrap_or(0).to_be_bytes());
        hash.finalize().into()
    }
}

/// What is known of one operation.
struct Known {
    since: Instant,
    declined: bool,
    fell: BTreeSet<u64>,
    accusers: BTreeMap<u64, BTreeSet<u64>>,
}

/// How members behave in generations, by operation.
#[derive(Default)]
pub struct Conduct {
    operations: HashMap<OperationId, Known>,
}

impl Conduct {
    /// This node itself took no part in an attempt, or ended it.
    pub fn decline(&mut self, operation: OperationId) {
        self.known(operation).declined = true;
    }

    /// Whether it did.
    pub fn declined(&self, operation: &OperationId) -> bool {
        self.operations.get(operation).is_some_and(|known| known.declined)
    }

    /// This node has seen for itself that `node` did not complete a round, or lied.
    pub fn fell(&mut self, operation: OperationId, node: u64) {
        self.known(operation).fell.insert(node);
    }

    /// Learns from an abort whose signature was verified; `convicted` is whom its evidence proves to have lied. Who
    /// ends a ceremony without proof against another may be left out, and so may who is blamed by two.
    pub fn aborted(&mut self, abort: &Abort, convicted: Option<u64>) {
        let known = self.known(abort.operation);
        if let Some(liar) = convicted {
            known.fell.insert(liar);
            return;
        }
        known.fell.insert(abort.node);
        if let Some(culprit) = abort.culprit {
            known.accusers.entry(culprit).or_default().insert(abort.node);
        }
    }

    /// Whether this node signs an outcome of this operation in which `node` has no part.
    pub fn may_be_left_out(&self, operation: &OperationId, node: u64) -> bool {
        self.operations.get(operation).is_some_and(|known| {
            let accusers = known.accusers.get(&node).map_or(0, BTreeSet::len);
            known.fell.contains(&node) || accusers >= ACCUSERS
        })
    }

    fn known(&mut self, operation: OperationId) -> &mut Known {
        if self.operations.len() > MANY {
            self.operations.retain(|_, known| known.since.elapsed() < LIFE);
        }
        self.operations.entry(operation).or_insert_with(|| Known {
            since: Instant::now(),
            declined: false,
            fell: BTreeSet::new(),
            accusers: BTreeMap::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::OsRng;

    use super::*;

    const OPERATION: OperationId = OperationId {
        node: 1,
        boot: 7,
        counter: 3,
    };
    const CEREMONY: [u8; 32] = [9; 32];

    fn abort(node: u64, culprit: Option<u64>) -> Abort {
        Abort::sign(
            (OPERATION, CEREMONY),
            (node, &SigningKey::generate(&mut OsRng)),
            culprit,
            None,
        )
    }

    #[test]
    fn every_field_is_signed() {
        let key = SigningKey::generate(&mut OsRng);
        let signed = Abort::sign((OPERATION, CEREMONY), (2, &key), Some(3), None);
        assert!(signed.is_signed(&key.verifying_key()));
        let changes: [fn(&mut Abort); 6] = [
            |abort| abort.operation.counter += 1,
            |abort| abort.ceremony[0] ^= 1,
            |abort| abort.node = 3,
            |abort| abort.culprit = None,
            |abort| abort.culprit = Some(1),
            |abort| abort.signature[0] ^= 1,
        ];
        for change in changes {
            let mut changed = signed.clone();
            change(&mut changed);
            assert!(!changed.is_signed(&key.verifying_key()), "{changed:?}");
        }
    }

    #[test]
    fn nobody_is_left_out_on_one_members_word_but_that_member() {
        let mut conduct = Conduct::default();
        assert!(!conduct.may_be_left_out(&OPERATION, 3));
        conduct.aborted(&abort(2, Some(3)), None);
        assert!(
            conduct.may_be_left_out(&OPERATION, 2),
            "it ended the ceremony itself"
        );
        assert!(!conduct.may_be_left_out(&OPERATION, 3));
        conduct.aborted(&abort(2, Some(3)), None);
        assert!(!conduct.may_be_left_out(&OPERATION, 3), "the same word twice");
        conduct.aborted(&abort(4, Some(3)), None);
        assert!(
            conduct.may_be_left_out(&OPERATION, 3),
            "two of whom one is honest"
        );
    }

    #[test]
    fn proof_convicts_and_clears_who_brought_it() {
        let mut conduct = Conduct::default();
        conduct.aborted(&abort(2, Some(3)), Some(3));
        assert!(conduct.may_be_left_out(&OPERATION, 3));
        assert!(!conduct.may_be_left_out(&OPERATION, 2));
        let other = OperationId {
            counter: 4,
            ..OPERATION
        };
        assert!(!conduct.may_be_left_out(&other, 3), "another operation");
    }
}
