//! A backup's keys and the recovery officers, k of whom open one: the only file that knows `threshold_crypto`.
//!
//! The crate is used for 32 bytes and by these rules: |V| = 32 before anything is decoded; `verify` before a share is used;
//! each answer is verified against its officer's public share; no officer counts twice. Above 64 bytes its ciphertexts are
//! malleable, and wrong or duplicate shares give it no error.

use rand::{CryptoRng, RngCore};
use sha2::{Digest as _, Sha256};
use threshold_crypto::serde_impl::SerdeSecret;
use threshold_crypto::{Ciphertext, DecryptionShare, PublicKeySet, SecretKeySet, SecretKeyShare};
use zeroize::Zeroizing;

/// A key that a backup is sealed under: 32 random bytes.
pub type BackupKey = Zeroizing<[u8; 32]>;

/// The most recovery officers.
pub const MAX_OFFICERS: u8 = 32;
/// Bytes of an encoded point of G1.
const G1: usize = 48;
/// Bytes of an encoded point of G2.
const G2: usize = 96;
const KEY: usize = 32;
/// U, the length of V, V, W.
const SEALED: usize = G1 + 1 + KEY + G2;
/// Four numbers of 64 bits, seven bits a byte.
const SECRET: usize = 40;

/// What officers can refuse or get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfficerError {
    /// Numbers that make no quorum.
    #[error("from 2 to 32 officers, and a quorum of 2 or more of them")]
    Numbers,
    /// Bytes that are no public keys of officers.
    #[error("not the public keys of recovery officers")]
    Keys,
    /// Bytes that are no officer's share, or not one under these public keys.
    #[error("not a share of these recovery officers")]
    Share,
    /// Bytes that are no sealed key.
    #[error("not a key that is sealed to recovery officers")]
    Sealed,
    /// An answer that its officer's share does not give.
    #[error("officer {0} has given a wrong answer")]
    Answer(u8),
    /// The same officer twice.
    #[error("officer {0} has answered twice")]
    Twice(u8),
    /// Not enough.
    #[error("{given} officers have answered, {quorum} are needed")]
    TooFew {
        /// How many answers there are.
        given: usize,
        /// How many are needed.
        quorum: usize,
    },
}

/// The officers' public keys: everybody may have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfficerKeys(PublicKeySet);

/// One officer's share. No Debug, no Serialize; wiped on drop.
pub struct OfficerShare {
    officer: u8,
    secret: SecretKeyShare,
}

/// A [`BackupKey`], sealed to the officers and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedKey(Ciphertext);

/// One officer's answer to one sealed key. Secret: a quorum of them opens it.
pub struct OfficerAnswer(DecryptionShare);

/// The crate draws from a generator of rand 0.7.
struct Older<'a, R>(&'a mut R);

impl<R: CryptoRng + RngCore> rand07::RngCore for Older<'_, R> {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand07::Error> {
        self.0.fill_bytes(bytes);
        Ok(())
    }
}

impl<R: CryptoRng + RngCore> rand07::CryptoRng for Older<'_, R> {}

/// Deals the shares of so many officers, of whom `quorum` open a backup. Whoever calls this is a dealer: for this moment it
/// could open everything alone.
///
/// # Errors
/// [`OfficerError::Numbers`].
pub fn deal(
    officers: u8,
    quorum: u8,
    rng: &mut (impl CryptoRng + RngCore),
) -> Result<(OfficerKeys, Vec<OfficerShare>), OfficerError> {
    if !(2..=MAX_OFFICERS).contains(&officers) || !(2..=officers).contains(&quorum) {
        return Err(OfficerError::Numbers);
    }
    let set = SecretKeySet::random(usize::from(quorum - 1), &mut Older(rng));
    let share = |officer: u8| OfficerShare {
        officer,
        secret: set.secret_key_share(place(officer)),
    };
    Ok((
        OfficerKeys(set.public_keys()),
        (1..=officers).map(share).collect(),
    ))
}

