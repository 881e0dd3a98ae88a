//! Renewals: the same key under new shares, and every way to make it another key.

use super::*;
use crate::dkg::renewal::constants;
use crate::package::PackageError;
use crate::session::SessionError;

impl World {
    /// The same committee about to renew the key of `commitment`, without `absent`.
    fn renewing<G: Group>(&self, commitment: &Commitment<G>, absent: &[u16], threshold: u16) -> World {
        let mut terms = self.session.terms().clone();
        terms.ceremony[0] ^= 0xff;
        terms.epoch += 1;
        terms.threshold = threshold;
        let indexes = self.session.indexes();
        terms.participants = indexes.filter(|index| !absent.contains(index)).collect();
        terms.constants = constants(commitment, terms.participants.iter().copied()).unwrap();
        World {
            session: Arc::new(Session::new(terms).unwrap()),
            signing: self.signing.clone(),
            opening: (self.opening.iter())
                .map(|(index, key)| (*index, EnvelopeKey::from_bytes(&key.to_sealed_bytes())))
                .collect(),
            rng: ChaCha20Rng::seed_from_u64(43),
        }
    }

    fn renew<G: Group>(
        &mut self,
        shares: &BTreeMap<u16, KeyShare<G>>,
        tamper: impl FnMut(&mut World, u8, u16, &mut Set),
    ) -> Outcomes<G> {
        let (mut running, mut set) = (BTreeMap::new(), Set::new());
        for me in self.participants() {
            let session = self.session.clone();
            let begun = Participant::<G>::renew(session, me, &self.signing[&me], &shares[&me], &mut self.rng);
            let (participant, sent) = begun.unwrap();
            running.insert(me, participant);
            set.insert(me, sent);
        }
        self.rounds(running, set, tamper)
    }
}

/// A member that has lost its share sees the ceremony of the others and has a share again, as good as theirs; it signs the
/// same transcript.
#[test]
fn who_has_lost_its_share_gets_one_by_watching() {
    for (members, threshold, lost) in [(3, 2, 2), (5, 3, 5)] {
        let (world, old, commitment) = born::<Edwards25519>(members, threshold);
        let key = secret::<Edwards25519>(&old.values().take(threshold.into()).collect::<Vec<_>>());
        let mut world = world.renewing(&commitment, &[lost], threshold);
        let mut watching = Some(Participant::<Edwards25519>::receive(world.session.clone(), lost).unwrap());
        let mut ended = None;
        let mut seen = BTreeSet::new();
        let outcomes = world.renew(&old, |world, round, _, set| {
            if !seen.insert(round) {
                return;
            }
            let mut watcher = watching.take().unwrap();
            match round {
                0 => assert_eq!(watcher.packages(set).unwrap(), b""),
                1 => assert_eq!(watcher.deal(set, &mut world.rng).unwrap(), b""),
                _ => return ended = Some(watcher.finish(set, &world.opening[&lost])),
            }
            watching = Some(watcher);
        });
        let ended = ended.unwrap().unwrap_or_else(|fault| panic!("{}", fault.reason));
        let (_, other) = outcomes.into_iter().next().unwrap();
        let other = other.unwrap_or_else(|fault| panic!("{}", fault.reason));
        assert_eq!(ended.transcript, other.transcript);
        assert!(other.commitment.holds(&ended.share));
        let quorum = [&ended.share, &other.share];
        if threshold == 2 {
            assert!(secret::<Edwards25519>(&quorum) == key);
        }
    }
}

#[test]
fn only_a_member_that_deals_nothing_watches_a_renewal() {
    let (world, _, commitment) = born::<Edwards25519>(3, 2);
    let watch =
        |session: &Arc<Session>, me| Participant::<Edwards25519>::receive(session.clone(), me).is_ok();
    assert!(!watch(&world.session, 3), "a generation");
    let renewing = world.renewing(&commitment, &[3], 2);
    assert!(watch(&renewing.session, 3));
    assert!(!watch(&renewing.session, 1), "a dealer");
    assert!(!watch(&renewing.session, 4), "a stranger");
}

/// Shares of a fresh key with a world for the next epoch's.
fn born<G: Group>(members: u16, threshold: u16) -> (World, BTreeMap<u16, KeyShare<G>>, Commitment<G>) {
    let mut world = World::new(members, threshold, &[], 1);
    let outcomes = world.run::<G>();
    let mut commitment = None;
    let mut shares = BTreeMap::new();
    for (index, outcome) in outcomes {
        let outcome = outcome.unwrap_or_else(|fault| panic!("{}", fault.reason));
        shares.insert(index, outcome.share);
        commitment = Some(outcome.commitment);
    }
    (world, shares, commitment.unwrap())
}

