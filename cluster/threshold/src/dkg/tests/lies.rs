//! Dealers that lie (F26) are named with proof; a coordinator that lies gets nobody named.

use super::*;
use crate::envelope::open;
use crate::group::DecodeError;
use crate::package::PackageError;

type Scalar = <Edwards25519 as Group>::Scalar;
/// A package as it travels: vector, challenge, response.
type PackageParts = (Vec<Vec<u8>>, Vec<u8>, Vec<u8>);

const LIAR: u16 = 2;

fn fault<G: Group>(outcomes: &Outcomes<G>, of: u16) -> &Fault {
    match &outcomes[&of] {
        Err(fault) => fault,
        Ok(_) => panic!("participant {of} has a share of a key that a liar took part in"),
    }
}

fn assert_proven(world: &World, fault: &Fault, reason: &Reason) {
    assert_eq!((&fault.reason, &fault.culprits[..]), (reason, &[LIAR][..]));
    let evidence = fault.evidence.as_ref().expect("proof");
    assert_eq!(evidence.convicts::<Edwards25519>(&world.session), Some(LIAR));
    // Proof is good for its own ceremony alone.
    let other = World::new(3, 2, &[], 77);
    assert_eq!(evidence.convicts::<Edwards25519>(&other.session), None);
}

fn assert_unnamed(outcomes: &Outcomes<Edwards25519>, of: u16, reason: &Reason) {
    let fault = fault(outcomes, of);
    assert_eq!(
        (&fault.reason, &fault.culprits[..], &fault.evidence),
        (reason, &[][..], &None)
    );
}

/// The liar's package, changed by `lie`, told to everybody else in rounds 0 and 1.
fn with_package(lie: impl Fn(&World, &mut PackageParts)) -> (World, Outcomes<Edwards25519>) {
    let mut world = World::new(3, 2, &[], 9);
    let polynomial =
        Polynomial::<Edwards25519>::from_coefficients(vec![Scalar::from(5u64), Scalar::from(6u64)]);
    let (honest, _) = package::build(&world.session, LIAR, &polynomial, &mut world.rng);
    let mut parts: PackageParts = postcard::from_bytes(&honest).unwrap();
    lie(&world, &mut parts);
    let package = postcard::to_allocvec(&parts).unwrap();
    let outcomes = world.run_with(BTreeMap::new(), |world, round, me, set| {
        let payload = match round {
            0 => package::hash::<Edwards25519>(&world.session, LIAR, &package).to_vec(),
            _ => package.clone(),
        };
        if me != LIAR && round < 2 {
            set.insert(LIAR, world.say(round, LIAR, &payload));
        }
    });
    (world, outcomes)
}

fn assert_package(world: &World, outcomes: &Outcomes<Edwards25519>, error: PackageError) {
    for honest in [1, 3] {
        assert_proven(world, fault(outcomes, honest), &Reason::Package(LIAR, error));
    }
}

#[test]
fn a_bad_proof_of_possession() {
    let (world, outcomes) = with_package(|_, parts| parts.2[0] ^= 1);
    assert_package(&world, &outcomes, PackageError::Proof);
    let (world, outcomes) = with_package(|_, parts| parts.1[0] ^= 1);
    assert_package(&world, &outcomes, PackageError::Proof);
    let (world, outcomes) = with_package(|_, parts| parts.2 = vec![0xff; 32]);
    assert_package(&world, &outcomes, PackageError::Malformed);
}

#[test]
fn a_rogue_key() {
    // A constant term of which only the difference to another's is known.
    let (world, outcomes) = with_package(|_, parts| {
        let mine = Edwards25519::decode(&parts.0[0]).unwrap();
        let theirs = Edwards25519::mul_base(&Scalar::from(1_234u64));
        parts.0[0] = Edwards25519::encode(&(mine - theirs)).to_vec();
    });
    assert_package(&world, &outcomes, PackageError::Proof);
    // Another dealer's whole package, proof included.
    let (world, outcomes) = with_package(|world, parts| {
        let theirs = vec![Scalar::from(7u64), Scalar::from(8u64)];
        let theirs = Polynomial::<Edwards25519>::from_coefficients(theirs);
        let (copied, _) = package::build(&world.session, 1, &theirs, &mut world.rng.clone());
        *parts = postcard::from_bytes(&copied).unwrap();
    });
    assert_package(&world, &outcomes, PackageError::Proof);
}

