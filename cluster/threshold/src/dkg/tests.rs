//! Generations among honest nodes, with absent members, and with every lie that a dealer or coordinator can tell.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::polynomial::lagrange;
use crate::ristretto::Ristretto255;
use crate::session::{Member, Purpose, SessionTerms};

mod lies;
mod properties;
mod renewal;

type Set = BTreeMap<u16, Vec<u8>>;
type Outcomes<G> = BTreeMap<u16, Result<Outcome<G>, Fault>>;

/// A committee with all its keys.
struct World {
    session: Arc<Session>,
    signing: BTreeMap<u16, SigningKey>,
    opening: BTreeMap<u16, EnvelopeKey>,
    rng: ChaCha20Rng,
}

impl World {
    fn new(members: u16, threshold: u16, absent: &[u16], ceremony: u8) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(42);
        let signing: BTreeMap<u16, SigningKey> = (1..=members)
            .map(|index| (index, SigningKey::generate(&mut rng)))
            .collect();
        let opening: BTreeMap<u16, EnvelopeKey> = (1..=members)
            .map(|index| (index, EnvelopeKey::generate(&mut rng)))
            .collect();
        let terms = SessionTerms {
            cluster: [1; 32],
            ceremony: [ceremony; 32],
            key: b"key".to_vec(),
            key_type: "Ed25519VerificationKey2020".into(),
            purpose: Purpose::Sign,
            epoch: 1,
            threshold,
            members: signing
                .iter()
                .map(|(index, key)| Member {
                    index: *index,
                    verifying_key: key.verifying_key().to_bytes(),
                    envelope_key: opening[index].public(),
                })
                .collect(),
            participants: (1..=members).filter(|index| !absent.contains(index)).collect(),
            leaving: Vec::new(),
            constants: BTreeMap::new(),
        };
        World {
            session: Arc::new(Session::new(terms).unwrap()),
            signing,
            opening,
            rng,
        }
    }

    fn participants(&self) -> BTreeSet<u16> {
        self.session.terms().participants.clone()
    }

    /// Signs a payload as a member of this world, whatever it is.
    fn say(&self, round: u8, sender: u16, payload: &[u8]) -> Vec<u8> {
        message::seal(&self.session, round, sender, payload, &self.signing[&sender])
    }

    fn run<G: Group>(&mut self) -> Outcomes<G> {
        self.run_with(BTreeMap::new(), |_, _, _, _| {})
    }

    /// Runs a generation. Participants in `polynomials` use that one; `tamper` may change the set that a receiver
    /// is given in a round.
    fn run_with<G: Group>(
        &mut self,
        mut polynomials: BTreeMap<u16, Vec<G::Scalar>>,
        tamper: impl FnMut(&mut World, u8, u16, &mut Set),
    ) -> Outcomes<G> {
        let (mut running, mut set) = (BTreeMap::new(), Set::new());
        for me in self.participants() {
            let (participant, sent) = match polynomials.remove(&me) {
                Some(coefficients) => Participant::<G>::with_polynomial(
                    self.session.clone(),
                    me,
                    &self.signing[&me],
                    Polynomial::from_coefficients(coefficients),
                    &mut self.rng,
                ),
                None => {
                    Participant::begin(self.session.clone(), me, &self.signing[&me], &mut self.rng).unwrap()
                }
            };
            running.insert(me, participant);
            set.insert(me, sent);
        }
        self.rounds(running, set, tamper)
    }

    /// The rounds after the first, whose messages are `set`.
    fn rounds<G: Group>(
        &mut self,
        mut running: BTreeMap<u16, Participant<G>>,
        mut set: Set,
        mut tamper: impl FnMut(&mut World, u8, u16, &mut Set),
    ) -> Outcomes<G> {
        let mut outcomes = BTreeMap::new();
        for round in 0..2 {
            let mut next = set.clone();
            for me in self.participants() {
                let Some(participant) = running.get_mut(&me) else {
                    continue;
                };
                let mut given = set.clone();
                tamper(self, round, me, &mut given);
                let sent = match round {
                    0 => participant.packages(&given),
                    _ => participant.deal(&given, &mut self.rng),
                };
                match sent {
                    Ok(sent) => _ = next.insert(me, sent),
                    Err(fault) => {
                        running.remove(&me);
                        outcomes.insert(me, Err(fault));
                    }
                }
            }
            set = next;
        }
        for (me, participant) in running {
            let mut given = set.clone();
            tamper(self, 2, me, &mut given);
            outcomes.insert(me, participant.finish(&given, &self.opening[&me]));
        }
        outcomes
    }
}

