//! Confirmed reads: nothing acknowledged is lost, nothing is there that nobody endorsed, and what was seen goes into the
//! keystore's history.

use conclave::identifier::LocalId;
use conclave::keystore::query;
use conclave_consensus::View;
use conclave_simulator::Node;

use super::{Clerk, Floor, KEYSTORES, Message, Ticket};
use crate::clients;
use crate::office::Bug;
use crate::register::{Answer, Call, State};

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Clerk {
    pub(super) fn read(&mut self, node: &mut Node<'_, Message>, keystore: LocalId, errand: Option<u64>) {
        let ticket = self.number();
        let floor = {
            let mut history = self.shared.history.borrow_mut();
            let invoked = history.moment();
            let Some(tenant) = history.keystores.get(&keystore) else {
                return;
            };
            Floor {
                keystore,
                keys: tenant.keys.clone(),
                revoked: tenant.revoked.clone(),
                sequence: tenant.sequence,
                invoked,
                errand,
            }
        };
        if self.has(Bug::UnconfirmedReads) {
            return self.answer(node, &floor);
        }
        self.tickets.insert(ticket, Ticket::Read(floor));
        node.read_index(ticket, KEYSTORES, node.now() + 2_000);
    }

    pub(super) fn confirmed(&mut self, node: &mut Node<'_, Message>, floor: &Floor) {
        self.shared.history.borrow_mut().counts.reads += 1;
        if let Err(what) = self.check(node, floor) {
            return node.violation(what);
        }
        self.answer(node, floor);
    }

    /// What the client is told goes into the history.
    fn answer(&self, node: &mut Node<'_, Message>, floor: &Floor) {
        let view = node.freshness().view(KEYSTORES).map_err(text);
        match view.and_then(|view| self.state(&view, &floor.keystore)) {
            Ok(state) => {
                let mut history = self.shared.history.borrow_mut();
                let at = history.moment();
                if let Some(tenant) = history.keystores.get_mut(&floor.keystore) {
                    let place = tenant.called(Call::Read, floor.invoked);
                    tenant.answered(place, at, Some(Answer::Seen(state)));
                }
            }
            Err(what) => node.violation(what),
        }
        if let Some(number) = floor.errand {
            node.achieved(number);
        }
    }

    /// All of a keystore that its clients know a name of.
    fn state(&self, view: &View, keystore: &LocalId) -> Result<State, String> {
        let history = self.shared.history.borrow();
        let mut state = State::default();
        let Some(tenant) = history.keystores.get(keystore) else {
            return Ok(state);
        };
        let record = query::keystore(view, keystore).map_err(text)?;
        state.version = record.map_or(0, |record| record.version);
        for key in &tenant.proposed {
            if let Some(record) = query::key(view, keystore, key).map_err(text)? {
                state.keys.insert(*key, record.session);
            }
        }
        for delegated in &tenant.delegated {
            let by = clients::did(delegated.by);
            if query::revoked(view, keystore, &delegated.id, &by).map_err(text)? {
                state.revoked.insert(delegated.id.clone());
            }
        }
        Ok(state)
    }

    /// What was acknowledged before a confirmed read began is there, and nothing that nobody endorsed is.
    fn check(&self, node: &mut Node<'_, Message>, floor: &Floor) -> Result<(), String> {
        let view = node.freshness().view(KEYSTORES).map_err(text)?;
        let keystore = &floor.keystore;
        let stored = query::keystore(&view, keystore).map_err(text)?;
        let config = stored.ok_or("an acknowledged keystore is lost")?.config;
        if config.sequence < floor.sequence {
            let (least, there) = (floor.sequence, config.sequence);
            return Err(format!("sequence {least} was acknowledged, {there} is there"));
        }
        if config
            .controllers
            .iter()
            .any(|controller| controller == "did:key:mallory")
        {
            return Err("a controller is there whom nobody endorsed".into());
        }
        let mut history = self.shared.history.borrow_mut();
        let tenant = history.keystores.get_mut(keystore);
        let tenant = tenant.ok_or("a keystore that nobody knows")?;
        for key in &floor.keys {
            let record = query::key(&view, keystore, key).map_err(text)?;
            let record = record.ok_or(format!("the acknowledged key {key} is lost"))?;
            let disks = self.shared.disks.borrow();
            let committee = self
                .shared
                .rosters
                .numbered(&view, record.committee)
                .map_err(text)?;
            let mut holders = committee.nodes().into_iter();
            let without = holders.find(|node| !disks.has(*node, &record.session));
            if let Some(node) = without.filter(|_| !tenant.replacing.contains(&record.session)) {
                return Err(format!("node {node} has no share of the acknowledged key {key}"));
            }
            let Some((_, public_key)) = record.material.pair() else {
                continue;
            };
            if tenant.public_keys.entry(*key).or_insert(*public_key) != public_key {
                return Err(format!("the public key of {key} has changed"));
            }
        }
        for id in &floor.revoked {
            let delegators = tenant.delegated.iter().filter(|known| known.id == *id);
            for by in delegators.map(|known| known.by) {
                if !query::revoked(&view, keystore, id, &clients::did(by)).map_err(text)? {
                    return Err(format!("the acknowledged revocation of {id} is lost"));
                }
            }
        }
        Ok(())
    }
}
