//! Renewals of shares: every member takes part, the new shares lie beside the old ones, one entry names them, and only then
//! the old ones go. While members change, the same moves a key: those that hold it deal, the new members get shares. The
//! ceremony itself is played in `cluster/threshold/tests/worlds.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;

use conclave::identifier::{LocalId, OperationId};
use conclave::keystore::Roster;
use conclave::keystore::query;
use conclave::membership::Membership;
use conclave_consensus::NodeId;
use conclave_simulator::Node;
use rand::Rng;

use super::moves::Named;
use super::{Clerk, KEYSTORES, Message, system};
use crate::disks::Shares;
use crate::office::Bug;

/// Who must deal: a quorum of those that hold the keys.
pub(super) struct Dealing {
    from: Arc<Membership>,
    dealt: BTreeSet<NodeId>,
}

impl Dealing {
    pub(super) fn is_enough(&self) -> bool {
        self.dealt.len() >= self.from.quorum()
    }
}

impl Clerk {
    /// Asks everybody to renew the shares of some keys of the keystore, as this node's state names them.
    pub(super) fn renew(&mut self, node: &mut Node<'_, Message>, keystore: LocalId) {
        let keys: Vec<LocalId> = {
            let history = self.shared.history.borrow();
            let tenant = history.keystores.get(&keystore);
            let keys = tenant.map(|tenant| tenant.keys.iter().copied().collect());
            keys.unwrap_or_default()
        };
        let Ok(view) = node.freshness().view(KEYSTORES) else {
            return;
        };
        let Ok(roster) = self.shared.rosters.of(&view) else {
            return;
        };
        let members = roster.births().clone();
        let mut named = Vec::new();
        for key in keys {
            let record = query::key(&view, &keystore, &key).ok().flatten();
            let record = record.filter(|_| node.rng().gen_bool(0.7));
            if let Some(record) = record.filter(|record| record.committee == members.index) {
                named.push((key, record.session));
            }
        }
        if !named.is_empty() {
            self.renew_keys(node, keystore, named, (roster, members));
        }
    }

    /// The same for keys that `before` holds: where others are born with keys now, they move to those.
    pub(super) fn renew_keys(
        &mut self,
        node: &mut Node<'_, Message>,
        keystore: LocalId,
        named: Named,
        (roster, before): (Arc<Roster>, Arc<Membership>),
    ) {
        let operation = self.operation(node);
        let start = system(node);
        let moves = before.index != roster.births().index;
        let mut asked = roster.births().nodes();
        asked.extend(before.nodes());
        asked.sort_unstable();
        asked.dedup();
        for member in asked {
            let keys = named.clone();
            let question = Message::Renew {
                operation,
                keystore,
                keys,
                start,
            };
            node.send(member, question);
        }
        let dealing = moves.then(|| Dealing {
            from: before,
            dealt: BTreeSet::new(),
        });
        self.await_endorsements(operation, Vec::new(), roster, None);
        if let Some(change) = self.changes.get_mut(&operation) {
            change.dealing = dealing;
        }
    }

    /// One that holds the keys has dealt its shares of them.
    pub(super) fn dealt(&mut self, node: &mut Node<'_, Message>, from: NodeId, operation: OperationId) {
        let dealing = self.changes.get_mut(&operation);
        if let Some(dealing) = dealing.and_then(|change| change.dealing.as_mut())
            && dealing.from.member(from).is_some()
        {
            dealing.dealt.insert(from);
            self.propose_what_is_agreed(node, operation);
        }
    }

    /// Shares of an epoch that this node's state has left behind are worth nothing to it, and must not stay; where a key has
    /// moved, those that held it before may be asked until they no longer vote.
    pub(super) fn destroy_old_shares(&self, node: &mut Node<'_, Message>) {
        let Ok(view) = node.freshness().view(KEYSTORES) else {
            return;
        };
        let Ok(roster) = self.shared.rosters.of(&view) else {
            return;
        };
        let early = self.has(Bug::DestroysEarly);
        let record = |shares: &Shares| query::key(&view, &shares.keystore, &shares.key).ok().flatten();
        let destroyed = self.shared.disks.borrow_mut().destroy(node.id(), |shares| {
            record(shares).is_some_and(|record| {
                // Those of a ceremony that is under way, or came to nothing, are of the next epoch.
                let old = shares.epoch <= record.epoch && shares.session != record.session;
                old && (early || record.committee <= roster.current.index)
            })
        });
        for shares in destroyed {
            let committee = record(&shares).map_or(1, |record| record.committee);
            let left = self
                .shared
                .history
                .borrow()
                .left
                .contains(&(KEYSTORES, committee));
            if committee > 1 && !left {
                node.violation(format!(
                    "old shares of key {} were destroyed while two lists decided together",
                    shares.key
                ));
            }
        }
    }
}
