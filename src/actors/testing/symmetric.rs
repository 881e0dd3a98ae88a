//! Symmetric keys through whole nodes: their bytes against other people's code under the key that two nodes' disks rebuild.

use aes_kw::KwAes256;
use aes_kw::cipher::KeyInit as _;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conclave_garbled::circuits::sha256::compress;
use conclave_garbled::held::Held;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::client::{Client, Key, Keystore, furnished, status};
use super::cluster::{Cluster, run, until};
use super::malicious_coordinator::encoded;
use crate::actors::parts::Parts;
use crate::actors::wire::{Answer, Call, Forwarded};
use crate::authorization::RawRequest;
use crate::authorization::issue::Capability;
use crate::identifier::LocalId;
use crate::problem::Problem;
use crate::reply::Reply;

pub(super) const HMAC: &str = "Sha256HmacKey2019";
pub(super) const KEK: &str = "AesKeyWrappingKey2019";

pub(super) struct Desk<'a> {
    cluster: &'a Cluster,
    client: &'a Client,
    keystore: &'a Keystore,
}

impl<'a> Desk<'a> {
    pub(super) fn new(cluster: &'a Cluster, client: &'a Client, keystore: &'a Keystore) -> Self {
        Self {
            cluster,
            client,
            keystore,
        }
    }

    pub(super) async fn key(&self, node: u64, key_type: &str) -> Key {
        let key = self.generate(node, key_type).await;
        self.cluster.catch_up(&self.keystore.id).await;
        key
    }

    /// A key that not all nodes may know yet.
    pub(super) async fn generate(&self, node: u64, key_type: &str) -> Key {
        let salt = format!("{key_type}-{node}");
        let request = self.client.generate(self.keystore, key_type, &salt);
        let reply = self.cluster.node(node).serve(request).await.unwrap();
        let body = reply.body.unwrap();
        assert_eq!(body["keyDescription"]["type"], key_type);
        assert!(body["keyDescription"].get("publicKeyMultibase").is_none());
        let url = body["keyId"].as_str().unwrap().to_owned();
        let path = url.strip_prefix(super::cluster::URL).unwrap().to_owned();
        let id = LocalId::parse(path.rsplit('/').next().unwrap()).unwrap();
        Key {
            url,
            path,
            id,
            public: [0; 32],
        }
    }

    pub(super) fn request(&self, key: &Key, action: &str, mut body: Value) -> RawRequest {
        body["invocationTarget"] = json!(key.url);
        let invoked = (Capability::Root(&self.keystore.url), action);
        self.client.request("POST", &key.path, invoked, Some(&body), 0)
    }

    async fn operate(&self, node: u64, key: &Key, action: &str, body: Value) -> Result<Reply, Problem> {
        let request = self.request(key, action, body);
        self.cluster.node(node).serve(request).await
    }

    /// `node` serves no such thing in the place of `asks`.
    async fn refuses_to_serve(&self, node: u64, asks: u64, request: RawRequest) {
        let asking = self.cluster.node(asks);
        let forwarded = Forwarded {
            operation: asking.parts.next_operation(),
            attempt: 1,
            request: encoded(&request),
            needs: Vec::new(),
            participants: Vec::new(),
            epoch: None,
        };
        let answer = asking.ask(node, &Call::Serve(forwarded)).await;
        let Answer::Refused(problem) = answer else {
            panic!("node {node} serves for node {asks}");
        };
        assert_eq!(problem.status, 400);
    }

    pub(super) async fn tag(&self, node: u64, key: &Key, message: &[u8]) -> Vec<u8> {
        let body = json!({ "type": "SignOperation", "verifyData": encode(message) });
        let reply = self.operate(node, key, "sign", body).await.unwrap();
        decode(&reply.body.unwrap()["signatureValue"])
    }

    async fn verified(&self, node: u64, key: &Key, message: &[u8], tag: &[u8]) -> Value {
        let body = json!({
            "type": "VerifyOperation", "verifyData": encode(message), "signatureValue": encode(tag),
        });
        self.operate(node, key, "verify", body)
            .await
            .unwrap()
            .body
            .unwrap()["verified"]
            .clone()
    }

    pub(super) async fn wrapped(&self, node: u64, key: &Key, payload: &[u8]) -> Vec<u8> {
        let body = json!({ "type": "WrapKeyOperation", "unwrappedKey": encode(payload) });
        let reply = self.operate(node, key, "wrapKey", body).await.unwrap();
        decode(&reply.body.unwrap()["wrappedKey"])
    }

