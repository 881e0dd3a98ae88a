//! What every actor of a node uses: the cluster's crates, the node's keys, the rules. Made once by the composition
//! root, shared by reference.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use conclave_consensus::{Consensus, GroupId, Scope};
use conclave_shares::{ShareId, ShareStore};
use conclave_threshold::envelope::EnvelopeKey;
use conclave_threshold::frost::VerifyingContext;
use conclave_threshold::{Commitment, KeyShare};
use conclave_transport::{CallError, Network};
use ed25519_dalek::SigningKey;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::answers::Answers;
use super::census::Census;
use super::ceremonies::Ceremonies;
use super::crypto_pool::CryptoPool;
use super::denials::Denials;
use super::directory::Directory;
use super::heard::Heard;
use super::holder::nonces::DrawnNonces;
use super::metrics::{Metrics, OfNode};
use super::proposals::Proposals;
use super::receipts::Receipts;
use super::renewals::Renewals;
use super::symmetric::Symmetric;
use super::views::Stored;
use super::wire::{Abstention, Answer, Call, Progress};
use crate::audit::{self, AppendError, Audit, RefusalRate};
use crate::identifier::{LocalId, OperationId};
use crate::keystore::{Entry, KeyRecord, Lists, Outcome, Rejection};
use crate::membership::Member;
use crate::operation::judge::Rules;
use crate::overload::{At, Class, Turn};
use crate::replay::{Claims, ClockError, HolderClock, Moment, ReplayGuard};

/// Opened keys are dropped from memory when this many are open.
const MAX_OPEN_KEYS: usize = 4_096;

/// Between two looks whether the node is loaded still.
const LOOK: Duration = Duration::from_millis(100);

/// The parts of one node.
pub struct Parts {
    /// This node's id.
    pub node: u64,
    /// Drawn at this start.
    pub boot: [u8; 16],
    /// Who the members of groups are, by their states.
    pub rosters: Arc<Lists>,
    /// Everybody whom some group counts or will count among its members.
    pub directory: Directory,
    /// Members that this node's own files name: whom it links to before it has any state.
    pub introduced: Vec<Member>,
    /// Where a node is dialled in place of the address that the operators signed.
    pub addresses: BTreeMap<u64, String>,
    /// The cluster's own DID, shown with meters.
    pub service_id: String,
    /// How requests are judged.
    pub rules: Rules,
    /// Signs endorsements and ceremony messages.
    pub signing_key: SigningKey,
    /// Opens envelopes.
    pub envelope_key: EnvelopeKey,
    /// Raft.
    pub consensus: Consensus,
    /// The other nodes.
    pub network: Arc<dyn Network>,
    /// Sealed shares.
    pub shares: Arc<ShareStore>,
    /// The hash-chained record.
    pub audit: Audit,
    /// Limits how many refusals are recorded.
    pub refusals: Mutex<RefusalRate>,
    /// Seen requests.
    pub replays: Mutex<ReplayGuard>,
    /// Who may show which request.
    pub claims: Mutex<Claims>,
    /// Never runs back.
    pub clock: Mutex<HolderClock>,
    /// Computes.
    pub pool: CryptoPool,
    /// Proposals under way.
    pub proposals: Proposals,
    /// Endorsed denials.
    pub denials: Mutex<Denials>,
    /// Generations under way, as a participant.
    pub ceremonies: Mutex<Ceremonies>,
    /// What is remembered for receipts.
    pub receipts: Receipts,
    /// Renewals of shares.
    pub renewals: Mutex<Renewals>,
    /// Held alone by whoever removes shares, together by those who need all that there are.
    pub removal: RwLock<()>,
    /// Nonce pairs between two rounds.
    pub nonces: Mutex<DrawnNonces>,
    /// Bytes answered to an attempt, for a repeated frame.
    pub answers: Mutex<Answers>,
    /// Opened keys.
    pub open_keys: Mutex<HashMap<ShareId, Arc<OpenKey>>>,
    /// Wakes the task that fetches shares: a link came up, or a share is missed.
    pub wake: Arc<Notify>,
    /// Symmetric keys.
    pub symmetric: Symmetric,
    /// Counters and histograms.
    pub metrics: Metrics,
    /// Start of the monotonic clock.
    pub started: Instant,
    /// Milliseconds that a test lets pass at once on the monotonic clock of the replay rules.
    #[cfg(test)]
    pub passed: AtomicU64,
    /// Counts this boot's operations.
    pub operations: AtomicU64,
    /// What the last look at its keys has found.
    pub census: Mutex<Census>,
    /// What it has heard and seen of its peers.
    pub heard: Mutex<Heard>,
    /// How far the groups are of which this node has no part, by their members' word.
    pub elsewhere: Mutex<BTreeMap<GroupId, Progress>>,
}

