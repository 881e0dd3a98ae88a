//! Signed messages of a ceremony: what each node says once per round, to everybody.
//! The signature is over the hash of the payload, so a [`Statement`] (all but the payload) is proof by itself.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::fault::{Fault, Reason};
use crate::hash::Framed;
use crate::session::Session;

const PREFIX: &[u8] = b"conclave ceremony 1\0";
const PROTOCOL: &str = "dkg";
const VERSION: u64 = 1;
/// Everybody; no member has this index.
const TO_ALL: u64 = 0;

/// An Ed25519 signature as serde takes it: R, then s.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SignatureBytes([u8; 32], [u8; 32]);

impl SignatureBytes {
    pub(crate) fn sign(key: &SigningKey, message: &[u8]) -> Self {
        let signature = key.sign(message);
        SignatureBytes(*signature.r_bytes(), *signature.s_bytes())
    }

    pub(crate) fn verify(&self, key: &VerifyingKey, message: &[u8]) -> bool {
        let signature = ed25519_dalek::Signature::from_components(self.0, self.1);
        key.verify_strict(message, &signature).is_ok()
    }

    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        let (r, s) = bytes.split_at_checked(32)?;
        Some(SignatureBytes(r.try_into().ok()?, s.try_into().ok()?))
    }

    pub(crate) fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..].copy_from_slice(&self.1);
        bytes
    }
}

/// That a node said something in a round, without what it said: sender, SHA-256 of the payload, signature.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Statement {
    /// The round, from 0.
    pub round: u8,
    /// Index of the member that said it.
    pub sender: u16,
    /// SHA-256 of the payload.
    pub payload: [u8; 32],
    /// Of the sender, over protocol, version, cluster, ceremony, session, round, sender, receiver and payload.
    pub signature: SignatureBytes,
}

impl Statement {
    pub(crate) fn sign(
        session: &Session,
        round: u8,
        sender: u16,
        payload: [u8; 32],
        key: &SigningKey,
    ) -> Self {
        let signature = SignatureBytes::sign(key, &signed_bytes(session, round, sender, &payload));
        Statement {
            round,
            sender,
            payload,
            signature,
        }
    }

    /// Whether a participant of this session signed it.
    pub fn verify(&self, session: &Session) -> bool {
        let bytes = signed_bytes(session, self.round, self.sender, &self.payload);
        session.terms().participants.contains(&self.sender)
            && session
                .verifying_key(self.sender)
                .is_some_and(|key| self.signature.verify(key, &bytes))
    }
}

fn signed_bytes(session: &Session, round: u8, sender: u16, payload: &[u8; 32]) -> Vec<u8> {
    let terms = session.terms();
    let digest = Framed::<Sha256>::new(PROTOCOL)
        .number(VERSION)
        .part(&terms.cluster)
        .part(&terms.ceremony)
        .part(session.digest())
        .number(round.into())
        .number(sender.into())
        .number(TO_ALL)
        .part(payload)
        .finish();
    [PREFIX, &digest].concat()
}

#[derive(Deserialize, Serialize)]
struct Wire<'a> {
    round: u8,
    sender: u16,
    #[serde(borrow)]
    payload: &'a [u8],
    signature: SignatureBytes,
}

/// A message whose signature was verified, or which is the own one.
pub(crate) struct Message<'a> {
    pub(crate) statement: Statement,
    pub(crate) payload: &'a [u8],
}

/// The bytes of a signed message.
pub(crate) fn seal(session: &Session, round: u8, sender: u16, payload: &[u8], key: &SigningKey) -> Vec<u8> {
    let statement = Statement::sign(session, round, sender, Sha256::digest(payload).into(), key);
    let wire = Wire {
        round,
        sender,
        payload,
        signature: statement.signature,
    };
    postcard::to_allocvec(&wire).expect("a message of integers and bytes always encodes")
}

/// Reads a message without a look at its signature.
pub(crate) fn read(bytes: &[u8]) -> Option<Message<'_>> {
    let wire: Wire<'_> = decode(bytes)?;
    let payload = Sha256::digest(wire.payload).into();
    let statement = Statement {
        round: wire.round,
        sender: wire.sender,
        payload,
        signature: wire.signature,
    };
    Some(Message {
        statement,
        payload: wire.payload,
    })
}

/// Reads and verifies the message of `sender` in `round`. What does not verify may be the coordinator's work, so
/// it names nobody.
pub(crate) fn open<'a>(
    session: &Session,
    round: u8,
    sender: u16,
    bytes: &'a [u8],
    bound: usize,
) -> Result<Message<'a>, Fault> {
    if bytes.len() > bound {
        return Err(Fault::unnamed(Reason::TooLong(sender)));
    }
    let message = read(bytes).ok_or(Fault::unnamed(Reason::Unreadable(sender)))?;
    let expected = message.statement.sender == sender && message.statement.round == round;
    if !expected || !message.statement.verify(session) {
        return Err(Fault::unnamed(Reason::Unsigned(sender)));
    }
    Ok(message)
}

/// A value of exactly these bytes.
pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(value)
}

/// As [`decode`], for values that own what they hold.
pub(crate) fn decode_owned<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    decode(bytes)
}
