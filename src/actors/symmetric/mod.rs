//! Symmetric keys on one node: what it shares with its peers for garbling, what it has garbled, what streams to it.
//!
//! The protocol is `conclave-garbled`; here are its messages. Tables go over the bulk lane in segments, no more of them under
//! way than the evaluator has taken; the last message of each garbler is the answer to the question that it was asked, so
//! that a refusal needs no message of its own.

pub(crate) mod aborts;
pub(crate) mod evaluate;
pub(crate) mod garble;
pub(crate) mod pairing;
pub(crate) mod refreshing;
pub(crate) mod resharing;
pub(crate) mod sealed;
pub(crate) mod stream;
pub(crate) mod tasks;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use conclave_garbled::burned::Burned;
use conclave_garbled::held::{Held, inner_digest};
use conclave_garbled::pairs::Pairs;
use conclave_garbled::session::Task;
use conclave_shares::ShareId;
use parking_lot::Mutex;
use rand::rngs::OsRng;

use self::aborts::Aborts;
use self::stream::Streams;
use super::holder::births::Births;
use super::parts::{OpenError, Parts};
use crate::identifier::LocalId;
use crate::keystore::KeyRecord;
use crate::operation::judge::Using;
use crate::overload::Overloaded;

/// How long a garbler that failed is asked after others.
const COOL_OFF: Duration = Duration::from_secs(10);
/// Opened keys are dropped from memory when this many are open.
const MAX_OPEN: usize = 4_096;

/// This node's memory of symmetric keys' operations.
pub struct Symmetric {
    /// What it shares with each peer.
    pub(crate) pairs: Mutex<Pairs>,
    /// What it has garbled.
    pub(crate) burned: Mutex<Burned>,
    /// What streams to and from it.
    pub(crate) streams: Streams,
    /// Keys that are being born.
    pub(crate) births: Mutex<Births>,
    /// Who has aborted.
    pub(crate) aborts: Mutex<Aborts>,
    numbers: AtomicU64,
    /// When a garbler last failed this node.
    failures: Mutex<HashMap<u64, Instant>>,
    /// When links were lost.
    lost: Mutex<HashMap<u64, Instant>>,
    started: Instant,
    open: Mutex<HashMap<ShareId, Arc<Held>>>,
}

impl Symmetric {
    /// For a node in this life of its.
    pub fn new(cluster: [u8; 32], node: u64, boot: [u8; 16]) -> Self {
        Self {
            pairs: Mutex::new(Pairs::new(cluster, node, boot, &mut OsRng)),
            burned: Mutex::default(),
            streams: Streams::default(),
            births: Mutex::default(),
            aborts: Mutex::default(),
            numbers: AtomicU64::new(0),
            failures: Mutex::default(),
            lost: Mutex::default(),
            started: Instant::now(),
            open: Mutex::default(),
        }
    }

    /// A garbler has failed: others are asked first for a while.
    pub(crate) fn failed(&self, node: u64) {
        self.failures.lock().insert(node, Instant::now());
    }

    /// Whether a garbler has failed lately.
    pub(crate) fn has_failed(&self, node: u64) -> bool {
        let failures = self.failures.lock();
        failures.get(&node).is_some_and(|at| at.elapsed() < COOL_OFF)
    }

    /// A link was lost.
    pub(crate) fn disconnected(&self, node: u64) {
        self.lost.lock().insert(node, Instant::now());
    }

    /// How long ago a node's link was lost, or this node started.
    pub(crate) fn lost_for(&self, node: u64) -> Duration {
        self.lost.lock().get(&node).unwrap_or(&self.started).elapsed()
    }

    /// A key's part of an earlier epoch is gone.
    pub(crate) fn forget(&self, id: &ShareId) {
        self.open.lock().remove(id);
    }

    /// The number of this node's next garbling as an evaluator.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// This node's part of a key and what a use of it computes. In the pool unless it is quick: the first of a key reads the
/// disk, the first of its length builds a program.
///
/// # Errors
/// The pool is overloaded; or [`OpenError`].
pub(crate) async fn prepare(
    parts: &Arc<Parts>,
    (keystore, key): (&LocalId, &LocalId),
    record: &KeyRecord,
    using: &Using,
) -> Result<Result<(Arc<Held>, Option<Task>), OpenError>, Overloaded> {
    let id = Parts::share_id(keystore, key, record);
    if tasks::is_quick(using)
        && let Some(held) = parts.symmetric.open.lock().get(&id)
    {
        return Ok(Ok((held.clone(), tasks::task(using, held.inner.as_ref()))));
    }
    let prepare = {
        let (parts, record, using) = (parts.clone(), record.clone(), using.clone());
        let (keystore, key) = (*keystore, *key);
        move || {
            let held = open(&parts, (&keystore, &key), &record)?;
            tasks::warm(&held);
            let task = tasks::task(&using, held.inner.as_ref());
            Ok((held, task))
        }
    };
    parts.pool.run(prepare).await
}

/// Whether this node's part of a symmetric key has arrived; a part that cannot be opened has.
pub(crate) async fn has_part(
    parts: &Arc<Parts>,
    (keystore, key): (&LocalId, &LocalId),
    record: &KeyRecord,
) -> bool {
    let open = {
        let (parts, record, keystore, key) = (parts.clone(), record.clone(), *keystore, *key);
        move || open(&parts, (&keystore, &key), &record)
    };
    !matches!(parts.pool.run(open).await, Ok(Err(OpenError::NoShare)))
}

/// Opens this node's part of a symmetric key; blocks on the disk the first time.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn open(
    parts: &Parts,
    (keystore, key): (&LocalId, &LocalId),
    record: &KeyRecord,
) -> Result<Arc<Held>, OpenError> {
    let id = Parts::share_id(keystore, key, record);
    if let Some(open) = parts.symmetric.open.lock().get(&id) {
        return Ok(open.clone());
    }
    let Some(sealed) = parts.shares.get(&id)? else {
        parts.wake.notify_one();
        return Err(OpenError::NoShare);
    };
    let held = Held::from_bytes(sealed.expose()).map_err(|_| OpenError::Unfit)?;
    let sharing = record.material.sharing().ok_or(OpenError::Unfit)?;
    let key_name = super::holder::key_name(keystore, key);
    let birthplace = record.birthplace(parts.cluster());
    let name = tasks::name(birthplace, &key_name, record.epoch, tasks::LIVE);
    let inner = held.inner.as_ref().map(|inner| inner_digest(&name, inner));
    let place = (
        u8::try_from(sharing.holders.len()).unwrap_or(0),
        sharing.number(parts.node).unwrap_or(0),
    );
    let fits = held.share.place() == place
        && held.share.verify(&name, &sharing.pieces).is_ok()
        && inner == sharing.inner;
    if !fits {
        return Err(OpenError::Unfit);
    }
    let held = Arc::new(held);
    let mut open = parts.symmetric.open.lock();
    if open.len() >= MAX_OPEN {
        open.clear();
    }
    open.insert(id, held.clone());
    Ok(held)
}
