//! What one holder tells another by way of a third: sealed under a key that the two share, for one purpose and once.

use conclave_garbled::session::PairSecret;
use hkdf::Hkdf;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Of what, from whom, to whom. What it is bound to has something of the sender's that it never says twice, or two letters
/// would have one key.
pub(crate) struct Letter {
    pub(crate) ceremony: [u8; 32],
    /// A hash of everybody's commitments, the sender's fresh ones among them.
    pub(crate) committed: [u8; 32],
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// In place of the commitments of a birth: pieces never change, so that a second letter is the first again.
const OF_PORTION: [u8; 32] = *b"conclave pieces of an absent one";

impl Letter {
    /// One with the pieces of a key, by the ceremony that made them, for a holder that was away.
    pub(crate) fn of_portion(ceremony: [u8; 32], from: u64, to: u64) -> Self {
        Self {
            ceremony,
            committed: OF_PORTION,
            from,
            to,
        }
    }

    /// A key that this letter alone has, so that its nonce may be zero.
    fn key(&self, secret: &PairSecret) -> Option<LessSafeKey> {
        let mut info = b"conclave letter 1".to_vec();
        info.extend(self.ceremony);
        info.extend(self.committed);
        info.extend(self.from.to_be_bytes());
        info.extend(self.to.to_be_bytes());
        let mut key = Zeroizing::new([0; 32]);
        let derived = Hkdf::<Sha256>::new(None, &secret[..]).expand(&info, &mut key[..]);
        derived.ok()?;
        Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key[..]).ok()?))
    }

    /// Seals it.
    pub(crate) fn seal(&self, secret: &PairSecret, text: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = text.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let key = self.key(secret)?;
        key.seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed)
            .ok()?;
        Some(sealed)
    }

    /// Opens it.
    pub(crate) fn open(&self, secret: &PairSecret, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut text = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let length = self
            .key(secret)?
            .open_in_place(nonce, Aad::empty(), &mut text)
            .ok()?
            .len();
        text.truncate(length);
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_for_one_ceremony_and_one_direction() {
        let letter = |ceremony, from, to| Letter {
            ceremony: [ceremony; 32],
            committed: [9; 32],
            from,
            to,
        };
        let secret: PairSecret = Zeroizing::new([7; 32]);
        let sealed = letter(1, 1, 2).seal(&secret, b"pieces").unwrap();
        assert_eq!(&letter(1, 1, 2).open(&secret, &sealed).unwrap()[..], b"pieces");
        assert!(letter(2, 1, 2).open(&secret, &sealed).is_none());
        let other = Letter {
            committed: [8; 32],
            ..letter(1, 1, 2)
        };
        assert!(other.open(&secret, &sealed).is_none());
        assert!(letter(1, 2, 1).open(&secret, &sealed).is_none());
        assert!(letter(1, 1, 2).open(&Zeroizing::new([8; 32]), &sealed).is_none());
    }
}
