//! A message to one member outside of any ceremony: HPKE (RFC 9180) to the X25519 key that membership pins.
//!
//! `about` says what the message is for and between whom; what is sealed about one thing opens about nothing else. HPKE's
//! base mode does not name the sender: who that is, the message itself must prove.

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use crate::envelope::EnvelopeKey;

const INFO: &[u8] = b"conclave letter 1";
const ENCAPSULATED: usize = 32;

/// Seals `plain` to the member with this public key; `None` if that is no usable key.
pub fn seal(
    to: &[u8; 32],
    about: &[u8],
    plain: &[u8],
    rng: &mut (impl CryptoRng + RngCore),
) -> Option<Vec<u8>> {
    let to = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(to).ok()?;
    let sealed = hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256, _>(
        &OpModeS::Base,
        &to,
        INFO,
        plain,
        about,
        rng,
    );
    let (encapsulated, ciphertext) = sealed.ok()?;
    Some([encapsulated.to_bytes().as_slice(), &ciphertext].concat())
}

/// Opens what was sealed to this key about the same thing; `None` for anything else.
pub fn open(key: &EnvelopeKey, about: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (encapsulated, ciphertext) = sealed.split_at_checked(ENCAPSULATED)?;
    let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
    let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        key.private(),
        &encapsulated,
        INFO,
        ciphertext,
        about,
    );
    opened.ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use rand::rngs::OsRng;

    use super::*;

    #[test]
    fn opens_for_its_member_about_the_same_thing_and_unchanged() {
        let (key, other) = (
            EnvelopeKey::generate(&mut OsRng),
            EnvelopeKey::generate(&mut OsRng),
        );
        let sealed = seal(&key.public(), b"about", b"text", &mut OsRng).unwrap();
        assert_eq!(*open(&key, b"about", &sealed).unwrap(), b"text");
        assert!(open(&other, b"about", &sealed).is_none());
        assert!(open(&key, b"else", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(&key, b"about", &changed).is_none(), "byte {at}");
            assert!(open(&key, b"about", &sealed[..at]).is_none());
        }
    }
}
