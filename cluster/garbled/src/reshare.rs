//! The same key for other holders: new ones, fewer or more, some of the old ones among them or none.
//!
//! Each piece is split into as many parts as there will be pieces; the parts of one number, of all pieces, add up to the new
//! piece of that number. How a piece is split follows from its salt, which its holders know and nobody else: all of them
//! deal the same without a word, and a receiver compares. Two rounds: what each dealer has for each new holder;
//! commitments to the new pieces, from each new holder to all of them.
//!
//! **Who knows what.** A holder of the epoch that ends does not know the parts of the piece that it lacks, nor a new holder
//! the parts of its own number. The two together, be they two nodes or one, lack one part, and all that they know adds up
//! to the key but for that part.
//!
//! **The caller** deals only to nodes that an operator's signed statement names, and seals what is dealt from node to node;
//! [`Session::digest`] tells one dealing from another. All new holders that take part sign the outcome, with their parts on
//! disk. The new epoch begins with the entry that names it, and old parts are erased once it is applied; until then the
//! old epoch is the key's. Which nodes the new holders are is in the session: two sessions deal different parts, so that a
//! node that has another number in a second attempt does not collect what it must lack.
//!
//! **What one corrupt node can do**: end it. What two have dealt alike is what an honest one dealt. What one holder alone
//! deals (of three old holders one is gone; of four, two) is its word: it may deal another key, and the new holders would
//! agree on that. So **the check value is the last word**: the new holders compute it under the key's correction
//! ([`crate::operations::check`]), each decodes it itself, and what is not the one on record comes to nothing
//! ([`Agreed::conclude`]). It is computed even if two have dealt everything: old parts are erased on the strength of it.
//! Nothing is one holder's word if the pieces of the one that is gone are first given to a node that takes its number
//! ([`crate::portion`]: each is compared with its commitment), and that deals in its place.
//!
//! The correction, the check value and the digest of an HMAC key's inner state stay as they are. Of four new holders one may
//! be away, and gets its part from the others later.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::agreement::{self, Committee, Fault, Pieces, Sharing};
use crate::circuits::CHECK_BYTES;
use crate::circuits::sha256::STATE_BYTES;
use crate::held::{Held, InnerState, inner_digest};
use crate::live::Live;
use crate::sharing::{HOLDERS, Piece, SharingError};
use crate::source::Source;

/// A part of a piece by its numbers: of which old piece, for which new one.
type Part = (u8, u8);

/// What a resharing is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Names this ceremony and nothing else.
    pub id: [u8; 32],
    /// What is live. What comes out is of the epoch after its.
    pub live: Live,
    /// Its holders that deal, by their numbers: two at least.
    pub dealers: BTreeSet<u8>,
    /// The nodes that will hold the key, ascending: the first will lack the first piece, and so on.
    pub holders: Vec<u64>,
    /// The number of the new holder that takes no part: one of four at most.
    pub away: Option<u8>,
    /// What the key is checked by, in every epoch.
    pub check: [u8; CHECK_BYTES],
}

/// What a dealer has for one new holder. Secret.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Dealt {
    /// The session's digest.
    #[zeroize(skip)]
    session: [u8; 32],
    /// Each overwrites itself when it is dropped.
    #[zeroize(skip)]
    parts: BTreeMap<Part, Piece>,
    inner: Option<[u8; STATE_BYTES]>,
}

/// A new holder that has its pieces.
pub struct Combined {
    pieces: agreement::Combined,
    inner: Option<InnerState>,
    check: [u8; CHECK_BYTES],
}

/// A new holder whose pieces all agree on, and nobody knows yet whether they are the key's.
pub struct Agreed {
    sharing: Sharing,
    held: Held,
    check: [u8; CHECK_BYTES],
}

impl Session {
    /// The new holders.
    fn committee(&self) -> Committee {
        Committee {
            holders: u8::try_from(self.holders.len()).unwrap_or(0),
            away: self.away,
            sharings: 1,
        }
    }

