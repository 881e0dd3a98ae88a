//! What a share store keeps for a node, once it is unsealed, and what members give each other of it: one encoding each.

use conclave_garbled::held::{Held, inner_digest};
use conclave_garbled::portion::{Gathered, Portion, Wanted};
use conclave_garbled::sharing::{BYTES, Name, Piece, deal, share_of};
use conclave_threshold::{Commitment, KeyShare, Purpose};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

use super::{Seed, Target, seed};
use crate::support::ceremony::honest;

pub(super) const TARGET: Target = Target {
    name: "share",
    longest: 1_024,
    mutations: 10_000,
    run,
    seeds,
};

/// What follows the first byte.
const KEY_SHARE: u8 = 0;
const COMMITMENT: u8 = 1;
const HELD: u8 = 2;
const PORTION: u8 = 3;

const NAME: Name<'static> = Name {
    cluster: &[1; 32],
    key: b"key",
    epoch: 0,
    sharing: 0,
};
const INNER: [u8; 32] = [9; 32];

fn run(bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else {
        return false;
    };
    match *kind {
        KEY_SHARE => {
            let share = KeyShare::<conclave_threshold::Edwards25519>::from_bytes(bytes);
            share.is_ok_and(|share| {
                assert_eq!(&share.to_sealed_bytes()[..], bytes, "a share has one encoding");
                true
            })
        }
        COMMITMENT => is_commitment(bytes),
        HELD => Held::from_bytes(bytes).is_ok_and(|held| {
            assert_eq!(&held.to_bytes()[..], bytes, "a part has one encoding");
            let (holders, holder) = held.share.place();
            assert!((3..=4).contains(&holders) && (1..=holders).contains(&holder));
            true
        }),
        PORTION => postcard::from_bytes(bytes).is_ok_and(|portion| is_wanted(&portion)),
        _ => false,
    }
}

fn is_commitment(bytes: &[u8]) -> bool {
    let Ok(commitment) = postcard::from_bytes::<Commitment>(bytes) else {
        return false;
    };
    let written = postcard::to_stdvec(&commitment).expect("a commitment can be written");
    assert_eq!(postcard::from_bytes(&written).as_ref(), Ok(&commitment));
    assert!((2..=commitment.members().len()).contains(&commitment.threshold()));
    for member in commitment.members() {
        let _ = commitment.public_share(*member);
    }
    true
}

/// What the first of four holders gives the last: taken only if it is what was committed to.
fn is_wanted(portion: &Portion) -> bool {
    let pieces = pieces();
    let commitments: Vec<[u8; 32]> = (1..)
        .zip(&pieces)
        .map(|(number, piece)| piece.commitment(&NAME, number))
        .collect();
    let wanted = Wanted {
        name: NAME,
        commitments: &commitments,
        inner: Some(inner_digest(&NAME, &INNER)),
        holder: 4,
    };
    let mut gathered = Gathered::default();
    if gathered.add(portion, &wanted).is_err() {
        return false;
    }
    if gathered.add(&Portion::of(&held(2), 4), &wanted).is_ok() {
        let whole = gathered.held(&wanted);
        assert!(whole.is_none_or(|whole| whole.to_bytes() == held(4).to_bytes()));
    }
    true
}

fn pieces() -> Vec<Piece> {
    deal(&[7; BYTES], 4, &mut ChaCha20Rng::from_seed([1; 32]))
}

fn held(holder: u8) -> Held {
    Held {
        share: share_of(&pieces(), holder).expect("one of four"),
        inner: Some(Zeroizing::new(INNER)),
    }
}

fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (name, purpose) in [("sign", Purpose::Sign), ("agree", Purpose::Agree)] {
        let (_, outcomes) = honest(purpose);
        let share = outcomes[&1].share.to_sealed_bytes();
        let commitment = postcard::to_stdvec(&outcomes[&1].commitment).unwrap_or_default();
        seeds.push(seed(
            format!("key-share-{name}"),
            [&[KEY_SHARE], &share[..]].concat(),
        ));
        seeds.push(seed(
            format!("commitment-{name}"),
            [&[COMMITMENT], &commitment[..]].concat(),
        ));
    }
    let portion = postcard::to_stdvec(&Portion::of(&held(1), 4)).unwrap_or_default();
    seeds.push(seed("held", [&[HELD], &held(1).to_bytes()[..]].concat()));
    seeds.push(seed("portion", [&[PORTION], &portion[..]].concat()));
    seeds
}
