//! The peers' audit heads: every node asks its peers now and then for the last head that they have signed of their chains,
//! and writes it into its own (trust.md 7). What a node has vouched for is then on the disks of the others. With it comes whether
//! the peer takes part, so that its operator's neighbours know, too.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::MissedTickBehavior;

use super::parts::Parts;
use super::wire::{Answer, Call};
use crate::audit::Sighting;
use crate::membership::Member;

/// Time between two questions to a peer.
const EVERY: Duration = Duration::from_secs(10);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks for as long as the node runs.
pub async fn run(parts: Arc<Parts>) {
    let mut turns = tokio::time::interval(EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        ask_all(&parts).await;
    }
}

/// Asks every peer that there is a link to, once.
pub(crate) async fn ask_all(parts: &Arc<Parts>) {
    let members = parts.directory.all();
    let linked = |member: &&Member| member.node != parts.node && parts.network.connected(member.node);
    let asked = members.iter().filter(linked);
    join_all(asked.map(|member| ask(parts, member))).await;
}

async fn ask(parts: &Arc<Parts>, member: &Member) {
    let node = member.node;
    let answer = parts.ask(node, &Call::AuditHead, PATIENCE).await;
    let Ok(Answer::AuditHead(head, is_fit)) = answer else {
        return;
    };
    parts.heard.lock().fit(node, is_fit);
    let Some(head) = head else { return };
    if head.node != node || !head.is_signed(parts.cluster(), &member.verifying_key) {
        parts.name_liar(node, "a head of its audit chain that it has not signed");
        return;
    }
    // A clock that cannot be trusted writes no times.
    let Ok(now) = parts.now() else { return };
    match parts.audit.witness(head, now) {
        Ok(Sighting::Known | Sighting::New) => {}
        Ok(Sighting::Contradiction) => {
            let reason = "it has signed less of its audit chain than before, or another one: an older copy, or a record that was cut or written anew";
            tracing::error!(node, record = head.sequence, reason, "a peer's audit chain");
            parts.heard.lock().contradicted.insert(node);
        }
        Err(error) => tracing::debug!(node, %error, "a peer's audit head could not be recorded"),
    }
}
