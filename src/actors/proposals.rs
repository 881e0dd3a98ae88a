//! A fair share of a group's proposals for each keystore: a group takes 256 of this node's at a time, whoever they are for,
//! and one keystore that changes without end would leave none to its neighbours.

use std::collections::HashMap;
use std::time::Instant;

use conclave_consensus::{Applied, GroupId, ProposeError};
use parking_lot::Mutex;

use super::parts::Parts;
use crate::identifier::LocalId;
use crate::overload::{At, Overloaded, Place, Shares, Turn};

/// As many as consensus takes of one node in one group.
const IN_A_GROUP: usize = 256;

/// Proposals under way, by group and keystore.
#[derive(Default)]
pub struct Proposals(Mutex<HashMap<GroupId, Shares<LocalId>>>);

impl Proposals {
    fn enter(&self, group: GroupId, turn: &Turn) -> Result<Place<LocalId>, Overloaded> {
        let mut groups = self.0.lock();
        let shares = groups
            .entry(group)
            .or_insert_with(|| Shares::new(IN_A_GROUP, IN_A_GROUP));
        shares.enter(turn.keystore, turn.class)
    }
}

impl Parts {
    /// Proposes an entry, in the turn of the present task.
    ///
    /// # Errors
    /// [`ProposeError::Busy`] also if this keystore has its share of proposals under way.
    pub async fn propose(
        &self,
        group: GroupId,
        entry: Vec<u8>,
        deadline: Instant,
    ) -> Result<Applied, ProposeError> {
        let turn = Turn::current();
        let place = self.proposals.enter(group, &turn).map_err(|_| {
            self.metrics.shed.count(At::Proposals, turn.class);
            ProposeError::Busy(group)
        })?;
        let proposed = self.consensus.propose(group, entry, deadline).await;
        drop(place);
        proposed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overload::Class;

    #[test]
    fn one_keystore_leaves_proposals_to_others_and_renewals_leave_them_to_changes() {
        let proposals = Proposals::default();
        let fill = |class, keystore| {
            let turn = Turn::default()
                .of_class(class)
                .of_keystore(LocalId([keystore; 16]));
            std::iter::from_fn(|| proposals.enter(GroupId(1), &turn).ok()).collect::<Vec<_>>()
        };
        let renewals: Vec<_> = (0..100)
            .flat_map(|keystore| fill(Class::Bulk, keystore))
            .collect();
        assert_eq!(renewals.len(), 64);
        let first = fill(Class::Changes, 200);
        assert_eq!(first.len(), 96);
        assert!(!fill(Class::Changes, 201).is_empty());
        drop((renewals, first));
        assert_eq!(fill(Class::Changes, 201).len(), 128);
    }
}