/// A key of this node's with its share opened.
pub struct OpenKey {
    /// This node's share.
    pub share: KeyShare,
    /// The committed vector.
    pub commitment: Commitment,
    /// For signatures.
    pub context: Option<VerifyingContext>,
}

/// Why a key of ours cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The share has not arrived.
    #[error("there is no share of this key here yet")]
    NoShare,
    /// The store failed, or holds what was not written there.
    #[error(transparent)]
    Store(#[from] conclave_shares::Error),
    /// The record or the share cannot be decoded, or they do not fit each other.
    #[error("the share does not fit the key's commitment")]
    Unfit,
}

impl Parts {
    /// The system clock, ms since 1970.
    pub fn system_ms() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// The holder's clock, ms.
    ///
    /// # Errors
    /// When the system clock has run back.
    pub fn now(&self) -> Result<u64, ClockError> {
        self.clock.lock().now(Self::system_ms())
    }

    /// Both clocks.
    pub fn moment(&self, wall_ms: u64) -> Moment {
        let mono_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        #[cfg(test)]
        let mono_ms = mono_ms + self.passed.load(Ordering::Relaxed);
        Moment { mono_ms, wall_ms }
    }

    /// A name for a request that reached this node.
    pub fn next_operation(&self) -> OperationId {
        let counter = self.operations.fetch_add(1, Ordering::Relaxed) + 1;
        OperationId {
            node: self.node,
            boot: self.boot_number(),
            counter,
        }
    }

    /// Takes note of an entry that this node has applied; none of one that cannot be read, which changed nothing.
    pub fn applied(&self, entry: Option<&Entry>, outcome: &Outcome) {
        if let Outcome::Refused(Rejection::NotEndorsed(_)) = outcome {
            // Whoever leads can bring such an entry under any name: it decides nothing.
            self.metrics.unendorsed.inc();
            return;
        }
        let Some(entry) = entry else { return };
        self.receipts.applied(entry, outcome);
        if let Some(keystore) = entry.statement.command.keystore() {
            self.denials.lock().decided(&keystore, &entry.statement.operation);
        }
    }

    /// The boot nonce as operation ids carry it: its first 8 bytes.
    pub fn boot_number(&self) -> u64 {
        self.boot[..8]
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Puts something on this node's record, durable when this returns; the clock does not run back behind it.
    ///
    /// # Errors
    /// [`Abstention::Audit`] or [`Abstention::Busy`]: then nothing may be signed or contributed that rests on it.
    pub async fn record(&self, entry: audit::Entry) -> Result<(), Abstention> {
        let time = entry.time_ms;
        match self.audit.append(entry).await {
            Ok(_) => {
                self.clock.lock().recorded(time);
                Ok(())
            }
            Err(AppendError::Busy) => Err(Abstention::Busy),
            Err(error) => {
                tracing::error!(%error, "the audit record cannot be written: nothing is contributed");
                Err(Abstention::Audit)
            }
        }
    }

    /// The group of a keystore: 1 to G-1.
    pub fn group_of(&self, keystore: &LocalId) -> GroupId {
        GroupId(keystore.group(self.rules.groups))
    }

    /// The scope of a keystore in its group.
    pub fn scope_of(keystore: &LocalId) -> Scope {
        Scope(keystore.0)
    }

    /// The name of this node's share of a key.
    pub fn share_id(keystore: &LocalId, key: &LocalId, record: &KeyRecord) -> ShareId {
        ShareId {
            keystore: keystore.0,
            key: key.0,
            session: record.session,
            key_type: record.key_type.name().to_owned(),
            epoch: record.epoch,
        }
    }

    /// This node's share of a key, if it was opened before; does not block.
    pub fn opened_key(&self, keystore: &LocalId, key: &LocalId, record: &KeyRecord) -> Option<Arc<OpenKey>> {
        let id = Self::share_id(keystore, key, record);
        self.open_keys.lock().get(&id).cloned()
    }

    /// Opens this node's share of a key; blocks on the disk the first time.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_key(
        &self,
        keystore: &LocalId,
        key: &LocalId,
        record: &KeyRecord,
    ) -> Result<Arc<OpenKey>, OpenError> {
        if let Some(open) = self.opened_key(keystore, key, record) {
            return Ok(open);
        }
        let id = Self::share_id(keystore, key, record);
        let Some(sealed) = self.shares.get(&id)? else {
            self.wake.notify_one();
            return Err(OpenError::NoShare);
        };
        let share = KeyShare::from_bytes(sealed.expose()).map_err(|_| OpenError::Unfit)?;
        let (commitment, _) = record.material.pair().ok_or(OpenError::Unfit)?;
        let commitment: Commitment = postcard::from_bytes(commitment).map_err(|_| OpenError::Unfit)?;
        if !commitment.holds(&share) {
            return Err(OpenError::Unfit);
        }
        let context = VerifyingContext::new(&commitment).ok();
        let open = Arc::new(OpenKey {
            share,
            commitment,
            context,
        });
        let mut keys = self.open_keys.lock();
        if keys.len() >= MAX_OPEN_KEYS {
            keys.clear();
        }
        keys.insert(id, open.clone());
        Ok(open)
    }