/// The secret that these shares give, if they are of one polynomial of their number.
fn secret<G: Group>(shares: &[&KeyShare<G>]) -> G::Scalar {
    let indexes: Vec<u16> = shares.iter().map(|share| share.index()).collect();
    shares.iter().fold(G::Scalar::from(0), |sum, share| {
        sum + lagrange::<G>(share.index(), &indexes).unwrap() * *share.scalar()
    })
}

fn every_quorum_has_the_same_key<G: Group>(members: u16, threshold: u16, absent: &[u16], next: u16) {
    let (world, old, commitment) = born::<G>(members, threshold);
    let key = secret::<G>(&old.values().take(threshold.into()).collect::<Vec<_>>());
    let mut world = world.renewing(&commitment, absent, next);
    let outcomes = world.renew(&old, |_, _, _, _| {});
    let mut shares = BTreeMap::new();
    let mut renewed = None;
    for (index, outcome) in outcomes {
        let outcome = outcome.unwrap_or_else(|fault| panic!("{}", fault.reason));
        assert_eq!(
            outcome.commitment.public_key().as_ref(),
            commitment.public_key().as_ref()
        );
        for absent in absent {
            let (packages, envelopes) = (&outcome.packages, &outcome.envelopes[absent]);
            let opening = &world.opening[absent];
            let opened = envelope::open(
                &world.session,
                *absent,
                opening,
                &outcome.commitment,
                packages,
                envelopes,
            );
            shares.insert(*absent, opened.unwrap_or_else(|fault| panic!("{}", fault.reason)));
        }
        assert!(outcome.commitment.holds(&outcome.share));
        shares.insert(index, outcome.share);
        renewed = Some(outcome.commitment);
    }
    let renewed = renewed.unwrap();
    assert_eq!((renewed.epoch(), renewed.threshold()), (2, usize::from(next)));
    let indexes: Vec<u16> = shares.keys().copied().collect();
    for quorum in subsets(&indexes, next.into()) {
        let of_quorum: Vec<_> = quorum.iter().map(|index| &shares[index]).collect();
        assert!(
            secret::<G>(&of_quorum) == key,
            "quorum {quorum:?} has another key"
        );
        // One share of the epoch before among them, and it is no share of this key.
        let mixed: Vec<_> = (of_quorum.iter().skip(1).copied())
            .chain([&old[&quorum[0]]])
            .collect();
        assert!(secret::<G>(&mixed) != key, "epochs mix");
        assert!(!renewed.holds(&old[&quorum[0]]));
    }
}

#[test]
fn every_quorum_of_the_new_shares_has_the_same_key_and_epochs_do_not_mix() {
    for (members, threshold) in [(2, 2), (3, 2), (4, 3), (5, 3)] {
        every_quorum_has_the_same_key::<Edwards25519>(members, threshold, &[], threshold);
        every_quorum_has_the_same_key::<Ristretto255>(members, threshold, &[], threshold);
    }
    every_quorum_has_the_same_key::<Edwards25519>(3, 2, &[2], 2);
    every_quorum_has_the_same_key::<Edwards25519>(5, 3, &[1, 5], 3);
    every_quorum_has_the_same_key::<Edwards25519>(5, 3, &[], 2);
    every_quorum_has_the_same_key::<Edwards25519>(5, 2, &[4], 4);
}

/// A dealer that shares anything but its part, its own old share without the coefficient among it, would make another
/// key: everybody names it, with proof.
#[test]
fn a_dealer_that_begins_elsewhere_is_named_and_proven() {
    let (world, old, commitment) = born::<Edwards25519>(3, 2);
    let mut world = world.renewing(&commitment, &[], 2);
    let bare = *old[&2].scalar();
    let other = Edwards25519::random_scalar(&mut world.rng);
    let (mut running, mut set) = (BTreeMap::new(), Set::new());
    for constant in [bare, other] {
        for me in [1, 2, 3] {
            let session = world.session.clone();
            let (participant, sent) = match me {
                2 => Participant::with_polynomial(
                    session,
                    2,
                    &world.signing[&2],
                    Polynomial::from_coefficients(vec![constant, other]),
                    &mut world.rng,
                ),
                me => {
                    Participant::renew(session, me, &world.signing[&me], &old[&me], &mut world.rng).unwrap()
                }
            };
            running.insert(me, participant);
            set.insert(me, sent);
        }
        let outcomes = world.rounds(std::mem::take(&mut running), set.clone(), |_, _, _, _| {});
        for me in [1, 3] {
            let Err(fault) = &outcomes[&me] else {
                panic!("participant {me} did not see that the key changes")
            };
            assert_eq!(fault.reason, Reason::Package(2, PackageError::Constant));
            assert!(fault.culprits == [2]);
            let evidence = fault.evidence.as_ref().unwrap();
            assert_eq!(
                evidence.convicts::<Edwards25519>(&world.session),
                Some(2),
                "no proof"
            );
        }
    }
}

