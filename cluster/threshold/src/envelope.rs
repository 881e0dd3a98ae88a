//! Shares on their way: HPKE (RFC 9180) to the X25519 key that membership pins, one envelope for every member,
//! present or away. A member that was away calls [`open`] with what any one participant kept for it.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::commitment::Commitment;
use crate::dkg;
use crate::fault::{Evidence, Fault, Reason};
use crate::group::Group;
use crate::hash::Framed;
use crate::message::{self, SignatureBytes};
use crate::package::{self, Package};
use crate::session::Session;
use crate::share::KeyShare;

const INFO: &[u8] = b"conclave envelope 1";
const SHARE_PREFIX: &[u8] = b"conclave share 1\0";
const SIGNATURE_BYTES: usize = 64;
const TAG_BYTES: usize = 16;

pub(crate) type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;

/// A member's X25519 key that opens its envelopes. No Debug, no Serialize; zeroized on drop.
pub struct EnvelopeKey(<X25519HkdfSha256 as Kem>::PrivateKey);

impl EnvelopeKey {
    /// A fresh key.
    pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        EnvelopeKey(X25519HkdfSha256::gen_keypair(rng).0)
    }

    /// The key of 32 stored bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        EnvelopeKey(Deserializable::from_bytes(bytes).expect("any 32 bytes are an X25519 key"))
    }

    /// The secret bytes, to be sealed.
    pub fn to_sealed_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes().into())
    }

    pub(crate) fn private(&self) -> &<X25519HkdfSha256 as Kem>::PrivateKey {
        &self.0
    }

    /// The public key, to be pinned in [`crate::Member`].
    pub fn public(&self) -> [u8; 32] {
        X25519HkdfSha256::sk_to_pk(&self.0).to_bytes().into()
    }
}

/// A dealer's share for one member, sealed to it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SealedShare {
    /// Who dealt it.
    pub dealer: u16,
    /// Who can open it.
    pub member: u16,
    /// HPKE's encapsulated key.
    pub encapsulated: [u8; 32],
    /// Share, dealer's signature on it, and the tag.
    pub ciphertext: Vec<u8>,
}

impl SealedShare {
    pub(crate) fn ciphertext_bytes<G: Group>() -> usize {
        G::SCALAR_BYTES + SIGNATURE_BYTES + TAG_BYTES
    }

    /// SHA-256 over the whole envelope.
    pub fn digest(&self) -> [u8; 32] {
        Framed::<Sha256>::new("conclave envelope 1 digest")
            .number(self.dealer.into())
            .number(self.member.into())
            .part(&self.encapsulated)
            .part(&self.ciphertext)
            .finish()
    }
}

/// Opened, and not yet checked: a share and its dealer's signature.
pub(crate) struct Opened(Zeroizing<Vec<u8>>);

impl Opened {
    pub(crate) fn share(&self) -> &[u8] {
        &self.0[..self.0.len() - SIGNATURE_BYTES]
    }

    fn signature(&self) -> Option<SignatureBytes> {
        SignatureBytes::from_slice(&self.0[self.0.len() - SIGNATURE_BYTES..])
    }

    /// The fault of a dealer whose share does not fit its package, with the share as proof if it is signed.
    pub(crate) fn accuse<G: Group>(&self, session: &Session, dealer: u16, me: u16, package: &[u8]) -> Fault {
        let said = share_statement::<G>(session, dealer, me, self.share());
        let signed = |signature: &SignatureBytes| {
            session
                .verifying_key(dealer)
                .is_some_and(|key| signature.verify(key, &said))
        };
        match self.signature().filter(signed) {
            Some(signature) => {
                let (package, share) = (package.to_vec(), self.share().to_vec());
                let evidence = Evidence::Share {
                    package,
                    receiver: me,
                    share,
                    signature,
                };
                Fault::proven(dealer, Reason::Share(dealer), evidence)
            }
            None => Fault::accused(dealer, Reason::UnsignedShare(dealer)),
        }
    }
}

/// What a dealer signs inside the envelope.
pub(crate) fn share_statement<G: Group>(
    session: &Session,
    dealer: u16,
    receiver: u16,
    share: &[u8],
) -> Vec<u8> {
    let digest = Zeroizing::new(
        Framed::<Sha256>::new(G::NAME)
            .part(&session.terms().ceremony)
            .part(session.digest())
            .number(dealer.into())
            .number(receiver.into())
            .part(share)
            .finish(),
    );
    [SHARE_PREFIX, &*digest].concat()
}

fn associated_data(session: &Session, dealer: u16, member: u16) -> [u8; 32] {
    let terms = session.terms();
    Framed::<Sha256>::new("conclave envelope 1 data")
        .part(&terms.cluster)
        .part(&terms.ceremony)
        .part(&terms.key)
        .part(terms.key_type.as_bytes())
        .number(terms.epoch)
        .number(dealer.into())
        .number(member.into())
        .finish()
}

/// Seals a dealer's signed share to a member of the session.
pub(crate) fn seal<G: Group>(
    session: &Session,
    dealer: u16,
    member: u16,
    share: &G::Scalar,
    key: &SigningKey,
    rng: &mut (impl CryptoRng + RngCore),
) -> Option<SealedShare> {
    let share = Zeroizing::new(G::encode_scalar(share));
    let signature = SignatureBytes::sign(
        key,
        &share_statement::<G>(session, dealer, member, (*share).as_ref()),
    );
    let plaintext = Zeroizing::new([(*share).as_ref(), &signature.to_bytes()].concat());
    seal_bytes(session, dealer, member, &plaintext, rng)
}

