//! What nodes ask each other on the ceremony lane, as closed types; a byte for the format, then postcard; bounded by the
//! lane. A call goes in the newest format that both nodes speak, an answer in that of its call. What changes from one format
//! to the next is a new variant at the end, with its [`Call::since`]: what is there keeps its place and its shape.
//!
//! No type here contains itself: what is nested in bytes has no end but the stack's. A call in a call and an answer in
//! an answer are bytes, decoded one level at a time.
//!
//! Every question about a client's request carries the request itself: the node that is asked verifies it as if the
//! client had sent it there. Nothing in a question is believed but what it is checked against.

mod ceremony;
mod forwarded;
mod item;

use std::collections::BTreeMap;

use conclave_garbled::session::Tail;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ceremonies;
use super::conduct::Abort;
use super::receipts::Vouch;
use crate::audit::PeerHead;
use crate::format::{self, FIRST, Format, NEWEST, OLDEST};
use crate::identifier::{LocalId, OperationId};
use crate::keystore::{Endorsement, KeystoreRecord, Statement};
use crate::operator::SignedOrder;
use crate::overload::Class;
use crate::problem::Problem;

pub use crate::operation::batch::MAX_ITEMS;
pub use ceremony::{
    Beginning, BirthStep, Computed, Half, MAX_ABORTS, RenewCompute, Renewal, Roles, Round, ShareName, ToRenew,
};
pub use forwarded::{Forwarded, MAX_ADDRESSES, Progress, Relay, Relayed, Served};
pub use item::{Item, ItemAsk};

/// The first byte of a frame on the bulk lane, which says whose it is: consensus'.
pub(crate) const CONSENSUS: u8 = 0;
/// Segments of garbled circuits.
pub(crate) const CIRCUITS: u8 = 1;

/// A question.
#[derive(Clone, Serialize, Deserialize)]
pub enum Call {
    /// Endorse the change that this request asks for.
    Endorse(Forwarded),
    /// Endorse the time for an idle group.
    EndorseTime {
        /// The group.
        group: u32,
        /// Names the entry.
        operation: OperationId,
    },
    /// Sign with a quorum of two: the sender's commitments come with the request (threshold.md, FROST).
    Cosign(Forwarded, Vec<u8>),
    /// First of two round trips with a larger quorum: draw commitments.
    Commit(Forwarded),
    /// Second: all signers' commitments by share index; the answer is the signature share.
    SignShare(OperationId, u8, BTreeMap<u16, Vec<u8>>),
    /// A partial Diffie-Hellman result with its proof.
    Derive(Forwarded),
    /// Questions about the items of a batch, all at once; [`MAX_ITEMS`] at most. The batch itself names no operation:
    /// each item does.
    Batch(Forwarded, Vec<Item>),
    /// Generation, first round; with why the operation's earlier attempts ended, [`MAX_ABORTS`] at most.
    Begin(Forwarded, Beginning, Vec<Abort>),
    /// Generation, a later round: everybody's messages of the round before, by share index. The answer is the
    /// message of `Round`, which is not the first.
    Continue(ceremonies::Id, Round, BTreeMap<u16, Vec<u8>>),
    /// Asks a participant to put this question (an encoded call), which the asked one got itself, to another one, which gave the
    /// coordinator no answer. The answer is the other one's, or [`Answer::Standing`].
    Witness(Vec<u8>, u64),
    /// A coordinator's question by way of another participant: [`Call::Begin`] or [`Call::Continue`].
    Relayed(Vec<u8>),
    /// Would you take part in a generation for this operation, in this group? Asked before signing a transcript that
    /// leaves the asked member out.
    Standing(OperationId, u32),
    /// Envelopes that are kept for the asking member, after this share.
    Envelopes(Option<ShareName>),
    /// The asking member has its share of this key on disk.
    Confirm(ShareName),
    /// The sender claims requests whose results are secret, before it shows them ([`crate::replay::claim`]);
    /// [`MAX_ITEMS`] at most.
    Claim(OperationId, Vec<[u8; 32]>),
    /// The sender's half of what two nodes share in their present lives; the answer is the other half.
    Pair(Half),
    /// A use of a symmetric key: garble for the sender. Tables go before the answer, on the bulk lane.
    Garble(Forwarded, Roles),
    /// Birth of a symmetric key, first step.
    Birth(Forwarded, Beginning),
    /// Birth of a symmetric key, a later step.
    BirthStep([u8; 32], BirthStep),
    /// Serve this request in the place of the sender, which holds no part of the key, or is none of those that decide.
    Serve(Forwarded),
    /// The asking member was away when this symmetric key was born: what both hold of it. The answer is a sealed message.
    Portion(ShareName),
    /// Renewal of shares, first round. The answer to each round but the last is [`Answer::Renewing`].
    Renew(Renewal),
    /// Renewal of shares, a later round: for each key everybody's messages of the round before, by share index.
    RenewStep([u8; 32], Round, Vec<BTreeMap<u16, Vec<u8>>>),
    /// Nothing comes of this renewal, says its coordinator.
    EndRenewal([u8; 32]),
    /// Endorse an order of the operators, in this group.
    EndorseOrder(Box<SignedOrder>, u32, OperationId),
    /// Endorse that every key of a group is with the members of this number.
    EndorseMove {
        /// The group.
        group: u32,
        /// Counts its lists of members.
        number: u64,
        /// Names the entry.
        operation: OperationId,
    },
    /// Renewal of shares, before the last round, to those that are to hold a symmetric key that moves, by the key's place among
    /// the proposal's: they compute its check value.
    RenewCompute([u8; 32], u8, RenewCompute),
    /// The last head that the asked node has signed of its audit chain.
    AuditHead,
    /// Vouch for what a client is answered, by what the asked member has applied.
    Vouch(Box<Vouch>),
    /// Endorse that a group begins to move to the members of this number.
    EndorseBeginning {
        /// The group.
        group: u32,
        /// Counts its lists of members.
        number: u64,
        /// Names the entry.
        operation: OperationId,
    },
    /// Serve this request in the place of the sender, which has no part of its group.
    Relay(Box<Relay>),
    /// The keystores in this group that this request lists; the sender has no part of it.
    List(Box<Forwarded>, u32),
    /// How far are the members of this group? The sender has no part of it.
    Progress(u32),
}

