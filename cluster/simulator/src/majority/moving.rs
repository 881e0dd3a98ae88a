//! Changes of members in the majority worlds: operators order lists, keys move to them while two lists decide together, and
//! what an observer outside the cluster must see of it.
//!
//! As in `src/actors/coordinator/moves.rs` and `renewal.rs`: whoever leads a group carries out what its state calls for, and now
//! and then somebody else does. New shares are on the disks of all new members before the entry that names them, dealt by a
//! quorum of those who hold the key; quorums of both lists say when every key has moved.

use super::register::{self, Key, Members, SCOPES, Stage};
use super::{Bug, Clerk, Message, Ticket};
use crate::process::Node;
use conclave_consensus::{GroupId, Millis, NodeId, Role, View};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// After so long a ceremony that came to nothing is begun again.
const RETRY_MS: Millis = 600;
/// Lists are ordered one soon after the other, or with time between.
const PACES: [f64; 3] = [0.02, 0.1, 0.5];

/// A key's move to the members of a list.
struct Ceremony {
    group: GroupId,
    scope: u8,
    number: u64,
    replaces: u64,
    dealers: Vec<NodeId>,
    receivers: Vec<NodeId>,
    dealt: BTreeSet<NodeId>,
    stored: BTreeSet<NodeId>,
    begun: Millis,
    proposed: bool,
}

/// Quorums of both lists are asked whether every key has moved.
struct Agreement {
    group: GroupId,
    members: Members,
    agreed: BTreeSet<NodeId>,
    begun: Millis,
    proposed: bool,
}

/// What one node is carrying out.
#[derive(Default)]
pub(super) struct Carried {
    ceremonies: BTreeMap<u64, Ceremony>,
    agreements: BTreeMap<u64, Agreement>,
    /// The entry of each group's configuration that was looked at last.
    seen: BTreeMap<GroupId, u64>,
}

/// A question to a holder of a key, old or new.
#[derive(Clone, Copy, Debug)]
pub struct Deal {
    /// The ceremony.
    pub operation: u64,
    /// The scope whose key it is.
    pub scope: u8,
    /// The ceremony whose shares are to be replaced.
    pub replaces: u64,
    /// The number of the list that is to hold the new ones.
    pub number: u64,
}

/// What an observer knows of changes of members.
#[derive(Default)]
pub struct Changes {
    /// Lists whose group somebody has seen decide alone, by number.
    left: BTreeSet<(GroupId, u64)>,
    /// Moves of keys that were acknowledged.
    pub keys: u64,
    /// Holders whose state had other shares than the coordinator's.
    pub epochs: u64,
}

impl Changes {
    /// Changes of members that were carried out.
    pub fn carried_out(&self) -> u64 {
        self.left.len() as u64
    }
}

impl Clerk {
    /// Carries out what the groups' states call for.
    pub(super) fn conduct(&mut self, node: &mut Node<'_, Message>) {
        let now = node.now();
        self.carried
            .ceremonies
            .retain(|_, ceremony| now < ceremony.begun + RETRY_MS);
        self.carried
            .agreements
            .retain(|_, agreement| now < agreement.begun + RETRY_MS);
        for group in (0..self.groups).map(GroupId) {
            let leads = node
                .status(group)
                .is_some_and(|status| status.role == Role::Leader);
            if !node.rng().gen_bool(if leads { 0.8 } else { 0.05 }) {
                continue;
            }
            let Ok(view) = node.freshness().view(group) else {
                continue;
            };
            match self.register.members(&view) {
                Ok(members) if members.next.is_none() => self.order(node, group, members.number + 1),
                Ok(members) if members.moving_to().is_some() => self.go_on(node, &view, members),
                Ok(_) => {}
                Err(halt) => node.violation(halt.reason),
            }
        }
        self.destroy_old_shares(node);
    }

    /// Group 0 takes the operators' next order; the others what group 0 has taken.
    fn order(&mut self, node: &mut Node<'_, Message>, group: GroupId, number: u64) {
        let list = match group.0 {
            0 => {
                let hurried = node.is_healed() || node.errand().is_some();
                let pace = if hurried { 0.5 } else { self.pace };
                let next = self.orders.get(number as usize - 2).cloned();
                next.filter(|_| node.rng().gen_bool(pace))
            }
            _ => {
                let zero = node.freshness().view(GroupId(0)).ok();
                let taken = zero.and_then(|view| self.register.list(&view, number).ok());
                taken.filter(|list| !list.is_empty())
            }
        };
        if let Some(list) = list {
            let operation = self.new_operation();
            let entry = register::ordered(operation, number, &list);
            let ticket = self.number();
            node.propose(ticket, group, entry, node.now() + 3_000);
        }
    }

