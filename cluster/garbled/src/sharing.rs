//! Replicated shares, CNF(n, t = 1): a key is the XOR of n pieces, and holder j has every piece but piece j. One holder knows
//! nothing of the key; two together know all of it, whatever n is.

use std::collections::BTreeMap;

use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of a piece, and of the secret.
pub const BYTES: usize = 32;

/// Fewest and most holders.
pub const HOLDERS: std::ops::RangeInclusive<u8> = 3..=4;

/// A piece with the salt of its commitment.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Piece {
    /// What the secret is the XOR of.
    pub value: [u8; BYTES],
    /// Hides the value in its commitment.
    pub salt: [u8; 32],
}

/// What a commitment is about, beside the piece.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// The cluster.
    pub cluster: &'a [u8; 32],
    /// The key.
    pub key: &'a [u8],
    /// Its epoch.
    pub epoch: u64,
    /// Which of the sharings that the key has.
    pub sharing: u8,
}

impl Piece {
    /// A random one.
    pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let mut piece = Self {
            value: [0; BYTES],
            salt: [0; 32],
        };
        rng.fill_bytes(&mut piece.value);
        rng.fill_bytes(&mut piece.salt);
        piece
    }

    /// Adds another one, value and salt.
    pub(crate) fn add(&mut self, by: &Self) {
        let sums = self.value.iter_mut().chain(&mut self.salt);
        for (sum, by) in sums.zip(by.value.iter().chain(&by.salt)) {
            *sum ^= by;
        }
    }

    /// SHA-256("piece", cluster, key, epoch, sharing, number, salt, value), each with its length where it can vary.
    pub fn commitment(&self, name: &Name<'_>, number: u8) -> [u8; 32] {
        Sha256::new()
            .chain_update(b"conclave piece 1")
            .chain_update(name.cluster)
            .chain_update((name.key.len() as u64).to_be_bytes())
            .chain_update(name.key)
            .chain_update(name.epoch.to_be_bytes())
            .chain_update([name.sharing, number])
            .chain_update(self.salt)
            .chain_update(self.value)
            .finalize()
            .into()
    }
}

/// Names a whole sharing: what all of its holders must agree on.
pub fn digest(commitments: &[[u8; 32]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"conclave sharing 1");
    hash.update([u8::try_from(commitments.len()).unwrap_or(u8::MAX)]);
    for commitment in commitments {
        hash.update(commitment);
    }
    hash.finalize().into()
}

/// Pieces that are no sharing, or a trio that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharingError {
    /// The number of holders is not offered.
    #[error("a symmetric key has three or four holders")]
    Holders,
    /// The pieces are not those of this holder.
    #[error("the pieces are not those of this holder")]
    Pieces,
    /// The three nodes are not three holders with this one among them.
    #[error("these are not three holders of the key")]
    Trio,
    /// A piece is not what was committed to.
    #[error("a piece is not what was committed to")]
    Commitment,
    /// Epochs are numbered by 64 bits.
    #[error("no epoch follows this one")]
    Epoch,
}

/// What one holder has: every piece but its own number's.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Share {
    #[zeroize(skip)]
    holders: u8,
    #[zeroize(skip)]
    holder: u8,
    pieces: Vec<Piece>,
    #[zeroize(skip)]
    numbers: Vec<u8>,
}

/// The parts of a secret that a garbler knows.
pub struct GarblerParts {
    /// Known to both garblers.
    pub common: Zeroizing<Vec<u8>>,
    /// Known to this garbler and the evaluator.
    pub own: Zeroizing<Vec<u8>>,
}

/// The parts of a secret that the evaluator knows.
pub struct EvaluatorParts {
    /// Known to it and the first garbler.
    pub first: Zeroizing<Vec<u8>>,
    /// Known to it and the second.
    pub second: Zeroizing<Vec<u8>>,
}

/// The three that compute, by their numbers: first garbler, second garbler, evaluator.
pub type Trio = [u8; 3];

