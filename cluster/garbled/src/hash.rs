//! The hash of labels: TMMO, H(x, i) = p(p(x) ^ i) ^ p(x) with p = AES-128 under a public key (Guo, Katz, Wang, Yu,
//! "Efficient and Secure Multiparty Computation from Fixed-Key Block Ciphers", IEEE S&P 2020).
//!
//! One key for everything is not safe at scale (Guo et al., CRYPTO 2020): each operation has a key of its own, and
//! within it each [`REKEY`] gates.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Block};
use zeroize::Zeroize;

use crate::label::Label;

/// Labels that are hashed at once: what the widest processors take in their registers.
pub(crate) const WIDTH: usize = 64;

/// Blocks that the cipher encrypts side by side.
const TOGETHER: usize = 8;

/// AND gates after which a new key is taken, at the end of the layer.
const REKEY: usize = 256;

/// A key under which labels are hashed. Public.
pub(crate) struct LabelHash(Aes128);

/// Labels that are hashed together, and room for it; used again and again.
pub(crate) struct Batch {
    labels: [Block; WIDTH],
    once: [Block; WIDTH],
}

impl Drop for Batch {
    fn drop(&mut self) {
        let blocks = self.labels.iter_mut().chain(&mut self.once);
        blocks.for_each(|block| block.as_mut_slice().zeroize());
    }
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            labels: [Block::default(); WIDTH],
            once: [Block::default(); WIDTH],
        }
    }

    /// Puts `N` labels at the places `N * at` and on.
    #[inline]
    pub(crate) fn put<const N: usize>(&mut self, at: usize, labels: [Label; N]) {
        for (place, label) in self.labels[N * at..][..N].iter_mut().zip(labels) {
            *place = block(label);
        }
    }

    /// The hashes of what was put there.
    #[inline]
    pub(crate) fn get<const N: usize>(&self, at: usize) -> [Label; N] {
        let hashes = &self.labels[N * at..][..N];
        std::array::from_fn(|place| label(hashes[place]))
    }
}

impl LabelHash {
    pub(crate) fn new(key: Label) -> Self {
        Self(Aes128::new(&key.to_le_bytes().into()))
    }

    /// Hashes the first `count` labels of a batch in place, each with the tweak of its place.
    #[inline]
    pub(crate) fn hash(&self, batch: &mut Batch, count: usize, tweak: impl Fn(u64) -> u64) {
        // What does not fill the processor's pipeline costs as much as what does.
        let count = count.next_multiple_of(TOGETHER).min(WIDTH);
        let (labels, once) = (&mut batch.labels[..count], &mut batch.once[..count]);
        once.copy_from_slice(labels);
        self.0.encrypt_blocks(once);
        for ((hash, once), place) in labels.iter_mut().zip(&*once).zip(0..) {
            *hash = block(label(*once) ^ Label::from(tweak(place)));
        }
        self.0.encrypt_blocks(labels);
        for (hash, once) in labels.iter_mut().zip(&*once) {
            *hash = block(label(*hash) ^ label(*once));
        }
    }

    /// One label alone.
    pub(crate) fn one(&self, label: Label, tweak: u64) -> Label {
        let mut batch = Batch::new();
        batch.put(0, [label]);
        self.hash(&mut batch, 1, |_| tweak);
        let [hash] = batch.get(0);
        hash
    }
}

#[inline]
fn block(label: Label) -> Block {
    label.to_le_bytes().into()
}

#[inline]
fn label(block: Block) -> Label {
    Label::from_le_bytes(block.into())
}

/// The keys of one operation, one after the other, and the number of the next gate.
pub(crate) struct Schedule {
    master: LabelHash,
    current: LabelHash,
    count: u64,
    since: usize,
    gate: u64,
}

impl Schedule {
    pub(crate) fn new(key: Label) -> Self {
        let master = LabelHash::new(key);
        Self {
            current: LabelHash::new(master.one(0, 0)),
            master,
            count: 0,
            since: 0,
            gate: 0,
        }
    }

    /// The hash of the gates that come next.
    pub(crate) fn hash(&self) -> &LabelHash {
        &self.current
    }

    /// The number of the next gate.
    pub(crate) fn gate(&self) -> u64 {
        self.gate
    }

    /// A layer of so many AND gates is done.
    pub(crate) fn advance(&mut self, ands: usize) {
        self.gate += ands as u64;
        self.since += ands;
        if self.since >= REKEY {
            self.since = 0;
            self.count += 1;
            self.current = LabelHash::new(self.master.one(0, self.count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_has_its_place_and_its_tweak() {
        let hash = LabelHash::new(7);
        let mut batch = Batch::new();
        for at in 0..WIDTH / 2 {
            batch.put(at, [at as Label, 100 + at as Label]);
        }
        hash.hash(&mut batch, WIDTH, |place| 1_000 + place / 2);
        for at in 0..WIDTH / 2 {
            let tweak = 1_000 + at as u64;
            let alone = [at as Label, 100 + at as Label].map(|label| hash.one(label, tweak));
            assert_eq!(batch.get(at), alone);
        }
        assert_ne!(hash.one(1, 1), hash.one(1, 2));
        assert_ne!(hash.one(1, 1), LabelHash::new(8).one(1, 1));
    }

    #[test]
    fn keys_change_with_the_gates() {
        let mut schedule = Schedule::new(7);
        let first = schedule.hash().one(1, 1);
        schedule.advance(REKEY - 1);
        assert_eq!(schedule.hash().one(1, 1), first);
        schedule.advance(1);
        assert_ne!(schedule.hash().one(1, 1), first);
        assert_eq!(schedule.gate(), REKEY as u64);
    }
}
