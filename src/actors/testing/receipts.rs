//! Receipts of whole nodes: what a quorum vouches for, what a corrupt coordinator cannot get, and what a member does not sign.

use serde_json::json;

use super::client::{Client, ED25519, Key, Keystore, furnished, now, status};
use super::cluster::{CLUSTER, Cluster, Node, URL, run};
use super::malicious_coordinator::{encoded, forwarded};
use crate::actors::receipts::{About, Vouch};
use crate::actors::wire::{Abstention, Answer, Call};
use crate::authorization::{RawRequest, name_of};
use crate::identifier::LocalId;
use crate::membership::Membership;
use crate::receipt::{Doubt, HEADER, Receipt, Statement, Subject, Voucher, WANTED};

/// The same request by a client that wants a receipt.
pub(super) fn wanting(mut request: RawRequest) -> RawRequest {
    request.headers.push((HEADER.into(), WANTED.into()));
    request
}

fn get(key: &Key) -> RawRequest {
    RawRequest {
        method: "GET".into(),
        target: key.path.clone(),
        headers: Vec::new(),
        body: Vec::new(),
    }
}

fn verify(cluster: &Cluster, receipt: Option<&str>, subject: Subject) -> Result<Vec<u64>, Doubt> {
    verify_by(cluster.genesis(), receipt, subject)
}

fn verify_by(members: &Membership, receipt: Option<&str>, subject: Subject) -> Result<Vec<u64>, Doubt> {
    let receipt = Receipt::parse(receipt.ok_or(Doubt::Missing)?)?;
    receipt.verify(members, subject, now() * 1_000)
}

fn revocation(keystore: &Keystore, id: &str, delegator: &Client) -> Subject {
    Subject::Revocation {
        keystore: keystore.url.clone(),
        capability: id.into(),
        delegator: delegator.did.clone(),
    }
}

/// Describes a key through a node; the receipt's verdict.
async fn described(cluster: &Cluster, node: &Node, key: &Key) -> Result<Vec<u64>, Doubt> {
    described_to(cluster.genesis(), node, key).await
}

/// The same for a client that knows these members.
pub(super) async fn described_to(members: &Membership, node: &Node, key: &Key) -> Result<Vec<u64>, Doubt> {
    let reply = node.serve(wanting(get(key))).await.unwrap();
    let body = reply.body.unwrap().to_string();
    let subject = Subject::description(&key.url, body.as_bytes());
    verify_by(members, reply.receipt.as_deref(), subject)
}

#[test]
fn a_quorum_vouches_through_every_node_for_who_asks() {
    run(async {
        let (cluster, alice, keystore, key, _) = furnished(3).await;
        for node in cluster.nodes() {
            assert_eq!(described(&cluster, node, &key).await.unwrap().len(), 2);
            assert_eq!(
                node.serve(get(&key)).await.unwrap().receipt,
                None,
                "not asked for"
            );

            let number = node.parts.node;
            let request = alice.generate(&keystore, ED25519, &format!("new-{number}"));
            let name = name_of(&request).unwrap();
            let made = node.serve(wanting(request)).await.unwrap();
            let body = made.body.as_ref().unwrap().to_string();
            let birth = |name| Subject::birth(name, format!("{}/keys", keystore.url), body.as_bytes());
            let receipt = made.receipt.as_deref();
            assert_eq!(verify(&cluster, receipt, birth(name)).unwrap().len(), 2);
            assert!(
                verify(&cluster, receipt, birth([0; 32])).is_err(),
                "of another request"
            );

            let id = format!("urn:uuid:{number}");
            let lent = alice.delegate(&keystore, &key, &Client::new(), &id);
            let revoked = node.serve(wanting(alice.revoke(&keystore, &lent))).await.unwrap();
            let subject = revocation(&keystore, &id, &alice);
            let vouching = verify(&cluster, revoked.receipt.as_deref(), subject.clone());
            assert_eq!(vouching.unwrap().len(), 2);
            // Once more through another one: it is refused, and the receipt says that it is revoked.
            let other = cluster.node(number % 3 + 1);
            let again = other.serve(wanting(alice.revoke(&keystore, &lent))).await;
            let problem = again.unwrap_err();
            assert_eq!(problem.status, 403);
            assert!(verify(&cluster, problem.receipt.as_deref(), subject).is_ok());
        }
        cluster.stop().await;
    });
}

