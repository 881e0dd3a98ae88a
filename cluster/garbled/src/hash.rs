//! The hash of labels: TMMO, H(x, i) = p(p(x) ^ i) ^ p(x) with p = AES-128 under a public key (Guo, Katz, Wang, Yu,
//! "Efficient and Secure Multiparty Computation from Fixed-Key Block Ciphers", IEEE S&P 2020).
//!
//! One key for everything is not safe at scale (Guo et al., CRYPTO 2020): each operation has a key of its own, and
//! within it each [`REKEY`] gates.
//!
//! [`Work`] that hashes is run inside of the cipher, so that it is compiled for the same registers as the cipher, which
//! looks for the widest that there are: labels are added, masked and moved four at a time in place of one.

use aes::cipher::array::Array;
use aes::cipher::consts::U16;
use aes::cipher::inout::InOutBuf;
use aes::cipher::typenum::Unsigned;
use aes::cipher::{BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit};
use aes::{Aes128, Block};
use zeroize::Zeroize;

use crate::label::{BYTES, Label};
use crate::lanes::Lanes;

/// Labels that are hashed at once: what the widest processors take in their registers.
pub(crate) const WIDTH: usize = 64;

/// Halves of the labels of a batch.
const WORDS: usize = 2 * WIDTH;

/// AND gates after which a new key is taken, at the end of the layer.
const REKEY: usize = 256;

/// A key under which labels are hashed. Public.
pub(crate) struct LabelHash(Aes128);

/// The cipher under a key, with the registers that it uses.
pub(crate) trait Cipher: BlockCipherEncBackend<BlockSize = U16> {}

impl<B: BlockCipherEncBackend<BlockSize = U16>> Cipher for B {}

/// What is run inside of the cipher. All that it calls must be inlined there, or it is compiled for other registers.
pub(crate) trait Work {
    /// Does it.
    fn run(self, cipher: &impl Cipher);
}

struct Inside<W>(W);

impl<W> BlockSizeUser for Inside<W> {
    type BlockSize = U16;
}

impl<W: Work> BlockCipherEncClosure for Inside<W> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, cipher: &B) {
        self.0.run(cipher);
    }
}

/// The words that are added to a batch between the two calls of the cipher: the tweak of each label, and zero for its
/// upper half.
pub(crate) struct Tweaks([u64; WORDS]);

/// All ones for the words to which the number of a batch is added.
static LOWER: [u64; WORDS] = {
    let mut lower = [0; WORDS];
    let mut word = 0;
    while word < WORDS {
        lower[word] = u64::MAX;
        word += 2;
    }
    lower
};

impl Tweaks {
    /// Those of a batch of gates with `values` labels of each operand for each of so many lanes: twice the number of the
    /// gate and lane in the batch, plus one for the right operand.
    pub(crate) const fn of_gates(values: usize, lanes: usize) -> Self {
        let mut tweaks = [0; WORDS];
        let mut place = 0;
        while place < WIDTH {
            let (gate, label) = (place / (2 * values * lanes), place / lanes % (2 * values));
            let lane = gate * lanes + place % lanes;
            tweaks[2 * place] = (2 * lane + label / values) as u64;
            place += 1;
        }
        Self(tweaks)
    }

    /// Of each place.
    pub(crate) fn of_places(tweak: impl Fn(usize) -> u64) -> Self {
        let mut tweaks = [0; WORDS];
        (0..WIDTH).for_each(|place| tweaks[2 * place] = tweak(place));
        Self(tweaks)
    }
}