    /// Names a node whose answer is provably wrong: counted and logged.
    pub fn name_liar(&self, node: u64, what: &str) {
        self.metrics.liars.get_or_create(&OfNode { node }).inc();
        tracing::error!(node, what, "a node's contribution is wrong: it is left out");
    }

    /// What another node's answer says; one that cannot be read names it.
    pub fn read_answer(&self, node: u64, bytes: &[u8]) -> Answer {
        Answer::decode(bytes).unwrap_or_else(|| {
            self.name_liar(node, "an answer that cannot be read");
            Answer::Misfit("an answer that cannot be read".into())
        })
    }

    /// Whether a node was away when this key was born.
    pub fn was_away(&self, record: &KeyRecord, node: u64) -> bool {
        let member = self.member(node);
        member.is_some_and(|member| record.away.contains(&member.index))
    }

    /// Whether this node should have a share of a key that its committee holds, `is_member` of that, and has none; blocks on the
    /// disk. Who was away at its birth will get it.
    ///
    /// # Errors
    /// What the share store says.
    pub(crate) fn lacks_share(
        &self,
        Stored {
            keystore,
            key,
            record,
        }: &Stored,
        is_member: bool,
    ) -> Result<bool, conclave_shares::Error> {
        let holds = match record.material.sharing() {
            Some(sharing) => sharing.number(self.node).is_some(),
            None => is_member,
        };
        if !holds || self.was_away(record, self.node) {
            return Ok(false);
        }
        let share = Self::share_id(keystore, key, record);
        let kept = self.shares.sessions(&share.keystore, &share.key)?;
        Ok(!kept.iter().any(|session| session.id == share))
    }

    /// Whether this node has any share. A store that cannot be read is not an empty one.
    pub(crate) fn holds_any_share(&self) -> bool {
        let first = self.shares.places(None, 1);
        first.map_or(true, |places| !places.is_empty())
    }

    /// What a node answered to a question by itself, which may have been about an item of a batch.
    pub fn alone(&self, node: u64, answer: Answer) -> Answer {
        match answer {
            Answer::Batch(each) if each.len() == 1 => self.read_answer(node, &each[0]),
            answer => answer,
        }
    }

    /// Lets background work wait while this node has more to do than it can, `most` at most: it is put off, not given up.
    pub async fn quiet(&self, most: Duration) {
        let until = Instant::now() + most;
        if self.pool.is_loaded() {
            self.metrics.shed.count(At::Quiet, Class::Bulk);
        }
        while self.pool.is_loaded() && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Asks another node, or this one's own holder by the same rules.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn ask(
        self: &Arc<Self>,
        node: u64,
        call: &Call,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        if node == self.node {
            return Ok(Box::pin(super::holder::answer(self, node, call.clone())).await);
        }
        // Nobody is asked for what nobody waits for any more.
        let left = Turn::current().left(timeout);
        if left.is_zero() {
            return Err(CallError::TimedOut);
        }
        let Some(bytes) = call.encode_in(self.speaks(node)) else {
            return Ok(Answer::Misfit(
                "a call that the version of that node does not have".into(),
            ));
        };
        match self.network.call(node, bytes.into(), left).await {
            Ok(bytes) => Ok(self.read_answer(node, &bytes)),
            Err(CallError::Busy) => Ok(Answer::Abstained(Abstention::Busy)),
            Err(error) => Err(error),
        }
    }
}