pub(crate) fn seal_bytes(
    session: &Session,
    dealer: u16,
    member: u16,
    plaintext: &[u8],
    rng: &mut (impl CryptoRng + RngCore),
) -> Option<SealedShare> {
    let public = PublicKey::from_bytes(&session.member(member)?.envelope_key).ok()?;
    let data = associated_data(session, dealer, member);
    let (encapsulated, ciphertext) = hpke::single_shot_seal::<
        ChaCha20Poly1305,
        HkdfSha256,
        X25519HkdfSha256,
        _,
    >(&OpModeS::Base, &public, INFO, plaintext, &data, rng)
    .ok()?;
    Some(SealedShare {
        dealer,
        member,
        encapsulated: encapsulated.to_bytes().into(),
        ciphertext,
    })
}

pub(crate) fn unseal<G: Group>(session: &Session, sealed: &SealedShare, key: &EnvelopeKey) -> Option<Opened> {
    if sealed.ciphertext.len() != SealedShare::ciphertext_bytes::<G>() {
        return None;
    }
    let encapsulated = Deserializable::from_bytes(&sealed.encapsulated).ok()?;
    let data = associated_data(session, sealed.dealer, sealed.member);
    hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &key.0,
        &encapsulated,
        INFO,
        &sealed.ciphertext,
        &data,
    )
    .ok()
    .map(|plaintext| Opened(Zeroizing::new(plaintext)))
}

/// Opens a member's envelopes, one of every participant, and checks the share against the key's commitment.
///
/// `session` is the one that the key was born in, `commitment` that of the replicated state. `packages` are the
/// dealers' round 1 messages ([`dkg::Outcome::packages`]); they are looked at only when the share does not fit, to
/// name the dealer, and may be empty. An envelope that does not open names nobody: whoever kept it may have damaged
/// it, so ask another participant. Evidence against a dealer holds the share that it dealt: the key is in use, so
/// the evidence is for its operators, and the member then needs a repair.
pub fn open<G: Group>(
    session: &Session,
    me: u16,
    key: &EnvelopeKey,
    commitment: &Commitment<G>,
    packages: &BTreeMap<u16, Vec<u8>>,
    envelopes: &[SealedShare],
) -> Result<KeyShare<G>, Fault> {
    let terms = session.terms();
    if session
        .member(me)
        .is_none_or(|member| member.envelope_key != key.public())
    {
        return Err(Fault::unnamed(Reason::NotParticipant(me)));
    }
    let born_here = commitment.epoch() == terms.epoch
        && commitment.purpose() == terms.purpose
        && commitment.threshold() == usize::from(terms.threshold)
        && session.indexes().eq(commitment.members().iter().copied());
    if !born_here {
        return Err(Fault::unnamed(Reason::Sum));
    }
    let dealt: BTreeMap<u16, &SealedShare> = envelopes.iter().map(|sealed| (sealed.dealer, sealed)).collect();
    let complete = dealt.len() == envelopes.len() && dealt.keys().eq(terms.participants.iter());
    if !complete || envelopes.iter().any(|sealed| sealed.member != me) {
        return Err(Fault::unnamed(Reason::IncompleteSet));
    }
    let mut opened = BTreeMap::new();
    for (dealer, sealed) in dealt {
        let plain = unseal::<G>(session, sealed, key).ok_or(Fault::unnamed(Reason::Envelope(dealer)))?;
        opened.insert(dealer, plain);
    }
    if let Some(share) = add_up::<G>(session, me, None, &opened).filter(|share| commitment.holds(share)) {
        return Ok(share);
    }
    for (dealer, plain) in &opened {
        let Some(bytes) = packages.get(dealer) else {
            continue;
        };
        let message = message::open(session, 1, *dealer, bytes, dkg::bound::<G>(session))?;
        let package = package::check::<G>(session, *dealer, message.payload)
            .map_err(|error| Fault::unnamed(Reason::Package(*dealer, error)))?;
        check_share(session, *dealer, me, plain, &package, bytes)?;
    }
    Err(Fault::unnamed(Reason::Sum))
}

/// The sum of opened shares, and of an own one; none if one of them is not a nonzero scalar, or the sum is zero.
pub(crate) fn add_up<G: Group>(
    session: &Session,
    me: u16,
    own: Option<&G::Scalar>,
    opened: &BTreeMap<u16, Opened>,
) -> Option<KeyShare<G>> {
    let mut sum = Zeroizing::new(own.copied().unwrap_or(G::Scalar::from(0)));
    for plain in opened.values() {
        *sum = *sum + *package::decode_share::<G>(plain.share())?;
    }
    KeyShare::<G>::new(me, session.terms().epoch, session.terms().purpose, &sum)
}

/// Checks one dealer's share against its package; `bytes` is the signed message that the package came in.
pub(crate) fn check_share<G: Group>(
    session: &Session,
    dealer: u16,
    me: u16,
    plain: &Opened,
    package: &Package<G>,
    bytes: &[u8],
) -> Result<(), Fault> {
    let fits = package::decode_share::<G>(plain.share()).is_some_and(|share| package.fits(me, &share));
    if fits {
        Ok(())
    } else {
        Err(plain.accuse::<G>(session, dealer, me, bytes))
    }
}