/// Labels that are hashed together, and room for it; used again and again.
#[repr(align(64))]
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

    /// Puts `N` times the labels of a slot at the `at`-th place for so many.
    #[inline(always)]
    pub(crate) fn put<L: Lanes, const N: usize>(&mut self, at: usize, labels: [L; N]) {
        let bytes = Array::cast_slice_to_core_mut(&mut self.labels).as_flattened_mut();
        let places = bytes[N * L::BYTES * at..][..N * L::BYTES].chunks_exact_mut(L::BYTES);
        // By reference: an array that is consumed is moved to another place first.
        places
            .zip(&labels)
            .for_each(|(place, labels)| labels.write(place));
    }

    /// The hashes of what was put there.
    #[inline(always)]
    pub(crate) fn get<L: Lanes, const N: usize>(&self, at: usize) -> [L; N] {
        let bytes = Array::cast_slice_to_core(&self.labels).as_flattened();
        let hashes = &bytes[N * L::BYTES * at..][..N * L::BYTES];
        std::array::from_fn(|value| L::read(&hashes[L::BYTES * value..][..L::BYTES]))
    }

    /// Puts a label at a place.
    pub(crate) fn put_label(&mut self, place: usize, label: Label) {
        self.labels[place] = label.to_le_bytes().into();
    }

    /// The hash of what was put there.
    pub(crate) fn label(&self, place: usize) -> Label {
        let bytes: [u8; BYTES] = self.labels[place].into();
        Label::from_le_bytes(bytes)
    }

    /// Hashes the first `count` labels in place, and as many more as cost nothing. `number` is added to the tweaks.
    #[inline(always)]
    pub(crate) fn hash(&mut self, cipher: &impl Cipher, count: usize, number: u64, tweaks: &Tweaks) {
        let count = filled(cipher, count);
        let (labels, once) = (&mut self.labels[..count], &mut self.once[..count]);
        let both = InOutBuf::new(labels, once).expect("as many labels as hashes");
        encrypt(cipher, both);
        let words = words(labels).iter_mut().zip(words(once).iter());
        let tweaks = tweaks.0.iter().zip(&LOWER);
        for ((label, once), (tweak, lower)) in words.zip(tweaks) {
            let tweak = tweak.wrapping_add(number & lower);
            *label = (u64::from_le_bytes(*once) ^ tweak).to_le_bytes();
        }
        encrypt(cipher, labels.into());
        for (hash, once) in self::words(labels).iter_mut().zip(self::words(once).iter()) {
            *hash = (u64::from_le_bytes(*hash) ^ u64::from_le_bytes(*once)).to_le_bytes();
        }
    }
}

#[inline(always)]
fn words(blocks: &mut [Block]) -> &mut [[u8; 8]] {
    let bytes = Array::cast_slice_to_core_mut(blocks).as_flattened_mut();
    bytes.as_chunks_mut().0
}

/// How many labels are hashed in place of `count`: what does not fill the processor's pipeline costs as much as what does.
#[inline(always)]
fn filled<C: Cipher>(_cipher: &C, count: usize) -> usize {
    let together = C::ParBlocksSize::USIZE;
    let rest = count % together;
    let count = if rest > together / 2 {
        count - rest + together
    } else {
        count
    };
    count.min(WIDTH)
}

#[inline(always)]
fn encrypt<C: Cipher>(cipher: &C, blocks: InOutBuf<'_, '_, Block>) {
    let (chunks, rest) = blocks.into_chunks();
    for chunk in chunks {
        cipher.encrypt_par_blocks(chunk);
    }
    cipher.encrypt_tail_blocks(rest);
}

struct HashBatch<'a>(&'a mut Batch, usize, u64, &'a Tweaks);

impl Work for HashBatch<'_> {
    #[inline(always)]
    fn run(self, cipher: &impl Cipher) {
        let HashBatch(batch, count, number, tweaks) = self;
        batch.hash(cipher, count, number, tweaks);
    }
}

impl LabelHash {
    pub(crate) fn new(key: Label) -> Self {
        Self(Aes128::new(&key.to_le_bytes().into()))
    }

    /// Does what hashes under this key.
    #[inline]
    pub(crate) fn run(&self, work: impl Work) {
        self.0.encrypt_with_backend(Inside(work));
    }

    /// Hashes the first `count` labels of a batch in place.
    pub(crate) fn hash(&self, batch: &mut Batch, count: usize, tweaks: &Tweaks) {
        self.run(HashBatch(batch, count, 0, tweaks));
    }

    /// One label alone, which is not secret.
    pub(crate) fn one(&self, label: Label, tweak: u64) -> Label {
        let once = self.permuted(label);
        self.permuted(once ^ Label::from(tweak)) ^ once
    }

    fn permuted(&self, label: Label) -> Label {
        let mut block = label.to_le_bytes().into();
        self.0.encrypt_block(&mut block);
        Label::from_le_bytes(block.into())
    }
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

    /// AND gates until the next key, which is taken at the end of a layer; never zero.
    pub(crate) fn room(&self) -> usize {
        REKEY - self.since
    }

    /// Layers of so many AND gates are done.
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
        (0..WIDTH).for_each(|place| batch.put_label(place, 100 + place as Label));
        hash.hash(&mut batch, WIDTH, &Tweaks::of_places(|place| place as u64 / 2));
        for place in 0..WIDTH {
            assert_eq!(
                batch.label(place),
                hash.one(100 + place as Label, place as u64 / 2)
            );
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
