//! A symmetric key that moves to other holders, in a renewal: the messages of [`conclave_garbled::reshare`], carried as those of
//! key pairs are, what goes from node to node sealed in letters. Those that hold the key only deal, unless they are to hold it
//! again; a member that is to hold nothing carries on with empty messages, and sees for itself what the holders agree on.
//!
//! Between the last message and the signature the new holders compute the check value. A holder has an outcome only if it has
//! decoded that value itself, or, as the evaluator, heard it from both garblers, and if it is the one on record.

use std::collections::BTreeMap;

use conclave_garbled::agreement::Pieces;
use conclave_garbled::circuits::CHECK_BYTES;
use conclave_garbled::held::Held;
use conclave_garbled::reshare::{Agreed, Combined, Dealt, Session};
use conclave_garbled::session::Kept;
use conclave_garbled::sharing::{EvaluatorParts, GarblerParts, Trio};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::refreshing::{Outcome, Said, Secrets, decode, encode, secret};
use super::sealed::Letter;
use crate::keystore::record::number_of;

/// One key, as one node sees it.
pub struct Resharing {
    session: Session,
    /// Who holds it in the epoch that ends, in the order of their numbers.
    before: Vec<u64>,
    node: u64,
    stage: Stage,
}

enum Stage {
    /// With this node's part of the epoch that ends, if it deals.
    Begun(Option<Box<Held>>),
    /// With what this node has for itself, if it deals and is to hold the key again.
    Dealt(Option<Dealt>),
    Combined(Box<Combined>),
    Agreed(Box<Computing>),
    /// Is to hold no part, and has dealt if it was to.
    Beside,
    Over,
}

/// A new holder that computes the check value.
struct Computing {
    agreed: Agreed,
    /// What this node has garbled and is to decode.
    kept: Option<Kept>,
    /// What it has decoded, or heard.
    check: Option<[u8; CHECK_BYTES]>,
}

impl Resharing {
    /// Begins at `node`, with its part of the epoch that ends if it deals.
    pub(crate) fn begin(
        session: Session,
        before: &[u64],
        (node, held): (u64, Option<Held>),
    ) -> Result<Self, String> {
        let deals = number_of(before, node).is_some_and(|number| session.dealers.contains(&number));
        if deals != held.is_some() {
            return Err("a part of another holder".into());
        }
        Ok(Self {
            session,
            before: before.to_vec(),
            node,
            stage: Stage::Begun(held.map(Box::new)),
        })
    }

    /// The nodes that this one writes to or hears from; none where it neither deals nor is to hold the key.
    pub(crate) fn correspondents(&self) -> Vec<u64> {
        let (dealers, holds) = (self.dealers(), self.holds());
        let deals = dealers.contains(&self.node);
        let receivers = self.session.holders.iter().copied().filter(|_| deals);
        let nodes = receivers.chain(dealers.into_iter().filter(|_| holds));
        nodes.filter(|node| *node != self.node).collect()
    }

