//! A holder that was shown a request whose result is secret, and wants the result for itself.

use rand::rngs::OsRng;

use super::client::furnished;
use super::cluster::{Node, run};
use super::malicious_coordinator::{encoded, forwarded};
use crate::actors::examined::Examined;
use crate::actors::wire::{Answer, Call};
use crate::audit::Kind;
use crate::authorization::RawRequest;
use crate::replay::claim;

#[test]
fn a_holder_cannot_collect_the_secret_that_it_was_asked_to_help_with() {
    run(async {
        let (cluster, client, keystore, _, agreement) = furnished(3).await;
        let other = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::random_from_rng(OsRng));
        let request = client.derive(&keystore, &agreement, &other);
        cluster.node(1).serve(request.clone()).await.unwrap();

        // Node 1 needed one of them; each tries the other, a claim of its own first.
        for (thief, victim) in [(2, 3), (3, 2)] {
            let (thief, victim) = (cluster.node(thief), cluster.node(victim));
            let own = thief.parts.next_operation();
            let name = victim.records().await.iter().find_map(|entry| {
                let of_first = entry.kind == Kind::Claimed && entry.participants == [1];
                of_first.then_some(entry.name)
            });
            assert!(
                name.is_some(),
                "the claim is on record at node {}",
                victim.parts.node
            );
            let late = claim_of(thief, &request);
            let claimed = thief.ask(victim.parts.node, &Call::Claim(own, vec![late])).await;
            assert!(matches!(claimed, Answer::Confirmed));
            let call = Call::Derive(forwarded(own, &encoded(&request)));
            let answer = thief.ask(victim.parts.node, &call).await;
            assert!(
                matches!(answer, Answer::Refused(_)),
                "the secret's part was given away"
            );
            assert_eq!(victim.parts.metrics.foreign_claims.get(), 1);
        }

        // A claim for another node's operation is none.
        let (thief, victim) = (cluster.node(3), cluster.node(2));
        let foreign = cluster.node(1).parts.next_operation();
        let counted = victim.parts.metrics.foreign_operations.get();
        let answer = thief.ask(2, &Call::Claim(foreign, vec![[1; 32]])).await;
        assert!(matches!(answer, Answer::Misfit(_)));
        assert_eq!(victim.parts.metrics.foreign_operations.get(), counted + 1);
        cluster.stop().await;
    });
}

fn claim_of(node: &Node, request: &RawRequest) -> [u8; 32] {
    let examined = Examined::of_client(request, &node.parts.rules, node.parts.now().unwrap());
    let authenticated = examined.map_err(|_| ()).unwrap().authenticated;
    claim(node.parts.node, &authenticated.name, &authenticated.signature)
}
