//! Making the pieces of a key so that no single holder chooses one: each piece is the XOR of what each of its holders drew,
//! committed before any of it is opened.
//!
//! Three rounds: commitments to contributions, to all; the contributions, from each holder of a piece to each other one
//! (the caller seals them); commitments to the pieces, to all, which every holder of a piece must say alike. The check
//! value, and for HMAC keys the states, are then computed by the protocol itself ([`crate::circuits`]): what does not fit
//! there is not born.
//!
//! Of four holders one may be away: the others make its pieces too, two of them at least each, and it gets them later
//! ([`crate::portion`]).

use std::collections::BTreeMap;

use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::agreement::{At, Committee};
use crate::sharing::{Name, Piece, SharingError};

pub use crate::agreement::{Combined, Fault, Pieces, Sharing};

/// What a generation is about. Contributions are committed to under its id, pieces under the rest.
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
    /// Who takes no part: one of four at most.
    pub away: Option<u8>,
    /// Sharings that are made side by side: the key's, and for an HMAC key its outer state's.
    pub sharings: u8,
}

/// First message: a commitment for each piece that the sender holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commitments(BTreeMap<At, [u8; 32]>);

/// Second message, to one other holder: what the sender drew for each piece that both hold. Secret.
#[derive(Serialize, Deserialize)]
pub struct Opening(BTreeMap<At, Piece>);

/// A holder that has sent its commitments.
pub struct Committed {
    session: Session,
    me: u8,
    drawn: BTreeMap<At, Piece>,
    sent: Commitments,
}

/// A holder that has opened its contributions, and takes no other commitments any more.
pub struct Opened {
    of: Committed,
    committed: BTreeMap<u8, Commitments>,
}

