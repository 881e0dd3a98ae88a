//! One corrupt member that is up cannot stop the generation of keys: whatever it says or does not say in whichever
//! round, the key is born, and nobody honest is named. To everybody who asks it claims that it takes part.

use std::collections::BTreeMap;

use conclave_threshold::dkg::Participant;
use rand::rngs::OsRng;

use super::client::{Client, ED25519, Keystore, furnished, sign_well};
use super::cluster::{Cluster, Node, SOON, Tamper, run};
use super::malicious_coordinator::{encoded, forwarded};
use crate::actors::conduct::Abort;
use crate::actors::holder::digest;
use crate::actors::wire::{Abstention, Answer, Beginning, Call, Round};
use crate::identifier::OperationId;
use crate::problem::Problem;

/// What the saboteur sees of a question about a generation.
struct Question {
    operation: Option<OperationId>,
    call: Call,
    round: Round,
    relayed: bool,
}

fn question(call: &Call) -> Option<Question> {
    let (call, relayed) = match call {
        Call::Relayed(call) => (Call::decode(call)?, true),
        call => (call.clone(), false),
    };
    let (operation, round) = match &call {
        Call::Begin(forwarded, ..) => (Some(forwarded.operation), Round::Hash),
        Call::Continue(_, round, _) => (None, *round),
        _ => return None,
    };
    Some(Question {
        operation,
        call,
        round,
        relayed,
    })
}

/// Lies in generations; stands by every ceremony when it is asked whether it takes part.
fn sabotage(lie: impl Fn(&Question, Answer) -> Answer + Send + Sync + 'static) -> Tamper {
    std::sync::Arc::new(move |call: &Call, answer: Answer| {
        if let Call::Standing(..) = call {
            return Answer::Standing { refused: false }.encode();
        }
        match question(call) {
            Some(question) => lie(&question, answer).encode(),
            None => answer.encode(),
        }
    })
}

fn flipped(answer: Answer) -> Answer {
    match answer {
        Answer::Message(mut message) => {
            let last = message.len() - 1;
            message[last] ^= 1;
            Answer::Message(message)
        }
        Answer::Generated(statement, mut endorsement) => {
            endorsement.time += 1;
            Answer::Generated(statement, endorsement)
        }
        answer => answer,
    }
}

/// Another hash than that of the package which it will reveal, signed: proof of a lie.
fn breaks_its_word(saboteur: &Node) -> Tamper {
    let parts = saboteur.parts.clone();
    sabotage(move |question, answer| {
        let Call::Continue(id, Round::Package, _) = &question.call else {
            return answer;
        };
        let Some((session, _)) = parts.ceremonies.lock().session(id, 1) else {
            return answer;
        };
        let me = parts.member(parts.node).unwrap().index;
        let (mut other, first) =
            <Participant>::begin(session.clone(), me, &parts.signing_key, &mut OsRng).unwrap();
        // The same set, but with the hash of the package that is revealed in place of the one that was told.
        let Call::Continue(_, _, hashes) = &question.call else {
            return answer;
        };
        let mut hashes = hashes.clone();
        hashes.insert(me, first);
        Answer::Message(other.packages(&hashes).unwrap())
    })
}

/// Signs the outcome by a clock that is too far ahead.
fn ahead(saboteur: &Node) -> Tamper {
    let parts = saboteur.parts.clone();
    sabotage(move |_, answer| match answer {
        Answer::Generated(statement, honest) => {
            let later = statement.endorse(parts.node, &parts.signing_key, honest.time + 5_001);
            Answer::Generated(statement, later)
        }
        answer => answer,
    })
}

/// Ends every ceremony in the last round but one, and blames `culprit`.
fn accuses(saboteur: &Node, culprit: Option<u64>) -> Tamper {
    let parts = saboteur.parts.clone();
    sabotage(move |question, answer| match (&question.call, question.round) {
        (Call::Continue(id, ..), Round::Deal) => {
            let Some((_, operation)) = parts.ceremonies.lock().session(id, 1) else {
                return answer;
            };
            let signer = (parts.node, &parts.signing_key);
            Answer::Aborted(Box::new(Abort::sign((operation, *id), signer, culprit, None)))
        }
        _ => answer,
    })
}

const ROUNDS: [Round; 4] = [Round::Hash, Round::Package, Round::Deal, Round::Outcome];