    pub(super) async fn unwrapped(&self, node: u64, key: &Key, wrapped: &[u8]) -> Value {
        let body = json!({ "type": "UnwrapKeyOperation", "wrappedKey": encode(wrapped) });
        self.operate(node, key, "unwrapKey", body)
            .await
            .unwrap()
            .body
            .unwrap()["unwrappedKey"]
            .clone()
    }

    /// What two nodes' disks rebuild: the secret and the inner state.
    pub(super) fn rebuilt(&self, key: &Key, nodes: [u64; 2]) -> ([u8; 32], Option<[u8; 32]>) {
        let record = self
            .cluster
            .node(1)
            .key_record(&self.keystore.id, &key.id)
            .unwrap();
        let sharing = record.material.sharing().unwrap();
        let held = nodes.map(|node| {
            let id = Parts::share_id(&self.keystore.id, &key.id, &record);
            let sealed = self.cluster.node(node).parts.shares.get(&id).unwrap().unwrap();
            Held::from_bytes(sealed.expose()).unwrap()
        });
        let mut secret = sharing.correction;
        let mut seen = Vec::new();
        for (number, piece) in held.iter().flat_map(|held| held.share.pieces()) {
            if !seen.contains(&number) {
                seen.push(number);
                secret
                    .iter_mut()
                    .zip(piece.value)
                    .for_each(|(byte, piece)| *byte ^= piece);
            }
        }
        assert_eq!(seen.len(), sharing.holders.len());
        let check = conclave_garbled::operations::check_of(
            &crate::actors::holder::key_name(&self.keystore.id, &key.id),
            &secret,
        );
        assert_eq!(check, sharing.check, "the check value is the secret's");
        (secret, held[0].inner.as_ref().map(|inner| **inner))
    }
}

pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(value: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(value.as_str().unwrap()).unwrap()
}

/// HMAC from the two states, in clear.
pub(super) fn tag_of(inner: [u8; 32], outer: [u8; 32], message: &[u8]) -> [u8; 32] {
    let finish = |state: [u8; 32], rest: &[u8]| {
        let mut padded = rest.to_vec();
        padded.push(0x80);
        while padded.len() % 64 != 56 {
            padded.push(0);
        }
        padded.extend_from_slice(&(8 * (64 + rest.len() as u64)).to_be_bytes());
        let (blocks, _) = padded.as_chunks::<64>();
        blocks.iter().fold(state, compress)
    };
    finish(outer, &finish(inner, message))
}

/// What a corrupt garbler of either kind answers.
fn spoiled(call: &Call, answer: Answer) -> Vec<u8> {
    match (call, answer) {
        (Call::Garble(..), Answer::Garbled(mut tail)) => {
            tail.decode[0] ^= 1;
            Answer::Garbled(tail).encode()
        }
        (Call::Garble(..), Answer::Vouched(mut mac)) => {
            mac[0] ^= 1;
            Answer::Vouched(mac).encode()
        }
        (_, answer) => answer.encode(),
    }
}

#[test]
fn tags_and_wraps_are_right_through_every_node() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(3).await;
        let desk = Desk::new(&cluster, &client, &keystore);
        let hmac = desk.key(1, HMAC).await;
        let (outer, inner) = desk.rebuilt(&hmac, [1, 2]);
        assert_eq!(desk.rebuilt(&hmac, [2, 3]), (outer, inner));
        for (node, length) in [(1, 0), (2, 1), (3, 55), (1, 56), (2, 64), (3, 1_000)] {
            let message = vec![7; length];
            let tag = desk.tag(node, &hmac, &message).await;
            assert_eq!(
                tag,
                tag_of(inner.unwrap(), outer, &message),
                "{length} at node {node}"
            );
            assert_eq!(desk.verified(1 + node % 3, &hmac, &message, &tag).await, true);
            let mut wrong = tag.clone();
            wrong[31] ^= 1;
            assert_eq!(desk.verified(node, &hmac, &message, &wrong).await, false);
            assert_eq!(desk.verified(node, &hmac, &message, &tag[..31]).await, false);
        }
        let kek = desk.key(2, KEK).await;
        let (secret, none) = desk.rebuilt(&kek, [1, 3]);
        assert!(none.is_none());
        for node in 1..=3 {
            let payload: Vec<u8> = (0..32).map(|byte| byte ^ node as u8).collect();
            let wrapped = desk.wrapped(node, &kek, &payload).await;
            let mut expected = [0; 40];
            KwAes256::new(&secret.into())
                .wrap_key(&payload, &mut expected)
                .unwrap();
            assert_eq!(wrapped, expected);
            assert_eq!(
                decode(&desk.unwrapped(1 + node % 3, &kek, &wrapped).await),
                payload
            );
            let mut broken = wrapped.clone();
            broken[39] ^= 1;
            assert_eq!(desk.unwrapped(node, &kek, &broken).await, Value::Null);
            assert_eq!(desk.unwrapped(node, &kek, &wrapped[..32]).await, Value::Null);
            assert_eq!(desk.unwrapped(node, &kek, &wrapped[..33]).await, Value::Null);
        }
        for length in [0, 8, 17, 264] {
            let body = json!({ "type": "WrapKeyOperation", "unwrappedKey": encode(&vec![0; length]) });
            assert_eq!(
                status(&desk.operate(1, &kek, "wrapKey", body).await),
                403,
                "{length}"
            );
        }
        cluster.stop().await;
    });
}

