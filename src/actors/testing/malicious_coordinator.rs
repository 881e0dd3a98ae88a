//! Node 3 is taken over and asks the others for what no client signed: never a partial, never an endorsement, and
//! each refusal is counted and on the record of the node that refused.

use std::collections::BTreeMap;

use conclave_threshold::frost;
use rand::rngs::OsRng;

use super::client::{Client, ED25519, Key, Keystore, furnished, status};
use super::cluster::{Cluster, Node, run};
use crate::actors::wire::{Answer, Beginning, Call, Forwarded, Roles, Round};
use crate::audit::Kind;
use crate::authorization::RawRequest;
use crate::authorization::issue::Capability;
use crate::identifier::OperationId;

pub(super) fn forwarded(operation: OperationId, request: &[u8]) -> Forwarded {
    Forwarded {
        operation,
        attempt: 1,
        request: request.to_vec(),
        needs: Vec::new(),
        participants: vec![3],
        epoch: None,
    }
}

pub(super) fn encoded(request: &RawRequest) -> Vec<u8> {
    request.signed_part().unwrap().encode()
}

/// Whether an answer gives anything away.
fn gives(answer: &Answer) -> bool {
    matches!(
        answer,
        Answer::Endorsed(_)
            | Answer::Cosigned(..)
            | Answer::Committed(_)
            | Answer::Signed(_)
            | Answer::Derived(_)
            | Answer::Message(_)
            | Answer::Messages(_)
            | Answer::Garbled(_)
            | Answer::Vouched(_)
            | Answer::Generated(..)
    )
}

/// A pair of commitments by node 3's own share.
pub(super) fn commitments(node: &Node, keystore: &Keystore, key: &Key) -> (frost::Nonces, Vec<u8>) {
    let record = node.key_record(&keystore.id, &key.id).unwrap();
    let open = node.parts.open_key(&keystore.id, &key.id, &record).unwrap();
    let (nonces, public) = frost::commit(&open.share, &[0; 32], &mut OsRng).unwrap();
    (nonces, postcard::to_stdvec(&public).unwrap())
}

fn beginning(cluster: &Cluster) -> Beginning {
    let participant = |node: &Node| (node.parts.node, node.parts.boot);
    Beginning {
        start: cluster.node(3).parts.now().unwrap(),
        participants: cluster.nodes().iter().map(participant).collect(),
        configuration: 1,
    }
}

/// For node 3, with the third one.
fn garble(cluster: &Cluster, number: u64, mut forwarded: Forwarded) -> Call {
    forwarded.participants = vec![1, 2, 3];
    let roles = Roles {
        number: cluster.node(3).parts.symmetric.next_number(),
        nodes: [number, 3 - number, 3],
        circuit: [0; 32],
    };
    Call::Garble(forwarded, roles)
}

#[derive(Clone, Copy, PartialEq)]
enum Asks {
    Everything,
    Uses,
}

/// Asks nodes 1 and 2 for everything that `request` could be worth: all of it must be refused, counted, recorded.
async fn refused_everywhere(
    cluster: &Cluster,
    what: &str,
    asks: Asks,
    theirs: &[u8],
    mut next: impl FnMut() -> Forwarded,
) {
    let thief = cluster.node(3);
    for number in [1, 2] {
        let victim = cluster.node(number);
        let counted = victim.parts.metrics.refusals.get();
        let recorded = victim.recorded(Kind::Refused).await;
        let contributed = victim.recorded(Kind::Contributed).await + victim.recorded(Kind::Endorsed).await;
        let mut calls = vec![
            Call::Cosign(next(), theirs.to_vec()),
            Call::Commit(next()),
            Call::Derive(next()),
            garble(cluster, number, next()),
        ];
        if asks == Asks::Everything {
            calls.push(Call::Endorse(next()));
            calls.push(Call::Begin(next(), beginning(cluster), Vec::new()));
            calls.push(Call::Birth(next(), beginning(cluster)));
        }
        let asked = calls.len() as u64;
        for call in calls {
            let answer = thief.ask(number, &call).await;
            assert!(!gives(&answer), "{what}: node {number} gave something");
            assert!(
                matches!(answer, Answer::Refused(_)),
                "{what}: node {number} did not refuse"
            );
        }
        assert_eq!(
            victim.parts.metrics.refusals.get(),
            counted + asked,
            "{what}: counted"
        );
        assert_eq!(
            victim.recorded(Kind::Refused).await,
            recorded + asked,
            "{what}: recorded"
        );
        let now = victim.recorded(Kind::Contributed).await + victim.recorded(Kind::Endorsed).await;
        assert_eq!(
            now, contributed,
            "{what}: a contribution or endorsement is on record"
        );
    }
}

