//! This node's claim on a request whose result is secret: with every holder that can be reached, before any of them sees
//! the request. A holder that then brings it to another one, to learn the result itself, is refused there.

use std::time::Duration;

use futures::future::join_all;

use super::Work;
use crate::actors::holder::register_claim;
use crate::actors::wire::Call;
use crate::replay;

/// Longest wait for the receipts: a holder without one is shown the request all the same, or one that is silent would
/// stop every use.
const RECEIPTS: Duration = Duration::from_millis(100);

/// Claims the request, which this node would serve.
pub(super) async fn claim(work: &Work) {
    let parts = &work.parts;
    let claim = replay::claim(parts.node, &work.request.authenticated.name);
    let _ = register_claim(parts, parts.node, work.operation, &claim);
    let call = Call::Claim(work.operation, claim);
    let members = parts.membership.members.iter().map(|member| member.node);
    let reached = members.filter(|node| *node != parts.node && parts.network.connected(*node));
    join_all(reached.map(|node| parts.ask(node, &call, RECEIPTS))).await;
}
