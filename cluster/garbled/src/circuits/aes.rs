//! AES-256 (FIPS 197).
//!
//! A block is 16 bytes, column by column. What is done to its four columns alike is built once, in circuits whose slots
//! have four lanes, a column each: a state is four bytes then, one for each row, and ShiftRows turns rows. The S-boxes are
//! those of [`super::sbox`], without their constant: it is added to round keys 1 to 14, once for all blocks under a key,
//! for MixColumns and its inverse leave it as it is.

use std::array::from_fn;
use std::sync::{Arc, LazyLock};

use super::constants;
use super::sbox::{AFFINE, Byte, forward, inverse};
use crate::builder::{Bit, Builder};
use crate::circuit::{Circuit, Width};
use crate::program::Wire;

/// Length of a key.
pub(super) const KEY_BYTES: usize = 32;
/// Length of a block.
pub(super) const BLOCK_BYTES: usize = 16;
/// Length of all round keys.
const ROUND_KEYS_BYTES: usize = (ROUNDS + 1) * BLOCK_BYTES;

const ROUNDS: usize = 14;

/// Rows of a state.
const ROWS: usize = 4;

/// A byte of every column for each row.
type State = [Byte; ROWS];

/// The bits of a state, each with all its lanes.
pub(super) const STATE_BITS: usize = 8 * ROWS;
/// Those of all round keys.
pub(super) const ROUND_KEYS_BITS: usize = (ROUNDS + 1) * STATE_BITS;
/// Of the circuits in which [`encrypt`] and [`decrypt`] are built.
pub(super) const WIDTH: Width = Width::Four;

const COLUMNS: usize = WIDTH.lanes();

/// The wires of blocks, in the order of the lanes of their states.
pub(super) fn to_lanes(blocks: &[Wire]) -> Vec<Wire> {
    by_block(blocks, |row, bit, column| 8 * (ROWS * column + row) + bit)
}

/// The other way.
pub(super) fn from_lanes(lanes: &[Wire]) -> Vec<Wire> {
    let mut blocks = lanes.to_vec();
    let places: Vec<Wire> = (0..).take(lanes.len()).collect();
    for (lane, block) in lanes.iter().zip(to_lanes(&places)) {
        blocks[block as usize] = *lane;
    }
    blocks
}

fn by_block(blocks: &[Wire], place: fn(usize, usize, usize) -> usize) -> Vec<Wire> {
    let lanes = |block: &[Wire]| -> [Wire; 8 * BLOCK_BYTES] {
        from_fn(|lane| block[place(lane / (8 * COLUMNS), lane / COLUMNS % 8, lane % COLUMNS)])
    };
    blocks.chunks_exact(8 * BLOCK_BYTES).flat_map(lanes).collect()
}

/// A key to its round keys, blocks in the form that [`encrypt`] and [`decrypt`] take. 1,664 ANDs. A word follows from
/// the last one, so that there are no columns side by side.
pub(super) static KEY_EXPANSION: LazyLock<Arc<Circuit>> = LazyLock::new(|| {
    let (mut builder, key) = Builder::new(8 * KEY_BYTES);
    let round_keys = expand(&mut builder, &key);
    Arc::new(builder.finish(&round_keys))
});

/// Section 5.2.
fn expand(builder: &mut Builder, key: &[Bit]) -> Vec<Bit> {
    let mut words: Vec<[Byte; 4]> = key
        .chunks_exact(32)
        .map(|word| from_fn(|byte| byte_at(word, byte)))
        .collect();
    let mut round_constant = 1u8;
    for index in 8..4 * (ROUNDS + 1) {
        let mut word = words[index - 1];
        if index % 8 == 0 {
            word.rotate_left(1);
        }
        if index % 4 == 0 {
            word = word.map(|byte| substitute(builder, byte));
        }
        if index % 8 == 0 {
            word[0] = xor_constant(builder, word[0], round_constant);
            round_constant <<= 1;
        }
        words.push(from_fn(|byte| xor(builder, words[index - 8][byte], word[byte])));
    }
    let mut round_keys = Vec::with_capacity(8 * ROUND_KEYS_BYTES);
    for (index, byte) in words.as_flattened().iter().enumerate() {
        let constant = if index < BLOCK_BYTES { 0 } else { AFFINE };
        round_keys.extend(xor_constant(builder, *byte, constant));
    }
    round_keys
}

