//! Batches: each item is answered, judged, recorded and remembered as if it came alone, in one exchange with a holder.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::rngs::OsRng;
use serde_json::{Value, json};

use super::client::{Client, ED25519, Key, Keystore, furnished};
use super::cluster::{Cluster, Node, run};
use super::symmetric::{Desk, HMAC, KEK};
use crate::actors::wire::{Answer, Call};
use crate::audit::Kind;
use crate::authorization::RawRequest;
use crate::authorization::issue::Capability;
use crate::reply::Reply;

pub(super) fn sign(key: &Key, message: &str) -> Value {
    json!({
        "type": "SignOperation",
        "invocationTarget": key.url,
        "verifyData": URL_SAFE_NO_PAD.encode(message),
    })
}

fn derive(key: &Key, peer: &x25519_dalek::PublicKey) -> Value {
    let multibase = bs58::encode([&[0xec, 0x01][..], peer.as_bytes()].concat()).into_string();
    json!({
        "type": "DeriveSecretOperation",
        "invocationTarget": key.url,
        "publicKey": { "type": "X25519KeyAgreementKey2020", "publicKeyMultibase": format!("z{multibase}") },
    })
}

pub(super) fn batch(
    client: &Client,
    keystore: &Keystore,
    capability: Capability<'_>,
    items: &Value,
) -> RawRequest {
    let path = format!("{}/operations", keystore.path);
    client.request("POST", &path, (capability, "batch"), Some(items), 0)
}

pub(super) async fn answers(node: &Node, request: RawRequest) -> Vec<Value> {
    let reply = node.serve(request).await.unwrap();
    reply.body.unwrap().as_array().unwrap().clone()
}

pub(super) fn statuses(answers: &[Value]) -> Vec<u64> {
    answers
        .iter()
        .map(|answer| answer["status"].as_u64().unwrap())
        .collect()
}

fn verifies(key: &Key, message: &str, answer: &Value) -> bool {
    key.verifies(message.as_bytes(), &Reply::ok(answer["body"].clone()))
}

/// Frames with questions about uses that the other nodes got.
fn counted(cluster: &Cluster) -> Arc<AtomicU64> {
    let count: Arc<AtomicU64> = Arc::default();
    for node in &cluster.nodes()[1..] {
        let count = count.clone();
        node.tamper(move |call, answer| {
            let use_of_key = matches!(
                call,
                Call::Batch(..) | Call::Cosign(..) | Call::Commit(_) | Call::SignShare(..) | Call::Derive(_)
            );
            count.fetch_add(u64::from(use_of_key), Ordering::Relaxed);
            answer.encode()
        });
    }
    count
}

async fn whole_batches(n: u64, frames: u64) {
    let (cluster, alice, keystore, signing, agreement) = furnished(n).await;
    let first = cluster.node(1);
    let asked = counted(&cluster);
    let other = x25519_dalek::StaticSecret::random_from_rng(OsRng);
    let peer = x25519_dalek::PublicKey::from(&other);
    let messages: Vec<String> = (0..16).map(|turn| format!("message {turn}")).collect();
    let mut items: Vec<Value> = messages.iter().map(|message| sign(&signing, message)).collect();
    items.push(derive(&agreement, &peer));
    items.insert(
        5,
        json!({ "type": "SignOperation", "invocationTarget": signing.url }),
    );
    items.insert(9, sign(&agreement, "a key that does not sign"));
    items.push(json!("no operation"));
    let root = Capability::Root(&keystore.url);
    let request = batch(&alice, &keystore, root, &json!(items));
    let recorded = first.recorded(Kind::Contributed).await;
    let answers = answers(first, request.clone()).await;
    let mut expected = vec![200; 20];
    (expected[5], expected[9], expected[19]) = (400, 403, 400);
    assert_eq!(statuses(&answers), expected, "{answers:?}");
    let signatures = answers
        .iter()
        .enumerate()
        .filter(|(place, _)| ![5, 9, 18, 19].contains(place));
    for (message, (_, answer)) in messages.iter().zip(signatures) {
        assert!(verifies(&signing, message, answer), "{message}: {answer}");
    }
    let secret = answers[18]["body"]["secret"].as_str().unwrap();
    let theirs = other.diffie_hellman(&x25519_dalek::PublicKey::from(agreement.public));
    assert_eq!(URL_SAFE_NO_PAD.decode(secret).unwrap(), theirs.as_bytes());
    // On a busy machine items are not ready at one moment, and some questions go alone.
    let asked = asked.load(Ordering::Relaxed);
    assert!((frames..17).contains(&asked), "{asked} questions for 17 items");
    let recorded = first.recorded(Kind::Contributed).await - recorded;
    assert_eq!(recorded, 17, "each item has its own record");

    // The same bytes later: each item is a replay of its own.
    for node in cluster.nodes() {
        node.pass(2_001);
    }
    let again = super::batch::answers(first, request).await;
    let used: Vec<u64> = expected
        .iter()
        .map(|status| if *status == 200 { 409 } else { 400 })
        .collect();
    let again = statuses(&again);
    assert!(
        again
            .iter()
            .zip(&used)
            .all(|(got, used)| got == used || *used == 400),
        "{again:?}"
    );
    cluster.stop().await;
}

