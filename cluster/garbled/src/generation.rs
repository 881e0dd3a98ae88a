//! Making the pieces of a key so that no single holder chooses one: each piece is the XOR of what each of its holders drew,
//! committed before any of it is opened.
//!
//! Three rounds: commitments to contributions, to all; the contributions, from each holder of a piece to each other one
//! (the caller seals them); commitments to the pieces, to all, which every holder of a piece must say alike. The check
//! value, and for HMAC keys the states, are then computed by the protocol itself ([`crate::circuits`]): what does not fit
//! there is not born.

use std::collections::BTreeMap;

use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::sharing::{self, HOLDERS, Name, Piece, Share, SharingError};

/// What a generation is about; all of it goes into every commitment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Names this ceremony and nothing else.
    pub id: [u8; 32],
    /// The cluster.
    pub cluster: [u8; 32],
    /// The key.
    pub key: Vec<u8>,
    /// Its epoch.
    pub epoch: u64,
    /// Number of holders, 3 or 4; they are numbered from 1.
    pub holders: u8,
    /// Sharings that are made side by side: the key's, and for an HMAC key its outer state's.
    pub sharings: u8,
}

/// One sharing's piece by its numbers: of which sharing, which piece.
type At = (u8, u8);

/// First message: a commitment for each piece that the sender holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commitments(BTreeMap<At, [u8; 32]>);

/// Second message, to one other holder: what the sender drew for each piece that both hold. Secret.
#[derive(Serialize, Deserialize)]
pub struct Opening(BTreeMap<At, ([u8; 32], [u8; 32])>);

/// Third message: commitments to the pieces that the sender holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pieces(BTreeMap<At, [u8; 32]>);

/// Why a generation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// What this holder sent does not have the shape of its round, does not fit what it committed to, or is missing.
    #[error("holder {0} broke the generation")]
    Holder(u8),
    /// Two holders say different things of a piece that both hold: one of them lies.
    #[error("holders {0} and {1} do not agree about a piece")]
    Between(u8, u8),
    /// The session itself cannot be.
    #[error(transparent)]
    Session(#[from] SharingError),
}

/// A sharing that all agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// Commitments to its pieces, in their order.
    pub commitments: Vec<[u8; 32]>,
    /// The digest that stands for it.
    pub digest: [u8; 32],
}

/// A holder in a generation.
pub struct Participant {
    session: Session,
    me: u8,
    drawn: BTreeMap<At, Piece>,
    committed: BTreeMap<u8, Commitments>,
    pieces: BTreeMap<At, Piece>,
}

impl Session {
    fn name(&self) -> Name<'_> {
        Name {
            cluster: &self.cluster,
            key: &self.key,
            epoch: self.epoch,
        }
    }

    fn numbers(&self) -> std::ops::RangeInclusive<u8> {
        1..=self.holders
    }

    /// The pieces that a holder has.
    fn held_by(&self, holder: u8) -> impl Iterator<Item = At> {
        let numbers = self.numbers();
        (0..self.sharings).flat_map(move |sharing| {
            let others = numbers.clone().filter(move |number| *number != holder);
            others.map(move |number| (sharing, number))
        })
    }

    /// The pieces that both have.
    fn held_by_both(&self, one: u8, two: u8) -> impl Iterator<Item = At> {
        self.held_by(one).filter(move |(_, number)| *number != two)
    }

    fn commitment(&self, from: u8, (sharing, number): At, drawn: &Piece) -> [u8; 32] {
        Sha256::new()
            .chain_update(b"conclave contribution 1")
            .chain_update(self.id)
            .chain_update([from, sharing, number])
            .chain_update(drawn.salt)
            .chain_update(drawn.value)
            .finalize()
            .into()
    }
}