#[test]
fn only_the_right_share_of_the_epoch_before_renews() {
    let (world, old, commitment) = born::<Edwards25519>(3, 2);
    let mut next = world.renewing(&commitment, &[], 2);
    let session = next.session.clone();
    let stolen = Participant::renew(session.clone(), 1, &next.signing[&1], &old[&2], &mut next.rng);
    assert!(stolen.is_err(), "another member's share");
    let fresh = Participant::<Edwards25519>::begin(session, 1, &next.signing[&1], &mut next.rng);
    assert!(fresh.is_err(), "a new secret in a renewal");
    let first = world.session.clone();
    let unasked = Participant::renew(first, 1, &next.signing[&1], &old[&1], &mut next.rng);
    assert!(unasked.is_err(), "an old share in a generation");

    let outcomes = next.renew(&old, |_, _, _, _| {});
    let renewed: BTreeMap<u16, _> = (outcomes.into_iter())
        .map(|(index, outcome)| (index, outcome.unwrap_or_else(|fault| panic!("{}", fault.reason))))
        .collect();
    let mut after = next.renewing(&renewed[&1].commitment, &[], 2);
    let session = after.session.clone();
    let late = Participant::renew(session, 1, &after.signing[&1], &old[&1], &mut after.rng);
    assert!(late.is_err(), "a share of two epochs before");
}

#[test]
fn constants_are_for_a_quorum_of_the_members() {
    let (_, _, commitment) = born::<Edwards25519>(5, 3);
    assert!(constants(&commitment, [1, 2]).is_none(), "too few");
    assert!(constants(&commitment, [1, 2, 6]).is_none(), "a stranger");
    assert!(constants(&commitment, [1, 2, 2]).is_none(), "one of them twice");
    assert_eq!(constants(&commitment, [1, 3, 5]).unwrap().len(), 3);
}

#[test]
fn a_session_that_does_not_say_where_everybody_begins_is_none() {
    let (world, _, commitment) = born::<Edwards25519>(3, 2);
    let mut terms = world.renewing(&commitment, &[], 2).session.terms().clone();
    let digest = *Session::new(terms.clone()).unwrap().digest();
    assert_ne!(digest, *world.session.digest());
    terms.constants.get_mut(&3).unwrap()[0] ^= 1;
    assert_ne!(
        digest,
        *Session::new(terms.clone()).unwrap().digest(),
        "constants are not bound"
    );
    terms.constants.remove(&3);
    assert_eq!(Session::new(terms).unwrap_err(), crate::SessionError::Constants);
}

