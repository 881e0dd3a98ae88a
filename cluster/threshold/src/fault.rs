//! What went wrong in a ceremony, who is to blame, and the proof where there is one.
//! A fault that names nobody may be the coordinator's doing: drop the ceremony and start another. Silence is not a
//! fault of anybody.

use serde::{Deserialize, Serialize};

use crate::dkg;
use crate::envelope;
use crate::group::Group;
use crate::message::{self, SignatureBytes, Statement};
use crate::package::{self, PackageError};
use crate::session::Session;

/// Why a generation ends without a key.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Reason {
    /// The caller is no participant, or its keys are not those of the session.
    #[error("this node's keys are not those of participant {0}")]
    NotParticipant(u16),
    /// A round was called twice, or out of turn, or after a fault.
    #[error("the ceremony is not at this round")]
    OutOfTurn,
    /// Not one message of each participant.
    #[error("the set is not one message of each participant")]
    IncompleteSet,
    /// A message above its bound.
    #[error("the message of member {0} is too long")]
    TooLong(u16),
    /// Bytes that are no message.
    #[error("the message of member {0} cannot be read")]
    Unreadable(u16),
    /// Another sender, round or session, or a signature that does not verify.
    #[error("the message is not signed by member {0} for this round of this ceremony")]
    Unsigned(u16),
    /// The set holds another message of ours than the one that we sent.
    #[error("the set holds a message of ours that we did not send")]
    NotOurs,
    /// Signed, and still not a message of this round.
    #[error("member {0} signed a malformed message")]
    Malformed(u16),
    /// The package is not the one that was hashed in round 0.
    #[error("member {0} revealed another package than it committed to")]
    NotCommitted(u16),
    /// The package itself is wrong.
    #[error("the package of member {0}: {1}")]
    Package(u16, #[source] PackageError),
    /// Two packages of one dealer.
    #[error("member {0} sent two packages")]
    Equivocation(u16),
    /// An echo of a package that its dealer never signed.
    #[error("member {0} echoes a package that was never signed")]
    FalseEcho(u16),
    /// An envelope that does not open. No proof: dealer or receiver lies, or who kept the envelope.
    #[error("the envelope of member {0} does not open")]
    Envelope(u16),
    /// A share that is zero, not canonical, or not on the dealer's polynomial.
    #[error("the share of member {0} does not fit its package")]
    Share(u16),
    /// As [`Reason::Share`], but the dealer's signature on it is missing too: no proof.
    #[error("the share of member {0} neither fits its package nor is signed")]
    UnsignedShare(u16),
    /// The shares do not add up to the commitment, and the packages at hand do not tell whose fault it is.
    #[error("the shares do not fit the key's commitment")]
    Sum,
    /// The sum of all packages is no key: packages that cancel out, with negligible probability among honest dealers.
    #[error("the packages add up to no key")]
    NoKey,
}

/// Proof that a member lied, for anybody who has the session. It is public.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Evidence {
    /// A signed message that is wrong whatever the others said.
    Message(Vec<u8>),
    /// A signed round 0 message and a signed round 1 message that does not hash to it.
    Broken {
        /// The round 0 message.
        hash: Vec<u8>,
        /// The round 1 message.
        package: Vec<u8>,
    },
    /// Two signatures of one member in one round on two payloads.
    Equivocation {
        /// What one participant got.
        first: Statement,
        /// What another participant got.
        second: Statement,
    },
    /// A signed share that does not fit its dealer's signed package. Published for a ceremony that is dropped whole.
    Share {
        /// The dealer's round 1 message.
        package: Vec<u8>,
        /// For whom the share was.
        receiver: u16,
        /// The encoded share.
        share: Vec<u8>,
        /// The dealer's, over ceremony, dealer, receiver and share.
        signature: SignatureBytes,
    },
}

impl Evidence {
    /// The member that it convicts in this session; none if it proves nothing.
    pub fn convicts<G: Group>(&self, session: &Session) -> Option<u16> {
        let bound = dkg::bound::<G>(session);
        let signed = |bytes: &[u8], round: u8| {
            let sender = message::read(bytes)?.statement.sender;
            let message = message::open(session, round, sender, bytes, bound).ok()?;
            Some((sender, message.payload.to_vec()))
        };
        match self {
            Evidence::Message(bytes) => {
                let round = message::read(bytes)?.statement.round;
                let (sender, payload) = signed(bytes, round)?;
                dkg::is_wrong_by_itself::<G>(session, round, sender, &payload).then_some(sender)
            }
            Evidence::Broken { hash, package } => {
                let ((sender, hash), (dealer, package)) = (signed(hash, 0)?, signed(package, 1)?);
                let kept = package::hash::<G>(session, dealer, &package)[..] == hash[..];
                (sender == dealer && !kept).then_some(sender)
            }
            Evidence::Equivocation { first, second } => {
                let same = first.sender == second.sender && first.round == second.round;
                let two = same && first.payload != second.payload;
                (two && first.verify(session) && second.verify(session)).then_some(first.sender)
            }
            Evidence::Share {
                package,
                receiver,
                share,
                signature,
            } => {
                let (dealer, package) = signed(package, 1)?;
                session.member(*receiver)?;
                let said = envelope::share_statement::<G>(session, dealer, *receiver, share);
                if !signature.verify(session.verifying_key(dealer)?, &said) {
                    return None;
                }
                let package = package::check::<G>(session, dealer, &package).ok()?;
                let fits =
                    package::decode_share::<G>(share).is_some_and(|share| package.fits(*receiver, &share));
                (!fits).then_some(dealer)
            }
        }
    }
}

/// The end of a generation: why, whose fault, and the proof.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{reason}")]
pub struct Fault {
    /// The members to leave out of the next attempt; empty when nobody can be named.
    pub culprits: Vec<u16>,
    /// What happened.
    pub reason: Reason,
    /// For others. Without it a named culprit is this node's word alone.
    pub evidence: Option<Box<Evidence>>,
}

impl Fault {
    pub(crate) fn unnamed(reason: Reason) -> Self {
        Fault {
            culprits: Vec::new(),
            reason,
            evidence: None,
        }
    }

    pub(crate) fn accused(culprit: u16, reason: Reason) -> Self {
        Fault {
            culprits: vec![culprit],
            reason,
            evidence: None,
        }
    }

    pub(crate) fn proven(culprit: u16, reason: Reason, evidence: Evidence) -> Self {
        Fault {
            culprits: vec![culprit],
            reason,
            evidence: Some(Box::new(evidence)),
        }
    }
}

/// Why contributions do not combine into a result.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Not exactly k distinct members, or not the same ones everywhere.
    #[error("not exactly the threshold's number of distinct members")]
    Signers,
    /// A key of another purpose.
    #[error("the key is not for this use")]
    Purpose,
    /// Bytes that are no contribution, or points of low order.
    #[error("a contribution is malformed")]
    Malformed,
    /// A contribution that does not verify against its member's public share.
    #[error("a contribution does not verify")]
    Invalid,
}

/// Contributions that did not combine, and whose they were. Retry with other holders.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{reason}: members {members:?}")]
pub struct Culprits {
    /// The members to name; empty when the caller's own set was wrong.
    pub members: Vec<u16>,
    /// What was wrong with the first of them.
    pub reason: Refusal,
}