impl Participant {
    /// Begins as holder `me`.
    ///
    /// # Errors
    /// [`Fault::Session`].
    pub fn begin(
        session: Session,
        me: u8,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<(Self, Commitments), Fault> {
        if !HOLDERS.contains(&session.holders) || !session.numbers().contains(&me) {
            return Err(SharingError::Holders.into());
        }
        let drawn: BTreeMap<At, Piece> = session.held_by(me).map(|at| (at, Piece::generate(rng))).collect();
        let commitments = drawn
            .iter()
            .map(|(at, piece)| (*at, session.commitment(me, *at, piece)));
        let commitments = Commitments(commitments.collect());
        let this = Self {
            session,
            me,
            drawn,
            committed: BTreeMap::new(),
            pieces: BTreeMap::new(),
        };
        Ok((this, commitments))
    }

    /// Takes everybody's commitments, its own among them, and gives what goes to each other holder.
    ///
    /// # Errors
    /// [`Fault::Holder`].
    pub fn open(&mut self, committed: BTreeMap<u8, Commitments>) -> Result<BTreeMap<u8, Opening>, Fault> {
        for number in self.session.numbers() {
            let of = committed.get(&number).ok_or(Fault::Holder(number))?;
            if !of.0.keys().copied().eq(self.session.held_by(number)) {
                return Err(Fault::Holder(number));
            }
        }
        self.committed = committed;
        let others = self.session.numbers().filter(|number| *number != self.me);
        let opening = |to: u8| {
            let both = self.session.held_by_both(self.me, to);
            let opened = both.filter_map(|at| Some((at, self.drawn.get(&at)?)));
            Opening(
                opened
                    .map(|(at, piece)| (at, (piece.value, piece.salt)))
                    .collect(),
            )
        };
        Ok(others.map(|to| (to, opening(to))).collect())
    }

    /// Takes what each other holder opened, and gives the commitments to this holder's pieces.
    ///
    /// # Errors
    /// [`Fault::Holder`].
    pub fn combine(&mut self, openings: BTreeMap<u8, Opening>) -> Result<Pieces, Fault> {
        let mut pieces = std::mem::take(&mut self.drawn);
        for from in self.session.numbers().filter(|number| *number != self.me) {
            let Opening(opened) = openings.get(&from).ok_or(Fault::Holder(from))?;
            if !opened
                .keys()
                .copied()
                .eq(self.session.held_by_both(from, self.me))
            {
                return Err(Fault::Holder(from));
            }
            for (at, (value, salt)) in opened {
                let drawn = Piece {
                    value: *value,
                    salt: *salt,
                };
                let committed = self.committed.get(&from).and_then(|of| of.0.get(at));
                let fits = committed.is_some_and(|committed| {
                    committed
                        .ct_eq(&self.session.commitment(from, *at, &drawn))
                        .into()
                });
                if !fits {
                    return Err(Fault::Holder(from));
                }
                let piece = pieces.get_mut(at).ok_or(Fault::Holder(from))?;
                add(&mut piece.value, &drawn.value);
                add(&mut piece.salt, &drawn.salt);
            }
        }
        self.pieces = pieces;
        let name = self.session.name();
        let commitments = self
            .pieces
            .iter()
            .map(|(at, piece)| (*at, piece.commitment(&name, at.1)));
        Ok(Pieces(commitments.collect()))
    }

    /// Takes everybody's commitments to pieces, its own among them: the sharings in their order, and this holder's shares.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn agree(self, said: &BTreeMap<u8, Pieces>) -> Result<Vec<(Sharing, Share)>, Fault> {
        for number in self.session.numbers() {
            let of = said.get(&number).ok_or(Fault::Holder(number))?;
            if !of.0.keys().copied().eq(self.session.held_by(number)) {
                return Err(Fault::Holder(number));
            }
        }
        let mut born = Vec::new();
        for sharing in 0..self.session.sharings {
            let mut commitments = Vec::new();
            for number in self.session.numbers() {
                let at = (sharing, number);
                let mut of = said
                    .iter()
                    .filter_map(|(holder, of)| Some((*holder, of.0.get(&at)?)));
                let (first, commitment) = of.next().ok_or(SharingError::Pieces)?;
                if let Some((other, _)) = of.find(|(_, other)| *other != commitment) {
                    return Err(Fault::Between(first, other));
                }
                commitments.push(*commitment);
            }
            let own = self.pieces.iter().filter(|((of, _), _)| *of == sharing);
            let own = own.map(|((_, number), piece)| (*number, piece.clone())).collect();
            let share = Share::new(self.session.holders, self.me, own)?;
            share.verify(&self.session.name(), &commitments)?;
            let digest = sharing::digest(&commitments);
            born.push((Sharing { commitments, digest }, share));
        }
        Ok(born)
    }
}

