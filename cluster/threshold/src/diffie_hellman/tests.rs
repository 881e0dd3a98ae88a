//! Threshold X25519 against x25519-dalek, points that must be refused, and holders that lie.

use curve25519_dalek::constants::EIGHT_TORSION;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use x25519_dalek::x25519;

use super::*;
use crate::dealer::{Dealt, deal};

type Key = Dealt<Edwards25519>;

const CONTEXT: Context<'static> = Context {
    cluster: &[7; 32],
    operation: b"operation 1",
    key: b"key",
};

fn key(members: u16, threshold: u16, rng: &mut ChaCha20Rng) -> Key {
    deal(members, threshold, Purpose::Agree, 3, rng)
}

fn partials(
    key: &Key,
    holders: &[u16],
    peer: &Peer,
    rng: &mut ChaCha20Rng,
) -> BTreeMap<u16, Zeroizing<Vec<u8>>> {
    let one = |index: &u16| {
        let share = &key.shares[usize::from(*index) - 1];
        (
            *index,
            partial(share, &key.commitment, &CONTEXT, peer, rng).unwrap(),
        )
    };
    holders.iter().map(one).collect()
}

fn derive(key: &Key, holders: &[u16], u: [u8; 32], rng: &mut ChaCha20Rng) -> [u8; 32] {
    let peer = lift(u).unwrap();
    let partials = partials(key, holders, &peer, rng);
    *combine(&key.commitment, &CONTEXT, &peer, &partials).unwrap()
}

/// The clamped scalar that equals s or -s modulo l.
fn clamped(secret: &Scalar) -> [u8; 32] {
    let eighth = secret * *INVERSE_OF_EIGHT;
    let is_high = |scalar: &Scalar| scalar.as_bytes()[31] >> 3 == 1;
    let eighth = if is_high(&eighth) { eighth } else { -eighth };
    assert!(is_high(&eighth));
    let (mut bytes, mut carry) = ([0; 32], 0);
    for (out, byte) in bytes.iter_mut().zip(eighth.as_bytes()) {
        (*out, carry) = (byte << 3 | carry, byte >> 5);
    }
    assert!(
        bytes[0] & 7 == 0 && bytes[31] & 0xc0 == 0x40,
        "clamping must change nothing"
    );
    bytes
}

#[test]
fn a_thousand_random_pairs_agree_with_the_other_side() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for round in 0..1_000u32 {
        let (members, threshold, holders): (u16, u16, &[u16]) = match round % 3 {
            0 => (3, 2, &[1, 3]),
            1 => (4, 3, &[2, 3, 4]),
            _ => (5, 3, &[1, 4, 5]),
        };
        let key = key(members, threshold, &mut rng);
        let mut theirs = [0; 32];
        rng.fill_bytes(&mut theirs);
        let public = x25519(theirs, x25519_dalek::X25519_BASEPOINT_BYTES);
        assert_eq!(
            derive(&key, holders, public, &mut rng),
            x25519(theirs, key.commitment.montgomery())
        );
    }
}

#[test]
fn our_public_key_is_that_of_the_clamped_scalar() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    for _ in 0..50 {
        let key = key(3, 2, &mut rng);
        let public = x25519(clamped(&key.secret), x25519_dalek::X25519_BASEPOINT_BYTES);
        assert_eq!(public, key.commitment.montgomery());
    }
}

#[test]
fn points_with_torsion_agree_with_rfc_7748() {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    for _ in 0..20 {
        let key = key(3, 2, &mut rng);
        let point = EdwardsPoint::mul_base(&Edwards25519::random_scalar(&mut rng));
        for torsion in EIGHT_TORSION {
            let u = (point + torsion).to_montgomery().to_bytes();
            assert_eq!(
                derive(&key, &[1, 2], u, &mut rng),
                x25519(clamped(&key.secret), u)
            );
        }
    }
}

#[test]
fn bit_255_is_ignored_and_u_is_reduced() {
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let key = key(3, 2, &mut rng);
    let mut high = EdwardsPoint::mul_base(&Scalar::from(5u64))
        .to_montgomery()
        .to_bytes();
    high[31] |= 0x80;
    assert_eq!(
        derive(&key, &[1, 2], high, &mut rng),
        x25519(clamped(&key.secret), high)
    );
    // The u from p to 2^255 - 1 that lie on the curve.
    let mut seen = 0;
    for low in 0xefu8..=0xff {
        let mut u = [0xff; 32];
        (u[0], u[31]) = (low, 0x7f);
        if lift(u).is_ok() {
            seen += 1;
            assert_eq!(
                derive(&key, &[2, 3], u, &mut rng),
                x25519(clamped(&key.secret), u)
            );
        }
    }
    assert_eq!(seen, SMALL_ON_CURVE.iter().filter(|u| **u <= 18).count());
}

