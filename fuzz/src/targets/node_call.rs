//! What nodes ask each other on the ceremony lane, and the answers. Bounded by what came, one level at a time.

use std::collections::BTreeMap;

use conclave::actors::conduct::Abort;
use conclave::actors::receipts::{About, Vouch};
use conclave::actors::wire::{
    Abstention, Answer, Beginning, BirthStep, Call, Computed, Forwarded, Half, Item, ItemAsk, RenewCompute,
    Renewal, Roles, Round, ShareName, ToRenew,
};
use conclave::audit::{PeerHead, Signature};
use conclave::authorization::RawRequest;
use conclave::identifier::{LocalId, OperationId};
use conclave::keystore::record::Sharing;
use conclave::keystore::{Command, Endorsement, Statement};
use conclave::problem::Problem;

use super::{Seed, Target, seed};
use crate::support::key::alice;
use crate::support::vectors;

pub(super) const TARGET: Target = Target {
    name: "node_call",
    longest: 4_096,
    mutations: 8_000,
    run,
    seeds,
};

/// The first byte says which: a call or an answer.
const CALL: u8 = 0;
const ANSWER: u8 = 1;

fn run(bytes: &[u8]) -> bool {
    match bytes.split_first() {
        Some((&CALL, call)) => is_call(call),
        Some((&ANSWER, answer)) => is_answer(answer),
        _ => false,
    }
}

fn is_call(bytes: &[u8]) -> bool {
    let Some(call) = Call::decode(bytes) else {
        return false;
    };
    let written = call.encode();
    assert!(!written.is_empty(), "what was read can be written");
    let again = Call::decode(&written).expect("what is written is read");
    assert_eq!(again.encode(), written, "one thing is written in one way");
    assert_eq!(again.operation(), call.operation());
    let mut inner = call;
    // As deep as they lie in each other: each level takes bytes of its own.
    while let Call::Witness(nested, _) | Call::Relayed(nested) = &inner {
        match Call::decode(nested) {
            Some(next) => inner = next,
            None => break,
        }
    }
    if let Some(request) = inner
        .forwarded()
        .and_then(|of| RawRequest::decode(&of.request).ok())
    {
        assert_eq!(
            Some(request.encode()),
            inner.forwarded().map(|of| of.request.clone())
        );
    }
    true
}

fn is_answer(bytes: &[u8]) -> bool {
    let Some(answer) = Answer::decode(bytes) else {
        return false;
    };
    let written = answer.encode();
    assert!(!written.is_empty(), "what was read can be written");
    let again = Answer::decode(&written).expect("what is written is read");
    assert_eq!(again.encode(), written, "one thing is written in one way");
    if let Answer::Refused(problem) = &answer {
        assert!(problem.body().is_object());
    }
    true
}

fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (name, call) in calls() {
        seeds.push(seed(
            format!("call-{name}"),
            [&[CALL], &call.encode()[..]].concat(),
        ));
    }
    for (name, answer) in answers() {
        seeds.push(seed(
            format!("answer-{name}"),
            [&[ANSWER], &answer.encode()[..]].concat(),
        ));
    }
    seeds
}

const OPERATION: OperationId = OperationId {
    node: 1,
    boot: 7,
    counter: 3,
};
const ROLES: Roles = Roles {
    number: 4,
    nodes: [1, 2, 3],
    circuit: [8; 32],
};

