//! What this node has heard and seen of its peers that an operator wants to know.

use std::collections::BTreeSet;

use super::parts::Parts;
use crate::audit::Health as AuditHealth;

/// By node.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Whose last word was that they take no part.
    pub unfit: BTreeSet<u64>,
    /// Whose audit heads have contradicted each other since this node's start.
    pub contradicted: BTreeSet<u64>,
}

impl Heard {
    /// A peer's word about itself.
    pub fn fit(&mut self, node: u64, is_fit: bool) {
        match is_fit {
            true => self.unfit.remove(&node),
            false => self.unfit.insert(node),
        };
    }
}

/// Whether this node takes part as far as that is its own affair: it holds its own data right, its disk and its clock let it.
pub fn is_fit(parts: &Parts) -> bool {
    let groups = parts.consensus.status();
    parts.consensus.rolled_back().is_none()
        && groups.iter().all(|group| group.halted.is_none())
        && matches!(parts.audit.health(), AuditHealth::Ok)
        && parts.now().is_ok()
}
