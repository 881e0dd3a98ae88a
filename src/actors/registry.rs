//! Finds the actor of a keystore, makes it when there is none, and makes it anew when it has ended or panicked.
//! Requests that concern no keystore are served here directly.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use actix::dev::channel::channel;
use actix::prelude::*;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::coordinator::{Caller, Work, busy, outside, receipt};
use super::examined::Examined;
use super::holder;
use super::keystore::{Ask, KeystoreActor, MAILBOX};
use super::metrics::OfNode;
use super::parts::Parts;
use super::stages::Stage;
use super::wire::{Abstention, Answer, Call};
use crate::authorization::RawRequest;
use crate::format::Format;
use crate::identifier::{LocalId, OperationId};
use crate::operation::route::Route;
use crate::overload::{At, Class, Overloaded, Place, Shares, Turn};
use crate::problem::Problem;
use crate::reply::Reply;

/// Actors beyond this many make room for new ones by being forgotten: those that are busy end when they are done.
const MAX_ACTORS: usize = 50_000;

type Actors = HashMap<LocalId, Addr<KeystoreActor>>;

/// All keystore actors of this node.
pub struct Registry {
    parts: Arc<Parts>,
    actors: Mutex<Actors>,
    arbiters: Vec<ArbiterHandle>,
    /// Clients' requests under way, also those whose client has gone: by keystore.
    under_way: Shares<LocalId>,
}

impl Registry {
    /// A registry whose actors live on `arbiters`, which must not be empty; so many `requests` of clients are under way
    /// at once, those of one keystore at most half of them and no more than are left.
    pub fn new(parts: Arc<Parts>, arbiters: Vec<ArbiterHandle>, requests: usize) -> Self {
        Self {
            parts,
            actors: Mutex::new(HashMap::new()),
            arbiters,
            under_way: Shares::new(requests, requests / 2),
        }
    }

    /// Clients' requests under way.
    pub fn under_way(&self) -> usize {
        self.under_way.taken()()
    }

    /// Names a peer that has asked for more at once than this node answers it.
    pub(super) fn peer_shed(&self, node: u64, class: Class) {
        self.parts.metrics.shed.count(At::Peer, class);
        let named = self.parts.metrics.busy.get_or_create(&OfNode { node }).inc();
        // Once for many: the log is no queue.
        if named.is_multiple_of(1_024) {
            tracing::warn!(
                node,
                class = class.name(),
                "a peer asks more than this node answers it at once"
            );
        }
    }

    /// Notes that a request of this class was refused at the edge.
    pub fn shed(&self, at: At, class: Class) {
        self.parts.metrics.shed.count(at, class);
    }

    /// Actors that live.
    pub fn len(&self) -> usize {
        self.actors
            .lock()
            .values()
            .filter(|actor| actor.connected())
            .count()
    }

    /// Whether none lives.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A name for the next request: what all nodes' logs and records call it.
    pub fn next_operation(&self) -> OperationId {
        self.parts.next_operation()
    }

    /// Serves a client's request under a fresh name.
    ///
    /// # Errors
    /// What the client is told instead.
    pub async fn serve(
        &self,
        operation: OperationId,
        request: RawRequest,
        addresses: Vec<IpAddr>,
    ) -> Result<Reply, Problem> {
        let began = Instant::now();
        let served = self.serve_now(operation, request, addresses).await;
        self.parts.metrics.seconds.observe(began.elapsed().as_secs_f64());
        match &served {
            Ok(_) => self.parts.metrics.served.inc(),
            Err(_) => self.parts.metrics.refused.inc(),
        };
        served
    }

    /// Times the reading of a request.
    pub async fn reading<F: Future>(&self, read: F) -> F::Output {
        self.parts.metrics.stages.time(Stage::read, read).await
    }

    /// Whether a request is worth its body: asked for a client that waits to be told (`Expect: 100-continue`).
    ///
    /// # Errors
    /// What the client is told instead.
    pub fn admits(&self, head: &RawRequest) -> Result<(), Problem> {
        if matches!(Route::parse(&head.method, &head.target), Some(Route::GetKey(..))) {
            return Ok(());
        }
        let now = self.parts.now();
        let now = now.map_err(|error| Problem::unavailable(error.to_string()))?;
        Examined::of_head(head, &self.parts.rules, now)
    }

