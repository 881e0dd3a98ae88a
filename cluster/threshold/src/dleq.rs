//! Proof that two points have the same discrete logarithm: D = s P while Y = s B (Chaum-Pedersen, with the
//! challenge of threshold.md). The statement's context must name everything that the proof is for.

use rand::{CryptoRng, RngCore};
use sha2::Sha512;
use zeroize::Zeroizing;

use crate::group::Group;
use crate::hash::{Framed, hedged_scalar};

/// What is proven: log of `public` to B equals log of `image` to `point`, in the context hashed by `context`.
pub(crate) struct Statement<'a, G: Group> {
    pub(crate) context: &'a dyn Fn(Framed<Sha512>) -> Framed<Sha512>,
    pub(crate) public: &'a G::Element,
    pub(crate) point: &'a G::Element,
    pub(crate) image: &'a G::Element,
}

/// Challenge and response.
pub(crate) struct Proof<G: Group> {
    pub(crate) challenge: G::Scalar,
    pub(crate) response: G::Scalar,
}

impl<G: Group> Statement<'_, G> {
    fn challenge(&self, base_nonce: &G::Element, point_nonce: &G::Element) -> G::Scalar {
        let points = [
            &G::base(),
            self.public,
            self.point,
            self.image,
            base_nonce,
            point_nonce,
        ];
        let hash = (self.context)(Framed::<Sha512>::new("conclave dh 1").part(G::NAME.as_bytes()));
        points
            .iter()
            .fold(hash, |hash, point| hash.part(G::encode(point).as_ref()))
            .scalar::<G>()
    }

    /// `secret` is the common logarithm.
    pub(crate) fn prove(&self, secret: &G::Scalar, rng: &mut (impl CryptoRng + RngCore)) -> Proof<G> {
        let secret_bytes = Zeroizing::new(G::encode_scalar(secret));
        // The use that the nonce is for: all that the challenge hashes, but for the nonce itself.
        let subject = Zeroizing::new(G::encode_scalar(&self.challenge(&G::identity(), &G::identity())));
        let parts: [&[u8]; 2] = [(*secret_bytes).as_ref(), (*subject).as_ref()];
        let nonce = Zeroizing::new(hedged_scalar::<G>(rng, "conclave dh 1 nonce", &parts));
        let challenge = self.challenge(&G::mul_base(&nonce), &G::mul(self.point, &nonce));
        Proof {
            challenge,
            response: *nonce + challenge * *secret,
        }
    }

    pub(crate) fn verify(&self, proof: &Proof<G>) -> bool {
        let negated = -proof.challenge;
        let base_nonce = G::vartime_mul_add_base(&negated, self.public, &proof.response);
        let point_nonce =
            G::vartime_multiscalar_mul(&[(proof.response, *self.point), (negated, *self.image)]);
        self.challenge(&base_nonce, &point_nonce) == proof.challenge
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edwards25519::Edwards25519;
    use crate::ristretto::Ristretto255;
    use rand::SeedableRng;

    fn proves_only_the_truth<G: Group>() {
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(5);
        let secret = G::random_scalar(&mut rng);
        let point = G::mul_base(&G::random_scalar(&mut rng));
        let (public, image) = (G::mul_base(&secret), G::mul(&point, &secret));
        let context = |hash: Framed<Sha512>| hash.number(1);
        let other_context = |hash: Framed<Sha512>| hash.number(2);
        let statement = Statement::<G> {
            context: &context,
            public: &public,
            point: &point,
            image: &image,
        };
        let proof = statement.prove(&secret, &mut rng);
        assert!(statement.verify(&proof));
        assert!(
            !Statement::<G> {
                context: &other_context,
                ..statement
            }
            .verify(&proof)
        );
        let wrong = image + G::base();
        assert!(
            !Statement::<G> {
                context: &context,
                image: &wrong,
                ..statement
            }
            .verify(&proof)
        );
        assert!(
            !Statement::<G> {
                context: &context,
                public: &wrong,
                ..statement
            }
            .verify(&proof)
        );
        assert!(
            !Statement::<G> {
                context: &context,
                point: &wrong,
                ..statement
            }
            .verify(&proof)
        );
        let wrong = Proof {
            challenge: proof.challenge,
            response: proof.response + G::Scalar::from(1),
        };
        assert!(
            !Statement::<G> {
                context: &context,
                ..statement
            }
            .verify(&wrong)
        );
    }

    #[test]
    fn holds_in_both_groups() {
        proves_only_the_truth::<Edwards25519>();
        proves_only_the_truth::<Ristretto255>();
    }
}
