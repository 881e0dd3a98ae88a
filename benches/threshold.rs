//! What the ceremonies cost, by role; what they cannot go below is in `floor`. Each measurement is one role's whole work of
//! one round; nothing of it is the network's or the disk's.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use conclave_threshold::dkg::{Outcome, Participant};
use conclave_threshold::envelope::EnvelopeKey;
use conclave_threshold::frost::{self, CommitmentList, VerifyingContext};
use conclave_threshold::{Commitment, KeyShare, Member, Purpose, Session, SessionTerms};
use conclave_threshold::{diffie_hellman, diffie_hellman::Context};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ed25519_dalek::SigningKey;
use rand::rngs::OsRng;

type Set = BTreeMap<u16, Vec<u8>>;

struct Committee {
    session: Arc<Session>,
    signing: BTreeMap<u16, SigningKey>,
    opening: BTreeMap<u16, EnvelopeKey>,
}

impl Committee {
    fn new(members: u16, threshold: u16, purpose: Purpose) -> Self {
        let signing: BTreeMap<_, _> = (1..=members)
            .map(|index| (index, SigningKey::generate(&mut OsRng)))
            .collect();
        let opening: BTreeMap<_, _> = (1..=members)
            .map(|index| (index, EnvelopeKey::generate(&mut OsRng)))
            .collect();
        let terms = SessionTerms {
            cluster: [1; 32],
            ceremony: [2; 32],
            key: b"key".to_vec(),
            key_type: "type".into(),
            purpose,
            epoch: 0,
            threshold,
            members: signing
                .iter()
                .map(|(index, key)| Member {
                    index: *index,
                    verifying_key: key.verifying_key().to_bytes(),
                    envelope_key: opening[index].public(),
                })
                .collect(),
            participants: (1..=members).collect(),
            leaving: Vec::new(),
            constants: BTreeMap::new(),
        };
        let session = Arc::new(Session::new(terms).expect("a good session"));
        Committee {
            session,
            signing,
            opening,
        }
    }

    fn begin(&self) -> (BTreeMap<u16, Participant>, Set) {
        let one = |(index, key): (&u16, &SigningKey)| {
            let begun = Participant::begin(self.session.clone(), *index, key, &mut OsRng).expect("a member");
            ((*index, begun.0), (*index, begun.1))
        };
        self.signing.iter().map(one).unzip()
    }

    fn reveal(&self) -> (BTreeMap<u16, Participant>, Set) {
        let (mut running, round0) = self.begin();
        let round1 = running
            .iter_mut()
            .map(|(me, it)| (*me, it.packages(&round0).expect("honest")))
            .collect();
        (running, round1)
    }

    fn deal(&self) -> (BTreeMap<u16, Participant>, Set) {
        let (mut running, round1) = self.reveal();
        let round2 = running
            .iter_mut()
            .map(|(me, it)| (*me, it.deal(&round1, &mut OsRng).expect("honest")))
            .collect();
        (running, round2)
    }

    fn generate(&self) -> BTreeMap<u16, Outcome> {
        let (running, round2) = self.deal();
        running
            .into_iter()
            .map(|(me, it)| (me, it.finish(&round2, &self.opening[&me]).expect("honest")))
            .collect()
    }

    fn key(&self) -> (Commitment, BTreeMap<u16, KeyShare>) {
        let outcomes = self.generate();
        let commitment = outcomes[&1].commitment.clone();
        (
            commitment,
            outcomes
                .into_iter()
                .map(|(me, outcome)| (me, outcome.share))
                .collect(),
        )
    }
}

fn first((mut running, set): (BTreeMap<u16, Participant>, Set)) -> (Participant, Set) {
    (running.remove(&1).expect("participant 1"), set)
}