#[test]
fn symmetric_keys_and_keys_of_five_members_are_vouched_for() {
    run(async {
        let (cluster, alice, keystore, key, _) = furnished(5).await;
        assert_eq!(described(&cluster, cluster.node(4), &key).await.unwrap().len(), 3);
        let request = alice.generate(&keystore, "Sha256HmacKey2019", "tags");
        let name = name_of(&request).unwrap();
        let made = cluster.node(2).serve(wanting(request)).await.unwrap();
        let body = made.body.as_ref().unwrap().to_string();
        let subject = Subject::birth(name, format!("{}/keys", keystore.url), body.as_bytes());
        let vouching = verify(&cluster, made.receipt.as_deref(), subject);
        assert_eq!(vouching.unwrap().len(), 3);
        cluster.stop().await;
    });
}

/// What a node asks another one to vouch for, by all that the asked one has applied.
async fn asks(thief: &Node, number: u64, about: About) -> Answer {
    let (members, applied) = (1, 0);
    let vouch = Vouch {
        members,
        applied,
        about,
    };
    thief.ask(number, &Call::Vouch(Box::new(vouch))).await
}

fn voucher(node: u64, answer: Answer) -> Voucher {
    let Answer::Voucher(time, halves) = answer else {
        panic!("no voucher");
    };
    Voucher {
        node,
        time,
        signature: halves.concat().try_into().unwrap(),
    }
}

/// A receipt as a corrupt node 3 puts it together: its own word for whatever it likes, and what it got from node 1.
fn forged(cluster: &Cluster, subject: &Subject, got: Voucher) -> Receipt {
    let own = Statement::new(cluster.genesis(), subject.clone());
    let own = own.vouch(3, &cluster.node(3).parts.signing_key, now() * 1_000);
    Receipt {
        members: 1,
        vouchers: vec![got, own],
    }
}

#[test]
fn a_corrupt_coordinator_gets_no_receipt_for_another_public_key() {
    run(async {
        let (cluster, alice, keystore, key, _) = furnished(3).await;
        let thief = cluster.node(3);
        let about = |key: &Key| About::Description {
            keystore: keystore.id,
            key: key.id,
        };
        // It tells the client of a key of its own, under the true key's URL.
        let reply = thief.serve(wanting(get(&key))).await.unwrap();
        let mut body = reply.body.clone().unwrap();
        body["publicKeyMultibase"] = json!("z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK");
        let lie = Subject::description(&key.url, body.to_string().as_bytes());
        let doubt = verify(&cluster, reply.receipt.as_deref(), lie.clone());
        assert!(
            matches!(doubt, Err(Doubt::Signature(_))),
            "the true key's receipt"
        );
        let got = voucher(1, asks(thief, 1, about(&key)).await);
        let doubt = forged(&cluster, &lie, got.clone()).verify(cluster.genesis(), lie, now() * 1_000);
        assert_eq!(doubt, Err(Doubt::Signature(1)));
        // With the truth the same two are a quorum: it is what they sign that fails above.
        let truth = Subject::description(&key.url, reply.body.unwrap().to_string().as_bytes());
        let honest = forged(&cluster, &truth, got).verify(cluster.genesis(), truth.clone(), now() * 1_000);
        assert_eq!(honest, Ok(vec![1, 3]));

        // Another key's description in the place of this one's.
        let other = alice.key(cluster.node(1), &keystore, ED25519).await;
        cluster.catch_up(&keystore.id).await;
        let got = voucher(1, asks(thief, 1, about(&other)).await);
        let doubt = forged(&cluster, &truth, got).verify(cluster.genesis(), truth, now() * 1_000);
        assert_eq!(doubt, Err(Doubt::Signature(1)));

        // A key that exists as what a request has made that made another one, or none.
        let request = alice.generate(&keystore, ED25519, "mine");
        let name = name_of(&request).unwrap();
        let made = Key::of(&cluster.node(1).serve(request).await.unwrap());
        cluster.catch_up(&keystore.id).await;
        let birth = |key: LocalId, request| About::Birth {
            keystore: keystore.id,
            key,
            request,
        };
        assert!(matches!(
            asks(thief, 1, birth(made.id, name)).await,
            Answer::Voucher(..)
        ));
        for (what, about) in [
            ("another key", birth(key.id, name)),
            ("another request", birth(made.id, [1; 32])),
            ("no key", birth(LocalId([9; 16]), name)),
        ] {
            let answer = asks(thief, 1, about).await;
            assert!(
                matches!(answer, Answer::Abstained(Abstention::Behind)),
                "signed for {what}"
            );
        }
        cluster.stop().await;
    });
}

