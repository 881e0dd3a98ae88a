//! Entries that go to consensus past every rule of a coordinator: what k members have not endorsed changes nothing.

use std::time::Instant;

use ed25519_dalek::SigningKey;
use rand::rngs::OsRng;
use serde_json::json;

use super::client::{Client, furnished};
use super::cluster::{Cluster, SOON, run, until};
use crate::actors::examined::Examined;
use crate::actors::wire::{Answer, Call, Forwarded};
use crate::identifier::LocalId;
use crate::keystore::{Command, Endorsement, Entry, Outcome, Rejection, Statement};

/// Proposes and gives what every replica must have made of it.
async fn propose(cluster: &Cluster, keystore: &LocalId, entry: &Entry) -> Outcome {
    let group = cluster.node(1).parts.group_of(keystore);
    let consensus = &cluster.node(3).parts.consensus;
    let applied = consensus
        .propose(group, entry.encode(), Instant::now() + SOON)
        .await;
    postcard::from_bytes(&applied.unwrap().result).unwrap()
}

/// Every node's record, once each has applied all that was committed.
async fn controllers(cluster: &Cluster, keystore: &LocalId) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for node in cluster.nodes() {
        let group = node.parts.group_of(keystore);
        node.parts
            .consensus
            .read_index(group, Instant::now() + SOON)
            .await
            .unwrap();
        all.push(node.keystore_record(keystore).unwrap().config.controllers);
    }
    all
}

#[test]
fn a_leader_cannot_change_what_a_quorum_has_not_endorsed() {
    run(async {
        let (cluster, alice, keystore, ..) = furnished(3).await;
        let (mallory, bob) = (Client::new(), Client::new());
        let corrupt = &cluster.node(3).parts;
        let now = corrupt.now().unwrap();
        let own = |statement: &Statement, time| statement.endorse(3, &corrupt.signing_key, time);

        // What mallory would like: no client asked for it, so no honest member endorses it.
        let mut config = cluster.node(1).keystore_record(&keystore.id).unwrap().config;
        (config.controllers, config.sequence) = (vec![mallory.did.clone()], 1);
        let request = b"nobody's".to_vec();
        let statement = Statement {
            cluster: *corrupt.cluster(),
            group: corrupt.group_of(&keystore.id).0,
            operation: corrupt.next_operation(),
            request: crate::keystore::apply::request_hash(&request),
            name: [5; 32],
            expires: now + 300_000,
            command: Command::UpdateKeystore {
                id: keystore.id,
                config,
            },
            state_version: 1,
            chain: Vec::new(),
        };
        let stranger = SigningKey::generate(&mut OsRng);
        let mine = own(&statement, now);
        let forged = |node, key: &SigningKey| statement.endorse(node, key, now);
        let as_another = Endorsement {
            node: 1,
            ..mine.clone()
        };
        let attempts: Vec<(&str, Vec<Endorsement>)> = vec![
            ("none", vec![]),
            ("one", vec![mine.clone()]),
            ("two copies of one", vec![mine.clone(), mine.clone()]),
            (
                "three copies of one",
                vec![mine.clone(), mine.clone(), mine.clone()],
            ),
            ("two of one member", vec![mine.clone(), own(&statement, now + 1)]),
            ("a stranger's", vec![mine.clone(), forged(4, &stranger)]),
            (
                "a stranger's in a member's name",
                vec![mine.clone(), forged(1, &stranger)],
            ),
            ("our own in a member's name", vec![mine.clone(), as_another]),
        ];
        for (what, endorsements) in attempts {
            let entry = Entry {
                statement: statement.clone(),
                request: request.clone(),
                endorsements,
            };
            let outcome = propose(&cluster, &keystore.id, &entry).await;
            assert!(
                matches!(outcome, Outcome::Refused(Rejection::NotEndorsed(_))),
                "{what}: {outcome:?}"
            );
        }

        // What alice did ask for: an honest endorsement of it is good for that, at its time, and for nothing else.
        let request = alice.update(&keystore, 1, &json!([alice.did, bob.did]));
        let examined = Examined::of_client(&request, &corrupt.rules, now)
            .map_err(|_| ())
            .unwrap();
        let mut config = cluster.node(1).keystore_record(&keystore.id).unwrap().config;
        config.controllers = vec![alice.did.clone(), bob.did.clone()];
        (config.single_controller, config.sequence) = (false, 1);
        let asked = Statement {
            operation: corrupt.next_operation(),
            request: examined.hash,
            name: examined.authenticated.name,
            expires: examined.authenticated.expires * 1_000,
            command: Command::UpdateKeystore {
                id: keystore.id,
                config,
            },
            ..statement.clone()
        };
        let question = Call::Endorse(Forwarded {
            operation: asked.operation,
            attempt: 1,
            request: examined.encoded.clone(),
            needs: Vec::new(),
            participants: Vec::new(),
            epoch: None,
        });
        let Answer::Endorsed(honest) = cluster.node(3).ask(1, &question).await else {
            panic!("no endorsement of what the client asked for");
        };
        let honest_key = &corrupt.member(1).unwrap().verifying_key;
        assert!(asked.is_endorsed(&honest, honest_key));
        let entry = |statement: &Statement, endorsements: Vec<Endorsement>| Entry {
            statement: statement.clone(),
            request: examined.encoded.clone(),
            endorsements,
        };
        let mut elsewhere = asked.clone();
        elsewhere.group = 3 - asked.group;
        let mut longer = honest.clone();
        longer.time += 1;
        let attempts = [
            (
                "moved to another statement",
                entry(&statement, vec![mine, honest.clone()]),
            ),
            (
                "for another group",
                entry(&elsewhere, vec![own(&elsewhere, now), honest.clone()]),
            ),
            (
                "back-dated by us",
                entry(&asked, vec![own(&asked, honest.time - 5_001), honest.clone()]),
            ),
            (
                "ahead of its time",
                entry(&asked, vec![own(&asked, honest.time + 5_001), honest.clone()]),
            ),
            ("its time changed", entry(&asked, vec![own(&asked, now), longer])),
            (
                "another request",
                Entry {
                    request: b"another".to_vec(),
                    ..entry(&asked, vec![own(&asked, now), honest.clone()])
                },
            ),
        ];
        for (what, entry) in attempts {
            let outcome = propose(&cluster, &keystore.id, &entry).await;
            assert!(
                matches!(outcome, Outcome::Refused(Rejection::NotEndorsed(_))),
                "{what}: {outcome:?}"
            );
        }
        for controllers in controllers(&cluster, &keystore.id).await {
            assert_eq!(
                controllers,
                std::slice::from_ref(&alice.did),
                "nothing has changed anywhere"
            );
        }

        let whole = entry(&asked, vec![own(&asked, honest.time), honest]);
        let outcome = propose(&cluster, &keystore.id, &whole).await;
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
        for controllers in controllers(&cluster, &keystore.id).await {
            assert_eq!(controllers, [alice.did.clone(), bob.did.clone()]);
        }
        cluster.stop().await;
    });
}