#[test]
fn a_wrong_degree() {
    let (world, outcomes) = with_package(|_, parts| parts.0.push(parts.0[1].clone()));
    assert_package(&world, &outcomes, PackageError::Degree(3));
    let (world, outcomes) = with_package(|_, parts| parts.0.truncate(1));
    assert_package(&world, &outcomes, PackageError::Degree(1));
}

#[test]
fn unusable_points() {
    let mut identity = vec![0; 32];
    identity[0] = 1;
    for place in [0, 1] {
        let (world, outcomes) = with_package(|_, parts| parts.0[place] = identity.clone());
        assert_package(
            &world,
            &outcomes,
            PackageError::Point(place, DecodeError::Identity),
        );
        // y = 0 has order 4.
        let (world, outcomes) = with_package(|_, parts| parts.0[place] = vec![0; 32]);
        assert_package(
            &world,
            &outcomes,
            PackageError::Point(place, DecodeError::Torsion),
        );
        let (world, outcomes) = with_package(|_, parts| parts.0[place].push(0));
        assert_package(
            &world,
            &outcomes,
            PackageError::Point(place, DecodeError::Malformed),
        );
    }
}

#[test]
fn an_identity_as_constant_term_with_a_valid_proof() {
    let mut world = World::new(3, 2, &[], 9);
    let polynomial = vec![Scalar::from(0u64), Scalar::from(6u64)];
    let outcomes = world.run_with::<Edwards25519>(BTreeMap::from([(LIAR, polynomial)]), |_, _, _, _| {});
    assert_package(&world, &outcomes, PackageError::Point(0, DecodeError::Identity));
}

#[test]
fn a_polynomial_that_gives_a_member_zero() {
    let mut world = World::new(3, 2, &[], 9);
    let polynomial = vec![Scalar::from(6u64), -Scalar::from(2u64)];
    let outcomes = world.run_with::<Edwards25519>(BTreeMap::from([(LIAR, polynomial)]), |_, _, _, _| {});
    assert_package(&world, &outcomes, PackageError::ZeroShare(3));
}

#[test]
fn another_package_than_was_hashed() {
    let mut world = World::new(3, 2, &[], 9);
    let outcomes = world.run_with::<Edwards25519>(BTreeMap::new(), |world, round, me, set| {
        if round == 0 && me == 1 {
            set.insert(LIAR, world.say(0, LIAR, &[7; 32]));
        }
    });
    assert_proven(&world, fault(&outcomes, 1), &Reason::NotCommitted(LIAR));
}

#[test]
fn two_packages_for_two_participants() {
    let mut world = World::new(3, 2, &[], 9);
    let polynomial =
        Polynomial::<Edwards25519>::from_coefficients(vec![Scalar::from(7u64), Scalar::from(8u64)]);
    let (second, _) = package::build(&world.session, LIAR, &polynomial, &mut world.rng);
    let outcomes = world.run_with::<Edwards25519>(BTreeMap::new(), |world, round, me, set| {
        let hash = package::hash::<Edwards25519>(&world.session, LIAR, &second);
        match (round, me) {
            (0, 3) => _ = set.insert(LIAR, world.say(0, LIAR, &hash)),
            (1, 3) => _ = set.insert(LIAR, world.say(1, LIAR, &second)),
            _ => (),
        }
    });
    for honest in [1, 3] {
        assert_proven(&world, fault(&outcomes, honest), &Reason::Equivocation(LIAR));
    }
}

/// Changes the liar's deal and signs it again, for everybody else.
fn with_deal(lie: impl Fn(&mut World, &mut Deal)) -> (World, Outcomes<Edwards25519>) {
    with_deal_in(World::new(3, 2, &[], 9), lie)
}

fn with_deal_in(mut world: World, lie: impl Fn(&mut World, &mut Deal)) -> (World, Outcomes<Edwards25519>) {
    let outcomes = world.run_with(BTreeMap::new(), |world, round, me, set| {
        if round == 2 && me != LIAR {
            let mut deal: Deal = postcard::from_bytes(message::read(&set[&LIAR]).unwrap().payload).unwrap();
            lie(world, &mut deal);
            let told = world.say(2, LIAR, &postcard::to_allocvec(&deal).unwrap());
            set.insert(LIAR, told);
        }
    });
    (world, outcomes)
}

fn sealed_lie(world: &mut World, member: u16, share: Scalar) -> SealedShare {
    let (session, key) = (world.session.clone(), world.signing[&LIAR].clone());
    envelope::seal::<Edwards25519>(&session, LIAR, member, &share, &key, &mut world.rng).unwrap()
}

