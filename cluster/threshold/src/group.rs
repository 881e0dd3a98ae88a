//! The group that a ceremony runs in: what key generation and proofs need to know of a curve, and no more.
//! An implementation promises that `decode` is the only way in for foreign bytes, and that what it lets through is
//! canonical, of prime order and not the identity.

use std::fmt::Debug;
use std::ops::{Add, Mul, Neg, Sub};

use rand::{CryptoRng, RngCore};
use zeroize::Zeroize;

/// Why foreign bytes are not a usable group element.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Wrong length, not on the curve, or not the one canonical encoding.
    #[error("not the canonical encoding of a point")]
    Malformed,
    /// The neutral element, which commits to nothing.
    #[error("the identity element")]
    Identity,
    /// A point with a low-order component.
    #[error("a point outside the prime-order subgroup")]
    Torsion,
}

/// A group of prime order, written additively, with a fixed base point B.
///
/// Constant time is promised where a scalar or element may be secret; only the functions named `vartime` may leak
/// their scalars by time, and they are for public data alone.
pub trait Group: Copy + Debug + Eq + Send + Sync + 'static {
    /// Goes into every hash, so that a transcript of one group means nothing in another.
    const NAME: &'static str;
    /// Length of an encoded scalar in bytes.
    const SCALAR_BYTES: usize;
    /// Length of an encoded element in bytes.
    const ELEMENT_BYTES: usize;

    /// An integer modulo the group's order. Comparison must be constant time.
    type Scalar: Copy
        + Eq
        + Add<Output = Self::Scalar>
        + Sub<Output = Self::Scalar>
        + Mul<Output = Self::Scalar>
        + Neg<Output = Self::Scalar>
        + Zeroize
        + From<u64>
        + Send
        + Sync;
    /// A group element.
    type Element: Copy
        + Debug
        + Eq
        + Add<Output = Self::Element>
        + Sub<Output = Self::Element>
        + Neg<Output = Self::Element>
        + Send
        + Sync;
    /// The canonical bytes of an element, `ELEMENT_BYTES` long.
    type ElementEncoding: AsRef<[u8]> + Copy + Send + Sync;
    /// The canonical bytes of a scalar, `SCALAR_BYTES` long.
    type ScalarEncoding: AsRef<[u8]> + Zeroize;

    /// A uniform scalar, by wide reduction.
    fn random_scalar(rng: &mut (impl CryptoRng + RngCore)) -> Self::Scalar;
    /// 64 uniform bytes reduced; the bias must be negligible, so the order must be below 2^384.
    fn scalar_from_wide(bytes: &[u8; 64]) -> Self::Scalar;
    /// The inverse; none for zero.
    fn invert(scalar: &Self::Scalar) -> Option<Self::Scalar>;
    /// Canonical bytes of a scalar.
    fn encode_scalar(scalar: &Self::Scalar) -> Self::ScalarEncoding;
    /// The scalar of these bytes, if they are its canonical encoding.
    fn decode_scalar(bytes: &[u8]) -> Option<Self::Scalar>;

    /// The neutral element.
    fn identity() -> Self::Element;
    /// The base point B.
    fn base() -> Self::Element;
    /// `scalar * B`, constant time.
    fn mul_base(scalar: &Self::Scalar) -> Self::Element;
    /// `scalar * element`, constant time.
    fn mul(element: &Self::Element, scalar: &Self::Scalar) -> Self::Element;
    /// `a * element + b * B`, for public data alone.
    fn vartime_mul_add_base(a: &Self::Scalar, element: &Self::Element, b: &Self::Scalar) -> Self::Element;
    /// The sum of `scalar * element`, for public scalars alone.
    fn vartime_multiscalar_mul(terms: &[(Self::Scalar, Self::Element)]) -> Self::Element;
    /// Canonical bytes of an element.
    fn encode(element: &Self::Element) -> Self::ElementEncoding;
    /// The element of foreign bytes: canonical, of prime order, not the identity.
    fn decode(bytes: &[u8]) -> Result<Self::Element, DecodeError>;

    /// `factor * element` for a small public factor: an index of a member.
    fn vartime_mul_small(element: &Self::Element, factor: u16) -> Self::Element {
        let mut sum = Self::identity();
        for bit in (0..u16::BITS - factor.leading_zeros()).rev() {
            sum = sum + sum;
            if factor >> bit & 1 == 1 {
                sum = sum + *element;
            }
        }
        sum
    }
}