/// Two of three old members move their key to others, of another number, with or without one of the old ones.
fn moved<G: Group>(members: &[u16], threshold: u16) {
    let (world, old, commitment) = born::<G>(3, 2);
    let key = secret::<G>(&old.values().take(2).collect::<Vec<_>>());
    let all = World::new(8, 2, &[], 7);
    let dealers = [1, 2];
    let mut terms = world.session.terms().clone();
    let pinned = |index: u16| match index {
        1..=3 => world.session.member(index).unwrap().clone(),
        index => all.session.member(index).unwrap().clone(),
    };
    terms.ceremony[0] ^= 0xff;
    terms.epoch += 1;
    terms.threshold = threshold;
    terms.members = members.iter().map(|index| pinned(*index)).collect();
    let leaving = dealers.iter().filter(|dealer| !members.contains(dealer));
    terms.leaving = leaving.map(|index| pinned(*index)).collect();
    terms.participants = dealers.into();
    terms.constants = constants(&commitment, dealers).unwrap();
    let session = Arc::new(Session::new(terms).unwrap());
    let mut rng = ChaCha20Rng::seed_from_u64(44);
    let mut set = Set::new();
    let mut running = BTreeMap::new();
    for me in dealers {
        let begun = Participant::<G>::renew(session.clone(), me, &world.signing[&me], &old[&me], &mut rng);
        let (participant, sent) = begun.unwrap();
        set.insert(me, sent);
        running.insert(me, participant);
    }
    for me in members.iter().filter(|index| !dealers.contains(index)) {
        let watching = Participant::<G>::receive(session.clone(), *me).unwrap();
        running.insert(*me, watching);
    }
    let said = |sent: BTreeMap<u16, Vec<u8>>| -> Set {
        let dealt = sent.into_iter().filter(|(_, message)| !message.is_empty());
        dealt.collect()
    };
    let round1: BTreeMap<_, _> = running
        .iter_mut()
        .map(|(me, participant)| (*me, participant.packages(&set).unwrap()))
        .collect();
    let round1 = said(round1);
    let round2: BTreeMap<_, _> = running
        .iter_mut()
        .map(|(me, participant)| (*me, participant.deal(&round1, &mut rng).unwrap()))
        .collect();
    let round2 = said(round2);
    let mut shares: BTreeMap<u16, KeyShare<G>> = BTreeMap::new();
    let mut transcripts = BTreeSet::new();
    for (me, participant) in running {
        let opening = match me {
            1..=3 => &world.opening[&me],
            _ => &all.opening[&me],
        };
        let outcome = match (participant.finish(&round2, opening), members.contains(&me)) {
            (Ok(outcome), true) => outcome,
            (Err(_), false) => continue,
            (_, is_member) => panic!("{me}, of which {is_member} that it is a member"),
        };
        let first = |commitment: &Commitment<G>| commitment.public_key().as_ref().to_vec();
        assert_eq!(first(&outcome.commitment), first(&commitment));
        assert_eq!(outcome.commitment.members(), members);
        transcripts.insert(outcome.transcript);
        shares.insert(me, outcome.share);
    }
    assert_eq!(transcripts.len(), 1, "all sign the same");
    assert_eq!(shares.len(), members.len());
    let shares: Vec<&KeyShare<G>> = shares.values().collect();
    for first in 0..=shares.len() - usize::from(threshold) {
        assert!(
            secret::<G>(&shares[first..first + usize::from(threshold)]) == key,
            "from {first}"
        );
    }
    let stranger = old
        .values()
        .find(|share| !members.contains(&share.index()))
        .unwrap();
    let mut mixed = shares[..usize::from(threshold) - 1].to_vec();
    mixed.push(stranger);
    assert!(secret::<G>(&mixed) != key, "shares of two epochs meet");
}

#[test]
fn a_key_moves_to_other_members() {
    moved::<Edwards25519>(&[1, 2, 4], 2);
    moved::<Edwards25519>(&[2, 4, 5], 2);
    moved::<Edwards25519>(&[4, 5, 6], 2);
    moved::<Edwards25519>(&[1, 2, 4, 5, 6], 3);
    moved::<Edwards25519>(&[4, 5, 6, 7, 8], 3);
    moved::<Ristretto255>(&[2, 5, 6, 7], 3);
}

#[test]
fn who_leaves_deals_and_is_no_member() {
    let world = World::new(3, 2, &[], 1);
    let (_, _, commitment) = born::<Edwards25519>(3, 2);
    let mut terms = world.session.terms().clone();
    terms.members.remove(2);
    terms.leaving = vec![world.session.member(3).unwrap().clone()];
    terms.participants = [1, 2, 3].into();
    terms.constants = constants(&commitment, [1, 2, 3]).unwrap();
    assert!(Session::new(terms.clone()).is_ok());
    let mut idle = terms.clone();
    idle.participants = [1, 2].into();
    idle.constants = constants(&commitment, [1, 2]).unwrap();
    assert_eq!(Session::new(idle).unwrap_err(), SessionError::Leaving(3));
    let mut twice = terms.clone();
    twice.members = world.session.terms().members.clone();
    assert_eq!(Session::new(twice).unwrap_err(), SessionError::Leaving(3));
    let mut new_key = terms.clone();
    new_key.constants = BTreeMap::new();
    assert_eq!(
        Session::new(new_key).unwrap_err(),
        SessionError::Constants,
        "a generation"
    );
    let mut other = terms.clone();
    other.leaving = Vec::new();
    assert_eq!(
        Session::new(other).unwrap_err(),
        SessionError::UnknownParticipant(3)
    );
}