#[test]
fn a_member_signs_nothing_that_it_has_not_applied() {
    run(async {
        let (cluster, alice, keystore, key, _) = furnished(3).await;
        let group = cluster.node(1).parts.group_of(&keystore.id);
        let leader = cluster.leader(group, 1).unwrap();
        let followers: Vec<u64> = (1..=3).filter(|node| *node != leader).collect();
        let (kept, thief) = (cluster.node(followers[0]), cluster.node(followers[1]));
        let lent = alice.delegate(&keystore, &key, &Client::new(), "urn:uuid:lent");
        let about_lent = About::Revocation {
            keystore: keystore.id,
            capability: "urn:uuid:lent".into(),
            delegator: alice.did.clone(),
        };
        let behind = |answer| matches!(answer, Answer::Abstained(Abstention::Behind));

        // Endorsed, and so denied, but not proposed: its coordinator could drop it.
        let operation = thief.parts.next_operation();
        let shown = Call::Endorse(forwarded(operation, &encoded(&alice.revoke(&keystore, &lent))));
        assert!(matches!(
            thief.ask(followers[0], &shown).await,
            Answer::Endorsed(_)
        ));
        assert!(
            behind(asks(thief, followers[0], about_lent.clone()).await),
            "only endorsed"
        );

        // A key and a revocation that are acknowledged, and kept from one member by the leader.
        kept.deafen(true);
        let born = alice.key(cluster.node(leader), &keystore, ED25519).await;
        let revoked = cluster
            .node(leader)
            .serve(wanting(alice.revoke(&keystore, &lent)))
            .await;
        assert_eq!(status(&revoked), 204);
        let vouching = verify(
            &cluster,
            revoked.unwrap().receipt.as_deref(),
            revocation(&keystore, "urn:uuid:lent", &alice),
        );
        let vouching = vouching.unwrap();
        assert!(!vouching.contains(&followers[0]) && vouching.len() == 2);
        assert!(behind(asks(thief, followers[0], about_lent.clone()).await));
        let about_born = About::Description {
            keystore: keystore.id,
            key: born.id,
        };
        assert!(behind(asks(thief, followers[0], about_born.clone()).await));
        // What it is told to have applied it waits for, and gives up.
        let ahead = Vouch {
            members: 1,
            applied: u64::MAX,
            about: About::Description {
                keystore: keystore.id,
                key: key.id,
            },
        };
        let answer = thief.ask(leader, &Call::Vouch(Box::new(ahead))).await;
        assert!(behind(answer), "an index that is not there");

        kept.deafen(false);
        cluster.catch_up(&keystore.id).await;
        for about in [about_lent, about_born] {
            assert!(matches!(
                asks(thief, followers[0], about).await,
                Answer::Voucher(..)
            ));
        }
        // Nothing was revoked of this id by somebody else.
        let other = About::Revocation {
            keystore: keystore.id,
            capability: "urn:uuid:lent".into(),
            delegator: Client::new().did,
        };
        assert!(behind(asks(thief, leader, other).await));
        cluster.stop().await;
    });
}

#[test]
fn an_answer_is_served_with_what_there_is_and_a_liar_spoils_none() {
    run(async {
        let (cluster, alice, keystore, key, _) = furnished(3).await;
        // One signs for something else, the two others are enough.
        cluster.node(2).tamper(|call, answer| match (call, answer) {
            (Call::Vouch(_), Answer::Voucher(time, halves)) => Answer::Voucher(time + 1, halves).encode(),
            (_, answer) => answer.encode(),
        });
        assert_eq!(described(&cluster, cluster.node(1), &key).await, Ok(vec![1, 3]));
        // Nobody else is there: this node's own word is no receipt, and an answer all the same.
        cluster.isolate(1);
        super::cluster::until("the links are gone", || {
            [2, 3]
                .iter()
                .all(|node| !cluster.node(1).parts.network.connected(*node))
        })
        .await;
        let few = Doubt::TooFew {
            vouching: vec![1],
            needed: 2,
        };
        assert_eq!(described(&cluster, cluster.node(1), &key).await, Err(few));
        cluster.rejoin(1);
        let all: Vec<&Node> = cluster.nodes().iter().collect();
        cluster.settle(&all).await;
        let request = alice.generate(&keystore, ED25519, "after");
        assert_eq!(status(&cluster.node(1).serve(wanting(request)).await), 200);
        cluster.stop().await;
    });
}

#[test]
fn who_is_no_member_of_the_list_does_not_sign_for_it() {
    run(async {
        let (cluster, _, keystore, key, _) = furnished(3).await;
        let about = About::Description {
            keystore: keystore.id,
            key: key.id,
        };
        let other = Vouch {
            members: 2,
            applied: 0,
            about,
        };
        let answer = cluster.node(3).ask(1, &Call::Vouch(Box::new(other))).await;
        assert!(matches!(answer, Answer::Abstained(Abstention::Behind)));
        let genesis: &Membership = cluster.genesis();
        assert_eq!((genesis.cluster, genesis.index), (CLUSTER, 1));
        assert!(key.url.starts_with(URL));
        cluster.stop().await;
    });
}
