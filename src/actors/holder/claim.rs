//! Claims: a node says that a request is its own before it shows it to anybody (trust.md, section 5).

use crate::actors::parts::Parts;
use crate::actors::wire::{Abstention, Answer};
use crate::audit::{Entry, Kind};
use crate::identifier::OperationId;

/// Remembers the claim of `from`, and puts it on the record without waiting: a restart has to find it.
pub(crate) fn register(parts: &Parts, from: u64, operation: OperationId, claim: &[u8; 32]) -> Answer {
    if operation.node != from {
        parts.metrics.foreign_operations.inc();
        return Answer::Misfit("a claim for another node's operation".into());
    }
    let Ok(now) = parts.now() else {
        return Answer::Abstained(Abstention::Clock);
    };
    if parts.claims.lock().register(from, claim, now).is_err() {
        return Answer::Abstained(Abstention::Memory);
    }
    let mut entry = Entry::new(Kind::Claimed, now, operation);
    (entry.name, entry.participants) = (*claim, vec![from]);
    match parts.audit.append_unsynced(entry) {
        Ok(()) => Answer::Confirmed,
        Err(_) => Answer::Abstained(Abstention::Audit),
    }
}
