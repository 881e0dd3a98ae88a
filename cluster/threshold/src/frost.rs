//! FROST(Ed25519, SHA-512) of RFC 9591 with frost-ed25519's hashes: k members sign, the result is a plain RFC 8032
//! signature.
//!
//! With k = 2 the coordinator calls [`commit`], the holder [`cosign`], the coordinator [`finish`]: one round trip. With
//! k >= 3 every signer calls [`commit`], and [`sign`] when it has the whole list; the coordinator [`finish`] or, without a
//! share of its own, [`aggregate`]. [`Nonces`] are used up by the signature; the caller drops them after 2 s or with the
//! connection, and never stores them. A coordinator draws a pair for each holder and attempt, never one for two.

mod round;

use std::collections::BTreeMap;

use curve25519_dalek::EdwardsPoint;
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use self::round::{Points, Round, culprits};
use crate::commitment::Commitment;
use crate::edwards25519::Edwards25519;
use crate::fault::{Culprits, Refusal};
use crate::group::Group;
use crate::hash::hedged_scalar;
use crate::polynomial::Interpolation;
use crate::session::Purpose;
use crate::share::KeyShare;

/// A signer's pair of nonces: moved into the one signature that it serves, zeroized on drop, no Debug.
pub struct Nonces {
    hiding: Zeroizing<Scalar>,
    binding: Zeroizing<Scalar>,
    points: Points,
}

/// The public side of a pair of nonces, as it travels.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NonceCommitments {
    /// The hiding nonce times B.
    pub hiding: [u8; 32],
    /// The binding nonce times B.
    pub binding: [u8; 32],
}

/// The commitments of all signers of one signature, by index.
pub type CommitmentList = BTreeMap<u16, NonceCommitments>;

/// A key as signers and coordinator need it; made once per key and epoch, then reused.
#[derive(Clone, Debug)]
pub struct VerifyingContext {
    commitment: Commitment,
    interpolation: Interpolation<Edwards25519>,
    key: ed25519_dalek::VerifyingKey,
}

impl VerifyingContext {
    /// # Errors
    /// [`Refusal::Purpose`] if the key is not for signatures.
    pub fn new(commitment: &Commitment) -> Result<Self, Refusal> {
        if commitment.purpose() != Purpose::Sign {
            return Err(Refusal::Purpose);
        }
        let key = ed25519_dalek::VerifyingKey::from_bytes(&commitment.public_key());
        let key = key.map_err(|_| Refusal::Malformed)?;
        Ok(VerifyingContext {
            commitment: commitment.clone(),
            interpolation: Interpolation::new(commitment.members()),
            key,
        })
    }

    /// The public commitment that it was made of.
    pub fn commitment(&self) -> &Commitment {
        &self.commitment
    }

    fn check_list(&self, list: &CommitmentList) -> Result<(), Refusal> {
        let members = list.keys().all(|index| self.commitment.is_member(*index));
        if members && list.len() == self.commitment.threshold() {
            Ok(())
        } else {
            Err(Refusal::Signers)
        }
    }
}

/// Draws a pair of nonces for one use. `frame` is SHA-256 of the whole frame that asks for the signature: request,
/// coordinator's commitments, operation and attempt. A cloned machine so draws other nonces for another message.
///
/// # Errors
/// [`Refusal::Purpose`] if the share is not for signatures.
pub fn commit(
    share: &KeyShare,
    frame: &[u8; 32],
    rng: &mut (impl CryptoRng + RngCore),
) -> Result<(Nonces, NonceCommitments), Refusal> {
    if share.purpose() != Purpose::Sign {
        return Err(Refusal::Purpose);
    }
    let secret = Zeroizing::new(share.scalar().to_bytes());
    let (index, epoch) = (share.index().to_be_bytes(), share.epoch().to_be_bytes());
    let parts: [&[u8]; 4] = [&*secret, &index, &epoch, frame];
    let hiding = Zeroizing::new(hedged_scalar::<Edwards25519>(
        rng,
        "conclave frost 1 hiding",
        &parts,
    ));
    let binding = Zeroizing::new(hedged_scalar::<Edwards25519>(
        rng,
        "conclave frost 1 binding",
        &parts,
    ));
    let nonces = Nonces::new(hiding, binding);
    let public = nonces.points.encoded;
    Ok((nonces, public))
}

impl NonceCommitments {
    /// Whether both are points that a signer accepts. Look before the list goes to the others: they refuse a list
    /// with a bad point, and their refusal does not say whose it is.
    pub fn are_sound(&self) -> bool {
        decode_commitments(self).is_ok()
    }
}

impl Nonces {
    fn new(hiding: Zeroizing<Scalar>, binding: Zeroizing<Scalar>) -> Self {
        let [of_hiding, of_binding] = [&hiding, &binding].map(|nonce| EdwardsPoint::mul_base(nonce));
        let points = Points {
            hiding: of_hiding,
            binding: of_binding,
            encoded: NonceCommitments {
                hiding: of_hiding.compress().to_bytes(),
                binding: of_binding.compress().to_bytes(),
            },
        };
        Nonces {
            hiding,
            binding,
            points,
        }
    }
}