fn add(sum: &mut [u8; 32], by: &[u8; 32]) {
    for (sum, by) in sum.iter_mut().zip(by) {
        *sum ^= by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    fn session(holders: u8) -> Session {
        Session {
            id: [1; 32],
            cluster: [2; 32],
            key: b"key".to_vec(),
            epoch: 0,
            holders,
            sharings: 2,
        }
    }

    /// Runs it all; `spoil` changes what travels, each kind of message by who sends it.
    fn run(
        holders: u8,
        spoil: impl Fn(
            &mut BTreeMap<u8, Commitments>,
            &mut BTreeMap<(u8, u8), Opening>,
            &mut BTreeMap<u8, Pieces>,
        ),
    ) -> Vec<Result<Vec<(Sharing, Share)>, Fault>> {
        let mut rng = ChaCha20Rng::from_seed([holders; 32]);
        let (mut all, mut committed) = (Vec::new(), BTreeMap::new());
        for me in 1..=holders {
            let (participant, commitments) = Participant::begin(session(holders), me, &mut rng).unwrap();
            all.push(participant);
            committed.insert(me, commitments);
        }
        let (mut openings, mut said) = (BTreeMap::new(), BTreeMap::new());
        spoil(&mut committed, &mut openings, &mut said);
        let mut faults = BTreeMap::new();
        for participant in &mut all {
            match participant.open(committed.clone()) {
                Ok(opened) => {
                    let from = participant.me;
                    openings.extend(opened.into_iter().map(|(to, opening)| ((from, to), opening)));
                }
                Err(fault) => {
                    faults.insert(participant.me, fault);
                }
            }
        }
        spoil(&mut committed, &mut openings, &mut said);
        for participant in &mut all {
            let me = participant.me;
            let to_me = openings.extract_if(.., |(_, to), _| *to == me);
            match participant.combine(to_me.map(|((from, _), opening)| (from, opening)).collect()) {
                Ok(pieces) => {
                    said.insert(me, pieces);
                }
                Err(fault) => {
                    faults.entry(me).or_insert(fault);
                }
            }
        }
        spoil(&mut committed, &mut openings, &mut said);
        let end = |participant: Participant| match faults.get(&participant.me) {
            Some(fault) => Err(*fault),
            None => participant.agree(&said),
        };
        all.into_iter().map(end).collect()
    }

    #[test]
    fn all_agree_on_sharings_whose_every_trio_has_the_same_key() {
        for holders in HOLDERS {
            let born: Vec<_> = run(holders, |_, _, _| ())
                .into_iter()
                .map(Result::unwrap)
                .collect();
            for sharing in 0..2 {
                let agreed = &born[0][sharing].0;
                assert!(born.iter().all(|of| of[sharing].0 == *agreed));
                let key = |trio: [u8; 3]| {
                    let share = |number: u8| &born[usize::from(number) - 1][sharing].1;
                    let (one, two) = (share(trio[0]).as_garbler(trio), share(trio[1]).as_garbler(trio));
                    let (one, two) = (one.unwrap(), two.unwrap());
                    let bytes = one.common.iter().zip(one.own.iter()).zip(two.own.iter());
                    bytes.map(|((a, b), c)| a ^ b ^ c).collect::<Vec<u8>>()
                };
                let first = key([1, 2, 3]);
                assert_eq!(first, key([3, 1, 2]));
                if holders == 4 {
                    assert_eq!(first, key([4, 2, 1]));
                }
            }
            assert_ne!(born[0][0].0.digest, born[0][1].0.digest);
        }
    }

    fn faults(born: Vec<Result<Vec<(Sharing, Share)>, Fault>>) -> Vec<Option<Fault>> {
        born.into_iter().map(Result::err).collect()
    }

    #[test]
    fn whoever_opens_what_it_did_not_commit_to_is_named() {
        let born = run(3, |_, openings, _| {
            if let Some(Opening(opened)) = openings.get_mut(&(2, 1)) {
                opened.first_entry().unwrap().get_mut().0[0] ^= 1;
            }
        });
        assert_eq!(faults(born)[0], Some(Fault::Holder(2)));
    }

    #[test]
    fn whoever_lacks_a_message_or_a_part_of_one_is_named() {
        let born = run(3, |committed, _, _| {
            committed.entry(3).and_modify(|of| {
                of.0.pop_last();
            });
        });
        assert!(faults(born).iter().all(|fault| *fault == Some(Fault::Holder(3))));
        let born = run(4, |_, openings, _| {
            openings.remove(&(4, 2));
        });
        assert_eq!(faults(born)[1], Some(Fault::Holder(4)));
    }

    #[test]
    fn two_that_do_not_agree_about_a_piece_are_named() {
        let born = run(3, |_, _, said| {
            if let Some(Pieces(of)) = said.get_mut(&3) {
                of.insert((0, 1), [9; 32]);
            }
        });
        assert!(
            faults(born)
                .iter()
                .all(|fault| *fault == Some(Fault::Between(2, 3)))
        );
    }

    #[test]
    fn a_session_that_cannot_be_does_not_begin() {
        let mut rng = ChaCha20Rng::from_seed([0; 32]);
        for (holders, me) in [(2, 1), (5, 1), (3, 4), (3, 0)] {
            let begun = Participant::begin(session(holders), me, &mut rng);
            assert!(matches!(begun, Err(Fault::Session(SharingError::Holders))));
        }
    }
}
