//! The real ceremonies in seeded worlds: generations run side by side, message by message in any order, while nodes crash
//! and come back with their disks. Checked after every event: a key that was acknowledged has a share, or an envelope at
//! each of its participants, for every member; a pair of nonces is used once; every signature verifies.
//! `SEEDS=2000 cargo test -p conclave-threshold --test worlds` for more seeds.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use conclave_threshold::dkg::Participant;
use conclave_threshold::envelope::{self, EnvelopeKey, SealedShare};
use conclave_threshold::frost::{self, CommitmentList, VerifyingContext};
use conclave_threshold::{Commitment, KeyShare, Member, Purpose, Session, SessionTerms};
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sha2::{Digest, Sha256};

type Set = BTreeMap<u16, Vec<u8>>;
/// Numbers a ceremony.
type Id = u64;

/// What a node has of a key on its disk.
struct Stored {
    share: Vec<u8>,
    /// Envelopes for members that were away.
    kept: BTreeMap<u16, Vec<SealedShare>>,
    packages: Set,
}

struct Node {
    signing: SigningKey,
    opening: EnvelopeKey,
    up: bool,
    disk: BTreeMap<Id, Stored>,
}

/// A generation under way.
struct Generation {
    session: Arc<Session>,
    round: u8,
    running: BTreeMap<u16, Participant>,
    /// Everybody's messages of the round before, and who has answered in this one.
    set: Set,
    answered: Set,
    signed: BTreeMap<u16, ([u8; 32], Commitment)>,
}

/// A key that its client was told of.
struct Acknowledged {
    session: Arc<Session>,
    commitment: Commitment,
}

#[derive(Clone, Copy, PartialEq)]
enum Bug {
    /// The transcript is signed and the share written later, or never.
    SignsBeforeItStores,
}

struct World {
    rng: ChaCha20Rng,
    bug: Option<Bug>,
    threshold: u16,
    nodes: BTreeMap<u16, Node>,
    generations: BTreeMap<Id, Generation>,
    keys: BTreeMap<Id, Acknowledged>,
    /// Shares that a planted bug writes when the node is next at rest.
    late: Vec<(u16, Id, Stored)>,
    nonces: HashSet<[u8; 64]>,
    next: Id,
    trace: Sha256,
    signatures: u64,
    crashes: u64,
}

