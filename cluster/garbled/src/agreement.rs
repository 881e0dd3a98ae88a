//! The last round of whatever makes pieces ([`crate::generation`], [`crate::refresh`], [`crate::reshare`]): every holder says
//! commitments to the pieces that it has, and all holders of a piece must say the same. Of these two at least take part, and
//! one of two is honest: so is what both say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::sharing::{self, HOLDERS, Name, Piece, Share, SharingError};

/// One sharing's piece by its numbers: of which sharing, which piece.
pub(crate) type At = (u8, u8);

/// Last message: commitments to the pieces that the sender holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pieces {
    /// A hash of what the sender got before.
    pub(crate) echo: [u8; 32],
    pub(crate) of: BTreeMap<At, [u8; 32]>,
}

/// Why a ceremony ends. What comes by way of a messenger may be the messenger's: nothing here is proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// What this holder sent does not have the shape of its round, does not fit what it committed to, or is missing.
    #[error("holder {0} broke the ceremony")]
    Holder(u8),
    /// This holder is in another ceremony, or starts from another epoch or other pieces: it may only be behind.
    #[error("holder {0} is in another ceremony or epoch")]
    Elsewhere(u8),
    /// Holders got different first messages: somebody said two things, or the messenger did.
    #[error("not all holders got the same commitments")]
    Split,
    /// Two holders say different things of a piece that both hold, of contributions that they saw alike: one of them lies.
    #[error("holders {0} and {1} do not agree about a piece")]
    Between(u8, u8),
    /// What this holder of the epoch that ends has dealt is missing, has another shape, or differs from what two others have.
    #[error("holder {0} of the epoch that ends dealt something else")]
    Dealer(u8),
    /// Two holders of the epoch that ends have dealt different things of a piece that both hold: one of them lies.
    #[error("holders {0} and {1} of the epoch that ends dealt different things")]
    Dealers(u8, u8),
    /// What the pieces add up to is another key: somebody dealt what it did not hold.
    #[error("the check value is not the key's")]
    Check,
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

/// The holders of what is made, numbered from 1.
#[derive(Clone, Copy)]
pub(crate) struct Committee {
    pub(crate) holders: u8,
    /// Who takes no part: one of four at most.
    pub(crate) away: Option<u8>,
    /// Sharings that are made side by side.
    pub(crate) sharings: u8,
}

impl Committee {
    pub(crate) fn numbers(self) -> std::ops::RangeInclusive<u8> {
        1..=self.holders
    }

    /// Those that take part.
    pub(crate) fn present(self) -> impl Iterator<Item = u8> {
        self.numbers().filter(move |number| Some(*number) != self.away)
    }

    /// Whether it can be. One of three that was away would leave pieces of which one holder alone tells.
    pub(crate) fn is_possible(self) -> bool {
        let away = self
            .away
            .is_none_or(|away| self.holders == 4 && self.numbers().contains(&away));
        HOLDERS.contains(&self.holders) && away
    }

    /// The same, and whether holder `me` takes part.
    pub(crate) fn is_possible_for(self, me: u8) -> bool {
        self.is_possible() && self.present().any(|number| number == me)
    }

    /// The pieces that a holder has.
    pub(crate) fn held_by(self, holder: u8) -> impl Iterator<Item = At> {
        (0..self.sharings).flat_map(move |sharing| {
            let others = self.numbers().filter(move |number| *number != holder);
            others.map(move |number| (sharing, number))
        })
    }

    /// What all who take part say alike: the sharings in their order. A holder has compared what it says itself before; to
    /// anybody else this is the word of two holders of each piece.
    pub(crate) fn agreed(self, said: &BTreeMap<u8, Pieces>) -> Result<Vec<Sharing>, Fault> {
        for number in self.present() {
            let from = said.get(&number).ok_or(Fault::Holder(number))?;
            if !from.of.keys().copied().eq(self.held_by(number)) {
                return Err(Fault::Holder(number));
            }
        }
        let mut echoes = said.values().map(|from| from.echo);
        let first = echoes.next();
        if echoes.any(|echo| Some(echo) != first) || said.len() != self.present().count() {
            return Err(Fault::Split);
        }
        (0..self.sharings)
            .map(|sharing| self.agreed_on(sharing, said))
            .collect()
    }

    fn agreed_on(self, sharing: u8, said: &BTreeMap<u8, Pieces>) -> Result<Sharing, Fault> {
        let mut commitments = Vec::new();
        for number in self.numbers() {
            let at = (sharing, number);
            let mut of = said
                .iter()
                .filter_map(|(holder, from)| Some((*holder, from.of.get(&at)?)));
            let (first, commitment) = of.next().ok_or(SharingError::Pieces)?;
            if let Some((other, _)) = of.find(|(_, other)| *other != commitment) {
                return Err(Fault::Between(first, other));
            }
            commitments.push(*commitment);
        }
        let digest = sharing::digest(&commitments);
        Ok(Sharing { commitments, digest })
    }

    /// The pieces that both have.
    pub(crate) fn held_by_both(self, one: u8, two: u8) -> impl Iterator<Item = At> {
        self.held_by(one).filter(move |(_, number)| *number != two)
    }
}

/// A holder that has its pieces, and has said what they are.
pub struct Combined {
    committee: Committee,
    me: u8,
    pieces: BTreeMap<At, Piece>,
    sent: Pieces,
}

impl Combined {
    /// Holder `me` of the committee with all of its pieces, by the names of their sharings.
    pub(crate) fn new<'a>(
        (committee, me): (Committee, u8),
        name: impl Fn(u8) -> Name<'a>,
        pieces: BTreeMap<At, Piece>,
        echo: [u8; 32],
    ) -> (Self, Pieces) {
        let commitments = pieces
            .iter()
            .map(|(at, piece)| (*at, piece.commitment(&name(at.0), at.1)));
        let sent = Pieces {
            echo,
            of: commitments.collect(),
        };
        let this = Self {
            committee,
            me,
            pieces,
            sent: sent.clone(),
        };
        (this, sent)
    }

    /// Takes everybody's commitments to pieces, its own among them: the sharings in their order, and this holder's shares.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn agree(self, said: &BTreeMap<u8, Pieces>) -> Result<Vec<(Sharing, Share)>, Fault> {
        if said.get(&self.me) != Some(&self.sent) {
            return Err(Fault::Holder(self.me));
        }
        let sharings = self.committee.agreed(said)?.into_iter().zip(0..);
        let with_share = sharings.map(|(agreed, sharing)| Ok((agreed, self.share(sharing)?)));
        with_share.collect()
    }

    fn share(&self, sharing: u8) -> Result<Share, Fault> {
        let own = self.pieces.iter().filter(|((of, _), _)| *of == sharing);
        let own = own.map(|((_, number), piece)| (*number, piece.clone()));
        Ok(Share::new(self.committee.holders, self.me, own.collect())?)
    }
}
