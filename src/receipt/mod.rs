//! Receipts: members' signatures over what a reply says, for what the client cannot check by itself (trust.md 8). A
//! signature of a key exposes a lie; that this is the public key, or that a capability is revoked, is the word of the one
//! node that the client reached. k members have not lied all.
//!
//! Pure. A member signs only what its own applied state says, rendered by itself ([`Subject`]); the client makes the same
//! subject of what it asked and was answered, and compares ([`Receipt::verify`]) with the members that the operators named.

pub mod header;

#[cfg(test)]
mod tests;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::identifier::LocalId;
use crate::membership::Membership;

pub use header::{MAX_RECEIPT, Malformed};

/// The header that carries a receipt, and by which a client asks for one.
pub const HEADER: &str = "conclave-receipt";
/// What a client asks for one with; the header is not signed, since nothing rests on it.
pub const WANTED: &str = "wanted";
/// How far the times in a receipt may lie from the reader's clock, ms: as far as clients' clocks may lie from ours.
pub const SKEW: u64 = 300_000;

const PREFIX: &[u8] = b"conclave receipt 1\0";

/// What a receipt is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A `GET` of this key is answered by this body now.
    Description {
        /// Of the key.
        url: String,
        /// SHA-256 of the body, byte for byte.
        body: [u8; 32],
    },
    /// The client's request has made a key, and a `POST` of it is answered by this body.
    Birth {
        /// The request's name: SHA-256(keyId, 0, signing string).
        request: [u8; 32],
        /// Where it was sent: the keystore's keys.
        url: String,
        /// SHA-256 of the body, byte for byte.
        body: [u8; 32],
    },
    /// What this delegator has delegated under this id is revoked in this keystore, for as long as it could hold.
    Revocation {
        /// The keystore's URL.
        keystore: String,
        /// The capability's id.
        capability: String,
        /// The DID that signed its delegation.
        delegator: String,
    },
}

impl Subject {
    /// A key's description as its reader has it.
    pub fn description(url: impl Into<String>, body: &[u8]) -> Self {
        Self::Description {
            url: url.into(),
            body: Sha256::digest(body).into(),
        }
    }

    /// The keystore that it is about: its group's members vouch.
    pub fn keystore(&self) -> Option<LocalId> {
        let url = match self {
            Self::Description { url, .. } | Self::Birth { url, .. } => url,
            Self::Revocation { keystore, .. } => keystore,
        };
        let (_, named) = url.split_once("/kms/keystores/")?;
        LocalId::parse(named.split('/').next()?)
    }

    /// A new key as whoever asked for it has it.
    pub fn birth(request: [u8; 32], url: impl Into<String>, body: &[u8]) -> Self {
        Self::Birth {
            request,
            url: url.into(),
            body: Sha256::digest(body).into(),
        }
    }
}

/// A subject as the members of one list sign it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    cluster: [u8; 32],
    members: [u8; 32],
    subject: Subject,
}

impl Statement {
    /// About `subject`, by `members`.
    pub fn new(members: &Membership, subject: Subject) -> Self {
        Self {
            cluster: members.cluster,
            members: members.digest(),
            subject,
        }
    }

    /// The prefix, the fields in order, texts with their length before them: no two statements have the same bytes.
    fn signed_bytes(&self, time: u64) -> Vec<u8> {
        let mut bytes = PREFIX.to_vec();
        bytes.extend_from_slice(&self.cluster);
        bytes.extend_from_slice(&self.members);
        bytes.extend_from_slice(&time.to_be_bytes());
        let mut text = |text: &str| {
            bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        };
        match &self.subject {
            Subject::Description { url, body } => {
                text("GET");
                text(url);
                bytes.extend_from_slice(body);
            }
            Subject::Birth { request, url, body } => {
                text("POST");
                text(url);
                bytes.extend_from_slice(request);
                bytes.extend_from_slice(body);
            }
            Subject::Revocation {
                keystore,
                capability,
                delegator,
            } => {
                text("revoked");
                text(keystore);
                text(capability);
                text(delegator);
            }
        }
        bytes
    }

    /// Vouches for it at `time`, ms.
    pub fn vouch(&self, node: u64, key: &SigningKey, time: u64) -> Voucher {
        let signature = key.sign(&self.signed_bytes(time)).to_bytes();
        Voucher {
            node,
            time,
            signature,
        }
    }

