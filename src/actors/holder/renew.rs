//! Taking part in a renewal of key shares: this node decides by its own state and clock that the shares are due, runs the
//! generation's rounds for all keys of the proposal at once, and signs once its new shares and its record are on disk.
//!
//! No client asks for it, and it changes no key: what a corrupt coordinator gains is that shares of some age become new.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::View;
use conclave_threshold::dkg::{Outcome, Participant, renewal};
use conclave_threshold::{Fault, Session};
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

use super::generate::{check, terms_of};
use super::key_name;
use crate::actors::parts::{OpenError, Parts};
use crate::actors::renewals::{Id, OfKey, Renewing};
use crate::actors::views::GROUP_ZERO;
use crate::actors::wire::{Abstention, Answer, Beginning, Renewal, Round};
use crate::audit::{AppendError, Entry, Health, Kind};
use crate::identifier::{LocalId, OperationId};
use crate::keystore::apply::request_hash;
use crate::keystore::command::{MAX_RENEWED, RenewedKey, RenewedShares};
use crate::keystore::record::{Material, Purpose};
use crate::keystore::{Command, KeyRecord, Statement, query};
use crate::membership::Membership;

/// Longest wait for entries that the decision needs.
const PATIENCE: Duration = Duration::from_millis(1_500);

fn misfit(reason: impl ToString) -> Answer {
    Answer::Misfit(reason.to_string())
}

/// First round: look, decide, draw the polynomials.
pub(super) async fn begin(parts: &Arc<Parts>, from: u64, proposal: Renewal) -> Answer {
    let begun = try_begin(parts, from, proposal).await;
    begun.unwrap_or_else(|answer| answer)
}

async fn try_begin(parts: &Arc<Parts>, from: u64, proposal: Renewal) -> Result<Answer, Answer> {
    let Renewal {
        operation,
        keystore,
        keys,
        beginning,
        applied,
    } = &proposal;
    if operation.node != from {
        return Err(misfit("a renewal under another node's operation"));
    }
    let ascending = keys.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if !(1..=MAX_RENEWED).contains(&keys.len()) || !ascending {
        return Err(misfit("a renewal of no keys, of too many, or of one twice"));
    }
    let now = parts.now().map_err(|_| Abstention::Clock)?;
    check(parts, from, beginning, now).map_err(misfit)?;
    if beginning.participants.len() != parts.membership.members.len() {
        return Err(misfit("a renewal without some member"));
    }
    if let Health::DiskLow { .. } | Health::Failed = parts.audit.health() {
        return Err(Abstention::Audit.into());
    }
    let view = settled(parts, keystore, *applied).await?;
    let stored = query::keystore(&view, keystore).map_err(|_| Abstention::Behind)?;
    let stored = stored.ok_or_else(|| misfit("a renewal in a keystore that is not there"))?;
    let policy = parts.renewals.lock().policy;
    let ordered = ordered(parts)?;
    let mut records = Vec::with_capacity(keys.len());
    for (key, replaces) in keys {
        let record = query::key(&view, keystore, key).map_err(|_| Abstention::Behind)?;
        let record = record.filter(|record| record.session == *replaces);
        let record = record.ok_or_else(|| misfit("a renewal of shares that are not the key's"))?;
        let shared_at = query::shared_at(&view, keystore, key, &record).map_err(|_| Abstention::Behind)?;
        if !policy.allows(shared_at, ordered, now) {
            return Err(misfit("a renewal of shares that are not due"));
        }
        records.push((*key, record));
    }
    let id = id_of(&parts.membership, &proposal);
    let work = {
        let (parts, keystore, beginning) = (parts.clone(), *keystore, beginning.clone());
        move || {
            let each = records.into_iter().map(|(key, record)| {
                let session = session_id(&id, &key);
                let (participant, message) = renew(&parts, (&keystore, &key), &record, session, &beginning)?;
                let of_key = OfKey {
                    key,
                    record,
                    session,
                    participant,
                };
                Ok((of_key, message))
            });
            each.collect::<Result<Vec<_>, Answer>>()
        }
    };
    let begun = parts.pool.run(work).await.map_err(|_| Abstention::Busy)??;
    let (keys, messages) = begun.into_iter().unzip();
    let renewing = Renewing {
        coordinator: from,
        operation: *operation,
        beginning: beginning.clone(),
        keystore: *keystore,
        version: stored.version,
        applied: view.applied_index(),
        now,
        keys,
        begun: Instant::now(),
    };
    match parts.renewals.lock().begin(id, renewing) {
        true => Ok(Answer::Renewing(messages)),
        false => Err(Abstention::Busy.into()),
    }
}

/// Shares from before this are to be made anew by the operators' order, as far as this node has applied it.
fn ordered(parts: &Parts) -> Result<u64, Abstention> {
    let view = parts.consensus.view(GROUP_ZERO).map_err(|_| Abstention::Behind)?;
    let orders = query::orders(&view).map_err(|_| Abstention::Behind)?;
    Ok(orders.renew_before)
}