    /// Moves the keys that have not moved; when all have, asks whether that is so.
    fn go_on(&mut self, node: &mut Node<'_, Message>, view: &View, members: Members) {
        let group = view.group();
        let Some((number, receivers)) = members.moving_to().map(|(to, list)| (to, list.clone())) else {
            return;
        };
        let mut left = 0;
        for scope in 0..SCOPES {
            let Ok(key) = self.register.key(view, scope) else {
                continue;
            };
            if key.committee == number {
                continue;
            }
            left += 1;
            let of_this = |ceremony: &Ceremony| (ceremony.group, ceremony.scope) == (group, scope);
            if self.carried.ceremonies.values().any(of_this) {
                continue;
            }
            if let Ok(dealers) = self.register.list(view, key.committee) {
                self.deal(node, (group, scope), key, number, (dealers, receivers.clone()));
            }
        }
        let done = left == 0 || self.bug == Some(Bug::LeavesEarly);
        if done && !self.carried.agreements.values().any(|of| of.group == group) {
            let operation = self.new_operation();
            for member in members.current.iter().chain(&receivers).collect::<BTreeSet<_>>() {
                let question = Message::Agree {
                    operation,
                    group,
                    number,
                };
                node.send(*member, question);
            }
            let agreement = Agreement {
                group,
                members,
                agreed: BTreeSet::new(),
                begun: node.now(),
                proposed: false,
            };
            self.carried.agreements.insert(operation, agreement);
        }
    }

    fn deal(
        &mut self,
        node: &mut Node<'_, Message>,
        (group, scope): (GroupId, u8),
        key: Key,
        number: u64,
        (dealers, receivers): (Vec<NodeId>, Vec<NodeId>),
    ) {
        let deal = Deal {
            operation: self.new_operation(),
            scope,
            replaces: key.session,
            number,
        };
        for member in dealers.iter().chain(&receivers).collect::<BTreeSet<_>>() {
            node.send(*member, Message::Deal { group, deal });
        }
        let ceremony = Ceremony {
            group,
            scope,
            number,
            replaces: key.session,
            dealers,
            receivers,
            dealt: BTreeSet::new(),
            stored: BTreeSet::new(),
            begun: node.now(),
            proposed: false,
        };
        self.carried.ceremonies.insert(deal.operation, ceremony);
    }

    /// Deals from its share, and has the new one on disk before it says so, if its own state calls for it.
    pub(super) fn take_part(&self, node: &mut Node<'_, Message>, from: NodeId, view: &View, deal: Deal) {
        let group = view.group();
        let members = self.register.members(view).ok();
        let moving = members.as_ref().and_then(Members::moving_to);
        let key = self.register.key(view, deal.scope).ok();
        let fits = key.is_some_and(|key| key.session == deal.replaces && key.committee != deal.number);
        let Some((_, receivers)) = moving.filter(|(to, _)| fits && *to == deal.number) else {
            return;
        };
        let stores = receivers.contains(&node.id());
        let mut shares = self.shares.borrow_mut();
        let deals = shares.has(
            node.id(),
            (group, deal.scope, deal.replaces),
            self.register.first(),
        );
        if stores {
            shares.store(node.id(), (group, deal.scope, deal.operation));
        }
        let operation = deal.operation;
        node.send(
            from,
            Message::Dealt {
                operation,
                deals,
                stores,
            },
        );
    }

    /// All new members have their shares, from a quorum of the old ones: an entry may say so.
    pub(super) fn dealt(
        &mut self,
        node: &mut Node<'_, Message>,
        from: NodeId,
        operation: u64,
        (deals, stores): (bool, bool),
    ) {
        let ticket = self.number();
        let Some(ceremony) = self.carried.ceremonies.get_mut(&operation) else {
            return;
        };
        if deals && ceremony.dealers.contains(&from) {
            ceremony.dealt.insert(from);
        }
        if stores {
            ceremony.stored.insert(from);
        }
        let whole = ceremony.dealt.len() > ceremony.dealers.len() / 2
            && ceremony
                .receivers
                .iter()
                .all(|node| ceremony.stored.contains(node));
        if !whole || std::mem::replace(&mut ceremony.proposed, true) {
            return;
        }
        let entry = register::moved(ceremony.scope, operation, ceremony.number, ceremony.replaces);
        let (group, scope) = (ceremony.group, ceremony.scope);
        self.tickets.insert(ticket, Ticket::Move(group, scope, operation));
        node.propose(ticket, group, entry, node.now() + 3_000);
    }

    /// Whether every key of the group is with the members of this number, and this node has the shares that it should have.
    pub(super) fn asked_to_agree(
        &self,
        node: &mut Node<'_, Message>,
        from: NodeId,
        operation: u64,
        (group, number): (GroupId, u64),
    ) {
        if node.freshness().may_contribute(group).is_err() {
            return;
        }
        let agrees = self.bug == Some(Bug::LeavesEarly) || self.has_moved(node, group, number);
        if agrees {
            node.send(from, Message::Agreed { operation });
        }
    }

