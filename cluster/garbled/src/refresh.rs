//! New pieces of the same key for the same holders, so that what was taken from one holder before says nothing together with
//! what is taken from another one after.
//!
//! The holders toss one seed. Masks follow from it, one for each piece, whose XOR is zero; each holder adds them to the pieces
//! that it has. Three rounds, as in [`crate::generation`]: a commitment to what each draws, to all; what was drawn, from each
//! to each other one; commitments to the new pieces, to all, which every holder of a piece must say alike. Any difference
//! ends it, and the old epoch stays.
//!
//! **The caller** seals the second message from holder to holder, under keys that the two share and the messenger does not
//! know: then all that are honest have the same first messages and the same seed, whoever carries the messages. It has every
//! holder that takes part sign the outcome, and the new epoch begins with the entry that names it: a messenger that told two
//! holders different things in the last round gets no two signatures under one outcome. The part is on disk, beside the
//! old one, before it is signed; the old one is erased once the entry is applied. What is derived from the name of the
//! ceremony that made a part (a key that seals pieces for another holder) must be derived from this one's from then on.
//!
//! **What one corrupt holder can do**: end it. It cannot choose the seed (the others committed before it saw what they drew),
//! nor have two honest ones use two (their seeds are what everybody committed to), nor have a piece spoiled that it holds:
//! each piece is held by another one that takes part, which is honest and says what it is. It knows all masks, as each holder
//! does, and so what it took from itself in either epoch is worth the same.
//!
//! **No check value is computed**, since nothing could be wrong that it would find. Each honest holder starts from pieces that
//! fit the old commitments, adds masks whose XOR is zero by construction, and every new commitment is the word of an honest
//! one; so the XOR of what is committed to is what it was. Correction, inner state and check value of the key stay. A caller
//! that wants to see it has what [`crate::operations::check`] needs.
//!
//! **Of four holders one may be away**: each piece still has two holders here. It gets its part from the others later
//! ([`crate::portion`]), and its old one opens nothing any more. Of three all must be there: with two, each would be the only
//! one to tell of the piece that the other lacks, and what it told would be found out after the old pieces are gone.

use std::collections::BTreeMap;

use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::agreement::{self, Committee, Fault, Pieces, Sharing};
use crate::held::{Held, InnerState};
use crate::live::Live;
use crate::sharing::{BYTES, Piece, SharingError};
use crate::source::Source;

/// What a refresh is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Names this ceremony and nothing else.
    pub id: [u8; 32],
    /// What is refreshed. What comes out is of the epoch after its.
    pub live: Live,
    /// Who takes no part: one of four at most.
    pub away: Option<u8>,
}

/// What a holder draws: its part in the seed, and what hides it in its commitment.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Drawn {
    seed: [u8; 32],
    salt: [u8; 32],
}

/// First message: a commitment to what the sender drew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commitment {
    /// A hash of everything that the session is about.
    session: [u8; 32],
    drawn: [u8; 32],
}

/// Second message, to each other holder: what the sender drew. Secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct Opening {
    /// A hash of all first messages as the sender got them.
    echo: [u8; 32],
    drawn: Drawn,
}

/// A holder that has sent its commitment.
pub struct Committed {
    session: Session,
    me: u8,
    held: Held,
    drawn: Drawn,
    sent: Commitment,
}

/// A holder that has opened what it drew, and takes no other commitments any more.
pub struct Opened {
    of: Committed,
    committed: BTreeMap<u8, Commitment>,
}

/// A holder that has its new pieces.
pub struct Combined {
    pieces: agreement::Combined,
    inner: Option<InnerState>,
}

impl Session {
    fn committee(&self) -> Committee {
        Committee {
            holders: self.live.holders(),
            away: self.away,
            sharings: 1,
        }
    }

    fn digest(&self) -> [u8; 32] {
        let hash = Sha256::new_with_prefix(b"conclave refresh 1").chain_update(self.id);
        self.live
            .hash(hash)
            .chain_update([self.away.unwrap_or(0)])
            .finalize()
            .into()
    }

    /// What all holders have agreed on, to a member that holds no part: each commitment is the word of two holders, of whom
    /// one is honest.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn witness(&self, said: &BTreeMap<u8, Pieces>) -> Result<Sharing, Fault> {
        let agreed = self.committee().agreed(said)?.into_iter().next();
        agreed.ok_or_else(|| SharingError::Pieces.into())
    }

    /// What `from` sends first, having drawn this.
    fn commitment(&self, from: u8, drawn: &Drawn) -> Commitment {
        let session = self.digest();
        let hash = Sha256::new_with_prefix(b"conclave refresh commitment 1")
            .chain_update(session)
            .chain_update([from])
            .chain_update(drawn.salt)
            .chain_update(drawn.seed);
        Commitment {
            session,
            drawn: hash.finalize().into(),
        }
    }
}

