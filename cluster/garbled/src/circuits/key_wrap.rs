//! AES key wrap (RFC 3394) under an AES-256 key: the key is expanded once, then one circuit is called 6 times a block.
//!
//! A block is 64 bits here, as in the RFC.

use std::sync::{Arc, LazyLock};

use super::aes::{
    self, KEY_BYTES, KEY_EXPANSION, ROUND_KEYS_BITS, STATE_BITS, decrypt, encrypt, from_lanes, to_lanes,
};
use super::{Assembly, ONE, all, constants};
use crate::builder::{Bit, Builder};
use crate::circuit::Circuit;
use crate::program::{Program, Wire, bits};

/// Blocks of payload at most, so that the step counter has [`COUNTER_BITS`].
pub const MAX_BLOCKS: usize = ((1 << COUNTER_BITS) - 1) / STEPS;

/// Steps of a wrap for each block.
const STEPS: usize = 6;
const COUNTER_BITS: usize = 16;
const HALF_BITS: usize = 64;

/// Section 2.2.3.1.
const INITIAL_VALUE: [u8; 8] = [0xa6; 8];

/// Round keys, A and R[i], and t to the new A and R[i]: section 2.2.1, step 2.
static WRAP_STEP: LazyLock<Arc<Circuit>> = LazyLock::new(|| {
    step(|builder, round_keys, state, counter| {
        let mut state = encrypt(builder, round_keys, state);
        count(builder, &mut state, counter);
        state
    })
});

/// Section 2.2.2, step 2.
static UNWRAP_STEP: LazyLock<Arc<Circuit>> = LazyLock::new(|| {
    step(|builder, round_keys, state, counter| {
        let mut state = state.to_vec();
        count(builder, &mut state, counter);
        decrypt(builder, round_keys, &state)
    })
});

type Step = fn(&mut Builder, &[Bit], &[Bit], &[Bit]) -> Vec<Bit>;

fn step(step: Step) -> Arc<Circuit> {
    let (mut builder, inputs) = Builder::of_width(aes::WIDTH, ROUND_KEYS_BITS + STATE_BITS + COUNTER_BITS);
    let (round_keys, rest) = inputs.split_at(ROUND_KEYS_BITS);
    let (state, counter) = rest.split_at(STATE_BITS);
    let outputs = step(&mut builder, round_keys, state, counter);
    Arc::new(builder.finish(&outputs))
}

/// Adds the bytes of t, which are in the last rows of A's second column.
fn count(builder: &mut Builder, state: &mut [Bit], counter: &[Bit]) {
    for (place, bit) in state[STATE_BITS - COUNTER_BITS..].iter_mut().zip(counter) {
        *place = builder.xor(*place, *bit);
    }
}

/// Registers A and R[1] to R[n], and what the steps on them need.
struct Registers {
    assembly: Assembly,
    /// In the order of lanes.
    round_keys: Vec<Wire>,
    /// The wires of the constants zero and one.
    constants: [Wire; 2],
    halves: Vec<Vec<Wire>>,
}

impl Registers {
    /// With `public` halves as public inputs, which are the last registers; an A that is missing is the initial value.
    fn new(name: &'static str, blocks: usize, public: usize) -> Self {
        assert!((2..=MAX_BLOCKS).contains(&blocks), "blocks of a key wrap");
        let (mut assembly, mut inputs) = Assembly::new(name, KEY_BYTES, public * HALF_BITS / 8);
        let mut halves: Vec<Vec<Wire>> = inputs
            .split_off(8 * KEY_BYTES)
            .chunks(HALF_BITS)
            .map(<[Wire]>::to_vec)
            .collect();
        let (builder, _) = Builder::new(0);
        let zero = assembly.call(&Arc::new(builder.finish(&[Bit::FALSE])), Vec::new());
        let constants = [zero[0], ONE];
        if public == blocks {
            let initial = bits(&INITIAL_VALUE).map(|bit| constants[usize::from(bit)]);
            halves.insert(0, initial.collect());
        }
        let round_keys = to_lanes(&assembly.call(&KEY_EXPANSION, inputs));
        Registers {
            assembly,
            round_keys,
            constants,
            halves,
        }
    }

    /// The lanes of t, big-endian.
    fn counter(&self, t: usize) -> Vec<Wire> {
        let [zero, _] = self.constants;
        let bit = |at: usize| self.constants[t >> (COUNTER_BITS - 8 - at / 8 * 8 + at % 8) & 1];
        (0..COUNTER_BITS)
            .flat_map(|at| [zero, bit(at), zero, zero])
            .collect()
    }

    /// Step t of the RFC, counted from 1.
    fn step(&mut self, circuit: &Arc<Circuit>, t: usize) {
        let register = (t - 1) % (self.halves.len() - 1) + 1;
        let block = to_lanes(&[&self.halves[0][..], &self.halves[register]].concat());
        let inputs = [&self.round_keys[..], &block, &self.counter(t)].concat();
        let outputs = self.assembly.call(circuit, inputs);
        let mut outputs = from_lanes(&outputs);
        self.halves[register] = outputs.split_off(HALF_BITS);
        self.halves[0] = outputs;
    }
}

/// Secret: a key, 32 bytes. Public: `blocks` times 8 bytes, at least twice and at most [`MAX_BLOCKS`] times.
/// Output: 8 bytes more, wrapped.
pub fn wrap(blocks: usize) -> Program {
    let mut registers = Registers::new("key wrap", blocks, blocks);
    for t in 1..=STEPS * blocks {
        registers.step(&WRAP_STEP, t);
    }
    registers.assembly.finish(registers.halves.concat())
}

/// Secret: a key, 32 bytes. Public: a wrap of `blocks` times 8 bytes, 8 bytes longer. Outputs: one bit, whether it is
/// whole, then the payload, zero if not: 1 + 64 * `blocks` bits.
pub fn unwrap(blocks: usize) -> Program {
    let mut registers = Registers::new("key unwrap", blocks, blocks + 1);
    for t in (1..=STEPS * blocks).rev() {
        registers.step(&UNWRAP_STEP, t);
    }
    let outputs = registers.assembly.call(&check(blocks), registers.halves.concat());
    registers.assembly.finish(outputs)
}

/// All registers to the outputs of [`unwrap`].
fn check(blocks: usize) -> Arc<Circuit> {
    let (mut builder, registers) = Builder::new(HALF_BITS * (1 + blocks));
    let (value, payload) = registers.split_at(HALF_BITS);
    let expected = constants(&INITIAL_VALUE);
    let same = value.iter().zip(expected).map(|(a, b)| {
        let differ = builder.xor(*a, b);
        builder.not(differ)
    });
    let same = same.collect();
    let whole = all(&mut builder, same);
    let mut outputs = vec![whole];
    outputs.extend(payload.iter().map(|bit| builder.and(whole, *bit)));
    Arc::new(builder.finish(&outputs))
}