/// The crate counts from 0.
fn place(officer: u8) -> u64 {
    u64::from(officer) - 1
}

fn decoded<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

impl OfficerKeys {
    /// How many officers open a backup.
    pub fn quorum(&self) -> usize {
        self.0.threshold() + 1
    }

    /// As they stand in files.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Points only: cannot fail.
        postcard::to_stdvec(&self.0).unwrap_or_default()
    }

    /// Decodes; every point is on the curve and in the group.
    ///
    /// # Errors
    /// [`OfficerError::Keys`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, OfficerError> {
        if bytes.len() > G1 * usize::from(MAX_OFFICERS) + 8 {
            return Err(OfficerError::Keys);
        }
        let keys: PublicKeySet = decoded(bytes).ok_or(OfficerError::Keys)?;
        let keys = Self(keys);
        let sound = (2..=usize::from(MAX_OFFICERS)).contains(&keys.quorum()) && keys.to_bytes() == bytes;
        sound.then_some(keys).ok_or(OfficerError::Keys)
    }

    /// Names the officers' keys: SHA-256 over them.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::new_with_prefix(b"conclave recovery keys 1")
            .chain_update(self.to_bytes())
            .finalize()
            .into()
    }

    /// Draws a key and seals it to the officers.
    pub fn seal_new(&self, rng: &mut (impl CryptoRng + RngCore)) -> (BackupKey, SealedKey) {
        let mut key = BackupKey::new([0; KEY]);
        rng.fill_bytes(&mut key[..]);
        let sealed = self.0.public_key().encrypt_with_rng(&mut Older(rng), &key[..]);
        (key, SealedKey(sealed))
    }

    /// The key of a quorum's answers, each verified.
    ///
    /// # Errors
    /// [`OfficerError::TooFew`], [`OfficerError::Twice`], [`OfficerError::Answer`] names who answered wrong.
    pub fn open(
        &self,
        sealed: &SealedKey,
        answers: &[(u8, OfficerAnswer)],
    ) -> Result<BackupKey, OfficerError> {
        for (at, (officer, answer)) in answers.iter().enumerate() {
            if answers[..at].iter().any(|(other, _)| other == officer) {
                return Err(OfficerError::Twice(*officer));
            }
            if !self.answers(sealed, *officer, answer) {
                return Err(OfficerError::Answer(*officer));
            }
        }
        let too_few = OfficerError::TooFew {
            given: answers.len(),
            quorum: self.quorum(),
        };
        let counted = answers.get(..self.quorum()).ok_or(too_few)?;
        let shares = counted
            .iter()
            .map(|(officer, answer)| (place(*officer), &answer.0));
        let opened = Zeroizing::new(self.0.decrypt(shares, &sealed.0).map_err(|_| too_few)?);
        let mut key = BackupKey::new([0; KEY]);
        if opened.len() != KEY {
            return Err(OfficerError::Sealed);
        }
        key.copy_from_slice(&opened);
        Ok(key)
    }

    /// Whether this is what the officer's share gives.
    pub fn answers(&self, sealed: &SealedKey, officer: u8, answer: &OfficerAnswer) -> bool {
        (1..=MAX_OFFICERS).contains(&officer)
            && self
                .0
                .public_key_share(place(officer))
                .verify_decryption_share(&answer.0, &sealed.0)
    }
}

impl SealedKey {
    /// As it stands in a backup's header.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Points and bytes only: cannot fail.
        postcard::to_stdvec(&self.0).unwrap_or_default()
    }

    /// Decodes and verifies: what an officer answers to is what a node sealed, unchanged.
    ///
    /// # Errors
    /// [`OfficerError::Sealed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, OfficerError> {
        if bytes.len() != SEALED || usize::from(bytes[G1]) != KEY {
            return Err(OfficerError::Sealed);
        }
        let sealed: Ciphertext = decoded(bytes).ok_or(OfficerError::Sealed)?;
        sealed
            .verify()
            .then_some(Self(sealed))
            .ok_or(OfficerError::Sealed)
    }
}

