//! Changes of one keystore through several nodes at once: each is made or refused for a reason, none gives up because
//! another came between.

use futures::future::join_all;
use serde_json::json;

use super::client::{Client, furnished, status};
use super::cluster::run;

const TURNS: u64 = 40;

#[test]
fn an_update_beside_revocations_stops_none_of_them() {
    run(async {
        let (cluster, alice, keystore, key, _) = furnished(3).await;
        let (bob, controllers) = (Client::new(), json!([alice.did]));
        for turn in 0..TURNS {
            let node = |offset: u64| cluster.node(1 + (turn + offset) % 3);
            let lent = (0..3).map(|n| {
                let id = format!("urn:uuid:{turn}-{n}");
                alice.delegate(&keystore, &key, &bob, &id)
            });
            let revoked = lent.enumerate().map(|(n, lent)| {
                let request = alice.revoke(&keystore, &lent);
                node(n as u64).serve(request)
            });
            let update = alice.update(&keystore, turn + 1, &controllers);
            let (revoked, updated) = futures::join!(join_all(revoked), node(1).serve(update));
            assert_eq!(status(&updated), 200, "turn {turn}");
            let codes: Vec<u16> = revoked.iter().map(status).collect();
            assert_eq!(codes, [204; 3], "turn {turn}");
        }
        cluster.stop().await;
    });
}
