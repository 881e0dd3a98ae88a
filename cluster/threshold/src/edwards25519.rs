//! The prime-order subgroup of edwards25519 (RFC 7748 section 4.1, RFC 8032), on curve25519-dalek.

use curve25519_dalek::EdwardsPoint;
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{Identity, IsIdentity, VartimeMultiscalarMul};
use rand::{CryptoRng, RngCore};

use crate::group::{DecodeError, Group};

/// The group of Ed25519 and X25519 keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Edwards25519;

/// Whether a public point lies in the prime-order subgroup: (l - 1) P = -P. Variable time, and twice as fast as
/// the constant-time check of dalek.
pub(crate) fn is_torsion_free(point: &EdwardsPoint) -> bool {
    EdwardsPoint::vartime_double_scalar_mul_basepoint(&-Scalar::ONE, point, &Scalar::ZERO) == -point
}

impl Group for Edwards25519 {
    const NAME: &'static str = "edwards25519";
    const SCALAR_BYTES: usize = 32;
    const ELEMENT_BYTES: usize = 32;

    type Scalar = Scalar;
    type Element = EdwardsPoint;
    type ElementEncoding = [u8; 32];
    type ScalarEncoding = [u8; 32];

    fn random_scalar(rng: &mut (impl CryptoRng + RngCore)) -> Scalar {
        Scalar::random(rng)
    }

    fn scalar_from_wide(bytes: &[u8; 64]) -> Scalar {
        Scalar::from_bytes_mod_order_wide(bytes)
    }

    fn invert(scalar: &Scalar) -> Option<Scalar> {
        (*scalar != Scalar::ZERO).then(|| scalar.invert())
    }

    fn encode_scalar(scalar: &Scalar) -> [u8; 32] {
        scalar.to_bytes()
    }

    fn decode_scalar(bytes: &[u8]) -> Option<Scalar> {
        Scalar::from_canonical_bytes(bytes.try_into().ok()?).into()
    }

    fn identity() -> EdwardsPoint {
        EdwardsPoint::identity()
    }

    fn base() -> EdwardsPoint {
        curve25519_dalek::constants::ED25519_BASEPOINT_POINT
    }

    fn mul_base(scalar: &Scalar) -> EdwardsPoint {
        EdwardsPoint::mul_base(scalar)
    }

    fn mul(element: &EdwardsPoint, scalar: &Scalar) -> EdwardsPoint {
        element * scalar
    }

    fn vartime_mul_add_base(a: &Scalar, element: &EdwardsPoint, b: &Scalar) -> EdwardsPoint {
        EdwardsPoint::vartime_double_scalar_mul_basepoint(a, element, b)
    }

    fn vartime_multiscalar_mul(terms: &[(Scalar, EdwardsPoint)]) -> EdwardsPoint {
        EdwardsPoint::vartime_multiscalar_mul(
            terms.iter().map(|(scalar, _)| scalar),
            terms.iter().map(|(_, element)| element),
        )
    }

    fn encode(element: &EdwardsPoint) -> [u8; 32] {
        element.compress().to_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<EdwardsPoint, DecodeError> {
        let encoding = CompressedEdwardsY::from_slice(bytes).map_err(|_| DecodeError::Malformed)?;
        let point = encoding.decompress().ok_or(DecodeError::Malformed)?;
        if point.is_identity() {
            return Err(DecodeError::Identity);
        }
        // No separate look at the encoding: every encoding that is not canonical decodes to a point with torsion
        // (or to the identity), see https://eprint.iacr.org/2020/1244.
        if !is_torsion_free(&point) {
            return Err(DecodeError::Torsion);
        }
        Ok(point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use curve25519_dalek::constants::EIGHT_TORSION;

    #[test]
    fn decodes_what_it_encodes() {
        let point = EdwardsPoint::mul_base(&Scalar::from(7u64));
        assert_eq!(Edwards25519::decode(&Edwards25519::encode(&point)), Ok(point));
    }

    #[test]
    fn refuses_small_order_torsion_and_noncanonical_bytes() {
        let point = EdwardsPoint::mul_base(&Scalar::from(7u64));
        for (index, torsion) in EIGHT_TORSION.iter().enumerate() {
            let small = Edwards25519::decode(&torsion.compress().to_bytes());
            assert_eq!(
                small,
                Err(if index == 0 {
                    DecodeError::Identity
                } else {
                    DecodeError::Torsion
                })
            );
            if index != 0 {
                let mixed = Edwards25519::decode(&(point + torsion).compress().to_bytes());
                assert_eq!(mixed, Err(DecodeError::Torsion));
            }
        }
        // y = p + 1 and y = 1 with the sign bit of x = 0: two more names for the identity.
        let mut above = [0xff; 32];
        (above[0], above[31]) = (0xee, 0x7f);
        assert!(Edwards25519::decode(&above).is_err());
        let mut signed = [0; 32];
        (signed[0], signed[31]) = (1, 0x80);
        assert!(Edwards25519::decode(&signed).is_err());
        // The other y from p to 2^255 - 1, with either sign.
        for low in 0xed..=0xffu8 {
            for high in [0x7f, 0xff] {
                let mut bytes = [0xff; 32];
                (bytes[0], bytes[31]) = (low, high);
                assert!(Edwards25519::decode(&bytes).is_err(), "{low:x} {high:x}");
            }
        }
        assert_eq!(Edwards25519::decode(&[0; 31]), Err(DecodeError::Malformed));
        assert_eq!(Edwards25519::decode(&[0; 33]), Err(DecodeError::Malformed));
    }

    #[test]
    fn refuses_scalars_that_are_not_reduced() {
        assert!(Edwards25519::decode_scalar(&[0xff; 32]).is_none());
        let order = (-Scalar::ONE).to_bytes();
        let mut bytes = order;
        bytes[0] += 1; // l itself
        assert!(Edwards25519::decode_scalar(&order).is_some());
        assert!(Edwards25519::decode_scalar(&bytes).is_none());
    }

    #[test]
    fn small_factors_agree_with_scalars() {
        let point = EdwardsPoint::mul_base(&Scalar::from(99u64));
        for factor in [0u16, 1, 2, 3, 5, 255, 256, u16::MAX] {
            assert_eq!(
                Edwards25519::vartime_mul_small(&point, factor),
                point * Scalar::from(u64::from(factor))
            );
        }
    }
}
