//! Labels side by side, as the processor works on them: what is done to a [`Quad`] is one instruction where registers are
//! that wide, and four where they are as wide as a label.

use std::array::from_fn;

use zeroize::Zeroize;

use crate::label::{BYTES, Label};

/// Labels of a [`Quad`], which has the most.
pub(crate) const QUAD: usize = 4;

/// The labels of a slot, one for each lane.
pub(crate) trait Lanes: Copy + Zeroize {
    /// How many.
    const COUNT: usize;
    /// Bytes of all.
    const BYTES: usize = Self::COUNT * BYTES;
    /// All zero.
    const ZERO: Self;

    /// Lane by lane.
    fn xor(self, other: Self) -> Self;
    /// Those of which the lowest bit of `by` is one, else zero; without a branch.
    fn masked(self, by: Self) -> Self;
    /// Lane i is lane i + `by`, counted round.
    fn turned(self, by: u32) -> Self;
    /// A lane.
    fn label(&self, lane: usize) -> Label;
    /// Sets a lane.
    fn set(&mut self, lane: usize, label: Label);
    /// Of bytes, lane after lane.
    fn read(bytes: &[u8]) -> Self;
    /// The other way.
    fn write(self, bytes: &mut [u8]);

    /// The same in all lanes.
    #[inline(always)]
    fn all(label: Label) -> Self {
        let mut lanes = Self::ZERO;
        (0..Self::COUNT).for_each(|lane| lanes.set(lane, label));
        lanes
    }
}

/// One label.
#[derive(Clone, Copy, Zeroize)]
#[repr(align(16))]
pub(crate) struct Single([u64; 2]);

/// Four labels, each with its low half first.
#[derive(Clone, Copy, Zeroize)]
#[repr(align(64))]
pub(crate) struct Quad([u64; 2 * QUAD]);

#[inline(always)]
fn halves(label: Label) -> [u64; 2] {
    [label as u64, (label >> 64) as u64]
}

#[inline(always)]
fn whole([low, high]: [u64; 2]) -> Label {
    Label::from(high) << 64 | Label::from(low)
}

#[inline(always)]
fn read_words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let (words, _) = bytes.as_chunks();
    let words: &[[u8; 8]; N] = words.try_into().expect("as many bytes as labels have");
    from_fn(|word| u64::from_le_bytes(words[word]))
}

#[inline(always)]
fn write_words<const N: usize>(from: [u64; N], bytes: &mut [u8]) {
    let (words, _) = bytes.as_chunks_mut();
    let words: &mut [[u8; 8]; N] = words.try_into().expect("as many bytes as labels have");
    *words = from.map(u64::to_le_bytes);
}

impl Lanes for Single {
    const COUNT: usize = 1;
    const ZERO: Self = Self([0; 2]);

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(from_fn(|word| self.0[word] ^ other.0[word]))
    }

    #[inline(always)]
    fn masked(self, by: Self) -> Self {
        let mask = 0_u64.wrapping_sub(by.0[0] & 1);
        Self(self.0.map(|word| word & mask))
    }

    #[inline(always)]
    fn turned(self, _by: u32) -> Self {
        self
    }

    #[inline(always)]
    fn label(&self, _lane: usize) -> Label {
        whole(self.0)
    }

    #[inline(always)]
    fn set(&mut self, _lane: usize, label: Label) {
        self.0 = halves(label);
    }

    #[inline(always)]
    fn read(bytes: &[u8]) -> Self {
        Self(read_words(bytes))
    }

    #[inline(always)]
    fn write(self, bytes: &mut [u8]) {
        write_words(self.0, bytes);
    }
}

impl Lanes for Quad {
    const COUNT: usize = QUAD;
    const ZERO: Self = Self([0; 2 * QUAD]);

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(from_fn(|word| self.0[word] ^ other.0[word]))
    }

    #[inline(always)]
    fn masked(self, by: Self) -> Self {
        let [a, _, b, _, c, _, d, _] = by.0;
        let low = [a, a, b, b, c, c, d, d];
        Self(from_fn(|word| self.0[word] & 0_u64.wrapping_sub(low[word] & 1)))
    }

    #[inline(always)]
    fn turned(self, by: u32) -> Self {
        Self(from_fn(|word| self.0[(word + 2 * by as usize) % (2 * QUAD)]))
    }

    #[inline(always)]
    fn label(&self, lane: usize) -> Label {
        whole([self.0[2 * lane], self.0[2 * lane + 1]])
    }

    #[inline(always)]
    fn set(&mut self, lane: usize, label: Label) {
        self.0[2 * lane..][..2].copy_from_slice(&halves(label));
    }

    #[inline(always)]
    fn read(bytes: &[u8]) -> Self {
        Self(read_words(bytes))
    }

    #[inline(always)]
    fn write(self, bytes: &mut [u8]) {
        write_words(self.0, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quad(labels: [Label; QUAD]) -> Quad {
        let mut quad = Quad::ZERO;
        labels
            .into_iter()
            .enumerate()
            .for_each(|(lane, label)| quad.set(lane, label));
        quad
    }

    fn labels(quad: Quad) -> [Label; QUAD] {
        from_fn(|lane| quad.label(lane))
    }

    const SOME: [Label; QUAD] = [1 | 7 << 100, 2 | 8 << 90, 3 | 9 << 80, 4 | 5 << 70];

    #[test]
    fn a_quad_is_four_labels() {
        let other = [11 << 64, 12, 13 << 120, 14];
        let xors = labels(quad(SOME).xor(quad(other)));
        assert_eq!(xors, from_fn(|lane| SOME[lane] ^ other[lane]));
        for by in 0..QUAD {
            let turned = labels(quad(SOME).turned(by as u32));
            assert_eq!(turned, from_fn(|lane| SOME[(lane + by) % QUAD]));
        }
        assert_eq!(labels(Quad::all(SOME[0])), [SOME[0]; QUAD]);
        let all = Quad::all(Label::MAX);
        assert_eq!(labels(all.masked(quad(SOME))), [Label::MAX, 0, Label::MAX, 0]);
        assert_eq!(
            labels(quad(SOME).masked(quad([2, 1, Label::MAX, 1 << 64]))),
            [0, SOME[1], SOME[2], 0]
        );
    }

    #[test]
    fn bytes_are_those_of_the_labels() {
        let mut bytes = [0; Quad::BYTES];
        quad(SOME).write(&mut bytes);
        let (each, _) = bytes.as_chunks();
        for (lane, bytes) in each.iter().enumerate() {
            assert_eq!(Label::from_le_bytes(*bytes), SOME[lane]);
            assert_eq!(Single::read(bytes).label(0), SOME[lane]);
        }
        assert_eq!(labels(Quad::read(&bytes)), SOME);
    }
}