fn lies(saboteur: &Node) -> Vec<(String, Tamper)> {
    let mut lies: Vec<(String, Tamper)> = Vec::new();
    for from in ROUNDS {
        let silent = move |question: &Question, answer| match question.round >= from {
            true => Answer::Abstained(Abstention::Busy),
            false => answer,
        };
        lies.push((format!("silent from {from:?}"), sabotage(silent)));
        let garbage = move |question: &Question, answer| match question.round >= from {
            true => flipped(answer),
            false => answer,
        };
        lies.push((format!("unsigned from {from:?}"), sabotage(garbage)));
    }
    lies.push(("breaks its word".into(), breaks_its_word(saboteur)));
    lies.push(("a clock ahead".into(), ahead(saboteur)));
    for culprit in [None, Some(1), Some(2)] {
        lies.push((format!("accuses {culprit:?}"), accuses(saboteur, culprit)));
    }
    let refuses = |question: &Question, answer| match question.operation {
        Some(_) => Answer::Refused(Box::new(Problem::replayed())),
        None => answer,
    };
    lies.push(("refuses".into(), sabotage(refuses)));
    lies
}

/// Makes a key through node 1; the members that were left out of it.
async fn born(cluster: &Cluster, client: &Client, keystore: &Keystore, what: &str) -> Vec<u16> {
    let first = cluster.node(1);
    let key = client.key(first, keystore, ED25519).await;
    let record = first.key_record(&keystore.id, &key.id).unwrap();
    sign_well(first, client, keystore, &key, what.as_bytes()).await;
    record.away
}

fn nobody_honest_is_named(cluster: &Cluster, saboteur: u64, what: &str) {
    for node in cluster.nodes().iter().filter(|node| node.parts.node != saboteur) {
        for other in cluster.nodes().iter().map(|node| node.parts.node) {
            let named = other != saboteur && node.named(other) > 0;
            assert!(
                !named,
                "{what}: node {} names honest node {other}",
                node.parts.node
            );
        }
    }
}

async fn keys_are_born_in_spite_of(saboteur: u64, n: u64) {
    let (cluster, client, keystore, ..) = furnished(n).await;
    for (what, tamper) in lies(cluster.node(saboteur)) {
        cluster
            .node(saboteur)
            .tamper(move |call, answer| tamper(call, answer));
        let away = born(&cluster, &client, &keystore, &what).await;
        let index = u16::try_from(saboteur).unwrap();
        assert!(away.contains(&index), "{what}: it took part, away are {away:?}");
        nobody_honest_is_named(&cluster, saboteur, &what);
    }
    cluster.stop().await;
}

#[test]
fn one_of_three_stops_nothing() {
    run(keys_are_born_in_spite_of(3, 3));
}

#[test]
fn one_of_five_stops_nothing() {
    run(keys_are_born_in_spite_of(5, 5));
}

#[test]
fn who_answers_only_the_witness_takes_part_all_the_same() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(3).await;
        let tamper = sabotage(|question, answer| match question.relayed {
            true => answer,
            false => Answer::Abstained(Abstention::Busy),
        });
        cluster.node(3).tamper(move |call, answer| tamper(call, answer));
        let away = born(&cluster, &client, &keystore, "only the witness").await;
        assert_eq!(away, [0_u16; 0]);
        nobody_honest_is_named(&cluster, 3, "only the witness");
        cluster.stop().await;
    });
}

/// Node 1 runs a generation with node 2 alone, by hand; what node 2 answers in the last round.
async fn without_node_3(cluster: &Cluster, client: &Client, keystore: &Keystore, salt: &str) -> Answer {
    let thief = cluster.node(1);
    let request = encoded(&client.generate(keystore, ED25519, salt));
    let (first, second) = (&cluster.node(1).parts, &cluster.node(2).parts);
    let mut question = forwarded(thief.parts.next_operation(), &request);
    question.participants = vec![1, 2];
    let beginning = Beginning {
        start: first.now().unwrap(),
        participants: vec![(1, first.boot), (2, second.boot)],
        configuration: 1,
    };
    let mut call = Call::Begin(question, beginning, Vec::new());
    let asked = digest(&call);
    for next in ROUNDS[1..].iter().chain([&Round::Outcome]) {
        let mut messages = BTreeMap::new();
        for (index, node) in [(1, 1), (2, 2)] {
            match first.ask(node, &call, SOON).await.unwrap() {
                Answer::Message(message) => drop(messages.insert(index, message)),
                answer => return answer,
            }
        }
        let id = first.ceremonies.lock().begun_by(&asked).unwrap();
        call = Call::Continue(id, *next, messages);
        if *next == Round::Outcome {
            break;
        }
    }
    thief.ask(2, &call).await
}

#[test]
fn a_coordinator_cannot_leave_out_who_takes_part() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(3).await;
        let answer = without_node_3(&cluster, &client, &keystore, "there").await;
        assert!(matches!(answer, Answer::Misfit(_)), "node 3 is there");
        cluster.isolate(3);
        cluster.settle(&[cluster.node(1), cluster.node(2)]).await;
        let answer = without_node_3(&cluster, &client, &keystore, "away").await;
        assert!(matches!(answer, Answer::Generated(..)), "node 3 is away");
        cluster.stop().await;
    });
}
