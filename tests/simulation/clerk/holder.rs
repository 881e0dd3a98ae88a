//! A holder's answers: fence, pending entries, its own judgement by its own state and clock, its record; then its
//! endorsement, its contribution or its new shares.

use std::sync::Arc;

use conclave::actors::denials::Life;
use conclave::authorization::{Authenticated, RawRequest, authenticate};
use conclave::identifier::{LocalId, OperationId};
use conclave::keystore::apply::request_hash;
use conclave::keystore::command::{GeneratedKey, RenewedKey, RenewedShares};
use conclave::keystore::record::{KeyRecord, Material};
use conclave::keystore::{Command, Statement, query};
use conclave::membership::Membership;
use conclave::operation::judge::{Case, Intent, Judgement};
use conclave::operation::route::Route;
use conclave_consensus::{GroupId, NodeId, Scope, View};
use conclave_simulator::Node;
use sha2::{Digest, Sha256};

use super::{Clerk, KEYSTORES, METERS, Message, Question, Views, Waiting};
use crate::disks::Shares;
use crate::office::{Bug, member_key};
use crate::register::Session;

/// How far a coordinator's clock may be from this node's, ms.
const CLOCK_SPREAD: u64 = 5_000;

/// Names the ceremony of one key in an operation.
pub(super) fn session_of(operation: &OperationId, key: &LocalId) -> Session {
    let mut hash = Sha256::new_with_prefix(operation.to_bytes());
    hash.update(key.0);
    hash.finalize().into()
}

/// What the ceremony would have made of a key.
fn material(session: Session, public_key: [u8; 32]) -> Material {
    Material::Pair {
        commitment: session.to_vec(),
        public_key,
    }
}

/// An allowed request.
struct Allowed {
    judgement: Judgement,
    authenticated: Authenticated,
    /// The holder's time, ms.
    now: u64,
}

/// What a member contributes to new shares.
struct Part {
    /// It has its shares of all the keys.
    deals: bool,
    /// It has new ones.
    signs: Option<Statement>,
    /// Its time, ms.
    now: u64,
}

impl Clerk {
    /// The member's own judgement of a request on a settled view of the keystore's group.
    fn judge(
        &self,
        node: &Node<'_, Message>,
        request: &RawRequest,
        operation: OperationId,
        own: View,
        denies: bool,
    ) -> Option<Allowed> {
        let now = self.time(node)?;
        let rules = &self.shared.rules;
        let route = Route::parse(&request.method, &request.target)?;
        let authenticated = authenticate(request, &rules.policy, &rules.chains, now).ok()?;
        let zero = node.freshness().view(METERS).ok()?;
        let denials = denies.then_some((&self.denials, now));
        let facts = Views {
            zero,
            own,
            denials,
            forgets: self.has(Bug::ForgottenRevocations),
        };
        let case = Case {
            rules,
            facts: &facts,
            request: &authenticated,
            route: &route,
            operation,
            now,
        };
        let judgement = case.judge().ok()?;
        Some(Allowed {
            judgement,
            authenticated,
            now,
        })
    }

    /// Begins to answer: fence, then wait for what is pending.
    pub(super) fn asked(
        &mut self,
        node: &mut Node<'_, Message>,
        from: NodeId,
        operation: OperationId,
        question: Question,
    ) {
        let Some((group, keystore)) = place_of(&question) else {
            return;
        };
        if operation.node != from || node.freshness().may_contribute(group).is_err() {
            return;
        }
        let scope = keystore.map_or(Scope([0; 16]), |id| Scope(id.0));
        if let Ok(settling) = node.freshness().settle(group, scope) {
            let deadline = node.now() + self.shared.patience;
            let waiting = Waiting {
                from,
                operation,
                question,
                settling,
                deadline,
            };
            self.decide(node, waiting);
        }
    }

