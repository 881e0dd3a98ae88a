//! What can be asked of a key, as tasks: programs are built once and kept, public inputs are made here, outputs are read
//! here.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::circuits::sha256::{BLOCK_BYTES, INITIAL_STATE, STATE_BYTES, compress};
use crate::circuits::{self, CHECK_BYTES, KEY_BYTES, MAX_BLOCKS};
use crate::program::{Program, bits, bytes};
use crate::session::Task;

/// Bytes of a tag.
pub const TAG_BYTES: usize = 32;
/// RFC 3394 works on so many bytes at a time.
const HALF_BYTES: usize = 8;
/// Programs of longer wraps are built anew each time: a program takes some 50 KiB of memory for each block.
const KEPT_BLOCKS: usize = 32;

/// A length that cannot be wrapped or unwrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payload of a key wrap has 16 bytes or more, in steps of 8, and at most {most}", most = HALF_BYTES * MAX_BLOCKS)]
pub struct Length;

/// Which program a task runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Tag,
    Verify,
    Wrap(usize),
    Unwrap(usize),
    States,
    Check,
}

/// A program and its id.
type Built = (Arc<Program>, [u8; 32]);

impl Kind {
    fn build(self) -> Program {
        match self {
            Self::Tag => circuits::hmac_tag(),
            Self::Verify => circuits::hmac_verify(),
            Self::Wrap(blocks) => circuits::wrap(blocks),
            Self::Unwrap(blocks) => circuits::unwrap(blocks),
            Self::States => circuits::hmac_states(),
            Self::Check => circuits::check_value(),
        }
    }

    fn is_kept(self) -> bool {
        match self {
            Self::Wrap(blocks) | Self::Unwrap(blocks) => blocks <= KEPT_BLOCKS,
            Self::Tag | Self::Verify | Self::States | Self::Check => true,
        }
    }

    fn task(self, public: Vec<u8>, all_kept: bool) -> Task {
        let (program, id) = self.program();
        let kept = if all_kept { program.outputs.len() } else { 0 };
        Task::new(program, id, public, kept)
    }

    fn program(self) -> Built {
        static BUILT: LazyLock<Mutex<HashMap<Kind, Built>>> = LazyLock::new(Mutex::default);
        // Built outside of the lock: whoever comes at the same time builds it, too, the first time only.
        let built = || BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = built().get(&self) {
            return known.clone();
        }
        let program = self.build();
        let id = program.id();
        let made = (Arc::new(program), id);
        match self.is_kept() {
            true => built().entry(self).or_insert(made).clone(),
            false => made,
        }
    }
}

/// The tag of a message. `inner` is the key's inner state.
pub fn tag(inner: &[u8; STATE_BYTES], message: &[u8]) -> Task {
    Kind::Tag.task(
        circuits::outer_schedule(&inner_digest(inner, message)).to_vec(),
        false,
    )
}

/// Whether a tag is the message's.
pub fn verify(inner: &[u8; STATE_BYTES], message: &[u8], claimed: &[u8; TAG_BYTES]) -> Task {
    let schedule = circuits::outer_schedule(&inner_digest(inner, message));
    Kind::Verify.task([&schedule[..], claimed].concat(), false)
}

/// What [`verify`] has found.
pub fn verified(opened: &[u8]) -> bool {
    opened.first().is_some_and(|first| first & 1 == 1)
}

/// Whether a payload of this length can be wrapped.
///
/// # Errors
/// [`Length`].
pub fn check_length(payload: usize) -> Result<(), Length> {
    blocks(payload).map(drop)
}

/// The wrap of a payload.
///
/// # Errors
/// [`Length`].
pub fn wrap(payload: &[u8]) -> Result<Task, Length> {
    let blocks = blocks(payload.len())?;
    Ok(Kind::Wrap(blocks).task(payload.to_vec(), false))
}

/// The payload of a wrap.
///
/// # Errors
/// [`Length`].
pub fn unwrap(wrapped: &[u8]) -> Result<Task, Length> {
    let payload = wrapped.len().checked_sub(HALF_BYTES).ok_or(Length)?;
    Ok(Kind::Unwrap(blocks(payload)?).task(wrapped.to_vec(), false))
}

/// What [`unwrap`] has found: the payload, or that this key has not wrapped that.
pub fn unwrapped(opened: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut all = bits(opened);
    let whole = all.next()?;
    let payload: Zeroizing<Vec<bool>> = Zeroizing::new(all.collect());
    // The last byte has one bit: what fills it up is none.
    let whole_bytes = payload.len() / 64 * 64;
    whole.then(|| Zeroizing::new(bytes(&payload[..whole_bytes])))
}

/// At an HMAC key's birth: its inner state and its outer state under a mask, for the garblers alone.
pub fn states() -> Task {
    Kind::States.task(Vec::new(), true)
}

/// What [`states`] has found: the inner state, the outer state ^ the mask.
pub fn decoded_states(decoded: &[u8]) -> Option<([u8; STATE_BYTES], [u8; STATE_BYTES])> {
    let (inner, masked) = decoded.split_at_checked(STATE_BYTES)?;
    Some((inner.try_into().ok()?, masked.try_into().ok()?))
}