impl Share {
    /// Of the pieces that `holder` (from 1) of `holders` has.
    ///
    /// # Errors
    /// [`SharingError::Holders`], [`SharingError::Pieces`].
    pub fn new(holders: u8, holder: u8, pieces: BTreeMap<u8, Piece>) -> Result<Self, SharingError> {
        if !HOLDERS.contains(&holders) {
            return Err(SharingError::Holders);
        }
        let wanted = (1..=holders).filter(|number| *number != holder);
        if !(1..=holders).contains(&holder) || !pieces.keys().copied().eq(wanted) {
            return Err(SharingError::Pieces);
        }
        let (numbers, pieces) = pieces.into_iter().unzip();
        Ok(Self {
            holders,
            holder,
            pieces,
            numbers,
        })
    }

    /// Checks every piece against its commitment, in constant time.
    ///
    /// # Errors
    /// [`SharingError::Commitment`].
    pub fn verify(&self, name: &Name<'_>, commitments: &[[u8; 32]]) -> Result<(), SharingError> {
        let mut sound = subtle::Choice::from(u8::from(commitments.len() == usize::from(self.holders)));
        for (number, piece) in self.numbers.iter().zip(&self.pieces) {
            let wanted = commitments
                .get(usize::from(*number) - 1)
                .copied()
                .unwrap_or_default();
            sound &= piece.commitment(name, *number).ct_eq(&wanted);
        }
        if bool::from(sound) {
            Ok(())
        } else {
            Err(SharingError::Commitment)
        }
    }

    /// The number of holders, and this one's.
    pub fn place(&self) -> (u8, u8) {
        (self.holders, self.holder)
    }

    /// Pieces by their numbers, for the disk.
    pub fn pieces(&self) -> impl Iterator<Item = (u8, &Piece)> {
        self.numbers.iter().copied().zip(&self.pieces)
    }

    /// As one of the garblers of this trio.
    ///
    /// # Errors
    /// [`SharingError::Trio`].
    pub fn as_garbler(&self, trio: Trio) -> Result<GarblerParts, SharingError> {
        let [first, second, evaluator] = self.check(trio)?;
        let own = match self.holder {
            holder if holder == first => second,
            holder if holder == second => first,
            _ => return Err(SharingError::Trio),
        };
        // What the evaluator lacks, and what the absent lack: both garblers have those.
        let mut common = Zeroizing::new(vec![0; BYTES]);
        for number in (1..=self.holders).filter(|number| *number != first && *number != second) {
            debug_assert!(number == evaluator || !trio.contains(&number));
            for (sum, byte) in common.iter_mut().zip(self.piece(number)?) {
                *sum ^= byte;
            }
        }
        Ok(GarblerParts {
            common,
            own: Zeroizing::new(self.piece(own)?.to_vec()),
        })
    }

    /// As the evaluator of this trio.
    ///
    /// # Errors
    /// [`SharingError::Trio`].
    pub fn as_evaluator(&self, trio: Trio) -> Result<EvaluatorParts, SharingError> {
        let [first, second, evaluator] = self.check(trio)?;
        if self.holder != evaluator {
            return Err(SharingError::Trio);
        }
        Ok(EvaluatorParts {
            first: Zeroizing::new(self.piece(second)?.to_vec()),
            second: Zeroizing::new(self.piece(first)?.to_vec()),
        })
    }

    fn check(&self, trio: Trio) -> Result<Trio, SharingError> {
        let [first, second, evaluator] = trio;
        let differ = first != second && first != evaluator && second != evaluator;
        let known = trio.iter().all(|number| (1..=self.holders).contains(number));
        if differ && known {
            Ok(trio)
        } else {
            Err(SharingError::Trio)
        }
    }

    fn piece(&self, number: u8) -> Result<&[u8; BYTES], SharingError> {
        let at = self.numbers.iter().position(|other| *other == number);
        at.map(|at| &self.pieces[at].value).ok_or(SharingError::Pieces)
    }
}

