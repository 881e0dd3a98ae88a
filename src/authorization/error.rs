//! Why a request was refused: one enum that knows its HTTP status and the `cause` that WebKMS clients read
//! (contract, table 1.3). The API renders it; for a 403 it puts `NotAllowedError` / "Authorization error." on top
//! and `cause_name()` with the `Display` text below. What is private (which proof failed, and how) is in
//! [`Refusal::detail`], for the log and the audit record only.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A refusal. `Display` is the public message, word for word the contract's where the contract has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// 413: the body is longer than [`super::request::MAX_BODY`].
    #[error("Content is too large.")]
    BodyTooLarge,
    /// 413: the capability in the header inflates to more than 64 KiB.
    #[error("The invoked capability is too large.")]
    CapabilityTooLarge,
    /// 414: the request target is longer than [`super::request::MAX_TARGET`].
    #[error("The request target is too long.")]
    TargetTooLong,
    /// 431: the headers together are longer than [`super::request::MAX_HEADERS`].
    #[error("The header block is too large.")]
    HeadersTooLarge,
    /// 415: a body that is not JSON, or that is compressed.
    #[error("Unsupported content: {0}.")]
    UnsupportedContent(Cow<'static, str>),
    /// 400: what cannot be read, or can be read in two ways.
    #[error("Malformed request: {0}.")]
    Malformed(Cow<'static, str>),
    /// 403: no usable `Authorization` header.
    #[error("Missing or invalid \"authorization\" header.")]
    MissingAuthorization,
    /// 403: no `Capability-Invocation` header.
    #[error("Missing or invalid \"capability-invocation\" header.")]
    MissingInvocation,
    /// 403: a body without a `Digest` header.
    #[error("A \"digest\" header must be present when an HTTP body is present.")]
    MissingDigest,
    /// 403: the digest is not that of the body's raw bytes.
    #[error("The \"digest\" header value does not match digest of body.")]
    DigestMismatch,
    /// 403: the signature does not cover what it must cover.
    #[error("The signature must cover \"{0}\".")]
    NotCovered(Cow<'static, str>),
    /// 403: the signature covers a header that the request does not have.
    #[error("The signature covers a header that is not present: \"{0}\".")]
    CoveredHeaderAbsent(String),
    /// 403: `expires` has passed by more than the skew.
    #[error("The signature has expired.")]
    SignatureExpired,
    /// 403: `created` is ahead by more than the skew.
    #[error("Invalid signature; the signature creation time is in the future.")]
    SignatureInFuture,
    /// 403: `expires` before `created`, or further from it than the policy's window.
    #[error("Invalid signature; the time between creation and expiry is not acceptable.")]
    SignatureWindow,
    /// 403: the key is not a canonical Ed25519 did:key verification method.
    #[error("The verification method is not an Ed25519 did:key.")]
    UnsupportedKey,
    /// 403: the signature is not that of the key over the signing string.
    #[error("Signature not verified.")]
    SignatureNotVerified,
    /// 403: a capability without a parent was sent as an object.
    #[error("A root capability must be invoked using only its ID.")]
    RootByValue,
    /// 403: the capability hangs from another root than this endpoint's.
    #[error("Actual root capability ({actual}) does not match expected root capability ({expected}).")]
    RootMismatch {
        /// The root that was invoked.
        actual: String,
        /// The root, or roots, that the endpoint accepts.
        expected: String,
    },
    /// 403: the action in the header is not the operation's.
    #[error("Capability action \"{actual}\" does not match the expected action of \"{expected}\".")]
    ActionMismatch {
        /// The action that was invoked.
        actual: String,
        /// The action of the operation.
        expected: String,
    },
    /// 403: the capability does not allow the action. The text ends without a full stop, as the contract has it.
    #[error(
        "Capability action \"{action}\" is not allowed by the capability; allowed actions are: {}",
        quoted(allowed)
    )]
    ActionNotAllowed {
        /// The action that was invoked.
        action: String,
        /// What the capability allows.
        allowed: Vec<String>,
    },
    /// 403: the request's target lies outside of the capability's.
    #[error("The invocation target is not allowed by the capability.")]
    TargetNotAllowed,
    /// 403: the signer is not a controller of the invoked capability.
    #[error(
        "The capability controller does not match the verification method (or its controller) used to invoke."
    )]
    WrongInvoker,
    /// 403: the invoked capability, or a parent of it, has expired.
    #[error("The invoked capability has expired.")]
    CapabilityExpired,
    /// 403: a link's `created` is ahead of now, or of the invocation, by more than the skew.
    #[error("A capability in the delegation chain was delegated in the future.")]
    DelegatedInFuture,
    /// 403: `expires` minus `created` of a link exceeds the endpoint's limit.
    #[error("A delegated capability in the delegation chain has a time to live that is too long.")]
    TtlTooLong,
    /// 403: more capabilities than the verifier's limit, the root included.
    #[error("The capability chain exceeds the maximum allowed length of {0}.")]
    ChainTooLong(usize),
    /// 403: more capabilities than this key's `maxCapabilityChainLength`, the root included.
    #[error("Maximum zcap invocation capability chain length ({0}) exceeded.")]
    KeyChainTooLong(usize),
    /// 403: a link of the chain is revoked.
    #[error("One or more capabilities in the chain have been revoked.")]
    Revoked,
    /// 403: a forged, tampered or ill-formed capability. Which of these is not told to the client.
    #[error("Verification error(s).")]
    Verification(#[source] ChainFault),
    /// 403: the capability given to the revocation endpoint is not a valid delegation under the keystore.
    #[error("The provided capability delegation is invalid.")]
    InvalidDelegation(#[source] Box<Refusal>),
}

/// What is wrong with a chain. Never shown to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ChainFault {
    /// A member that the closed shape does not know.
    #[error("unknown member in a capability or its proof")]
    UnknownMember,
    /// A member that is missing, or of another type or size than the closed shape allows.
    #[error("capability member missing or of the wrong type: {0:?}")]
    Member(Member),
    /// `@context` is not exactly the two compiled-in contexts of the proof's suite.
    #[error("unexpected context")]
    Context,
    /// Not exactly one proof of a known suite.
    #[error("unknown proof type or cryptosuite")]
    Suite,
    /// `proofPurpose` is not `capabilityDelegation`.
    #[error("proof purpose is not capabilityDelegation")]
    Purpose,
    /// The chain is empty, inconsistent between its levels, or repeats an id.
    #[error("capability chain is empty, inconsistent or cyclic")]
    Chain,
    /// A delegation was not signed by a controller of its parent.
    #[error("delegator is not a controller of the parent capability")]
    Delegator,
    /// A proof's signature does not verify.
    #[error("delegation proof not verified")]
    Proof,
    /// A child allows an action that its parent does not.
    #[error("allowed actions wider than the parent's")]
    Action,
    /// A child's target lies outside of its parent's.
    #[error("invocation target outside of the parent's")]
    Target,
    /// A child outlives its parent.
    #[error("expires after its parent")]
    Expires,
    /// A child was created before its parent, or after its own `expires`.
    #[error("created before its parent or after its own expiry")]
    Created,
}

