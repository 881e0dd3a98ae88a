//! Agreements with any public key and with what another holder sends: one secret whoever takes part, or the liar's name.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use conclave_threshold::Purpose;
use conclave_threshold::diffie_hellman::{Context, PARTIAL_BYTES, Peer, combine, lift, partial};
use conclave_threshold::dkg::Outcome;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

use super::{Seed, Target, seed};
use crate::support::ceremony::{CORRUPT, honest};
use crate::support::input::{Input, Output};

pub(super) const TARGET: Target = Target {
    name: "diffie_hellman",
    longest: 256,
    mutations: 300,
    run,
    seeds,
};

const CONTEXT: Context<'static> = Context {
    cluster: &[1; 32],
    operation: b"operation 1 attempt 1",
    key: b"urn:key",
};

static KEY: LazyLock<BTreeMap<u16, Outcome>> = LazyLock::new(|| honest(Purpose::Agree).1);

type Partial = Zeroizing<Vec<u8>>;

fn partial_of(member: u16, peer: &Peer) -> Partial {
    let (key, mut rng) = (&KEY[&member], ChaCha20Rng::from_seed([9; 32]));
    partial(&key.share, &key.commitment, &CONTEXT, peer, &mut rng).expect("a key that agrees")
}

/// A public key, then member 3's partial, or a difference to its honest one.
fn run(bytes: &[u8]) -> bool {
    let mut input = Input(bytes);
    let u = input.array();
    let Ok(peer) = lift(u) else {
        return false;
    };
    let is_difference = input.byte() & 1 == 1;
    let mut theirs = Zeroizing::new(input.chunk().to_vec());
    if is_difference {
        theirs.resize(PARTIAL_BYTES, 0);
        for (byte, honest) in theirs.iter_mut().zip(partial_of(CORRUPT, &peer).iter()) {
            *byte ^= honest;
        }
    }
    let commitment = &KEY[&1].commitment;
    let with = |other: u16, partial: Partial| {
        let partials = BTreeMap::from([(1, partial_of(1, &peer)), (other, partial)]);
        combine(commitment, &CONTEXT, &peer, &partials)
    };
    let wanted = with(2, partial_of(2, &peer)).expect("nobody lies");
    match with(CORRUPT, theirs) {
        Ok(secret) => {
            assert_eq!(secret, wanted, "one secret whoever takes part");
            assert_ne!(*secret, [0; 32]);
            true
        }
        Err(culprits) => {
            assert_eq!(culprits.members, [CORRUPT]);
            false
        }
    }
}

fn seeds() -> Vec<Seed> {
    let mut base_point = [0; 32];
    base_point[0] = 9;
    let peer = lift(base_point).expect("a point of the curve");
    let key = || Output::default().bytes(&base_point);
    vec![
        seed("own", key().byte(0).chunk(&partial_of(CORRUPT, &peer)).0),
        seed("no-difference", key().byte(1).chunk(&[]).0),
        seed("changed", key().byte(1).chunk(&[1]).0),
        seed("low-order", Output::default().bytes(&[0; 32]).byte(1).0),
    ]
}
