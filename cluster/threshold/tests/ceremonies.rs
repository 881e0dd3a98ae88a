//! A key's life through the public interface alone: generated with a member away, its envelopes opened later, then
//! used by every quorum, checked by verifiers that are not ours.

// Clippy sees only the functions marked as tests as such.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use conclave_threshold::dkg::{Outcome, Participant};
use conclave_threshold::envelope::{self, EnvelopeKey};
use conclave_threshold::frost::{self, CommitmentList, VerifyingContext};
use conclave_threshold::{Commitment, Edwards25519, KeyShare, Member, Purpose, Session, SessionTerms};
use conclave_threshold::{diffie_hellman, diffie_hellman::Context};
use ed25519_dalek::SigningKey;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

struct Node {
    signing: SigningKey,
    opening: EnvelopeKey,
}

struct Key {
    commitment: Commitment,
    shares: BTreeMap<u16, KeyShare>,
}

/// Generates a key of n members and threshold k with `away` absent, lets the absent open their envelopes, and gives
/// every share after a trip through its sealed bytes.
fn generate(members: u16, threshold: u16, away: &[u16], purpose: Purpose, rng: &mut ChaCha20Rng) -> Key {
    let nodes: BTreeMap<u16, Node> = (1..=members)
        .map(|index| {
            (
                index,
                Node {
                    signing: SigningKey::generate(rng),
                    opening: EnvelopeKey::generate(rng),
                },
            )
        })
        .collect();
    let pinned = |(index, node): (&u16, &Node)| Member {
        index: *index,
        verifying_key: node.signing.verifying_key().to_bytes(),
        envelope_key: node.opening.public(),
    };
    let participants: BTreeSet<u16> = (1..=members).filter(|index| !away.contains(index)).collect();
    let session = Arc::new(
        Session::new(SessionTerms {
            cluster: [1; 32],
            ceremony: [2; 32],
            key: b"urn:key".to_vec(),
            key_type: "a type".into(),
            purpose,
            epoch: 4,
            threshold,
            members: nodes.iter().map(pinned).collect(),
            participants: participants.clone(),
            leaving: Vec::new(),
            constants: BTreeMap::new(),
        })
        .unwrap(),
    );
    assert_eq!(session.absent().collect::<Vec<_>>(), away);

    let mut running: BTreeMap<u16, Participant> = BTreeMap::new();
    let mut round0 = BTreeMap::new();
    for me in &participants {
        let begun = Participant::begin(session.clone(), *me, &nodes[me].signing, rng);
        let (participant, sent) = begun.unwrap();
        running.insert(*me, participant);
        round0.insert(*me, sent);
    }
    let round1: BTreeMap<u16, Vec<u8>> = running
        .iter_mut()
        .map(|(me, participant)| (*me, participant.packages(&round0).unwrap()))
        .collect();
    let round2: BTreeMap<u16, Vec<u8>> = running
        .iter_mut()
        .map(|(me, participant)| (*me, participant.deal(&round1, rng).unwrap()))
        .collect();
    let mut outcomes: BTreeMap<u16, Outcome> = running
        .into_iter()
        .map(|(me, participant)| (me, participant.finish(&round2, &nodes[&me].opening).unwrap()))
        .collect();
    let transcripts: BTreeSet<[u8; 32]> = outcomes.values().map(|outcome| outcome.transcript).collect();
    assert_eq!(transcripts.len(), 1, "one transcript for all to sign");

    let (_, keeper) = outcomes.pop_last().unwrap();
    let mut shares = BTreeMap::new();
    for member in away {
        let (key, kept) = (&nodes[member].opening, &keeper.envelopes[member]);
        let opened = envelope::open(&session, *member, key, &keeper.commitment, &keeper.packages, kept);
        shares.insert(*member, opened.unwrap());
    }
    let commitment = keeper.commitment.clone();
    shares.extend(outcomes.into_iter().map(|(me, outcome)| (me, outcome.share)));
    shares.insert(keeper.share.index(), keeper.share);
    for share in shares.values_mut() {
        *share = KeyShare::from_bytes(&share.to_sealed_bytes()).unwrap();
        assert!(commitment.holds(share));
    }
    assert_eq!(
        shares.keys().copied().collect::<Vec<_>>(),
        (1..=members).collect::<Vec<_>>()
    );
    Key { commitment, shares }
}

