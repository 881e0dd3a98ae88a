//! The birth of a symmetric key in which holder 3 says anything: an honest holder is not blamed alone, and those who agree
//! agree on one sharing.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use conclave_garbled::generation::{
    Combined, Commitments, Committed, Fault, Opened, Opening, Pieces, Session,
};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use serde::de::DeserializeOwned;

use super::{Seed, Target, seed};
use crate::support::input::{Input, Output};

pub(super) const TARGET: Target = Target {
    name: "birth",
    longest: 4_096,
    mutations: 3_000,
    run,
    seeds,
};

const CORRUPT: u8 = 3;
const HONEST: [u8; 2] = [1, 2];

fn session() -> Session {
    Session {
        id: [1; 32],
        cluster: [2; 32],
        key: b"key".to_vec(),
        epoch: 0,
        holders: 3,
        away: None,
        sharings: 2,
    }
}

fn begin(holder: u8) -> (Committed, Commitments) {
    let mut rng = ChaCha20Rng::from_seed([holder; 32]);
    Committed::begin(session(), holder, &mut rng).expect("one of three")
}

/// What holder 3 says: commitments, an opening for each of the others, commitments to pieces.
type Said = (Vec<u8>, [Vec<u8>; 2], Vec<u8>);

fn run(bytes: &[u8]) -> bool {
    let mut input = Input(bytes);
    let mut chunk = || input.chunk().to_vec();
    let said = (chunk(), [chunk(), chunk()], chunk());
    match generate(&said) {
        Some(Ok(())) => true,
        Some(Err(fault)) => {
            let is_its_own = matches!(
                fault,
                Fault::Holder(CORRUPT) | Fault::Split | Fault::Between(_, CORRUPT)
            );
            assert!(is_its_own, "{fault:?}");
            false
        }
        None => false,
    }
}

/// Reads and writes it again; none if it is no message.
fn read<T: DeserializeOwned + serde::Serialize>(bytes: &[u8]) -> Option<T> {
    let message: T = postcard::from_bytes(bytes).ok()?;
    let written = postcard::to_stdvec(&message).expect("a message can be written");
    let again: T = postcard::from_bytes(&written).expect("what is written is read");
    assert_eq!(postcard::to_stdvec(&again), Ok(written));
    Some(message)
}

fn generate((commitments, openings, pieces): &Said) -> Option<Result<(), Fault>> {
    let theirs: Commitments = read(commitments)?;
    let begun = HONEST.map(|holder| (holder, begin(holder)));
    let mut committed = BTreeMap::from([(CORRUPT, theirs)]);
    committed.extend(begun.iter().map(|(holder, (_, sent))| (*holder, sent.clone())));
    let (mut opened, mut letters) = (
        BTreeMap::<u8, Opened>::new(),
        BTreeMap::<(u8, u8), Opening>::new(),
    );
    for (holder, (participant, _)) in begun {
        match participant.open(committed.clone()) {
            Ok((participant, sent)) => {
                opened.insert(holder, participant);
                letters.extend(sent.into_iter().map(|(to, opening)| ((holder, to), opening)));
            }
            Err(fault) => return Some(Err(fault)),
        }
    }
    let (mut combined, mut said) = (BTreeMap::<u8, Combined>::new(), BTreeMap::<u8, Pieces>::new());
    for (holder, participant) in opened {
        let theirs: Opening = read(&openings[usize::from(holder) - 1])?;
        let mut got = BTreeMap::from([(CORRUPT, theirs)]);
        let other = CORRUPT - holder;
        got.extend(letters.remove(&(other, holder)).map(|opening| (other, opening)));
        match participant.combine(&got) {
            Ok((participant, sent)) => {
                combined.insert(holder, participant);
                said.insert(holder, sent);
            }
            Err(fault) => return Some(Err(fault)),
        }
    }
    said.insert(CORRUPT, read(pieces)?);
    let mut agreed = Vec::new();
    for participant in combined.into_values() {
        match participant.agree(&said) {
            Ok(sharings) => agreed.push(sharings),
            Err(fault) => return Some(Err(fault)),
        }
    }
    let digests = |of: &[(conclave_garbled::generation::Sharing, _)]| -> Vec<[u8; 32]> {
        of.iter().map(|(sharing, _)| sharing.digest).collect()
    };
    assert!(
        agreed
            .windows(2)
            .all(|pair| digests(&pair[0]) == digests(&pair[1]))
    );
    Some(Ok(()))
}

/// An honest birth, as holder 3 takes part in it.
static SAID: LazyLock<Said> = LazyLock::new(|| {
    let begun = [1, 2, CORRUPT].map(|holder| (holder, begin(holder)));
    let committed: BTreeMap<u8, Commitments> = begun
        .iter()
        .map(|(holder, (_, sent))| (*holder, sent.clone()))
        .collect();
    let mut opened = BTreeMap::new();
    for (holder, (participant, _)) in begun {
        opened.insert(holder, participant.open(committed.clone()).expect("nobody lies"));
    }
    let (participant, mut own) = opened.remove(&CORRUPT).expect("one of three");
    let got: BTreeMap<u8, Opening> = opened
        .into_iter()
        .filter_map(|(holder, (_, mut sent))| Some((holder, sent.remove(&CORRUPT)?)))
        .collect();
    let (_, pieces) = participant.combine(&got).expect("nobody lies");
    let mut opening = |to: u8| {
        own.remove(&to)
            .map(|opening| written(&opening))
            .unwrap_or_default()
    };
    (
        written(&committed[&CORRUPT]),
        [opening(1), opening(2)],
        written(&pieces),
    )
});

fn written<T: serde::Serialize>(message: &T) -> Vec<u8> {
    postcard::to_stdvec(message).unwrap_or_default()
}

fn seeds() -> Vec<Seed> {
    let (commitments, openings, pieces) = &*SAID;
    let output = |commitments: &[u8], pieces: &[u8]| {
        let output = Output::default().chunk(commitments);
        output.chunk(&openings[0]).chunk(&openings[1]).chunk(pieces).0
    };
    vec![
        seed("honest", output(commitments, pieces)),
        seed("no-pieces", output(commitments, &[])),
    ]
}