impl Session {
    fn name(&self, sharing: u8) -> Name<'_> {
        Name {
            cluster: &self.cluster,
            key: &self.key,
            epoch: self.epoch,
            sharing,
        }
    }

    fn committee(&self) -> Committee {
        Committee {
            holders: self.holders,
            away: self.away,
            sharings: self.sharings,
        }
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

impl Committed {
    /// Begins as holder `me`.
    ///
    /// # Errors
    /// [`Fault::Session`].
    pub fn begin(
        session: Session,
        me: u8,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<(Self, Commitments), Fault> {
        if !session.committee().is_possible_for(me) {
            return Err(SharingError::Holders.into());
        }
        let drawn: BTreeMap<At, Piece> = session
            .committee()
            .held_by(me)
            .map(|at| (at, Piece::generate(rng)))
            .collect();
        let commitments = drawn
            .iter()
            .map(|(at, piece)| (*at, session.commitment(me, *at, piece)));
        let sent = Commitments(commitments.collect());
        let this = Self {
            session,
            me,
            drawn,
            sent: sent.clone(),
        };
        Ok((this, sent))
    }

    /// Takes everybody's commitments, its own among them, and gives what goes to each other holder.
    ///
    /// # Errors
    /// [`Fault::Holder`].
    pub fn open(
        self,
        committed: BTreeMap<u8, Commitments>,
    ) -> Result<(Opened, BTreeMap<u8, Opening>), Fault> {
        let committee = self.session.committee();
        for number in committee.present() {
            let of = committed.get(&number).ok_or(Fault::Holder(number))?;
            let whole = of.0.keys().copied().eq(committee.held_by(number));
            if !whole || number == self.me && *of != self.sent {
                return Err(Fault::Holder(number));
            }
        }
        if committed.len() != committee.present().count() {
            return Err(Fault::Split);
        }
        let others = committee.present().filter(|number| *number != self.me);
        let opening = |to: u8| {
            let both = committee.held_by_both(self.me, to);
            let opened = both.filter_map(|at| Some((at, self.drawn.get(&at)?.clone())));
            Opening(opened.collect())
        };
        let openings = others.map(|to| (to, opening(to))).collect();
        Ok((Opened { of: self, committed }, openings))
    }
}

impl Opened {
    /// Takes what each other holder opened, and gives the commitments to this holder's pieces.
    ///
    /// # Errors
    /// [`Fault::Holder`].
    pub fn combine(self, openings: &BTreeMap<u8, Opening>) -> Result<(Combined, Pieces), Fault> {
        let Committed {
            session,
            me,
            drawn: mut pieces,
            ..
        } = self.of;
        let committee = session.committee();
        for from in committee.present().filter(|number| *number != me) {
            let Opening(opened) = openings.get(&from).ok_or(Fault::Holder(from))?;
            if !opened.keys().copied().eq(committee.held_by_both(from, me)) {
                return Err(Fault::Holder(from));
            }
            for (at, drawn) in opened {
                let committed = self.committed.get(&from).and_then(|of| of.0.get(at));
                let fits = committed
                    .is_some_and(|committed| committed.ct_eq(&session.commitment(from, *at, drawn)).into());
                let piece = pieces.get_mut(at).filter(|_| fits).ok_or(Fault::Holder(from))?;
                piece.add(drawn);
            }
        }
        let echo = echo(&self.committed);
        Ok(Combined::new(
            (committee, me),
            |sharing| session.name(sharing),
            pieces,
            echo,
        ))
    }
}

fn echo(committed: &BTreeMap<u8, Commitments>) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(b"conclave generation echo 1");
    for (from, Commitments(of)) in committed {
        for ((sharing, number), commitment) in of {
            hash.update([*from, *sharing, *number]);
            hash.update(commitment);
        }
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::held::Held;
    use crate::portion::{Gathered, Portion, Wanted};
    use crate::sharing::{GarblerParts, HOLDERS, Share};
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    fn session(holders: u8) -> Session {
        Session {
            id: [1; 32],
            cluster: [2; 32],
            key: b"key".to_vec(),
            epoch: 0,
            holders,
            away: None,
            sharings: 2,
        }
    }

    type Born = Vec<Result<Vec<(Sharing, Share)>, Fault>>;

    /// Runs it all; the closures change what holder `to` gets of each round.
    fn run(
        holders: u8,
        first: impl Fn(u8, &mut BTreeMap<u8, Commitments>),
        second: impl Fn(u8, &mut BTreeMap<u8, Opening>),
        third: impl Fn(u8, &mut BTreeMap<u8, Pieces>),
    ) -> Born {
        run_of(&session(holders), first, second, third)
    }

    /// The same of those that are there, in their order.
    fn run_of(
        session: &Session,
        first: impl Fn(u8, &mut BTreeMap<u8, Commitments>),
        second: impl Fn(u8, &mut BTreeMap<u8, Opening>),
        third: impl Fn(u8, &mut BTreeMap<u8, Pieces>),
    ) -> Born {
        let mut rng = ChaCha20Rng::from_seed([session.holders; 32]);
        let present: Vec<u8> = session.committee().present().collect();
        let numbers = || present.iter().copied();
        let begun: Vec<_> = numbers()
            .map(|me| Committed::begin(session.clone(), me, &mut rng).unwrap())
            .collect();
        let sent: BTreeMap<u8, Commitments> = numbers()
            .zip(begun.iter().map(|(_, sent)| sent.clone()))
            .collect();
        let mut openings: BTreeMap<u8, BTreeMap<u8, Opening>> = BTreeMap::new();
        let opened: Vec<_> = numbers()
            .zip(begun)
            .map(|(me, (participant, _))| {
                let mut got = sent.clone();
                first(me, &mut got);
                let (participant, out) = participant.open(got)?;
                for (to, opening) in out {
                    openings.entry(to).or_default().insert(me, opening);
                }
                Ok(participant)
            })
            .collect();
        let combined: Vec<_> = numbers()
            .zip(opened)
            .map(|(me, participant)| {
                let mut got = openings.remove(&me).unwrap_or_default();
                second(me, &mut got);
                participant.and_then(|participant| participant.combine(&got))
            })
            .collect();
        let said = numbers()
            .zip(&combined)
            .filter_map(|(me, of)| Some((me, of.as_ref().ok()?.1.clone())));
        let said: BTreeMap<u8, Pieces> = said.collect();
        numbers()
            .zip(combined)
            .map(|(me, participant)| {
                let mut got = said.clone();
                third(me, &mut got);
                participant.and_then(|(participant, _)| participant.agree(&got))
            })
            .collect()
    }

    #[test]
    fn all_agree_on_sharings_whose_every_trio_has_the_same_key() {
        for holders in HOLDERS {
            let born = run(holders, |_, _| (), |_, _| (), |_, _| ());
            let born: Vec<_> = born.into_iter().map(Result::unwrap).collect();
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

    /// What the others hold of the one that is away is its part, and three of them are a trio without it.
    #[test]
    fn of_four_one_may_be_away_and_has_its_part_from_the_others() {
        for away in 1..=4 {
            let session = Session {
                away: Some(away),
                ..session(4)
            };
            let present: Vec<u8> = session.committee().present().collect();
            let born = run_of(&session, |_, _| (), |_, _| (), |_, _| ());
            let born: Vec<_> = born.into_iter().map(Result::unwrap).collect();
            let trio: [u8; 3] = present[..].try_into().unwrap();
            for sharing in 0..2 {
                let (agreed, _) = &born[0][sharing];
                assert!(born.iter().all(|of| of[sharing].0 == *agreed));
                assert_eq!(agreed.commitments.len(), 4);
                let wanted = Wanted {
                    name: session.name(u8::try_from(sharing).unwrap()),
                    commitments: &agreed.commitments,
                    inner: None,
                    holder: away,
                };
                let mut gathered = Gathered::default();
                for of in &born[..2] {
                    let share = of[sharing].1.clone();
                    let held = Held { share, inner: None };
                    gathered.add(&Portion::of(&held, away), &wanted).unwrap();
                }
                let late = gathered.held(&wanted).unwrap().share;
                // The late one garbles what the others would have computed without it.
                let with = [away, trio[0], trio[1]];
                let parts = [
                    late.as_garbler(with).unwrap(),
                    born[0][sharing].1.as_garbler(with).unwrap(),
                ];
                let before = [&born[0], &born[1]].map(|of| of[sharing].1.as_garbler(trio).unwrap());
                let key = |[one, two]: &[GarblerParts; 2]| {
                    let bytes = one.common.iter().zip(one.own.iter()).zip(two.own.iter());
                    bytes.map(|((a, b), c)| a ^ b ^ c).collect::<Vec<u8>>()
                };
                assert_eq!(key(&parts), key(&before));
            }
        }
    }

    fn faults(born: Born) -> Vec<Option<Fault>> {
        born.into_iter().map(Result::err).collect()
    }

    #[test]
    fn whoever_opens_what_it_did_not_commit_to_is_named() {
        let spoil = |to: u8, openings: &mut BTreeMap<u8, Opening>| {
            if to == 1 {
                let Opening(opened) = openings.get_mut(&2).unwrap();
                opened.first_entry().unwrap().get_mut().value[0] ^= 1;
            }
        };
        assert_eq!(
            faults(run(3, |_, _| (), spoil, |_, _| ()))[0],
            Some(Fault::Holder(2))
        );
    }

    #[test]
    fn whoever_lacks_a_message_or_a_part_of_one_is_named() {
        let cut = |to: u8, committed: &mut BTreeMap<u8, Commitments>| {
            if to != 3 {
                committed.get_mut(&3).unwrap().0.pop_last();
            }
        };
        let born = faults(run(3, cut, |_, _| (), |_, _| ()));
        assert_eq!(born[..2], [Some(Fault::Holder(3)); 2]);
        let lost = |to: u8, openings: &mut BTreeMap<u8, Opening>| {
            if to == 2 {
                openings.remove(&4);
            }
        };
        assert_eq!(
            faults(run(4, |_, _| (), lost, |_, _| ()))[1],
            Some(Fault::Holder(4))
        );
        let changed = |to: u8, committed: &mut BTreeMap<u8, Commitments>| {
            if to == 2 {
                let other = committed[&1].clone();
                committed.insert(2, other);
            }
        };
        assert_eq!(
            faults(run(3, changed, |_, _| (), |_, _| ()))[1],
            Some(Fault::Holder(2))
        );
    }

    /// A holder, or the messenger, that says two things in the first round: nobody honest is named for it.
    #[test]
    fn two_first_messages_of_one_holder_split_them() {
        let twice = |to: u8, committed: &mut BTreeMap<u8, Commitments>| {
            if to == 1 {
                // Of a piece that only holders 2 and 4 open to each other beside it.
                committed.get_mut(&4).unwrap().0.insert((0, 1), [9; 32]);
            }
        };
        let born = faults(run(4, twice, |_, _| (), |_, _| ()));
        assert!(born.iter().all(|fault| *fault == Some(Fault::Split)), "{born:?}");
    }

    #[test]
    fn two_that_do_not_agree_about_a_piece_are_named() {
        let other = |to: u8, said: &mut BTreeMap<u8, Pieces>| {
            if to != 3 {
                said.get_mut(&3).unwrap().of.insert((0, 1), [9; 32]);
            }
        };
        let born = faults(run(3, |_, _| (), |_, _| (), other));
        assert_eq!(born[..2], [Some(Fault::Between(2, 3)); 2]);
        assert_eq!(born[2], None);
    }

    #[test]
    fn a_session_that_cannot_be_does_not_begin() {
        let mut rng = ChaCha20Rng::from_seed([0; 32]);
        let possible = |holders, away| Session {
            away,
            ..session(holders)
        };
        let cannot = [
            (possible(2, None), 1),
            (possible(5, None), 1),
            (possible(3, None), 4),
            (possible(3, None), 0),
            (possible(3, Some(3)), 1),
            (possible(4, Some(5)), 1),
            (possible(4, Some(1)), 1),
        ];
        for (session, me) in cannot {
            let begun = Committed::begin(session, me, &mut rng);
            assert!(matches!(begun, Err(Fault::Session(SharingError::Holders))));
        }
    }
}