/// The key's own HMAC, of a key that the test knows only by what its pieces are.
#[test]
fn the_states_are_those_of_one_key() {
    let key = [9; 32];
    let states = [0x36, 0x5c].map(|pad| {
        let mut block = [pad; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        compress(conclave_garbled::circuits::sha256::INITIAL_STATE, &block)
    });
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(b"message");
    let tag: [u8; 32] = mac.finalize().into_bytes().into();
    assert_eq!(tag_of(states[0], states[1], b"message"), tag);
}

#[test]
fn a_committee_of_four_goes_on_without_one_and_despite_one() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(4).await;
        let desk = Desk::new(&cluster, &client, &keystore);
        let hmac = desk.key(1, HMAC).await;
        let (outer, inner) = desk.rebuilt(&hmac, [3, 4]);
        let expected = tag_of(inner.unwrap(), outer, b"m");
        for node in 1..=4 {
            assert_eq!(desk.tag(node, &hmac, b"m").await, expected);
        }
        cluster.node(4).tamper(spoiled);
        for node in [1, 2, 3, 1] {
            assert_eq!(desk.tag(node, &hmac, b"m").await, expected, "beside a liar");
        }
        cluster.isolate(4);
        for node in 1..=3 {
            assert_eq!(desk.tag(node, &hmac, b"m").await, expected, "without it");
        }
        cluster.stop().await;
    });
}

/// Whatever happens to a segment between two nodes, what is answered is right, and what no garbler said is an abort.
#[test]
fn a_segment_that_is_altered_on_its_way_changes_no_answer() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(3).await;
        let desk = Desk::new(&cluster, &client, &keystore);
        let hmac = desk.key(1, HMAC).await;
        let (outer, inner) = desk.rebuilt(&hmac, [2, 3]);
        let evaluator = cluster.node(1);
        // The lane's mark, the operation's number, the kind, then what is said.
        type Alteration = (&'static str, bool, fn(&mut Vec<u8>));
        let alterations: [Alteration; 8] = [
            ("another number", false, |frame| frame[8] ^= 1),
            ("another kind", false, |frame| frame[9] ^= 1),
            ("the first byte", true, |frame| frame[10] ^= 1),
            ("a byte in the middle", true, |frame| {
                let middle = 10 + (frame.len() - 10) / 2;
                frame[middle] ^= 0x80;
            }),
            ("the last byte", true, |frame| *frame.last_mut().unwrap() ^= 1),
            ("a byte less", true, |frame| {
                frame.pop();
            }),
            ("a byte more", true, |frame| frame.push(0)),
            ("nothing said", false, |frame| frame.truncate(10)),
        ];
        for (what, aborts, alter) in alterations {
            let before = evaluator.parts.metrics.aborts.get();
            evaluator.alter_segment(alter);
            let tag = desk.tag(1, &hmac, what.as_bytes()).await;
            assert_eq!(tag, tag_of(inner.unwrap(), outer, what.as_bytes()), "{what}");
            assert!(!evaluator.awaits_segment(), "{what}: nothing was altered");
            let counted = evaluator.parts.metrics.aborts.get() > before;
            assert!(counted || !aborts, "{what}: no abort was counted");
        }
        cluster.stop().await;
    });
}

