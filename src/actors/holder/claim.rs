//! Claims: a node says that a request is its own before it shows it to anybody (trust.md, section 5).

use crate::actors::parts::Parts;
use crate::actors::wire::{Abstention, Answer, MAX_ITEMS};
use crate::audit::{Entry, Kind};
use crate::identifier::OperationId;
use crate::replay::Full;

/// Remembers the claims of `from`, and puts those that are new on the record without waiting: a restart has to find them.
pub(crate) fn register(parts: &Parts, from: u64, operation: OperationId, claims: &[[u8; 32]]) -> Answer {
    if claims.len() > MAX_ITEMS {
        return Answer::Misfit("more claims than a batch has items".into());
    }
    if operation.node != from {
        parts.metrics.foreign_operations.inc();
        return Answer::Misfit("a claim for another node's operation".into());
    }
    let Ok(now) = parts.now() else {
        return Answer::Abstained(Abstention::Clock);
    };
    for claim in claims {
        match parts.claims.lock().register(from, claim, now) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(Full) => return Answer::Abstained(Abstention::Memory),
        }
        let mut entry = Entry::new(Kind::Claimed, now, operation);
        (entry.name, entry.participants) = (*claim, vec![from]);
        if parts.audit.append_unsynced(entry).is_err() {
            return Answer::Abstained(Abstention::Audit);
        }
    }
    Answer::Confirmed
}
