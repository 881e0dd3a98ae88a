//! What one audit record says. The caller fills an [`Entry`]; sequence, chain and heads are the writer's.
//! Everything has a bound, checked by [`Entry::check`] before it is queued and by the decoder when it is read back.

use std::fmt;
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::chain;
use super::error::AppendError;

/// Longest key id, in bytes.
pub(super) const MAX_KEY_ID: usize = 1024;
/// Longest signing string, in bytes: a header block (16 KiB) and the names of its lines.
pub(super) const MAX_SIGNING_STRING: usize = 32 * 1024;
/// Most capabilities of a chain, the root not counted among them but allowed for.
pub(super) const MAX_CAPABILITIES: usize = 10;
/// Longest single capability, in bytes of JSON.
pub(super) const MAX_CAPABILITY: usize = 64 * 1024;
/// Most participants of an operation.
pub(super) const MAX_PARTICIPANTS: usize = 16;
/// Longest verdict code, in bytes.
pub(super) const MAX_VERDICT: usize = 64;

pub use crate::identifier::OperationId;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// This holder is about to contribute to a use of a key.
    Contributed,
    /// This member is about to endorse a state change.
    Endorsed,
    /// A request with a valid signature was refused; the verdict says why.
    Refused,
    /// A coordinator claimed a name before showing its request.
    Claimed,
    /// The coordinator's own record of how an operation ended.
    Outcome,
    /// The node signed the chain up to the record before. Made by the writer alone.
    Head,
    /// This member is about to sign new shares of keys of a keystore: no client asked for it.
    Renewed,
    /// This member is about to endorse an order of the operators; a hash of what they signed stands for the request.
    Ordered,
    /// A peer has signed its chain up to one of its records. Made by the writer alone.
    Witnessed,
}

impl Kind {
    /// Every kind, in the order of [`super::Report`]'s counts.
    pub const ALL: [Kind; 9] = [
        Kind::Contributed,
        Kind::Endorsed,
        Kind::Refused,
        Kind::Claimed,
        Kind::Outcome,
        Kind::Head,
        Kind::Renewed,
        Kind::Ordered,
        Kind::Witnessed,
    ];

    /// The lower-case word for reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Contributed => "contributed",
            Kind::Endorsed => "endorsed",
            Kind::Refused => "refused",
            Kind::Claimed => "claimed",
            Kind::Outcome => "outcome",
            Kind::Head => "head",
            Kind::Renewed => "renewed",
            Kind::Ordered => "ordered",
            Kind::Witnessed => "witnessed",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An Ed25519 signature, 64 bytes as RFC 8032 has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (mut low, mut high) = ([0; 32], [0; 32]);
        low.copy_from_slice(&self.0[..32]);
        high.copy_from_slice(&self.0[32..]);
        (low, high).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (low, high) = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&low);
        bytes[32..].copy_from_slice(&high);
        Ok(Signature(bytes))
    }
}

/// One capability of a chain. The writer stores the document once a segment and its SHA-256 after that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Capability {
    /// The document, as the client sent it (JSON).
    Whole(Arc<[u8]>),
    /// SHA-256 of a document that stands earlier in the same segment.
    Known([u8; 32]),
}

impl Capability {
    /// SHA-256 of the document.
    pub fn hash(&self) -> [u8; 32] {
        match self {
            Capability::Whole(document) => Sha256::digest(document).into(),
            Capability::Known(hash) => *hash,
        }
    }
}

/// What an independent verifier needs to see that the controller asked for it. Never a body: the signing string
/// carries its signed digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The verification method of the client's signature.
    pub key_id: String,
    /// The exact string that the client signed.
    pub signing_string: String,
    /// The client's signature over it.
    pub signature: Signature,
    /// The delegated capabilities, from the first delegation to the invoked one; empty for a root invocation.
    pub capabilities: Vec<Capability>,
}

/// What a caller records. Times are milliseconds since 1970 by the holder's clock, unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What happened; [`Kind::Head`] and [`Kind::Witnessed`] are refused here.
    pub kind: Kind,
    /// When; the writer lifts it to the last record's time, so the chain never runs back.
    pub time_ms: u64,
    /// The Raft group of the keystore.
    pub group: u32,
    /// The keystore's 16 bytes.
    pub keystore: [u8; 16],
    /// The key's 16 bytes, if the operation is about a key.
    pub key: Option<[u8; 16]>,
    /// The key's epoch, 0 where there is none.
    pub epoch: u64,
    /// The operation. Its node is the coordinator that replays are judged by (a relay counts as one).
    pub operation: OperationId,
    /// The coordinator's attempt number.
    pub attempt: u8,
    /// SHA-256(keyId, 0, signing string): what replays are judged by.
    pub name: [u8; 32],
    /// SHA-256 of the request as received (h of trust.md).
    pub request: [u8; 32],
    /// The request's `created`, seconds since 1970 by the client's clock.
    pub created: u64,
    /// The request's `expires`, seconds since 1970 by the client's clock.
    pub expires: u64,
    /// The nodes that take part, ascending.
    pub participants: Vec<u64>,
    /// The group's applied index that the decision rests on.
    pub applied: u64,
    /// A short code: `ok`, or why not.
    pub verdict: String,
    /// How many events this record stands for: 1, or the number that a refusal rate held back.
    pub count: u32,
    /// The client's signature and capabilities; none where another record of the operation has them.
    pub evidence: Option<Evidence>,
}

