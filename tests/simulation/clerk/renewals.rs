//! Renewals of shares: every member takes part, the new shares lie beside the old ones, one entry names them, and only then
//! the old ones go. The ceremony itself is played in `cluster/threshold/tests/worlds.rs`.

use conclave::identifier::LocalId;
use conclave::keystore::query;
use conclave_simulator::Node;
use rand::Rng;

use super::{Clerk, KEYSTORES, Message, system};

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
        let mut named = Vec::new();
        for key in keys {
            let record = query::key(&view, &keystore, &key).ok().flatten();
            if let Some(record) = record.filter(|_| node.rng().gen_bool(0.7)) {
                named.push((key, record.session));
            }
        }
        if named.is_empty() {
            return;
        }
        let operation = self.operation(node);
        let start = system(node);
        for member in node.nodes().to_vec() {
            let keys = named.clone();
            let question = Message::Renew {
                operation,
                keystore,
                keys,
                start,
            };
            node.send(member, question);
        }
        self.await_endorsements(operation, Vec::new(), None);
    }

    /// Shares of an epoch that this node's state has left behind are worth nothing to it, and must not stay.
    pub(super) fn destroy_old_shares(&self, node: &Node<'_, Message>) {
        let Ok(view) = node.freshness().view(KEYSTORES) else {
            return;
        };
        self.shared.disks.borrow_mut().destroy(node.id(), |shares| {
            let record = query::key(&view, &shares.keystore, &shares.key);
            record.ok().flatten().is_some_and(|record| {
                // Those of a ceremony that is under way, or came to nothing, are of the next epoch.
                shares.epoch <= record.epoch && shares.session != record.session
            })
        });
    }
}
