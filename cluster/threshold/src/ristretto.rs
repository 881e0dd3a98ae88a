//! A second group for tests: ristretto255 (RFC 9496), so that what claims to be generic is run on two groups.

use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{Identity, IsIdentity, VartimeMultiscalarMul};
use rand::{CryptoRng, RngCore};

use crate::group::{DecodeError, Group};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ristretto255;

impl Group for Ristretto255 {
    const NAME: &'static str = "ristretto255";
    const SCALAR_BYTES: usize = 32;
    const ELEMENT_BYTES: usize = 32;

    type Scalar = Scalar;
    type Element = RistrettoPoint;
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

    fn identity() -> RistrettoPoint {
        RistrettoPoint::identity()
    }

    fn base() -> RistrettoPoint {
        curve25519_dalek::constants::RISTRETTO_BASEPOINT_POINT
    }

    fn mul_base(scalar: &Scalar) -> RistrettoPoint {
        RistrettoPoint::mul_base(scalar)
    }

    fn mul(element: &RistrettoPoint, scalar: &Scalar) -> RistrettoPoint {
        element * scalar
    }

    fn vartime_mul_add_base(a: &Scalar, element: &RistrettoPoint, b: &Scalar) -> RistrettoPoint {
        RistrettoPoint::vartime_double_scalar_mul_basepoint(a, element, b)
    }

    fn vartime_multiscalar_mul(terms: &[(Scalar, RistrettoPoint)]) -> RistrettoPoint {
        RistrettoPoint::vartime_multiscalar_mul(terms.iter().map(|(s, _)| s), terms.iter().map(|(_, e)| e))
    }

    fn encode(element: &RistrettoPoint) -> [u8; 32] {
        element.compress().to_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<RistrettoPoint, DecodeError> {
        let encoding = CompressedRistretto::from_slice(bytes).map_err(|_| DecodeError::Malformed)?;
        let point = encoding.decompress().ok_or(DecodeError::Malformed)?;
        if point.is_identity() {
            Err(DecodeError::Identity)
        } else {
            Ok(point)
        }
    }
}
