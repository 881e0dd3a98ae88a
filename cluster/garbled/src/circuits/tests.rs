use std::sync::LazyLock;

use ::hmac::{Hmac, Mac};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sha2::{Digest, Sha256};

use super::aes::KEY_EXPANSION;
use super::sha256::{COMPRESSION, INITIAL_STATE, compress, schedule};
use super::*;
use crate::circuit::Width;

mod aes_and_wrap;

static TAG: LazyLock<Program> = LazyLock::new(hmac_tag);
static VERIFY: LazyLock<Program> = LazyLock::new(hmac_verify);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect()
}

fn random<const N: usize>(rng: &mut ChaCha20Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn random_bytes(rng: &mut ChaCha20Rng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// The state of an HMAC key after its pad, in clear.
fn keyed_state(key: &[u8], pad: u8) -> [u8; 32] {
    let mut block = [pad; 64];
    let short = if key.len() > 64 {
        Sha256::digest(key).to_vec()
    } else {
        key.to_vec()
    };
    block
        .iter_mut()
        .zip(short)
        .for_each(|(padded, key)| *padded ^= key);
    compress(INITIAL_STATE, &block)
}

/// The inner hash in clear, from the inner state.
fn inner_digest(state: [u8; 32], message: &[u8]) -> [u8; 32] {
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
    padded.extend((8 * (64 + message.len() as u64)).to_be_bytes());
    let blocks = padded.as_chunks().0;
    blocks.iter().fold(state, compress)
}

/// Secret and public inputs of the tag's program.
fn tag_inputs(key: &[u8], message: &[u8]) -> ([u8; 32], [u8; 256]) {
    let inner = inner_digest(keyed_state(key, 0x36), message);
    (keyed_state(key, 0x5c), outer_schedule(&inner))
}

#[test]
fn sizes_are_those_of_the_design() {
    assert_eq!(COMPRESSION.ands(), 16_120);
    assert_eq!(TAG.ands(), 16_120);
    assert_eq!(VERIFY.ands(), 16_120 + 255);
    let (wrap, unwrap) = (wrap(4), unwrap(4));
    assert_eq!(wrap.ands(), 173_696);
    assert_eq!(unwrap.ands(), 174_015);
    assert_eq!(KEY_EXPANSION.ands() + wrap.calls[2].circuit.ands(), 8_832);
    assert_eq!((wrap.secret, wrap.public, wrap.outputs.len()), (256, 256, 320));
    assert_eq!(
        (unwrap.secret, unwrap.public, unwrap.outputs.len()),
        (256, 320, 257)
    );
}

#[test]
fn a_program_is_the_same_each_time() {
    let circuit = || Arc::clone(&check_value().calls[0].circuit);
    assert_eq!(circuit(), circuit());
    assert_ne!(TAG.id(), VERIFY.id());
}

#[test]
#[should_panic(expected = "a lane of the call has no wire")]
fn a_lane_that_is_no_wire_is_refused() {
    let (mut assembly, mut inputs) = Assembly::new("test", 32, 0);
    inputs[255] += 1;
    assembly.call(&KEY_EXPANSION, inputs);
}

#[test]
#[should_panic(expected = "inputs of the call")]
fn a_call_without_a_wire_for_every_lane_is_refused() {
    let (mut assembly, inputs) = Assembly::new("test", 8, 0);
    let (builder, bits) = Builder::of_width(Width::Four, 64);
    assembly.call(&Arc::new(builder.finish(&bits)), inputs);
}

#[test]
fn compression_in_clear_is_sha256() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for length in (0..70).chain([119, 120, 1000]) {
        let message = random_bytes(&mut rng, length);
        // inner_digest counts a block before the message.
        let block = random(&mut rng);
        let expected = Sha256::new()
            .chain_update(block)
            .chain_update(&message)
            .finalize();
        assert_eq!(
            inner_digest(compress(INITIAL_STATE, &block), &message)[..],
            expected[..]
        );
    }
}

#[test]
fn compression_in_a_circuit_is_that_in_clear() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    for _ in 0..20 {
        let (state, block) = (random(&mut rng), random(&mut rng));
        assert_eq!(TAG.evaluate(&state, &schedule(&block)), compress(state, &block));
    }
}

#[test]
fn tags_are_those_of_rfc_4231() {
    let long = "This is a test using a larger than block-size key and a larger than block-size data. \
                The key needs to be hashed before being used by the HMAC algorithm.";
    let larger = "Test Using Larger Than Block-Size Key - Hash Key First";
    let cases: [(Vec<u8>, &[u8], &str); 7] = [
        (
            vec![0x0b; 20],
            b"Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            vec![0xaa; 20],
            &[0xdd; 50],
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
        ),
        (
            (1..=25).collect(),
            &[0xcd; 50],
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
        ),
        // Truncated to 128 bits.
        (
            vec![0x0c; 20],
            b"Test With Truncation",
            "a3b6167473100ee06e0c796c2955552b",
        ),
        (
            vec![0xaa; 131],
            larger.as_bytes(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            vec![0xaa; 131],
            long.as_bytes(),
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    ];
    for (key, message, expected) in cases {
        let (outer, schedule) = tag_inputs(&key, message);
        let (tag, expected) = (TAG.evaluate(&outer, &schedule), hex(expected));
        assert_eq!(tag[..expected.len()], expected);
        assert_eq!(VERIFY.evaluate(&outer, &[&schedule[..], &tag].concat()), [1]);
    }
}

#[test]
fn tags_are_those_of_the_crate() {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    for _ in 0..50 {
        let (key_length, length) = (rng.gen_range(0..100), rng.gen_range(0..300));
        let (key, message) = (random_bytes(&mut rng, key_length), random_bytes(&mut rng, length));
        let expected = Hmac::<Sha256>::new_from_slice(&key)
            .unwrap()
            .chain_update(&message);
        let (outer, schedule) = tag_inputs(&key, &message);
        assert_eq!(
            TAG.evaluate(&outer, &schedule),
            expected.finalize().into_bytes()[..]
        );
    }
}

#[test]
fn a_tag_with_a_flipped_byte_is_refused() {
    let (outer, schedule) = tag_inputs(b"key", b"message");
    let tag = TAG.evaluate(&outer, &schedule);
    for byte in 0..32 {
        for flip in [1 << (byte % 8), 0xff] {
            let mut wrong = tag.clone();
            wrong[byte] ^= flip;
            assert_eq!(VERIFY.evaluate(&outer, &[&schedule[..], &wrong].concat()), [0]);
        }
    }
}

#[test]
fn states_are_those_in_clear() {
    let (mut rng, program) = (ChaCha20Rng::seed_from_u64(4), hmac_states());
    for _ in 0..10 {
        let (key, mask) = (random::<32>(&mut rng), random::<32>(&mut rng));
        let states = program.evaluate(&[key, mask].concat(), &[]);
        assert_eq!(states[..32], keyed_state(&key, 0x36));
        let outer: Vec<u8> = states[32..]
            .iter()
            .zip(mask)
            .map(|(outer, mask)| outer ^ mask)
            .collect();
        assert_eq!(outer, keyed_state(&key, 0x5c));
    }
}

#[test]
fn the_check_value_is_a_hash() {
    let (mut rng, program) = (ChaCha20Rng::seed_from_u64(5), check_value());
    for _ in 0..10 {
        let (key, block) = (random::<32>(&mut rng), random(&mut rng));
        let expected = Sha256::new().chain_update(block).chain_update(key).finalize();
        let value = program.evaluate(&key, &compress(INITIAL_STATE, &block));
        assert_eq!(value, expected[..CHECK_BYTES]);
    }
}
