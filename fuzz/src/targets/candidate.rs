//! What a machine that asks to join says with a token, and the certificates that come for it.

use std::time::Instant;

use conclave::config::Hex32;
use conclave::membership::Pinned;
use conclave::provision::candidate::{Admission, Candidate, Speaker, Token};
use conclave::provision::certificates::{Certificates, P256Point};
use conclave::provision::waiting_room::WaitingRoom;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use super::{Seed, Target, seed};
use crate::support::cluster::operator;
use crate::support::key::PEOPLE;

pub(super) const TARGET: Target = Target {
    name: "candidate",
    longest: 4_096,
    mutations: 1_500,
    run,
    seeds,
};

const CLUSTER: Hex32 = Hex32([6; 32]);

fn run(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let (operators, now) = ([Hex32(operator().public())], Instant::now());
    let admission = serde_json::from_str::<Admission>(text);
    if let Ok(admission) = &admission {
        let known = candidate();
        let certificates = admission.certificates(CLUSTER, &known, &operators);
        // Nobody but the operator can have signed it, and that only for one candidate.
        assert!(certificates.is_none() || certificates == Some(ours()));
    }
    let token = Token::generate(CLUSTER.0, &mut ChaCha20Rng::from_seed([5; 32]));
    let mut room = WaitingRoom::default();
    room.invite(token.clone(), now).expect("there is room");
    let seen = room
        .present(&token.say(Speaker::Candidate, text.into()), now)
        .is_ok();
    let waiting = room.candidates(now);
    assert_eq!(waiting.len(), usize::from(seen));
    for candidate in waiting {
        assert!(candidate.fault().is_none() && candidate.fingerprint().len() == 39);
        let again = serde_json::to_string(&candidate).expect("it is written");
        assert_eq!(
            serde_json::from_str::<Candidate>(&again).expect("and read"),
            candidate
        );
    }
    seen || admission.is_ok()
}

fn candidate() -> Candidate {
    let mut point = [8; 65];
    point[0] = 4;
    Candidate {
        member: Pinned {
            node: 4,
            peer: "10.0.0.4:9443".into(),
            identity: Hex32(PEOPLE[0].key.verifying_key().to_bytes()),
            envelope: Hex32([4; 32]),
        },
        https: P256Point(point),
    }
}

fn ours() -> Certificates {
    Certificates {
        https: "https".into(),
        peer: "peer".into(),
    }
}

fn seeds() -> Vec<Seed> {
    let candidate = candidate();
    let admission = Admission::sign(CLUSTER, &candidate, ours(), &operator());
    let json = |value: serde_json::Result<Vec<u8>>| value.expect("it is written");
    vec![
        seed("node-four", json(serde_json::to_vec(&candidate))),
        seed("certificates", json(serde_json::to_vec(&admission))),
        seed("no-object", "0"),
    ]
}