/// The member of a capability that a [`ChainFault::Member`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each variant is the JSON member of that name")]
pub enum Member {
    Capability,
    Id,
    ParentCapability,
    Controller,
    InvocationTarget,
    AllowedAction,
    Expires,
    Proof,
    ProofCreated,
    VerificationMethod,
    CapabilityChain,
    ProofValue,
}

impl Refusal {
    pub(crate) fn malformed(why: &'static str) -> Self {
        Self::Malformed(Cow::Borrowed(why))
    }

    /// The HTTP status: 400, 403, 413, 414, 415 or 431.
    pub fn status(&self) -> u16 {
        match self {
            Self::BodyTooLarge | Self::CapabilityTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::UnsupportedContent(_) => 415,
            Self::HeadersTooLarge => 431,
            Self::Malformed(_) => 400,
            _ => 403,
        }
    }

    /// The `name` that goes with the message: of the `cause` when the status is 403, of the error itself otherwise.
    pub fn cause_name(&self) -> &'static str {
        match self {
            Self::BodyTooLarge | Self::CapabilityTooLarge | Self::TargetTooLong | Self::HeadersTooLarge => {
                "QuotaExceededError"
            }
            Self::UnsupportedContent(_) => "NotSupportedError",
            Self::Malformed(_)
            | Self::MissingAuthorization
            | Self::MissingInvocation
            | Self::MissingDigest
            | Self::DigestMismatch
            | Self::NotCovered(_)
            | Self::CoveredHeaderAbsent(_)
            | Self::UnsupportedKey
            | Self::SignatureNotVerified
            | Self::InvalidDelegation(_) => "DataError",
            Self::SignatureExpired | Self::SignatureInFuture | Self::SignatureWindow => "ConstraintError",
            Self::Verification(_) => "VerificationError",
            _ => "Error",
        }
    }

    /// The message and, behind it, what the client is not told. For logs and audit records.
    pub fn detail(&self) -> String {
        match self {
            Self::Verification(fault) => format!("{self} ({fault})"),
            Self::InvalidDelegation(inner) => format!("{self} ({})", inner.detail()),
            _ => self.to_string(),
        }
    }
}

impl From<ChainFault> for Refusal {
    fn from(fault: ChainFault) -> Self {
        Self::Verification(fault)
    }
}

fn quoted(actions: &[String]) -> String {
    actions
        .iter()
        .map(|action| format!("\"{action}\""))
        .collect::<Vec<_>>()
        .join(", ")
}