#[test]
fn a_bad_share_for_one_member() {
    for share in [Scalar::from(1u64), Scalar::from(0u64)] {
        let (world, outcomes) = with_deal(|world, deal| deal.envelopes[0] = sealed_lie(world, 1, share));
        assert_proven(&world, fault(&outcomes, 1), &Reason::Share(LIAR));
        assert!(outcomes[&3].is_ok(), "only the receiver can see it");
    }
}

#[test]
fn an_unsigned_share_and_an_envelope_that_does_not_open_are_accusations() {
    let (_, outcomes) = with_deal(|world, deal| {
        let session = world.session.clone();
        deal.envelopes[0] = envelope::seal_bytes(&session, LIAR, 1, &[1; 96], &mut world.rng).unwrap();
    });
    let accused = |reason| Fault {
        culprits: vec![LIAR],
        reason,
        evidence: None,
    };
    assert_eq!(*fault(&outcomes, 1), accused(Reason::UnsignedShare(LIAR)));
    let (_, outcomes) = with_deal(|_, deal| deal.envelopes[0].ciphertext[0] ^= 1);
    assert_eq!(*fault(&outcomes, 1), accused(Reason::Envelope(LIAR)));
    // An envelope of another ceremony: its associated data differs.
    let (_, outcomes) = with_deal(|world, deal| {
        let mut other = World::new(3, 2, &[], 10);
        other.rng = world.rng.clone();
        deal.envelopes[0] = sealed_lie(&mut other, 1, Scalar::from(9u64));
    });
    assert_eq!(*fault(&outcomes, 1), accused(Reason::Envelope(LIAR)));
}

#[test]
fn a_deal_of_the_wrong_shape() {
    let lies: [fn(&mut Deal); 8] = [
        |deal| deal.envelopes[1] = deal.envelopes[0].clone(),
        |deal| _ = deal.envelopes.pop(),
        |deal| deal.envelopes.push(deal.envelopes[0].clone()),
        |deal| deal.envelopes.reverse(),
        |deal| deal.envelopes[0].dealer = 3,
        |deal| deal.envelopes[1].ciphertext.push(0),
        |deal| _ = deal.echo.pop(),
        |deal| deal.echo[0] = deal.echo[1],
    ];
    for lie in lies {
        let (world, outcomes) = with_deal(|_, deal| lie(deal));
        for honest in [1, 3] {
            assert_proven(&world, fault(&outcomes, honest), &Reason::Malformed(LIAR));
        }
    }
}

#[test]
fn an_echo_of_what_was_never_said() {
    let (world, outcomes) = with_deal(|_, deal| deal.echo[2].payload[0] ^= 1);
    for honest in [1, 3] {
        assert_proven(&world, fault(&outcomes, honest), &Reason::FalseEcho(LIAR));
    }
}

#[test]
fn malformed_payloads() {
    for round in [0u8, 1, 2] {
        for payload in [&[][..], &[0xff; 33], &[0x00; 200]] {
            let mut world = World::new(3, 2, &[], 9);
            let outcomes = world.run_with::<Edwards25519>(BTreeMap::new(), |world, now, me, set| {
                if now == round && me == 1 {
                    set.insert(LIAR, world.say(round, LIAR, payload));
                }
            });
            let named = fault(&outcomes, 1);
            assert_eq!(named.culprits, [LIAR]);
            let convicted = named
                .evidence
                .as_ref()
                .and_then(|it| it.convicts::<Edwards25519>(&world.session));
            assert_eq!(convicted, Some(LIAR), "round {round}: {named}");
        }
    }
}

/// Runs a generation in which participant 1 gets `sent` as the liar's message of `round`.
fn with_message(round: u8, sent: impl Fn(&Set) -> Vec<u8>) -> Outcomes<Edwards25519> {
    World::new(3, 2, &[], 9).run_with(BTreeMap::new(), |_, now, me, set| {
        if now == round && me == 1 {
            set.insert(LIAR, sent(set));
        }
    })
}

/// What participant 1 is given in each round of an honest generation.
fn honest_sets(world: &mut World) -> Vec<Set> {
    let mut sets = Vec::new();
    world.run_with::<Edwards25519>(BTreeMap::new(), |_, _, me, set| {
        if me == 1 {
            sets.push(set.clone());
        }
    });
    sets
}