    fn has_moved(&self, node: &Node<'_, Message>, group: GroupId, number: u64) -> bool {
        let Ok(view) = node.freshness().view(group) else {
            return false;
        };
        let Ok(members) = self.register.members(&view) else {
            return false;
        };
        let Some((_, receivers)) = members.moving_to().filter(|(to, _)| *to == number) else {
            return false;
        };
        // Group 0 comes to its new members last, so that no order is taken while another one is carried out.
        let others_are_done = |group: u32| {
            let view = node.freshness().view(GroupId(group)).ok();
            let members = view.and_then(|view| self.register.members(&view).ok());
            members.is_some_and(|members| members.number >= number && members.next.is_none())
        };
        if group.0 == 0 && !(1..self.groups).all(others_are_done) {
            return false;
        }
        let shares = self.shares.borrow();
        (0..SCOPES).all(|scope| {
            let key = self.register.key(&view, scope).ok();
            let is_there = |key: Key| {
                let held = shares.has(node.id(), (group, scope, key.session), self.register.first());
                key.committee == number && (held || !receivers.contains(&node.id()))
            };
            key.is_some_and(is_there)
        })
    }

    pub(super) fn agreed(&mut self, node: &mut Node<'_, Message>, from: NodeId, operation: u64) {
        let ticket = self.number();
        let Some(agreement) = self.carried.agreements.get_mut(&operation) else {
            return;
        };
        agreement.agreed.insert(from);
        let agreed: Vec<NodeId> = agreement.agreed.iter().copied().collect();
        if !agreement.members.is_quorum(&agreed) || std::mem::replace(&mut agreement.proposed, true) {
            return;
        }
        let (group, number) = (agreement.group, agreement.members.number + 1);
        node.propose(
            ticket,
            group,
            register::completed(operation, number),
            node.now() + 3_000,
        );
    }

    /// A move of a key was acknowledged: while it is the last one, every member of the new list has its share.
    pub(super) fn key_moved(
        &self,
        node: &mut Node<'_, Message>,
        (group, scope, session): (GroupId, u8, u64),
        taken: bool,
    ) {
        let Ok(view) = node.freshness().view(group) else {
            return;
        };
        let key = self.register.key(&view, scope).ok();
        let Some(key) = key.filter(|key| taken && key.session == session) else {
            return;
        };
        self.history.borrow_mut().changes.keys += 1;
        let holders = self.register.list(&view, key.committee).unwrap_or_default();
        let shares = self.shares.borrow();
        let has = |node: &NodeId| shares.has(*node, (group, scope, session), self.register.first());
        if let Some(without) = holders.iter().find(|node| !has(node)) {
            node.violation(format!(
                "node {without} has no share of epoch {} of scope {scope} in {group}",
                key.epoch
            ));
        }
    }

    /// Shares of earlier epochs go once the group has left joint consensus.
    fn destroy_old_shares(&self, node: &mut Node<'_, Message>) {
        for group in (0..self.groups).map(GroupId) {
            let Ok(view) = node.freshness().view(group) else {
                continue;
            };
            let Ok(members) = self.register.members(&view) else {
                continue;
            };
            for scope in 0..SCOPES {
                let Ok(key) = self.register.key(&view, scope) else {
                    continue;
                };
                let early = self.bug == Some(Bug::DestroysEarly) && key.committee > members.number;
                if members.next.is_some() && !early {
                    continue;
                }
                let first = self.register.first();
                let mut shares = self.shares.borrow_mut();
                let destroyed = shares.destroy_others(node.id(), (group, scope), key.session, first);
                let left = self
                    .history
                    .borrow()
                    .changes
                    .left
                    .contains(&(group, key.committee));
                if destroyed && key.committee > 1 && !left {
                    node.violation(format!(
                        "old shares of scope {scope} in {group} were destroyed while two lists decided together"
                    ));
                }
            }
        }
    }

    /// After a turn: a group that has left joint consensus has left no key behind.
    pub(super) fn observe(&mut self, node: &mut Node<'_, Message>) {
        for group in (0..self.groups).map(GroupId) {
            let Some(status) = node.status(group) else {
                continue;
            };
            let index = status.configuration_index;
            let joint = status.configuration.is_joint();
            if self.carried.seen.insert(group, index) == Some(index) || joint {
                continue;
            }
            let Ok(view) = node.freshness().view(group) else {
                continue;
            };
            let Ok(members) = self.register.members(&view) else {
                continue;
            };
            if members.number > 1 {
                let mut history = self.history.borrow_mut();
                history.changes.left.insert((group, members.number));
            }
            if let Some((_, stage @ (Stage::Joint | Stage::Complete))) = members.next {
                node.violation(format!(
                    "{group} is with one list alone, and its state is {stage:?}"
                ));
            }
            let stays = |scope: &u8| {
                let key = self.register.key(&view, *scope).ok();
                key.is_some_and(|key| key.committee != members.number)
            };
            if let Some(scope) = (0..SCOPES).find(stays) {
                node.violation(format!(
                    "{group} is with list {} alone, and the key of scope {scope} has not moved",
                    members.number
                ));
            }
        }
    }

    /// How soon the operators order the next list.
    pub(super) fn pace_of(seed: u64) -> f64 {
        PACES[(seed / 16) as usize % PACES.len()]
    }
}
