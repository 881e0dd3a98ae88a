//! A node whose disk is nearly full uses no keys and says so; it goes on reading, and the others go on with everything
//! (trust.md 7).

use super::client::{furnished, now, sign_well};
use super::cluster::run;
use crate::authorization::issue::Capability;
use crate::status;

#[test]
fn a_node_with_a_full_disk_refuses_uses_and_reads_on() {
    run(async {
        let (cluster, client, keystore, signing, _) = furnished(3).await;
        let full = cluster.node(1);
        assert!(status::ready(&full.parts).is_ok());
        let read = |path: &str| {
            let invoked = (Capability::Root(&keystore.url), "read");
            client.request("GET", path, invoked, None, 0)
        };
        full.parts.audit.refuse_uses_at(100);

        let refused = full.serve(client.sign(&keystore, &signing, b"not here")).await;
        assert_eq!(refused.unwrap_err().status, 503);
        let not_ready = status::ready(&full.parts).unwrap_err();
        assert!(not_ready.reason.contains("uses of keys are refused, reads go on"));
        for path in [&keystore.path, &signing.path] {
            assert_eq!(full.serve(read(path)).await.unwrap().status, 200);
        }
        // What forbids a use is no use.
        let update = client.update(&keystore, 1, &serde_json::json!(client.did));
        assert_eq!(full.serve(update).await.unwrap().status, 200);

        for other in [2, 3] {
            let message = format!("node {other} at {}", now());
            sign_well(
                cluster.node(other),
                &client,
                &keystore,
                &signing,
                message.as_bytes(),
            )
            .await;
        }
        // Space was made: nothing has to be repaired.
        full.parts.audit.refuse_uses_at(0);
        assert!(status::ready(&full.parts).is_ok());
        sign_well(full, &client, &keystore, &signing, b"here again").await;
        cluster.stop().await;
    });
}
