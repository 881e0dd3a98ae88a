//! Generations and renewals, message by message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use conclave_threshold::dkg::Participant;
use conclave_threshold::dkg::renewal::constants;
use conclave_threshold::{Commitment, KeyShare, Member, Purpose, Session, SessionTerms};
use rand::Rng;
use rand::seq::IteratorRandom;

use crate::world::{Bug, Committed, Id, Set, Stored, World};

/// A generation, or a renewal of a key's shares, under way.
pub(crate) struct Ceremony {
    /// The key, and the ceremony whose shares are to be replaced.
    renews: Option<(Id, Id)>,
    session: Arc<Session>,
    round: u8,
    /// Everybody that takes part; none in place of one that has finished.
    pub(crate) running: BTreeMap<u16, Option<Participant>>,
    /// Everybody's messages of the round before, those of this one, and who has answered in it.
    set: Set,
    answers: Set,
    answered: BTreeSet<u16>,
    signed: BTreeMap<u16, ([u8; 32], Commitment)>,
}

impl World {
    fn terms(&self, key: Id, epoch: u64, participants: BTreeSet<u16>) -> SessionTerms {
        let members = self.nodes.iter().map(|(index, node)| Member {
            index: *index,
            verifying_key: node.signing.verifying_key().to_bytes(),
            envelope_key: node.opening.public(),
        });
        let mut ceremony = [0; 32];
        ceremony[..8].copy_from_slice(&self.next.to_be_bytes());
        SessionTerms {
            cluster: [1; 32],
            ceremony,
            key: key.to_be_bytes().to_vec(),
            key_type: "Ed25519VerificationKey2020".into(),
            purpose: Purpose::Sign,
            epoch,
            threshold: self.threshold,
            members: members.collect(),
            participants,
            leaving: Vec::new(),
            constants: BTreeMap::new(),
        }
    }

    fn begin(
        &mut self,
        renews: Option<(Id, Id)>,
        session: Arc<Session>,
        running: BTreeMap<u16, Option<Participant>>,
        set: Set,
    ) {
        let ceremony = Ceremony {
            renews,
            session,
            round: 0,
            running,
            set,
            answers: Set::new(),
            answered: BTreeSet::new(),
            signed: BTreeMap::new(),
        };
        self.ceremonies.insert(self.next, ceremony);
        self.next += 1;
    }

    pub(crate) fn generate(&mut self) {
        let participants = self.up();
        let terms = self.terms(self.next, 0, participants.clone());
        let session = Arc::new(Session::new(terms).unwrap());
        let (mut running, mut set) = (BTreeMap::new(), Set::new());
        for index in participants {
            let signing = &self.nodes[&index].signing;
            let begun = Participant::begin(session.clone(), index, signing, &mut self.rng);
            let (participant, hash) = begun.unwrap();
            running.insert(index, Some(participant));
            set.insert(index, hash);
        }
        self.begin(None, session, running, set);
    }

    /// Every member takes part; one that has lost its share, or never got it, deals nothing and gets one.
    pub(crate) fn renew(&mut self) {
        if self.up().len() < self.nodes.len() {
            return;
        }
        let keys: BTreeSet<Id> = self.log.iter().map(|committed| committed.key).collect();
        let Some(key) = keys.into_iter().choose(&mut self.rng) else {
            return;
        };
        let coordinator = self.nodes.keys().copied().choose(&mut self.rng).unwrap();
        let Some(Committed {
            ceremony: replaces,
            commitment,
            ..
        }) = self.known(coordinator, key)
        else {
            return;
        };
        let (replaces, commitment) = (*replaces, commitment.clone());
        // Members wait for what the coordinator has applied; one whose state names other shares takes no part.
        let (applied, all) = (self.nodes[&coordinator].applied, self.up());
        all.iter().for_each(|index| self.catch_up(*index, applied));
        let agrees = |index: &u16| self.known(*index, key).map(|known| known.ceremony) == Some(replaces);
        if !self.nodes.keys().all(agrees) {
            return;
        }
        let holds = |index: &&u16| self.nodes[index].disk.contains_key(&replaces);
        let dealers: BTreeSet<u16> = self.nodes.keys().filter(holds).copied().collect();
        let Some(constants) = constants(&commitment, dealers.iter().copied()) else {
            return;
        };
        let terms = SessionTerms {
            constants,
            ..self.terms(key, commitment.epoch() + 1, dealers.clone())
        };
        let session = Arc::new(Session::new(terms).unwrap());
        let (mut running, mut set) = (BTreeMap::new(), Set::new());
        for (index, node) in &self.nodes {
            if !dealers.contains(index) {
                running.insert(
                    *index,
                    Some(Participant::receive(session.clone(), *index).unwrap()),
                );
                continue;
            }
            let share = KeyShare::from_bytes(&node.disk[&replaces].share).unwrap();
            let begun = Participant::renew(session.clone(), *index, &node.signing, &share, &mut self.rng);
            let (participant, hash) = begun.unwrap();
            running.insert(*index, Some(participant));
            set.insert(*index, hash);
        }
        self.begin(Some((key, replaces)), session, running, set);
    }