/// Which u below 19 lie on the curve and which on the twist, by Euler's criterion on u^3 + A u^2 + u.
const SMALL_ON_CURVE: [u8; 12] = [4, 6, 7, 8, 9, 10, 11, 13, 15, 16, 17, 18];
const SMALL_ON_TWIST: [u8; 5] = [2, 3, 5, 12, 14];

#[test]
fn twist_and_low_order_are_refused() {
    let small = |value: u8| {
        let mut u = [0; 32];
        u[0] = value;
        u
    };
    for value in SMALL_ON_CURVE {
        assert!(lift(small(value)).is_ok(), "{value}");
    }
    for value in SMALL_ON_TWIST {
        assert_eq!(lift(small(value)).err(), Some(Refused::Twist), "{value}");
    }
    let near_p = |low: u8| {
        let mut u = [0xff; 32];
        (u[0], u[31]) = (low, 0x7f);
        u
    };
    let mut table = vec![small(0), small(1), near_p(0xec), near_p(0xed), near_p(0xee)];
    table.extend(EIGHT_TORSION.iter().map(|point| point.to_montgomery().to_bytes()));
    // The two coordinates of order 8, as lists of such points have them.
    table.push(bytes(
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    ));
    table.push(bytes(
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    ));
    for u in table {
        let mut high = u;
        high[31] |= 0x80;
        assert_eq!(lift(u).err(), Some(Refused::LowOrder), "{u:x?}");
        assert_eq!(lift(high).err(), Some(Refused::LowOrder), "{high:x?}");
        assert_eq!(x25519([0x55; 32], u), [0; 32]);
    }
}

fn bytes(hex: &str) -> [u8; 32] {
    let digit = |place: usize| u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).unwrap();
    std::array::from_fn(digit)
}

#[test]
fn every_liar_is_named_and_the_rest_are_enough() {
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let key = key(5, 3, &mut rng);
    let peer = lift(x25519([9; 32], x25519_dalek::X25519_BASEPOINT_BYTES)).unwrap();
    let honest = partials(&key, &[1, 2, 3], &peer, &mut rng);
    let named = |set: &BTreeMap<u16, Zeroizing<Vec<u8>>>| {
        combine(&key.commitment, &CONTEXT, &peer, set)
            .err()
            .map(|culprits| (culprits.members, culprits.reason))
    };
    let with = |index: u16, bytes: Vec<u8>| {
        let mut set = honest.clone();
        set.insert(index, Zeroizing::new(bytes));
        set
    };
    let mut flipped = honest[&2].to_vec();
    flipped[70] ^= 1;
    assert_eq!(named(&with(2, flipped)), Some((vec![2], Refusal::Invalid)));
    assert_eq!(
        named(&with(2, vec![0xff; PARTIAL_BYTES])),
        Some((vec![2], Refusal::Malformed))
    );
    assert_eq!(named(&with(2, Vec::new())), Some((vec![2], Refusal::Malformed)));
    let mut long = honest[&2].to_vec();
    long.push(0);
    assert_eq!(named(&with(2, long)), Some((vec![2], Refusal::Malformed)));
    // Another member's partial, honest in itself.
    assert_eq!(
        named(&with(2, honest[&1].to_vec())),
        Some((vec![2], Refusal::Invalid))
    );
    let mut both = with(1, vec![1; PARTIAL_BYTES]);
    both.insert(3, Zeroizing::new(vec![2; 5]));
    assert_eq!(named(&both), Some((vec![1, 3], Refusal::Malformed)));
    for torsion in EIGHT_TORSION {
        let mut small = honest[&3].to_vec();
        small[..32].copy_from_slice(&torsion.compress().to_bytes());
        assert_eq!(named(&with(3, small)), Some((vec![3], Refusal::Malformed)));
    }
    let rest = partials(&key, &[3, 4, 5], &peer, &mut rng);
    let secret = *combine(&key.commitment, &CONTEXT, &peer, &rest).unwrap();
    assert_eq!(secret, x25519([9; 32], key.commitment.montgomery()));
}