#[test]
fn three_nodes_exchange_once() {
    run(whole_batches(3, 1));
}

#[test]
fn five_nodes_exchange_twice_with_each_of_two() {
    run(whole_batches(5, 4));
}

#[test]
fn an_item_may_what_its_capability_allows_and_no_more() {
    run(async {
        let (cluster, alice, keystore, signing, agreement) = furnished(3).await;
        let other = alice.key(cluster.node(1), &keystore, ED25519).await;
        let bob = Client::new();
        let lent = alice.delegate(&keystore, &signing, &bob, "urn:uuid:lent");
        let peer = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::random_from_rng(OsRng));
        let items = json!([
            sign(&signing, "allowed"),
            sign(&other, "another key"),
            derive(&agreement, &peer),
            derive(&signing, &peer),
        ]);
        let by_bob = Capability::Delegated(&lent);
        for node in cluster.nodes() {
            let answers = answers(node, batch(&bob, &keystore, by_bob, &items)).await;
            assert_eq!(statuses(&answers), [200, 403, 403, 403], "{answers:?}");
        }
        cluster
            .node(1)
            .serve(alice.revoke(&keystore, &lent))
            .await
            .unwrap();
        for node in cluster.nodes() {
            let items = json!([sign(&signing, "revoked"), sign(&signing, "revoked too")]);
            let answers = answers(node, batch(&bob, &keystore, by_bob, &items)).await;
            assert_eq!(statuses(&answers), [403, 403]);
        }
        // The whole is refused when it is no batch.
        let root = || Capability::Root(&keystore.url);
        let first = cluster.node(1);
        for (what, items) in [
            ("empty", json!([])),
            ("an object", json!({})),
            ("too many", json!(vec![sign(&signing, "x"); 65])),
        ] {
            let refused = first.serve(batch(&alice, &keystore, root(), &items)).await;
            assert_eq!(super::client::status(&refused), 400, "{what}");
        }
        let path = format!("{}/operations", keystore.path);
        let items = json!([sign(&signing, "x")]);
        let named_sign = alice.request("POST", &path, (root(), "sign"), Some(&items), 0);
        assert_eq!(super::client::status(&first.serve(named_sign).await), 403);
        cluster.stop().await;
    });
}

#[test]
fn a_holder_that_lies_about_items_is_named_and_all_answers_are_right() {
    run(async {
        let (cluster, alice, keystore, signing, _) = furnished(3).await;
        let first = cluster.node(1);
        cluster.node(3).tamper(|call, answer| {
            let Answer::Batch(mut answers) = answer else {
                return answer.encode();
            };
            assert!(matches!(call, Call::Batch(..)));
            for (place, encoded) in answers.iter_mut().enumerate() {
                let mut answer = Answer::decode(encoded).unwrap();
                match &mut answer {
                    Answer::Cosigned(_, share) if place % 2 == 0 => share[0] ^= 1,
                    Answer::Cosigned(commitments, _) => commitments.clear(),
                    _ => {}
                }
                *encoded = answer.encode();
            }
            answers.pop();
            answers.push(Answer::Confirmed.encode());
            Answer::Batch(answers).encode()
        });
        for turn in 0..4 {
            let messages: Vec<String> = (0..8).map(|place| format!("{turn} {place}")).collect();
            let items: Vec<Value> = messages.iter().map(|message| sign(&signing, message)).collect();
            let request = batch(&alice, &keystore, Capability::Root(&keystore.url), &json!(items));
            let answers = answers(first, request).await;
            for (message, answer) in messages.iter().zip(&answers) {
                assert!(verifies(&signing, message, answer), "{message}: {answer}");
            }
        }
        assert!(first.named(3) > 0);
        assert_eq!(first.named(2), 0);
        cluster.stop().await;
    });
}

