//! A generation of a key in which member 3 signs anything: the honest members never blame each other, what they say
//! against it convinces others, and a key that they agree on is whole.

use conclave_threshold::{Edwards25519, Fault, Purpose, envelope};

use super::{Seed, Target, seed};
use crate::support::ceremony::{
    AWAY, CORRUPT, Generation, Message, Round, envelope_key, honest, said_by_corrupt,
};
use crate::support::input::{Input, Output};

pub(super) const TARGET: Target = Target {
    name: "ceremony",
    longest: 2_048,
    mutations: 80,
    run,
    seeds,
};

/// A byte that says which of the three messages come unsigned, as they are; then the messages.
fn run(bytes: &[u8]) -> bool {
    let mut input = Input(bytes);
    let as_they_are = input.byte();
    let mut say = |round: u8, said: &mut Round| {
        let payload = input.chunk();
        let message = match as_they_are >> round & 1 {
            1 => payload.to_vec(),
            _ => said_by_corrupt(Purpose::Sign, round, payload),
        };
        said.insert(CORRUPT, message);
    };
    let (mut generation, mut round0) = Generation::begin(Purpose::Sign, &[1, 2]);
    let session = generation.session().clone();
    let judge = |fault: Fault| {
        assert!(
            fault.culprits.iter().all(|culprit| *culprit == CORRUPT),
            "{fault:?}"
        );
        if let Some(evidence) = fault.evidence {
            assert_eq!(evidence.convicts::<Edwards25519>(&session), Some(CORRUPT));
        }
        false
    };
    say(0, &mut round0);
    let mut round1 = match generation.packages(&round0) {
        Ok(round1) => round1,
        Err(fault) => return judge(fault),
    };
    say(1, &mut round1);
    let mut round2 = match generation.deal(&round1) {
        Ok(round2) => round2,
        Err(fault) => return judge(fault),
    };
    say(2, &mut round2);
    let outcomes = match generation.finish(&round2) {
        Ok(outcomes) => outcomes,
        Err(fault) => return judge(fault),
    };
    let first = &outcomes[&1];
    for outcome in outcomes.values() {
        assert_eq!(
            outcome.transcript, first.transcript,
            "one transcript for all to sign"
        );
        assert!(first.commitment.holds(&outcome.share));
        let opened = envelope::open(
            &session,
            AWAY,
            &envelope_key(AWAY),
            &outcome.commitment,
            &outcome.packages,
            &outcome.envelopes[&AWAY],
        );
        match opened {
            Ok(share) => assert!(first.commitment.holds(&share)),
            Err(fault) => drop(judge(fault)),
        }
    }
    true
}

fn seeds() -> Vec<Seed> {
    let (rounds, _) = honest(Purpose::Sign);
    let payload = |round: usize| Message::read(&rounds[round][&CORRUPT]).payload;
    let output = Output::default().byte(0);
    let whole = output.chunk(&payload(0)).chunk(&payload(1)).chunk(&payload(2));
    let unsigned = Output::default().byte(7);
    let unsigned = rounds
        .iter()
        .fold(unsigned, |output, round| output.chunk(&round[&CORRUPT]));
    vec![seed("honest", whole.0), seed("as-they-are", unsigned.0)]
}
