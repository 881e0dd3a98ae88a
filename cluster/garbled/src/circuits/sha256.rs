//! The compression function of SHA-256 (FIPS 180-4, section 6.2.2), in circuits and in clear.
//!
//! States and blocks are bytes, words big-endian in them.

use std::array::from_fn;
use std::sync::{Arc, LazyLock};

use super::word::{Word, add, add3, choose, constant, majority, rotate_right, shift_right, xor3};
use crate::builder::{Bit, Builder};
use crate::circuit::Circuit;

/// Length of a state.
pub const STATE_BYTES: usize = 32;
/// Length of a block.
pub const BLOCK_BYTES: usize = 64;
/// Length of a message schedule.
pub const SCHEDULE_BYTES: usize = 256;

/// H(0), section 5.3.3.
pub const INITIAL_STATE: [u8; STATE_BYTES] = [
    0x6a, 0x09, 0xe6, 0x67, 0xbb, 0x67, 0xae, 0x85, 0x3c, 0x6e, 0xf3, 0x72, 0xa5, 0x4f, 0xf5, 0x3a, 0x51,
    0x0e, 0x52, 0x7f, 0x9b, 0x05, 0x68, 0x8c, 0x1f, 0x83, 0xd9, 0xab, 0x5b, 0xe0, 0xcd, 0x19,
];

/// Section 4.2.2.
const K: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];

/// The compression of a block that everybody knows: a secret state (256 bits) and what [`schedule`] gives (2,048), to
/// the next state (256). 16,120 ANDs.
pub(super) static COMPRESSION: LazyLock<Arc<Circuit>> = LazyLock::new(|| {
    let (mut builder, inputs) = Builder::new(8 * (STATE_BYTES + SCHEDULE_BYTES));
    let (state, terms) = inputs.split_at(8 * STATE_BYTES);
    let state = rounds(&mut builder, words(state), &words::<64>(terms));
    Arc::new(builder.finish(&to_bits(&state)))
});

/// The next state after a block that may be secret in part or whole.
pub(super) fn compress_bits(builder: &mut Builder, state: [Word; 8], block: &[Bit]) -> [Word; 8] {
    let terms = schedule_bits(builder, words(block));
    rounds(builder, state, &terms)
}

/// Words of bytes whose bits are given lowest first.
pub(super) fn words<const N: usize>(bits: &[Bit]) -> [Word; N] {
    assert_eq!(bits.len(), 32 * N, "bits of the words");
    from_fn(|word| from_fn(|bit| bits[32 * word + 24 - bit / 8 * 8 + bit % 8]))
}

/// The other way.
pub(super) fn to_bits(words: &[Word]) -> Vec<Bit> {
    let bits = |word: &Word| -> [Bit; 32] { from_fn(|bit| word[24 - bit / 8 * 8 + bit % 8]) };
    words.iter().flat_map(bits).collect()
}

/// Section 6.2.2, steps 2 to 4; the terms are W_t + K_t.
fn rounds(builder: &mut Builder, state: [Word; 8], terms: &[Word; 64]) -> [Word; 8] {
    let mut working = state;
    for term in terms {
        let [a, b, c, d, e, f, g, h] = working;
        let sigma1 = xor3(
            builder,
            rotate_right(e, 6),
            rotate_right(e, 11),
            rotate_right(e, 25),
        );
        let chosen = choose(builder, e, f, g);
        // Known long before the rest, so that only two carries follow on e.
        let early = add(builder, h, *term);
        let t1 = add3(builder, sigma1, chosen, early);
        let sigma0 = xor3(
            builder,
            rotate_right(a, 2),
            rotate_right(a, 13),
            rotate_right(a, 22),
        );
        let most = majority(builder, a, b, c);
        working = [
            add3(builder, t1, sigma0, most),
            a,
            b,
            c,
            add(builder, d, t1),
            e,
            f,
            g,
        ];
    }
    from_fn(|word| add(builder, state[word], working[word]))
}

/// Section 6.2.2, step 1, plus K_t.
fn schedule_bits(builder: &mut Builder, block: [Word; 16]) -> [Word; 64] {
    let mut expanded = block.to_vec();
    for t in 16..64 {
        let (w2, w15) = (expanded[t - 2], expanded[t - 15]);
        let sigma1 = xor3(
            builder,
            rotate_right(w2, 17),
            rotate_right(w2, 19),
            shift_right(w2, 10),
        );
        let sigma0 = xor3(
            builder,
            rotate_right(w15, 7),
            rotate_right(w15, 18),
            shift_right(w15, 3),
        );
        let rest = add3(builder, expanded[t - 7], sigma0, expanded[t - 16]);
        expanded.push(add(builder, sigma1, rest));
    }
    from_fn(|t| add(builder, expanded[t], constant(K[t])))
}

/// W_t + K_t modulo 2^32 for t from 0 to 63.
pub fn schedule(block: &[u8; BLOCK_BYTES]) -> [u8; SCHEDULE_BYTES] {
    let terms = terms(block);
    let mut bytes = [0; SCHEDULE_BYTES];
    for (bytes, term) in bytes.chunks_exact_mut(4).zip(terms) {
        bytes.copy_from_slice(&term.to_be_bytes());
    }
    bytes
}

/// The next state after a block. Its time depends on neither.
pub fn compress(state: [u8; STATE_BYTES], block: &[u8; BLOCK_BYTES]) -> [u8; STATE_BYTES] {
    let state: [u32; 8] = from_fn(|word| big_endian(&state, word));
    let mut working = state;
    for term in terms(block) {
        let [a, b, c, d, e, f, g, h] = working;
        let sigma1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let chosen = e & f ^ !e & g;
        let t1 = [sigma1, chosen, term].into_iter().fold(h, u32::wrapping_add);
        let sigma0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let most = a & b ^ a & c ^ b & c;
        let t2 = sigma0.wrapping_add(most);
        working = [t1.wrapping_add(t2), a, b, c, d.wrapping_add(t1), e, f, g];
    }
    let mut bytes = [0; STATE_BYTES];
    for (word, bytes) in bytes.chunks_exact_mut(4).enumerate() {
        bytes.copy_from_slice(&state[word].wrapping_add(working[word]).to_be_bytes());
    }
    bytes
}

fn terms(block: &[u8; BLOCK_BYTES]) -> [u32; 64] {
    let mut expanded = [0u32; 64];
    for t in 0..64 {
        expanded[t] = if t < 16 {
            big_endian(block, t)
        } else {
            let (w2, w15) = (expanded[t - 2], expanded[t - 15]);
            let sigma1 = w2.rotate_right(17) ^ w2.rotate_right(19) ^ w2 >> 10;
            let sigma0 = w15.rotate_right(7) ^ w15.rotate_right(18) ^ w15 >> 3;
            let rest = [sigma1, sigma0, expanded[t - 7]];
            rest.into_iter().fold(expanded[t - 16], u32::wrapping_add)
        };
    }
    from_fn(|t| expanded[t].wrapping_add(K[t]))
}

fn big_endian(bytes: &[u8], word: usize) -> u32 {
    u32::from_be_bytes(from_fn(|byte| bytes[4 * word + byte]))
}