    pub(super) fn decide(&mut self, node: &mut Node<'_, Message>, waiting: Waiting) {
        let freshness = node.freshness().clone();
        let Waiting {
            from,
            operation,
            question,
            settling,
            deadline,
        } = waiting;
        let view = match settling.poll(&freshness) {
            Ok(Ok(view)) => view,
            Ok(Err(_)) => return,
            // A wait that ends without the entry never ends in a contribution.
            Err(_) if node.now() >= deadline => return,
            Err(settling) => {
                return self.waiting.push(Waiting {
                    from,
                    operation,
                    question,
                    settling,
                    deadline,
                });
            }
        };
        // The wait may have outlasted the leader.
        if freshness.may_contribute(view.group()).is_err() {
            return;
        }
        match question {
            Question::Change {
                request,
                participants,
                start,
            } => {
                let Ok(roster) = self.shared.rosters.of(&view) else {
                    return;
                };
                let group = view.group();
                let allowed = self.judge(node, &request, operation, view, false);
                if let Some(allowed) = allowed {
                    let ceremony = (roster.births().clone(), participants, start);
                    self.endorse(node, from, operation, (&request, group), allowed, ceremony);
                }
            }
            Question::Use { request, session } => {
                self.contribute(node, from, operation, &request, session, view)
            }
            Question::Renew {
                keystore,
                keys,
                start,
            } => {
                let part = self.take_part(node, operation, (keystore, keys, start), &view);
                let Some(Part { deals, signs, now }) = part else {
                    return;
                };
                if deals {
                    node.send(from, Message::Dealt { operation });
                }
                if let Some(statement) = signs {
                    self.sign(node, from, operation, statement, now);
                }
            }
        }
    }

    fn endorse(
        &mut self,
        node: &mut Node<'_, Message>,
        from: NodeId,
        operation: OperationId,
        (request, group): (&RawRequest, GroupId),
        allowed: Allowed,
        (members, participants, start): (Arc<Membership>, Vec<u64>, u64),
    ) {
        let Allowed {
            judgement,
            authenticated,
            now,
        } = allowed;
        let command = match judgement.intent {
            Intent::Change(command) => command,
            Intent::Generate(terms) if now.abs_diff(start) <= CLOCK_SPREAD => {
                // The coordinator may know other members than this node.
                if participants.iter().any(|node| members.member(*node).is_none()) {
                    return;
                }
                let session = session_of(&operation, &terms.key);
                let shares = Shares {
                    keystore: terms.keystore,
                    key: terms.key,
                    epoch: 0,
                    session,
                };
                if participants.contains(&node.id()) {
                    let mut disks = self.shared.disks.borrow_mut();
                    disks.store_born(node.id(), shares, &participants);
                }
                let index = |node: &u64| u16::try_from(*node).unwrap();
                let everybody = members.nodes();
                let away = everybody.iter().filter(|node| !participants.contains(node));
                Command::GenerateKey(Box::new(GeneratedKey {
                    keystore: terms.keystore,
                    key: terms.key,
                    key_type: terms.key_type,
                    alias: terms.alias,
                    max_chain_length: terms.max_chain_length,
                    epoch: 0,
                    session,
                    start,
                    configuration: members.index,
                    away: away.map(index).collect(),
                    participants,
                    transcript: [0; 32],
                    material: material(session, terms.key.0.repeat(2).try_into().unwrap()),
                }))
            }
            _ => return,
        };
        let statement = Statement {
            cluster: [0; 32],
            group: group.0,
            operation,
            request: request.hash(),
            name: authenticated.name,
            expires: authenticated.expires * 1_000,
            command,
            state_version: judgement.state_version,
            chain: judgement.chain,
        };
        let life = Life {
            since: now,
            until: (authenticated.expires + 300) * 1_000,
        };
        let version = judgement.state_version;
        self.denials
            .endorsed(operation, &statement.command, version, (), life);
        self.sign(node, from, operation, statement, now);
    }

    /// Its record, then its endorsement.
    pub(super) fn sign(
        &mut self,
        node: &mut Node<'_, Message>,
        to: NodeId,
        operation: OperationId,
        statement: Statement,
        now: u64,
    ) {
        self.shared.disks.borrow_mut().recorded(node.id(), now);
        let endorsement = statement.endorse(node.id(), &member_key(node.id()), now);
        let statement = Box::new(statement);
        let endorsed = Message::Endorsed {
            operation,
            statement,
            endorsement,
        };
        node.send(to, endorsed);
    }