fn generation(criterion: &mut Criterion) {
    for (members, threshold) in [(3, 2), (5, 3)] {
        let committee = Committee::new(members, threshold, Purpose::Sign);
        let mut group =
            criterion.benchmark_group(format!("generation {threshold} of {members}, one participant"));
        let terms = committee.session.terms().clone();
        group.bench_function("session", |bench| {
            bench.iter(|| Session::new(black_box(terms.clone())))
        });
        group.bench_function("round 0: begin", |bench| {
            bench.iter(|| {
                Participant::<conclave_threshold::Edwards25519>::begin(
                    committee.session.clone(),
                    1,
                    &committee.signing[&1],
                    &mut OsRng,
                )
                .expect("a member")
                .1
            })
        });
        group.bench_function("round 1: packages", |bench| {
            let input = || first(committee.begin());
            bench.iter_batched(
                input,
                |(mut it, set)| it.packages(&set).expect("honest"),
                BatchSize::SmallInput,
            )
        });
        group.bench_function("round 2: deal", |bench| {
            let input = || first(committee.reveal());
            bench.iter_batched(
                input,
                |(mut it, set)| it.deal(&set, &mut OsRng).expect("honest"),
                BatchSize::SmallInput,
            )
        });
        group.bench_function("finish", |bench| {
            let input = || first(committee.deal());
            let run =
                |(it, set): (Participant, Set)| it.finish(&set, &committee.opening[&1]).expect("honest");
            bench.iter_batched(input, run, BatchSize::SmallInput)
        });
        group.bench_function("all participants, all rounds", |bench| {
            bench.iter(|| committee.generate())
        });
        group.finish();
    }
}

fn signing(criterion: &mut Criterion) {
    let message = [7; 256];
    let (commitment, shares) = Committee::new(3, 2, Purpose::Sign).key();
    let context = VerifyingContext::new(&commitment).expect("a signing key");
    let mut group = criterion.benchmark_group("frost 2 of 3");
    group.bench_function("coordinator: commit", |bench| {
        bench.iter(|| {
            frost::commit(&shares[&1], &[1; 32], &mut OsRng)
                .expect("a signing share")
                .1
        })
    });
    let round = || {
        let (nonces, mine) = frost::commit(&shares[&1], &[1; 32], &mut OsRng).expect("a signing share");
        let (theirs, share) =
            frost::cosign(&shares[&2], &context, &message, (1, mine), &[2; 32], &mut OsRng).expect("honest");
        (nonces, CommitmentList::from([(1, mine), (2, theirs)]), share)
    };
    let (_, mine) = frost::commit(&shares[&1], &[1; 32], &mut OsRng).expect("a signing share");
    group.bench_function("holder: cosign", |bench| {
        bench.iter(|| {
            frost::cosign(&shares[&2], &context, &message, (1, mine), &[2; 32], &mut OsRng).expect("honest")
        })
    });
    group.bench_function("coordinator: sign and aggregate", |bench| {
        let run = |(nonces, list, theirs): (frost::Nonces, CommitmentList, [u8; 32])| {
            let others = BTreeMap::from([(2, theirs)]);
            frost::finish(nonces, &shares[&1], &context, &message, &list, &others).expect("honest")
        };
        bench.iter_batched(round, run, BatchSize::SmallInput)
    });
    group.bench_function("context of a key", |bench| {
        bench.iter(|| VerifyingContext::new(&commitment))
    });
    group.finish();
}

fn agreement(criterion: &mut Criterion) {
    let (commitment, shares) = Committee::new(3, 2, Purpose::Agree).key();
    let context = Context {
        cluster: &[1; 32],
        operation: b"operation",
        key: b"key",
    };
    let u = x25519_dalek::x25519([9; 32], x25519_dalek::X25519_BASEPOINT_BYTES);
    let peer = diffie_hellman::lift(u).expect("an honest key");
    let one = |index: u16| {
        let partial = diffie_hellman::partial(&shares[&index], &commitment, &context, &peer, &mut OsRng);
        (index, partial.expect("an agreement share"))
    };
    let partials = BTreeMap::from([one(1), one(2)]);
    let mut group = criterion.benchmark_group("x25519 2 of 3");
    group.bench_function("lift", |bench| bench.iter(|| diffie_hellman::lift(black_box(u))));
    group.bench_function("holder: partial", |bench| bench.iter(|| one(1)));
    group.bench_function("coordinator: combine", |bench| {
        bench.iter(|| diffie_hellman::combine(&commitment, &context, &peer, &partials).expect("honest"))
    });
    group.finish();
}

criterion_group!(benches, generation, signing, agreement);
criterion_main!(benches);
