//! Births of symmetric keys whose coordinator, node 3, was taken over: it learns nothing from asking twice, and no holder
//! signs what it has not seen itself.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::furnished;
use super::cluster::{Cluster, Node, run, until};
use super::malicious_coordinator::encoded;
use crate::actors::holder::births::computing::{computation, heard};
use crate::actors::holder::births::outcome::outcome;
use crate::actors::holder::ceremony_id;
use crate::actors::symmetric::evaluate::evaluate;
use crate::actors::wire::{Answer, Beginning, BirthStep, Call, Computed, Forwarded, Roles};
use crate::identifier::LocalId;
use crate::keystore::record::{KeyType, Sharing};
use crate::operation::judge::NewKeyTerms;

const PATIENCE: Duration = Duration::from_secs(5);

/// Node 3 with a client's request for an HMAC key.
struct Birth<'a> {
    cluster: &'a Cluster,
    id: [u8; 32],
    begin: Call,
}

impl<'a> Birth<'a> {
    async fn of(cluster: &'a Cluster, request: Vec<u8>, keystore: LocalId) -> Self {
        Self::by(cluster, request, keystore, cluster.nodes().len())
    }

    /// Of the first `present` nodes, the others left out.
    fn by(cluster: &'a Cluster, request: Vec<u8>, keystore: LocalId, present: usize) -> Self {
        let thief = cluster.node(3);
        let operation = thief.parts.next_operation();
        let participant = |node: &Node| (node.parts.node, node.parts.boot);
        let beginning = Beginning {
            start: thief.parts.now().unwrap(),
            participants: cluster.nodes()[..present].iter().map(participant).collect(),
            configuration: 1,
        };
        let forwarded = Forwarded {
            operation,
            attempt: 1,
            request: request.clone(),
            needs: Vec::new(),
            participants: vec![1, 2, 3],
            epoch: None,
        };
        let terms = NewKeyTerms {
            keystore,
            key: LocalId::derive(thief.parts.cluster(), &operation, 0),
            key_type: KeyType::Sha256HmacKey2019,
            alias: None,
            max_chain_length: None,
        };
        let hash = crate::authorization::RawRequest::decode(&request).unwrap().hash();
        let id = ceremony_id(
            thief.parts.rosters.genesis(),
            &forwarded,
            &terms,
            &beginning,
            &hash,
        );
        let begin = Call::Birth(forwarded, beginning);
        Self { cluster, id, begin }
    }

    async fn ask(&self, node: u64, call: &Call) -> Answer {
        let thief = self.cluster.node(3);
        thief.parts.ask(node, call, PATIENCE).await.unwrap()
    }

    async fn step(&self, node: u64, step: BirthStep) -> Answer {
        self.ask(node, &Call::BirthStep(self.id, step)).await
    }

    async fn messages(&self, call: impl Fn(u8) -> Call) -> BTreeMap<u8, Vec<u8>> {
        let mut messages = BTreeMap::new();
        for number in 1..=3 {
            let Answer::Message(message) = self.ask(number.into(), &call(number)).await else {
                panic!("node {number} does not go on");
            };
            messages.insert(number, message);
        }
        messages
    }

    /// Until all have their pieces.
    async fn share(&self) {
        let commitments = self.messages(|_| self.begin.clone()).await;
        let mut openings: BTreeMap<u8, BTreeMap<u8, Vec<u8>>> = BTreeMap::new();
        for number in 1..=3 {
            let open = BirthStep::Open(commitments.clone());
            let Answer::Messages(sealed) = self.step(number.into(), open).await else {
                panic!("node {number} opens nothing");
            };
            for (to, opening) in sealed {
                openings.entry(to).or_default().insert(number, opening);
            }
        }
        let combine = |number: u8| Call::BirthStep(self.id, BirthStep::Combine(openings[&number].clone()));
        let pieces = self.messages(combine).await;
        for number in 1..=3 {
            let agreed = self.step(number, BirthStep::Agree(pieces.clone())).await;
            assert!(matches!(agreed, Answer::Confirmed));
        }
    }

    fn roles(&self) -> Roles {
        Roles {
            number: self.cluster.node(3).parts.symmetric.next_number(),
            nodes: [1, 2, 3],
            circuit: [0; 32],
        }
    }

    async fn compute(&self, computed: Computed) {
        let parts = &self.cluster.node(3).parts;
        let mut roles = self.roles();
        let computation = computation(parts, self.id, computed, &roles).unwrap();
        roles.circuit = computation.task.id;
        let call = Call::BirthStep(self.id, BirthStep::Garble(computed, roles));
        let outputs = evaluate(parts, computation, &call, PATIENCE).await.unwrap();
        let mut decoded = Vec::new();
        for node in [1, 2] {
            let labels = BirthStep::Decode(computed, outputs.kept.to_vec());
            let Answer::Message(said) = self.step(node, labels).await else {
                panic!("node {node} decodes nothing");
            };
            decoded.push(said);
        }
        assert_eq!(decoded[0], decoded[1]);
        heard(parts, self.id, computed, &decoded[0]).unwrap();
    }
}