/// This node's state of a keystore, as fresh as a use of a key needs it.
async fn settled(parts: &Arc<Parts>, keystore: &LocalId, applied: u64) -> Result<View, Answer> {
    let group = parts.group_of(keystore);
    let freshness = parts.consensus.freshness();
    freshness.may_contribute(group).map_err(|_| Abstention::Fenced)?;
    let deadline = Instant::now() + PATIENCE;
    let waited = parts.consensus.wait_applied(group, applied, deadline).await;
    waited.map_err(|_| Abstention::Behind)?;
    let view = freshness
        .settled(group, Parts::scope_of(keystore), deadline)
        .await;
    let view = view.map_err(|_| Abstention::Behind)?;
    // The wait may have outlasted the leader.
    freshness.may_contribute(group).map_err(|_| Abstention::Fenced)?;
    Ok(view)
}

/// Names a renewal: everything that its participants agree on.
pub(crate) fn id_of(membership: &Membership, proposal: &Renewal) -> Id {
    let mut hash = Sha256::new();
    hash.update(b"conclave renewal 1");
    hash.update(membership.cluster);
    hash.update(proposal.operation.to_bytes());
    hash.update(proposal.beginning.start.to_be_bytes());
    hash.update(proposal.keystore.0);
    let (n, k) = (membership.members.len(), membership.quorum());
    for number in [
        n as u64,
        k as u64,
        proposal.beginning.configuration,
        proposal.keys.len() as u64,
    ] {
        hash.update(number.to_be_bytes());
    }
    for (key, replaces) in &proposal.keys {
        hash.update(key.0);
        hash.update(replaces);
    }
    for (node, boot) in &proposal.beginning.participants {
        hash.update(node.to_be_bytes());
        hash.update(boot);
    }
    hash.finalize().into()
}

/// Names the ceremony of one key in it.
fn session_id(id: &Id, key: &LocalId) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(b"conclave renewed key 1");
    hash.update(id);
    hash.update(key.0);
    hash.finalize().into()
}

/// This node's part of one key; in the pool.
fn renew(
    parts: &Parts,
    (keystore, key): (&LocalId, &LocalId),
    record: &KeyRecord,
    session: [u8; 32],
    beginning: &Beginning,
) -> Result<(Participant, Vec<u8>), Answer> {
    let open = parts
        .open_key(keystore, key, record)
        .map_err(|error| match error {
            OpenError::NoShare => Abstention::NoShare.into(),
            error => misfit(error),
        })?;
    let epoch = record
        .epoch
        .checked_add(1)
        .ok_or_else(|| misfit("the last epoch"))?;
    let of_key = (record.key_type, epoch, key_name(keystore, key));
    let terms = terms_of(&parts.membership, of_key, session, &beginning.nodes());
    let mut terms = terms.ok_or_else(|| misfit("a renewal of a key that is no pair"))?;
    let constants = renewal::constants(&open.commitment, terms.participants.iter().copied());
    terms.constants = constants.ok_or_else(|| misfit("participants that have not the key"))?;
    let session = Session::new(terms).map_err(misfit)?;
    let me = parts
        .membership
        .member(parts.node)
        .map_or(0, |member| member.index);
    Participant::renew(session, me, &parts.signing_key, &open.share, &mut OsRng)
        .map_err(|fault| faulty(parts, fault))
}

/// A fault ends the renewal; the old shares stay.
fn faulty(parts: &Parts, fault: Fault) -> Answer {
    for index in &fault.culprits {
        if let Some(member) = parts.membership.by_index(*index) {
            parts.name_liar(member.node, &fault.reason.to_string());
        }
    }
    misfit(fault.reason)
}

/// A later round: for each key everybody's messages of the round before.
pub(super) async fn step(
    parts: &Arc<Parts>,
    from: u64,
    id: Id,
    round: Round,
    messages: Vec<BTreeMap<u16, Vec<u8>>>,
) -> Answer {
    let stepped = try_step(parts, from, id, round, messages).await;
    stepped.unwrap_or_else(|answer| answer)
}

async fn try_step(
    parts: &Arc<Parts>,
    from: u64,
    id: Id,
    round: Round,
    messages: Vec<BTreeMap<u16, Vec<u8>>>,
) -> Result<Answer, Answer> {
    let renewing = parts.renewals.lock().take(&id, from);
    let mut renewing = renewing.ok_or_else(|| misfit("a round of a renewal that is not under way"))?;
    if messages.len() != renewing.keys.len() {
        return Err(misfit("messages of other keys"));
    }
    match round {
        Round::Hash => Err(misfit("a first round that is called as a later one")),
        Round::Package | Round::Deal => {
            let work = move || {
                let each = renewing.keys.iter_mut().zip(&messages);
                let said = each.map(|(of_key, messages)| match round {
                    Round::Package => of_key.participant.packages(messages),
                    _ => of_key.participant.deal(messages, &mut OsRng),
                });
                let said = said.collect::<Result<Vec<_>, _>>();
                (renewing, said)
            };
            let (renewing, said) = parts.pool.run(work).await.map_err(|_| Abstention::Busy)?;
            let said = said.map_err(|fault| faulty(parts, fault))?;
            parts.renewals.lock().put_back(id, renewing);
            Ok(Answer::Renewing(said))
        }
        Round::Outcome => finish(parts, renewing, messages).await,
    }
}

