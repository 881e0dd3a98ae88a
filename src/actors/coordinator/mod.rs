//! What this node does with a request that reached it: reads, changes and uses. The coordinator is trusted with
//! nothing: every contribution and endorsement that it gathers was judged by the node that gave it.

mod batch;
mod birth;
mod blame;
mod change;
mod claim;
pub mod deliveries;
mod derive;
mod endorsements;
mod exchange;
mod gather;
mod generate;
pub mod moves;
pub mod order;
pub mod outside;
mod presence;
mod read;
pub mod receipt;
mod relay;
pub mod renewal;
mod sign;
mod symmetric;
pub mod upkeep;
mod using;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::{GroupId, ProposeError};
use conclave_transport::CallError;

use self::exchange::Exchange;
use self::using::{Target, Use};
use super::decide::{Asked, Declined, Purpose, Weighed, group_of, weigh};
use super::examined::Examined;
use super::parts::Parts;
use super::views::{GROUP_ZERO, believed};
use super::wire::{Abstention, Answer, Call, Forwarded};
use crate::identifier::OperationId;
use crate::keystore::{KeyType, KeystoreRecord, query};
use crate::operation::body;
use crate::operation::judge::{Intent, Using};
use crate::operation::route::{Named, Route};
use crate::overload::{Class, Turn};
use crate::problem::Problem;
use crate::reply::Reply;

pub use read::describe_key;
#[cfg(test)]
pub(crate) use symmetric::RESTART;

/// The node that the client reached owns the answer for this long; the client gives up at 10 s.
const DEADLINE: Duration = Duration::from_secs(8);
/// Times that a use begins anew because the key was renewed meanwhile; a holder takes four attempts in all.
const RENEWALS: u8 = 2;
/// Longest wait for a leader before a refusal that cannot be confirmed is a 503.
const CONFIRMATION: Duration = Duration::from_secs(3);

/// Who brought a request.
#[derive(Clone)]
pub enum Caller {
    /// A client, from these addresses, for the IP allow list.
    Client(Arc<[IpAddr]>),
    /// Another node that the client reached, and that holds no part of the key: it has compared the addresses.
    Node(u64),
    /// This node itself, which finishes what another one began.
    Itself,
}

impl Caller {
    /// Whether a keystore's allow list has one of its addresses.
    fn is_admitted(&self, record: &KeystoreRecord) -> bool {
        match self {
            Self::Client(addresses) => admits(record, addresses),
            Self::Node(_) | Self::Itself => true,
        }
    }
}

/// A client's request under way.
#[derive(Clone)]
pub struct Work {
    /// The node's parts.
    pub parts: Arc<Parts>,
    /// The request.
    pub request: Arc<Examined>,
    /// Its name.
    pub operation: OperationId,
    /// Who brought it.
    pub caller: Caller,
    /// When the client must have an answer.
    pub deadline: Instant,
    /// Set for an item of a batch.
    shared: Option<Shared>,
}

/// What an item shares with the other items of its batch.
#[derive(Clone)]
struct Shared {
    exchange: Arc<Exchange>,
    index: u8,
    /// Whose turn it is to be asked first.
    turn: u64,
}

impl Work {
    /// New work for a request that has just been authenticated, under a fresh name of this node's.
    pub fn new(parts: &Arc<Parts>, operation: OperationId, request: Arc<Examined>, caller: Caller) -> Self {
        Self {
            parts: parts.clone(),
            request,
            operation,
            caller,
            deadline: {
                let own = Instant::now() + DEADLINE;
                // Another node may have less left for it.
                Turn::current().deadline.map_or(own, |theirs| theirs.min(own))
            },
            shared: None,
        }
    }

    /// Asks a holder; the items of a batch ask together.
    async fn ask(&self, node: u64, call: &Call, timeout: Duration) -> Result<Answer, CallError> {
        match &self.shared {
            Some(shared) => shared.exchange.ask(shared.index, node, call, timeout).await,
            None => self.parts.ask(node, call, timeout).await,
        }
    }

    /// A question that is asked by itself, also if this is an item of a batch; [`Parts::alone`] reads its answer.
    fn question(&self, call: Call) -> Call {
        let shared = self.shared.as_ref();
        let item = shared.and_then(|shared| shared.exchange.alone(shared.index, &call));
        item.unwrap_or(call)
    }

    /// The same as an item of a batch, which travels as `forwarded`.
    pub(crate) fn into_item(self, forwarded: Forwarded, index: u8) -> Self {
        let exchange = Exchange::new(&self.parts, forwarded, 0);
        let shared = Shared {
            exchange: Arc::new(exchange),
            index,
            turn: self.operation.counter,
        };
        Self {
            shared: Some(shared),
            ..self
        }
    }

    /// A number that goes up with each request: who is asked first goes round with it.
    fn turn(&self) -> u64 {
        self.shared
            .as_ref()
            .map_or(self.operation.counter, |shared| shared.turn)
    }

