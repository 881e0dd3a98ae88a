//! k independent records (trust.md 7): for an outcome, k chains each hold a *contributed* with the same operation,
//! attempt, name, key and participants, and those participants are the ones whose chains they are.

use super::client::{Client, Key, Keystore, derive_well, furnished, sign_well};
use super::cluster::{Cluster, run};
use crate::actors::wire::{Answer, Call};
use crate::audit::Kind;

/// Checks every outcome of a use on node 1's record against all chains; how many there were.
async fn every_outcome_has_its_records(cluster: &Cluster) -> usize {
    let mut chains = Vec::new();
    for node in cluster.nodes() {
        chains.push((node.parts.node, node.records().await));
    }
    let uses = chains[0].1.iter().filter(|entry| {
        entry.kind == Kind::Outcome && entry.verdict == "200" && entry.key.is_some() && entry.epoch == 0
    });
    let generations = |operation| {
        let mut own = chains[0].1.iter();
        own.any(|entry| entry.kind == Kind::Endorsed && entry.operation == operation)
    };
    let uses: Vec<_> = uses.filter(|outcome| !generations(outcome.operation)).collect();
    for outcome in &uses {
        let quorum = cluster.node(1).parts.rosters.genesis().quorum();
        assert_eq!(outcome.participants.len(), quorum, "{outcome:?}");
        for participant in &outcome.participants {
            let (_, chain) = chains.iter().find(|(node, _)| node == participant).unwrap();
            let agreeing = chain.iter().filter(|entry| {
                entry.kind == Kind::Contributed
                    && entry.evidence.is_some()
                    && (entry.operation, entry.attempt, entry.name)
                        == (outcome.operation, outcome.attempt, outcome.name)
                    && (entry.keystore, entry.key, entry.epoch)
                        == (outcome.keystore, outcome.key, outcome.epoch)
                    && entry.participants == outcome.participants
            });
            assert_eq!(agreeing.count(), 1, "node {participant} on {outcome:?}");
        }
    }
    uses.len()
}

async fn uses(
    cluster: &Cluster,
    client: &Client,
    keystore: &Keystore,
    (signing, agreement): (&Key, &Key),
    what: &str,
) {
    let first = cluster.node(1);
    for turn in 0..6 {
        let message = format!("{what} {turn}");
        sign_well(first, client, keystore, signing, message.as_bytes()).await;
        derive_well(first, client, keystore, agreement).await;
    }
}

async fn records_agree(n: u64) {
    let (cluster, client, keystore, signing, agreement) = furnished(n).await;
    let keys = (&signing, &agreement);
    let before = every_outcome_has_its_records(&cluster).await;
    uses(&cluster, &client, &keystore, keys, "well").await;
    // Now one holder abstains, so that others have to stand in for it.
    cluster.node(2).tamper(|call: &Call, answer: Answer| match call {
        Call::Cosign(..) | Call::Commit(_) | Call::Derive(_) => {
            Answer::Abstained(crate::actors::wire::Abstention::NoShare).encode()
        }
        _ => answer.encode(),
    });
    uses(&cluster, &client, &keystore, keys, "without one").await;
    assert_eq!(every_outcome_has_its_records(&cluster).await, before + 24);
    cluster.stop().await;
}

#[test]
fn of_three_nodes() {
    run(records_agree(3));
}

#[test]
fn of_five_nodes() {
    run(records_agree(5));
}
