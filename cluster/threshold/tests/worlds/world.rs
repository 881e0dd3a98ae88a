//! Nodes with their disks, what was committed and who knows it, and what happens to them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use conclave_threshold::envelope::{self, EnvelopeKey, SealedShare};
use conclave_threshold::{Commitment, Session};
use ed25519_dalek::SigningKey;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sha2::{Digest, Sha256};

use crate::ceremonies::Ceremony;
use crate::signatures::{Drawn, Signing};

pub(crate) type Set = BTreeMap<u16, Vec<u8>>;
/// Numbers a key by the ceremony of its birth, a ceremony, a signature.
pub(crate) type Id = u64;

/// What a node has of a ceremony on its disk.
pub(crate) struct Stored {
    pub(crate) share: Vec<u8>,
    /// Envelopes for members that were away.
    pub(crate) kept: BTreeMap<u16, Vec<SealedShare>>,
    pub(crate) packages: Set,
}

pub(crate) struct Node {
    pub(crate) signing: SigningKey,
    pub(crate) opening: EnvelopeKey,
    pub(crate) up: bool,
    /// By ceremony: new shares lie beside the old ones.
    pub(crate) disk: BTreeMap<Id, Stored>,
    /// How much of what was committed it knows.
    pub(crate) applied: usize,
    /// Pairs of nonces that it has drawn, by signature: in memory only.
    pub(crate) drawn: BTreeMap<Id, Drawn>,
}

/// A ceremony whose outcome was committed: the key's shares are its shares from then on.
pub(crate) struct Committed {
    pub(crate) key: Id,
    pub(crate) ceremony: Id,
    pub(crate) session: Arc<Session>,
    pub(crate) commitment: Commitment,
}

/// A bug put in on purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bug {
    /// The transcript is signed and the share written later, or never.
    SignsBeforeItStores,
    /// A holder takes the shares that it knows of, whichever the coordinator named.
    UncheckedEpochs,
    /// A pair of nonces is not taken when it answers, but kept for the next question.
    KeepsNonces,
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) keys: u64,
    pub(crate) renewed: u64,
    /// Renewals that came after another one of the same shares.
    pub(crate) overtaken: u64,
    pub(crate) signatures: u64,
    /// Signers that knew other shares than the coordinator.
    pub(crate) abstained: u64,
    /// Questions to signers that had answered.
    pub(crate) asked_again: u64,
    pub(crate) crashes: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        self.keys += other.keys;
        self.renewed += other.renewed;
        self.overtaken += other.overtaken;
        self.signatures += other.signatures;
        self.abstained += other.abstained;
        self.asked_again += other.asked_again;
        self.crashes += other.crashes;
    }
}

/// Events of a world before everybody comes back.
const EVENTS: usize = 260;
/// Ceremonies, or signatures, that are under way at once.
const AT_ONCE: usize = 4;

pub(crate) struct World {
    pub(crate) rng: ChaCha20Rng,
    pub(crate) bug: Option<Bug>,
    pub(crate) threshold: u16,
    pub(crate) nodes: BTreeMap<u16, Node>,
    pub(crate) ceremonies: BTreeMap<Id, Ceremony>,
    pub(crate) signings: BTreeMap<Id, Signing>,
    /// What was committed, in order.
    pub(crate) log: Vec<Committed>,
    /// Shares that a planted bug writes when the node is next at rest.
    pub(crate) late: Vec<(u16, Id, Stored)>,
    /// Pairs of nonces that a signature share was made with.
    pub(crate) used: HashSet<[u8; 64]>,
    pub(crate) next: Id,
    pub(crate) counts: Counts,
    events: Sha256,
}