    /// One member of one ceremony gets the messages of the round before.
    pub(crate) fn step(&mut self) -> Result<(), String> {
        for (node, id, stored) in self.late.drain(..) {
            self.nodes.get_mut(&node).unwrap().disk.insert(id, stored);
        }
        let Some(id) = self.ceremonies.keys().copied().choose(&mut self.rng) else {
            return Ok(());
        };
        let ceremony = self.ceremonies.get_mut(&id).unwrap();
        let waiting = ceremony
            .running
            .keys()
            .filter(|index| !ceremony.answered.contains(index) && !ceremony.signed.contains_key(index));
        let Some(index) = waiting.copied().choose(&mut self.rng) else {
            return Ok(());
        };
        let running = ceremony.running.get_mut(&index).unwrap();
        if ceremony.round == 2 {
            let participant = running.take().unwrap();
            let outcome = participant.finish(&ceremony.set, &self.nodes[&index].opening);
            let outcome = outcome.map_err(|fault| fault.to_string())?;
            let stored = Stored {
                share: outcome.share.to_sealed_bytes().to_vec(),
                kept: outcome.envelopes,
                packages: outcome.packages,
            };
            // The share on disk, then the signature.
            match self.bug {
                Some(Bug::SignsBeforeItStores) => self.late.push((index, id, stored)),
                _ => drop(self.nodes.get_mut(&index).unwrap().disk.insert(id, stored)),
            }
            let signed = (outcome.transcript, outcome.commitment);
            ceremony.signed.insert(index, signed);
            if ceremony.signed.len() == ceremony.running.len() {
                self.commit(id)?;
            }
        } else {
            let participant = running.as_mut().unwrap();
            let message = match ceremony.round {
                0 => participant.packages(&ceremony.set),
                _ => participant.deal(&ceremony.set, &mut self.rng),
            };
            let message = message.map_err(|fault| fault.to_string())?;
            ceremony.answered.insert(index);
            if !message.is_empty() {
                ceremony.answers.insert(index, message);
            }
            if ceremony.answered.len() == ceremony.running.len() {
                ceremony.set = std::mem::take(&mut ceremony.answers);
                ceremony.answered.clear();
                ceremony.round += 1;
            }
        }
        self.note(&id.to_be_bytes());
        self.note(&index.to_be_bytes());
        Ok(())
    }

    /// Everybody has signed: the entry is applied, unless other shares have taken the place of those that it replaces.
    fn commit(&mut self, id: Id) -> Result<(), String> {
        let ceremony = self.ceremonies.remove(&id).unwrap();
        let mut signed = ceremony.signed.into_values();
        let (transcript, commitment) = signed.next().unwrap();
        if signed.any(|(other, _)| other != transcript) {
            return Err(format!("ceremony {id}: honest members signed different outcomes"));
        }
        let key = match ceremony.renews {
            None => {
                self.counts.keys += 1;
                id
            }
            Some((key, replaces)) if self.live(key) == Some(replaces) => {
                let before = self.log.iter().rfind(|committed| committed.key == key);
                let before = before.map(|committed| committed.commitment.public_key());
                if before != Some(commitment.public_key()) {
                    return Err(format!("key {key}: a renewal made another key of it"));
                }
                self.counts.renewed += 1;
                key
            }
            Some(_) => {
                self.counts.overtaken += 1;
                return Ok(());
            }
        };
        self.log.push(Committed {
            key,
            ceremony: id,
            session: ceremony.session,
            commitment,
        });
        // Some hear of it at once.
        for index in self.up() {
            if self.rng.gen_bool(0.5) {
                self.catch_up(index, self.log.len());
            }
        }
        Ok(())
    }
}
