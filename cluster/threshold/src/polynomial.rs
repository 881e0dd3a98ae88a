//! Polynomials over the scalars: the secret one that a dealer draws, its public image, and interpolation at zero.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rand::{CryptoRng, RngCore};
use zeroize::{Zeroize, Zeroizing};

use crate::group::Group;
use crate::hash::hedged_scalar;

/// A dealer's secret polynomial; coefficients by rising degree, zeroized on drop.
pub(crate) struct Polynomial<G: Group>(Vec<G::Scalar>);

impl<G: Group> Polynomial<G> {
    /// Of degree `threshold - 1`, every coefficient nonzero.
    pub(crate) fn random(threshold: u16, binding: &[u8], rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let mut coefficients = Vec::with_capacity(threshold.into());
        for degree in 0..threshold {
            let parts: [&[u8]; 2] = [binding, &degree.to_be_bytes()];
            coefficients.push(hedged_scalar::<G>(rng, "conclave dkg 1 coefficient", &parts));
        }
        Polynomial(coefficients)
    }

    /// The same through `constant` at zero.
    pub(crate) fn random_through(
        constant: &G::Scalar,
        threshold: u16,
        binding: &[u8],
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Self {
        let mut polynomial = Self::random(threshold, binding, rng);
        polynomial.0[0].zeroize();
        polynomial.0[0] = *constant;
        polynomial
    }

    #[cfg(test)]
    pub(crate) fn from_coefficients(coefficients: Vec<G::Scalar>) -> Self {
        Polynomial(coefficients)
    }

    pub(crate) fn constant_term(&self) -> &G::Scalar {
        &self.0[0]
    }

    pub(crate) fn evaluate(&self, index: u16) -> Zeroizing<G::Scalar> {
        let at = G::Scalar::from(index.into());
        let zero = Zeroizing::new(G::Scalar::from(0));
        self.0
            .iter()
            .rev()
            .fold(zero, |sum, coefficient| Zeroizing::new(*sum * at + *coefficient))
    }

    /// The coefficients times B.
    pub(crate) fn commit(&self) -> Vec<G::Element> {
        self.0.iter().map(G::mul_base).collect()
    }
}

impl<G: Group> Drop for Polynomial<G> {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Zeroize::zeroize);
    }
}

/// The committed polynomial at a member's index, in the exponent.
pub(crate) fn evaluate_committed<G: Group>(vector: &[G::Element], index: u16) -> G::Element {
    vector.iter().rev().fold(G::identity(), |sum, element| {
        G::vartime_mul_small(&sum, index) + *element
    })
}

/// Lagrange coefficients for the value at zero among the members of one key. What has to be inverted are differences of
/// small numbers: inverted once, when the key is opened.
#[derive(Clone, Debug)]
pub(crate) struct Interpolation<G: Group> {
    /// The inverse of every difference of two members' indexes, by that difference.
    inverses: BTreeMap<u16, G::Scalar>,
}

impl<G: Group> Interpolation<G> {
    pub(crate) fn new(members: &[u16]) -> Self {
        let mut inverses = BTreeMap::new();
        for (place, one) in members.iter().enumerate() {
            for other in &members[..place] {
                let difference = one.abs_diff(*other);
                if let Entry::Vacant(vacant) = inverses.entry(difference)
                    && let Some(inverse) = G::invert(&G::Scalar::from(difference.into()))
                {
                    vacant.insert(inverse);
                }
            }
        }
        Self { inverses }
    }

    /// The coefficient of `index` among distinct members' `indexes` that contain it; the caller has seen to that.
    /// None if two are further apart than any two members.
    pub(crate) fn coefficient(&self, index: u16, indexes: &[u16]) -> Option<G::Scalar> {
        let mut coefficient = G::Scalar::from(1);
        for other in indexes.iter().filter(|other| **other != index) {
            let inverse = *self.inverses.get(&index.abs_diff(*other))?;
            coefficient = coefficient * G::Scalar::from((*other).into()) * inverse;
            if *other < index {
                coefficient = G::Scalar::from(0) - coefficient;
            }
        }
        Some(coefficient)
    }
}

/// Lagrange coefficient of `index` for the value at zero, among distinct nonzero `indexes` that contain it.
/// None if they are not distinct.
pub(crate) fn lagrange<G: Group>(index: u16, indexes: &[u16]) -> Option<G::Scalar> {
    let at = G::Scalar::from(index.into());
    let (mut numerator, mut denominator) = (G::Scalar::from(1), G::Scalar::from(1));
    for other in indexes.iter().filter(|other| **other != index) {
        let other = G::Scalar::from((*other).into());
        numerator = numerator * other;
        denominator = denominator * (other - at);
    }
    Some(numerator * G::invert(&denominator)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edwards25519::Edwards25519;

    #[test]
    fn inversions_done_once_give_the_same_coefficients() {
        let members = [1, 2, 3, 7, 200, 65_535];
        let interpolation = Interpolation::<Edwards25519>::new(&members);
        for indexes in [&[1, 2][..], &[2, 3], &[1, 7, 200], &[3, 200, 65_535], &members] {
            for index in indexes {
                let known = interpolation.coefficient(*index, indexes);
                assert_eq!(
                    known,
                    lagrange::<Edwards25519>(*index, indexes),
                    "{index} of {indexes:?}"
                );
            }
        }
        assert_eq!(interpolation.coefficient(1, &[1, 9]), None, "a stranger");
    }
}