#[test]
fn a_coordinator_gets_nothing_that_no_client_signed() {
    run(async {
        let (cluster, alice, keystore, key, _) = furnished(3).await;
        let other_key = alice.key(cluster.node(1), &keystore, ED25519).await;
        let thief = cluster.node(3);
        let theirs = commitments(thief, &keystore, &key).1;
        let fresh = || thief.parts.next_operation();
        let next = |bytes: Vec<u8>| move || forwarded(thief.parts.next_operation(), &bytes);

        // What the client did sign, it may have: so a refusal below is for what is wrong there.
        let honest = encoded(&alice.sign(&keystore, &key, b"honest"));
        for number in [1, 2] {
            let answer = thief
                .ask(number, &Call::Cosign(forwarded(fresh(), &honest), theirs.clone()))
                .await;
            assert!(matches!(answer, Answer::Cosigned(..)));
        }

        let signed = alice.sign(&keystore, &key, b"message").signed_part().unwrap();
        let all = Asks::Everything;

        let mut changed = signed.clone();
        let text = String::from_utf8(changed.body.clone()).unwrap();
        changed.body = text.replace("bWVzc2FnZQ", "bWVzc2FnZg").into_bytes();
        assert_ne!(changed.body, signed.body);
        refused_everywhere(&cluster, "another message", all, &theirs, next(changed.encode())).await;

        let mut changed = signed.clone();
        changed.target = other_key.path.clone();
        changed.body = text.replace(&key.url, &other_key.url).into_bytes();
        refused_everywhere(&cluster, "another key", all, &theirs, next(changed.encode())).await;

        refused_everywhere(&cluster, "no request", all, &theirs, next(Vec::new())).await;
        refused_everywhere(
            &cluster,
            "noise for a request",
            all,
            &theirs,
            next(vec![0x5a; 300]),
        )
        .await;

        let mut more = signed.clone();
        more.headers.push(("x-unsigned".into(), b"1".to_vec()));
        refused_everywhere(&cluster, "unsigned headers", all, &theirs, next(more.encode())).await;

        let root = Capability::Root(&keystore.url);
        let expired = encoded(&alice.sign_by(root, &key, b"expired", 700));
        refused_everywhere(&cluster, "an expired request", all, &theirs, next(expired)).await;

        let mallory = Client::new();
        let uninvited = encoded(&mallory.sign(&keystore, &key, b"uninvited"));
        refused_everywhere(&cluster, "a stranger's request", all, &theirs, next(uninvited)).await;

        let whole = signed.encode();
        for owner in [1, 2] {
            let boot = cluster.node(owner).parts.boot_number();
            let mut counter = 1_000_000;
            let foreign = || {
                counter += 1;
                let (node, counter) = (owner, counter);
                forwarded(OperationId { node, boot, counter }, &whole)
            };
            let before = cluster.node(1).parts.metrics.foreign_operations.get();
            refused_everywhere(&cluster, "another's operation", all, &theirs, foreign).await;
            assert!(cluster.node(1).parts.metrics.foreign_operations.get() > before);
        }

        let bob = Client::new();
        let capability = alice.delegate(&keystore, &key, &bob, "urn:uuid:lent");
        let by_bob =
            |message: &[u8]| encoded(&bob.sign_by(Capability::Delegated(&capability), &key, message, 0));
        let call = Call::Cosign(forwarded(fresh(), &by_bob(b"lent")), theirs.clone());
        assert!(matches!(thief.ask(1, &call).await, Answer::Cosigned(..)));
        let revoked = cluster.node(1).serve(alice.revoke(&keystore, &capability)).await;
        assert_eq!(status(&revoked), 204);
        cluster.catch_up(&keystore.id).await;
        refused_everywhere(
            &cluster,
            "a revoked capability",
            all,
            &theirs,
            next(by_bob(b"revoked")),
        )
        .await;
        cluster.stop().await;
    });
}

