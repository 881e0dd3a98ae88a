//! Changes of members, carried out as `src/actors/coordinator/moves.rs` does: operators order a list, group 0 takes it, the
//! other group takes it from there, the old members say that the new ones are there, in group 0 first, keys move to the new members, and quorums of both lists say when every key has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use conclave::config::Hex32;
use conclave::identifier::{LocalId, OperationId};
use conclave::keystore::apply::request_hash;
use conclave::keystore::beginning::may_begin;
use conclave::keystore::state::decode;
use conclave::keystore::{Command, KeyRecord, ReadState, Roster, Stage, Statement, layout, query};
use conclave::membership::{Membership, NewMembers};
use conclave::operator::{Change, OperatorSignature, Order, SignedOrder};
use conclave_consensus::{Configuration, GroupId, Millis, NodeId, Role, View};
use conclave_simulator::Node;
use ed25519_dalek::Signer;
use rand::Rng;

use super::{Clerk, KEYSTORES, METERS, Message};
use crate::office::{Bug, member, operator_key};
use crate::register::Session;

/// After so long what came to nothing is begun again, ms.
const RETRY: Millis = 700;
/// Keys that are looked at.
const MANY: usize = 10_000;
/// Most keys of one ceremony, as `MAX_RENEWED`.
const MOST: usize = 16;

/// What one node is carrying out.
#[derive(Default)]
pub(super) struct Carried {
    /// What was begun last for a group, or for a keystore's keys, and when.
    begun: BTreeMap<(GroupId, Option<LocalId>), Millis>,
    /// The entry of each group's configuration that was looked at last.
    seen: BTreeMap<GroupId, u64>,
}

/// Keys that are to get new shares, each with the ceremony whose shares these replace.
pub(super) type Named = Vec<(LocalId, Session)>;

/// The statement of what no client asks for.
fn unasked(group: GroupId, operation: OperationId, command: Command) -> Statement {
    Statement {
        cluster: [0; 32],
        group: group.0,
        operation,
        request: request_hash(&[]),
        name: [0; 32],
        expires: 0,
        command,
        state_version: 0,
        chain: Vec::new(),
    }
}

impl Clerk {
    /// Who the members of a group are, as far as this node has applied.
    pub(super) fn roster(&self, node: &Node<'_, Message>, group: GroupId) -> Option<Arc<Roster>> {
        self.shared.rosters.of(&node.freshness().view(group).ok()?).ok()
    }

    /// Carries out what the groups' states call for: whoever leads, and now and then somebody else.
    pub(super) fn conduct(&mut self, node: &mut Node<'_, Message>) {
        for group in [METERS, KEYSTORES] {
            let leads = node
                .status(group)
                .is_some_and(|status| status.role == Role::Leader);
            if !node.rng().gen_bool(if leads { 0.8 } else { 0.04 }) {
                continue;
            }
            let Ok(view) = node.freshness().view(group) else {
                continue;
            };
            let Ok(roster) = self.shared.rosters.of(&view) else {
                continue;
            };
            match &roster.next {
                None => self.announce(node, &roster, &view),
                Some((next, Stage::Announced)) => self.begin(node, &roster, (group, next.index)),
                Some((next, Stage::Joint)) => self.go_on(node, &roster, next, &view),
                Some(_) => {}
            }
        }
    }

    /// Whether nothing of this was begun a moment ago; it is from now on.
    fn begins(&mut self, node: &Node<'_, Message>, what: (GroupId, Option<LocalId>)) -> bool {
        let now = node.now();
        let last = self.carried.begun.get(&what);
        let due = last.is_none_or(|last| now >= last + RETRY);
        if due {
            self.carried.begun.insert(what, now);
        }
        due
    }

    /// Group 0 takes the operators' next order, each other group what group 0 has taken.
    fn announce(&mut self, node: &mut Node<'_, Message>, roster: &Arc<Roster>, view: &View) {
        let group = view.group();
        let order = match group {
            METERS => {
                let hurried = node.is_healed() || node.errand().is_some();
                let pace = if hurried { 0.5 } else { self.shared.pace };
                let next = self.shared.orders.get(roster.current.index as usize - 1).cloned();
                let next = next.filter(|_| node.rng().gen_bool(pace));
                next.and_then(|list| ordered(&list, &roster.current, view))
            }
            _ => {
                let zero = node.freshness().view(METERS).ok();
                let number = roster.current.index + 1;
                zero.and_then(|zero| {
                    zero.record::<SignedOrder>(&layout::members(number))
                        .ok()
                        .flatten()
                })
            }
        };
        let Some(order) = order.filter(|_| self.begins(node, (group, None))) else {
            return;
        };
        let operation = self.operation(node);
        for member in roster.deciders() {
            let order = Box::new(order.clone());
            let question = Message::EndorseOrder {
                operation,
                group,
                order,
            };
            node.send(member, question);
        }
        self.await_endorsements(operation, Vec::new(), roster.clone(), None);
    }

