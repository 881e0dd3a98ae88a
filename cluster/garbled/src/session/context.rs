//! What an operation's secrets are derived from: nothing less than everything that tells it from every other one.

use std::sync::Arc;

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use hkdf::Hkdf;
use polyval::Polyval;
use polyval::universal_hash::UniversalHash;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::Misuse;
use crate::burned::Ticket;
use crate::garble::Garbler;
use crate::hash::{Batch, LabelHash, Tweaks, WIDTH};
use crate::label::{BYTES, Delta, Label, Labels};
use crate::program::{Program, bits};
use crate::sharing::GarblerParts;

/// A secret that two nodes share for as long as both run.
pub type PairSecret = Zeroizing<[u8; 32]>;

/// Everything that an operation's secrets depend on. All three nodes make it for themselves, from the client's request
/// and their own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The cluster.
    pub cluster: [u8; 32],
    /// The nodes in their roles: first garbler, second garbler, evaluator.
    pub roles: [u64; 3],
    /// Holders that take no part, ascending.
    pub absent: Vec<u64>,
    /// The evaluator's boot nonce, as the garbler's own session with it has it.
    pub boot: [u8; 16],
    /// The evaluator's number of this garbling, which both garblers burn.
    pub number: u64,
    /// The operation.
    pub operation: [u8; 24],
    /// Its attempt.
    pub attempt: u8,
    /// The key.
    pub key: Vec<u8>,
    /// Its type.
    pub key_type: u8,
    /// Digest of the sharing that the pieces belong to.
    pub sharing: [u8; 32],
    /// SHA-256 of the client's signed request.
    pub request: [u8; 32],
}

/// What is computed.
#[derive(Clone)]
pub struct Task {
    /// The program.
    pub program: Arc<Program>,
    /// [`Program::id`] of it.
    pub id: [u8; 32],
    /// Its public inputs.
    pub public: Zeroizing<Vec<u8>>,
    /// Bits of output that the evaluator decodes, from the first on; the rest is for the garblers alone.
    pub opened: usize,
}

impl Task {
    /// A program on public inputs; the last `kept` bits of output are for the garblers.
    ///
    /// An output that the evaluator decodes is its word and nobody else's: what the garblers are to rely on (a check value,
    /// the state of an HMAC key at its birth) must be among those that they decode themselves.
    pub fn new(program: Arc<Program>, id: [u8; 32], public: Vec<u8>, kept: usize) -> Self {
        Self {
            opened: program.outputs.len().saturating_sub(kept),
            program,
            id,
            public: Zeroizing::new(public),
        }
    }
}

impl Context {
    /// Whether what was burned is this garbling, and the inputs are as long as the program's.
    pub(super) fn check(&self, task: &Task, ticket: &Ticket, parts: &GarblerParts) -> Result<(), Misuse> {
        let program = &task.program;
        let burned =
            (ticket.evaluator, ticket.boot, ticket.number) == (self.roles[2], self.boot, self.number);
        let secret = [&parts.common, &parts.own].map(|part| 8 * part.len()) == [program.secret; 2];
        let public = 8 * task.public.len() == program.public;
        (burned && secret && public).then_some(()).ok_or(Misuse)
    }

    /// A hash of all of it and of the task, each part with its length.
    fn digest(&self, task: &Task) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(b"conclave gc 1");
        part(&self.cluster);
        for nodes in [&self.roles[..], &self.absent] {
            part(
                &nodes
                    .iter()
                    .flat_map(|node| node.to_be_bytes())
                    .collect::<Vec<u8>>(),
            );
        }
        part(&self.boot);
        part(&self.number.to_be_bytes());
        part(&self.operation);
        part(&[self.attempt, self.key_type]);
        part(&self.key);
        part(&self.sharing);
        part(&task.id);
        part(&task.public);
        part(&(task.opened as u64).to_be_bytes());
        part(&self.request);
        hash.finalize().into()
    }

    /// The secrets that the owners of `secret` share about this operation.
    pub(super) fn derive(&self, task: &Task, secret: &PairSecret) -> Derived {
        let mut key = Zeroizing::new([0; 32]);
        expand(&Hkdf::new(None, &secret[..]), &self.digest(task), &mut key[..]);
        Derived(key)
    }
}

/// Keys of one pair of nodes for one operation: nothing is kept from which another operation's could be made.
pub(super) struct Derived(Zeroizing<[u8; 32]>);

fn expand(from: &Hkdf<Sha256>, info: &[u8], to: &mut [u8]) {
    from.expand(info, to)
        .expect("no more than 255 blocks are asked for");
}

impl Derived {
    fn key<const N: usize>(&self, purpose: &[u8]) -> Zeroizing<[u8; N]> {
        let mut key = Zeroizing::new([0; N]);
        let from = Hkdf::from_prk(&self.0[..]).expect("as long as a hash");
        expand(&from, purpose, &mut key[..]);
        key
    }

    /// The garbling of a program with so many secret inputs: the garblers' only.
    pub(super) fn garbling(&self, inputs: usize) -> Garbling {
        let random = Random::new(&self.key(b"labels"));
        Garbling {
            delta: Delta::new(random.label(0)),
            hash: Label::from_le_bytes(*self.key(b"hash")),
            first: random.labels(1, inputs),
            second: random.labels(2, inputs),
        }
    }