    /// What this node deals, in a letter for each other new holder; nothing if it does not.
    pub(crate) fn deal(&mut self, secrets: &Secrets) -> Result<Vec<u8>, String> {
        let Stage::Begun(held) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(misplaced());
        };
        let (mut own, mut letters) = (None, BTreeMap::new());
        if let (Some(held), Some(me)) = (held, number_of(&self.before, self.node)) {
            let dealt = self.session.deal(me, &held).map_err(|fault| fault.to_string())?;
            for ((_, dealt), to) in dealt.into_iter().zip(&self.session.holders) {
                if *to == self.node {
                    own = Some(dealt);
                    continue;
                }
                let text = Zeroizing::new(encode(&dealt));
                let sealed = self.letter(self.node, *to).seal(secret(secrets, *to)?, &text);
                letters.insert(*to, sealed.ok_or("a letter that cannot be sealed")?);
            }
        }
        self.stage = match self.holds() {
            true => Stage::Dealt(own),
            false => Stage::Beside,
        };
        Ok(match letters.is_empty() {
            true => Vec::new(),
            false => encode(&letters),
        })
    }

    /// Takes everybody's letters; commitments to this node's new pieces, nothing if it is to have none.
    pub(crate) fn combine(&mut self, said: &Said<'_>, secrets: &Secrets) -> Result<Vec<u8>, String> {
        let mut own = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Beside => {
                self.stage = Stage::Beside;
                return Ok(Vec::new());
            }
            Stage::Dealt(own) => own,
            _ => return Err(misplaced()),
        };
        let me = number_of(&self.session.holders, self.node).ok_or("a holder that is none")?;
        let mut dealt: BTreeMap<u8, Dealt> = BTreeMap::new();
        for number in &self.session.dealers {
            let from = self.dealer(*number)?;
            if from == self.node {
                dealt.insert(*number, own.take().ok_or_else(misplaced)?);
                continue;
            }
            let letters: BTreeMap<u64, Vec<u8>> = read(said, from)?;
            let sealed = letters.get(&self.node).ok_or("no letter for this node")?;
            let text = self.letter(from, self.node).open(secret(secrets, from)?, sealed);
            let text = text.ok_or_else(|| format!("node {from} wrote a letter that does not open"))?;
            dealt.insert(*number, decode(from, &text)?);
        }
        let combined = self.session.combine(me, &dealt);
        let (combined, pieces) = combined.map_err(|fault| {
            let holders = &self.before;
            format!("{fault}; the holders of the epoch that ends are nodes {holders:?}")
        })?;
        self.stage = Stage::Combined(Box::new(combined));
        Ok(encode(&pieces))
    }

    /// Takes the new holders' commitments to pieces, which must be the same.
    pub(crate) fn agree(&mut self, said: &Said<'_>) -> Result<(), String> {
        let Stage::Combined(combined) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(misplaced());
        };
        let agreed = combined
            .agree(&self.pieces(said)?)
            .map_err(|fault| fault.to_string())?;
        self.stage = Stage::Agreed(Box::new(Computing {
            agreed,
            kept: None,
            check: None,
        }));
        Ok(())
    }

    /// This node's parts of the key as a garbler, before its correction.
    pub(crate) fn as_garbler(&self, trio: Trio) -> Option<GarblerParts> {
        self.computing()?.agreed.held().share.as_garbler(trio).ok()
    }

    /// The same as the evaluator.
    pub(crate) fn as_evaluator(&self, trio: Trio) -> Option<EvaluatorParts> {
        self.computing()?.agreed.held().share.as_evaluator(trio).ok()
    }

    /// What a computation is bound to: the session, and the pieces that all agree on.
    pub(crate) fn digests(&self) -> Option<[[u8; 32]; 2]> {
        Some([self.session.digest(), self.computing()?.agreed.sharing().digest])
    }

    /// Keeps what this node has garbled until it is to decode it.
    pub(crate) fn keep(&mut self, kept: Kept) {
        if let Stage::Agreed(computing) = &mut self.stage {
            computing.kept = Some(kept);
        }
    }

    /// What the active labels of this node's garbling stand for.
    pub(crate) fn decode(&mut self, labels: &[u8]) -> Result<[u8; CHECK_BYTES], String> {
        let Stage::Agreed(computing) = &mut self.stage else {
            return Err(misplaced());
        };
        let kept = computing
            .kept
            .take()
            .ok_or("labels of nothing that was garbled")?;
        let decoded = kept.decode(labels).map_err(|abort| abort.to_string())?;
        let check = decoded[..]
            .try_into()
            .map_err(|_| "another length than a check value has")?;
        self.learn(check)?;
        Ok(check)
    }

    /// Takes what this node has decoded, or as the evaluator heard from both garblers; the same again is nothing new.
    pub(crate) fn learn(&mut self, check: [u8; CHECK_BYTES]) -> Result<(), String> {
        let Stage::Agreed(computing) = &mut self.stage else {
            return Err(misplaced());
        };
        match computing.check.replace(check) {
            Some(before) if before != check => Err("another check value than before".into()),
            _ => Ok(()),
        }
    }

    /// What came of it: this node's part, or what it has seen the others agree on.
    pub(crate) fn conclude(self, said: &Said<'_>) -> Result<Outcome, String> {
        let dealers = self.dealers();
        match self.stage {
            Stage::Agreed(computing) => {
                let Computing { agreed, check, .. } = *computing;
                let check = check.ok_or("this holder has not seen the check value itself")?;
                let concluded = agreed.conclude(&check);
                let (agreed, held) = concluded
                    .map_err(|fault| format!("{fault}: one of nodes {dealers:?} has dealt another key"))?;
                Ok(Outcome {
                    agreed,
                    held: Some(held),
                })
            }
            Stage::Beside => {
                let agreed = self.session.witness(&self.pieces(said)?);
                let agreed = agreed.map_err(|fault| fault.to_string())?;
                Ok(Outcome { agreed, held: None })
            }
            _ => Err(misplaced()),
        }
    }

    /// Who will hold the key.
    pub(crate) fn holders(&self) -> &[u64] {
        &self.session.holders
    }

    fn holds(&self) -> bool {
        number_of(&self.session.holders, self.node).is_some()
    }

    fn computing(&self) -> Option<&Computing> {
        match &self.stage {
            Stage::Agreed(computing) => Some(computing),
            _ => None,
        }
    }

    /// What the new holders said of their pieces, by their numbers.
    fn pieces(&self, said: &Said<'_>) -> Result<BTreeMap<u8, Pieces>, String> {
        let holders = (1..).zip(&self.session.holders);
        holders
            .map(|(number, node)| Ok((number, read(said, *node)?)))
            .collect()
    }

    /// The nodes that deal.
    fn dealers(&self) -> Vec<u64> {
        let dealers = self.session.dealers.iter();
        dealers.filter_map(|number| self.dealer(*number).ok()).collect()
    }

    fn dealer(&self, number: u8) -> Result<u64, String> {
        let at = usize::from(number).checked_sub(1);
        let node = at.and_then(|at| self.before.get(at));
        Ok(*node.ok_or("a dealer that is none")?)
    }

    /// What a dealer writes follows from the session and its pieces: a letter that is written twice has the same bytes.
    pub(crate) fn letter(&self, from: u64, to: u64) -> Letter {
        Letter {
            ceremony: self.session.id,
            committed: self.session.digest(),
            from,
            to,
        }
    }
}

fn read<T: DeserializeOwned>(said: &Said<'_>, node: u64) -> Result<T, String> {
    let bytes = said
        .get(&node)
        .ok_or_else(|| format!("node {node} said nothing"))?;
    decode(node, bytes)
}

fn misplaced() -> String {
    "a round that does not follow".into()
}
