//! A node whose links were lost a moment ago is waited for: what needs it takes a little longer and is not refused.

use serde_json::json;

use super::client::{ED25519, furnished, sign_well, status};
use super::cluster::{Cluster, Node, run, until};

/// Cuts node 1 off and, once `question` waits there, links it again; what it was answered.
async fn asked_without_links<T>(cluster: &Cluster, question: impl AsyncFnOnce(&Node) -> T) -> T {
    let alone = cluster.node(1);
    cluster.isolate(1);
    until("its links are lost", || {
        [2, 3].iter().all(|peer| !alone.parts.network.connected(*peer))
    })
    .await;
    // The question is asked first: it has seen that nobody is there before somebody is.
    let (answer, ()) = futures::join!(question(alone), async { cluster.rejoin(1) });
    answer
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
