//! Mutations for an ordinary test: the same ones in every run, without libFuzzer.

use rand::Rng as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

/// Numbers at which lengths and bounds go wrong.
const BYTES: [u8; 8] = [0, 1, 0x20, 0x22, 0x7f, 0x80, 0xfe, 0xff];

/// Makes inputs out of a corpus.
pub struct Mutator<'a> {
    corpus: &'a [Vec<u8>],
    longest: usize,
    rng: ChaCha8Rng,
}

impl<'a> Mutator<'a> {
    /// For a corpus that is not empty, and inputs up to a length in bytes.
    pub fn new(corpus: &'a [Vec<u8>], longest: usize, seed: u64) -> Self {
        Self {
            corpus,
            longest,
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// The next input: a seed with one to four changes.
    pub fn next_input(&mut self) -> Vec<u8> {
        let at = self.rng.gen_range(0..self.corpus.len());
        let mut bytes = self.corpus[at].clone();
        for _ in 0..self.rng.gen_range(1..=4) {
            self.change(&mut bytes);
        }
        bytes.truncate(self.longest);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return bytes.push(self.rng.r#gen());
        }
        let at = self.rng.gen_range(0..bytes.len());
        let to = at + self.rng.gen_range(1..=(bytes.len() - at).min(64));
        match self.rng.gen_range(0..9) {
            0 => bytes[at] ^= 1 << self.rng.gen_range(0..8),
            1 => bytes[at] = self.rng.r#gen(),
            2 => bytes[at] = BYTES[self.rng.gen_range(0..BYTES.len())],
            3 => bytes[at] = bytes[at].wrapping_add(1),
            4 => bytes.insert(at, BYTES[self.rng.gen_range(0..BYTES.len())]),
            5 => drop(bytes.drain(at..to)),
            6 => {
                let copy = bytes[at..to].to_vec();
                let place = self.rng.gen_range(0..=bytes.len());
                drop(bytes.splice(place..place, copy));
            }
            7 => {
                let other = &self.corpus[self.rng.gen_range(0..self.corpus.len())];
                let from = self.rng.gen_range(0..=other.len());
                let part = &other[from..other.len().min(from + 64)];
                drop(bytes.splice(at..to, part.iter().copied()));
            }
            _ => bytes.truncate(at),
        }
    }
}