fn subsets(items: &[u16], size: usize) -> Vec<Vec<u16>> {
    (0u32..1 << items.len())
        .filter(|mask| mask.count_ones() as usize == size)
        .map(|mask| {
            items
                .iter()
                .enumerate()
                .filter(|(place, _)| mask >> place & 1 == 1)
                .map(|(_, item)| *item)
                .collect()
        })
        .collect()
}

/// Every quorum of the shares interpolates to the secret of the public key, and no smaller set does.
fn assert_whole<G: Group>(commitment: &Commitment<G>, shares: &BTreeMap<u16, KeyShare<G>>) {
    let indexes: Vec<u16> = shares.keys().copied().collect();
    let interpolate = |quorum: &[u16]| {
        let term = |index: &u16| lagrange::<G>(*index, quorum).unwrap() * *shares[index].scalar();
        quorum
            .iter()
            .map(term)
            .fold(G::Scalar::from(0), |sum, term| sum + term)
    };
    for quorum in subsets(&indexes, commitment.threshold()) {
        assert!(G::mul_base(&interpolate(&quorum)) == *commitment.public_element());
    }
    for few in subsets(&indexes, commitment.threshold() - 1) {
        assert!(G::mul_base(&interpolate(&few)) != *commitment.public_element());
    }
}

fn generates_a_whole_key<G: Group>(members: u16, threshold: u16, absent: &[u16]) {
    let mut world = World::new(members, threshold, absent, 9);
    let outcomes: Vec<Outcome<G>> = world
        .run::<G>()
        .into_values()
        .map(|outcome| outcome.unwrap())
        .collect();
    let first = &outcomes[0];
    let mut shares = BTreeMap::new();
    for member in absent {
        let kept = &first.envelopes[member];
        let key = &world.opening[member];
        let share =
            envelope::open(&world.session, *member, key, &first.commitment, &Set::new(), kept).unwrap();
        shares.insert(*member, share);
    }
    let absent: Vec<u16> = absent.to_vec();
    for outcome in &outcomes {
        assert_eq!(outcome.commitment, first.commitment);
        assert_eq!(outcome.transcript, first.transcript);
        assert_eq!(outcome.envelopes, first.envelopes);
        assert_eq!(outcome.envelopes.keys().copied().collect::<Vec<_>>(), absent);
        assert!(outcome.commitment.holds(&outcome.share));
        let again = first
            .commitment
            .transcript(world.session.digest(), &outcome.record);
        assert_eq!(again, outcome.transcript);
    }
    let commitment = first.commitment.clone();
    shares.extend(
        outcomes
            .into_iter()
            .map(|outcome| (outcome.share.index(), outcome.share)),
    );
    assert_eq!(
        shares.len(),
        usize::from(members),
        "a key is born with all its shares"
    );
    assert_whole(&commitment, &shares);
}

#[test]
fn generates_whole_keys_in_both_groups() {
    for (members, threshold) in [(3, 2), (4, 3), (5, 3)] {
        generates_a_whole_key::<Edwards25519>(members, threshold, &[]);
        generates_a_whole_key::<Ristretto255>(members, threshold, &[]);
    }
}

#[test]
fn absent_members_get_their_shares_later() {
    generates_a_whole_key::<Edwards25519>(3, 2, &[2]);
    generates_a_whole_key::<Edwards25519>(4, 3, &[1]);
    generates_a_whole_key::<Edwards25519>(5, 3, &[1, 4]);
    generates_a_whole_key::<Ristretto255>(5, 3, &[5]);
}