impl World {
    pub(crate) fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let members = rng.gen_range(3..=5_u16);
        let nodes = (1..=members).map(|index| {
            let node = Node {
                signing: SigningKey::generate(&mut rng),
                opening: EnvelopeKey::generate(&mut rng),
                up: true,
                disk: BTreeMap::new(),
                applied: 0,
                drawn: BTreeMap::new(),
            };
            (index, node)
        });
        Self {
            nodes: nodes.collect(),
            rng,
            bug,
            threshold: members / 2 + 1,
            ceremonies: BTreeMap::new(),
            signings: BTreeMap::new(),
            log: Vec::new(),
            late: Vec::new(),
            used: HashSet::new(),
            next: 1,
            counts: Counts::default(),
            events: Sha256::new(),
        }
    }

    /// Hash of everything that happened.
    pub(crate) fn trace(self) -> [u8; 32] {
        self.events.finalize().into()
    }

    pub(crate) fn note(&mut self, what: &[u8]) {
        self.events.update(what);
    }

    /// Everything that happens, then everybody comes back.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        for _ in 0..EVENTS {
            let event = self.rng.gen_range(0..100_u8);
            self.note(&[event]);
            match event {
                0..=1 => self.crash(),
                2..=7 => self.restart(),
                8..=10 if self.ceremonies.len() < AT_ONCE => self.generate(),
                11..=18 if self.ceremonies.len() < AT_ONCE => self.renew(),
                19..=22 => self.learn(),
                23..=25 => self.destroy_old_shares(),
                26..=33 if self.signings.len() < AT_ONCE => self.begin_to_sign(),
                34..=55 => self.sign_on()?,
                _ => self.step()?,
            }
            self.check()?;
        }
        self.end()
    }

    fn end(&mut self) -> Result<(), String> {
        while self.nodes.values().any(|node| !node.up) {
            self.restart();
        }
        let all: Vec<u16> = self.nodes.keys().copied().collect();
        for index in &all {
            self.catch_up(*index, self.log.len());
        }
        self.check()?;
        let keys: BTreeSet<Id> = self.log.iter().map(|committed| committed.key).collect();
        for key in keys {
            let live = self.live(key).unwrap();
            let holds = |index: &&u16| self.nodes[index].disk.contains_key(&live);
            let holders: Vec<u16> = all.iter().filter(holds).copied().collect();
            if holders.len() != all.len() {
                return Err(format!("key {key}: only {holders:?} have a share after all"));
            }
            self.sign_at_once(key)?;
        }
        Ok(())
    }

    pub(crate) fn up(&self) -> BTreeSet<u16> {
        let up = self.nodes.iter().filter(|(_, node)| node.up);
        up.map(|(index, _)| *index).collect()
    }

    fn crash(&mut self) {
        // A minority may be down at once.
        let up = self.up();
        if up.len() <= usize::from(self.threshold) {
            return;
        }
        let dead = *up.iter().choose(&mut self.rng).unwrap();
        let node = self.nodes.get_mut(&dead).unwrap();
        node.up = false;
        // Its memory is gone: nonces, what waited to be written, and every ceremony that it was in.
        node.drawn.clear();
        self.late.retain(|(node, ..)| *node != dead);
        self.ceremonies
            .retain(|_, ceremony| !ceremony.running.contains_key(&dead));
        self.counts.crashes += 1;
    }

    fn restart(&mut self) {
        let down = self.nodes.iter().filter(|(_, node)| !node.up);
        let down: Vec<u16> = down.map(|(index, _)| *index).collect();
        if let Some(back) = down.into_iter().choose(&mut self.rng) {
            self.nodes.get_mut(&back).unwrap().up = true;
            self.fetch(back);
        }
    }

    /// A node knows at least as much as another one: it waits for what the other has applied.
    pub(crate) fn catch_up(&mut self, index: u16, applied: usize) {
        let node = self.nodes.get_mut(&index).unwrap();
        node.applied = node.applied.max(applied);
        self.fetch(index);
    }

    /// A node learns more of what was committed.
    fn learn(&mut self) {
        let up = self.up();
        let index = up.into_iter().choose(&mut self.rng).unwrap();
        let known = self.nodes[&index].applied;
        let more = self.rng.gen_range(known..=self.log.len());
        self.catch_up(index, more);
    }

    /// A node destroys the shares of epochs that it knows to be over.
    fn destroy_old_shares(&mut self) {
        let up = self.up();
        let index = up.into_iter().choose(&mut self.rng).unwrap();
        let (log, node) = (&self.log, self.nodes.get_mut(&index).unwrap());
        let known = &log[..node.applied];
        node.disk.retain(|ceremony, _| {
            let Some(at) = known.iter().position(|committed| committed.ceremony == *ceremony) else {
                return true;
            };
            let key = known[at].key;
            known[at + 1..].iter().all(|later| later.key != key)
        });
    }

    /// The ceremony whose shares are a key's.
    pub(crate) fn live(&self, key: Id) -> Option<Id> {
        let of_key = self.log.iter().rfind(|committed| committed.key == key);
        of_key.map(|committed| committed.ceremony)
    }

    /// The same as one node knows it.
    pub(crate) fn known(&self, index: u16, key: Id) -> Option<&Committed> {
        let known = &self.log[..self.nodes[&index].applied];
        known.iter().rfind(|committed| committed.key == key)
    }

    /// A node opens the envelopes that others keep for it; from then on they may be forgotten.
    pub(crate) fn fetch(&mut self, index: u16) {
        for committed in &self.log {
            let ceremony = committed.ceremony;
            let live = self.log.iter().rfind(|other| other.key == committed.key);
            let is_live = live.is_some_and(|live| live.ceremony == ceremony);
            if !is_live || self.nodes[&index].disk.contains_key(&ceremony) {
                continue;
            }
            let keepers = self.nodes.values().filter(|node| node.up);
            let kept = keepers.filter_map(|node| {
                let stored = node.disk.get(&ceremony)?;
                Some((stored.kept.get(&index)?, &stored.packages))
            });
            let Some((envelopes, packages)) = kept.choose(&mut self.rng) else {
                continue;
            };
            let opening = &self.nodes[&index].opening;
            let (session, commitment) = (&committed.session, &committed.commitment);
            let share = envelope::open(session, index, opening, commitment, packages, envelopes);
            let stored = Stored {
                share: share.unwrap().to_sealed_bytes().to_vec(),
                kept: BTreeMap::new(),
                packages: Set::new(),
            };
            let node = self.nodes.get_mut(&index).unwrap();
            node.disk.insert(ceremony, stored);
            for node in self.nodes.values_mut() {
                if let Some(stored) = node.disk.get_mut(&ceremony) {
                    stored.kept.remove(&index);
                }
            }
        }
    }

    /// A key has n shares at any moment: each member has its own on disk, or an envelope at every dealer.
    fn check(&self) -> Result<(), String> {
        for committed in &self.log {
            let (key, ceremony) = (committed.key, committed.ceremony);
            if self.live(key) != Some(ceremony) {
                continue;
            }
            let participants = &committed.session.terms().participants;
            for member in self.nodes.keys() {
                let own = self.nodes[member].disk.contains_key(&ceremony);
                let keeps = |index: &u16| {
                    let stored = self.nodes[index].disk.get(&ceremony);
                    stored.is_some_and(|stored| stored.kept.contains_key(member))
                };
                if !own && (participants.contains(member) || !participants.iter().all(keeps)) {
                    return Err(format!(
                        "key {key} was acknowledged with the shares of ceremony {ceremony}, and the share of {member} is nowhere"
                    ));
                }
            }
        }
        Ok(())
    }
}
