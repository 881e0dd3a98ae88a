//! What one message and one list of commitments determine, made once for signing and adding up: RFC 9591, sections 4.4 to
//! 5.3. The ciphersuite's hashes are frost-ed25519's. The rounds around them are ours, because frost-core encodes every
//! point anew that came in encoded, and inverts afresh for each Lagrange coefficient: half of what a signature costs.

use std::collections::BTreeMap;

use curve25519_dalek::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::VartimeMultiscalarMul;
use frost_core::Ciphersuite;
use frost_ed25519::Ed25519Sha512;
use zeroize::Zeroizing;

use super::{NonceCommitments, Nonces, VerifyingContext};
use crate::fault::{Culprits, Refusal};
use crate::share::KeyShare;

/// A signer's commitments, with their encoding: what is hashed.
#[derive(Clone, Copy)]
pub(super) struct Points {
    pub(super) hiding: EdwardsPoint,
    pub(super) binding: EdwardsPoint,
    pub(super) encoded: NonceCommitments,
}

/// One signer's part in the round.
struct Signer {
    points: Points,
    /// rho, the binding factor.
    factor: Scalar,
}

pub(super) struct Round<'a> {
    context: &'a VerifyingContext,
    message: &'a [u8],
    signers: BTreeMap<u16, Signer>,
    indexes: Vec<u16>,
    /// R, encoded.
    commitment: [u8; 32],
    challenge: Scalar,
}

impl<'a> Round<'a> {
    /// No point may be the identity: whoever decodes looks.
    pub(super) fn new(
        context: &'a VerifyingContext,
        message: &'a [u8],
        commitments: BTreeMap<u16, Points>,
    ) -> Self {
        let indexes: Vec<u16> = commitments.keys().copied().collect();
        let prefix = prefix(context, message, &commitments);
        let bind = |(index, points): (u16, Points)| {
            let factor = Ed25519Sha512::H1(&[&prefix[..], &identifier(index)].concat());
            (index, Signer { points, factor })
        };
        let signers: BTreeMap<u16, Signer> = commitments.into_iter().map(bind).collect();
        let hiding: EdwardsPoint = signers.values().map(|signer| signer.points.hiding).sum();
        let factors = signers.values().map(|signer| signer.factor);
        let binding = signers.values().map(|signer| signer.points.binding);
        let group = hiding + EdwardsPoint::vartime_multiscalar_mul(factors, binding);
        let commitment = group.compress().to_bytes();
        let challenge = Ed25519Sha512::H2(&[&commitment[..], context.key.as_bytes(), message].concat());
        Self {
            context,
            message,
            signers,
            indexes,
            commitment,
            challenge,
        }
    }

    /// One member's share: d + e rho + lambda s c (section 5.2).
    pub(super) fn share(&self, nonces: &Nonces, share: &KeyShare) -> Result<Zeroizing<Scalar>, Refusal> {
        let signer = self.signers.get(&share.index()).ok_or(Refusal::Signers)?;
        let lambda = self
            .context
            .interpolation
            .coefficient(share.index(), &self.indexes);
        let lambda = lambda.ok_or(Refusal::Signers)?;
        Ok(Zeroizing::new(
            *nonces.hiding + *nonces.binding * signer.factor + lambda * share.scalar() * self.challenge,
        ))
    }

    /// The signature of all shares, verified as anybody would (RFC 8032, strictly); else those who lied.
    pub(super) fn aggregate(&self, scalars: &BTreeMap<u16, Scalar>) -> Result<[u8; 64], Culprits> {
        let response: Scalar = scalars.values().sum();
        let signature = ed25519_dalek::Signature::from_components(self.commitment, response.to_bytes());
        if self.context.key.verify_strict(self.message, &signature).is_ok() {
            return Ok(signature.to_bytes());
        }
        let liars = scalars
            .iter()
            .filter(|(index, scalar)| !self.holds(**index, scalar));
        Err(culprits(
            liars.map(|(index, _)| *index).collect(),
            Refusal::Invalid,
        ))
    }