#[test]
fn two_generations_give_two_keys_and_commitments_survive_serde() {
    let mut world = World::new(3, 2, &[], 9);
    let one = world.run::<Edwards25519>().remove(&1).unwrap().unwrap();
    let two = world.run::<Edwards25519>().remove(&1).unwrap().unwrap();
    assert_ne!(one.commitment.public_key(), two.commitment.public_key());
    assert!(!two.commitment.holds(&one.share));
    let bytes = postcard::to_allocvec(&one.commitment).unwrap();
    assert_eq!(
        postcard::from_bytes::<Commitment>(&bytes).unwrap(),
        one.commitment
    );
    assert!(
        postcard::from_bytes::<Commitment<Ristretto255>>(&bytes).is_err(),
        "another group"
    );
    let stored = one.share.to_sealed_bytes();
    assert!(one.commitment.holds(&KeyShare::from_bytes(&stored).unwrap()));
}

#[test]
fn sessions_that_make_no_sense_are_refused() {
    use crate::session::SessionError;
    let good = World::new(3, 2, &[], 9).session.terms().clone();
    let refused = |change: &dyn Fn(&mut SessionTerms)| {
        let mut terms = good.clone();
        change(&mut terms);
        Session::new(terms).err()
    };
    assert_eq!(refused(&|_| {}), None);
    assert_eq!(
        refused(&|terms| terms.members[0].index = 0),
        Some(SessionError::Indexes)
    );
    assert_eq!(
        refused(&|terms| terms.members[1].index = 1),
        Some(SessionError::Indexes)
    );
    assert_eq!(
        refused(&|terms| terms.members.reverse()),
        Some(SessionError::Indexes)
    );
    assert_eq!(
        refused(&|terms| terms.members.truncate(1)),
        Some(SessionError::MemberCount(1))
    );
    let threshold = |threshold| {
        Some(SessionError::Threshold {
            threshold,
            participants: 3,
        })
    };
    assert_eq!(refused(&|terms| terms.threshold = 1), threshold(1));
    assert_eq!(refused(&|terms| terms.threshold = 4), threshold(4));
    assert_eq!(
        refused(&|terms| _ = terms.participants.insert(7)),
        Some(SessionError::UnknownParticipant(7))
    );
    assert_eq!(refused(&|terms| terms.key.clear()), Some(SessionError::Name));
    assert_eq!(
        refused(&|terms| terms.key_type = "x".repeat(513)),
        Some(SessionError::Name)
    );
    let twin = |terms: &mut SessionTerms| terms.members[2].verifying_key = terms.members[0].verifying_key;
    assert_eq!(refused(&twin), Some(SessionError::MemberKey(3)));
    let mut weak = [0; 32];
    weak[0] = 1;
    assert_eq!(
        refused(&|terms| terms.members[1].verifying_key = weak),
        Some(SessionError::MemberKey(2))
    );
}

/// Every term goes into the digest, so participants that differ in any do not understand each other.
#[test]
fn every_term_changes_the_digest() {
    let good = World::new(4, 2, &[], 9).session.terms().clone();
    type Change = fn(&mut SessionTerms);
    let changes: Vec<Change> = vec![
        |_| {},
        |terms| terms.cluster[0] ^= 1,
        |terms| terms.ceremony[0] ^= 1,
        |terms| terms.key.push(0),
        |terms| terms.key_type.push('x'),
        |terms| terms.purpose = Purpose::Agree,
        |terms| terms.epoch += 1,
        |terms| terms.threshold = 3,
        |terms| terms.members[3].index = 5,
        |terms| terms.members[0].envelope_key[0] ^= 1,
        |terms| _ = terms.participants.remove(&1),
    ];
    let digests: BTreeSet<[u8; 32]> = changes
        .iter()
        .map(|change| {
            let mut terms = good.clone();
            if terms.members[3].index == 4 {
                terms.participants.remove(&4);
            }
            change(&mut terms);
            *Session::new(terms).unwrap().digest()
        })
        .collect();
    assert_eq!(digests.len(), changes.len());
}