    async fn serve_now(
        &self,
        operation: OperationId,
        request: RawRequest,
        addresses: Vec<IpAddr>,
    ) -> Result<Reply, Problem> {
        let addresses: Arc<[IpAddr]> = addresses.into();
        let wants_receipt = receipt::is_wanted(&request);
        if let Some(Route::GetKey(keystore, key)) = Route::parse(&request.method, &request.target) {
            let (answer, answered) = oneshot::channel();
            let names = wants_receipt.then(|| (keystore.clone(), key.clone()));
            let Some(id) = keystore.id else {
                return super::coordinator::describe_key(&self.parts, &keystore, &key, &addresses).await;
            };
            let group = self.parts.group_of(&id);
            if self.parts.is_outside(group) {
                let _place = self.place(id, Class::Signatures)?;
                let asked = (&addresses[..], wants_receipt);
                return outside::describe(&self.parts, (group, operation), &request, asked).await;
            }
            self.tell(
                id,
                Ask::Describe {
                    keystore,
                    key,
                    addresses,
                    answer,
                },
            )?;
            let served = answered.await.unwrap_or_else(|_| Err(busy()));
            return match names {
                Some((keystore, key)) => {
                    receipt::with_description(&self.parts, (&keystore, &key), served).await
                }
                None => served,
            };
        }
        let now = self
            .parts
            .now()
            .map_err(|error| Problem::unavailable(error.to_string()))?;
        // On the HTTP worker, which has nothing to do for keystores: some 50 us, for which a way to the pool and back is
        // too dear. Chains that are not known yet are verified in the pool.
        let examine = async { Examined::of_client(&request, &self.parts.rules, now) };
        let examined = self.parts.metrics.stages.time(Stage::verify, examine).await;
        let request = Arc::new(examined?);
        if let Some(group) = outside::group_outside(&self.parts, &request, &operation) {
            let _place = match request.route.keystore().and_then(|named| named.id) {
                Some(id) => Some(self.place(id, request.class())?),
                None => None,
            };
            let asked = (&addresses[..], wants_receipt);
            return outside::serve(&self.parts, (group, operation), &request, asked).await;
        }
        let asked = wants_receipt.then(|| request.clone());
        let served = match request.route.keystore().and_then(|named| named.id) {
            Some(id) => {
                // Only now, since anybody can write anybody's keystore into a path.
                let place = self.place(id, request.class())?;
                let (answer, answered) = oneshot::channel();
                self.tell(
                    id,
                    Ask::Serve {
                        operation,
                        request,
                        addresses,
                        place,
                        answer,
                    },
                )?;
                answered.await.unwrap_or_else(|_| Err(busy()))
            }
            None => {
                Work::new(&self.parts, operation, request, Caller::Client(addresses))
                    .serve()
                    .await
            }
        };
        match asked {
            Some(request) => receipt::with_change(&self.parts, &request, served).await,
            None => served,
        }
    }

    /// A place among what is under way for clients.
    fn place(&self, id: LocalId, class: Class) -> Result<Place<LocalId>, Problem> {
        self.under_way.enter(id, class).map_err(|why| {
            let at = match why {
                Overloaded::Share => At::Keystore,
                _ => At::Node,
            };
            self.parts.metrics.shed.count(at, class);
            Problem::from(why)
        })
    }

    /// Answers a question that this build cannot read; its format, if it is in none that this build speaks.
    pub fn cannot_read(&self, from: u64, unknown: Option<Format>) -> Answer {
        self.parts.cannot_read(from, unknown)
    }

    /// Answers another node's question, for which that one waits until `deadline`.
    pub async fn hold(&self, from: u64, call: Call, deadline: Instant) -> Answer {
        let keystore = call.forwarded().and_then(|forwarded| {
            let request = RawRequest::decode(&forwarded.request).ok()?;
            Route::parse(&request.method, &request.target)?.keystore()?.id
        });
        let turn = Turn::default().until(deadline);
        let Some(id) = keystore else {
            return turn.scope(holder::answer(&self.parts, from, call)).await;
        };
        let (answer, answered) = oneshot::channel();
        if self
            .tell(
                id,
                Ask::Hold {
                    from,
                    call: Box::new(call),
                    turn: turn.of_keystore(id),
                    answer,
                },
            )
            .is_err()
        {
            return Answer::Abstained(Abstention::Busy);
        }
        answered.await.unwrap_or(Answer::Abstained(Abstention::Busy))
    }

    /// A segment of a garbled circuit.
    pub fn stream(&self, from: u64, frame: Bytes) {
        self.parts.symmetric.streams.receive(from, frame);
    }

    /// A peer's connection ended: what was drawn for it dies with it.
    pub fn disconnected(&self, peer: u64) {
        self.parts.nonces.lock().disconnected(peer);
        self.parts.symmetric.disconnected(peer);
    }

    /// Puts a message into a keystore's mailbox: never waits, never beyond its bound.
    pub(super) fn tell(&self, id: LocalId, ask: Ask) -> Result<(), Problem> {
        let mut actors = self.actors.lock();
        let mut ask = ask;
        // Twice: it may have ended a moment ago, idle or by a panic. The next one knows as much.
        for _ in 0..2 {
            // Always by the address that is kept: actix lets every clone of it put one message beyond the bound.
            match self.actor(&mut actors, id).try_send(ask) {
                Ok(()) => return Ok(()),
                Err(SendError::Full(_)) => return Err(busy()),
                Err(SendError::Closed(unsent)) => {
                    actors.remove(&id);
                    ask = unsent;
                }
            }
        }
        Err(busy())
    }

    fn actor<'a>(&self, actors: &'a mut Actors, id: LocalId) -> &'a Addr<KeystoreActor> {
        if !actors.get(&id).is_some_and(Addr::connected) {
            actors.remove(&id);
            if actors.len() >= MAX_ACTORS {
                actors.retain(|_, actor| actor.connected());
            }
            if actors.len() >= MAX_ACTORS {
                actors.clear();
            }
        }
        actors.entry(id).or_insert_with(|| {
            let arbiter = &self.arbiters[usize::from(id.0[0]) % self.arbiters.len()];
            let parts = self.parts.clone();
            // Bounded from the first message on; `start_in_arbiter` would begin with room for 16.
            let (sender, receiver) = channel(MAILBOX);
            arbiter.spawn_fn(move || {
                Context::with_receiver(receiver).run(KeystoreActor::new(id, parts));
            });
            Addr::new(sender)
        })
    }
}