/// Shares a secret that is known: for the tests of known answers, never for a key that a client asked for.
pub fn deal(secret: &[u8; BYTES], holders: u8, rng: &mut (impl CryptoRng + RngCore)) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = (0..holders).map(|_| Piece::generate(rng)).collect();
    let mut last = *secret;
    for piece in &pieces[1..] {
        for (sum, byte) in last.iter_mut().zip(piece.value) {
            *sum ^= byte;
        }
    }
    pieces[0].value = last;
    last.zeroize();
    pieces
}

/// What `holder` has of all pieces.
///
/// # Errors
/// [`SharingError`].
pub fn share_of(pieces: &[Piece], holder: u8) -> Result<Share, SharingError> {
    let holders = u8::try_from(pieces.len()).map_err(|_| SharingError::Holders)?;
    let all = (1..).zip(pieces).filter(|(number, _)| *number != holder);
    Share::new(
        holders,
        holder,
        all.map(|(number, piece)| (number, piece.clone())).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    fn xor(parts: [&[u8]; 3]) -> Vec<u8> {
        (0..BYTES)
            .map(|at| parts[0][at] ^ parts[1][at] ^ parts[2][at])
            .collect()
    }

    #[test]
    fn every_trio_has_the_secret_and_agrees_on_who_knows_what() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        for holders in HOLDERS {
            let mut secret = [0; BYTES];
            rng.fill_bytes(&mut secret);
            let pieces = deal(&secret, holders, &mut rng);
            let share = |holder| share_of(&pieces, holder).unwrap();
            let numbers = 1..=holders;
            for first in numbers.clone() {
                for second in numbers.clone() {
                    for evaluator in numbers.clone() {
                        let trio = [first, second, evaluator];
                        let (one, two) = (share(first).as_garbler(trio), share(second).as_garbler(trio));
                        let three = share(evaluator).as_evaluator(trio);
                        if first == second || first == evaluator || second == evaluator {
                            assert_eq!(three.err(), Some(SharingError::Trio));
                            continue;
                        }
                        let (one, two, three) = (one.unwrap(), two.unwrap(), three.unwrap());
                        assert_eq!(*one.common, *two.common);
                        assert_eq!((&*one.own, &*two.own), (&*three.first, &*three.second));
                        assert_eq!(xor([&one.common, &one.own, &two.own]), secret);
                    }
                }
            }
            assert!(share(1).as_evaluator([2, 3, holders]).is_err() || holders == 1);
        }
    }

    #[test]
    fn a_piece_that_was_changed_or_moved_is_found() {
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        let pieces = deal(&[7; BYTES], 3, &mut rng);
        let cluster = [9; 32];
        let name = Name {
            cluster: &cluster,
            key: b"key",
            epoch: 1,
            sharing: 0,
        };
        let commitments: Vec<[u8; 32]> = (1..)
            .zip(&pieces)
            .map(|(number, piece)| piece.commitment(&name, number))
            .collect();
        let share = share_of(&pieces, 2).unwrap();
        assert_eq!(share.verify(&name, &commitments), Ok(()));
        let later = Name { epoch: 2, ..name };
        assert_eq!(share.verify(&later, &commitments), Err(SharingError::Commitment));
        let mut changed = pieces.clone();
        changed[0].value[31] ^= 1;
        let spoiled = share_of(&changed, 2).unwrap();
        assert_eq!(spoiled.verify(&name, &commitments), Err(SharingError::Commitment));
        changed.swap(0, 2);
        assert!(
            share_of(&changed, 2)
                .unwrap()
                .verify(&name, &commitments)
                .is_err()
        );
        assert!(Share::new(5, 1, BTreeMap::new()).is_err());
        assert_eq!(
            Share::new(3, 1, BTreeMap::new()).err(),
            Some(SharingError::Pieces)
        );
    }
}
