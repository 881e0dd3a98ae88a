//! A member's share of a key: secret, bound to its epoch and purpose, without Debug or Serialize.
//! The caller seals what [`KeyShare::to_sealed_bytes`] gives and lets no other copy live.

use zeroize::{Zeroize, Zeroizing};

use crate::edwards25519::Edwards25519;
use crate::group::Group;
use crate::session::Purpose;

const VERSION: u8 = 1;
const HEADER: usize = 1 + 1 + 2 + 8;

/// One member's share of one key in one epoch; zeroized on drop.
pub struct KeyShare<G: Group = Edwards25519> {
    index: u16,
    epoch: u64,
    purpose: Purpose,
    scalar: G::Scalar,
}

/// Why bytes are not a share.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ShareError {
    /// Wrong length, version, purpose or index.
    #[error("not the bytes of a key share")]
    Malformed,
    /// The scalar is zero or not reduced.
    #[error("the share's scalar is zero or not canonical")]
    Scalar,
}

impl<G: Group> KeyShare<G> {
    /// None for a zero scalar or index 0.
    pub(crate) fn new(index: u16, epoch: u64, purpose: Purpose, scalar: &G::Scalar) -> Option<Self> {
        (index != 0 && *scalar != G::Scalar::from(0)).then_some(KeyShare {
            index,
            epoch,
            purpose,
            scalar: *scalar,
        })
    }

    /// The member that it belongs to.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The epoch that it belongs to; shares of two epochs never combine.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The one kind of ceremony that it answers.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    pub(crate) fn scalar(&self) -> &G::Scalar {
        &self.scalar
    }

    /// The share as bytes for a sealed store: version, purpose, index, epoch (big-endian), scalar.
    pub fn to_sealed_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER + G::SCALAR_BYTES));
        bytes.extend_from_slice(&[VERSION, self.purpose.code()]);
        bytes.extend_from_slice(&self.index.to_be_bytes());
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        let mut scalar = G::encode_scalar(&self.scalar);
        bytes.extend_from_slice(scalar.as_ref());
        scalar.zeroize();
        bytes
    }

    /// The share of what [`Self::to_sealed_bytes`] gave. Check it against its [`crate::Commitment`] before use.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ShareError> {
        if bytes.len() != HEADER + G::SCALAR_BYTES || bytes[0] != VERSION {
            return Err(ShareError::Malformed);
        }
        let (header, scalar) = bytes.split_at(HEADER);
        let purpose = Purpose::from_code(header[1]).ok_or(ShareError::Malformed)?;
        let index = u16::from_be_bytes([header[2], header[3]]);
        let epoch = header[4..]
            .iter()
            .fold(0, |epoch, byte| epoch << 8 | u64::from(*byte));
        if index == 0 {
            return Err(ShareError::Malformed);
        }
        let scalar = Zeroizing::new(G::decode_scalar(scalar).ok_or(ShareError::Scalar)?);
        Self::new(index, epoch, purpose, &scalar).ok_or(ShareError::Scalar)
    }
}

impl<G: Group> Drop for KeyShare<G> {
    fn drop(&mut self) {
        self.scalar.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_damage_is_refused() {
        let scalar = <Edwards25519 as Group>::Scalar::from(77u64);
        let share = KeyShare::<Edwards25519>::new(3, 9, Purpose::Agree, &scalar).unwrap();
        let bytes = share.to_sealed_bytes();
        let again = KeyShare::<Edwards25519>::from_bytes(&bytes).unwrap();
        assert_eq!(
            (again.index(), again.epoch(), again.purpose()),
            (3, 9, Purpose::Agree)
        );
        assert_eq!(again.scalar(), share.scalar());
        let broken = |place: usize, byte: u8| {
            let mut bytes = bytes.to_vec();
            bytes[place] = byte;
            KeyShare::<Edwards25519>::from_bytes(&bytes).err()
        };
        assert_eq!(broken(0, 2), Some(ShareError::Malformed));
        assert_eq!(broken(1, 3), Some(ShareError::Malformed));
        assert_eq!(broken(3, 0), Some(ShareError::Malformed));
        assert_eq!(broken(43, 0xff), Some(ShareError::Scalar));
        assert!(KeyShare::<Edwards25519>::from_bytes(&bytes[..43]).is_err());
        assert!(KeyShare::<Edwards25519>::new(3, 9, Purpose::Agree, &0u64.into()).is_none());
    }
}