#[test]
fn a_request_is_used_up_two_seconds_after_it_was_seen() {
    run(async {
        let (cluster, alice, keystore, key, _) = furnished(3).await;
        let thief = cluster.node(3);
        let theirs = commitments(thief, &keystore, &key).1;
        let request = alice.sign(&keystore, &key, b"once");
        // Cut off, so that nodes 1 and 2 are the ones that serve it.
        cluster.isolate(3);
        assert!(key.verifies(b"once", &cluster.node(1).serve(request.clone()).await.unwrap()));
        cluster.rejoin(3);
        let next = || forwarded(thief.parts.next_operation(), &encoded(&request));
        for number in [1, 2] {
            cluster.node(number).pass(2_001);
        }
        refused_everywhere(&cluster, "a replay", Asks::Uses, &theirs, next).await;
        cluster.stop().await;
    });
}

#[test]
fn a_ceremony_for_a_key_that_exists_is_refused() {
    run(async {
        let (cluster, alice, keystore, ..) = furnished(3).await;
        let thief = cluster.node(3);
        let request = alice.generate(&keystore, ED25519, "born");
        let made = Key::of(&thief.serve(request.clone()).await.unwrap());
        cluster.catch_up(&keystore.id).await;
        let counter = thief.parts.operations.load(std::sync::atomic::Ordering::Relaxed);
        let (node, boot) = (3, thief.parts.boot_number());
        let again = OperationId { node, boot, counter };
        for number in [1, 2] {
            let victim = cluster.node(number);
            let before = victim.key_record(&keystore.id, &made.id).unwrap();
            let recorded = victim.recorded(Kind::Refused).await;
            let mut question = forwarded(again, &encoded(&request));
            question.attempt = 3;
            let answer = thief
                .ask(number, &Call::Begin(question, beginning(&cluster), Vec::new()))
                .await;
            assert!(matches!(&answer, Answer::Refused(problem) if problem.status == 409));
            assert_eq!(victim.recorded(Kind::Refused).await, recorded + 1);
            assert_eq!(victim.key_record(&keystore.id, &made.id).unwrap(), before);
        }
        cluster.stop().await;
    });
}

#[test]
fn nonces_answer_once_and_only_who_asked_for_them() {
    run(async {
        let (cluster, alice, keystore, key, _) = furnished(3).await;
        let thief = cluster.node(3);
        let before = cluster.node(1).misfits(3);
        let nothing = Call::SignShare(thief.parts.next_operation(), 1, BTreeMap::new());
        assert!(
            !gives(&thief.ask(1, &nothing).await),
            "a second round without a first"
        );
        let nothing = Call::Continue([9; 32], Round::Deal, BTreeMap::new());
        assert!(!gives(&thief.ask(1, &nothing).await), "a round of no ceremony");
        assert_eq!(cluster.node(1).misfits(3), before + 2);

        let request = encoded(&alice.sign(&keystore, &key, b"twice"));
        let committed = |operation| Call::Commit(forwarded(operation, &request));
        let round = async |operation| {
            let Answer::Committed(commitment) = thief.ask(1, &committed(operation)).await else {
                panic!("no commitment for what the client signed");
            };
            let mine = commitments(thief, &keystore, &key).1;
            BTreeMap::from([(1, commitment), (3, mine)])
        };
        let operation = thief.parts.next_operation();
        let mut list = round(operation).await;
        let first = thief.ask(1, &Call::SignShare(operation, 1, list.clone())).await;
        assert!(matches!(first, Answer::Signed(_)));
        list.insert(3, commitments(thief, &keystore, &key).1);
        let second = thief.ask(1, &Call::SignShare(operation, 1, list)).await;
        assert!(
            !gives(&second),
            "the same nonces under another list give the share away"
        );

        let operation = thief.parts.next_operation();
        let list = round(operation).await;
        let stolen = cluster.node(2).ask(1, &Call::SignShare(operation, 1, list)).await;
        assert!(!gives(&stolen), "nonces of another coordinator");
        cluster.stop().await;
    });
}
