//! Uses of a key: the coordinator names the shares that its own state names, and a quorum contributes with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use conclave::identifier::{LocalId, OperationId};
use conclave::keystore::query;
use conclave::membership::Membership;
use conclave_consensus::NodeId;
use conclave_simulator::Node;
use rand::Rng;
use rand::seq::{IteratorRandom, SliceRandom};

use super::{Clerk, KEYSTORES, Message, Use, seconds};
use crate::clients::{self, DELEGATE};
use crate::history::Tenant;
use crate::register::{Answer, Call, Session};

/// Who asks, and why it must not be granted.
struct Asking {
    client: u64,
    /// The sequence at which the controller behind it controls the keystore.
    by: u64,
    delegated: Option<(String, serde_json::Value)>,
    forbidden: Option<String>,
}

impl Asking {
    fn as_controller(tenant: &Tenant, client: u64) -> Self {
        let handed_on = client < tenant.sequence;
        Self {
            client,
            by: client,
            delegated: None,
            forbidden: handed_on.then(|| format!("client {client} had handed the keystore on")),
        }
    }

    fn draw(tenant: &Tenant, sequence: u64, node: &mut Node<'_, Message>) -> Self {
        match tenant.delegated.choose(node.rng()) {
            Some(delegated) if node.rng().gen_bool(0.6) => {
                let (id, by) = (&delegated.id, delegated.by);
                let forbidden = if tenant.revoked.contains(id) {
                    Some(format!("{id} was acknowledged as revoked"))
                } else if by < tenant.sequence {
                    Some(format!("its delegator {by} had handed the keystore on"))
                } else {
                    delegated.expired.then(|| format!("{id} had expired"))
                };
                Self {
                    client: DELEGATE,
                    by,
                    delegated: Some((id.clone(), delegated.capability.clone())),
                    forbidden,
                }
            }
            _ => Self::as_controller(tenant, sequence.saturating_sub(node.rng().gen_range(0..2))),
        }
    }
}

impl Clerk {
    /// Asks a quorum; as an errand everybody, by who controls the keystore.
    pub(super) fn start_use(&mut self, node: &mut Node<'_, Message>, keystore: LocalId, errand: Option<u64>) {
        let nonce = self.number() << 8 | node.id();
        let sequence = self.sequence(node, &keystore);
        let (key, asking, invoked) = {
            let mut history = self.shared.history.borrow_mut();
            let invoked = history.moment();
            let Some(tenant) = history.keystores.get(&keystore) else {
                return;
            };
            let Some(key) = tenant.keys.iter().choose(node.rng()).copied() else {
                return;
            };
            let asking = match errand {
                Some(_) => Asking::as_controller(tenant, sequence),
                None => Asking::draw(tenant, sequence, node),
            };
            (key, asking, invoked)
        };
        let Some((session, committee)) = self.holders(node, &keystore, &key) else {
            return;
        };
        let capability = asking.delegated.as_ref().map(|(_, capability)| capability);
        let request = clients::sign(&keystore, &key, asking.client, capability, nonce, seconds(node));
        let operation = self.operation(node);
        let quorum = committee.quorum();
        let mut holders = committee.nodes();
        holders.shuffle(node.rng());
        if errand.is_none() {
            holders.truncate(quorum);
        }
        let call = Call::Use {
            key,
            session,
            by: asking.by,
            capability: asking.delegated.map(|(id, _)| id),
        };
        let begun = Use {
            quorum,
            contributed: BTreeMap::new(),
            forbidden: asking.forbidden,
            keystore,
            call,
            invoked,
            errand,
        };
        self.uses.insert(operation, begun);
        for holder in holders {
            let request = request.clone();
            let question = Message::Use {
                operation,
                request,
                session,
            };
            node.send(holder, question);
        }
    }

    /// The shares of a key, and who hold them, as far as this node has applied.
    fn holders(
        &self,
        node: &Node<'_, Message>,
        keystore: &LocalId,
        key: &LocalId,
    ) -> Option<(Session, Arc<Membership>)> {
        let view = node.freshness().view(KEYSTORES).ok()?;
        let record = query::key(&view, keystore, key).ok()??;
        let committee = self.shared.rosters.numbered(&view, record.committee).ok()?;
        Some((record.session, committee))
    }

    pub(super) fn contributed(
        &mut self,
        node: &mut Node<'_, Message>,
        from: NodeId,
        operation: OperationId,
        session: Session,
    ) {
        let Some(used) = self.uses.get_mut(&operation) else {
            return;
        };
        used.contributed.insert(from, session);
        if used.contributed.len() < used.quorum {
            return;
        }
        let Some(used) = self.uses.remove(&operation) else {
            return;
        };
        let mut history = self.shared.history.borrow_mut();
        history.counts.granted += 1;
        let at = history.moment();
        let mut sessions: BTreeSet<Session> = used.contributed.values().copied().collect();
        if let Call::Use { session, .. } = &used.call {
            // What the coordinator adds of its own is of the shares that it named.
            sessions.insert(*session);
        }
        if let Some(tenant) = history.keystores.get_mut(&used.keystore) {
            let place = tenant.called(used.call, used.invoked);
            tenant.answered(place, at, Some(Answer::Done));
        }
        drop(history);
        if sessions.len() > 1 {
            node.violation("partial results of two epochs were added up");
        }
        if let Some(reason) = used.forbidden {
            node.violation(format!("a use was granted although {reason}"));
        }
        if let Some(number) = used.errand {
            node.achieved(number);
        }
    }
}