    /// Whether a share is what its member's commitments and public share make of the message: z B = D + rho E + c lambda Y
    /// (section 5.4).
    fn holds(&self, index: u16, scalar: &Scalar) -> bool {
        let lambda = self.context.interpolation.coefficient(index, &self.indexes);
        let (Some(signer), Some(lambda)) = (self.signers.get(&index), lambda) else {
            return false;
        };
        let public = self.context.commitment.share_element(index);
        let factors = [signer.factor, self.challenge * lambda];
        let rest = EdwardsPoint::vartime_multiscalar_mul(factors, [signer.points.binding, public]);
        EdwardsPoint::mul_base(scalar) == signer.points.hiding + rest
    }
}

/// What binds the factors to key, message and list: section 4.4.
fn prefix(context: &VerifyingContext, message: &[u8], commitments: &BTreeMap<u16, Points>) -> Vec<u8> {
    let mut list = Vec::with_capacity(96 * commitments.len());
    for (index, points) in commitments {
        list.extend_from_slice(&identifier(*index));
        list.extend_from_slice(&points.encoded.hiding);
        list.extend_from_slice(&points.encoded.binding);
    }
    let (message, list) = (Ed25519Sha512::H4(message), Ed25519Sha512::H5(&list));
    [context.key.as_bytes(), &message[..], &list[..]].concat()
}

/// A signer's index as a scalar, encoded.
fn identifier(index: u16) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&index.to_le_bytes());
    bytes
}

pub(super) fn culprits(members: Vec<u16>, reason: Refusal) -> Culprits {
    Culprits { members, reason }
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::edwards::CompressedEdwardsY;
    use frost_ed25519::round1::{NonceCommitment, SigningCommitments};
    use frost_ed25519::{Identifier, SigningPackage};
    use rand::rngs::OsRng;

    use super::*;
    use crate::dealer::deal;
    use crate::edwards25519::Edwards25519;
    use crate::frost::commit;
    use crate::session::Purpose;

    #[test]
    fn agrees_with_frost_core() {
        for (members, threshold) in [(3, 2), (5, 3), (9, 5)] {
            let key = deal::<Edwards25519>(members, threshold, Purpose::Sign, 0, &mut OsRng);
            let context = VerifyingContext::new(&key.commitment).unwrap();
            for quorum in key.shares.windows(threshold.into()) {
                let drawn = |share: &KeyShare| {
                    (
                        share.index(),
                        commit(share, &[1; 32], &mut OsRng).unwrap().0.points,
                    )
                };
                let commitments: BTreeMap<u16, Points> = quorum.iter().map(drawn).collect();
                let message = members.to_be_bytes().repeat(threshold.into());
                let ours = Round::new(&context, &message, commitments.clone());

                let theirs = commitments.iter().map(|(index, points)| {
                    let [hiding, binding] = [points.hiding, points.binding].map(NonceCommitment::new);
                    (
                        Identifier::try_from(*index).unwrap(),
                        SigningCommitments::new(hiding, binding),
                    )
                });
                let package = SigningPackage::new(theirs.collect(), &message);
                let key = frost_ed25519::VerifyingKey::new(*key.commitment.public_element());
                let factors = frost_core::compute_binding_factor_list(&package, &key, &[]).unwrap();
                for (index, signer) in &ours.signers {
                    let factor = factors.get(&Identifier::try_from(*index).unwrap()).unwrap();
                    assert_eq!(factor.serialize(), signer.factor.to_bytes());
                }
                let group = frost_core::compute_group_commitment(&package, &factors)
                    .unwrap()
                    .to_element();
                assert_eq!(group.compress(), CompressedEdwardsY(ours.commitment));
                let challenge = Ed25519Sha512::challenge(&group, &key, &message).unwrap();
                assert_eq!(challenge.to_scalar(), ours.challenge);
            }
        }
    }
}