#[test]
fn a_change_that_corrupt_endorsers_made_up_raises_an_alarm_and_an_honest_one_does_not() {
    run(async {
        let (cluster, alice, keystore, key, _) = furnished(3).await;
        let (bob, mallory) = (Client::new(), Client::new());
        let first = cluster.node(1);
        let lent = alice.delegate(&keystore, &key, &bob, "urn:uuid:lent");
        first.serve(alice.revoke(&keystore, &lent)).await.unwrap();
        let both = json!([alice.did, bob.did]);
        first.serve(alice.update(&keystore, 1, &both)).await.unwrap();
        cluster.catch_up(&keystore.id).await;

        // Two of three are corrupt and hand the keystore to mallory, who asks for it with a signature of her own.
        let request = mallory.update(&keystore, 2, &json!([mallory.did]));
        let encoded = request.signed_part().unwrap().encode();
        let now = first.parts.now().unwrap();
        let examined = Examined::of_node(encoded.clone(), &first.parts.rules, now).unwrap();
        let mut config = first.keystore_record(&keystore.id).unwrap().config;
        (config.controllers, config.sequence) = (vec![mallory.did.clone()], 2);
        let statement = Statement {
            cluster: *first.parts.cluster(),
            group: first.parts.group_of(&keystore.id).0,
            operation: cluster.node(3).parts.next_operation(),
            request: examined.hash,
            name: examined.authenticated.name,
            expires: examined.authenticated.expires * 1_000,
            command: Command::UpdateKeystore {
                id: keystore.id,
                config,
            },
            state_version: 2,
            chain: Vec::new(),
        };
        let endorsed = |node: u64| statement.endorse(node, &cluster.node(node).parts.signing_key, now);
        let entry = Entry {
            statement: statement.clone(),
            request: encoded,
            endorsements: vec![endorsed(2), endorsed(3)],
        };
        for node in cluster.nodes() {
            assert_eq!(node.parts.metrics.verdict_alarms.get(), 0, "of honest changes");
        }
        let outcome = propose(&cluster, &keystore.id, &entry).await;
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
        for node in cluster.nodes() {
            until("the alarm", || node.parts.metrics.verdict_alarms.get() == 1).await;
        }
        cluster.stop().await;
    });
}