/// An operation on a symmetric key; `member` is its payload.
fn symmetric(kind: &str, key: &Key, member: &str, payload: &str) -> Value {
    json!({ "type": kind, "invocationTarget": key.url, member: payload })
}

#[test]
fn symmetric_keys_are_used_beside_others() {
    run(async {
        let (cluster, alice, keystore, signing, _) = furnished(3).await;
        let desk = Desk::new(&cluster, &alice, &keystore);
        let (hmac, kek) = (desk.key(1, HMAC).await, desk.key(2, KEK).await);
        let root = || Capability::Root(&keystore.url);
        let payload = URL_SAFE_NO_PAD.encode([7; 32]);
        let mut items = vec![
            symmetric("SignOperation", &hmac, "verifyData", "bQ"),
            sign(&signing, "beside"),
            symmetric("WrapKeyOperation", &kek, "unwrappedKey", &payload),
            symmetric("WrapKeyOperation", &hmac, "unwrappedKey", &payload),
        ];
        // More than are computed at once.
        items.extend(vec![items[0].clone(); 20]);
        let made = answers(cluster.node(1), batch(&alice, &keystore, root(), &json!(items))).await;
        let tag = made[0]["body"]["signatureValue"].clone();
        assert_eq!(tag, URL_SAFE_NO_PAD.encode(desk.tag(2, &hmac, b"m").await));
        assert!(verifies(&signing, "beside", &made[1]));
        assert_ne!(made[3]["status"], 200, "an HMAC key wraps nothing");
        for answer in &made[4..] {
            assert_eq!(answer["body"]["signatureValue"], tag, "{answer}");
        }
        let mut verify = symmetric("VerifyOperation", &hmac, "verifyData", "bQ");
        verify["signatureValue"] = tag;
        let wrapped = made[2]["body"]["wrappedKey"].as_str().unwrap();
        let items = json!([
            symmetric("UnwrapKeyOperation", &kek, "wrappedKey", wrapped),
            verify,
            symmetric(
                "UnwrapKeyOperation",
                &kek,
                "wrappedKey",
                &wrapped.replace('A', "B")[..50]
            ),
        ]);
        let read = answers(cluster.node(3), batch(&alice, &keystore, root(), &items)).await;
        assert_eq!(read[0]["body"]["unwrappedKey"], payload);
        assert_eq!(read[1]["body"]["verified"], true);
        assert_eq!(read[2]["body"]["unwrappedKey"], Value::Null);
        cluster.stop().await;
    });
}

#[test]
fn of_five_nodes_one_without_a_part_has_a_holder_serve_items() {
    run(async {
        let (cluster, alice, keystore, signing, _) = furnished(5).await;
        let desk = Desk::new(&cluster, &alice, &keystore);
        let kek = desk.key(1, KEK).await;
        let record = cluster.node(1).key_record(&keystore.id, &kek.id).unwrap();
        let holders = &record.material.sharing().unwrap().holders;
        let outside = (1..=5).find(|node| !holders.contains(node)).unwrap();
        let payload = URL_SAFE_NO_PAD.encode([7; 32]);
        let wrap = symmetric("WrapKeyOperation", &kek, "unwrappedKey", &payload);
        let items = json!([wrap, sign(&signing, "beside"), wrap]);
        let request = batch(&alice, &keystore, Capability::Root(&keystore.url), &items);
        let made = answers(cluster.node(outside), request).await;
        assert_eq!(statuses(&made), [200, 200, 200]);
        assert_eq!(made[0], made[2]);
        // Its result would be the first one's that sees it: it is not shown among others.
        let wrapped = made[0]["body"]["wrappedKey"].as_str().unwrap();
        let items = json!([symmetric("UnwrapKeyOperation", &kek, "wrappedKey", wrapped)]);
        let request = batch(&alice, &keystore, Capability::Root(&keystore.url), &items);
        let refused = answers(cluster.node(outside), request).await;
        assert_eq!(statuses(&refused), [503]);
        assert!(refused[0].to_string().contains("alone"), "{}", refused[0]);
        cluster.stop().await;
    });
}
