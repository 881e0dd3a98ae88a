//! What a restore is given: a backup's header, a node's request to the recovery officers, an officer's answer.

use conclave::config::Hex32;
use conclave::recovery::VerifiedHeader;
use conclave::recovery::header::{FORMAT, GroupHead, Header};
use conclave::recovery::officers::deal;
use conclave::recovery::request::{Answer, Request};
use ed25519_dalek::Signer as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

use super::{Seed, Target, seed};
use crate::support::cluster::genesis;
use crate::support::key::PEOPLE;

pub(super) const TARGET: Target = Target {
    name: "backup",
    longest: 8_192,
    mutations: 1_000,
    run,
    seeds,
};

fn run(bytes: &[u8]) -> bool {
    let header = VerifiedHeader::parse(bytes);
    if let Ok(header) = &header {
        assert_eq!(header.bytes(), bytes, "its signature is over all of it");
        let again = VerifiedHeader::read(&mut header.bytes()).expect("what is written is read");
        assert_eq!((again.hash(), &again.header), (header.hash(), &header.header));
        assert!(header.describe().contains("keystores"));
    }
    let request = Request::parse(bytes);
    if let Ok(request) = &request {
        let again = Request::parse(&request.to_json()).expect("what is written is read");
        assert_eq!(again.hash(), request.hash());
        assert!(!request.describe().is_empty() && !request.backups().is_empty());
    }
    let answer = Answer::parse(bytes);
    if let Ok(answer) = &answer {
        let again = Answer::parse(&answer.to_json()).expect("what is written is read");
        assert_eq!(again.officer(), answer.officer());
    }
    header.is_ok() || request.is_ok() || answer.is_ok()
}

fn seeds() -> Vec<Seed> {
    let mut rng = ChaCha20Rng::from_seed([6; 32]);
    let (officers, _) = deal(2, 2, &mut rng).expect("two officers");
    let (_, state_key) = officers.seal_new(&mut rng);
    let (_, shares_key) = officers.seal_new(&mut rng);
    let old = genesis(&[1], 9);
    let header = Header {
        format: FORMAT,
        version: "0.1.0".into(),
        cluster: old.cluster_id(),
        public_url: "https://kms.example".into(),
        node: 1,
        made: 1_800_000_000_000,
        genesis: old.to_json(),
        officers: officers.to_bytes(),
        state_key: state_key.to_bytes(),
        shares_key: shares_key.to_bytes(),
        groups: vec![GroupHead::default(); 16],
        orders: Vec::new(),
    };
    let header = header.sign(|message| PEOPLE[1].key.sign(message).to_bytes());
    let header = header.expect("a sound header");
    let request = Request::new(genesis(&[1], 8), 1, vec![header.clone()]).expect("a sound request");
    let answer = format!(
        r#"{{"type":"conclave recovery answer","request":"{}","officer":1,"sealed":"00ff"}}"#,
        Hex32(request.hash())
    );
    vec![
        seed("header", header.bytes()),
        seed("request", request.to_json()),
        seed("answer", answer),
        seed("no-object", "0"),
    ]
}