#[test]
fn messages_of_another_ceremony_round_or_sender_name_nobody() {
    let replayed = honest_sets(&mut World::new(3, 2, &[], 8));
    let same = honest_sets(&mut World::new(3, 2, &[], 9));
    for round in 0..3u8 {
        let place = usize::from(round);
        let outcomes = with_message(round, |_| replayed[place][&LIAR].clone());
        assert_unnamed(&outcomes, 1, &Reason::Unsigned(LIAR));
        let outcomes = with_message(round, |set| set[&3].clone());
        assert_unnamed(&outcomes, 1, &Reason::Unsigned(LIAR));
        let outcomes = with_message(round, |_| same[(place + 1) % 3][&LIAR].clone());
        assert_unnamed(&outcomes, 1, &Reason::Unsigned(LIAR));
    }
}

#[test]
fn what_a_coordinator_can_do_names_nobody() {
    type Lie = fn(&mut Set);
    let cases: [(Lie, Reason); 6] = [
        (|set| _ = set.remove(&LIAR), Reason::IncompleteSet),
        (|set| _ = set.insert(9, Vec::new()), Reason::IncompleteSet),
        (
            |set| _ = set.insert(LIAR, vec![0; 1 << 20]),
            Reason::TooLong(LIAR),
        ),
        (
            |set| _ = set.insert(LIAR, vec![0xff; 40]),
            Reason::Unreadable(LIAR),
        ),
        (|set| set.get_mut(&LIAR).unwrap()[10] ^= 1, Reason::Unsigned(LIAR)),
        (|set| set.get_mut(&1).unwrap()[10] ^= 1, Reason::NotOurs),
    ];
    for (lie, reason) in cases {
        for round in 0..3 {
            let mut world = World::new(3, 2, &[], 9);
            let outcomes = world.run_with::<Edwards25519>(BTreeMap::new(), |_, now, me, set| {
                if now == round && me == 1 {
                    lie(set);
                }
            });
            assert_unnamed(&outcomes, 1, &reason);
        }
    }
}

#[test]
fn rounds_come_once_and_in_order_and_nothing_follows_a_fault() {
    let mut world = World::new(3, 2, &[], 9);
    let mut sets = honest_sets(&mut world);
    let (session, mut rng) = (world.session.clone(), world.rng.clone());
    let begin = |rng: &mut ChaCha20Rng| {
        Participant::<Edwards25519>::begin(session.clone(), 1, &world.signing[&1], rng).unwrap()
    };
    let out_of_turn = Some(Fault::unnamed(Reason::OutOfTurn));
    let (mut early, _) = begin(&mut rng);
    assert_eq!(early.deal(&sets[1], &mut rng).err(), out_of_turn);
    assert_eq!(early.packages(&sets[0]).err(), out_of_turn, "a fault ends it");
    let (early, _) = begin(&mut rng);
    assert_eq!(early.finish(&sets[2], &world.opening[&1]).err(), out_of_turn);
    let (mut twice, own) = begin(&mut rng);
    sets[0].insert(1, own);
    assert!(twice.packages(&sets[0]).is_ok());
    assert_eq!(twice.packages(&sets[0]).err(), out_of_turn);
    let not_pinned = Participant::<Edwards25519>::begin(session.clone(), 1, &world.signing[&2], &mut rng);
    assert_eq!(not_pinned.err(), Some(Fault::unnamed(Reason::NotParticipant(1))));
    let absent = World::new(3, 2, &[3], 9);
    let not_there =
        Participant::<Edwards25519>::begin(absent.session.clone(), 3, &absent.signing[&3], &mut rng);
    assert_eq!(not_there.err(), Some(Fault::unnamed(Reason::NotParticipant(3))));
}