/// An answer.
#[derive(Clone, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Call::Endorse`], [`Call::EndorseTime`], [`Call::EndorseOrder`], [`Call::EndorseMove`] and
    /// [`Call::EndorseBeginning`].
    Endorsed(Endorsement),
    /// To [`Call::Cosign`]: commitments, signature share.
    Cosigned(Vec<u8>, Vec<u8>),
    /// To [`Call::Commit`].
    Committed(Vec<u8>),
    /// To [`Call::SignShare`].
    Signed(Vec<u8>),
    /// To [`Call::Derive`].
    Derived(Vec<u8>),
    /// To [`Call::Batch`]: an encoded answer for each question, in its order.
    Batch(Vec<Vec<u8>>),
    /// To a round of a generation or a birth: this participant's message. To [`Call::Portion`]: the sealed pieces. To
    /// [`RenewCompute::Decode`]: what was decoded.
    Message(Vec<u8>),
    /// To the last round of a generation, a birth or a renewal: the outcome and this participant's signature over it. The
    /// coordinator believes only its own outcome, and every other participant's signature over that.
    Generated(Box<Statement>, Endorsement),
    /// To a round of a generation: it ended for this participant.
    Aborted(Box<Abort>),
    /// To [`Call::Standing`] and [`Call::Witness`].
    Standing {
        /// The member has taken no part in an attempt of this operation or has ended one, or it is out of touch with
        /// the group and takes part in none.
        refused: bool,
    },
    /// To [`Call::Envelopes`]: (share, envelopes as kept).
    Envelopes(Vec<(ShareName, Vec<u8>)>),
    /// To [`Call::Confirm`], [`Call::Claim`], [`Call::EndRenewal`], [`BirthStep::Agree`] and [`RenewCompute::Agree`].
    Confirmed,
    /// To [`Call::Pair`].
    Paired(Half),
    /// To [`Call::Garble`], [`BirthStep::Garble`] and [`RenewCompute::Garble`]: the first garbler's last message.
    Garbled(Tail),
    /// The second garbler's.
    Vouched([u8; 16]),
    /// To [`BirthStep::Open`]: by the number of whom it is for.
    Messages(BTreeMap<u8, Vec<u8>>),
    /// To [`Call::Serve`]: the body of the reply, JSON.
    Served {
        /// The HTTP status.
        status: u16,
        /// Where the new thing is.
        location: Option<String>,
        /// JSON; none with 204.
        body: Option<Vec<u8>>,
    },
    /// No: the request does not authorize this, in the asked node's own judgement.
    Refused(Box<Problem>),
    /// Not now, no judgement: the asked node cannot decide safely, ask another.
    Abstained(Abstention),
    /// The question does not fit what the asked node knows of the ceremony; the reason is for the log.
    Misfit(String),
    /// To a round of a renewal: this participant's message about each key, empty where it has none.
    Renewing(Vec<Vec<u8>>),
    /// To [`Call::Renew`]: this participant has no share of these keys, and cannot deal.
    Lacking(Vec<LocalId>),
    /// To a round of a renewal: it came to nothing here; the reason is for the log. Somebody else's message may be why.
    Ended(String),
    /// To [`Call::AuditHead`]: none before the first; and whether the node takes part in anything.
    AuditHead(Option<PeerHead>, bool),
    /// To [`Call::Vouch`]: the member's clock, ms, and its signature as two halves.
    Voucher(u64, [[u8; 32]; 2]),
    /// To [`Call::Relay`].
    Relayed(Box<Relayed>),
    /// To [`Call::List`].
    Listed(Vec<(LocalId, KeystoreRecord)>),
    /// To [`Call::Progress`].
    Progress(Progress),
}

