//! Five nodes, a quorum of three: two round trips a signature, and any two nodes may be away.

use super::client::{derive_well, furnished, sign_well};
use super::cluster::run;

#[test]
fn five_nodes_generate_sign_and_derive_with_two_of_them_cut_off() {
    run(async {
        let (cluster, client, keystore, signing, agreement) = furnished(5).await;
        for node in cluster.nodes() {
            sign_well(node, &client, &keystore, &signing, b"all five").await;
            derive_well(node, &client, &keystore, &agreement).await;
        }

        cluster.isolate(1);
        cluster.isolate(4);
        let left: Vec<_> = [2, 3, 5].map(|number| cluster.node(number)).into();
        cluster.settle(&left).await;
        for node in &left {
            sign_well(node, &client, &keystore, &signing, b"three of five").await;
            derive_well(node, &client, &keystore, &agreement).await;
        }
        let born_without_two = client.key(left[0], &keystore, super::client::ED25519).await;
        for node in &left {
            sign_well(
                node,
                &client,
                &keystore,
                &born_without_two,
                b"born with five shares",
            )
            .await;
        }

        // With a third away nobody signs: two shares of five are nothing.
        cluster.isolate(5);
        let request = client.sign(&keystore, &signing, b"two of five");
        assert_eq!(super::client::status(&left[0].serve(request).await), 503);
        cluster.stop().await;
    });
}
