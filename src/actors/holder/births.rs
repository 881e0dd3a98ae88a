//! Taking part in the birth of a symmetric key: pieces that nobody chooses, an HMAC key's states, a check value; then the
//! part and the record on disk, and the signature over the outcome.
//!
//! Of four holders one may be left out that is away; who else falls out ends the attempt. What the garblers decode is what
//! counts; the evaluator has it from both of them, and one is honest.

pub(crate) mod computing;
pub(crate) mod outcome;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_garbled::generation::{Combined, Committed, Fault, Opened, Session, Sharing as Agreed};
use conclave_garbled::operations;
use conclave_garbled::session::Kept;
use conclave_garbled::sharing::Share;
use rand::rngs::OsRng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::generate::{absent_are_away, ceremony_id, check, exists};
use super::{asked, examine, key_name};
use crate::actors::decide::{Purpose, Weighed, weigh};
use crate::actors::parts::Parts;
use crate::actors::symmetric::garble;
use crate::actors::symmetric::pairing;
use crate::actors::symmetric::sealed::Letter;
use crate::actors::wire::{Abstention, Answer, Beginning, BirthStep, Computed, Forwarded};
use crate::identifier::{LocalId, OperationId};
use crate::keystore::record::{Purpose as KeyPurpose, Sharing, number_of};
use crate::membership::Membership;
use crate::operation::judge::{Intent, NewKeyTerms};
use crate::problem::Problem;

/// Longest life of a birth.
const LIFE: Duration = Duration::from_secs(10);
/// How long an ended birth is remembered: a proposal is taken within 5 s of its start.
const MEMORY: Duration = Duration::from_secs(30);
/// Most births at once for one coordinator.
const MAX: usize = 256;
/// Holders of a symmetric key at most.
const HOLDERS: usize = 4;

/// Names a birth.
type Id = [u8; 32];

/// Those that this node takes part in.
#[derive(Default)]
pub(crate) struct Births {
    under_way: HashMap<Id, Birth>,
    /// Those that began lately, whatever became of them: none begins twice.
    begun: HashMap<Id, Instant>,
}

impl Births {
    /// One that this node coordinates.
    fn own(&self, parts: &Parts, id: &Id) -> Option<&Birth> {
        let birth = self.under_way.get(id)?;
        (birth.coordinator == parts.node).then_some(birth)
    }
}

struct Birth {
    coordinator: u64,
    operation: OperationId,
    attempt: u8,
    beginning: Beginning,
    /// All of the key's, one that is left out among them.
    holders: Vec<u64>,
    weighed: Weighed,
    /// SHA-256 of the client's request, its name and its expiry (ms).
    request: ([u8; 32], [u8; 32], u64),
    terms: NewKeyTerms,
    stage: Stage,
    /// A hash of everybody's commitments, once they are here.
    committed: [u8; 32],
    begun: Instant,
}

enum Stage {
    Committed(Committed),
    Opened(Opened),
    Combined(Combined),
    Shared(Shared),
}

/// This node's parts, and what it has decoded itself.
struct Shared {
    live: (Agreed, Share),
    /// Of an HMAC key: the key itself, until its states are made.
    raw: Option<(Agreed, Share)>,
    kept: HashMap<Computed, Kept>,
    states: Option<(Zeroizing<[u8; 32]>, [u8; 32])>,
    check: Option<[u8; 16]>,
}

impl Birth {
    fn key(&self) -> Vec<u8> {
        key_name(&self.terms.keystore, &self.terms.key)
    }

    fn shared(&mut self) -> Result<&mut Shared, Answer> {
        match &mut self.stage {
            Stage::Shared(shared) => Ok(shared),
            _ => Err(misfit("a step that does not follow")),
        }
    }
}

/// Who holds a key that is born in this committee or moves to it: everybody, or the coordinator and the three with the lowest
/// hashes.
pub(crate) fn holders(
    committee: &Membership,
    coordinator: u64,
    (keystore, key): (&LocalId, &LocalId),
) -> Vec<u64> {
    let lot = |node: &u64| {
        let mut hash = Sha256::new_with_prefix(key_name(keystore, key));
        hash.update(node.to_be_bytes());
        let lot: [u8; 32] = hash.finalize().into();
        (*node != coordinator, lot)
    };
    let mut nodes = committee.nodes();
    nodes.sort_by_cached_key(lot);
    nodes.truncate(HOLDERS);
    nodes.sort_unstable();
    nodes
}

/// Who of the holders takes no part; none if `nodes` are others, or too few.
fn left_out(holders: &[u64], nodes: &[u64]) -> Option<Option<u64>> {
    let mut left_out = holders.iter().filter(|holder| !nodes.contains(holder));
    let away = left_out.next().copied();
    let fits = left_out.next().is_none()
        && nodes.iter().all(|node| holders.contains(node))
        && nodes.len() >= Sharing::TRIO;
    fits.then_some(away)
}

fn misfit(reason: &str) -> Answer {
    Answer::Misfit(reason.into())
}

