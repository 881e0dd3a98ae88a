//! A symmetric key in a renewal: the messages of [`conclave_garbled::refresh`], each carried to everybody as those of key pairs
//! are. What goes from holder to holder is sealed in letters. A member that holds no part of the key carries on with empty
//! messages, and sees for itself what the holders have agreed on.

use std::collections::BTreeMap;

use conclave_garbled::agreement::{Pieces, Sharing as Agreed};
use conclave_garbled::held::Held;
use conclave_garbled::live::Live;
use conclave_garbled::refresh::{Combined, Commitment, Committed, Opened, Opening, Session};
use conclave_garbled::session::PairSecret;
use rand::{CryptoRng, RngCore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::sealed::Letter;
use crate::keystore::record::number_of;

/// What this node shares with the others, by node.
pub(crate) type Secrets = BTreeMap<u64, PairSecret>;
/// What everybody said in a round, by node.
pub(crate) type Said<'a> = BTreeMap<u64, &'a [u8]>;

/// One key, as one member sees it.
pub struct Refreshing {
    session: Session,
    holders: Vec<u64>,
    node: u64,
    stage: Stage,
    /// A hash of everybody's commitments, once they are here.
    committed: [u8; 32],
}

enum Stage {
    Committed(Box<Committed>),
    Opened(Box<Opened>),
    Combined(Box<Combined>),
    /// Holds no part.
    Beside,
    Over,
}

/// What comes of it: commitments to the new pieces, and this node's part.
pub(crate) struct Outcome {
    pub(crate) agreed: Agreed,
    pub(crate) held: Option<Held>,
}

impl Refreshing {
    /// Begins with this node's part, if it is a holder; its first message.
    pub(crate) fn begin(
        (id, live): ([u8; 32], Live),
        holders: &[u64],
        (node, held): (u64, Option<Held>),
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<(Self, Vec<u8>), String> {
        let session = Session { id, live, away: None };
        let (stage, message) = match (number_of(holders, node), held) {
            (Some(me), Some(held)) => {
                let begun = Committed::begin(session.clone(), me, held, rng);
                let (committed, message) = begun.map_err(|fault| fault.to_string())?;
                (Stage::Committed(Box::new(committed)), encode(&message))
            }
            (None, None) => (Stage::Beside, Vec::new()),
            _ => return Err("a part of another holder".into()),
        };
        let this = Self {
            session,
            holders: holders.to_vec(),
            node,
            stage,
            committed: [0; 32],
        };
        Ok((this, message))
    }

    /// Takes everybody's commitments; what it drew, in a letter for each other holder.
    pub(crate) fn open(&mut self, said: &Said<'_>, secrets: &Secrets) -> Result<Vec<u8>, String> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Beside => {
                self.stage = Stage::Beside;
                Ok(Vec::new())
            }
            Stage::Committed(committed) => {
                let commitments: BTreeMap<u8, Commitment> = self.by_number(said)?;
                self.committed = Sha256::digest(encode(&commitments)).into();
                let (opened, openings) = committed.open(commitments).map_err(|fault| fault.to_string())?;
                self.stage = Stage::Opened(Box::new(opened));
                let mut letters = BTreeMap::new();
                for (number, opening) in openings {
                    let to = self.holder(number)?;
                    let text = Zeroizing::new(encode(&opening));
                    let sealed = self.letter(self.node, to).seal(secret(secrets, to)?, &text);
                    letters.insert(to, sealed.ok_or("a letter that cannot be sealed")?);
                }
                Ok(encode(&letters))
            }
            _ => Err("a round that does not follow".into()),
        }
    }

    /// Takes everybody's letters; commitments to this node's new pieces.
    pub(crate) fn combine(&mut self, said: &Said<'_>, secrets: &Secrets) -> Result<Vec<u8>, String> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Beside => {
                self.stage = Stage::Beside;
                Ok(Vec::new())
            }
            Stage::Opened(opened) => {
                let letters: BTreeMap<u8, BTreeMap<u64, Vec<u8>>> = self.by_number(said)?;
                let mut openings: BTreeMap<u8, Opening> = BTreeMap::new();
                for (number, letters) in letters {
                    let from = self.holder(number)?;
                    if from == self.node {
                        continue;
                    }
                    let sealed = letters.get(&self.node).ok_or("no letter for this node")?;
                    let text = self.letter(from, self.node).open(secret(secrets, from)?, sealed);
                    let text =
                        text.ok_or_else(|| format!("node {from} wrote a letter that does not open"))?;
                    openings.insert(number, decode(from, &text)?);
                }
                let (combined, pieces) = opened.combine(&openings).map_err(|fault| fault.to_string())?;
                self.stage = Stage::Combined(Box::new(combined));
                Ok(encode(&pieces))
            }
            _ => Err("a round that does not follow".into()),
        }
    }

    /// Takes everybody's commitments to pieces, which must be the same.
    pub(crate) fn agree(self, said: &Said<'_>) -> Result<Outcome, String> {
        let pieces: BTreeMap<u8, Pieces> = self.by_number(said)?;
        let agreed = match self.stage {
            Stage::Combined(combined) => {
                let agreed = combined.agree(&pieces);
                agreed.map(|(agreed, held)| (agreed, Some(held)))
            }
            Stage::Beside => self.session.witness(&pieces).map(|agreed| (agreed, None)),
            _ => return Err("a round that does not follow".into()),
        };
        let (agreed, held) = agreed.map_err(|fault| fault.to_string())?;
        Ok(Outcome { agreed, held })
    }

    /// What the holders said, by their numbers.
    fn by_number<T: DeserializeOwned>(&self, said: &Said<'_>) -> Result<BTreeMap<u8, T>, String> {
        let holders = (1..).zip(&self.holders);
        let messages = holders.map(|(number, node)| {
            let bytes = said
                .get(node)
                .ok_or_else(|| format!("node {node} said nothing"))?;
            Ok((number, decode(*node, bytes)?))
        });
        messages.collect()
    }

    fn holder(&self, number: u8) -> Result<u64, String> {
        let at = usize::from(number).checked_sub(1);
        let node = at.and_then(|at| self.holders.get(at));
        Ok(*node.ok_or("a holder that is none")?)
    }

    fn letter(&self, from: u64, to: u64) -> Letter {
        Letter {
            ceremony: self.session.id,
            committed: self.committed,
            from,
            to,
        }
    }
}

pub(super) fn secret(secrets: &Secrets, node: u64) -> Result<&PairSecret, String> {
    secrets
        .get(&node)
        .ok_or_else(|| format!("nothing is shared with node {node}"))
}

pub(super) fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(message).unwrap_or_default()
}

pub(super) fn decode<T: DeserializeOwned>(node: u64, bytes: &[u8]) -> Result<T, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(format!("node {node} said what cannot be read")),
    }
}