    /// Whether it can be.
    fn is_possible(&self) -> Result<(), SharingError> {
        let old = self.live.holders();
        let known = self.dealers.iter().all(|number| (1..=old).contains(number));
        let ascending = self.holders.windows(2).all(|pair| pair[0] < pair[1]);
        let dealers = HOLDERS.contains(&old) && known && self.dealers.len() >= 2;
        if !dealers || !ascending || !self.committee().is_possible() {
            return Err(SharingError::Holders);
        }
        self.live.next().map(drop)
    }

    /// A hash of everything that it is about.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = self
            .live
            .hash(Sha256::new_with_prefix(b"conclave reshare 1").chain_update(self.id));
        hash.update((self.dealers.len() as u64).to_be_bytes());
        self.dealers.iter().for_each(|number| hash.update([*number]));
        hash.update((self.holders.len() as u64).to_be_bytes());
        self.holders
            .iter()
            .for_each(|node| hash.update(node.to_be_bytes()));
        hash.update([self.away.unwrap_or(0)]);
        hash.update(self.check);
        hash.finalize().into()
    }

    /// What dealer `me` has for each new holder that takes part, by their numbers.
    ///
    /// # Errors
    /// [`Fault::Session`]: a session that cannot be, or a part that is not the dealer's in this epoch.
    pub fn deal(&self, me: u8, held: &Held) -> Result<BTreeMap<u8, Dealt>, Fault> {
        self.is_possible()?;
        let committee = self.committee();
        if !self.dealers.contains(&me) {
            return Err(SharingError::Holders.into());
        }
        self.live.verify(held, me)?;
        let session = self.digest();
        let parts: BTreeMap<Part, Piece> = held
            .share
            .pieces()
            .flat_map(|(number, piece)| split(&session, number, piece, committee.holders))
            .collect();
        let dealt = |to: u8| Dealt {
            session,
            parts: parts
                .iter()
                .filter(|((_, new), _)| *new != to)
                .map(|(at, part)| (*at, part.clone()))
                .collect(),
            inner: held.inner.as_ref().map(|inner| **inner),
        };
        Ok(committee.present().map(|to| (to, dealt(to))).collect())
    }

    /// Takes what each dealer has for the new holder `me`, and gives the commitments to its pieces.
    ///
    /// # Errors
    /// [`Fault::Dealer`], [`Fault::Dealers`], [`Fault::Session`].
    pub fn combine(&self, me: u8, dealt: &BTreeMap<u8, Dealt>) -> Result<(Combined, Pieces), Fault> {
        self.is_possible()?;
        let committee = self.committee();
        if !committee.is_possible_for(me) {
            return Err(SharingError::Holders.into());
        }
        if let Some(stranger) = dealt.keys().find(|number| !self.dealers.contains(number)) {
            return Err(Fault::Dealer(*stranger));
        }
        let session = self.digest();
        let mut inner = None;
        for dealer in &self.dealers {
            let of = dealt.get(dealer).ok_or(Fault::Dealer(*dealer))?;
            let whole = of.parts.keys().copied().eq(self.parts_for(me, *dealer));
            let of_inner = of.inner.as_ref();
            let committed = of_inner.map(|inner| inner_digest(&self.live.name(), inner)) == self.live.inner;
            if of.session != session || !whole || !committed {
                return Err(Fault::Dealer(*dealer));
            }
            inner = of.inner.map(Zeroizing::new);
        }
        let mut pieces = BTreeMap::new();
        for number in committee.numbers().filter(|number| *number != me) {
            let mut sum = Piece {
                value: [0; 32],
                salt: [0; 32],
            };
            for old in 1..=self.live.holders() {
                sum.add(compare((old, number), dealt)?);
            }
            pieces.insert((0, number), sum);
        }
        let name = self.live.next()?;
        let (pieces, sent) = agreement::Combined::new((committee, me), |_| name, pieces, session);
        let check = self.check;
        let combined = Combined { pieces, inner, check };
        Ok((combined, sent))
    }

    /// What all new holders have agreed on, to a member that holds nothing of the key: each commitment is the word of two of
    /// them at least, of whom one is honest. Whether it is the key's their signatures say, since each has decoded the check
    /// value itself.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn witness(&self, said: &BTreeMap<u8, Pieces>) -> Result<Sharing, Fault> {
        self.is_possible()?;
        let agreed = self.committee().agreed(said)?.into_iter().next();
        agreed.ok_or_else(|| SharingError::Pieces.into())
    }

    /// What a dealer has for a new holder: of each piece that the one has, the part of each that the other will have.
    fn parts_for(&self, holder: u8, dealer: u8) -> impl Iterator<Item = Part> {
        let numbers = self.committee().numbers();
        let old = (1..=self.live.holders()).filter(move |number| *number != dealer);
        old.flat_map(move |old| {
            let new = numbers.clone().filter(move |number| *number != holder);
            new.map(move |new| (old, new))
        })
    }
}