fn quorums(members: u16, threshold: u16) -> Vec<Vec<u16>> {
    (0u32..1 << members)
        .filter(|mask| mask.count_ones() == u32::from(threshold))
        .map(|mask| {
            (1..=members)
                .filter(|index| mask >> (index - 1) & 1 == 1)
                .collect()
        })
        .collect()
}

fn sign(key: &Key, quorum: &[u16], message: &[u8], rng: &mut ChaCha20Rng) -> [u8; 64] {
    let context = VerifyingContext::new(&key.commitment).unwrap();
    let mut list = CommitmentList::new();
    let mut kept = Vec::new();
    for index in quorum {
        let (nonces, public) = frost::commit(&key.shares[index], &[5; 32], rng).unwrap();
        list.insert(*index, public);
        kept.push((*index, nonces));
    }
    let shares = kept
        .into_iter()
        .map(|(index, nonces)| {
            (
                index,
                frost::sign(nonces, &key.shares[&index], &context, message, &list).unwrap(),
            )
        })
        .collect();
    frost::aggregate(&context, message, &list, &shares).unwrap()
}

fn derive(key: &Key, quorum: &[u16], u: [u8; 32], rng: &mut ChaCha20Rng) -> [u8; 32] {
    let context = Context {
        cluster: &[1; 32],
        operation: b"operation 1 attempt 1",
        key: b"urn:key",
    };
    let peer = diffie_hellman::lift(u).unwrap();
    let partials = quorum
        .iter()
        .map(|index| {
            let share = &key.shares[index];
            (
                *index,
                diffie_hellman::partial(share, &key.commitment, &context, &peer, rng).unwrap(),
            )
        })
        .collect();
    *diffie_hellman::combine(&key.commitment, &context, &peer, &partials).unwrap()
}

const COMMITTEES: [(u16, u16, &[u16]); 6] = [
    (3, 2, &[]),
    (3, 2, &[3]),
    (4, 3, &[]),
    (4, 3, &[1]),
    (5, 3, &[]),
    (5, 3, &[2, 5]),
];

#[test]
fn every_quorum_signs() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for (members, threshold, away) in COMMITTEES {
        let key = generate(members, threshold, away, Purpose::Sign, &mut rng);
        let public = key.commitment.public_key();
        for quorum in quorums(members, threshold) {
            let signature = sign(&key, &quorum, b"message", &mut rng);
            let verifier = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public);
            verifier.verify(b"message", &signature).unwrap();
        }
    }
}

#[test]
fn every_quorum_agrees() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let theirs = [6; 32];
    let public = x25519_dalek::x25519(theirs, x25519_dalek::X25519_BASEPOINT_BYTES);
    for (members, threshold, away) in COMMITTEES {
        let key = generate(members, threshold, away, Purpose::Agree, &mut rng);
        let expected = x25519_dalek::x25519(theirs, key.commitment.montgomery());
        for quorum in quorums(members, threshold) {
            assert_eq!(derive(&key, &quorum, public, &mut rng), expected);
        }
    }
}

#[test]
fn a_key_for_one_use_refuses_the_other() {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let signing = generate(3, 2, &[], Purpose::Sign, &mut rng);
    let agreeing = generate(3, 2, &[], Purpose::Agree, &mut rng);
    let context = Context {
        cluster: &[1; 32],
        operation: b"operation",
        key: b"urn:key",
    };
    let peer = diffie_hellman::lift(agreeing.commitment.montgomery()).unwrap();
    assert!(
        diffie_hellman::partial(
            &signing.shares[&1],
            &signing.commitment,
            &context,
            &peer,
            &mut rng
        )
        .is_err()
    );
    assert!(frost::commit(&agreeing.shares[&1], &[5; 32], &mut rng).is_err());
    assert!(VerifyingContext::new(&agreeing.commitment).is_err());
    let public: Commitment<Edwards25519> = agreeing.commitment;
    assert!(!public.holds(&signing.shares[&1]));
}
