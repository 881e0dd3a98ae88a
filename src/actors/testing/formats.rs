//! Nodes of other versions: what they say and this one does not understand is told and counted, and costs nothing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use super::client::{furnished, sign_well};
use super::cluster::{SOON, run, until};
use super::malicious_coordinator::encoded;
use super::symmetric::{Desk, HMAC, encode};
use crate::actors::metrics::OfNode;
use crate::actors::parts::Parts;
use crate::actors::wire::{Abstention, Answer, Call, Forwarded, Roles, format_of};
use crate::format::{Format, NEWEST, OLDEST};
use crate::keystore::{Command, Entry, Outcome, Rejection, Statement};

/// As long as a proposal waits that cannot be answered.
const BRIEF: Duration = Duration::from_secs(1);

async fn say(asking: &Parts, node: u64, bytes: Vec<u8>) -> Bytes {
    asking.network.call(node, bytes.into(), SOON).await.unwrap()
}

#[test]
fn a_call_of_a_later_format_is_answered_and_counted_and_read_by_nobody() {
    run(async {
        let (cluster, ..) = furnished(3).await;
        let asking = &cluster.node(3).parts;
        let asked = &cluster.node(1).parts;
        assert_eq!(asking.speaks(1), NEWEST);
        let unread = || asked.metrics.unread.get_or_create(&OfNode { node: 3 }).get();
        let before = unread();
        let mut later = Call::Envelopes(None).encode_in(NEWEST).unwrap();
        later[0] = NEWEST + 1;
        let answer = say(asking, 1, later).await;
        assert_eq!(
            format_of(&answer),
            Ok(NEWEST),
            "in the nearest format that is spoken"
        );
        let Some(Answer::Misfit(reason)) = Answer::decode(&answer) else {
            panic!("a call of a format that nobody knows was answered");
        };
        assert!(reason.contains(&format!("format {}", NEWEST + 1)), "{reason}");
        for garbage in [vec![], vec![OLDEST], vec![OLDEST, 255, 255]] {
            let answer = say(asking, 1, garbage).await;
            assert!(matches!(Answer::decode(&answer), Some(Answer::Misfit(_))));
        }
        assert_eq!(unread(), before + 4);
        // And in each format that is spoken it is understood.
        for format in OLDEST..=NEWEST {
            let call = Call::Envelopes(None).encode_in(format).unwrap();
            let answer = say(asking, 1, call).await;
            assert_eq!(format_of(&answer), Ok(format));
            assert!(matches!(Answer::decode(&answer), Some(Answer::Envelopes(_))));
        }
        cluster.stop().await;
    });
}

#[test]
fn every_group_is_written_in_what_all_members_speak() {
    run(async {
        let (cluster, ..) = furnished(3).await;
        for node in cluster.nodes() {
            let (agreed, written) = node.parts.formats().unwrap();
            assert_eq!(agreed, NEWEST);
            assert!(written <= NEWEST);
        }
        // Who is away is known by what it said last.
        cluster.isolate(2);
        assert_eq!(cluster.node(1).parts.formats().unwrap().0, NEWEST);
        cluster.stop().await;
    });
}

#[test]
fn another_circuit_is_told_before_anything_is_burned() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(3).await;
        let desk = Desk::new(&cluster, &client, &keystore);
        let key = desk.key(3, HMAC).await;
        let evaluator = cluster.node(3);
        let body = json!({ "type": "SignOperation", "verifyData": encode(b"message") });
        let request = encoded(&desk.request(&key, "sign", body));
        for node in [1, 2] {
            let garbler = &cluster.node(node).parts;
            let number = evaluator.parts.symmetric.next_number();
            let roles = Roles {
                number,
                nodes: [node, 3 - node, 3],
                circuit: [9; 32],
            };
            let forwarded = Forwarded {
                operation: evaluator.parts.next_operation(),
                attempt: 1,
                request: request.clone(),
                needs: Vec::new(),
                participants: vec![1, 2, 3],
                epoch: None,
            };
            let answer = evaluator.ask(node, &Call::Garble(forwarded, roles)).await;
            assert!(
                matches!(answer, Answer::Abstained(Abstention::Circuit)),
                "node {node} garbled for another circuit"
            );
            let mut burned = garbler.symmetric.burned.lock();
            burned.open(3, evaluator.parts.boot).unwrap();
            assert!(
                burned.burn(3, evaluator.parts.boot, number).is_ok(),
                "node {node} has burned the number"
            );
        }
        // The pair of lives goes on as if nothing had been asked.
        desk.tag(3, &key, b"another").await;
        cluster.stop().await;
    });
}

#[test]
fn an_entry_of_a_later_format_stops_a_group_only_if_a_quorum_has_endorsed_it() {
    run(async {
        let (cluster, client, keystore, key, _) = furnished(3).await;
        let corrupt = &cluster.node(3).parts;
        let group = corrupt.group_of(&keystore.id);
        let now = corrupt.now().unwrap();
        let statement = Statement {
            cluster: *corrupt.cluster(),
            group: group.0,
            operation: corrupt.next_operation(),
            request: [0; 32],
            name: [0; 32],
            expires: now,
            command: Command::Time,
            state_version: 0,
            chain: Vec::new(),
        };
        let entry = |endorsers: &[u64], known: Format| {
            let endorse = |node: &u64| {
                let parts = &cluster.node(*node).parts;
                statement.endorse_as(known, *node, &parts.signing_key, now)
            };
            let entry = Entry {
                statement: statement.clone(),
                request: Vec::new(),
                endorsements: endorsers.iter().map(endorse).collect(),
            };
            let mut bytes = entry.encode();
            bytes[0] = NEWEST + 1;
            bytes
        };
        let of_today = entry(&[1, 2, 3], NEWEST);
        for bytes in [vec![NEWEST + 1], vec![0, 1, 2], entry(&[3], NEWEST + 1), of_today] {
            let applied = corrupt
                .consensus
                .propose(group, bytes, Instant::now() + SOON)
                .await;
            let outcome: Outcome = postcard::from_bytes(&applied.unwrap().result).unwrap();
            assert!(matches!(outcome, Outcome::Refused(Rejection::NotEndorsed(_))));
        }
        sign_well(cluster.node(1), &client, &keystore, &key, b"nothing has happened").await;

        // Nobody can answer it: the proposer gives up.
        let proposed = corrupt
            .consensus
            .propose(group, entry(&[1, 3], NEWEST + 1), Instant::now() + BRIEF);
        assert!(proposed.await.is_err());
        for node in cluster.nodes() {
            until("the group halts and no other", || {
                let status = node.parts.consensus.status();
                status.iter().all(|status| match &status.halted {
                    Some(reason) => status.group == group && reason.contains("install the version"),
                    None => status.group != group,
                })
            })
            .await;
        }
        cluster.stop().await;
    });
}
