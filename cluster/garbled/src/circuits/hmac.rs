//! HMAC-SHA-256 (RFC 2104): the outer hash in circuits, the inner one in clear; and the value that a key is checked by.
//!
//! Of a key K, at most 64 bytes long and filled up with zeros, the inner state is compress(IV, K ^ ipad) and the outer
//! state compress(IV, K ^ opad).

use std::sync::Arc;

use super::sha256::{
    BLOCK_BYTES, COMPRESSION, INITIAL_STATE, SCHEDULE_BYTES, STATE_BYTES, compress_bits, schedule, to_bits,
    words,
};
use super::{Assembly, all, constants};
use crate::builder::{Bit, Builder};
use crate::program::Program;

/// Length of a key, of the pieces of one, and of a tag.
pub const KEY_BYTES: usize = 32;
/// Length of a check value.
pub const CHECK_BYTES: usize = 16;

const IPAD: u8 = 0x36;
const OPAD: u8 = 0x5c;

/// What follows 32 bytes in the last block of a hash over 96.
fn padding() -> [u8; BLOCK_BYTES - 32] {
    let mut padding = [0; BLOCK_BYTES - 32];
    padding[0] = 0x80;
    padding[24..].copy_from_slice(&(8 * 96u64).to_be_bytes());
    padding
}

/// The public input of [`hmac_tag`] for an inner digest: the schedule of the outer hash's last block.
pub fn outer_schedule(inner: &[u8; STATE_BYTES]) -> [u8; SCHEDULE_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    block[..32].copy_from_slice(inner);
    block[32..].copy_from_slice(&padding());
    schedule(&block)
}

/// Secret: the outer state, 32 bytes. Public: [`outer_schedule`], 256 bytes. Output: the tag, 32 bytes.
pub fn hmac_tag() -> Program {
    let (mut assembly, inputs) = Assembly::new("hmac tag", STATE_BYTES, SCHEDULE_BYTES);
    let tag = assembly.call(&COMPRESSION, inputs);
    assembly.finish(tag)
}

/// Secret: the outer state, 32 bytes. Public: [`outer_schedule`], 256 bytes, and a tag, 32 bytes. Output: one bit,
/// whether the tag is the right one.
pub fn hmac_verify() -> Program {
    let (mut assembly, mut inputs) = Assembly::new("hmac verify", STATE_BYTES, SCHEDULE_BYTES + KEY_BYTES);
    let claimed = inputs.split_off(8 * (STATE_BYTES + SCHEDULE_BYTES));
    let mut compared = assembly.call(&COMPRESSION, inputs);
    compared.extend(claimed);
    let (mut builder, bits) = Builder::new(compared.len());
    let (tag, claimed) = bits.split_at(8 * KEY_BYTES);
    let same: Vec<Bit> = tag
        .iter()
        .zip(claimed)
        .map(|(a, b)| {
            let differ = builder.xor(*a, *b);
            builder.not(differ)
        })
        .collect();
    let same = all(&mut builder, same);
    let same = assembly.call(&Arc::new(builder.finish(&[same])), compared);
    assembly.finish(same)
}

/// Secret: a key K and a mask, 32 bytes each. Outputs: the inner state of K, 32 bytes, then its outer state ^ the mask,
/// 32 bytes.
pub fn hmac_states() -> Program {
    let (mut assembly, inputs) = Assembly::new("hmac states", 2 * KEY_BYTES, 0);
    let (mut builder, bits) = Builder::new(inputs.len());
    let (key, mask) = bits.split_at(8 * KEY_BYTES);
    let [inner, outer] = [IPAD, OPAD].map(|pad| {
        let mut block = constants(&[pad; BLOCK_BYTES]);
        for (padded, key) in block.iter_mut().zip(key) {
            *padded = builder.xor(*padded, *key);
        }
        to_bits(&compress_bits(
            &mut builder,
            words(&constants(&INITIAL_STATE)),
            &block,
        ))
    });
    let masked = outer
        .iter()
        .zip(mask)
        .map(|(outer, mask)| builder.xor(*outer, *mask));
    let outputs: Vec<Bit> = inner.into_iter().chain(masked.collect::<Vec<_>>()).collect();
    let outputs = assembly.call(&Arc::new(builder.finish(&outputs)), inputs);
    assembly.finish(outputs)
}

/// Secret: a key k, 32 bytes. Public: SHA-256's state after one block, 32 bytes. Output: the first 16 bytes of the hash
/// over that block and k.
pub fn check_value() -> Program {
    let (mut assembly, inputs) = Assembly::new("check value", KEY_BYTES, STATE_BYTES);
    let (mut builder, bits) = Builder::new(inputs.len());
    let (key, state) = bits.split_at(8 * KEY_BYTES);
    let block = [key, &constants(&padding())].concat();
    let hash = to_bits(&compress_bits(&mut builder, words(state), &block));
    let circuit = builder.finish(&hash[..8 * CHECK_BYTES]);
    let outputs = assembly.call(&Arc::new(circuit), inputs);
    assembly.finish(outputs)
}