/// Section 5.1: a state under the states of [`KEY_EXPANSION`]. 7,168 ANDs.
pub(super) fn encrypt(builder: &mut Builder, round_keys: &[Bit], state: &[Bit]) -> Vec<Bit> {
    let mut state = add_round_key(builder, state_of(state), round_keys, 0);
    for round in 1..=ROUNDS {
        let substituted = state.map(|row| forward(builder, row));
        // ShiftRows.
        state = from_fn(|row| turn(builder, substituted[row], row));
        if round < ROUNDS {
            state = mix_columns(builder, state);
        }
        state = add_round_key(builder, state, round_keys, round);
    }
    state.concat()
}

/// Section 5.3, the other way. 7,168 ANDs.
pub(super) fn decrypt(builder: &mut Builder, round_keys: &[Bit], state: &[Bit]) -> Vec<Bit> {
    let mut state = add_round_key(builder, state_of(state), round_keys, ROUNDS);
    for round in (0..ROUNDS).rev() {
        let shifted: State = from_fn(|row| turn(builder, state[row], (COLUMNS - row) % COLUMNS));
        state = shifted.map(|row| inverse(builder, row));
        state = add_round_key(builder, state, round_keys, round);
        if round > 0 {
            state = inverse_mix_columns(builder, state);
        }
    }
    state.concat()
}

fn state_of(bits: &[Bit]) -> State {
    from_fn(|row| byte_at(bits, row))
}

fn byte_at(bits: &[Bit], byte: usize) -> Byte {
    from_fn(|bit| bits[8 * byte + bit])
}

fn turn(builder: &mut Builder, row: Byte, by: usize) -> Byte {
    row.map(|bit| builder.turn(bit, by))
}

fn add_round_key(builder: &mut Builder, state: State, round_keys: &[Bit], round: usize) -> State {
    from_fn(|row| xor(builder, state[row], byte_at(round_keys, ROWS * round + row)))
}

/// Section 5.1.3. With the bytes a, b, c, d of a column and p = a ^ b, the first becomes 2 p ^ b ^ c ^ d.
fn mix_columns(builder: &mut Builder, state: State) -> State {
    let below = |row: usize, rows: usize| (row + rows) % ROWS;
    let pairs: State = from_fn(|row| xor(builder, state[row], state[below(row, 1)]));
    from_fn(|row| {
        let doubled = double(builder, pairs[row]);
        let sum = xor(builder, doubled, state[below(row, 1)]);
        xor(builder, sum, pairs[below(row, 2)])
    })
}

/// Section 5.3.3: MixColumns after 4 (a ^ c) is added to a and c, 4 (b ^ d) to b and d.
fn inverse_mix_columns(builder: &mut Builder, state: State) -> State {
    let prepared = from_fn(|row| {
        let pair = xor(builder, state[row], state[(row + 2) % ROWS]);
        let doubled = double(builder, pair);
        let four = double(builder, doubled);
        xor(builder, state[row], four)
    });
    mix_columns(builder, prepared)
}

/// Section 4.2.1.
fn double(builder: &mut Builder, x: Byte) -> Byte {
    from_fn(|bit| match bit {
        0 => x[7],
        1 | 3 | 4 => builder.xor(x[bit - 1], x[7]),
        _ => x[bit - 1],
    })
}

fn substitute(builder: &mut Builder, x: Byte) -> Byte {
    let y = forward(builder, x);
    xor_constant(builder, y, AFFINE)
}

fn xor(builder: &mut Builder, a: Byte, b: Byte) -> Byte {
    from_fn(|bit| builder.xor(a[bit], b[bit]))
}

fn xor_constant(builder: &mut Builder, a: Byte, constant: u8) -> Byte {
    let constant = constants(&[constant]);
    from_fn(|bit| builder.xor(a[bit], constant[bit]))
}
