//! Hashing with an unambiguous framing, and secrets drawn from randomness and everything else that is at hand.
//! Every hash starts with its own domain; every part is preceded by its length.

use rand::{CryptoRng, RngCore};
use sha2::{Digest, Sha256, Sha512};
use zeroize::Zeroizing;

use crate::group::Group;

/// A hash over parts, each preceded by its length as a 64-bit big-endian integer.
pub(crate) struct Framed<D: Digest>(D);

impl<D: Digest> Framed<D> {
    pub(crate) fn new(domain: &str) -> Self {
        Framed(D::new()).part(domain.as_bytes())
    }

    pub(crate) fn part(mut self, part: &[u8]) -> Self {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
        self
    }

    pub(crate) fn number(self, number: u64) -> Self {
        self.part(&number.to_be_bytes())
    }

    pub(crate) fn parts<'a>(self, parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        parts.into_iter().fold(self, Framed::part)
    }
}

impl Framed<Sha256> {
    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

impl Framed<Sha512> {
    /// The hash reduced to a scalar.
    pub(crate) fn scalar<G: Group>(self) -> G::Scalar {
        let mut wide = Zeroizing::new([0; 64]);
        wide.copy_from_slice(&self.0.finalize());
        G::scalar_from_wide(&wide)
    }
}

/// A nonzero secret scalar from 32 fresh random bytes and `parts`, which name its one use (and hold a secret, where
/// there is one). With good randomness it is uniform; of a machine that was cloned with its random state, two
/// copies still draw different scalars for different uses.
pub(crate) fn hedged_scalar<G: Group>(
    rng: &mut (impl CryptoRng + RngCore),
    domain: &str,
    parts: &[&[u8]],
) -> G::Scalar {
    loop {
        let mut random = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *random);
        let scalar = Framed::<Sha512>::new(domain)
            .part(G::NAME.as_bytes())
            .part(&*random)
            .parts(parts.iter().copied())
            .scalar::<G>();
        if scalar != G::Scalar::from(0) {
            return scalar;
        }
    }
}