    /// Has the old members say that the new ones are there.
    fn begin(&mut self, node: &mut Node<'_, Message>, roster: &Arc<Roster>, (group, number): (GroupId, u64)) {
        if !self.sees_beginning(node, group, number) || !self.begins(node, (group, None)) {
            return;
        }
        let operation = self.operation(node);
        let question = Message::EndorseBeginning {
            operation,
            group,
            number,
        };
        self.ask_deciders(node, operation, roster, &question);
    }

    /// Asks everybody who decides in a group, and waits for a quorum.
    fn ask_deciders(
        &mut self,
        node: &mut Node<'_, Message>,
        operation: OperationId,
        roster: &Arc<Roster>,
        question: &Message,
    ) {
        for member in roster.deciders() {
            node.send(member, question.clone());
        }
        self.await_endorsements(operation, Vec::new(), roster.clone(), None);
    }

    /// Moves the keys that have not moved; when all have, has both lists say so.
    fn go_on(
        &mut self,
        node: &mut Node<'_, Message>,
        roster: &Arc<Roster>,
        next: &Arc<Membership>,
        view: &View,
    ) {
        let group = view.group();
        let mut left: BTreeMap<LocalId, (u64, Named)> = BTreeMap::new();
        let stays = |(_, _, record): &(LocalId, LocalId, KeyRecord)| record.committee != next.index;
        for (keystore, key, record) in keys(view).into_iter().filter(stays) {
            let (committee, named) = left.entry(keystore).or_insert((record.committee, Vec::new()));
            if record.committee == *committee && named.len() < MOST {
                named.push((key, record.session));
            }
        }
        for (keystore, (committee, named)) in &left {
            if self.begins(node, (group, Some(*keystore)))
                && let Ok(before) = self.shared.rosters.numbered(view, *committee)
            {
                self.renew_keys(node, *keystore, named.clone(), (roster.clone(), before));
            }
        }
        if !(left.is_empty() || self.has(Bug::LeavesEarly)) || !self.begins(node, (group, None)) {
            return;
        }
        let operation = self.operation(node);
        let number = next.index;
        let question = Message::EndorseMove {
            operation,
            group,
            number,
        };
        self.ask_deciders(node, operation, roster, &question);
    }

    /// Endorses an order that the operators have signed, outside of group 0 one that group 0 has taken.
    pub(super) fn endorse_order(
        &mut self,
        node: &mut Node<'_, Message>,
        from: NodeId,
        operation: OperationId,
        (group, order): (GroupId, Box<SignedOrder>),
    ) {
        if operation.node != from || order.verify(self.shared.rosters.genesis()).is_err() {
            return;
        }
        if let (KEYSTORES, Change::Members(new)) = (group, &order.order.change) {
            let zero = node.freshness().view(METERS).ok();
            let taken = zero.and_then(|zero| zero.record::<SignedOrder>(&layout::members(new.number)).ok());
            if taken.flatten().as_ref() != Some(&*order) {
                return;
            }
        }
        if let Some(now) = self.time(node) {
            let statement = unasked(group, operation, Command::Order(order));
            self.sign(node, from, operation, statement, now);
        }
    }

    /// Endorses that a group begins to move to the members of this number.
    pub(super) fn endorse_beginning(
        &mut self,
        node: &mut Node<'_, Message>,
        from: NodeId,
        operation: OperationId,
        (group, number): (GroupId, u64),
    ) {
        if operation.node != from || node.freshness().may_contribute(group).is_err() {
            return;
        }
        let seen = self.sees_beginning(node, group, number);
        if let Some(now) = self.time(node).filter(|_| seen) {
            let statement = unasked(group, operation, Command::BeginMove(number));
            self.sign(node, from, operation, statement, now);
        }
    }

    /// Whether a group may begin to move, as far as this node knows: by the rule of production.
    fn sees_beginning(&self, node: &Node<'_, Message>, group: GroupId, number: u64) -> bool {
        if self.has(Bug::BeginsUnseen) {
            return true;
        }
        let believed = |group| {
            let roster = self.roster(node, group);
            roster.filter(|_| node.freshness().is_vouched_for(group))
        };
        let zero = match group {
            METERS => None,
            _ => match believed(METERS) {
                None => return false,
                zero => zero,
            },
        };
        let status = node.status(group);
        let is_there = |newcomer| status.is_some_and(|status| status.caught_up.contains(&newcomer));
        let zero = zero.as_deref().map(|zero| (zero, group.0));
        believed(group).is_some_and(|own| may_begin(&own, number, zero, is_there).is_ok())
    }