impl OfficerShare {
    /// The officer's number, from 1.
    pub fn officer(&self) -> u8 {
        self.officer
    }

    /// The secret, for the officer's file.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(vec![0; SECRET]);
        // Four numbers: cannot fail.
        let length = postcard::to_slice(&SerdeSecret(&self.secret), &mut bytes).map_or(0, |used| used.len());
        bytes.truncate(length);
        bytes
    }

    /// The share of officer number `officer`, which must be one under these public keys.
    ///
    /// # Errors
    /// [`OfficerError::Share`].
    pub fn from_bytes(officer: u8, bytes: &[u8], keys: &OfficerKeys) -> Result<Self, OfficerError> {
        if !(1..=MAX_OFFICERS).contains(&officer) {
            return Err(OfficerError::Share);
        }
        let secret: SerdeSecret<SecretKeyShare> = decoded(bytes).ok_or(OfficerError::Share)?;
        let secret = secret.into_inner();
        let fits = secret.public_key_share() == keys.0.public_key_share(place(officer));
        fits.then_some(Self { officer, secret })
            .ok_or(OfficerError::Share)
    }

    /// Answers for a sealed key, which is verified once more.
    ///
    /// # Errors
    /// [`OfficerError::Sealed`].
    pub fn answer(&self, sealed: &SealedKey) -> Result<OfficerAnswer, OfficerError> {
        self.secret
            .decrypt_share(&sealed.0)
            .map(OfficerAnswer)
            .ok_or(OfficerError::Sealed)
    }
}

impl OfficerAnswer {
    /// Bytes of an answer.
    pub const BYTES: usize = G1;

