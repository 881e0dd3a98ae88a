//! Threshold X25519: k partial products and their proofs give the bytes of RFC 7748 for every point of the curve.
//!
//! A holder calls [`lift`] and [`partial`] for u of the client's own request; the coordinator calls [`combine`],
//! which verifies every partial before it is used. The shared secret of a key that clamps differently is the same:
//! threshold.md, "X25519 and other Diffie-Hellman".

use std::collections::BTreeMap;
use std::sync::LazyLock;

use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use curve25519_dalek::{EdwardsPoint, MontgomeryPoint};
use rand::{CryptoRng, RngCore};
use sha2::Sha512;
use zeroize::Zeroizing;

use crate::commitment::Commitment;
use crate::dleq::{Proof, Statement};
use crate::edwards25519::Edwards25519;
use crate::fault::{Culprits, Refusal};
use crate::group::Group;
use crate::hash::Framed;
use crate::polynomial::lagrange;
use crate::session::Purpose;
use crate::share::KeyShare;

/// Length of a partial: point, challenge, response.
pub const PARTIAL_BYTES: usize = 96;

static INVERSE_OF_EIGHT: LazyLock<Scalar> = LazyLock::new(|| Scalar::from(8u64).invert());

/// What one operation is about; under every proof. Epoch and purpose are the commitment's.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The cluster's id.
    pub cluster: &'a [u8; 32],
    /// The operation's id and attempt, as bytes of the caller's.
    pub operation: &'a [u8],
    /// The key's name.
    pub key: &'a [u8],
}

/// Why there is no shared secret with this u-coordinate.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// No point of the curve has this coordinate: it lies on the twist, where no honest public key is.
    #[error("the public key is not a point of the curve but of its twist")]
    Twist,
    /// The point has an order of 8 or less, and the secret would be zero.
    #[error("the public key is a point of low order")]
    LowOrder,
}

/// The other party's public key, lifted to the prime-order subgroup of edwards25519.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    received: [u8; 32],
    point: EdwardsPoint,
}

/// Lifts a u-coordinate as RFC 7748 reads it: bit 255 ignored, reduced modulo p. A torsion component is removed,
/// since it adds nothing to a product with a clamped scalar.
pub fn lift(u: [u8; 32]) -> Result<Peer, Refused> {
    // u = -1 has order 4 on the twist; it is told apart because lists of low-order points have it.
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    let mut masked = u;
    masked[31] &= 0x7f;
    if masked == minus_one {
        return Err(Refused::LowOrder);
    }
    // The sign chosen does not matter: both points have the same u.
    let lifted = MontgomeryPoint(masked).to_edwards(0).ok_or(Refused::Twist)?;
    let cleared = lifted.mul_by_cofactor();
    if cleared.is_identity() {
        return Err(Refused::LowOrder);
    }
    let point = EdwardsPoint::vartime_double_scalar_mul_basepoint(&INVERSE_OF_EIGHT, &cleared, &Scalar::ZERO);
    Ok(Peer { received: u, point })
}

/// A holder's partial product with its proof, [`PARTIAL_BYTES`] long. The result is secret until k are combined by
/// somebody who may know the shared secret.
///
/// # Errors
/// [`Refusal::Purpose`] if the share or the commitment is not for agreement, [`Refusal::Signers`] if the share is
/// not of the commitment's epoch and committee.
pub fn partial(
    share: &KeyShare,
    commitment: &Commitment,
    context: &Context<'_>,
    peer: &Peer,
    rng: &mut (impl CryptoRng + RngCore),
) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    if share.purpose() != Purpose::Agree || commitment.purpose() != Purpose::Agree {
        return Err(Refusal::Purpose);
    }
    if !commitment.concerns(share) {
        return Err(Refusal::Signers);
    }
    let image = Edwards25519::mul(&peer.point, share.scalar());
    let public = commitment.share_element(share.index());
    let context = |hash| hash_context(hash, context, commitment, share.index(), peer);
    let statement = Statement::<Edwards25519> {
        context: &context,
        public: &public,
        point: &peer.point,
        image: &image,
    };
    let proof = statement.prove(share.scalar(), rng);
    let mut bytes = Zeroizing::new(Vec::with_capacity(PARTIAL_BYTES));
    bytes.extend_from_slice(&Edwards25519::encode(&image));
    bytes.extend_from_slice(&proof.challenge.to_bytes());
    bytes.extend_from_slice(&proof.response.to_bytes());
    Ok(bytes)
}