#[test]
fn with_three_holders_one_that_is_away_is_waited_for() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(3).await;
        let desk = Desk::new(&cluster, &client, &keystore);
        let hmac = desk.key(1, HMAC).await;
        let before = desk.tag(1, &hmac, b"m").await;
        cluster.isolate(3);
        let back = async {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            cluster.rejoin(3);
        };
        let (tag, ()) = futures::join!(desk.tag(1, &hmac, b"m"), back);
        assert_eq!(tag, before);
        cluster.isolate(3);
        // The second one does not wait: the link was lost long ago.
        for _ in 0..2 {
            let body = json!({ "type": "SignOperation", "verifyData": encode(b"m") });
            let refused = desk.operate(1, &hmac, "sign", body).await.unwrap_err();
            assert_eq!((refused.status, refused.retry_after), (503, Some(1)));
            assert!(refused.message.contains("node 3"), "{}", refused.message);
        }
        cluster.rejoin(3);
        until("a use works again", || cluster.node(1).parts.network.connected(3)).await;
        assert_eq!(desk.tag(1, &hmac, b"m").await, before);
        cluster.stop().await;
    });
}

#[test]
fn of_five_nodes_the_one_without_a_part_has_a_holder_serve() {
    run(async {
        let (cluster, client, keystore, signing, _) = furnished(5).await;
        let desk = Desk::new(&cluster, &client, &keystore);
        let (hmac, kek) = (desk.key(1, HMAC).await, desk.key(1, KEK).await);
        for key in [&hmac, &kek] {
            let record = cluster.node(1).key_record(&keystore.id, &key.id).unwrap();
            let holders = record.material.sharing().unwrap().holders.clone();
            assert_eq!(holders.len(), 4);
            let outside = (1..=5).find(|node| !holders.contains(node)).unwrap();
            if key.id == hmac.id {
                let tag = desk.tag(holders[0], key, b"m").await;
                assert_eq!(desk.tag(outside, key, b"m").await, tag);
                assert_eq!(desk.verified(outside, key, b"m", &tag).await, true);
                // One holder down: another one serves, with those that are left.
                cluster.isolate(holders[3]);
                for _ in 0..4 {
                    assert_eq!(desk.tag(outside, key, b"m").await, tag);
                }
                cluster.rejoin(holders[3]);
                until("it is back", || {
                    cluster.node(outside).parts.network.connected(holders[3])
                })
                .await;
                // A holder has nobody serve for it: it could collect what others are to have.
                let request = desk.request(
                    key,
                    "sign",
                    json!({ "type": "SignOperation", "verifyData": "bQ" }),
                );
                desk.refuses_to_serve(holders[0], holders[1], request).await;
            } else {
                let body = json!({ "type": "WrapKeyOperation", "unwrappedKey": encode(&[7; 32]) });
                let reply = desk.operate(outside, key, "wrapKey", body).await.unwrap();
                let wrapped = decode(&reply.body.unwrap()["wrappedKey"]);
                assert_eq!(decode(&desk.unwrapped(outside, key, &wrapped).await), [7; 32]);
            }
        }
        let request = client.sign(&keystore, &signing, b"m");
        desk.refuses_to_serve(2, 1, request).await;
        cluster.stop().await;
    });
}

#[test]
fn three_that_go_on_aborting_a_key_wait_and_are_told() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(3).await;
        let desk = Desk::new(&cluster, &client, &keystore);
        let (hmac, other) = (desk.key(1, HMAC).await, desk.key(2, HMAC).await);
        let tag = desk.tag(1, &hmac, b"m").await;
        cluster.node(3).tamper(spoiled);
        let sign = |key| {
            desk.request(
                key,
                "sign",
                json!({ "type": "SignOperation", "verifyData": "bQ" }),
            )
        };
        let refused = cluster.node(1).serve(sign(&hmac)).await.unwrap_err();
        assert_eq!(refused.status, 503);
        assert!(
            refused.message.contains("did not fit together"),
            "{}",
            refused.message
        );
        assert_eq!(
            cluster.node(1).parts.metrics.aborts.get(),
            2,
            "both ways round, and no more"
        );
        // It is this key's pause and this node's.
        let refused = cluster.node(1).serve(sign(&other)).await.unwrap_err();
        assert_eq!(refused.status, 503);
        assert_eq!(cluster.node(1).parts.metrics.aborts.get(), 4);
        cluster.node(3).tamper(|_, answer| answer.encode());
        assert_eq!(desk.tag(2, &hmac, b"m").await, tag);
        // What a client does.
        tokio::time::sleep(std::time::Duration::from_secs(
            refused.retry_after.unwrap().into(),
        ))
        .await;
        assert_eq!(desk.tag(1, &hmac, b"m").await, tag);
        cluster.stop().await;
    });
}
