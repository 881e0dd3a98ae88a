//! What one message and one list of commitments determine, made once for signing and adding up: RFC 9591, sections 4.4 to
//! 5.3.

use std::collections::BTreeMap;

use curve25519_dalek::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use frost_core::{BindingFactorList, Challenge, Ciphersuite};
use frost_ed25519::keys::VerifyingShare;
use frost_ed25519::round1::SigningCommitments;
use frost_ed25519::round2::SignatureShare;
use frost_ed25519::{Ed25519Sha512, SigningPackage};
use zeroize::Zeroizing;

use super::{Nonces, VerifyingContext, identifier};
use crate::edwards25519::Edwards25519;
use crate::fault::{Culprits, Refusal};
use crate::group::Group;
use crate::polynomial::lagrange;
use crate::share::KeyShare;

pub(super) struct Round<'a> {
    context: &'a VerifyingContext,
    indexes: Vec<u16>,
    package: SigningPackage,
    factors: BindingFactorList<Ed25519Sha512>,
    group: EdwardsPoint,
}

impl<'a> Round<'a> {
    pub(super) fn new(
        context: &'a VerifyingContext,
        message: &[u8],
        commitments: BTreeMap<u16, SigningCommitments>,
    ) -> Result<Self, Refusal> {
        let indexes = commitments.keys().copied().collect();
        let named = commitments.into_iter();
        let named = named.map(|(index, points)| Ok((identifier(index)?, points)));
        let package = SigningPackage::new(named.collect::<Result<_, Refusal>>()?, message);
        let malformed = |_| Refusal::Malformed;
        let factors =
            frost_core::compute_binding_factor_list(&package, &context.frost_key, &[]).map_err(malformed)?;
        let group = frost_core::compute_group_commitment(&package, &factors).map_err(malformed)?;
        Ok(Self {
            context,
            indexes,
            package,
            factors,
            group: group.to_element(),
        })
    }

    fn challenge(&self) -> Result<Challenge<Ed25519Sha512>, Refusal> {
        Ed25519Sha512::challenge(&self.group, &self.context.frost_key, self.package.message())
            .map_err(|_| Refusal::Malformed)
    }

    /// One member's share: d + e rho + lambda s c (section 5.2).
    pub(super) fn share(&self, nonces: &Nonces, share: &KeyShare) -> Result<Zeroizing<Scalar>, Refusal> {
        let factor = self.factors.get(&identifier(share.index())?);
        let factor = factor.ok_or(Refusal::Signers)?.serialize();
        let factor: [u8; 32] = factor.try_into().map_err(|_| Refusal::Malformed)?;
        let factor = Edwards25519::decode_scalar(&factor).ok_or(Refusal::Malformed)?;
        let lambda = lagrange::<Edwards25519>(share.index(), &self.indexes).ok_or(Refusal::Signers)?;
        let challenge = self.challenge()?.to_scalar();
        Ok(Zeroizing::new(
            *nonces.hiding + *nonces.binding * factor + lambda * share.scalar() * challenge,
        ))
    }

    /// The signature of all shares, verified as anybody would (RFC 8032, strictly); else those who lied.
    pub(super) fn aggregate(&self, scalars: &BTreeMap<u16, Scalar>) -> Result<[u8; 64], Culprits> {
        let response: Scalar = scalars.values().sum();
        let commitment = self.group.compress().to_bytes();
        let signature = ed25519_dalek::Signature::from_components(commitment, response.to_bytes());
        let message = self.package.message();
        if self.context.key.verify_strict(message, &signature).is_ok() {
            return Ok(signature.to_bytes());
        }
        let liars = self.find_liars(scalars);
        let liars = liars.map_err(|reason| culprits(Vec::new(), reason))?;
        Err(culprits(liars, Refusal::Invalid))
    }

    /// The members whose share is not what their commitments and their public share make of the message.
    fn find_liars(&self, scalars: &BTreeMap<u16, Scalar>) -> Result<Vec<u16>, Refusal> {
        let challenge = self.challenge()?;
        let mut liars = Vec::new();
        for (index, scalar) in scalars {
            let member = identifier(*index)?;
            let honest = || {
                let points = self.package.signing_commitment(&member)?;
                let commitment = points.to_group_commitment_share(self.factors.get(&member)?);
                let public = VerifyingShare::new(self.context.commitment.share_element(*index));
                let lambda = lagrange::<Edwards25519>(*index, &self.indexes)?;
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
}

pub(super) fn culprits(members: Vec<u16>, reason: Refusal) -> Culprits {
    Culprits { members, reason }
}