/// The value that a secret is checked by: the first [`CHECK_BYTES`] of a hash over the key's name and the secret.
pub fn check(key: &[u8]) -> Task {
    Kind::Check.task(compress(INITIAL_STATE, &check_block(key)).to_vec(), true)
}

/// The same of a secret that is known, for tests of known answers.
pub fn check_of(key: &[u8], secret: &[u8; KEY_BYTES]) -> [u8; CHECK_BYTES] {
    let hash: [u8; 32] = Sha256::digest([&check_block(key)[..], secret].concat()).into();
    std::array::from_fn(|at| hash[at])
}

fn check_block(key: &[u8]) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    block[..16].copy_from_slice(b"conclave check 1");
    block[16..48].copy_from_slice(&Sha256::digest(key));
    block
}

fn blocks(payload: usize) -> Result<usize, Length> {
    let blocks = payload / HALF_BYTES;
    let fits = payload.is_multiple_of(HALF_BYTES) && (2..=MAX_BLOCKS).contains(&blocks);
    fits.then_some(blocks).ok_or(Length)
}

/// The rest of the inner hash, whose first block (the padded key's) is in the state.
fn inner_digest(state: &[u8; STATE_BYTES], message: &[u8]) -> [u8; STATE_BYTES] {
    let bits = 8 * (BLOCK_BYTES as u64 + message.len() as u64);
    let mut padded = Zeroizing::new(message.to_vec());
    padded.push(0x80);
    let filled = (padded.len() + 8).next_multiple_of(BLOCK_BYTES);
    padded.resize(filled - 8, 0);
    padded.extend_from_slice(&bits.to_be_bytes());
    let (blocks, _) = padded.as_chunks::<BLOCK_BYTES>();
    blocks.iter().fold(*state, compress)
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, Mac};

    use super::*;

    /// States of a key, in clear.
    fn states_of(key: &[u8; 32]) -> [[u8; 32]; 2] {
        [0x36, 0x5c].map(|pad| {
            let mut block = [pad; BLOCK_BYTES];
            for (padded, key) in block.iter_mut().zip(key) {
                *padded ^= key;
            }
            compress(INITIAL_STATE, &block)
        })
    }

    fn in_clear(task: &Task, secret: &[u8]) -> Vec<u8> {
        task.program.evaluate(secret, &task.public)
    }

    #[test]
    fn a_tag_is_the_crates_for_every_length_near_a_block() {
        let key = [7; 32];
        let [inner, outer] = states_of(&key);
        for length in (0..=130).chain([1_000, 65_536]) {
            let message = vec![9; length];
            let mut other = Hmac::<Sha256>::new_from_slice(&key).unwrap();
            other.update(&message);
            let wanted: [u8; 32] = other.finalize().into_bytes().into();
            let tag = in_clear(&tag(&inner, &message), &outer);
            assert_eq!(tag, wanted, "{length}");
            if length % 64 == 0 {
                assert!(verified(&in_clear(&verify(&inner, &message, &wanted), &outer)));
                let mut wrong = wanted;
                wrong[31] ^= 0x80;
                assert!(!verified(&in_clear(&verify(&inner, &message, &wrong), &outer)));
            }
        }
    }

    #[test]
    fn what_was_wrapped_is_unwrapped_and_nothing_else() {
        let key = [5; 32];
        for length in [16, 32, 40] {
            let payload: Vec<u8> = (0..length).collect();
            let wrapped = in_clear(&wrap(&payload).unwrap(), &key);
            assert_eq!(wrapped.len(), payload.len() + 8);
            let opened = in_clear(&unwrap(&wrapped).unwrap(), &key);
            assert_eq!(unwrapped(&opened).as_deref(), Some(&payload));
            let mut broken = wrapped.clone();
            broken[0] ^= 1;
            assert_eq!(unwrapped(&in_clear(&unwrap(&broken).unwrap(), &key)), None);
        }
        for length in [0, 8, 17, 8 * MAX_BLOCKS + 8] {
            assert_eq!(wrap(&vec![0; length]).err(), Some(Length), "{length}");
        }
        for length in [0, 8, 16, 25] {
            assert_eq!(unwrap(&vec![0; length]).err(), Some(Length), "{length}");
        }
    }

    #[test]
    fn a_birth_gives_the_states_and_the_check_value() {
        let (key, mask) = ([3; 32], [0xf0; 32]);
        let [inner, outer] = states_of(&key);
        let decoded = in_clear(&states(), &[key, mask].concat());
        let masked = outer.map(|byte| byte ^ 0xf0);
        assert_eq!(decoded_states(&decoded), Some((inner, masked)));
        assert_eq!(in_clear(&check(b"name"), &key), check_of(b"name", &key));
        assert_ne!(check_of(b"name", &key), check_of(b"eman", &key));
        assert_eq!((states().opened, check(b"name").opened), (0, 0));
    }
}
