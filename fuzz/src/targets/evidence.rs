//! Evidence against a member, as one node shows it to another: nobody who was honest is ever convicted. Member 3 signs
//! anything.

use conclave_threshold::{Edwards25519, Evidence, Purpose};

use super::{Seed, Target, seed};
use crate::support::ceremony::{CORRUPT, Message, honest, said_by_corrupt, session};
use crate::support::input::{Input, Output};

pub(super) const TARGET: Target = Target {
    name: "evidence",
    longest: 2_048,
    mutations: 1_000,
    run,
    seeds,
};

/// What follows the first byte.
const AS_IT_IS: u8 = 0;
const MESSAGE: u8 = 1;
const BROKEN: u8 = 2;

fn run(bytes: &[u8]) -> bool {
    let mut input = Input(bytes);
    let evidence = match input.byte() {
        AS_IT_IS => match postcard::from_bytes(input.0) {
            Ok(evidence) => evidence,
            Err(_) => return false,
        },
        MESSAGE => {
            let round = input.byte();
            Evidence::Message(said_by_corrupt(Purpose::Sign, round, input.chunk()))
        }
        BROKEN => Evidence::Broken {
            hash: said_by_corrupt(Purpose::Sign, 0, input.chunk()),
            package: said_by_corrupt(Purpose::Sign, 1, input.chunk()),
        },
        _ => return false,
    };
    let written = postcard::to_stdvec(&evidence).expect("evidence can be written");
    assert_eq!(postcard::from_bytes::<Evidence>(&written).as_ref(), Ok(&evidence));
    let convicted = evidence.convicts::<Edwards25519>(&session(Purpose::Sign));
    assert!(
        matches!(convicted, None | Some(CORRUPT)),
        "{convicted:?} did not lie"
    );
    convicted.is_some()
}

fn seeds() -> Vec<Seed> {
    let (rounds, _) = honest(Purpose::Sign);
    let payload = |round: usize| Message::read(&rounds[round][&CORRUPT]).payload;
    let said = |round: u8| {
        let output = Output::default().byte(MESSAGE).byte(round);
        output.chunk(&payload(usize::from(round))).0
    };
    let honest_message = Evidence::Message(rounds[1][&1].clone());
    let as_it_is = postcard::to_stdvec(&honest_message).unwrap_or_default();
    let broken = Output::default().byte(BROKEN).chunk(&[0; 32]).chunk(&payload(1));
    let unbroken = Output::default()
        .byte(BROKEN)
        .chunk(&payload(0))
        .chunk(&payload(1));
    vec![
        seed("honest", [&[AS_IT_IS], &as_it_is[..]].concat()),
        seed(
            "short-hash",
            Output::default().byte(MESSAGE).byte(0).chunk(&[1; 31]).0,
        ),
        seed("package", said(1)),
        seed("deal", said(2)),
        seed("broken", broken.0),
        seed("unbroken", unbroken.0),
    ]
}