/// A member's signature share over `message`; uses up the nonces. `list` holds exactly k members of the key, this
/// one with its own commitment unchanged. `share` and `context` must be of the same key
/// ([`Commitment::holds`], once, when the share is loaded); the signature does not verify otherwise.
///
/// # Errors
/// [`Refusal`]; the nonces are gone all the same.
pub fn sign(
    nonces: Nonces,
    share: &KeyShare,
    context: &VerifyingContext,
    message: &[u8],
    list: &CommitmentList,
) -> Result<[u8; 32], Refusal> {
    if share.purpose() != Purpose::Sign {
        return Err(Refusal::Purpose);
    }
    if !context.commitment.concerns(share) {
        return Err(Refusal::Signers);
    }
    context.check_list(list)?;
    if list.get(&share.index()) != Some(&nonces.points.encoded) {
        return Err(Refusal::Invalid);
    }
    // Our own commitments are known to be good.
    let decode = |(index, public): (&u16, &NonceCommitments)| match *index == share.index() {
        true => Ok((*index, nonces.points)),
        false => Ok((*index, decode_commitments(public)?)),
    };
    let commitments = list.iter().map(decode).collect::<Result<_, Refusal>>()?;
    let round = Round::new(context, message, commitments);
    Ok(round.share(&nonces, share)?.to_bytes())
}

/// The holder's side of a signature with k = 2, in one step: draws its nonces after it has seen the coordinator's
/// commitments, and signs. Gives its commitments and its signature share.
///
/// # Errors
/// As [`commit`] and [`sign`]; [`Refusal::Signers`] if the key's threshold is not 2.
pub fn cosign(
    share: &KeyShare,
    context: &VerifyingContext,
    message: &[u8],
    coordinator: (u16, NonceCommitments),
    frame: &[u8; 32],
    rng: &mut (impl CryptoRng + RngCore),
) -> Result<(NonceCommitments, [u8; 32]), Refusal> {
    let (other, theirs) = coordinator;
    if context.commitment.threshold() != 2 || other == share.index() {
        return Err(Refusal::Signers);
    }
    let (nonces, public) = commit(share, frame, rng)?;
    let list = CommitmentList::from([(other, theirs), (share.index(), public)]);
    Ok((public, sign(nonces, share, context, message, &list)?))
}

/// The coordinator's end of a signature to which it contributes: signs, adds up and verifies in one step. `list` is that
/// of all signers, `shares` has everybody's but its own.
///
/// Unlike [`sign`], it does not look at others' points for torsion: this share goes nowhere but into the result, and
/// the result is verified.
///
/// # Errors
/// As [`aggregate`]; the nonces are gone all the same.
pub fn finish(
    nonces: Nonces,
    share: &KeyShare,
    context: &VerifyingContext,
    message: &[u8],
    list: &CommitmentList,
    shares: &BTreeMap<u16, [u8; 32]>,
) -> Result<[u8; 64], Culprits> {
    let refused = |reason| culprits(Vec::new(), reason);
    context.check_list(list).map_err(refused)?;
    let others = list.keys().filter(|index| **index != share.index());
    let own = list.get(&share.index()) == Some(&nonces.points.encoded) && context.commitment.concerns(share);
    if !own || !others.eq(shares.keys()) {
        return Err(refused(Refusal::Signers));
    }
    let (mut commitments, mut scalars) = decode_all(list, shares, decode_points)?;
    commitments.insert(share.index(), nonces.points);
    let round = Round::new(context, message, commitments);
    let own = round.share(&nonces, share).map_err(refused)?;
    scalars.insert(share.index(), *own);
    let signed = round.aggregate(&scalars);
    scalars.values_mut().for_each(Zeroize::zeroize);
    signed
}

/// Adds up the signature shares of exactly k members and verifies the result as anybody would (RFC 8032, strictly).
///
/// # Errors
/// Only if the signature does not verify is each share looked at, and every member that lied is named.
pub fn aggregate(
    context: &VerifyingContext,
    message: &[u8],
    list: &CommitmentList,
    shares: &BTreeMap<u16, [u8; 32]>,
) -> Result<[u8; 64], Culprits> {
    let refused = |reason| culprits(Vec::new(), reason);
    context.check_list(list).map_err(refused)?;
    if !list.keys().eq(shares.keys()) {
        return Err(refused(Refusal::Signers));
    }
    let (commitments, scalars) = decode_all(list, shares, decode_commitments)?;
    Round::new(context, message, commitments).aggregate(&scalars)
}

/// Commitments and shares of those who have sent a share, by index.
type Decoded = (BTreeMap<u16, Points>, BTreeMap<u16, Scalar>);

fn decode_all(
    list: &CommitmentList,
    shares: &BTreeMap<u16, [u8; 32]>,
    points: fn(&NonceCommitments) -> Result<Points, Refusal>,
) -> Result<Decoded, Culprits> {
    let (mut commitments, mut scalars, mut malformed) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for (index, share) in shares {
        let decoded = list.get(index).and_then(|public| points(public).ok());
        match (decoded, Edwards25519::decode_scalar(share)) {
            (Some(decoded), Some(scalar)) => {
                commitments.insert(*index, decoded);
                scalars.insert(*index, scalar);
            }
            _ => malformed.push(*index),
        }
    }
    if malformed.is_empty() {
        Ok((commitments, scalars))
    } else {
        Err(culprits(malformed, Refusal::Malformed))
    }
}

/// Points of the prime-order subgroup that are not the identity.
fn decode_commitments(public: &NonceCommitments) -> Result<Points, Refusal> {
    decode_each(public, |bytes| Edwards25519::decode(bytes).ok())
}

/// Points on the curve that are not the identity, and no more than that.
fn decode_points(public: &NonceCommitments) -> Result<Points, Refusal> {
    decode_each(public, |bytes| {
        let point = CompressedEdwardsY(*bytes).decompress();
        point.filter(|point| !point.is_identity())
    })
}

fn decode_each(
    public: &NonceCommitments,
    decode: fn(&[u8; 32]) -> Option<EdwardsPoint>,
) -> Result<Points, Refusal> {
    Ok(Points {
        hiding: decode(&public.hiding).ok_or(Refusal::Malformed)?,
        binding: decode(&public.binding).ok_or(Refusal::Malformed)?,
        encoded: *public,
    })
}

#[cfg(test)]
mod tests;
