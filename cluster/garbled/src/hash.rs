//! The hash of labels: TMMO, H(x, i) = p(p(x) ^ i) ^ p(x) with p = AES-128 under a public key (Guo, Katz, Wang, Yu,
//! "Efficient and Secure Multiparty Computation from Fixed-Key Block Ciphers", IEEE S&P 2020).
//!
//! One key for everything is not safe at scale (Guo et al., CRYPTO 2020): each operation has a key of its own, and
//! within it each [`REKEY`] gates.

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};

use crate::label::Label;

/// Labels that are hashed at once: what the widest processors take in their registers.
pub(crate) const WIDTH: usize = 64;

/// AND gates after which a new key is taken, at the end of the layer.
const REKEY: usize = 256;

/// A key under which labels are hashed. Public.
pub(crate) struct LabelHash(Aes128);

impl LabelHash {
    pub(crate) fn new(key: Label) -> Self {
        Self(Aes128::new(&key.to_le_bytes().into()))
    }

    /// Hashes each label with its tweak, in place.
    #[inline]
    pub(crate) fn hash(&self, labels: &mut [Label; WIDTH], tweaks: &[Label; WIDTH]) {
        let mut once = *labels;
        self.permute(&mut once);
        for (label, (once, tweak)) in labels.iter_mut().zip(once.iter().zip(tweaks)) {
            *label = once ^ tweak;
        }
        self.permute(labels);
        for (label, once) in labels.iter_mut().zip(once) {
            *label ^= once;
        }
    }

    /// One label alone.
    pub(crate) fn one(&self, label: Label, tweak: Label) -> Label {
        let mut labels = [0; WIDTH];
        let mut tweaks = [0; WIDTH];
        (labels[0], tweaks[0]) = (label, tweak);
        self.hash(&mut labels, &tweaks);
        labels[0]
    }

    fn permute(&self, labels: &mut [Label; WIDTH]) {
        let mut blocks = labels.map(|label| aes::Block::from(label.to_le_bytes()));
        self.0.encrypt_blocks(&mut blocks);
        for (label, block) in labels.iter_mut().zip(blocks) {
            *label = Label::from_le_bytes(block.into());
        }
    }
}

/// The keys of one operation, one after the other, and the number of the next gate.
pub(crate) struct Schedule {
    master: LabelHash,
    current: LabelHash,
    count: Label,
    since: usize,
    gate: Label,
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
    pub(crate) fn gate(&self) -> Label {
        self.gate
    }

    /// A layer of so many AND gates is done.
    pub(crate) fn advance(&mut self, ands: usize) {
        self.gate += ands as Label;
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
        let mut labels: [Label; WIDTH] = std::array::from_fn(|at| at as Label);
        let tweaks: [Label; WIDTH] = std::array::from_fn(|at| 1_000 + at as Label);
        hash.hash(&mut labels, &tweaks);
        for (at, label) in labels.iter().enumerate() {
            assert_eq!(*label, hash.one(at as Label, 1_000 + at as Label));
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
        assert_eq!(schedule.gate(), REKEY as Label);
    }
}