/// First step: judge the request, check the proposal, draw and commit.
pub(super) async fn begin(
    parts: &Arc<Parts>,
    from: u64,
    forwarded: Forwarded,
    beginning: Beginning,
) -> Answer {
    let operation = forwarded.operation;
    let begun = try_begin(parts, from, forwarded, beginning).await;
    begun.unwrap_or_else(|answer| decline(parts, operation, answer))
}

/// Others may go on without this node.
fn decline(parts: &Parts, operation: OperationId, answer: Answer) -> Answer {
    parts.ceremonies.lock().conduct.decline(operation);
    answer
}

async fn try_begin(
    parts: &Arc<Parts>,
    from: u64,
    forwarded: Forwarded,
    beginning: Beginning,
) -> Result<Answer, Answer> {
    let request = examine(parts, from, &forwarded).await?;
    let weighed = weigh(parts, &request, asked(Purpose::Endorse, from, &forwarded)).await?;
    let Intent::Generate(terms) = weighed.judgement.intent.clone() else {
        return Err(misfit("a birth for a request that generates no key"));
    };
    match exists(parts, &terms) {
        Some(false) => {}
        Some(true) => {
            let problem = Problem::new(409, "DuplicateError", "Duplicate identifier.");
            return Err(weighed.refuse(problem).into());
        }
        None => return Err(Abstention::Behind.into()),
    }
    let committee = parts.roster(weighed.group)?.births().clone();
    check(parts, &committee, from, &beginning, weighed.now).map_err(misfit)?;
    let id = ceremony_id(&committee, &forwarded, &terms, &beginning, &request.hash);
    let nodes = beginning.nodes();
    let holders = holders(&committee, from, (&terms.keystore, &terms.key));
    let (left_out, me) = (left_out(&holders, &nodes), number_of(&holders, parts.node));
    let (Some(left_out), Some(me)) = (left_out, me) else {
        return Err(misfit("others than the holders of this key"));
    };
    // The rule is for those that a coordinator leads, not for itself.
    if from != parts.node
        && let Err(node) = absent_are_away(parts, forwarded.operation, weighed.group, left_out).await
    {
        return Err(misfit(&format!("node {node} was left out and is there")));
    }
    let sharings = match terms.key_type.purpose() {
        KeyPurpose::Authenticate => 2,
        KeyPurpose::WrapKey => 1,
        KeyPurpose::Sign | KeyPurpose::DeriveSecret => return Err(misfit("a birth of a key pair")),
    };
    let session = Session {
        id,
        cluster: *parts.cluster(),
        key: key_name(&terms.keystore, &terms.key),
        epoch: 0,
        holders: u8::try_from(holders.len()).map_err(|_| misfit("too many holders"))?,
        away: left_out.and_then(|node| number_of(&holders, node)),
        sharings,
    };
    let (committed, message) =
        Committed::begin(session, me, &mut OsRng).map_err(|fault| misfit(&fault.to_string()))?;
    let authenticated = &request.authenticated;
    let expires = authenticated.expires.saturating_mul(1_000);
    let birth = Birth {
        coordinator: from,
        operation: forwarded.operation,
        attempt: forwarded.attempt,
        beginning,
        holders,
        weighed,
        request: (request.hash, authenticated.name, expires),
        terms,
        stage: Stage::Committed(committed),
        committed: [0; 32],
        begun: Instant::now(),
    };
    let mut births = parts.symmetric.births.lock();
    births.under_way.retain(|_, birth| birth.begun.elapsed() < LIFE);
    births.begun.retain(|_, begun| begun.elapsed() < MEMORY);
    let of_coordinator = births
        .under_way
        .values()
        .filter(|birth| birth.coordinator == from);
    if of_coordinator.count() >= MAX {
        return Err(Abstention::Busy.into());
    }
    if births.begun.insert(id, Instant::now()).is_some() {
        return Err(misfit("a birth that began before"));
    }
    births.under_way.insert(id, birth);
    Ok(Answer::Message(encode(&message)))
}

/// A later step. A birth is taken out while it works, and put back: whatever fails ends it.
pub(super) async fn step(parts: &Arc<Parts>, from: u64, id: Id, step: BirthStep) -> Answer {
    let taken = {
        let mut births = parts.symmetric.births.lock();
        let ours = births
            .under_way
            .get(&id)
            .is_some_and(|birth| birth.coordinator == from);
        ours.then(|| births.under_way.remove(&id)).flatten()
    };
    let Some(birth) = taken else {
        return misfit("a step of a birth that is not under way");
    };
    let operation = birth.operation;
    let stepped = try_step(parts, id, birth, step).await;
    stepped.unwrap_or_else(|answer| decline(parts, operation, answer))
}