/// Why a holder abstains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Abstention {
    /// Entries that the decision needs are not applied yet.
    #[error("behind: entries that the decision needs are not applied yet")]
    Behind,
    /// No leader has been heard from for 10 s, or a peer is further.
    #[error("fenced: out of touch with the group")]
    Fenced,
    /// The clock ran back, or lags the group's time.
    #[error("the clock cannot be trusted")]
    Clock,
    /// The replay memory is full or not yet read back.
    #[error("the replay memory is not ready")]
    Memory,
    /// The audit record cannot be written.
    #[error("the audit record cannot be written")]
    Audit,
    /// The share of this key has not arrived yet.
    #[error("the share of this key is not here yet")]
    NoShare,
    /// Too much to do.
    #[error("overloaded")]
    Busy,
    /// It shares no secret with another node that takes part: a link is down, or one has just started.
    #[error("not paired with another holder yet")]
    Unpaired,
    /// The key's shares were renewed, and the asker does not know it yet.
    #[error("the key is in another epoch here")]
    Epoch,
    /// The asker's build computes the same by another circuit: nothing is garbled, nothing burned.
    #[error("another version: it computes this by another circuit")]
    Circuit,
}

/// What is encoded is in one of the formats that this build speaks.
fn encode(format: Format, value: &impl Serialize) -> Vec<u8> {
    // Closed types of plain data: encoding them into memory cannot fail.
    let encoded = postcard::to_extend(value, vec![format]).unwrap_or_default();
    format::close(encoded)
}

/// Nothing may follow.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    format_of(bytes).ok()?;
    match postcard::take_from_bytes(format::open(bytes)?) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

/// The format of a call or an answer.
///
/// # Errors
/// The first byte, where this build does not speak it; none of nothing.
pub fn format_of(bytes: &[u8]) -> Result<Format, Option<Format>> {
    match bytes.first() {
        Some(format) if format::is_spoken(*format) => Ok(*format),
        other => Err(other.copied()),
    }
}

impl Answer {
    /// Encodes in the oldest format that this build speaks: its neighbours do, too.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_in(OLDEST)
    }

    /// Encodes in the format of the call that it answers.
    pub fn encode_in(&self, format: Format) -> Vec<u8> {
        encode(format.clamp(OLDEST, NEWEST), self)
    }

    /// Decodes; nothing may follow.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes)
    }
}

impl Call {
    /// The first format that has it: a variant that comes later gets a line of its own here.
    pub fn since(&self) -> Format {
        FIRST
    }

    /// Encodes in the oldest format that has it and that this build speaks.
    pub fn encode(&self) -> Vec<u8> {
        encode(self.since().max(OLDEST), self)
    }

    /// Encodes for a peer that speaks this format; `None` if that does not have it.
    pub fn encode_in(&self, format: Format) -> Option<Vec<u8>> {
        (format::is_spoken(format) && self.since() <= format).then(|| encode(format, self))
    }

