//! RFC 9591's vectors, verifiers that are not ours, signers and coordinators that lie, and cloned machines.

use std::collections::BTreeSet;

use curve25519_dalek::constants::EIGHT_TORSION;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::dealer::{Dealt, deal, deal_polynomial};

type Key = Dealt<Edwards25519>;
type Signed = (CommitmentList, BTreeMap<u16, [u8; 32]>);

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(11)
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .map(|place| u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).unwrap())
        .collect()
}

fn scalar(hex: &str) -> Scalar {
    Edwards25519::decode_scalar(&bytes(hex)).unwrap()
}

fn key(members: u16, threshold: u16) -> (Key, VerifyingContext) {
    let key = deal(members, threshold, Purpose::Sign, 1, &mut rng());
    let context = VerifyingContext::new(&key.commitment).unwrap();
    (key, context)
}

fn ring_accepts(context: &VerifyingContext, message: &[u8], signature: &[u8; 64]) -> bool {
    let public = context.commitment().public_key();
    ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public)
        .verify(message, signature)
        .is_ok()
}

fn two_rounds(key: &Key, context: &VerifyingContext, signers: &[u16], message: &[u8]) -> Signed {
    let mut rng = rng();
    let mut list = CommitmentList::new();
    let mut kept = Vec::new();
    for index in signers {
        let share = &key.shares[usize::from(*index) - 1];
        let (nonces, public) = commit(share, &[1; 32], &mut rng).unwrap();
        list.insert(*index, public);
        kept.push((share, nonces));
    }
    let sign_one = |(share, nonces): (&KeyShare, Nonces)| {
        (
            share.index(),
            sign(nonces, share, context, message, &list).unwrap(),
        )
    };
    let shares = kept.into_iter().map(sign_one).collect();
    (list, shares)
}

/// RFC 9591, appendix E.1.
#[test]
fn vectors_of_the_rfc() {
    let coefficients = vec![
        scalar("7b1c33d3f5291d85de664833beb1ad469f7fb6025a0ec78b3a790c6e13a98304"),
        scalar("178199860edd8c62f5212ee91eff1295d0d670ab4ed4506866bae57e7030b204"),
    ];
    let key = deal_polynomial::<Edwards25519>(3, coefficients, Purpose::Sign, 0);
    let context = VerifyingContext::new(&key.commitment).unwrap();
    let public = bytes("15d21ccd7ee42959562fc8aa63224c8851fb3ec85a3faf66040d380fb9738673");
    assert_eq!(key.commitment.public_key()[..], public);
    let shares = [
        "929dcc590407aae7d388761cddb0c0db6f5627aea8e217f4a033f2ec83d93509",
        "a91e66e012e4364ac9aaa405fcafd370402d9859f7b6685c07eed76bf409e80d",
        "d3cb090a075eb154e82fdb4b3cb507f110040905468bb9c46da8bdea643a9a02",
    ];
    for (share, expected) in key.shares.iter().zip(shares) {
        assert_eq!(*share.scalar(), scalar(expected));
    }
    let nonces_one = Nonces::new(
        Zeroizing::new(scalar(
            "ef6599dea4010581a72b3018c37c29a4341d7cab0773e8687ca74dcf14009701",
        )),
        Zeroizing::new(scalar(
            "2baadfa0c69aa60d517ad4751de372a73f9d89cfc39026601f18458cdec12605",
        )),
    );
    let nonces_three = Nonces::new(
        Zeroizing::new(scalar(
            "80f8d9a4b8f9366e1a0b618107c907cd3ee29fa9bb40b4691cc1bde696240005",
        )),
        Zeroizing::new(scalar(
            "2610b664a5a187b4855e87d2ff485bebdf043dc2f161fcd4854cd01dc0276404",
        )),
    );
    let point = |hex: &str| -> [u8; 32] { bytes(hex).try_into().unwrap() };
    let list = CommitmentList::from([(1, nonces_one.points.encoded), (3, nonces_three.points.encoded)]);
    assert_eq!(
        list[&1].hiding,
        point("9b116f12589591a7e23fe8048059ab10ab48e67739e7a2fb3890f61a7999478c")
    );
    assert_eq!(
        list[&1].binding,
        point("c39b66b7dfccb122da24f13587f9a08c4347cae70046ca15169adf90ba65854d")
    );
    assert_eq!(
        list[&3].hiding,
        point("e679a2a971748ccfaabead4dbe8ac1def61275c186c79d471e1e45091ad1e687")
    );
    assert_eq!(
        list[&3].binding,
        point("b2a942478453fabb6bd3181c56ba657413447b4136e1daea2484d396d1a516b3")
    );
    let one = sign(nonces_one, &key.shares[0], &context, b"test", &list).unwrap();
    let three = sign(nonces_three, &key.shares[2], &context, b"test", &list).unwrap();
    assert_eq!(
        one,
        point("60997f0142e43e8005027fe5ab7447dac00d22c2d7ddd9571a02613ba7d81c08")
    );
    assert_eq!(
        three,
        point("79390e78bc59699c7af831f8f5fb478ec871a85f561a8641b5670ac4443f720f")
    );
    let signature = aggregate(&context, b"test", &list, &BTreeMap::from([(1, one), (3, three)])).unwrap();
    let expected = "154fb694ee7fcb37bf2381d94488c2a84b03b3352ad085feca81ad26d45852b7\
                    ecfe971ce4da95c4a95db93ac376b053897fca212ef85f99cf696bffeb178f07";
    assert_eq!(signature[..], bytes(expected));
    assert!(ring_accepts(&context, b"test", &signature));
}