impl Committed {
    /// Begins as holder `me` with this part of what is live.
    ///
    /// # Errors
    /// [`Fault::Session`]: a session that cannot be, or a part that is not the holder's in this epoch.
    pub fn begin(
        session: Session,
        me: u8,
        held: Held,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<(Self, Commitment), Fault> {
        if !session.committee().is_possible_for(me) {
            return Err(SharingError::Holders.into());
        }
        session.live.next()?;
        session.live.verify(&held, me)?;
        let mut drawn = Drawn {
            seed: [0; 32],
            salt: [0; 32],
        };
        rng.fill_bytes(&mut drawn.seed);
        rng.fill_bytes(&mut drawn.salt);
        let sent = session.commitment(me, &drawn);
        let this = Self {
            session,
            me,
            held,
            drawn,
            sent: sent.clone(),
        };
        Ok((this, sent))
    }

    /// Takes everybody's commitments, its own among them, and gives what goes to each other holder.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn open(self, committed: BTreeMap<u8, Commitment>) -> Result<(Opened, BTreeMap<u8, Opening>), Fault> {
        let committee = self.session.committee();
        for number in committee.present() {
            let of = committed.get(&number).ok_or(Fault::Holder(number))?;
            if number == self.me && *of != self.sent {
                return Err(Fault::Holder(number));
            }
            if of.session != self.sent.session {
                return Err(Fault::Elsewhere(number));
            }
        }
        if committed.len() != committee.present().count() {
            return Err(Fault::Split);
        }
        let opening = Opening {
            echo: echo(&committed),
            drawn: self.drawn.clone(),
        };
        let others = committee.present().filter(|number| *number != self.me);
        let openings = others.map(|to| (to, opening.clone())).collect();
        Ok((Opened { of: self, committed }, openings))
    }
}

impl Opened {
    /// Takes what each other holder opened, and gives the commitments to this holder's new pieces.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn combine(self, openings: &BTreeMap<u8, Opening>) -> Result<(Combined, Pieces), Fault> {
        let Committed {
            session,
            me,
            held,
            drawn,
            ..
        } = self.of;
        let (committee, echo) = (session.committee(), echo(&self.committed));
        let mut seeds = Zeroizing::new(Vec::with_capacity(usize::from(committee.holders) * BYTES));
        for from in committee.present() {
            if from == me {
                seeds.extend_from_slice(&drawn.seed);
                continue;
            }
            let opening = openings.get(&from).ok_or(Fault::Holder(from))?;
            if opening.echo != echo {
                return Err(Fault::Split);
            }
            let committed = self.committed.get(&from).ok_or(Fault::Holder(from))?;
            let made = session.commitment(from, &opening.drawn).drawn;
            if !bool::from(committed.drawn.ct_eq(&made)) {
                return Err(Fault::Holder(from));
            }
            seeds.extend_from_slice(&opening.drawn.seed);
        }
        let masks = masks(
            &Source::new(b"conclave refresh seed 1", &echo, &seeds),
            committee.holders,
        );
        let pieces = held.share.pieces().map(|(number, piece)| {
            let mut piece = piece.clone();
            piece.add(&masks[usize::from(number) - 1]);
            ((0, number), piece)
        });
        let name = session.live.next()?;
        let (pieces, sent) = agreement::Combined::new((committee, me), |_| name, pieces.collect(), echo);
        let inner = held.inner;
        Ok((Combined { pieces, inner }, sent))
    }
}

impl Combined {
    /// Takes everybody's commitments to pieces, its own among them: the new sharing, and this holder's part of it.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn agree(self, said: &BTreeMap<u8, Pieces>) -> Result<(Sharing, Held), Fault> {
        let mut agreed = self.pieces.agree(said)?.into_iter();
        let (sharing, share) = agreed.next().ok_or(SharingError::Pieces)?;
        let inner = self.inner;
        Ok((sharing, Held { share, inner }))
    }
}

/// What is added to each piece and to its salt, in their order. The values' XOR is zero; salts add up to nothing that counts,
/// and are changed so that who lacks a piece goes on lacking its salt.
fn masks(source: &Source, holders: u8) -> Vec<Piece> {
    let mut masks: Vec<Piece> = (1..=holders).map(|number| source.piece(number)).collect();
    if let Some((last, others)) = masks.split_last_mut() {
        last.value.zeroize();
        for other in others {
            for (sum, by) in last.value.iter_mut().zip(other.value) {
                *sum ^= by;
            }
        }
    }
    masks
}

fn echo(committed: &BTreeMap<u8, Commitment>) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(b"conclave refresh echo 1");
    for (from, commitment) in committed {
        hash.update([*from]);
        hash.update(commitment.session);
        hash.update(commitment.drawn);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
