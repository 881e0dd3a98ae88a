//! Reads of the replicated state.

use super::layout;
use super::record::{Hold, KeyRecord, KeystoreRecord, Meter, Orders, RevocationRecord};
use super::state::{ReadState, StateError};
use crate::identifier::LocalId;

/// A keystore's record.
pub fn keystore(state: &impl ReadState, id: &LocalId) -> Result<Option<KeystoreRecord>, StateError> {
    state.record(&layout::keystore(id))
}

/// A key's record.
pub fn key(
    state: &impl ReadState,
    keystore: &LocalId,
    id: &LocalId,
) -> Result<Option<KeyRecord>, StateError> {
    state.record(&layout::of_key(keystore, id))
}

/// When the shares of a key were made, ms of entry time: at its birth, or when they were last renewed.
pub fn shared_at(
    state: &impl ReadState,
    keystore: &LocalId,
    id: &LocalId,
    record: &KeyRecord,
) -> Result<u64, StateError> {
    let renewed = state.record(&layout::renewal(keystore, id))?;
    Ok(renewed.unwrap_or(record.created))
}

/// What operators have ordered (group 0).
pub fn orders(state: &impl ReadState) -> Result<Orders, StateError> {
    Ok(state.record(layout::ORDERS)?.unwrap_or_default())
}

/// A meter's record (group 0).
pub fn meter(state: &impl ReadState, id: &LocalId) -> Result<Option<Meter>, StateError> {
    state.record(&layout::meter(id))
}

/// Whether a keystore's delegations are held back since a restore.
pub fn hold(state: &impl ReadState, keystore: &LocalId) -> Result<Option<Hold>, StateError> {
    state.record(&layout::hold(keystore))
}

/// Whether the link (capability id, delegator) is revoked in a keystore.
pub fn revoked(
    state: &impl ReadState,
    keystore: &LocalId,
    capability: &str,
    delegator: &str,
) -> Result<bool, StateError> {
    let key = layout::revocation(keystore, capability, delegator);
    Ok(state.record::<RevocationRecord>(&key)?.is_some())
}

/// Up to `limit` keystores of one controller, by id.
pub fn controlled_by(
    state: &impl ReadState,
    controller: &str,
    limit: usize,
) -> Result<Vec<(LocalId, KeystoreRecord)>, StateError> {
    let prefix = layout::controller(controller);
    let mut found = Vec::new();
    for (key, _) in state.scan(&prefix, limit)? {
        let id = key[prefix.len()..].try_into().map(LocalId);
        let id = id.map_err(|_| StateError("a controller index key has a wrong length".into()))?;
        if let Some(record) = keystore(state, &id)? {
            found.push((id, record));
        }
    }
    Ok(found)
}

/// The group's time: the last entry's, ms.
pub fn last_time(state: &impl ReadState) -> Result<u64, StateError> {
    Ok(state.record(layout::LAST_TIME)?.unwrap_or(0))
}
