//! For tests: shares of a known secret, as a trusted dealer would give them out. Production has no such thing.

use rand::{CryptoRng, RngCore};

use crate::commitment::Commitment;
use crate::group::Group;
use crate::polynomial::Polynomial;
use crate::session::Purpose;
use crate::share::KeyShare;

pub(crate) struct Dealt<G: Group> {
    pub(crate) secret: G::Scalar,
    pub(crate) commitment: Commitment<G>,
    pub(crate) shares: Vec<KeyShare<G>>,
}

pub(crate) fn deal<G: Group>(
    members: u16,
    threshold: u16,
    purpose: Purpose,
    epoch: u64,
    rng: &mut (impl CryptoRng + RngCore),
) -> Dealt<G> {
    let coefficients = (0..threshold).map(|_| G::random_scalar(rng)).collect();
    deal_polynomial(members, coefficients, purpose, epoch)
}

pub(crate) fn deal_polynomial<G: Group>(
    members: u16,
    coefficients: Vec<G::Scalar>,
    purpose: Purpose,
    epoch: u64,
) -> Dealt<G> {
    let secret = coefficients[0];
    let polynomial = Polynomial::<G>::from_coefficients(coefficients);
    let shares = (1..=members)
        .map(|index| KeyShare::<G>::new(index, epoch, purpose, &polynomial.evaluate(index)).unwrap())
        .collect();
    let commitment = Commitment::new(epoch, purpose, (1..=members).collect(), polynomial.commit()).unwrap();
    Dealt {
        secret,
        commitment,
        shares,
    }
}