    /// Endorses that every key of a group is with the members of this number.
    pub(super) fn endorse_move(
        &mut self,
        node: &mut Node<'_, Message>,
        from: NodeId,
        operation: OperationId,
        (group, number): (GroupId, u64),
    ) {
        if operation.node != from || node.freshness().may_contribute(group).is_err() {
            return;
        }
        let moved = self.has_moved(node, group, number).unwrap_or(false) || self.has(Bug::LeavesEarly);
        if let Some(now) = self.time(node).filter(|_| moved) {
            let statement = unasked(group, operation, Command::CompleteMove(number));
            self.sign(node, from, operation, statement, now);
        }
    }

    /// Whether every key has moved, and this node, if it is a new member, has its shares.
    fn has_moved(&self, node: &Node<'_, Message>, group: GroupId, number: u64) -> Option<bool> {
        let view = node.freshness().view(group).ok()?;
        let roster = self.shared.rosters.of(&view).ok()?;
        let is_member = match &roster.next {
            Some((next, Stage::Joint)) if next.index == number => next.member(node.id()).is_some(),
            _ => return Some(false),
        };
        // Group 0 comes to its new members last, so that it takes no other order before.
        if group == METERS {
            let other = self.roster(node, KEYSTORES)?;
            return Some(other.next.is_none() && other.current.index >= number);
        }
        let disks = self.shared.disks.borrow();
        let has = |record: &KeyRecord| !is_member || disks.has(node.id(), &record.session);
        let is_there = |(_, _, record): &(_, _, KeyRecord)| record.committee == number && has(record);
        Some(keys(&view).iter().all(is_there))
    }

    /// After a turn: a group that is with its new members alone has left no key behind.
    pub(super) fn observe(&mut self, node: &mut Node<'_, Message>) {
        for group in [METERS, KEYSTORES] {
            let Some(status) = node.status(group) else {
                continue;
            };
            let (index, configuration) = (status.configuration_index, status.configuration.clone());
            if self.carried.seen.insert(group, index) == Some(index) || configuration.is_empty() {
                continue;
            }
            let joint = configuration.is_joint();
            let mut history = self.shared.history.borrow_mut();
            history.configurations.insert((group, index), configuration);
            drop(history);
            let Ok(view) = node.freshness().view(group) else {
                continue;
            };
            let Some(roster) = self.shared.rosters.of(&view).ok().filter(|_| !joint) else {
                continue;
            };
            let number = roster.current.index;
            if number > 1 {
                self.shared.history.borrow_mut().left.insert((group, number));
            }
            if let Some((_, stage @ (Stage::Joint | Stage::Complete))) = roster.next {
                node.violation(format!(
                    "{group} is with one list alone, and its state is {stage:?}"
                ));
            }
            let stays = |(_, _, record): &&(LocalId, LocalId, KeyRecord)| record.committee != number;
            if let Some((_, key, _)) = keys(&view).iter().find(stays) {
                node.violation(format!(
                    "{group} is with list {number} alone, and key {key} has not moved"
                ));
            }
        }
    }

    /// What changed the state while two lists decided together was endorsed by a quorum of each.
    pub(super) fn check_endorsers(
        &self,
        node: &mut Node<'_, Message>,
        (group, index): (GroupId, u64),
        endorsers: &BTreeSet<u64>,
    ) {
        let history = self.shared.history.borrow();
        let mut before = history.configurations.range((group, 0)..(group, index));
        let Some((_, configuration)) = before.next_back() else {
            return;
        };
        let Configuration { voters, outgoing, .. } = configuration;
        let half =
            |list: &[u64]| list.iter().filter(|node| endorsers.contains(node)).count() > list.len() / 2;
        if !half(voters) || !(outgoing.is_empty() || half(outgoing)) {
            node.violation(format!(
                "{endorsers:?} changed the state of {group}, and no quorum of each list: {configuration:?}"
            ));
        }
    }
}

/// The operators' order for this list, after the one that there is.
fn ordered(list: &[u64], current: &Membership, zero: &View) -> Option<SignedOrder> {
    let order = Order {
        cluster: Hex32(current.cluster),
        sequence: query::orders(zero).ok()?.sequence + 1,
        change: Change::Members(NewMembers {
            number: current.index + 1,
            replaces: Hex32(current.digest()),
            members: list.iter().map(|node| member(*node).pinned()).collect(),
            placement: None,
        }),
    };
    let key = operator_key();
    let signature = key.sign(&order.signed_bytes()).to_bytes();
    let mut signed = SignedOrder::new(order);
    signed.add(OperatorSignature::new(key.verifying_key().to_bytes(), &signature));
    Some(signed)
}

/// All keys of a group.
pub(super) fn keys(view: &View) -> Vec<(LocalId, LocalId, KeyRecord)> {
    let pairs = view.scan(layout::KEYS, None, MANY).unwrap_or_default();
    let named = pairs.iter().filter_map(|(at, record)| {
        let (keystore, key) = layout::names_of_key(at)?;
        Some((keystore, key, decode(record).ok()?))
    });
    named.collect()
}