/// Last round: the shares and the record on disk, then the signature.
async fn finish(
    parts: &Arc<Parts>,
    mut renewing: Renewing,
    messages: Vec<BTreeMap<u16, Vec<u8>>>,
) -> Result<Answer, Answer> {
    let keys = std::mem::take(&mut renewing.keys);
    let work = {
        let parts = parts.clone();
        move || {
            let finished = keys.into_iter().zip(&messages).map(|(of_key, messages)| {
                let outcome = of_key.participant.finish(messages, &parts.envelope_key);
                let outcome = outcome.map_err(|fault| faulty(&parts, fault))?;
                let (key, session) = (of_key.key, of_key.session);
                let new = renewed(key, session, &of_key.record, &outcome)?;
                Ok((new, of_key.record, outcome))
            });
            finished.collect::<Result<Vec<_>, Answer>>()
        }
    };
    let finished = parts.pool.run(work).await.map_err(|_| Abstention::Busy)??;
    let keys = finished.iter().map(|(new, ..)| new.clone()).collect();
    let stored = tokio::task::spawn_blocking({
        let (parts, keystore, started) = (parts.clone(), renewing.keystore, renewing.beginning.start);
        move || store(&parts, &keystore, &finished, started)
    });
    let (stored, recorded) = futures::join!(stored, record(parts, &renewing));
    recorded?;
    if !matches!(stored, Ok(Ok(()))) {
        tracing::error!("a new share could not be written: the renewal is not signed");
        return Err(Abstention::Audit.into());
    }
    let renewed = RenewedShares {
        keystore: renewing.keystore,
        start: renewing.beginning.start,
        configuration: renewing.beginning.configuration,
        participants: renewing.beginning.nodes(),
        keys,
    };
    let statement = statement(parts, renewing.operation, renewing.version, renewed);
    let endorsement = statement.endorse(parts.node, &parts.signing_key, renewing.now);
    Ok(Answer::Generated(Box::new(statement), endorsement))
}

/// What the state is to say of a key; nothing that is not the same key.
fn renewed(
    key: LocalId,
    session: [u8; 32],
    record: &KeyRecord,
    outcome: &Outcome,
) -> Result<RenewedKey, Answer> {
    let (_, public_key) = record.material.pair().ok_or_else(|| misfit("no key pair"))?;
    let same = match record.key_type.purpose() {
        Purpose::Sign => outcome.commitment.public_key() == *public_key,
        Purpose::DeriveSecret => outcome.commitment.montgomery() == *public_key,
        Purpose::Authenticate | Purpose::WrapKey => false,
    };
    if !same {
        return Err(misfit("a renewal that came to another key"));
    }
    Ok(RenewedKey {
        key,
        replaces: record.session,
        epoch: outcome.commitment.epoch(),
        session,
        transcript: outcome.transcript,
        material: Material::Pair {
            commitment: postcard::to_stdvec(&outcome.commitment).map_err(misfit)?,
            public_key: *public_key,
        },
    })
}

/// Writes the new shares beside the old ones; blocks on the disk.
fn store(
    parts: &Parts,
    keystore: &LocalId,
    finished: &[(RenewedKey, KeyRecord, Outcome)],
    started: u64,
) -> Result<(), conclave_shares::Error> {
    for (new, record, outcome) in finished {
        let next = KeyRecord {
            epoch: new.epoch,
            session: new.session,
            ..record.clone()
        };
        let id = Parts::share_id(keystore, &new.key, &next);
        parts
            .shares
            .put(&id, &outcome.share.to_sealed_bytes(), &[], started)?;
    }
    Ok(())
}

/// Puts it on this node's record, before it signs.
async fn record(parts: &Parts, renewing: &Renewing) -> Result<(), Abstention> {
    let mut entry = Entry::new(Kind::Renewed, renewing.now, renewing.operation);
    entry.group = parts.group_of(&renewing.keystore).0;
    entry.keystore = renewing.keystore.0;
    entry.participants = renewing.beginning.nodes();
    entry.applied = renewing.applied;
    entry.verdict = "ok".into();
    match parts.audit.append(entry).await {
        Ok(_) => {
            parts.clock.lock().recorded(renewing.now);
            Ok(())
        }
        Err(AppendError::Busy) => Err(Abstention::Busy),
        Err(error) => {
            tracing::error!(%error, "the audit record cannot be written: no renewal is signed");
            Err(Abstention::Audit)
        }
    }
}

fn statement(parts: &Parts, operation: OperationId, version: u64, renewed: RenewedShares) -> Statement {
    Statement {
        cluster: parts.membership.cluster,
        group: parts.group_of(&renewed.keystore).0,
        operation,
        request: request_hash(&[]),
        name: [0; 32],
        expires: renewed.start,
        command: Command::RenewShares(Box::new(renewed)),
        state_version: version,
        chain: Vec::new(),
    }
}