    /// Whether `voucher` is `key`'s word for it.
    pub fn is_vouched(&self, voucher: &Voucher, key: &VerifyingKey) -> bool {
        let signature = Signature::from_bytes(&voucher.signature);
        key.verify_strict(&self.signed_bytes(voucher.time), &signature)
            .is_ok()
    }
}

/// One member's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voucher {
    /// The member.
    pub node: u64,
    /// Its clock when it signed, ms.
    pub time: u64,
    /// Ed25519.
    pub signature: [u8; 64],
}

/// Members' signatures over one subject, as they travel in a reply's header: [`header`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The number of the list of members that signs.
    pub members: u64,
    /// By rising number of the node, each once; [`crate::membership::MOST`] at most.
    pub vouchers: Vec<Voucher>,
}

/// Why a reply is not vouched for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// Nobody vouches.
    #[error("the reply has no receipt")]
    Missing,
    /// Fewer than a quorum.
    #[error("only {} of the {needed} members that are needed vouch for it: {}", .vouching.len(), nodes(.vouching))]
    TooFew {
        /// Who does.
        vouching: Vec<u64>,
        /// How many must.
        needed: usize,
    },
    /// By members that the reader does not know, or no more.
    #[error("{}", other_members(*.named, *.known))]
    OtherMembers {
        /// The number of the list that signs.
        named: u64,
        /// The number of the list that the reader knows.
        known: u64,
    },
    /// It cannot be read.
    #[error("its receipt cannot be read: {0}")]
    Malformed(#[from] Malformed),
    /// A signature of no member.
    #[error("its receipt is signed by node {0}, which is no member")]
    Stranger(u64),
    /// A signature is not over this.
    #[error("node {0} has not signed this: the node that answered, or somebody on the way, lies")]
    Signature(u64),
    /// Made too long ago, or ahead of the reader's clock.
    #[error("node {node} has signed this {}", away(*.now, *.time))]
    Time {
        /// Who.
        node: u64,
        /// When, ms.
        time: u64,
        /// The reader's clock, ms.
        now: u64,
    },
}

fn nodes(nodes: &[u64]) -> String {
    let texts: Vec<String> = nodes.iter().map(u64::to_string).collect();
    match &texts[..] {
        [] => "none".into(),
        [one] => format!("node {one}"),
        several => format!("nodes {}", several.join(", ")),
    }
}

fn other_members(named: u64, known: u64) -> String {
    match named > known {
        true => format!(
            "its receipt is by the members of list {named}, and only {known} lists are known here: get the orders anew \
             (conclave node orders)"
        ),
        false => format!("its receipt is by the members of list {named}, which list {known} has replaced"),
    }
}

fn away(now: u64, time: u64) -> String {
    match now >= time {
        true => format!(
            "{} s ago: that is too old, or a clock is wrong",
            (now - time) / 1_000
        ),
        false => format!("{} s ahead of the clock here", (time - now) / 1_000),
    }
}

impl Doubt {
    /// Whether something is missing, rather than wrong: an honest node may have had nothing better.
    pub fn is_lack(&self) -> bool {
        matches!(
            self,
            Self::Missing | Self::TooFew { .. } | Self::OtherMembers { .. }
        )
    }
}

impl Receipt {
    /// Who vouches for `subject`, if these are a quorum of `members` and nothing in it is wrong. `now`: the reader's clock, ms.
    ///
    /// # Errors
    /// [`Doubt`].
    pub fn verify(&self, members: &Membership, subject: Subject, now: u64) -> Result<Vec<u64>, Doubt> {
        if self.members != members.index {
            return Err(Doubt::OtherMembers {
                named: self.members,
                known: members.index,
            });
        }
        let statement = Statement::new(members, subject);
        let mut vouching: Vec<u64> = Vec::new();
        for voucher in &self.vouchers {
            let node = voucher.node;
            let member = members.member(node).ok_or(Doubt::Stranger(node))?;
            if !statement.is_vouched(voucher, &member.verifying_key) {
                return Err(Doubt::Signature(node));
            }
            if voucher.time.abs_diff(now) > SKEW {
                let time = voucher.time;
                return Err(Doubt::Time { node, time, now });
            }
            if !vouching.contains(&node) {
                vouching.push(node);
            }
        }
        let needed = members.quorum();
        match vouching.len() < needed {
            true => Err(Doubt::TooFew { vouching, needed }),
            false => Ok(vouching),
        }
    }
}
