//! This node's claim on a request whose result is secret: with every holder that can be reached, before any of them sees
//! the request. A holder that then brings it to another one, to learn the result itself, is refused there.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;

use super::Work;
use crate::actors::decide::group_of;
use crate::actors::examined::Examined;
use crate::actors::holder::register_claim;
use crate::actors::wire::{Answer, Call};
use crate::replay;

/// Longest wait for the receipts: a holder without one is shown the request all the same, or one that is silent would
/// stop every use.
const RECEIPTS: Duration = Duration::from_millis(100);

/// Claims these requests, which this node would serve.
pub(super) async fn claim(work: &Work, requests: impl Iterator<Item = &Examined>) {
    let parts = &work.parts;
    let of = |request: &Examined| {
        let authenticated = &request.authenticated;
        replay::claim(parts.node, &authenticated.name, &authenticated.signature)
    };
    let claims: Vec<[u8; 32]> = requests.map(of).collect();
    if claims.is_empty() {
        return;
    }
    let own = register_claim(parts, parts.node, work.operation, &claims);
    let call = Call::Claim(work.operation, claims);
    // Whoever may be a holder: of another group's nodes nobody is shown the request.
    let group = group_of(parts, &work.request, &work.operation);
    let members: Vec<u64> = match parts.roster(group) {
        Ok(roster) => roster.everybody().map(|member| member.node).collect(),
        Err(_) => parts.directory.all().iter().map(|member| member.node).collect(),
    };
    let members = members.into_iter().collect::<BTreeSet<u64>>().into_iter();
    let reached = members.filter(|node| *node != parts.node && parts.network.connected(*node));
    let receipts = join_all(reached.map(|node| parts.ask(node, &call, RECEIPTS))).await;
    for receipt in receipts.iter().chain([&Ok(own)]) {
        if !matches!(receipt, Ok(Answer::Confirmed)) {
            parts.metrics.unconfirmed_claims.inc();
        }
    }
}
