//! A dealer's package: the committed polynomial with a proof that the dealer knows its constant term.
//! The proof binds dealer and session, so nobody can copy a package or answer another's with a rogue key.

use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::{Sha256, Sha512};
use zeroize::Zeroizing;

use crate::group::{DecodeError, Group};
use crate::hash::{Framed, hedged_scalar};
use crate::message;
use crate::polynomial::{Polynomial, evaluate_committed};
use crate::session::Session;

/// What is wrong with a dealer's package.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PackageError {
    /// Not the bytes of a package.
    #[error("it cannot be read")]
    Malformed,
    /// More or fewer points than the threshold: a polynomial of another degree.
    #[error("{0} points where the threshold says otherwise")]
    Degree(usize),
    /// One of its points.
    #[error("point {0}")]
    Point(usize, #[source] DecodeError),
    /// The proof of possession does not verify.
    #[error("the proof of possession does not verify")]
    Proof,
    /// In a renewal: the constant term is not the dealer's part of the key.
    #[error("it does not begin with the dealer's part of the key")]
    Constant,
    /// A member's share of it is zero.
    #[error("the share of member {0} would be zero")]
    ZeroShare(u16),
}

/// A verified package.
pub(crate) struct Package<G: Group> {
    pub(crate) vector: Vec<G::Element>,
}

impl<G: Group> Package<G> {
    pub(crate) fn fits(&self, receiver: u16, share: &G::Scalar) -> bool {
        *share != G::Scalar::from(0) && G::mul_base(share) == evaluate_committed::<G>(&self.vector, receiver)
    }
}

#[derive(Deserialize, Serialize)]
struct Wire {
    vector: Vec<Vec<u8>>,
    challenge: Vec<u8>,
    response: Vec<u8>,
}

/// The package's bytes, and the points in them.
pub(crate) fn build<G: Group>(
    session: &Session,
    dealer: u16,
    polynomial: &Polynomial<G>,
    rng: &mut (impl CryptoRng + RngCore),
) -> (Vec<u8>, Package<G>) {
    let vector = polynomial.commit();
    let secret = Zeroizing::new(G::encode_scalar(polynomial.constant_term()));
    let parts: [&[u8]; 3] = [(*secret).as_ref(), session.digest(), &dealer.to_be_bytes()];
    let nonce = Zeroizing::new(hedged_scalar::<G>(rng, "conclave dkg 1 nonce", &parts));
    let challenge = challenge::<G>(session, dealer, &vector[0], &G::mul_base(&nonce));
    let response = *nonce + challenge * *polynomial.constant_term();
    let wire = Wire {
        vector: vector
            .iter()
            .map(|point| G::encode(point).as_ref().to_vec())
            .collect(),
        challenge: G::encode_scalar(&challenge).as_ref().to_vec(),
        response: G::encode_scalar(&response).as_ref().to_vec(),
    };
    let bytes = postcard::to_allocvec(&wire).expect("byte strings always encode");
    (bytes, Package { vector })
}

/// Reads and verifies a dealer's package: exactly k usable points, in a renewal the right first one, the proof, no zero
/// share.
pub(crate) fn check<G: Group>(
    session: &Session,
    dealer: u16,
    bytes: &[u8],
) -> Result<Package<G>, PackageError> {
    let wire: Wire = message::decode_owned(bytes).ok_or(PackageError::Malformed)?;
    if wire.vector.len() != usize::from(session.terms().threshold) {
        return Err(PackageError::Degree(wire.vector.len()));
    }
    let mut vector = Vec::with_capacity(wire.vector.len());
    for (place, point) in wire.vector.iter().enumerate() {
        vector.push(G::decode(point).map_err(|error| PackageError::Point(place, error))?);
    }
    let expected = session.terms().constants.get(&dealer);
    if expected.is_some_and(|point| G::encode(&vector[0]).as_ref() != &point[..]) {
        return Err(PackageError::Constant);
    }
    let claimed = G::decode_scalar(&wire.challenge).ok_or(PackageError::Malformed)?;
    let response = G::decode_scalar(&wire.response).ok_or(PackageError::Malformed)?;
    let nonce = G::vartime_mul_add_base(&-claimed, &vector[0], &response);
    if challenge::<G>(session, dealer, &vector[0], &nonce) != claimed {
        return Err(PackageError::Proof);
    }
    let zero = |index: &u16| evaluate_committed::<G>(&vector, *index) == G::identity();
    if let Some(index) = session.indexes().find(zero) {
        return Err(PackageError::ZeroShare(index));
    }
    Ok(Package { vector })
}

/// What round 0 commits to.
pub(crate) fn hash<G: Group>(session: &Session, dealer: u16, bytes: &[u8]) -> [u8; 32] {
    Framed::<Sha256>::new("conclave dkg 1 package")
        .part(G::NAME.as_bytes())
        .part(session.digest())
        .number(dealer.into())
        .part(bytes)
        .finish()
}

/// The scalar of a share's bytes; zero is none.
pub(crate) fn decode_share<G: Group>(bytes: &[u8]) -> Option<Zeroizing<G::Scalar>> {
    G::decode_scalar(bytes)
        .filter(|share| *share != G::Scalar::from(0))
        .map(Zeroizing::new)
}

fn challenge<G: Group>(session: &Session, dealer: u16, public: &G::Element, nonce: &G::Element) -> G::Scalar {
    Framed::<Sha512>::new("conclave dkg 1 proof")
        .part(G::NAME.as_bytes())
        .part(session.digest())
        .number(dealer.into())
        .part(G::encode(public).as_ref())
        .part(G::encode(nonce).as_ref())
        .scalar::<G>()
}