fn add_one(share: &[u8; 32]) -> [u8; 32] {
    (Edwards25519::decode_scalar(share).unwrap() + Scalar::ONE).to_bytes()
}

#[test]
fn every_quorum_signs_what_others_verify() {
    let long = vec![0xa5; 70_000];
    for (members, threshold, quorums) in [
        (3, 2, vec![vec![1, 2], vec![1, 3], vec![2, 3]]),
        (4, 3, vec![vec![1, 2, 3], vec![1, 2, 4], vec![2, 3, 4]]),
        (5, 3, vec![vec![1, 2, 3], vec![1, 3, 5], vec![2, 4, 5]]),
    ] {
        let (key, context) = key(members, threshold);
        for quorum in quorums {
            for message in [&b""[..], b"message", &long] {
                let (list, shares) = two_rounds(&key, &context, &quorum, message);
                let signature = aggregate(&context, message, &list, &shares).unwrap();
                assert!(ring_accepts(&context, message, &signature));
                assert!(!ring_accepts(&context, b"another", &signature));
            }
        }
    }
}

#[test]
fn two_members_sign_in_one_round_trip() {
    let (key, context) = key(3, 2);
    let mut rng = rng();
    let (nonces, mine) = commit(&key.shares[2], &[1; 32], &mut rng).unwrap();
    let (theirs, share) = cosign(
        &key.shares[0],
        &context,
        b"message",
        (3, mine),
        &[2; 32],
        &mut rng,
    )
    .unwrap();
    let list = CommitmentList::from([(1, theirs), (3, mine)]);
    let own = sign(nonces, &key.shares[2], &context, b"message", &list).unwrap();
    let shares = BTreeMap::from([(1, share), (3, own)]);
    let signature = aggregate(&context, b"message", &list, &shares).unwrap();
    assert!(ring_accepts(&context, b"message", &signature));
    // With oneself, or for a key of three signers, there is no folding.
    assert_eq!(
        cosign(
            &key.shares[0],
            &context,
            b"message",
            (1, mine),
            &[2; 32],
            &mut rng
        )
        .err(),
        Some(Refusal::Signers)
    );
    let (key, context) = super::tests::key(4, 3);
    assert_eq!(
        cosign(
            &key.shares[0],
            &context,
            b"message",
            (3, mine),
            &[2; 32],
            &mut rng
        )
        .err(),
        Some(Refusal::Signers)
    );
}

