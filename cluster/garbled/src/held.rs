//! What a holder keeps of a key, as it goes to its sealed store: its pieces, and an HMAC key's inner state.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::circuits::sha256::STATE_BYTES;
use crate::sharing::{BYTES, Name, Piece, Share, SharingError};

/// The first byte of what is kept.
const VERSION: u8 = 1;
/// A piece with its salt.
const PIECE_BYTES: usize = 2 * BYTES;

/// An HMAC key's inner state. It computes no tag without the outer one.
pub type InnerState = Zeroizing<[u8; STATE_BYTES]>;

/// A holder's part of a key.
#[derive(Clone)]
pub struct Held {
    /// Its pieces.
    pub share: Share,
    /// An HMAC key's inner state.
    pub inner: Option<InnerState>,
}

/// What everybody may know of an inner state: a hash of it and the key's name.
pub fn inner_digest(name: &Name<'_>, inner: &[u8; STATE_BYTES]) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"conclave inner state 1")
        .chain_update(name.cluster)
        .chain_update((name.key.len() as u64).to_be_bytes())
        .chain_update(name.key)
        .chain_update(inner)
        .finalize()
        .into()
}

impl Held {
    /// Version, number of holders, this holder's number, whether there is an inner state (1 byte each), the state, then
    /// value and salt of each piece in the order of their numbers.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let pieces: Vec<(u8, &Piece)> = self.share.pieces().collect();
        let mut bytes = Zeroizing::new(Vec::with_capacity(4 + STATE_BYTES + pieces.len() * PIECE_BYTES));
        let (holders, holder) = self.share.place();
        bytes.extend_from_slice(&[VERSION, holders, holder, u8::from(self.inner.is_some())]);
        if let Some(inner) = &self.inner {
            bytes.extend_from_slice(&inner[..]);
        }
        for (_, piece) in pieces {
            bytes.extend_from_slice(&piece.value);
            bytes.extend_from_slice(&piece.salt);
        }
        bytes
    }

    /// Reads what [`Held::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`SharingError::Pieces`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SharingError> {
        let Some((&[VERSION, holders, holder, has_inner @ (0 | 1)], mut rest)) = bytes.split_first_chunk()
        else {
            return Err(SharingError::Pieces);
        };
        let mut inner = None;
        if has_inner == 1 {
            let (state, pieces) = rest.split_first_chunk().ok_or(SharingError::Pieces)?;
            inner = Some(Zeroizing::new(*state));
            rest = pieces;
        }
        let (pieces, []) = rest.as_chunks::<PIECE_BYTES>() else {
            return Err(SharingError::Pieces);
        };
        let numbers = (1..=holders).filter(|number| *number != holder);
        let pieces: BTreeMap<u8, Piece> = numbers
            .zip(pieces)
            .filter_map(|(number, bytes)| {
                let (value, salt) = bytes.split_at(BYTES);
                let value = value.try_into().ok()?;
                let salt = salt.try_into().ok()?;
                Some((number, Piece { value, salt }))
            })
            .collect();
        let share = Share::new(holders, holder, pieces)?;
        let held = Self { share, inner };
        // Nothing was left over, and nothing is written in two ways.
        match held.to_bytes().len() == bytes.len() {
            true => Ok(held),
            false => Err(SharingError::Pieces),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;
    use crate::sharing::{deal, share_of};

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        for holders in [3, 4] {
            let pieces = deal(&[7; BYTES], holders, &mut rng);
            for holder in 1..=holders {
                for inner in [None, Some(Zeroizing::new([9; STATE_BYTES]))] {
                    let share = share_of(&pieces, holder).unwrap();
                    let held = Held { share, inner };
                    let bytes = held.to_bytes();
                    let read = Held::from_bytes(&bytes).unwrap();
                    assert_eq!(read.to_bytes(), bytes);
                    assert_eq!(read.inner, held.inner);
                    for length in 0..bytes.len() {
                        assert!(Held::from_bytes(&bytes[..length]).is_err(), "{length}");
                    }
                    assert!(Held::from_bytes(&[&bytes[..], &[0; PIECE_BYTES]].concat()).is_err());
                    for at in 0..4 {
                        let mut changed = bytes.clone();
                        changed[at] ^= 0x80;
                        assert!(Held::from_bytes(&changed).is_err(), "byte {at}");
                    }
                }
            }
        }
    }
}
