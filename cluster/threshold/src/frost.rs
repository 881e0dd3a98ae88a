//! FROST(Ed25519, SHA-512) of RFC 9591 on frost-ed25519: k members sign, the result is a plain RFC 8032 signature.
//!
//! With k = 2 the coordinator calls [`commit`], the holder [`cosign`], the coordinator [`sign`] and [`aggregate`]:
//! one round trip. With k >= 3 every signer calls [`commit`], and [`sign`] when it has the whole list. [`Nonces`]
//! are used up by `sign`; the caller drops them after 2 s or with the connection, and never stores them. A
//! coordinator draws a pair for each holder and attempt, never one for two.

use std::collections::BTreeMap;

use curve25519_dalek::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use frost_core::round1::Nonce;
use frost_ed25519::keys::{KeyPackage, SigningShare, VerifyingShare};
use frost_ed25519::round1::{NonceCommitment, SigningCommitments, SigningNonces};
use frost_ed25519::round2::SignatureShare;
use frost_ed25519::{Ed25519Sha512, Identifier, SigningPackage};
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::commitment::Commitment;
use crate::edwards25519::Edwards25519;
use crate::fault::{Culprits, Refusal};
use crate::group::Group;
use crate::hash::hedged_scalar;
use crate::polynomial::lagrange;
use crate::session::Purpose;
use crate::share::KeyShare;

/// A signer's pair of nonces: moved into the one signature that it serves, zeroized on drop, no Debug.
pub struct Nonces {
    inner: SigningNonces,
    public: NonceCommitments,
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
    frost_key: frost_ed25519::VerifyingKey,
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
        let frost_key = frost_ed25519::VerifyingKey::new(*commitment.public_element());
        Ok(VerifyingContext {
            commitment: commitment.clone(),
            frost_key,
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
    let nonces = Nonces::new(&hiding, &binding);
    let public = nonces.public;
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
    fn new(hiding: &Scalar, binding: &Scalar) -> Self {
        let inner = SigningNonces::from_nonces(Nonce::from_scalar(*hiding), Nonce::from_scalar(*binding));
        let encode = |commitment: &NonceCommitment| commitment.value().compress().to_bytes();
        let (hiding, binding) = (
            encode(inner.commitments().hiding()),
            encode(inner.commitments().binding()),
        );
        Nonces {
            inner,
            public: NonceCommitments { hiding, binding },
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
    if list.get(&share.index()) != Some(&nonces.public) {
        return Err(Refusal::Invalid);
    }
    let mut commitments = BTreeMap::new();
    for (index, public) in list {
        // Our own is known to be good.
        let decoded = if *index == share.index() {
            *nonces.inner.commitments()
        } else {
            decode_commitments(public)?
        };
        commitments.insert(identifier(*index)?, decoded);
    }
    let package = SigningPackage::new(commitments, message);
    let threshold = u16::try_from(context.commitment.threshold()).map_err(|_| Refusal::Signers)?;
    let key_package = KeyPackage::new(
        identifier(share.index())?,
        SigningShare::new(*share.scalar()),
        VerifyingShare::new(context.commitment.share_element(share.index())),
        context.frost_key,
        threshold,
    );
    let signed = frost_ed25519::round2::sign(&package, &nonces.inner, &key_package);
    let mut bytes = Zeroizing::new(signed.map_err(|_| Refusal::Invalid)?.serialize());
    let share = bytes.as_slice().try_into().map_err(|_| Refusal::Malformed);
    bytes.zeroize();
    share
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
    let refused = |members: Vec<u16>, reason| Culprits { members, reason };
    context
        .check_list(list)
        .map_err(|reason| refused(Vec::new(), reason))?;
    if !list.keys().eq(shares.keys()) {
        return Err(refused(Vec::new(), Refusal::Signers));
    }
    let (mut commitments, mut scalars, mut malformed) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for (index, public) in list {
        let member = identifier(*index).map_err(|reason| refused(vec![*index], reason))?;
        match (
            decode_commitments(public),
            Edwards25519::decode_scalar(&shares[index]),
        ) {
            (Ok(decoded), Some(scalar)) => {
                commitments.insert(member, decoded);
                scalars.insert(*index, scalar);
            }
            _ => malformed.push(*index),
        }
    }
    if !malformed.is_empty() {
        return Err(refused(malformed, Refusal::Malformed));
    }
    let package = SigningPackage::new(commitments, message);
    let unusable = |_| refused(Vec::new(), Refusal::Malformed);
    let factors =
        frost_core::compute_binding_factor_list(&package, &context.frost_key, &[]).map_err(unusable)?;
    let group = frost_core::compute_group_commitment(&package, &factors)
        .map_err(unusable)?
        .to_element();
    let response: Scalar = scalars.values().sum();
    let signature =
        ed25519_dalek::Signature::from_components(group.compress().to_bytes(), response.to_bytes());
    if context.key.verify_strict(message, &signature).is_ok() {
        return Ok(signature.to_bytes());
    }
    let liars = find_liars(context, &package, &factors, &group, &scalars).map_err(unusable)?;
    Err(refused(liars, Refusal::Invalid))
}

/// The members whose share is not what their commitments and their public share make of the message.
fn find_liars(
    context: &VerifyingContext,
    package: &SigningPackage,
    factors: &frost_core::BindingFactorList<Ed25519Sha512>,
    group: &EdwardsPoint,
    scalars: &BTreeMap<u16, Scalar>,
) -> Result<Vec<u16>, frost_ed25519::Error> {
    use frost_core::Ciphersuite;
    let challenge = Ed25519Sha512::challenge(group, &context.frost_key, package.message())?;
    let indexes: Vec<u16> = scalars.keys().copied().collect();
    let mut liars = Vec::new();
    for (index, scalar) in scalars {
        let member = Identifier::try_from(*index)?;
        let honest = || {
            let commitment = package
                .signing_commitment(&member)?
                .to_group_commitment_share(factors.get(&member)?);
            let public = VerifyingShare::new(context.commitment.share_element(*index));
            let lambda = lagrange::<Edwards25519>(*index, &indexes)?;
            let share = SignatureShare::deserialize(&scalar.to_bytes()).ok()?;
            share
                .verify(member, &commitment, &public, lambda, &challenge)
                .ok()
        };
        if honest().is_none() {
            liars.push(*index);
        }
    }
    Ok(liars)
}

fn identifier(index: u16) -> Result<Identifier, Refusal> {
    Identifier::try_from(index).map_err(|_| Refusal::Signers)
}

fn decode_commitments(public: &NonceCommitments) -> Result<SigningCommitments, Refusal> {
    let decode = |bytes: &[u8; 32]| {
        Edwards25519::decode(bytes)
            .map(NonceCommitment::new)
            .map_err(|_| Refusal::Malformed)
    };
    Ok(SigningCommitments::new(
        decode(&public.hiding)?,
        decode(&public.binding)?,
    ))
}

#[cfg(test)]
mod tests;