fn calls() -> Vec<(&'static str, Call)> {
    let (_, request) = vectors::requests().swap_remove(3);
    let forwarded = Forwarded {
        operation: OPERATION,
        attempt: 1,
        request: request.encode(),
        needs: vec![(3, 77)],
        participants: vec![1, 2],
        epoch: Some(1),
    };
    let beginning = Beginning {
        start: 1_780_315_205_000,
        participants: vec![(1, [1; 16]), (2, [2; 16])],
        configuration: 1,
    };
    let abort = Abort::sign((OPERATION, [9; 32]), (2, &alice().key), Some(3), None);
    let share = ShareName {
        keystore: LocalId([1; 16]),
        key: LocalId([2; 16]),
        session: [3; 32],
    };
    let messages = BTreeMap::from([(1, vec![1; 32]), (2, vec![2; 32])]);
    let pieces = BTreeMap::from([(1, vec![1; 32]), (2, vec![2; 32])]);
    let item = |ask| Item {
        index: 0,
        operation: OPERATION,
        attempt: 1,
        needs: vec![(3, 77)],
        participants: vec![1, 2],
        epoch: None,
        ask,
    };
    let items = vec![
        item(ItemAsk::Commit),
        item(ItemAsk::SignShare(messages.clone())),
        item(ItemAsk::Garble(ROLES)),
    ];
    let sharing = Sharing {
        holders: vec![1, 2, 3],
        pieces: vec![[1; 32]; 3],
        correction: [2; 32],
        inner: None,
        check: [3; 16],
    };
    let endorse = Call::Endorse(forwarded.clone());
    vec![
        (
            "witness",
            Call::Witness(Call::Relayed(endorse.encode()).encode(), 3),
        ),
        ("endorse", endorse),
        ("cosign", Call::Cosign(forwarded.clone(), vec![5; 64])),
        ("sign-share", Call::SignShare(OPERATION, 1, messages.clone())),
        ("batch", Call::Batch(forwarded.clone(), items)),
        (
            "begin",
            Call::Begin(forwarded.clone(), beginning.clone(), vec![abort]),
        ),
        ("continue", Call::Continue([9; 32], Round::Package, messages)),
        ("envelopes", Call::Envelopes(Some(share.clone()))),
        ("confirm", Call::Confirm(share)),
        ("claim", Call::Claim(OPERATION, vec![[6; 32]; 2])),
        (
            "pair",
            Call::Pair(Half {
                boot: [1; 16],
                public: [9; 32],
            }),
        ),
        ("garble", Call::Garble(forwarded.clone(), ROLES)),
        (
            "renew",
            Call::Renew(Renewal {
                operation: OPERATION,
                keystore: LocalId([1; 16]),
                keys: vec![ToRenew {
                    key: LocalId([2; 16]),
                    replaces: [3; 32],
                    dealers: vec![1, 2],
                }],
                beginning: beginning.clone(),
                applied: 77,
            }),
        ),
        (
            "renew-step",
            Call::RenewStep([9; 32], Round::Deal, vec![BTreeMap::from([(1, vec![1; 32])])]),
        ),
        (
            "renew-compute",
            Call::RenewCompute([9; 32], 1, RenewCompute::Decode(vec![7; 64])),
        ),
        (
            "vouch",
            Call::Vouch(Box::new(Vouch {
                members: 1,
                applied: 7,
                about: About::Revocation {
                    keystore: LocalId([1; 16]),
                    capability: "urn:uuid:1".into(),
                    delegator: "did:key:z6Mk".into(),
                },
            })),
        ),
        ("birth", Call::Birth(forwarded, beginning)),
        ("combine", Call::BirthStep([9; 32], BirthStep::Combine(pieces))),
        (
            "decode",
            Call::BirthStep([9; 32], BirthStep::Decode(Computed::Check, vec![7; 64])),
        ),
        (
            "sign",
            Call::BirthStep([9; 32], BirthStep::Sign(sharing, Some([1; 32]))),
        ),
    ]
}

fn answers() -> Vec<(&'static str, Answer)> {
    let statement = Statement {
        cluster: [9; 32],
        group: 3,
        operation: OPERATION,
        request: [1; 32],
        name: [2; 32],
        expires: 1_780_315_805_000,
        command: Command::Time,
        state_version: 1,
        chain: vec![("urn:a".into(), alice().names.did.clone())],
    };
    let endorsement: Endorsement = statement.endorse(1, &alice().key, 1_780_315_205_000);
    let problem = Problem::not_authorized("DataError", "why").caused_by(Problem::malformed("below"));
    let abort = Abort::sign((OPERATION, [9; 32]), (2, &alice().key), None, None);
    let messages = BTreeMap::from([(1, vec![1; 32]), (3, vec![2; 32])]);
    let head = PeerHead {
        node: 2,
        sequence: 7,
        hash: [3; 32],
        signature: Signature([4; 64]),
    };
    vec![
        ("endorsed", Answer::Endorsed(endorsement.clone())),
        ("cosigned", Answer::Cosigned(vec![1; 64], vec![2; 32])),
        ("batch", Answer::Batch(vec![Answer::Confirmed.encode(), vec![]])),
        ("generated", Answer::Generated(Box::new(statement), endorsement)),
        ("aborted", Answer::Aborted(Box::new(abort))),
        ("messages", Answer::Messages(messages)),
        ("refused", Answer::Refused(Box::new(problem))),
        ("abstained", Answer::Abstained(Abstention::NoShare)),
        ("misfit", Answer::Misfit("no such ceremony".into())),
        ("renewing", Answer::Renewing(vec![vec![1; 32], vec![]])),
        ("lacking", Answer::Lacking(vec![LocalId([2; 16])])),
        ("ended", Answer::Ended("not due".into())),
        ("audit-head", Answer::AuditHead(Some(head), true)),
    ]
}
