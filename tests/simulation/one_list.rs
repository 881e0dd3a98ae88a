//! Apply as it would be if a quorum of one list were enough while two lists decide together: a bug put in on purpose.

use conclave::actors::application::KeystoreApplication;
use conclave::keystore::{Entry, ReadState, Rosters, StateError};
use conclave_consensus::{Application, GroupId, Halt, StateTransaction};
use conclave_simulator::Wrapper;

use crate::office::member_key;

pub(crate) struct OneListed(pub(crate) KeystoreApplication);

/// A transaction as the rosters read it.
struct Reading<'a, 'b>(&'a StateTransaction<'b>);

impl ReadState for Reading<'_, '_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.0.get(key).map_err(|error| StateError(error.to_string()))
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StateError> {
        let pairs = self.0.scan(prefix, None, limit);
        pairs.map_err(|error| StateError(error.to_string()))
    }
}

/// What a quorum of one list has endorsed is made to look as if everybody had.
fn believed(entry: &[u8], rosters: &Rosters, state: &StateTransaction<'_>) -> Option<Vec<u8>> {
    let mut entry = Entry::decode(entry).ok()?;
    let roster = rosters.of(&Reading(state)).ok()?;
    let has = |node: &u64| entry.endorsements.iter().any(|by| by.node == *node);
    let one = roster
        .halves()
        .any(|half| half.nodes().iter().filter(|node| has(node)).count() >= half.quorum());
    if !one || entry.statement.command.participants().is_some() {
        return None;
    }
    let time = entry.endorsements.iter().map(|by| by.time).min()?;
    let missing: Vec<u64> = roster.deciders().into_iter().filter(|node| !has(node)).collect();
    for node in missing {
        let endorsement = entry.statement.endorse(node, &member_key(node), time);
        entry.endorsements.push(endorsement);
    }
    Some(entry.encode())
}

impl Wrapper for OneListed {
    fn inner(&self) -> &dyn Application {
        &self.0
    }

    fn apply(
        &self,
        group: GroupId,
        index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        let believed = believed(entry, &self.0.rosters().of_group(group.0), state);
        self.0
            .apply(group, index, believed.as_deref().unwrap_or(entry), state)
    }
}
