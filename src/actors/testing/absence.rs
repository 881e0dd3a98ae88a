//! A node is away while keys are made: it has its shares soon after its return, and then any other may die for good.

use std::sync::mpsc;
use std::time::Duration;

use super::client::{ED25519, X25519, derive_well, furnished, sign_well};
use super::cluster::{run, until};

#[test]
fn a_node_that_was_away_gets_its_shares_and_then_any_other_may_die() {
    run(async {
        let (cluster, client, keystore, ..) = furnished(3).await;
        cluster.isolate(3);
        cluster.settle(&[cluster.node(1), cluster.node(2)]).await;
        let signing = client.key(cluster.node(1), &keystore, ED25519).await;
        let agreement = client.key(cluster.node(1), &keystore, X25519).await;
        let (first, absent) = (cluster.node(1), cluster.node(3));
        for key in [&signing, &agreement] {
            let record = first.key_record(&keystore.id, &key.id).unwrap();
            assert_eq!(record.away, [3]);
            let sessions = absent.parts.shares.sessions(&keystore.id.0, &key.id.0);
            assert!(sessions.unwrap().is_empty());
        }
        for keeper in [1, 2] {
            assert_eq!(cluster.node(keeper).parts.shares.open_envelopes(), 2);
        }

        cluster.rejoin(3);
        until("both shares arrive", || absent.parts.metrics.delivered.get() == 2).await;
        for keeper in [1, 2] {
            let shares = &cluster.node(keeper).parts.shares;
            until("the envelopes go", || shares.open_envelopes() == 0).await;
        }

        cluster.isolate(1);
        let left = [cluster.node(2), cluster.node(3)];
        cluster.settle(&left).await;
        for node in left {
            sign_well(node, &client, &keystore, &signing, b"with a late share").await;
            derive_well(node, &client, &keystore, &agreement).await;
        }
        cluster.stop().await;
    });
}

/// As when a node has stood still: all its links break while a signature is under way, and are there again in a moment.
#[test]
fn a_signature_outlives_links_that_break_under_it() {
    run(async {
        let (cluster, client, keystore, key, _) = furnished(3).await;
        // The others have their hands full until the links have broken.
        let held: Vec<_> = [1, 3]
            .map(|node| {
                let (release, wait) = mpsc::channel::<()>();
                let parts = cluster.node(node).parts.clone();
                tokio::spawn(async move { parts.pool.run(move || wait.recv()).await });
                release
            })
            .into();
        let breaks = async {
            let asked = || [1, 3].iter().any(|node| cluster.node(*node).questions() > 0);
            until("a holder is asked", asked).await;
            cluster.isolate(2);
            drop(held);
            // As long as links take to be made anew.
            tokio::time::sleep(Duration::from_millis(20)).await;
            cluster.rejoin(2);
        };
        let signs = sign_well(cluster.node(2), &client, &keystore, &key, b"all the same");
        futures::join!(signs, breaks);
        cluster.stop().await;
    });
}