    /// Serves it.
    ///
    /// # Errors
    /// What the client is told instead.
    pub async fn serve(self) -> Result<Reply, Problem> {
        let turn = self.turn_of(self.request.class());
        // Before anything is done for it here or elsewhere.
        if !self.request.route.reads() {
            self.parts.pool.admit(&turn)?;
        }
        turn.scope(self.serve_in_turn()).await
    }

    /// The turn of all that is done for it.
    pub(super) fn turn_of(&self, class: Class) -> Turn {
        let named = self.request.route.keystore().and_then(|named| named.id);
        let turn = Turn::default().of_class(class).until(self.deadline);
        named.map_or(turn, |keystore| turn.of_keystore(keystore))
    }

    async fn serve_in_turn(self) -> Result<Reply, Problem> {
        if let Some(named) = self.request.route.keystore().cloned() {
            self.check_address(&named).await?;
        }
        let changes = !matches!(
            self.request.route,
            Route::GetMeter(_)
                | Route::ListKeystores(_)
                | Route::GetKeystore(_)
                | Route::UseKey(..)
                | Route::Batch(_)
        );
        if changes && let Some((group, nodes)) = relay::deciders_elsewhere(&self)? {
            return relay::change_elsewhere(&self, group, nodes).await;
        }
        match &self.request.route {
            Route::GetMeter(_) | Route::ListKeystores(_) | Route::GetKeystore(_) => read::show(&self).await,
            Route::GenerateKey(_) if self.generates_symmetric() => birth::key(&self).await,
            Route::GenerateKey(_) => generate::key(&self).await,
            Route::UseKey(..) => self.use_key().await,
            Route::Batch(_) => batch::serve(&self).await,
            _ => change::apply(&self).await,
        }
    }

    /// Whether the request names a symmetric key's type; it is judged afterwards.
    fn generates_symmetric(&self) -> bool {
        let body = self.request.authenticated.body_json.as_ref();
        let new = body.and_then(|body| body::new_key(body).ok());
        new.is_some_and(|new| new.key_type.is_ok_and(KeyType::is_symmetric))
    }

    async fn use_key(&self) -> Result<Reply, Problem> {
        let mut weighed = self.weigh(Purpose::Contribute).await?;
        let mut renewal = 0;
        while let Some(holders) = relay::holders_elsewhere(self, &weighed).await? {
            if let Some(reply) = Box::pin(relay::use_elsewhere(self, &weighed, holders)).await? {
                return Ok(reply);
            }
            if renewal == RENEWALS {
                return Err(busy());
            }
            (weighed, _) = self.look_again(renewal).await?;
            renewal += 1;
        }
        if self.request.has_secret_result() {
            claim::claim(self, std::iter::once(&*self.request)).await;
        }
        self.use_weighed(weighed).await
    }

    /// Uses the key; a request whose result is secret has been claimed.
    async fn use_weighed(&self, mut weighed: Weighed) -> Result<Reply, Problem> {
        let (mut target, using) = target_of(&weighed)?;
        if target.record.material.sharing().is_some() {
            // The path did not say so.
            let turn = self.turn_of(Class::Symmetric);
            self.parts.pool.admit(&turn)?;
            return turn
                .scope(symmetric::use_key(self, weighed, target, &using))
                .await;
        }
        let mut holders = None;
        for renewal in 0..=RENEWALS {
            let mut under_way = Use::new(self, weighed, &target, holders.take()).await?;
            let answer = match &using {
                Using::Sign(message) => sign::sign(&mut under_way, message.clone()).await,
                Using::DeriveSecret(u) => derive::derive(&mut under_way, *u).await,
                _ => Err(busy()),
            };
            let ahead = under_way.holders.take_ahead().filter(|_| answer.is_err());
            let Some(node) = ahead.filter(|_| renewal < RENEWALS) else {
                return under_way.conclude(answer);
            };
            let mut left = under_way.holders;
            let (again, renewed) = self.look_again(renewal).await?;
            if renewed.record.epoch == target.record.epoch {
                tracing::warn!(node, "a holder says that a key was renewed, and it was not");
                left.exclude(node);
            }
            (weighed, target, holders) = (again, renewed, Some(left));
        }
        Err(busy())
    }

    /// A holder knows another epoch of the key: this node applies what was acknowledged, and judges again.
    async fn look_again(&self, renewal: u8) -> Result<(Weighed, Target), Problem> {
        self.confirm().await?;
        let asked = self.asked(Purpose::Contribute, 3 + renewal);
        let weighed = weigh(&self.parts, &self.request, asked).await;
        let weighed = weighed.map_err(problem_of)?;
        let (target, _) = target_of(&weighed)?;
        Ok((weighed, target))
    }

    fn asked(&self, purpose: Purpose, attempt: u8) -> Asked {
        Asked {
            purpose,
            operation: self.operation,
            attempt,
            coordinator: self.parts.node,
            needs: Vec::new(),
            participants: vec![self.parts.node],
            epoch: None,
        }
    }

