//! The actor of one keystore on this node: everything that happens to the keystore here goes through its mailbox,
//! the client's requests and other nodes' questions alike. It keeps what is under way in an explicit map, refuses
//! beyond its bounds, and ends when it has been idle; it holds nothing that the replicated state could not rebuild.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::oneshot;
use tracing::Instrument;

use super::coordinator::{Caller, Work, describe_key};
use super::examined::Examined;
use super::holder;
use super::parts::Parts;
use super::wire::{Abstention, Answer, Call};
use crate::identifier::{LocalId, OperationId};
use crate::operation::route::Named;
use crate::overload::{At, Class, Overloaded, Place, Turn};
use crate::problem::Problem;
use crate::reply::Reply;
use crate::telemetry::logs::request_span;

/// Messages that wait for the actor.
pub const MAILBOX: usize = 1_024;
/// Clients' requests under way in one keystore, and other nodes' questions: apart, since what clients began on other
/// nodes must be finished here, or nodes full of clients would have no room for each other.
const IN_FLIGHT: usize = 1_024;
/// Idle time after which the actor ends.
const PASSIVATION: Duration = Duration::from_secs(60);
/// Shortest time until it is looked at again.
const LOOK: Duration = Duration::from_secs(1);

/// What a keystore's actor is asked; the answer goes to the sender inside.
#[derive(Message)]
#[rtype(result = "()")]
pub enum Ask {
    /// A client's request.
    Serve {
        /// Its name.
        operation: OperationId,
        /// Authenticated.
        request: Arc<Examined>,
        /// For the allow list.
        addresses: Arc<[IpAddr]>,
        /// Its place among what is under way.
        place: Place<LocalId>,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<Reply, Problem>>,
    },
    /// A client reads a key's description.
    Describe {
        /// The keystore as named in the path.
        keystore: Named,
        /// The key as named in the path.
        key: Named,
        /// For the allow list.
        addresses: Arc<[IpAddr]>,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<Reply, Problem>>,
    },
    /// Another node's question.
    Hold {
        /// Its TLS identity.
        from: u64,
        /// The question.
        call: Box<Call>,
        /// Until when it waits.
        turn: Turn,
        /// Where the answer goes.
        answer: oneshot::Sender<Answer>,
    },
    /// A panic, to see that it costs this keystore a moment and no other anything.
    #[cfg(test)]
    Panic,
    /// As if the actor had been idle for so long, and looked.
    #[cfg(test)]
    Idle(Duration),
}

/// What is under way.
#[derive(PartialEq, Eq)]
enum UnderWay {
    Client,
    Peer,
}

/// The actor.
pub struct KeystoreActor {
    id: LocalId,
    parts: Arc<Parts>,
    under_way: HashMap<u64, UnderWay>,
    next: u64,
    last: Instant,
}

impl KeystoreActor {
    /// Not started yet.
    pub fn new(id: LocalId, parts: Arc<Parts>) -> Self {
        Self {
            id,
            parts,
            under_way: HashMap::new(),
            next: 0,
            last: Instant::now(),
        }
    }

    /// Ends the actor if it has been idle, else looks again when it could have been: one timer a minute, because there
    /// may be many actors.
    fn look(&mut self, context: &mut Context<Self>) {
        let idle = self.last.elapsed();
        if self.under_way.is_empty() && idle >= PASSIVATION {
            tracing::debug!(keystore = %self.id, "passivated");
            context.stop();
            return;
        }
        let left = PASSIVATION.saturating_sub(idle).max(LOOK);
        context.run_later(left, Self::look);
    }

    /// Runs `work` beside other work; its entry in the map goes when it ends.
    /// Whether no more of this kind is taken.
    fn is_full(&self, kind: &UnderWay) -> bool {
        // Counted one by one only when there are many in all.
        self.under_way.len() >= IN_FLIGHT
            && self.under_way.values().filter(|other| *other == kind).count() >= IN_FLIGHT
    }

    fn run(&mut self, kind: UnderWay, work: Pin<Box<dyn Future<Output = ()>>>, context: &mut Context<Self>) {
        let ticket = self.next;
        self.next += 1;
        self.under_way.insert(ticket, kind);
        let ended = work.into_actor(self).map(move |(), actor, _| {
            actor.under_way.remove(&ticket);
            actor.last = Instant::now();
        });
        context.spawn(ended);
    }
}

impl Actor for KeystoreActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_later(PASSIVATION, Self::look);
    }
}

impl Handler<Ask> for KeystoreActor {
    type Result = ();

    fn handle(&mut self, ask: Ask, context: &mut Self::Context) {
        self.last = Instant::now();
        let parts = self.parts.clone();
        match ask {
            // A caller that has gone needs no answer: every send below may fail.
            Ask::Serve { answer, .. } | Ask::Describe { answer, .. } if answer.is_closed() => {}
            Ask::Hold { answer, .. } if answer.is_closed() => {}
            Ask::Serve { answer, request, .. } if self.is_full(&UnderWay::Client) => {
                parts.metrics.shed.count(At::Keystore, request.class());
                let _ = answer.send(Err(Overloaded::Share.into()));
            }
            Ask::Describe { answer, .. } if self.is_full(&UnderWay::Client) => {
                parts.metrics.shed.count(At::Keystore, Class::Signatures);
                let _ = answer.send(Err(Overloaded::Share.into()));
            }
            Ask::Hold { answer, call, .. } if self.is_full(&UnderWay::Peer) => {
                parts.metrics.shed.count(At::Keystore, call.class());
                let _ = answer.send(Answer::Abstained(Abstention::Busy));
            }
            Ask::Serve {
                operation,
                request,
                addresses,
                place,
                answer,
            } => {
                let work = async move {
                    let caller = Caller::Client(addresses);
                    let served = Work::new(&parts, operation, request, caller).serve().await;
                    drop(place);
                    let _ = answer.send(served);
                };
                let work = work.instrument(request_span(&operation.request_id()));
                self.run(UnderWay::Client, Box::pin(work), context);
            }
            Ask::Describe {
                keystore,
                key,
                addresses,
                answer,
            } => {
                let work = async move {
                    let _ = answer.send(describe_key(&parts, &keystore, &key, &addresses).await);
                };
                self.run(UnderWay::Client, Box::pin(work), context);
            }
            Ask::Hold {
                from,
                call,
                turn,
                answer,
            } => {
                let work = async move {
                    let answered = turn.scope(holder::answer(&parts, from, *call)).await;
                    let _ = answer.send(answered);
                };
                self.run(UnderWay::Peer, Box::pin(work), context);
            }
            #[cfg(test)]
            Ask::Panic => panic!("on purpose"),
            #[cfg(test)]
            Ask::Idle(time) => {
                self.last -= time;
                self.look(context);
            }
        }
    }
}
