//! A generation in which a participant or the coordinator is cut off in each round: the key is absent or whole, never
//! acknowledged and then lost (F2, I16).

use super::client::{ED25519, furnished, sign_well, status};
use super::cluster::{Cluster, run, until};
use crate::actors::wire::{Answer, Call, Round};

const ROUNDS: [Round; 4] = [Round::Hash, Round::Package, Round::Deal, Round::Outcome];

fn round_of(call: &Call) -> Option<Round> {
    match call {
        Call::Begin(..) => Some(Round::Hash),
        Call::Continue(_, round, _) => Some(*round),
        _ => None,
    }
}

/// Isolates `cut` the moment node `at` has answered in `round`; once.
fn cut_off(cluster: &Cluster, at: u64, round: Round, cut: u64, n: u64) {
    let hub = cluster.hub.clone();
    let once = std::sync::atomic::AtomicBool::new(false);
    cluster.node(at).tamper(move |call, answer: Answer| {
        if round_of(call) == Some(round) && !once.swap(true, std::sync::atomic::Ordering::SeqCst) {
            for other in (1..=n).filter(|other| *other != cut) {
                hub.cut(cut, other);
            }
        }
        answer.encode()
    });
}

#[test]
fn a_participant_that_is_cut_off_in_any_round_gets_its_share_later() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(3).await;
        let first = cluster.node(1);
        for round in ROUNDS {
            cut_off(&cluster, 3, round, 3, 3);
            let key = client.key(first, &keystore, ED25519).await;
            sign_well(first, &client, &keystore, &key, b"by two").await;
            cluster.rejoin(3);
            let all: Vec<_> = cluster.nodes().iter().collect();
            cluster.settle(&all).await;
            let third = &cluster.node(3).parts;
            let has_it = || {
                let sessions = third.shares.sessions(&keystore.id.0, &key.id.0);
                let record = cluster.node(3).key_record(&keystore.id, &key.id);
                record.is_some_and(|record| {
                    sessions
                        .unwrap()
                        .iter()
                        .any(|kept| kept.id.session == record.session)
                })
            };
            until("the share arrives", has_it).await;
            // Then any other may go.
            cluster.isolate(2);
            cluster.settle(&[first, cluster.node(3)]).await;
            sign_well(cluster.node(3), &client, &keystore, &key, b"by the late one").await;
            cluster.rejoin(2);
            cluster.settle(&all).await;
        }
        cluster.stop().await;
    });
}

#[test]
fn of_a_coordinator_that_is_cut_off_in_any_round_the_key_is_absent_or_whole() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(3).await;

        for (turn, round) in ROUNDS.into_iter().enumerate() {
            cut_off(&cluster, 2, round, 1, 3);
            let request = client.generate(&keystore, ED25519, &format!("turn{turn}"));
            let answer = cluster.node(1).serve(request).await;
            let code = status(&answer);
            assert!(code == 503 || code == 200, "{round:?}: {code}");
            cluster.rejoin(1);
            let all: Vec<_> = cluster.nodes().iter().collect();
            cluster.settle(&all).await;
            cluster.catch_up(&keystore.id).await;
            if let Ok(reply) = &answer {
                let key = super::client::Key::of(reply);
                for node in cluster.nodes() {
                    sign_well(node, &client, &keystore, &key, b"acknowledged").await;
                }
            }
            // Another request, through another node, is served as if nothing had happened.
            let key = client.key(cluster.node(2), &keystore, ED25519).await;
            cluster.catch_up(&keystore.id).await;
            sign_well(cluster.node(1), &client, &keystore, &key, b"afterwards").await;
        }
        cluster.stop().await;
    });
}
