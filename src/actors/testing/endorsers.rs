//! What one member says of a change stops nothing and proves nothing.

use super::client::{Client, furnished, status};
use super::cluster::run;
use crate::actors::wire::{Answer, Call};
use crate::problem::Problem;

#[test]
fn one_members_refusal_is_nobodys_answer() {
    run(async {
        let (cluster, alice, keystore, key, _) = furnished(3).await;
        cluster.node(3).tamper(|call, answer| match call {
            Call::Endorse(_) => Answer::Refused(Box::new(Problem::denied("Permission denied."))).encode(),
            _ => answer.encode(),
        });
        let (bob, node) = (Client::new(), cluster.node(1));
        let lent = |id: &str| alice.delegate(&keystore, &key, &bob, id);
        let beside = node
            .serve(alice.revoke(&keystore, &lent("urn:uuid:beside")))
            .await;
        assert_eq!(status(&beside), 204, "two of three agree");
        cluster.isolate(2);
        let alone = node.serve(alice.revoke(&keystore, &lent("urn:uuid:alone"))).await;
        assert_eq!(status(&alone), 503, "the other may lie: {alone:?}");
        cluster.node(3).tamper(|_, answer| answer.encode());
        let again = node.serve(alice.revoke(&keystore, &lent("urn:uuid:again"))).await;
        assert_eq!(status(&again), 204);
        cluster.stop().await;
    });
}
