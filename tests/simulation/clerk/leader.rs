//! What a corrupt leader tries: entries of its own invention, and entries that were proposed before.

use conclave::identifier::LocalId;
use conclave::identifier::OperationId;
use conclave::keystore::{Command, Entry, Outcome, Statement, query};
use conclave_simulator::Node;
use rand::seq::SliceRandom;

use super::{Clerk, KEYSTORES, Message, Ticket, seconds, system};
use crate::clients;
use crate::office::member_key;

impl Clerk {
    /// A corrupt node proposes an entry of its own invention, with its own signature twice.
    pub(super) fn forge(&mut self, node: &mut Node<'_, Message>, keystore: &LocalId, sequence: u64) {
        let now = seconds(node);
        let Some(stored) = node
            .freshness()
            .view(KEYSTORES)
            .ok()
            .and_then(|view| query::keystore(&view, keystore).ok().flatten())
        else {
            return;
        };
        let mut config = stored.config.clone();
        config.sequence += 1;
        config.controllers = vec!["did:key:mallory".into()];
        let request = clients::hand_on(keystore, sequence + 1, now);
        let statement = Statement {
            cluster: [0; 32],
            group: KEYSTORES.0,
            operation: self.operation(node),
            request: request.hash(),
            name: [0; 32],
            expires: (now + 300) * 1_000,
            command: Command::UpdateKeystore {
                id: *keystore,
                config,
            },
            state_version: stored.version,
            chain: Vec::new(),
        };
        let own = statement.endorse(node.id(), &member_key(node.id()), system(node));
        let entry = Entry {
            statement,
            request: request.encode(),
            endorsements: vec![own.clone(), own],
        };
        let ticket = self.number();
        self.tickets.insert(ticket, Ticket::Forged);
        self.shared.history.borrow_mut().counts.forged += 1;
        node.propose(ticket, KEYSTORES, entry.encode(), node.now() + 2_000);
    }

    /// It proposes an entry again that this or another node proposed before: its operation is not applied again.
    pub(super) fn again(&mut self, node: &mut Node<'_, Message>) {
        let chosen = self.shared.history.borrow().proposed.choose(node.rng()).cloned();
        let Some((operation, group, entry)) = chosen else {
            return;
        };
        let ticket = self.number();
        self.tickets.insert(ticket, Ticket::Again(operation));
        node.propose(ticket, group, entry, node.now() + 2_000);
    }

    /// What became of its own invention.
    pub(super) fn forged(&self, node: &mut Node<'_, Message>, result: &[u8]) {
        if let Ok(Outcome::Applied(_)) = postcard::from_bytes(result) {
            node.violation("an entry was applied that nobody endorsed");
        }
    }

    pub(super) fn came_to(&self, node: &mut Node<'_, Message>, operation: OperationId, result: &[u8]) {
        let Ok(outcome) = postcard::from_bytes::<Outcome>(result) else {
            return node.violation("an outcome cannot be decoded");
        };
        if let Err(what) = self.shared.history.borrow_mut().came_to(operation, outcome) {
            node.violation(what);
        }
    }
}
