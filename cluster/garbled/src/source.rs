//! Pieces that follow from a secret, by HKDF-SHA-256 (RFC 5869): whoever has the secret makes the same.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::sharing::{BYTES, Piece};

/// What pieces are drawn from.
pub(crate) struct Source(Zeroizing<[u8; 32]>);

impl Source {
    /// Of a secret and of what it is used for, which is public: each purpose has pieces of its own.
    pub(crate) fn new(purpose: &[u8], about: &[u8; 32], secret: &[u8]) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(about), secret)
            .expand(purpose, &mut key[..])
            .expect("one block");
        Self(key)
    }

    /// The piece of a number: value and salt are independent of each other and of all others.
    pub(crate) fn piece(&self, number: u8) -> Piece {
        let mut bytes = Zeroizing::new([0; 2 * BYTES]);
        Hkdf::<Sha256>::from_prk(&self.0[..])
            .expect("as long as a hash")
            .expand(&[number], &mut bytes[..])
            .expect("two blocks");
        let mut piece = Piece {
            value: [0; BYTES],
            salt: [0; BYTES],
        };
        piece.value.copy_from_slice(&bytes[..BYTES]);
        piece.salt.copy_from_slice(&bytes[BYTES..]);
        piece
    }
}