impl Combined {
    /// Takes everybody's commitments to pieces, its own among them. Faults name new holders.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn agree(self, said: &BTreeMap<u8, Pieces>) -> Result<Agreed, Fault> {
        let mut agreed = self.pieces.agree(said)?.into_iter();
        let (sharing, share) = agreed.next().ok_or(SharingError::Pieces)?;
        let (inner, check) = (self.inner, self.check);
        let held = Held { share, inner };
        Ok(Agreed { sharing, held, check })
    }
}

impl Agreed {
    /// What they agree on: its digest goes into the seeds of the computation of the check value.
    pub fn sharing(&self) -> &Sharing {
        &self.sharing
    }

    /// This holder's part, to compute the check value with.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// The new sharing and this holder's part of it, if the check value that this holder has decoded itself (or, as the
    /// evaluator, heard from both garblers) is the one on record.
    ///
    /// # Errors
    /// [`Fault::Check`].
    pub fn conclude(self, computed: &[u8; CHECK_BYTES]) -> Result<(Sharing, Held), Fault> {
        match bool::from(self.check.ct_eq(computed)) {
            true => Ok((self.sharing, self.held)),
            false => Err(Fault::Check),
        }
    }
}

/// The parts of a piece: whoever has its salt makes the same ones.
fn split(session: &[u8; 32], number: u8, piece: &Piece, holders: u8) -> Vec<(Part, Piece)> {
    let source = Source::new(b"conclave reshare parts 1", session, &piece.salt);
    let mut parts: Vec<Piece> = (1..=holders).map(|new| source.piece(new)).collect();
    if let Some((first, others)) = parts.split_first_mut() {
        first.value = piece.value;
        for other in others {
            for (rest, by) in first.value.iter_mut().zip(other.value) {
                *rest ^= by;
            }
        }
    }
    (1..)
        .zip(parts)
        .map(|(new, part)| ((number, new), part))
        .collect()
}

/// The part that all who have dealt it dealt alike; all copies are looked at. Of three, one that differs is named.
fn compare(at: Part, dealt: &BTreeMap<u8, Dealt>) -> Result<&Piece, Fault> {
    let copies: Vec<(u8, &Piece)> = dealt
        .iter()
        .filter_map(|(dealer, of)| Some((*dealer, of.parts.get(&at)?)))
        .collect();
    let alike = |one: &Piece, two: &Piece| one.value.ct_eq(&two.value) & one.salt.ct_eq(&two.salt);
    let is_alone = |(dealer, copy): &(u8, &Piece)| {
        let others = copies.iter().filter(|(other, _)| other != dealer);
        !others.fold(Choice::from(0), |some, (_, other)| some | alike(copy, other))
    };
    let alone: Vec<u8> = copies
        .iter()
        .filter(|copy| copies.len() > 1 && bool::from(is_alone(copy)))
        .map(|(dealer, _)| *dealer)
        .collect();
    match (alone[..].first(), alone.get(1)) {
        (None, _) => copies
            .first()
            .map(|(_, copy)| *copy)
            .ok_or(SharingError::Pieces.into()),
        (Some(one), None) => Err(Fault::Dealer(*one)),
        (Some(one), Some(two)) => Err(Fault::Dealers(*one, *two)),
    }
}

#[cfg(test)]
mod tests;