/// An order-8 point added to a partial passes the proof for one challenge in eight; only the torsion check sees it.
#[test]
fn a_torsioned_partial_with_a_valid_proof_is_refused() {
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    let key = key(3, 2, &mut rng);
    let peer = lift(x25519([9; 32], x25519_dalek::X25519_BASEPOINT_BYTES)).unwrap();
    let share = &key.shares[1];
    let image = peer.point * share.scalar() + EIGHT_TORSION[1];
    let public = key.commitment.share_element(2);
    let context = |hash| hash_context(hash, &CONTEXT, &key.commitment, 2, &peer);
    let statement = Statement::<Edwards25519> {
        context: &context,
        public: &public,
        point: &peer.point,
        image: &image,
    };
    let proof = (0..1_000)
        .map(|_| statement.prove(share.scalar(), &mut rng))
        .find(|proof| statement.verify(proof))
        .expect("one proof in eight passes");
    let forged = [
        image.compress().to_bytes(),
        proof.challenge.to_bytes(),
        proof.response.to_bytes(),
    ]
    .concat();
    let mut set = partials(&key, &[1], &peer, &mut rng);
    set.insert(2, Zeroizing::new(forged));
    let culprits = combine(&key.commitment, &CONTEXT, &peer, &set).unwrap_err();
    assert_eq!((culprits.members, culprits.reason), (vec![2], Refusal::Malformed));
}

#[test]
fn a_partial_is_good_for_one_operation_key_epoch_and_peer() {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let key = key(3, 2, &mut rng);
    let peer = lift(x25519([9; 32], x25519_dalek::X25519_BASEPOINT_BYTES)).unwrap();
    let set = partials(&key, &[1, 2], &peer, &mut rng);
    assert!(combine(&key.commitment, &CONTEXT, &peer, &set).is_ok());
    let refused = |context: Context<'_>, commitment: &Commitment, peer: &Peer| {
        combine(commitment, &context, peer, &set)
            .err()
            .map(|culprits| culprits.reason)
    };
    let invalid = Some(Refusal::Invalid);
    assert_eq!(
        refused(
            Context {
                operation: b"operation 2",
                ..CONTEXT
            },
            &key.commitment,
            &peer
        ),
        invalid
    );
    assert_eq!(
        refused(
            Context {
                cluster: &[8; 32],
                ..CONTEXT
            },
            &key.commitment,
            &peer
        ),
        invalid
    );
    assert_eq!(
        refused(
            Context {
                key: b"key 2",
                ..CONTEXT
            },
            &key.commitment,
            &peer
        ),
        invalid
    );
    let other = lift(x25519([10; 32], x25519_dalek::X25519_BASEPOINT_BYTES)).unwrap();
    assert_eq!(refused(CONTEXT, &key.commitment, &other), invalid);
    // The same point, named by another coordinate: the proof is over the bytes that the client sent.
    let again = Peer {
        received: [1; 32],
        point: peer.point,
    };
    assert_eq!(refused(CONTEXT, &key.commitment, &again), invalid);
    let next = in_epoch(&key.commitment, 4);
    assert_eq!(refused(CONTEXT, &next, &peer), invalid);
    assert_eq!(
        partial(&key.shares[0], &next, &CONTEXT, &peer, &mut rng).err(),
        Some(Refusal::Signers)
    );
}

/// The same committed polynomial in another epoch.
fn in_epoch(commitment: &Commitment, epoch: u64) -> Commitment {
    Commitment::new(
        epoch,
        Purpose::Agree,
        commitment.members().to_vec(),
        commitment.vector().to_vec(),
    )
    .unwrap()
}

#[test]
fn a_wrong_set_names_nobody_and_a_signing_key_does_not_agree() {
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    let key = key(3, 2, &mut rng);
    let peer = lift(x25519([9; 32], x25519_dalek::X25519_BASEPOINT_BYTES)).unwrap();
    let nobody = |reason| {
        Some(Culprits {
            members: Vec::new(),
            reason,
        })
    };
    for holders in [&[1u16][..], &[1, 2, 3]] {
        let set = partials(&key, holders, &peer, &mut rng);
        assert_eq!(
            combine(&key.commitment, &CONTEXT, &peer, &set).err(),
            nobody(Refusal::Signers)
        );
    }
    let mut foreign = partials(&key, &[1, 2], &peer, &mut rng);
    let moved = foreign.remove(&2).unwrap();
    foreign.insert(9, moved);
    assert_eq!(
        combine(&key.commitment, &CONTEXT, &peer, &foreign).err(),
        nobody(Refusal::Signers)
    );
    let signing = deal::<Edwards25519>(3, 2, Purpose::Sign, 3, &mut rng);
    let refused = partial(&signing.shares[0], &signing.commitment, &CONTEXT, &peer, &mut rng);
    assert_eq!(refused.err(), Some(Refusal::Purpose));
}