#[test]
fn liars_are_named_all_of_them() {
    let (key, context) = key(5, 3);
    let (list, shares) = two_rounds(&key, &context, &[1, 2, 4], b"message");
    let verdict = |list: &CommitmentList, shares: &BTreeMap<u16, [u8; 32]>| {
        let culprits = aggregate(&context, b"message", list, shares).unwrap_err();
        (culprits.members, culprits.reason)
    };
    let mut wrong = shares.clone();
    wrong.insert(2, add_one(&shares[&2]));
    assert_eq!(verdict(&list, &wrong), (vec![2], Refusal::Invalid));
    wrong.insert(4, add_one(&shares[&4]));
    assert_eq!(verdict(&list, &wrong), (vec![2, 4], Refusal::Invalid));
    let mut garbage = shares.clone();
    garbage.insert(1, [0xff; 32]);
    assert_eq!(verdict(&list, &garbage), (vec![1], Refusal::Malformed));
    // A share for another message.
    let (other_list, other) = two_rounds(&key, &context, &[1, 2, 4], b"another");
    assert_eq!(list, other_list);
    let mut replayed = shares.clone();
    replayed.insert(4, other[&4]);
    assert_eq!(verdict(&list, &replayed), (vec![4], Refusal::Invalid));
    for torsion in EIGHT_TORSION {
        for place in [0, 1] {
            let mut small = list.clone();
            let entry = small.get_mut(&2).unwrap();
            let target = if place == 0 {
                &mut entry.hiding
            } else {
                &mut entry.binding
            };
            *target = torsion.compress().to_bytes();
            assert_eq!(verdict(&small, &shares), (vec![2], Refusal::Malformed));
        }
    }
    // Sets that the caller got wrong name nobody.
    let mut fewer = shares.clone();
    fewer.remove(&2);
    assert_eq!(verdict(&list, &fewer), (vec![], Refusal::Signers));
    let mut fewer_listed = list.clone();
    fewer_listed.remove(&2);
    assert_eq!(verdict(&fewer_listed, &fewer), (vec![], Refusal::Signers));
}

#[test]
fn a_coordinator_that_finishes_names_the_holder_that_lied() {
    let (key, context) = key(3, 2);
    let (message, frame) = (b"message", [7; 32]);
    let attempt = |lie: &dyn Fn(&mut NonceCommitments, &mut [u8; 32])| {
        let (nonces, own) = commit(&key.shares[0], &frame, &mut rng()).unwrap();
        let holder = (&key.shares[1], &context, &message[..]);
        let (mut theirs, mut share) =
            cosign(holder.0, holder.1, holder.2, (1, own), &[8; 32], &mut rng()).unwrap();
        lie(&mut theirs, &mut share);
        let list = CommitmentList::from([(1, own), (2, theirs)]);
        let shares = BTreeMap::from([(2, share)]);
        finish(nonces, &key.shares[0], &context, message, &list, &shares)
    };
    let signature = attempt(&|_, _| ()).unwrap();
    assert!(ring_accepts(&context, message, &signature));
    let named = |signed: Result<[u8; 64], Culprits>| signed.unwrap_err().members;
    assert_eq!(named(attempt(&|_, share| *share = add_one(share))), [2]);
    assert_eq!(named(attempt(&|_, share| *share = [0xff; 32])), [2]);
    for torsion in EIGHT_TORSION {
        let small = torsion.compress().to_bytes();
        let shifted = |bytes: &mut [u8; 32]| {
            let point = CompressedEdwardsY(*bytes).decompress().unwrap() + torsion;
            *bytes = point.compress().to_bytes();
        };
        assert_eq!(named(attempt(&|points, _| points.hiding = small)), [2]);
        assert_eq!(named(attempt(&|points, _| points.binding = small)), [2]);
        if !torsion.is_identity() {
            assert_eq!(named(attempt(&|points, _| shifted(&mut points.hiding))), [2]);
            assert_eq!(named(attempt(&|points, _| shifted(&mut points.binding))), [2]);
        }
    }
    // What the caller got wrong names nobody.
    let (nonces, own) = commit(&key.shares[0], &frame, &mut rng()).unwrap();
    let alone = CommitmentList::from([(1, own)]);
    assert!(
        named(finish(
            nonces,
            &key.shares[0],
            &context,
            message,
            &alone,
            &BTreeMap::new()
        ))
        .is_empty()
    );
}