#[test]
fn honest_messages_convict_nobody() {
    let mut world = World::new(3, 2, &[], 9);
    let sets = honest_sets(&mut world);
    let session = world.session.clone();
    let convicts = |evidence: Evidence| evidence.convicts::<Edwards25519>(&session);
    for set in &sets {
        assert_eq!(convicts(Evidence::Message(set[&2].clone())), None);
    }
    let (hash, package) = (sets[0][&2].clone(), sets[1][&2].clone());
    assert_eq!(
        convicts(Evidence::Broken {
            hash,
            package: package.clone()
        }),
        None
    );
    // Two honest dealers' messages do not make one broken promise.
    assert_eq!(
        convicts(Evidence::Broken {
            hash: sets[0][&3].clone(),
            package: package.clone()
        }),
        None
    );
    let first = message::read(&package).unwrap().statement;
    let mut second = first;
    assert_eq!(convicts(Evidence::Equivocation { first, second }), None);
    second.payload[0] ^= 1;
    assert_eq!(convicts(Evidence::Equivocation { first, second }), None);
    let second = message::read(&sets[0][&2]).unwrap().statement;
    assert_eq!(convicts(Evidence::Equivocation { first, second }), None);
    // An honest share, published; and one that the dealer never signed.
    let deal: Deal = postcard::from_bytes(message::read(&sets[2][&2]).unwrap().payload).unwrap();
    let plain = envelope::unseal::<Edwards25519>(&session, &deal.envelopes[0], &world.opening[&1]).unwrap();
    let accusation = plain.accuse::<Edwards25519>(&session, 2, 1, &package);
    let Some(Evidence::Share {
        package,
        receiver,
        mut share,
        signature,
    }) = accusation.evidence.map(|it| *it)
    else {
        panic!("the share is signed");
    };
    let published = Evidence::Share {
        package: package.clone(),
        receiver,
        share: share.clone(),
        signature,
    };
    assert_eq!(convicts(published), None);
    share[0] ^= 1;
    assert_eq!(
        convicts(Evidence::Share {
            package,
            receiver,
            share,
            signature
        }),
        None
    );
}

#[test]
fn a_bad_envelope_for_an_absent_member_is_found_when_it_opens() {
    let absent = World::new(3, 2, &[3], 9);
    let (world, mut outcomes) = with_deal_in(absent, |world, deal| {
        deal.envelopes[1] = sealed_lie(world, 3, Scalar::from(1u64))
    });
    let outcome = outcomes.remove(&1).unwrap().unwrap();
    let (key, session) = (&world.opening[&3], &world.session);
    let opened = |packages: &Set, envelopes: &[SealedShare]| {
        open(session, 3, key, &outcome.commitment, packages, envelopes)
            .err()
            .expect("a share that does not fit")
    };
    let kept = &outcome.envelopes[&3];
    let named = opened(&outcome.packages, kept);
    assert_eq!(
        (&named.reason, &named.culprits[..]),
        (&Reason::Share(LIAR), &[LIAR][..])
    );
    assert_eq!(
        named.evidence.unwrap().convicts::<Edwards25519>(session),
        Some(LIAR)
    );
    assert_eq!(opened(&Set::new(), kept), Fault::unnamed(Reason::Sum));
}

#[test]
fn envelopes_that_a_keeper_damaged_name_nobody() {
    let mut world = World::new(3, 2, &[3], 9);
    let outcome = world.run::<Edwards25519>().remove(&1).unwrap().unwrap();
    let next = world.run::<Edwards25519>().remove(&1).unwrap().unwrap();
    let other = World::new(3, 2, &[3], 10)
        .run::<Edwards25519>()
        .remove(&1)
        .unwrap()
        .unwrap();
    let good = outcome.envelopes[&3].clone();
    let (key, session) = (&world.opening[&3], &world.session);
    let opened = |envelopes: &[SealedShare]| {
        open(session, 3, key, &outcome.commitment, &outcome.packages, envelopes).map(|share| share.index())
    };
    assert_eq!(opened(&good), Ok(3));
    let mut damaged = good.clone();
    damaged[1].ciphertext[0] ^= 1;
    assert_eq!(opened(&damaged), Err(Fault::unnamed(Reason::Envelope(2))));
    let mut damaged = good.clone();
    damaged[0].encapsulated = [0; 32];
    assert_eq!(opened(&damaged), Err(Fault::unnamed(Reason::Envelope(1))));
    assert_eq!(
        opened(&other.envelopes[&3]),
        Err(Fault::unnamed(Reason::Envelope(1)))
    );
    assert_eq!(opened(&good[..1]), Err(Fault::unnamed(Reason::IncompleteSet)));
    assert_eq!(
        opened(&[good[0].clone(), good[0].clone()]),
        Err(Fault::unnamed(Reason::IncompleteSet))
    );
    let elsewhere = open(session, 3, key, &next.commitment, &Set::new(), &good);
    assert_eq!(
        elsewhere.err(),
        Some(Fault::unnamed(Reason::Sum)),
        "another key's commitment"
    );
    let other_key = open(
        session,
        3,
        &world.opening[&1],
        &outcome.commitment,
        &outcome.packages,
        &good,
    );
    assert_eq!(other_key.err(), Some(Fault::unnamed(Reason::NotParticipant(3))));
}
