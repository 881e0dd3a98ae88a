//! Machines that ask to become members, as `conclave status` shows them.

use futures::future::join_all;
use serde::Serialize;

use super::{Answered, TIMEOUT};
use crate::telemetry::admin::reception::Waiting;
use crate::telemetry::client;

/// One machine, and the node that it asked.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Asking {
    admin: String,
    #[serde(flatten)]
    waiting: Waiting,
}

/// Who waits at these nodes and is no member yet.
pub(super) async fn ask(nodes: impl Iterator<Item = &Answered>) -> Vec<Asking> {
    let asked = nodes.map(|node| async {
        let answer = client::get(&node.admin, "/candidates", TIMEOUT).await.ok()?;
        let waiting: Vec<Waiting> = serde_json::from_slice(&answer.body).ok()?;
        let members = &node.status.as_ref()?.members.nodes;
        let asking = waiting
            .into_iter()
            .filter(|waiting| !members.contains(&waiting.candidate.member.node));
        let asking = asking.map(|waiting| Asking {
            admin: node.admin.clone(),
            waiting,
        });
        Some(asking.collect::<Vec<_>>())
    });
    join_all(asked).await.into_iter().flatten().flatten().collect()
}

/// A line for each.
pub(super) fn render(candidates: &[Asking]) -> String {
    let line = |asking: &Asking| {
        let (member, fingerprint) = (&asking.waiting.candidate.member, &asking.waiting.fingerprint);
        format!(
            "asks to join, at {}: node {} at {}, fingerprint {fingerprint}\n",
            asking.admin, member.node, member.peer
        )
    };
    candidates.iter().map(line).collect()
}