#[test]
fn a_signer_refuses_what_a_coordinator_changes() {
    let (key, context) = key(3, 2);
    let share = &key.shares[0];
    let other = commit(&key.shares[1], &[3; 32], &mut rng()).unwrap().1;
    let third = commit(&key.shares[2], &[4; 32], &mut rng()).unwrap().1;
    let attempt = |change: &dyn Fn(&mut CommitmentList)| {
        let (nonces, own) = commit(share, &[1; 32], &mut rng()).unwrap();
        let mut list = CommitmentList::from([(1, own), (2, other)]);
        change(&mut list);
        sign(nonces, share, &context, b"message", &list).err()
    };
    assert_eq!(attempt(&|_| {}), None);
    assert_eq!(attempt(&|list| _ = list.insert(1, other)), Some(Refusal::Invalid));
    assert_eq!(attempt(&|list| _ = list.remove(&1)), Some(Refusal::Signers));
    assert_eq!(attempt(&|list| _ = list.remove(&2)), Some(Refusal::Signers));
    assert_eq!(attempt(&|list| _ = list.insert(3, third)), Some(Refusal::Signers));
    let foreign = |list: &mut CommitmentList| {
        list.remove(&2);
        list.insert(9, other);
    };
    assert_eq!(attempt(&foreign), Some(Refusal::Signers));
    let without_own = |list: &mut CommitmentList| {
        list.remove(&1);
        list.insert(3, third);
    };
    assert_eq!(attempt(&without_own), Some(Refusal::Invalid));
    for torsion in EIGHT_TORSION {
        let point = torsion.compress().to_bytes();
        let small = NonceCommitments {
            hiding: point,
            ..other
        };
        assert_eq!(
            attempt(&|list| _ = list.insert(2, small)),
            Some(Refusal::Malformed)
        );
        let small = NonceCommitments {
            binding: point,
            ..other
        };
        assert_eq!(
            attempt(&|list| _ = list.insert(2, small)),
            Some(Refusal::Malformed)
        );
    }
}

#[test]
fn shares_of_another_epoch_or_purpose_do_not_sign() {
    let (key, context) = key(3, 2);
    let other = commit(&key.shares[1], &[3; 32], &mut rng()).unwrap().1;
    let old = KeyShare::<Edwards25519>::new(1, 0, Purpose::Sign, key.shares[0].scalar()).unwrap();
    let cosigned = cosign(&old, &context, b"message", (2, other), &[1; 32], &mut rng());
    assert_eq!(cosigned.err(), Some(Refusal::Signers));
    let agree = KeyShare::<Edwards25519>::new(1, 1, Purpose::Agree, key.shares[0].scalar()).unwrap();
    assert_eq!(commit(&agree, &[1; 32], &mut rng()).err(), Some(Refusal::Purpose));
    let (nonces, own) = commit(&key.shares[0], &[1; 32], &mut rng()).unwrap();
    let list = CommitmentList::from([(1, own), (2, other)]);
    assert_eq!(
        sign(nonces, &agree, &context, b"message", &list).err(),
        Some(Refusal::Purpose)
    );
    let agreement = deal::<Edwards25519>(3, 2, Purpose::Agree, 1, &mut rng());
    assert_eq!(
        VerifyingContext::new(&agreement.commitment).err(),
        Some(Refusal::Purpose)
    );
}

/// F30 and I9: a cloned machine draws the same randomness, and still never the same pair for two frames or shares.
#[test]
fn clones_never_draw_one_pair_for_two_frames() {
    let (key, _) = key(3, 2);
    let mut seen = BTreeSet::new();
    let mut new = |public: NonceCommitments| seen.insert(public.hiding) && seen.insert(public.binding);
    for frame in 0..100u8 {
        // The same state every time, as a resumed copy has it.
        let (_, public) = commit(&key.shares[0], &[frame; 32], &mut rng()).unwrap();
        assert!(new(public), "frame {frame}");
    }
    let (_, public) = commit(&key.shares[1], &[0; 32], &mut rng()).unwrap();
    assert!(new(public), "another share");
    let mut rng = rng();
    rng.next_u64();
    let (_, public) = commit(&key.shares[0], &[0; 32], &mut rng).unwrap();
    assert!(new(public), "fresh randomness");
}