    /// Contributes with the shares that its own state names, if the coordinator's names the same.
    fn contribute(
        &mut self,
        node: &mut Node<'_, Message>,
        from: NodeId,
        operation: OperationId,
        request: &RawRequest,
        session: Session,
        view: View,
    ) {
        let Some(allowed) = self.judge(node, request, operation, view, true) else {
            self.shared.history.borrow_mut().counts.refused += 1;
            return;
        };
        let Intent::Use { record, .. } = allowed.judgement.intent else {
            return;
        };
        let live = record.session;
        if live != session {
            self.shared.history.borrow_mut().counts.epochs += 1;
            if !self.has(Bug::UncheckedEpochs) {
                return;
            }
        }
        let mut disks = self.shared.disks.borrow_mut();
        if disks.has(node.id(), &live) {
            disks.recorded(node.id(), allowed.now);
            let session = live;
            node.send(from, Message::Contributed { operation, session });
        }
    }

    /// Takes part in a renewal if these are the keys' shares; the new ones are on disk before it signs. Where keys move, who
    /// holds them deals, and who is to hold them signs.
    fn take_part(
        &self,
        node: &Node<'_, Message>,
        operation: OperationId,
        (keystore, keys, start): (LocalId, Vec<(LocalId, Session)>, u64),
        view: &View,
    ) -> Option<Part> {
        let now = self
            .time(node)
            .filter(|now| now.abs_diff(start) <= CLOCK_SPREAD)?;
        let stored = query::keystore(view, &keystore).ok()??;
        let members = self.shared.rosters.of(view).ok()?.births().clone();
        let mut renewed = Vec::new();
        let mut deals = true;
        let mut before = None;
        for (key, replaces) in keys {
            let record = query::key(view, &keystore, &key).ok()??;
            let of_others = before.is_some_and(|before| before != record.committee);
            if record.session != replaces || of_others {
                return None;
            }
            before = Some(record.committee);
            deals &= self.shared.disks.borrow().has(node.id(), &record.session);
            renewed.push(next(&record, key, session_of(&operation, &key))?);
        }
        if members.member(node.id()).is_none() {
            let signs = None;
            return Some(Part { deals, signs, now });
        }
        for new in &renewed {
            let shares = Shares {
                keystore,
                key: new.key,
                epoch: new.epoch,
                session: new.session,
            };
            self.shared.disks.borrow_mut().store(node.id(), shares);
        }
        let command = Command::RenewShares(Box::new(RenewedShares {
            keystore,
            start,
            configuration: members.index,
            participants: members.nodes(),
            keys: renewed,
        }));
        let statement = Statement {
            cluster: [0; 32],
            group: KEYSTORES.0,
            operation,
            request: request_hash(&[]),
            name: [0; 32],
            expires: start,
            command,
            state_version: stored.version,
            chain: Vec::new(),
        };
        let signs = Some(statement);
        Some(Part { deals, signs, now })
    }
}

/// The same key in its next epoch.
fn next(record: &KeyRecord, key: LocalId, session: Session) -> Option<RenewedKey> {
    let (_, public_key) = record.material.pair()?;
    Some(RenewedKey {
        key,
        replaces: record.session,
        epoch: record.epoch + 1,
        session,
        transcript: [0; 32],
        material: material(session, *public_key),
    })
}

/// The group that a question concerns, and the keystore, if it names one.
fn place_of(question: &Question) -> Option<(GroupId, Option<LocalId>)> {
    let request = match question {
        Question::Change { request, .. } | Question::Use { request, .. } => request,
        Question::Renew { keystore, .. } => return Some((KEYSTORES, Some(*keystore))),
    };
    let route = Route::parse(&request.method, &request.target)?;
    let keystore = route.keystore().and_then(|named| named.id);
    match route {
        Route::CreateMeter => Some((METERS, None)),
        _ => Some((KEYSTORES, keystore)),
    }
}
