//! A node whose links were lost a moment ago is waited for: what needs it takes a little longer and is not refused.

use std::time::Duration;

use serde_json::json;

use super::client::{ED25519, furnished, sign_well, status};
use super::cluster::{Cluster, Node, run, until};
use crate::actors::coordinator::RESTART;

/// As long as a restart takes at least: who does not wait has long been refused by then.
const AWAY: Duration = Duration::from_millis(500);

/// Cuts node 1 off for a moment in which `question` is asked there; what it was answered.
async fn asked_without_links<T>(cluster: &Cluster, question: impl AsyncFnOnce(&Node) -> T) -> T {
    let alone = cluster.node(1);
    cluster.isolate(1);
    until("its links are lost", || {
        [2, 3].iter().all(|peer| !alone.parts.network.connected(*peer))
    })
    .await;
    let restart = async {
        tokio::time::sleep(AWAY).await;
        cluster.rejoin(1);
    };
    futures::join!(question(alone), restart).0
}

#[test]
fn a_key_is_made_with_members_that_come_back() {
    run(async {
        let (cluster, alice, keystore, ..) = furnished(3).await;
        let key = asked_without_links(&cluster, async |node| alice.key(node, &keystore, ED25519).await).await;
        sign_well(cluster.node(2), &alice, &keystore, &key, b"by all of them").await;
        cluster.stop().await;
    });
}

#[test]
fn a_change_is_endorsed_by_members_that_come_back() {
    run(async {
        let (cluster, alice, keystore, ..) = furnished(3).await;
        let update = alice.update(&keystore, 1, &json!([alice.did]));
        let updated = asked_without_links(&cluster, async |node| node.serve(update).await).await;
        assert_eq!(status(&updated), 200);
        cluster.stop().await;
    });
}

#[test]
fn a_key_is_made_though_another_member_saw_one_come_back_first() {
    run(async {
        let (cluster, alice, keystore, ..) = furnished(3).await;
        let (one, two) = (cluster.node(1), cluster.node(2));
        cluster.hub.cut(1, 3);
        // So long that node 1 does not wait for it any more.
        until("node 3 is given up", || {
            !one.parts.network.connected(3) && one.parts.symmetric.lost_for(3) > RESTART
        })
        .await;
        let returns = async {
            until("node 2 objects: it is linked to node 3", || two.misfits(1) > 0).await;
            cluster.hub.heal(1, 3);
        };
        let (key, ()) = futures::join!(alice.key(one, &keystore, ED25519), returns);
        sign_well(two, &alice, &keystore, &key, b"by all of them").await;
        cluster.stop().await;
    });
}