async fn try_step(parts: &Arc<Parts>, id: Id, mut birth: Birth, step: BirthStep) -> Result<Answer, Answer> {
    if birth.begun.elapsed() > LIFE || !birth.weighed.is_fresh() {
        return Err(misfit("a birth that took longer than its decision is good for"));
    }
    let answer = match (birth.stage, step) {
        (Stage::Committed(committed), BirthStep::Open(messages)) => {
            birth.committed = Sha256::digest(encode(&messages)).into();
            let (opened, openings) = committed.open(decode(messages)?).map_err(faulty)?;
            birth.stage = Stage::Opened(opened);
            let mut sealed = BTreeMap::new();
            for (number, opening) in openings {
                let to = birth.holders[usize::from(number) - 1];
                let secret = pairing::with(parts, to).await?;
                let letter = Letter {
                    ceremony: id,
                    committed: birth.committed,
                    from: parts.node,
                    to,
                };
                let text = Zeroizing::new(encode(&opening));
                sealed.insert(number, letter.seal(&secret, &text).ok_or(Abstention::Busy)?);
            }
            Answer::Messages(sealed)
        }
        (Stage::Opened(opened), BirthStep::Combine(sealed)) => {
            let mut openings = BTreeMap::new();
            for (number, sealed) in sealed {
                let from = *birth
                    .holders
                    .get(usize::from(number).wrapping_sub(1))
                    .ok_or_else(|| misfit("an opening of nobody"))?;
                let secret = pairing::with(parts, from).await?;
                let letter = Letter {
                    ceremony: id,
                    committed: birth.committed,
                    from,
                    to: parts.node,
                };
                let text = letter
                    .open(&secret, &sealed)
                    .ok_or_else(|| misfit("an opening that does not open"))?;
                openings.insert(number, read(&text)?);
            }
            let (combined, pieces) = opened.combine(&openings).map_err(faulty)?;
            birth.stage = Stage::Combined(combined);
            Answer::Message(encode(&pieces))
        }
        (Stage::Combined(combined), BirthStep::Agree(messages)) => {
            let mut sharings = combined.agree(&decode(messages)?).map_err(faulty)?.into_iter();
            let (Some(live), raw) = (sharings.next(), sharings.next()) else {
                return Err(misfit("a birth without a sharing"));
            };
            birth.stage = Stage::Shared(Shared {
                live,
                raw,
                kept: HashMap::new(),
                states: None,
                check: None,
            });
            Answer::Confirmed
        }
        (Stage::Shared(shared), step) => {
            birth.stage = Stage::Shared(shared);
            return of_shared(parts, id, birth, step).await;
        }
        _ => return Err(misfit("a step that does not follow")),
    };
    parts.symmetric.births.lock().under_way.insert(id, birth);
    Ok(answer)
}

async fn of_shared(parts: &Arc<Parts>, id: Id, mut birth: Birth, step: BirthStep) -> Result<Answer, Answer> {
    let answer = match step {
        BirthStep::Garble(computed, roles) => {
            let garbling = computing::garbling(parts, id, &birth, computed, &roles)?;
            let (answer, kept) = garble::garble(parts, garbling).await?;
            birth.shared()?.kept.insert(computed, kept);
            answer
        }
        BirthStep::Decode(computed, labels) => {
            let shared = birth.shared()?;
            let kept = shared.kept.remove(&computed);
            let kept = kept.ok_or_else(|| misfit("labels of nothing that was garbled"))?;
            let decoded = kept.decode(&labels).map_err(|abort| misfit(&abort.to_string()))?;
            shared
                .learn(computed, &decoded)
                .ok_or_else(|| misfit("another outcome than before"))?;
            Answer::Message(decoded.to_vec())
        }
        BirthStep::Sign(sharing, inner) => return outcome::sign(parts, id, birth, sharing, inner).await,
        _ => return Err(misfit("a step that was done")),
    };
    parts.symmetric.births.lock().under_way.insert(id, birth);
    Ok(answer)
}

impl Shared {
    /// What the live sharing is corrected by, as far as it is known.
    fn correction(&self) -> [u8; 32] {
        self.states.as_ref().map_or([0; 32], |(_, masked)| *masked)
    }

    /// Takes what was decoded; the same again is nothing new.
    fn learn(&mut self, computed: Computed, decoded: &[u8]) -> Option<()> {
        match computed {
            Computed::States => {
                let (inner, masked) = operations::decoded_states(decoded)?;
                let states = (Zeroizing::new(inner), masked);
                let same = self.states.as_ref().is_none_or(|known| *known == states);
                self.states = Some(states);
                same.then_some(())
            }
            Computed::Check => {
                let check = decoded.try_into().ok()?;
                let same = self.check.is_none_or(|known| known == check);
                self.check = Some(check);
                same.then_some(())
            }
        }
    }
}

fn faulty(fault: Fault) -> Answer {
    tracing::warn!(reason = %fault, "a birth ends without a key");
    misfit(&fault.to_string())
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(message).unwrap_or_default()
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Answer> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(misfit("a message that cannot be read")),
    }
}

fn decode<T: DeserializeOwned>(messages: BTreeMap<u8, Vec<u8>>) -> Result<BTreeMap<u8, T>, Answer> {
    messages
        .into_iter()
        .map(|(number, message)| Ok((number, read(&message)?)))
        .collect()
}