impl Entry {
    /// An entry of this kind and time with everything else zero or empty and `count` 1.
    pub fn new(kind: Kind, time_ms: u64, operation: OperationId) -> Entry {
        Entry {
            kind,
            time_ms,
            group: 0,
            keystore: [0; 16],
            key: None,
            epoch: 0,
            operation,
            attempt: 0,
            name: [0; 32],
            request: [0; 32],
            created: 0,
            expires: 0,
            participants: Vec::new(),
            applied: 0,
            verdict: String::new(),
            count: 1,
            evidence: None,
        }
    }

    /// Every bound of the format. What fails here could not be read back.
    pub fn check(&self) -> Result<(), AppendError> {
        if matches!(self.kind, Kind::Head | Kind::Witnessed) {
            return Err(AppendError::Unrecordable("a head is the writer's to make"));
        }
        if self.participants.len() > MAX_PARTICIPANTS {
            return Err(AppendError::Unrecordable("too many participants"));
        }
        if self.verdict.len() > MAX_VERDICT {
            return Err(AppendError::Unrecordable("verdict too long"));
        }
        let Some(evidence) = &self.evidence else {
            return Ok(());
        };
        if evidence.key_id.len() > MAX_KEY_ID {
            return Err(AppendError::Unrecordable("key id too long"));
        }
        if evidence.signing_string.len() > MAX_SIGNING_STRING {
            return Err(AppendError::Unrecordable("signing string too long"));
        }
        if evidence.capabilities.len() > MAX_CAPABILITIES {
            return Err(AppendError::Unrecordable("too many capabilities"));
        }
        for capability in &evidence.capabilities {
            match capability {
                Capability::Whole(document) if document.len() > MAX_CAPABILITY => {
                    return Err(AppendError::Unrecordable("capability too long"));
                }
                Capability::Whole(_) => {}
                Capability::Known(_) => {
                    return Err(AppendError::Unrecordable(
                        "a capability is given whole, the writer shortens it",
                    ));
                }
            }
        }
        Ok(())
    }

    /// About how many bytes the entry holds; what the queue's byte bound counts.
    pub(super) fn weight(&self) -> usize {
        let evidence = self.evidence.as_ref().map_or(0, |evidence| {
            let documents: usize = evidence
                .capabilities
                .iter()
                .map(|capability| match capability {
                    Capability::Whole(document) => document.len(),
                    Capability::Known(_) => 32,
                })
                .sum();
            evidence.key_id.len() + evidence.signing_string.len() + documents + 64
        });
        256 + self.participants.len() * 8 + self.verdict.len() + evidence
    }
}

/// A head that a node has signed: its word for its chain up to a record. Peers write it into their own chains, so that
/// nobody can cut or rewrite the first one unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHead {
    /// Whose chain it is.
    pub node: u64,
    /// Number of the last record that it covers.
    pub sequence: u64,
    /// That record's hash.
    pub hash: [u8; 32],
    /// The node's signature over [`super::head_message`].
    pub signature: Signature,
}

impl PeerHead {
    /// Whether the node with this key has signed it.
    pub fn is_signed(&self, cluster: &[u8; 32], key: &VerifyingKey) -> bool {
        let message = chain::head_message(cluster, self.node, self.sequence, &self.hash);
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature.0);
        key.verify_strict(&message, &signature).is_ok()
    }
}

/// What a record holds beside its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// An entry of a caller.
    Operation(Box<Entry>),
    /// The node's signature over [`super::head_message`] of the record before this one.
    Head(Signature),
    /// What a peer has signed of its own chain.
    Witnessed(PeerHead),
}

impl Content {
    /// Whether it is refused when little disk is left: uses, and what needs not be on record. Whatever ends a use or forbids
    /// one goes on.
    pub(super) fn waits_for_space(&self) -> bool {
        match self {
            Content::Operation(entry) => matches!(entry.kind, Kind::Contributed | Kind::Claimed),
            Content::Head(_) => false,
            Content::Witnessed(_) => true,
        }
    }
}

/// A record as it stands in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number, from 1, without gaps.
    pub sequence: u64,
    /// Every record up to this number was on disk for good when this one was written.
    pub synced: u64,
    /// Milliseconds since 1970; never smaller than the record's before.
    pub time_ms: u64,
    /// Hash of the record before, or of the chain's start.
    pub previous: [u8; 32],
    /// This record's own hash.
    pub hash: [u8; 32],
    /// What it says.
    pub content: Content,
}

impl Record {
    /// What the record is about.
    pub fn kind(&self) -> Kind {
        match &self.content {
            Content::Operation(entry) => entry.kind,
            Content::Head(_) => Kind::Head,
            Content::Witnessed(_) => Kind::Witnessed,
        }
    }

    /// The caller's entry, unless this is a head, of this chain or of a peer's.
    pub fn entry(&self) -> Option<&Entry> {
        match &self.content {
            Content::Operation(entry) => Some(entry),
            Content::Head(_) | Content::Witnessed(_) => None,
        }
    }
}
