use aes_kw::{KeyInit, KwAes256};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::{hex, random, random_bytes};
use crate::circuits::aes::{self, KEY_EXPANSION};
use crate::circuits::sbox::{self, AFFINE};
use crate::circuits::*;

/// Product modulo x^8 + x^4 + x^3 + x + 1.
fn multiply(a: u8, b: u8) -> u8 {
    let double = |x: u8| x << 1 ^ if x >> 7 == 1 { 0x1b } else { 0 };
    let sums = (0..8).scan(a, |power, bit| {
        let term = if b >> bit & 1 == 1 { *power } else { 0 };
        *power = double(*power);
        Some(term)
    });
    sums.fold(0, |sum, term| sum ^ term)
}

#[test]
fn s_boxes_are_those_of_fips_197() {
    let circuit = |gates: fn(&mut Builder, sbox::Byte) -> sbox::Byte| {
        let (mut builder, bits) = Builder::new(8);
        let output = gates(&mut builder, bits.try_into().unwrap());
        builder.finish(&output)
    };
    let (forward, inverse) = (circuit(sbox::forward), circuit(sbox::inverse));
    assert_eq!((forward.ands(), inverse.ands()), (32, 32));
    let evaluate = |circuit: &Circuit, x: u8| {
        program::bytes(&circuit.evaluate(&program::bits(&[x]).collect::<Vec<_>>()))[0]
    };
    for x in 0..=255u8 {
        let inverted = (0..=255).find(|y| multiply(x, *y) == 1).unwrap_or(0);
        let rotated = (0..5).map(|count| inverted.rotate_left(count));
        let substituted = rotated.fold(AFFINE, |sum, term| sum ^ term);
        assert_eq!(evaluate(&forward, x) ^ AFFINE, substituted);
        assert_eq!(evaluate(&inverse, substituted ^ AFFINE), x);
    }
}

/// One block, the key expanded inside: secret the key, public the block.
fn cipher(cipher: fn(&mut Builder, &[Bit], &[Bit]) -> Vec<Bit>) -> Program {
    let (mut assembly, mut inputs) = Assembly::new("block", aes::KEY_BYTES, aes::BLOCK_BYTES);
    let block = inputs.split_off(8 * aes::KEY_BYTES);
    let round_keys = assembly.call(&KEY_EXPANSION, inputs);
    let (mut builder, bits) = Builder::of_width(aes::WIDTH, aes::ROUND_KEYS_BITS + aes::STATE_BITS);
    let (keys, plain) = bits.split_at(aes::ROUND_KEYS_BITS);
    let outputs = cipher(&mut builder, keys, plain);
    let inputs = [round_keys, block].map(|wires| aes::to_lanes(&wires)).concat();
    let outputs = assembly.call(&Arc::new(builder.finish(&outputs)), inputs);
    let outputs = aes::from_lanes(&outputs);
    assembly.finish(outputs)
}

#[test]
fn aes_is_that_of_fips_197() {
    // Appendix C.3.
    let key: Vec<u8> = (0..32).collect();
    let plain = hex("00112233445566778899aabbccddeeff");
    let encrypted = hex("8ea2b7ca516745bfeafc49904b496089");
    let (encrypt, decrypt) = (cipher(aes::encrypt), cipher(aes::decrypt));
    assert_eq!((encrypt.ands(), decrypt.ands()), (8_832, 8_832));
    assert_eq!(encrypt.evaluate(&key, &plain), encrypted);
    assert_eq!(decrypt.evaluate(&key, &encrypted), plain);
}

/// Whether it is whole, and the payload.
fn unwrapped(program: &Program, key: &[u8], wrapped: &[u8]) -> (bool, Vec<u8>) {
    let outputs: Vec<bool> = program::bits(&program.evaluate(key, wrapped)).collect();
    (outputs[0], program::bytes(&outputs[1..program.outputs.len()]))
}

#[test]
fn wraps_are_those_of_rfc_3394() {
    let key: Vec<u8> = (0..32).collect();
    let data = "00112233445566778899aabbccddeeff 0001020304050607 08090a0b0c0d0e0f";
    // Sections 4.3, 4.5 and 4.6.
    let cases = [
        (16, "64e8c3f9ce0f5ba2 63e9777905818a2a 93c8191e7d6e8ae7"),
        (
            24,
            "a8f9bc1612c68b3f f6e6f4fbe30e71e4 769c8b80a32cb895 8cd5d17d6b254da1",
        ),
        (
            32,
            "28c9f404c4b810f4 cbccb35cfb87f826 3f5786e2d80ed326 cbc7f0e71a99f43b fb988b9b7a02dd21",
        ),
    ];
    for (length, expected) in cases {
        let (payload, expected) = (&hex(data)[..length], hex(expected));
        assert_eq!(wrap(length / 8).evaluate(&key, payload), expected);
        let program = unwrap(length / 8);
        assert_eq!(unwrapped(&program, &key, &expected), (true, payload.to_vec()));
        for byte in (0..expected.len()).step_by(length / 8 - 1) {
            let mut wrong = expected.clone();
            wrong[byte] ^= 1 << (byte % 8);
            assert_eq!(unwrapped(&program, &key, &wrong), (false, vec![0; length]));
        }
    }
}

#[test]
fn wraps_are_those_of_the_crate() {
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    for (blocks, count) in [(2, 30), (3, 10), (4, 10), (8, 2)] {
        let (wrap, unwrap) = (wrap(blocks), unwrap(blocks));
        for _ in 0..count {
            let (key, payload) = (random::<32>(&mut rng), random_bytes(&mut rng, 8 * blocks));
            let mut wrapped = vec![0; 8 * blocks + 8];
            KwAes256::new(&key.into())
                .wrap_key(&payload, &mut wrapped)
                .unwrap();
            assert_eq!(wrap.evaluate(&key, &payload), wrapped);
            assert_eq!(unwrapped(&unwrap, &key, &wrapped), (true, payload));
        }
    }
}

#[test]
fn a_step_counter_of_two_bytes_is_that_of_the_crate() {
    let (key, payload) = ([7; 32], vec![9; 8 * 43]);
    let mut wrapped = vec![0; 8 * 44];
    KwAes256::new(&key.into())
        .wrap_key(&payload, &mut wrapped)
        .unwrap();
    assert_eq!(wrap(43).evaluate(&key, &payload), wrapped);
    assert_eq!(unwrapped(&unwrap(43), &key, &wrapped), (true, payload));
}