/// Verifies the partials of exactly k members and combines them to the shared secret of RFC 7748.
///
/// # Errors
/// Every member whose partial is malformed, of low order, or does not verify is named; ask another holder.
pub fn combine(
    commitment: &Commitment,
    context: &Context<'_>,
    peer: &Peer,
    partials: &BTreeMap<u16, Zeroizing<Vec<u8>>>,
) -> Result<Zeroizing<[u8; 32]>, Culprits> {
    if commitment.purpose() != Purpose::Agree {
        return Err(Culprits {
            members: Vec::new(),
            reason: Refusal::Purpose,
        });
    }
    let indexes: Vec<u16> = partials.keys().copied().collect();
    if indexes.len() != commitment.threshold() || !indexes.iter().all(|index| commitment.is_member(*index)) {
        return Err(Culprits {
            members: Vec::new(),
            reason: Refusal::Signers,
        });
    }
    let mut terms = Zeroizing::new(Vec::with_capacity(indexes.len()));
    let mut refused = Vec::new();
    for (index, bytes) in partials {
        match verify(commitment, context, peer, *index, bytes) {
            Ok(image) => {
                terms.extend(lagrange::<Edwards25519>(*index, &indexes).map(|lambda| (lambda, image)))
            }
            Err(reason) => refused.push((*index, reason)),
        }
    }
    if let Some((_, reason)) = refused.first() {
        return Err(Culprits {
            reason: *reason,
            members: refused.iter().map(|(index, _)| *index).collect(),
        });
    }
    if terms.len() != indexes.len() {
        return Err(Culprits {
            members: Vec::new(),
            reason: Refusal::Signers,
        });
    }
    // Time depends on the coefficients, which are public, not on the points. The peer's point is the prime-order
    // part itself, 8 * 8^-1 P, and every image is torsion free: no factor of 8 is left to apply.
    let product = Zeroizing::new(Edwards25519::vartime_multiscalar_mul(&terms));
    let secret = Zeroizing::new(product.to_montgomery());
    Ok(Zeroizing::new(secret.to_bytes()))
}

/// Verifies one member's partial and gives its point, which is of prime order.
fn verify(
    commitment: &Commitment,
    context: &Context<'_>,
    peer: &Peer,
    index: u16,
    bytes: &[u8],
) -> Result<EdwardsPoint, Refusal> {
    if bytes.len() != PARTIAL_BYTES {
        return Err(Refusal::Malformed);
    }
    let image = Edwards25519::decode(&bytes[..32]).map_err(|_| Refusal::Malformed)?;
    let challenge = Edwards25519::decode_scalar(&bytes[32..64]).ok_or(Refusal::Malformed)?;
    let response = Edwards25519::decode_scalar(&bytes[64..]).ok_or(Refusal::Malformed)?;
    let public = commitment.share_element(index);
    let context = |hash| hash_context(hash, context, commitment, index, peer);
    let statement = Statement::<Edwards25519> {
        context: &context,
        public: &public,
        point: &peer.point,
        image: &image,
    };
    if statement.verify(&Proof { challenge, response }) {
        Ok(image)
    } else {
        Err(Refusal::Invalid)
    }
}

fn hash_context(
    hash: Framed<Sha512>,
    context: &Context<'_>,
    commitment: &Commitment,
    index: u16,
    peer: &Peer,
) -> Framed<Sha512> {
    hash.part(context.cluster)
        .part(context.operation)
        .part(context.key)
        .number(commitment.epoch())
        .number(index.into())
        .part(&peer.received)
}

#[cfg(test)]
mod tests;