    /// As it travels, sealed to whoever restores.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(vec![0; G1]);
        // One point: cannot fail.
        let _ = postcard::to_slice(&self.0, &mut bytes);
        bytes
    }

    /// Decodes; the caller has it verified.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        decoded(bytes).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn dealt() -> (OfficerKeys, Vec<OfficerShare>, StdRng) {
        let mut rng = StdRng::seed_from_u64(7);
        let (keys, shares) = deal(5, 3, &mut rng).unwrap();
        (keys, shares, rng)
    }

    fn answers(shares: &[OfficerShare], sealed: &SealedKey, officers: &[u8]) -> Vec<(u8, OfficerAnswer)> {
        let answer = |officer: &u8| (*officer, shares[usize::from(officer - 1)].answer(sealed).unwrap());
        officers.iter().map(answer).collect()
    }

    #[test]
    fn any_three_of_five_open_it_and_two_do_not() {
        let (keys, shares, mut rng) = dealt();
        let (key, sealed) = keys.seal_new(&mut rng);
        for officers in [[1, 2, 3], [1, 3, 5], [5, 4, 2]] {
            let opened = keys.open(&sealed, &answers(&shares, &sealed, &officers)).unwrap();
            assert_eq!(*opened, *key);
        }
        let all = keys.open(&sealed, &answers(&shares, &sealed, &[1, 2, 3, 4, 5]));
        assert_eq!(*all.unwrap(), *key);
        let few = keys.open(&sealed, &answers(&shares, &sealed, &[1, 5]));
        assert_eq!(few.err(), Some(OfficerError::TooFew { given: 2, quorum: 3 }));
        let twice = keys.open(&sealed, &answers(&shares, &sealed, &[1, 5, 1]));
        assert_eq!(twice.err(), Some(OfficerError::Twice(1)));
    }

    #[test]
    fn two_shares_alone_combine_to_another_key() {
        // Not only refused here: below the quorum the crate's own interpolation gives something else.
        let (keys, shares, mut rng) = dealt();
        let (key, sealed) = keys.seal_new(&mut rng);
        let two = answers(&shares, &sealed, &[1, 2]);
        let two = two.iter().map(|(officer, answer)| (place(*officer), &answer.0));
        assert!(keys.0.decrypt(two.clone(), &sealed.0).is_err());
        let smaller = SecretKeySet::random(1, &mut Older(&mut rng)).public_keys();
        assert_ne!(smaller.decrypt(two, &sealed.0).unwrap(), key[..]);
    }

    #[test]
    fn a_wrong_answer_names_its_officer() {
        let (keys, shares, mut rng) = dealt();
        let (_, sealed) = keys.seal_new(&mut rng);
        let (_, other) = keys.seal_new(&mut rng);
        let mut given = answers(&shares, &sealed, &[1, 2]);
        given.push((4, shares[3].answer(&other).unwrap()));
        assert_eq!(keys.open(&sealed, &given).err(), Some(OfficerError::Answer(4)));
        given.pop();
        given.push((3, shares[3].answer(&sealed).unwrap()));
        assert_eq!(keys.open(&sealed, &given).err(), Some(OfficerError::Answer(3)));
        given.pop();
        for stranger in [0, 33, 255] {
            given.push((stranger, shares[3].answer(&sealed).unwrap()));
            assert_eq!(
                keys.open(&sealed, &given).err(),
                Some(OfficerError::Answer(stranger))
            );
            given.pop();
        }
    }

    #[test]
    fn what_is_sealed_is_32_bytes_and_unchanged() {
        let (keys, _, mut rng) = dealt();
        let (_, sealed) = keys.seal_new(&mut rng);
        let bytes = sealed.to_bytes();
        assert_eq!((bytes.len(), SealedKey::from_bytes(&bytes)), (SEALED, Ok(sealed)));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(
                SealedKey::from_bytes(&changed).err(),
                Some(OfficerError::Sealed),
                "byte {at}"
            );
        }
        for length in [31, 33, 64, 65, 100] {
            let other = keys
                .0
                .public_key()
                .encrypt_with_rng(&mut Older(&mut rng), vec![7; length]);
            let other = SealedKey(other).to_bytes();
            assert_eq!(
                SealedKey::from_bytes(&other),
                Err(OfficerError::Sealed),
                "{length} bytes"
            );
        }
        assert!(SealedKey::from_bytes(&[]).is_err());
    }

    #[test]
    fn files_bring_back_what_was_dealt_and_nothing_else() {
        let (keys, shares, mut rng) = dealt();
        let (_, sealed) = keys.seal_new(&mut rng);
        assert_eq!(OfficerKeys::from_bytes(&keys.to_bytes()), Ok(keys.clone()));
        let bytes = keys.to_bytes();
        assert!(OfficerKeys::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(OfficerKeys::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err());
        for share in &shares {
            let again = OfficerShare::from_bytes(share.officer(), &share.to_bytes(), &keys).unwrap();
            let answer = again.answer(&sealed).unwrap();
            assert!(keys.answers(&sealed, share.officer(), &answer));
            let again = OfficerAnswer::from_bytes(&answer.to_bytes()).unwrap();
            assert!(keys.answers(&sealed, share.officer(), &again));
            let other = share.officer() % 5 + 1;
            assert!(OfficerShare::from_bytes(other, &share.to_bytes(), &keys).is_err());
        }
        let (others, _) = deal(5, 3, &mut rng).unwrap();
        assert_ne!(others.fingerprint(), keys.fingerprint());
        assert!(OfficerShare::from_bytes(1, &shares[0].to_bytes(), &others).is_err());
    }

    #[test]
    fn numbers_that_make_no_quorum_are_refused() {
        let mut rng = StdRng::seed_from_u64(7);
        for (officers, quorum) in [(0, 0), (1, 1), (5, 1), (5, 6), (33, 3)] {
            let refused = deal(officers, quorum, &mut rng).err();
            assert_eq!(refused, Some(OfficerError::Numbers), "{quorum} of {officers}");
        }
    }
}