    /// This node's own judgement. A refusal is confirmed before it is believed: a ReadIndex for the groups that it
    /// rests on, then another look.
    async fn weigh(&self, purpose: Purpose) -> Result<Weighed, Problem> {
        match weigh(&self.parts, &self.request, self.asked(purpose, 1)).await {
            Ok(weighed) => Ok(weighed),
            Err(Declined::Refused(problem)) if rests_on_state(&problem) => {
                self.confirm().await?;
                // The same attempt is judged again: for the replay rule it is the one that was just seen.
                let again = self.asked(purpose, 2);
                weigh(&self.parts, &self.request, again).await.map_err(problem_of)
            }
            Err(declined) => Err(problem_of(declined)),
        }
    }

    /// Applies everything that was acknowledged before now in the groups that the request rests on.
    ///
    /// # Errors
    /// 503 without a leader for 3 s.
    async fn confirm(&self) -> Result<(), Problem> {
        let group = group_of(&self.parts, &self.request, &self.operation);
        let rests_on_meter = matches!(self.request.route, Route::CreateKeystore);
        let groups = [Some(group), rests_on_meter.then_some(GROUP_ZERO)];
        for group in groups.into_iter().flatten() {
            confirm_group(&self.parts, group).await?;
        }
        Ok(())
    }

    fn forwarded(&self, attempt: u8, group: GroupId, participants: Vec<u64>) -> Forwarded {
        let mut needs = vec![(group.0, self.parts.consensus.applied_index(group))];
        if matches!(self.request.route, Route::CreateKeystore | Route::CreateMeter) {
            needs.push((GROUP_ZERO.0, self.parts.consensus.applied_index(GROUP_ZERO)));
        }
        let request = self.request.encoded.clone();
        Forwarded {
            operation: self.operation,
            attempt,
            request,
            needs,
            participants,
            epoch: None,
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The IP allow list is the one rule that holders cannot check: this node reached the client.
    async fn check_address(&self, named: &Named) -> Result<(), Problem> {
        let Some(id) = named.id else { return Ok(()) };
        let group = self.parts.group_of(&id);
        let stored = || -> Result<Option<KeystoreRecord>, Problem> {
            let view = self.parts.consensus.view(group).map_err(|_| busy())?;
            query::keystore(&view, &id).map_err(|_| busy())
        };
        let admits = |record: &Option<KeystoreRecord>| {
            record
                .as_ref()
                .is_none_or(|record| self.caller.is_admitted(record))
        };
        if admits(&stored()?) {
            return Ok(());
        }
        confirm_group(&self.parts, group).await?;
        if admits(&stored()?) {
            Ok(())
        } else {
            Err(address_denied())
        }
    }
}

/// The key that a judged request uses, and for what.
fn target_of(weighed: &Weighed) -> Result<(Target, Using), Problem> {
    match weighed.judgement.intent.clone() {
        Intent::Use {
            keystore,
            key,
            record,
            using,
        } => {
            let target = Target {
                keystore,
                key,
                record,
            };
            Ok((target, using))
        }
        _ => Err(Problem::malformed("This request uses no key.")),
    }
}

/// Whether a keystore's allow list has one of these addresses.
pub(crate) fn admits(record: &KeystoreRecord, addresses: &[IpAddr]) -> bool {
    let Some(list) = &record.config.ip_allow_list else {
        return true;
    };
    let blocks: Vec<ipnet::IpNet> = list.iter().filter_map(|block| block.parse().ok()).collect();
    addresses.iter().any(|address| {
        let address = address.to_canonical();
        blocks.iter().any(|block| block.contains(&address))
    })
}

pub(crate) fn address_denied() -> Problem {
    Problem::denied("Permission denied. Source IP is not allowed.")
}

/// One ReadIndex.
///
/// # Errors
/// 503 without a leader for 3 s, or while this node's state is one node's word.
pub(crate) async fn confirm_group(parts: &Parts, group: GroupId) -> Result<(), Problem> {
    believed(parts, group)?;
    let deadline = Instant::now() + CONFIRMATION;
    match parts.consensus.read_index(group, deadline).await {
        Ok(_) => Ok(()),
        Err(_) => Err(Problem::unavailable(
            "The cluster has no leader for this keystore at the moment; try again.",
        )),
    }
}

/// 503: this node has no room.
pub(crate) fn busy() -> Problem {
    Problem::unavailable("This node is overloaded or not ready; try again, or another node.")
}

/// Whether more of the replicated state could turn this refusal into a grant.
fn rests_on_state(problem: &Problem) -> bool {
    match problem.status {
        403 | 404 => true,
        409 => problem.name == "InvalidStateError",
        _ => false,
    }
}

fn problem_of(declined: Declined) -> Problem {
    match declined {
        Declined::Refused(problem) => *problem,
        Declined::Repeat => Problem::replayed(),
        Declined::Abstained(Abstention::Busy) => busy(),
        Declined::Abstained(abstention) => Problem::unavailable(format!(
            "This node cannot decide now ({abstention}); try another node."
        )),
    }
}

fn propose_problem(error: ProposeError) -> Problem {
    match error {
        ProposeError::Busy(_) => busy(),
        ProposeError::TooLong => Problem::new(413, "QuotaExceededError", "Content is too large."),
        _ => Problem::unavailable(
            "The change could not be committed in time; its outcome is unknown. Look before you repeat it.",
        ),
    }
}