    /// Decodes; nothing may follow.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let format = format_of(bytes).ok()?;
        decode::<Self>(bytes).filter(|call| call.since() <= format)
    }

    /// The operation that it names. Later rounds of a generation name a ceremony only.
    pub fn operation(&self) -> Option<OperationId> {
        match self {
            Self::EndorseTime { operation, .. }
            | Self::EndorseOrder(_, _, operation)
            | Self::EndorseMove { operation, .. }
            | Self::EndorseBeginning { operation, .. }
            | Self::SignShare(operation, ..)
            | Self::Claim(operation, _)
            | Self::Standing(operation, _) => Some(*operation),
            Self::Witness(call, _) | Self::Relayed(call) => Call::decode(call)?
                .forwarded()
                .map(|forwarded| forwarded.operation),
            call => call.forwarded().map(|forwarded| forwarded.operation),
        }
    }

    /// What is given up first under load.
    pub fn class(&self) -> Class {
        match self {
            Self::Cosign(..)
            | Self::Commit(_)
            | Self::SignShare(..)
            | Self::Derive(_)
            | Self::Claim(..)
            | Self::List(..)
            | Self::Vouch(_) => Class::Signatures,
            Self::Batch(_, items) => {
                let is_symmetric = |item: &Item| matches!(item.ask, ItemAsk::Garble(_) | ItemAsk::Serve);
                match items.iter().any(is_symmetric) {
                    true => Class::Symmetric,
                    false => Class::Signatures,
                }
            }
            Self::Garble(..) | Self::BirthStep(_, BirthStep::Garble(..)) | Self::Pair(_) => Class::Symmetric,
            Self::Renew(_)
            | Self::RenewStep(..)
            | Self::RenewCompute(..)
            | Self::EndRenewal(_)
            | Self::Envelopes(_)
            | Self::Confirm(_)
            | Self::Portion(_)
            | Self::AuditHead => Class::Bulk,
            // What is to be served for another node says its request.
            Self::Relay(relay) => relay.class(),
            Self::Endorse(_)
            | Self::EndorseTime { .. }
            | Self::EndorseOrder(..)
            | Self::EndorseMove { .. }
            | Self::EndorseBeginning { .. }
            | Self::Begin(..)
            | Self::Continue(..)
            | Self::Witness(..)
            | Self::Relayed(_)
            | Self::Standing(..)
            | Self::Birth(..)
            | Self::BirthStep(..)
            | Self::Progress(_)
            | Self::Serve(_) => Class::Changes,
        }
    }

    /// The client's request in it, if it carries one.
    pub fn forwarded(&self) -> Option<&Forwarded> {
        match self {
            Self::Endorse(forwarded)
            | Self::Cosign(forwarded, _)
            | Self::Commit(forwarded)
            | Self::Derive(forwarded)
            | Self::Batch(forwarded, _)
            | Self::Garble(forwarded, _)
            | Self::Birth(forwarded, _)
            | Self::Serve(forwarded)
            | Self::Begin(forwarded, ..) => Some(forwarded),
            Self::Relay(relay) => Some(&relay.forwarded),
            Self::List(forwarded, _) => Some(forwarded),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a hostile node sends so that a decoder that calls itself runs out of stack.
    #[test]
    fn nesting_has_no_depth() {
        let mut call = Call::EndorseTime {
            group: 1,
            operation: OperationId {
                node: 1,
                boot: 1,
                counter: 1,
            },
        };
        let mut answer = Answer::Confirmed;
        for _ in 0..10 {
            call = Call::Relayed(Call::Witness(call.encode(), 2).encode());
            answer = Answer::Batch(vec![answer.encode()]);
        }
        assert!(matches!(Call::decode(&call.encode()), Some(Call::Relayed(_))));
        assert!(call.operation().is_none());
        assert!(matches!(Answer::decode(&answer.encode()), Some(Answer::Batch(each)) if each.len() == 1));
        let mut problem = Problem::malformed("innermost");
        for _ in 0..7 {
            problem = Problem::malformed("around it").caused_by(problem);
        }
        let deep = Answer::Refused(Box::new(problem.clone())).encode();
        assert!(matches!(Answer::decode(&deep), Some(Answer::Refused(same)) if *same == problem));
        let deeper = Problem::malformed("one more").caused_by(problem);
        assert!(Answer::decode(&Answer::Refused(Box::new(deeper)).encode()).is_none());
    }

    #[test]
    fn what_is_said_in_a_format_that_is_not_spoken_is_read_by_nobody() {
        let call = Call::Witness(vec![1], 2);
        for format in OLDEST..=NEWEST {
            let bytes = call.encode_in(format).unwrap();
            assert_eq!(format_of(&bytes), Ok(format));
            assert!(matches!(Call::decode(&bytes), Some(Call::Witness(..))));
            assert_eq!(format_of(&Answer::Confirmed.encode_in(format)), Ok(format));
        }
        for unknown in [0, NEWEST + 1, u8::MAX] {
            assert!(call.encode_in(unknown).is_none());
            let mut bytes = call.encode();
            bytes[0] = unknown;
            assert_eq!(format_of(&bytes), Err(Some(unknown)));
            assert!(Call::decode(&bytes).is_none());
            let mut bytes = Answer::Confirmed.encode();
            bytes[0] = unknown;
            assert!(Answer::decode(&bytes).is_none());
        }
        assert_eq!(format_of(&[]), Err(None));
        assert!(Call::decode(&[]).is_none());
    }
}
