//! How a holder gets its part from the others, of whom each has all of it but one piece: one that was away when its key was
//! born, refreshed or dealt to it; one whose disk is lost (repair); a node that takes the number of one that is gone.
//!
//! Every piece is compared with its commitment, of the epoch that is asked for: a piece of another epoch or of another key is
//! none, and one honest holder of each piece is enough. Any two holders have all pieces of a third between them, of three as
//! of four. Who may ask is the caller's to know: two portions are a part, and whoever else has a part has the key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::circuits::sha256::STATE_BYTES;
use crate::held::{Held, InnerState, inner_digest};
use crate::sharing::{Name, Piece, Share, SharingError};

/// What one holder gives another: the pieces that both have, and an HMAC key's inner state. Secret.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Portion {
    /// By their numbers; each overwrites itself when it is dropped.
    #[zeroize(skip)]
    pieces: BTreeMap<u8, Piece>,
    inner: Option<[u8; STATE_BYTES]>,
}

/// What everybody knows of a holder's part.
pub struct Wanted<'a> {
    /// The sharing's name.
    pub name: Name<'a>,
    /// The commitments to all pieces.
    pub commitments: &'a [[u8; 32]],
    /// Of an HMAC key: [`inner_digest`].
    pub inner: Option<[u8; 32]>,
    /// Whose part it is.
    pub holder: u8,
}

/// Portions, being put together.
#[derive(Default)]
pub struct Gathered {
    pieces: BTreeMap<u8, Piece>,
    inner: Option<InnerState>,
}

impl Portion {
    /// What the holder of `held` gives to `holder`.
    pub fn of(held: &Held, holder: u8) -> Self {
        let both = held.share.pieces().filter(|(number, _)| *number != holder);
        Self {
            pieces: both.map(|(number, piece)| (number, piece.clone())).collect(),
            inner: held.inner.as_ref().map(|inner| **inner),
        }
    }
}

impl Gathered {
    /// Adds a portion, all of it or nothing.
    ///
    /// # Errors
    /// [`SharingError::Pieces`] for a piece that the holder does not have, [`SharingError::Commitment`] for one that is not
    /// what was committed to, and the same for the inner state.
    pub fn add(&mut self, portion: &Portion, wanted: &Wanted<'_>) -> Result<(), SharingError> {
        for (number, piece) in &portion.pieces {
            let committed = usize::from(*number).checked_sub(1);
            let committed = committed.and_then(|at| wanted.commitments.get(at));
            let committed = committed.filter(|_| *number != wanted.holder);
            let made = piece.commitment(&wanted.name, *number);
            if !bool::from(committed.ok_or(SharingError::Pieces)?.ct_eq(&made)) {
                return Err(SharingError::Commitment);
            }
        }
        let inner = portion.inner.as_ref();
        if inner.map(|inner| inner_digest(&wanted.name, inner)) != wanted.inner {
            return Err(SharingError::Commitment);
        }
        let pieces = portion.pieces.iter();
        self.pieces
            .extend(pieces.map(|(number, piece)| (*number, piece.clone())));
        self.inner = portion.inner.map(Zeroizing::new);
        Ok(())
    }

    /// The whole part, once every piece of it is here.
    pub fn held(&self, wanted: &Wanted<'_>) -> Option<Held> {
        let holders = u8::try_from(wanted.commitments.len()).ok()?;
        let share = Share::new(holders, wanted.holder, self.pieces.clone()).ok()?;
        Some(Held {
            share,
            inner: self.inner.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;
    use crate::sharing::{BYTES, HOLDERS, deal, share_of};

    const INNER: [u8; STATE_BYTES] = [9; STATE_BYTES];

    fn name(epoch: u64) -> Name<'static> {
        Name {
            cluster: &[1; 32],
            key: b"key",
            epoch,
            sharing: 0,
        }
    }

    /// What so many holders have in an epoch, and the commitments.
    fn dealt(holders: u8, epoch: u64) -> (Vec<Held>, Vec<[u8; 32]>) {
        let seed = [holders + epoch as u8; 32];
        let pieces = deal(&[7; BYTES], holders, &mut ChaCha20Rng::from_seed(seed));
        let held = (1..=holders).map(|holder| Held {
            share: share_of(&pieces, holder).unwrap(),
            inner: Some(Zeroizing::new(INNER)),
        });
        let committed = (1..).zip(&pieces);
        let commitments = committed.map(|(number, piece)| piece.commitment(&name(epoch), number));
        (held.collect(), commitments.collect())
    }

    fn wanted(commitments: &[[u8; 32]], epoch: u64, holder: u8) -> Wanted<'_> {
        Wanted {
            name: name(epoch),
            commitments,
            inner: Some(inner_digest(&name(epoch), &INNER)),
            holder,
        }
    }

    #[test]
    fn any_two_others_give_a_holder_its_whole_part() {
        for (holders, epoch) in HOLDERS.flat_map(|holders| [(holders, 0), (holders, 5)]) {
            let (held, commitments) = dealt(holders, epoch);
            for holder in 1..=holders {
                let wanted = wanted(&commitments, epoch, holder);
                let others: Vec<u8> = (1..=holders).filter(|other| *other != holder).collect();
                for (at, one) in others.iter().enumerate() {
                    for two in &others[at + 1..] {
                        let mut gathered = Gathered::default();
                        gathered
                            .add(&Portion::of(&held[usize::from(one - 1)], holder), &wanted)
                            .unwrap();
                        assert!(gathered.held(&wanted).is_none(), "one is not enough");
                        gathered
                            .add(&Portion::of(&held[usize::from(two - 1)], holder), &wanted)
                            .unwrap();
                        let whole = gathered.held(&wanted).unwrap();
                        assert_eq!(whole.to_bytes(), held[usize::from(holder - 1)].to_bytes());
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_not_taken() {
        let (held, commitments) = dealt(4, 1);
        let wanted = wanted(&commitments, 1, 4);
        let mut gathered = Gathered::default();
        for number in 1..=3 {
            for spoil in [
                |piece: &mut Piece| piece.value[0] ^= 1,
                |piece: &mut Piece| piece.salt[31] ^= 1,
            ] {
                let from = &held[usize::from(number % 3)];
                let mut spoiled = Portion::of(from, 4);
                spoiled.pieces.get_mut(&number).map(spoil).unwrap();
                assert_eq!(gathered.add(&spoiled, &wanted), Err(SharingError::Commitment));
            }
        }
        let mut spoiled = Portion::of(&held[0], 4);
        spoiled.inner.as_mut().unwrap()[0] ^= 1;
        assert_eq!(gathered.add(&spoiled, &wanted), Err(SharingError::Commitment));
        let mut spoiled = Portion::of(&held[0], 4);
        spoiled.inner = None;
        assert_eq!(gathered.add(&spoiled, &wanted), Err(SharingError::Commitment));
        // Pieces of an epoch that has passed, and of one that this node does not know of yet.
        for other in [0, 2] {
            let (held, _) = dealt(4, other);
            let strange = Portion::of(&held[0], 4);
            assert_eq!(gathered.add(&strange, &wanted), Err(SharingError::Commitment));
        }
        // Its own number's piece is the one that a holder must never see.
        let whole = Portion::of(&held[0], 3);
        assert_eq!(gathered.add(&whole, &wanted), Err(SharingError::Pieces));
        assert!(gathered.pieces.is_empty());
    }
}