fn is_misfit(answer: &Answer) -> bool {
    matches!(answer, Answer::Misfit(_))
}

#[test]
fn no_holder_signs_what_it_has_not_seen() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(3).await;
        type Lie = fn(&mut Sharing, &mut Option<[u8; 32]>);
        let lies: [(&str, Lie); 7] = [
            ("another check value", |sharing, _| sharing.check[0] ^= 1),
            ("another correction", |sharing, _| sharing.correction[31] ^= 1),
            ("another piece", |sharing, _| sharing.pieces[1][0] ^= 1),
            ("other holders", |sharing, _| sharing.holders = vec![1, 2, 4]),
            ("another inner state", |_, inner| inner.as_mut().unwrap()[0] ^= 1),
            ("no inner state", |_, inner| *inner = None),
            ("another hash of it", |sharing, _| {
                sharing.inner.as_mut().unwrap()[0] ^= 1;
            }),
        ];
        for (what, lie) in lies {
            let request = client.generate(&keystore, "Sha256HmacKey2019", &what.replace(' ', "-"));
            let birth = Birth::of(&cluster, encoded(&request), keystore.id).await;
            birth.share().await;
            birth.compute(Computed::States).await;
            birth.compute(Computed::Check).await;
            let (mut sharing, mut inner) = outcome(&cluster.node(3).parts, birth.id).unwrap();
            lie(&mut sharing, &mut inner);
            for node in [1, 2] {
                let signed = birth.step(node, BirthStep::Sign(sharing.clone(), inner)).await;
                assert!(is_misfit(&signed), "{what}: node {node} signs it");
            }
        }
        cluster.stop().await;
    });
}

#[test]
fn a_coordinator_does_not_choose_whom_to_leave_out() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(4).await;
        // One that is out of touch with the group says itself that it takes part in nothing.
        cluster.catch_up(&keystore.id).await;
        let request = encoded(&client.generate(&keystore, "Sha256HmacKey2019", "without-node-4"));
        let birth = Birth::by(&cluster, request.clone(), keystore.id, 3);
        for node in [1, 2] {
            let answer = birth.ask(node, &birth.begin).await;
            assert!(
                is_misfit(&answer),
                "node {node} goes on without a holder that is there"
            );
        }
        cluster.isolate(4);
        let birth = Birth::by(&cluster, request, keystore.id, 3);
        for node in [1, 2] {
            until("the link is lost", || {
                !cluster.node(node).parts.network.connected(4)
            })
            .await;
            let answer = birth.ask(node, &birth.begin).await;
            assert!(
                matches!(answer, Answer::Message(_)),
                "node {node} waits for one that is away"
            );
        }
        cluster.stop().await;
    });
}

#[test]
fn a_birth_goes_its_way_once() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(3).await;
        let request = |salt: &str| encoded(&client.generate(&keystore, "Sha256HmacKey2019", salt));
        // The same proposal again would have the holders seal other contributions in the same name.
        let birth = Birth::of(&cluster, request("twice"), keystore.id).await;
        assert!(matches!(birth.ask(1, &birth.begin).await, Answer::Message(_)));
        assert!(is_misfit(&birth.ask(1, &birth.begin).await));
        let ended = birth.step(1, BirthStep::Agree(BTreeMap::new())).await;
        assert!(is_misfit(&ended), "a step that does not follow");
        assert!(is_misfit(&birth.ask(1, &birth.begin).await), "also after its end");

        let birth = Birth::of(&cluster, request("order"), keystore.id).await;
        birth.share().await;
        let check = BirthStep::Garble(Computed::Check, birth.roles());
        assert!(
            is_misfit(&birth.step(1, check).await),
            "a check of what is no key yet"
        );

        let birth = Birth::of(&cluster, request("unseen"), keystore.id).await;
        birth.share().await;
        birth.compute(Computed::States).await;
        let sharing = Sharing {
            holders: vec![1, 2, 3],
            pieces: vec![[0; 32]; 3],
            correction: [0; 32],
            inner: None,
            check: [0; 16],
        };
        let signed = birth.step(1, BirthStep::Sign(sharing, None)).await;
        assert!(is_misfit(&signed), "without a check value");
        cluster.stop().await;
    });
}

#[test]
fn labels_that_were_not_made_decode_to_nothing() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(3).await;
        let request = encoded(&client.generate(&keystore, "Sha256HmacKey2019", "labels"));
        let birth = Birth::of(&cluster, request, keystore.id).await;
        birth.share().await;
        let parts = &cluster.node(3).parts;
        let mut roles = birth.roles();
        let made = computation(parts, birth.id, Computed::States, &roles).unwrap();
        roles.circuit = made.task.id;
        let call = Call::BirthStep(birth.id, BirthStep::Garble(Computed::States, roles));
        let mut labels = evaluate(parts, made, &call, PATIENCE)
            .await
            .unwrap()
            .kept
            .to_vec();
        labels[5] ^= 1;
        let decoded = birth.step(1, BirthStep::Decode(Computed::States, labels)).await;
        assert!(is_misfit(&decoded));
        cluster.stop().await;
    });
}