    /// Covers or uncovers labels on their way between the two, beside TLS. Commitments pin what they are.
    pub(super) fn cover(&self, labels: &mut [Label]) {
        let random = Random::new(&self.key(b"cover"));
        let covers = random.labels(1, labels.len());
        for (label, cover) in labels.iter_mut().zip(covers.iter()) {
            *label ^= cover;
        }
    }

    /// A MAC under a key that is used for this operation only.
    pub(super) fn mac(&self) -> Mac {
        let key: Zeroizing<[u8; BYTES]> = self.key(b"mac");
        Mac {
            hash: Polyval::new(&(*key).into()),
            cover: self.key(b"mac cover"),
            part: Vec::new(),
            length: 0,
        }
    }
}

/// Labels from a key: AES-128 in counter mode.
struct Random(Aes128);

impl Random {
    fn new(key: &Zeroizing<[u8; BYTES]>) -> Self {
        Self(Aes128::new(&(**key).into()))
    }

    fn label(&self, stream: u32) -> Label {
        self.labels(stream, 1)[0]
    }

    fn labels(&self, stream: u32, count: usize) -> Labels {
        let counters = (0..count as Label).map(|at| Label::from(stream) << 64 | at);
        let mut blocks: Vec<aes::Block> = counters.map(|at| at.to_le_bytes().into()).collect();
        self.0.encrypt_blocks(&mut blocks);
        let labels = blocks
            .iter()
            .map(|block| Label::from_le_bytes((*block).into()))
            .collect();
        blocks.iter_mut().for_each(|block| block.as_mut_slice().zeroize());
        Zeroizing::new(labels)
    }
}

/// What both garblers derive.
pub(super) struct Garbling {
    pub(super) delta: Delta,
    /// The key of the label hash, which the evaluator gets.
    pub(super) hash: Label,
    /// Halves of the zero-labels that the first garbler opens.
    pub(super) first: Labels,
    /// Those of the second.
    pub(super) second: Labels,
}

impl Garbling {
    /// The program, ready to be garbled.
    pub(super) fn garbler(self, task: &Task, parts: &GarblerParts) -> Garbler {
        let halves = self.first.iter().zip(self.second.iter()).zip(bits(&parts.common));
        let zero: Labels = Zeroizing::new(
            halves
                .map(|((first, second), bit)| first ^ second ^ self.delta.times(bit))
                .collect(),
        );
        let hash = (self.delta, self.hash);
        Garbler::new(task.program.clone(), hash, &zero, bits(&task.public))
    }

    /// `halves` at the values that their owner knows.
    pub(super) fn open(&self, halves: &[Label], known: &[u8]) -> Labels {
        let opened = halves
            .iter()
            .zip(bits(known))
            .map(|(half, bit)| half ^ self.delta.times(bit));
        Zeroizing::new(opened.collect())
    }

    /// Commitments to both values of each half: of the first garbler's, then of the second's.
    pub(super) fn commitments(&self) -> Vec<Label> {
        let halves = self.first.iter().chain(self.second.iter());
        let both: Labels = Zeroizing::new(
            halves
                .flat_map(|half| [*half, half ^ self.delta.label()])
                .collect(),
        );
        commit(self.hash, &both, |at| at as u64)
    }
}

/// Commitments to labels, each under the tweak of its place: twice the number of its half, plus its value.
pub(super) fn commit(hash: Label, labels: &[Label], place: impl Fn(usize) -> u64) -> Vec<Label> {
    let key = LabelHash::new(LabelHash::new(hash).one(0, u64::MAX));
    let mut batch = Batch::new();
    let mut commitments = Vec::with_capacity(labels.len());
    for (chunk, start) in labels.chunks(WIDTH).zip((0..).step_by(WIDTH)) {
        for (at, label) in chunk.iter().enumerate() {
            batch.put_label(at, *label);
        }
        key.hash(
            &mut batch,
            chunk.len(),
            &Tweaks::of_places(|at| place(start + at)),
        );
        commitments.extend((0..chunk.len()).map(|at| batch.label(at)));
    }
    commitments
}

/// POLYVAL (RFC 8452) of what was sent, covered by a key stream: a one-time MAC.
pub(super) struct Mac {
    hash: Polyval,
    cover: Zeroizing<[u8; BYTES]>,
    /// What does not fill a block yet.
    part: Vec<u8>,
    length: u128,
}

impl Mac {
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u128;
        if !self.part.is_empty() {
            let missing = (BYTES - self.part.len()).min(bytes.len());
            self.part.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if self.part.len() < BYTES {
                return;
            }
            self.hash.update_padded(&self.part);
            self.part.clear();
        }
        let whole = bytes.len() / BYTES * BYTES;
        self.hash.update_padded(&bytes[..whole]);
        self.part.extend_from_slice(&bytes[whole..]);
    }

    pub(super) fn finish(mut self) -> Label {
        self.hash.update_padded(&self.part);
        self.hash.update_padded(&self.length.to_le_bytes());
        let hashed: [u8; BYTES] = self.hash.finalize().into();
        Label::from_le_bytes(hashed) ^ Label::from_le_bytes(*self.cover)
    }
}

#[cfg(test)]
mod reuse_tests;