impl World {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let members = rng.gen_range(3..=5_u16);
        let nodes = (1..=members).map(|index| {
            let node = Node {
                signing: SigningKey::generate(&mut rng),
                opening: EnvelopeKey::generate(&mut rng),
                up: true,
                disk: BTreeMap::new(),
            };
            (index, node)
        });
        Self {
            nodes: nodes.collect(),
            rng,
            bug,
            threshold: members / 2 + 1,
            generations: BTreeMap::new(),
            keys: BTreeMap::new(),
            late: Vec::new(),
            nonces: HashSet::new(),
            next: 1,
            trace: Sha256::new(),
            signatures: 0,
            crashes: 0,
        }
    }

    /// Everything that happens, then everybody comes back.
    fn run(&mut self) -> Result<(), String> {
        for _ in 0..120 {
            let event = self.rng.gen_range(0..100_u8);
            self.trace.update([event]);
            match event {
                0..=4 => self.crash(),
                5..=12 => self.restart(),
                13..=20 => self.begin(),
                21..=30 => self.use_a_key()?,
                _ => self.step()?,
            }
            self.check()?;
        }
        while self.nodes.values().any(|node| !node.up) {
            self.restart();
        }
        for index in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.fetch(index);
        }
        self.check()?;
        for id in self.keys.keys().copied().collect::<Vec<_>>() {
            let all = self.holders(id);
            if all.len() != self.nodes.len() {
                return Err(format!("key {id}: only {all:?} have a share after all"));
            }
            self.sign(id)?;
        }
        Ok(())
    }

    fn up(&self) -> BTreeSet<u16> {
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
        self.nodes.get_mut(&dead).unwrap().up = false;
        // Its memory is gone: what waited to be written, and every ceremony that it was in.
        self.late.retain(|(node, ..)| *node != dead);
        self.generations
            .retain(|_, generation| !generation.running.contains_key(&dead));
        self.crashes += 1;
    }

    fn restart(&mut self) {
        let down = self.nodes.iter().filter(|(_, node)| !node.up);
        let down: Vec<u16> = down.map(|(index, _)| *index).collect();
        if let Some(back) = down.into_iter().choose(&mut self.rng) {
            self.nodes.get_mut(&back).unwrap().up = true;
            self.fetch(back);
        }
    }

    /// A node opens the envelopes that others keep for it; from then on they may be forgotten.
    fn fetch(&mut self, index: u16) {
        for (id, key) in &self.keys {
            if self.nodes[&index].disk.contains_key(id) {
                continue;
            }
            let keepers = self.nodes.values().filter(|node| node.up);
            let kept = keepers.filter_map(|node| {
                let stored = node.disk.get(id)?;
                Some((stored.kept.get(&index)?, &stored.packages))
            });
            let Some((envelopes, packages)) = kept.choose(&mut self.rng) else {
                continue;
            };
            let opening = &self.nodes[&index].opening;
            let share = envelope::open(&key.session, index, opening, &key.commitment, packages, envelopes);
            let stored = Stored {
                share: share.unwrap().to_sealed_bytes().to_vec(),
                kept: BTreeMap::new(),
                packages: Set::new(),
            };
            self.nodes.get_mut(&index).unwrap().disk.insert(*id, stored);
            for node in self.nodes.values_mut() {
                if let Some(stored) = node.disk.get_mut(id) {
                    stored.kept.remove(&index);
                }
            }
        }
    }

    fn begin(&mut self) {
        let participants = self.up();
        let members = self.nodes.iter().map(|(index, node)| Member {
            index: *index,
            verifying_key: node.signing.verifying_key().to_bytes(),
            envelope_key: node.opening.public(),
        });
        let mut ceremony = [0; 32];
        ceremony[..8].copy_from_slice(&self.next.to_be_bytes());
        let terms = SessionTerms {
            cluster: [1; 32],
            ceremony,
            key: self.next.to_be_bytes().to_vec(),
            key_type: "Ed25519VerificationKey2020".into(),
            purpose: Purpose::Sign,
            epoch: 0,
            threshold: self.threshold,
            members: members.collect(),
            participants: participants.clone(),
            leaving: Vec::new(),
            constants: BTreeMap::new(),
        };
        let session = Arc::new(Session::new(terms).unwrap());
        let (mut running, mut set) = (BTreeMap::new(), Set::new());
        for index in participants {
            let signing = &self.nodes[&index].signing;
            let (participant, hash) =
                Participant::begin(session.clone(), index, signing, &mut self.rng).unwrap();
            running.insert(index, participant);
            set.insert(index, hash);
        }
        let generation = Generation {
            session,
            round: 0,
            running,
            set,
            answered: Set::new(),
            signed: BTreeMap::new(),
        };
        self.generations.insert(self.next, generation);
        self.next += 1;
    }

    /// One participant of one generation gets the messages of the round before.
    fn step(&mut self) -> Result<(), String> {
        for (node, id, stored) in self.late.drain(..) {
            self.nodes.get_mut(&node).unwrap().disk.insert(id, stored);
        }
        let Some(id) = self.generations.keys().copied().choose(&mut self.rng) else {
            return Ok(());
        };
        let generation = self.generations.get_mut(&id).unwrap();
        let done =
            |index: &&u16| generation.answered.contains_key(index) || generation.signed.contains_key(index);
        let waiting = generation.running.keys().filter(|index| !done(index));
        let Some(index) = waiting.copied().choose(&mut self.rng) else {
            return Ok(());
        };
        self.trace.update(id.to_be_bytes());
        self.trace.update(index.to_be_bytes());
        if generation.round < 2 {
            let participant = generation.running.get_mut(&index).unwrap();
            let message = match generation.round {
                0 => participant.packages(&generation.set),
                _ => participant.deal(&generation.set, &mut self.rng),
            };
            generation
                .answered
                .insert(index, message.map_err(|fault| fault.to_string())?);
            if generation.answered.len() == generation.running.len() {
                generation.set = std::mem::take(&mut generation.answered);
                generation.round += 1;
            }
            return Ok(());
        }
        // The share on disk, then the signature: `running` keeps the place, so that a crash still ends the ceremony.
        let signing = &self.nodes[&index].signing;
        let placeholder = Participant::begin(generation.session.clone(), index, signing, &mut self.rng)
            .unwrap()
            .0;
        let participant = generation.running.insert(index, placeholder).unwrap();
        let outcome = participant.finish(&generation.set, &self.nodes[&index].opening);
        let outcome = outcome.map_err(|fault| fault.to_string())?;
        let stored = Stored {
            share: outcome.share.to_sealed_bytes().to_vec(),
            kept: outcome.envelopes,
            packages: outcome.packages,
        };
        match self.bug {
            Some(Bug::SignsBeforeItStores) => self.late.push((index, id, stored)),
            None => drop(self.nodes.get_mut(&index).unwrap().disk.insert(id, stored)),
        }
        generation
            .signed
            .insert(index, (outcome.transcript, outcome.commitment));
        if generation.signed.len() == generation.running.len() {
            let generation = self.generations.remove(&id).unwrap();
            let mut signed = generation.signed.into_values();
            let (transcript, commitment) = signed.next().unwrap();
            if signed.any(|(other, _)| other != transcript) {
                return Err(format!("key {id}: honest participants signed different outcomes"));
            }
            let session = generation.session;
            self.keys.insert(id, Acknowledged { session, commitment });
        }
        Ok(())
    }

    fn holders(&self, id: Id) -> BTreeSet<u16> {
        let holds = |(_, node): &(&u16, &Node)| node.up && node.disk.contains_key(&id);
        self.nodes.iter().filter(holds).map(|(index, _)| *index).collect()
    }

    fn use_a_key(&mut self) -> Result<(), String> {
        let Some(id) = self.keys.keys().copied().choose(&mut self.rng) else {
            return Ok(());
        };
        if self.holders(id).len() < usize::from(self.threshold) {
            // A member that is back has its share only when a keeper is there.
            for index in self.up() {
                self.fetch(index);
            }
        }
        match self.holders(id).len() >= usize::from(self.threshold) {
            true => self.sign(id),
            false => Err(format!("key {id} cannot be used by the majority that is up")),
        }
    }

    /// Any k holders sign, and the signature is what everybody accepts.
    fn sign(&mut self, id: Id) -> Result<(), String> {
        let signers = self
            .holders(id)
            .into_iter()
            .choose_multiple(&mut self.rng, self.threshold.into());
        let commitment = self.keys[&id].commitment.clone();
        let context = VerifyingContext::new(&commitment).unwrap();
        let message: [u8; 32] = self.rng.r#gen();
        let mut list = CommitmentList::new();
        let mut drawn = Vec::new();
        for index in signers {
            let share = KeyShare::from_bytes(&self.nodes[&index].disk[&id].share).unwrap();
            if !commitment.holds(&share) {
                return Err(format!("key {id}: node {index} holds another share"));
            }
            let frame = Sha256::digest(message).into();
            let (nonces, public) = frost::commit(&share, &frame, &mut self.rng).unwrap();
            let pair = [public.hiding, public.binding].concat().try_into().unwrap();
            if !self.nonces.insert(pair) {
                return Err("a pair of nonces is used twice".into());
            }
            list.insert(index, public);
            drawn.push((share, nonces));
        }
        let mut shares = BTreeMap::new();
        for (share, nonces) in drawn {
            let signed = frost::sign(nonces, &share, &context, &message, &list).unwrap();
            shares.insert(share.index(), signed);
        }
        let signature =
            frost::aggregate(&context, &message, &list, &shares).map_err(|culprits| culprits.to_string())?;
        let key = VerifyingKey::from_bytes(&commitment.public_key()).unwrap();
        let verified = key.verify_strict(&message, &Signature::from_bytes(&signature));
        self.signatures += 1;
        verified.map_err(|_| format!("key {id}: a signature does not verify"))
    }

    /// A key is born with n shares: each member has its own on disk, or an envelope at every participant.
    fn check(&self) -> Result<(), String> {
        for (id, key) in &self.keys {
            for member in self.nodes.keys() {
                let own = self.nodes[member].disk.contains_key(id);
                let participants = &key.session.terms().participants;
                let keeps = |index: &u16| {
                    let stored = self.nodes[index].disk.get(id);
                    stored.is_some_and(|stored| stored.kept.contains_key(member))
                };
                if !own && (participants.contains(member) || !participants.iter().all(keeps)) {
                    return Err(format!(
                        "key {id} was acknowledged, and the share of {member} is nowhere"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn run(seed: u64, bug: Option<Bug>) -> Result<([u8; 32], u64, u64, u64), String> {
    let mut world = World::new(seed, bug);
    world.run().map_err(|what| format!("seed {seed}: {what}"))?;
    let keys = world.keys.len() as u64;
    Ok((
        world.trace.finalize().into(),
        keys,
        world.signatures,
        world.crashes,
    ))
}

#[test]
fn seeds_break_no_rule() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(60),
    };
    let count = seeds.end - seeds.start;
    let next = AtomicU64::new(seeds.start);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut sums = [0; 3];
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return sums;
            }
            let (_, keys, signatures, crashes) = run(seed, None).unwrap();
            sums = [sums[0] + keys, sums[1] + signatures, sums[2] + crashes];
        }
    };
    let [keys, signatures, crashes] = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let each = threads.into_iter().map(|thread| thread.join().unwrap());
        each.fold([0; 3], |sum, more| {
            [sum[0] + more[0], sum[1] + more[1], sum[2] + more[2]]
        })
    });
    println!("{count} seeds: {keys} keys, {signatures} signatures, {crashes} crashes");
    // A world in which nothing happens breaks no rule either.
    assert!(count < 50 || (keys > count && signatures > 2 * count && crashes > count));
}

#[test]
fn a_seed_replays_exactly() {
    assert_eq!(run(3, None).unwrap(), run(3, None).unwrap());
}

#[test]
fn a_signature_before_the_share_is_on_disk_is_found() {
    let found = (0..60).find_map(|seed| run(seed, Some(Bug::SignsBeforeItStores)).err());
    println!("{}", found.expect("no seed finds the planted bug"));
}
