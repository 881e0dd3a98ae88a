//! Taking part in a renewal of key shares: this node decides by its own state and clock that the shares are due, runs the
//! generation's rounds for all keys of the proposal at once, and signs once its new shares and its record are on disk.
//!
//! No client asks for it, and it changes no key: what a corrupt coordinator gains is that shares of some age become new.

mod computing;
mod keys;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::View;
use conclave_shares::ShareId;
use sha2::{Digest, Sha256};

pub(super) use self::computing::compute;
pub(crate) use self::computing::{computation, heard, moving};
use self::keys::{Begun, Finished, go_on, outcome, secrets};
use super::endorse::{close, unasked};
use crate::actors::parts::Parts;
use crate::actors::renewals::{Id, Renewing};
use crate::actors::views::{GROUP_ZERO, believed};
use crate::actors::wire::{Abstention, Answer, Beginning, Renewal, Round, ToRenew};
use crate::audit::{Entry, Health, Kind};
use crate::identifier::{LocalId, OperationId};
use crate::keystore::command::{MAX_RENEWED, RenewedShares};
use crate::keystore::{Command, KeyRecord, Statement, query};
use crate::membership::Membership;

/// Longest wait for entries that the decision needs.
const PATIENCE: Duration = Duration::from_millis(1_500);

fn misfit(reason: impl ToString) -> Answer {
    Answer::Misfit(reason.to_string())
}

/// It came to nothing here: whose fault that is, this answer does not say.
fn ended(reason: impl ToString) -> Answer {
    Answer::Ended(reason.to_string())
}

/// First round: look, decide, draw the polynomials.
pub(super) async fn begin(parts: &Arc<Parts>, from: u64, proposal: Renewal) -> Answer {
    let agreed = match decide(parts, from, &proposal).await {
        Ok(agreed) => agreed,
        Err(answer) => return answer,
    };
    let id = id_of(&agreed.committee, &proposal);
    let keys = agreed.keys.len();
    // Before anything is computed.
    let reserved = parts.renewals.lock().reserve(id, from, keys, Instant::now());
    if !reserved {
        return Abstention::Busy.into();
    }
    let drawn = draw(parts, from, id, proposal, agreed).await;
    drawn.unwrap_or_else(|answer| {
        parts.renewals.lock().end(&id);
        answer
    })
}

/// What this node is ready to renew.
struct Agreed {
    /// Who will hold the new shares.
    committee: Arc<Membership>,
    /// Who hold those that there are: the same, unless the keys move.
    before: Arc<Membership>,
    keys: Vec<(ToRenew, KeyRecord)>,
    /// The keystore's state version.
    version: u64,
    /// The applied index that the decision rests on.
    applied: u64,
    /// This node's time, ms.
    now: u64,
}

/// Whether this node takes part, by its own state and clock.
async fn decide(parts: &Arc<Parts>, from: u64, proposal: &Renewal) -> Result<Agreed, Answer> {
    let Renewal {
        operation,
        keystore,
        keys,
        beginning,
        applied,
    } = proposal;
    if operation.node != from {
        return Err(misfit("a renewal under another node's operation"));
    }
    let ascending = keys.windows(2).all(|pair| pair[0].key < pair[1].key);
    if !(1..=MAX_RENEWED).contains(&keys.len()) || !ascending {
        return Err(misfit("a renewal of no keys, of too many, or of one twice"));
    }
    let now = parts.now().map_err(|_| Abstention::Clock)?;
    if let Health::DiskLow { .. } | Health::Failed = parts.audit.health() {
        return Err(Abstention::Audit.into());
    }
    let view = settled(parts, keystore, *applied).await?;
    let stored = query::keystore(&view, keystore).map_err(|_| Abstention::Behind)?;
    let stored = stored.ok_or_else(|| ended("a renewal in a keystore that is not there"))?;
    let roster = parts.roster_in(&view).map_err(|_| Abstention::Behind)?;
    let committee = roster.births().clone();
    let mut before: Option<Arc<Membership>> = None;
    let policy = parts.renewals.lock().policy;
    let ordered = ordered(parts)?;
    let mut agreed = Vec::with_capacity(keys.len());
    for to_renew in keys {
        let key = &to_renew.key;
        let record = query::key(&view, keystore, key).map_err(|_| Abstention::Behind)?;
        let record = record.filter(|record| record.session == to_renew.replaces);
        let record = record.ok_or_else(|| ended("a renewal of shares that are not the key's"))?;
        let held_by = parts.numbered_in(&view, record.committee);
        let held_by = held_by.map_err(|_| Abstention::Behind)?;
        if before
            .as_ref()
            .is_some_and(|before| before.index != held_by.index)
        {
            return Err(misfit("a renewal of keys of different committees"));
        }
        let moves = held_by.index != committee.index;
        before = Some(held_by);
        let shared_at = query::shared_at(&view, keystore, key, &record).map_err(|_| Abstention::Behind)?;
        if !moves && !policy.allows(shared_at, ordered, now) {
            return Err(ended("a renewal of shares that are not due"));
        }
        agreed.push((to_renew.clone(), record));
    }
    let before = before.unwrap_or_else(|| committee.clone());
    check(parts, (&before, &committee), from, (beginning, keys), now).map_err(misfit)?;
    Ok(Agreed {
        committee,
        before,
        keys: agreed,
        version: stored.version,
        applied: view.applied_index(),
        now,
    })
}

/// What a participant can check of the proposal by itself: every member that is to hold the new shares takes part, and as many
/// of those that hold the old ones as their quorum wants; where nobody moves, all.
fn check(
    parts: &Parts,
    (before, committee): (&Membership, &Membership),
    from: u64,
    (beginning, keys): (&Beginning, &[ToRenew]),
    now: u64,
) -> Result<(), &'static str> {
    let nodes = beginning.nodes();
    let moves = before.index != committee.index;
    if !close(beginning.start, now) {
        return Err("a renewal that began at another time");
    }
    if beginning.configuration != committee.index || committee.member(from).is_none() {
        return Err("a renewal for other members, or led by who is none");
    }
    let is_member = |node: &u64| committee.member(*node).is_some() || moves && before.member(*node).is_some();
    if !nodes.windows(2).all(|pair| pair[0] < pair[1]) || !nodes.iter().all(is_member) {
        return Err("participants that are not ascending, or no members");
    }
    if !committee.nodes().iter().all(|node| nodes.contains(node)) {
        return Err("a renewal without some member");
    }
    let deals = |node: &u64| nodes.contains(node) && before.member(*node).is_some();
    let sound = |to_renew: &ToRenew| {
        to_renew.dealers.windows(2).all(|pair| pair[0] < pair[1])
            && to_renew.dealers.iter().all(deals)
            && to_renew.dealers.len() >= before.quorum()
    };
    if !keys.iter().all(sound) {
        return Err("too few dealers, or others than have shares");
    }
    let me = beginning
        .participants
        .iter()
        .find(|(node, _)| *node == parts.node);
    match me.is_some_and(|(_, boot)| *boot == parts.boot) {
        true => Ok(()),
        false => Err("a renewal of another life of this node"),
    }
}

/// Draws for every key, and keeps the ceremony for its next round.
async fn draw(
    parts: &Arc<Parts>,
    from: u64,
    id: Id,
    proposal: Renewal,
    agreed: Agreed,
) -> Result<Answer, Answer> {
    let work = {
        let (parts, keystore) = (parts.clone(), proposal.keystore);
        let committees = (agreed.before.clone(), agreed.committee.clone());
        move || {
            let begun = agreed.keys.into_iter().map(|(to_renew, record)| {
                let session = session_id(&id, &to_renew.key);
                let committees = (&*committees.0, &*committees.1);
                keys::begin(&parts, committees, from, &keystore, (to_renew, record), session)
            });
            begun.collect::<Result<Vec<_>, Answer>>()
        }
    };
    let begun = parts.pool.run(work).await.map_err(|_| Abstention::Busy)??;
    let (mut lacking, mut under_way) = (Vec::new(), Vec::new());
    for begun in begun {
        match begun {
            Begun::UnderWay(of_key, message) => under_way.push((*of_key, message)),
            Begun::Lacking(key) => lacking.push(key),
        }
    }
    if !lacking.is_empty() {
        return Err(Answer::Lacking(lacking));
    }
    let (keys, messages) = under_way.into_iter().unzip();
    let renewing = Renewing {
        coordinator: from,
        committee: agreed.committee,
        operation: proposal.operation,
        beginning: proposal.beginning,
        keystore: proposal.keystore,
        version: agreed.version,
        applied: agreed.applied,
        now: agreed.now,
        keys,
    };
    parts.renewals.lock().keep(&id, renewing);
    Ok(Answer::Renewing(messages))
}

/// Shares from before this are to be made anew by the operators' order, as far as this node has applied it.
fn ordered(parts: &Parts) -> Result<u64, Abstention> {
    let view = believed(parts, GROUP_ZERO)?;
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
    for to_renew in &proposal.keys {
        hash.update(to_renew.key.0);
        hash.update(to_renew.replaces);
        hash.update((to_renew.dealers.len() as u64).to_be_bytes());
        for dealer in &to_renew.dealers {
            hash.update(dealer.to_be_bytes());
        }
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

/// A later round: for each key everybody's messages of the round before.
pub(super) async fn step(
    parts: &Arc<Parts>,
    from: u64,
    id: Id,
    round: Round,
    messages: Vec<BTreeMap<u16, Vec<u8>>>,
) -> Answer {
    let stepped = try_step(parts, from, id, round, messages).await;
    let goes_on = matches!(stepped, Ok(Answer::Renewing(_)));
    if !goes_on {
        parts.renewals.lock().end_of(&id, from);
    }
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
    let mut renewing = renewing.ok_or_else(|| ended("a round of a renewal that is not under way"))?;
    if messages.len() != renewing.keys.len() {
        return Err(misfit("messages of other keys"));
    }
    match round {
        Round::Hash => Err(misfit("a first round that is called as a later one")),
        Round::Package | Round::Deal => {
            let secrets = secrets(parts, &renewing).await?;
            let work = {
                let parts = parts.clone();
                move || {
                    let each = renewing.keys.iter_mut().zip(&messages);
                    let said = each.map(|(of_key, messages)| {
                        go_on(&parts, &mut of_key.protocol, round, messages, &secrets)
                    });
                    let said = said.collect::<Result<Vec<_>, Answer>>();
                    (renewing, said)
                }
            };
            let (renewing, said) = parts.pool.run(work).await.map_err(|_| Abstention::Busy)?;
            let said = said?;
            parts.renewals.lock().keep(&id, renewing);
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
            let finished = keys.into_iter().zip(&messages);
            let finished = finished.map(|(of_key, messages)| outcome(&parts, of_key, messages));
            finished.collect::<Result<Vec<_>, Answer>>()
        }
    };
    let finished = parts.pool.run(work).await.map_err(|_| Abstention::Busy)??;
    let renewed = RenewedShares {
        keystore: renewing.keystore,
        start: renewing.beginning.start,
        configuration: renewing.beginning.configuration,
        participants: renewing.committee.nodes(),
        keys: finished.iter().map(|finished| finished.new.clone()).collect(),
    };
    let stored = tokio::task::spawn_blocking({
        let (parts, keystore, started) = (parts.clone(), renewing.keystore, renewing.beginning.start);
        move || store(&parts, &keystore, &finished, started)
    });
    let (stored, recorded) = futures::join!(stored, record(parts, &renewing, &renewed));
    recorded?;
    if !matches!(stored, Ok(Ok(()))) {
        tracing::error!("a new share could not be written: the renewal is not signed");
        return Err(Abstention::Audit.into());
    }
    let statement = statement(parts, renewing.operation, renewing.version, renewed);
    let endorsement = statement.endorse(parts.node, &parts.signing_key, renewing.now);
    Ok(Answer::Generated(Box::new(statement), endorsement))
}

/// Writes the new shares beside the old ones; blocks on the disk.
fn store(
    parts: &Parts,
    keystore: &LocalId,
    finished: &[Finished],
    started: u64,
) -> Result<(), conclave_shares::Error> {
    for Finished { new, key_type, share } in finished {
        let Some(share) = share else { continue };
        let id = ShareId {
            keystore: keystore.0,
            key: new.key.0,
            session: new.session,
            key_type: key_type.name().to_owned(),
            epoch: new.epoch,
        };
        parts.shares.put(&id, share, &[], started)?;
    }
    Ok(())
}

/// Puts it on this node's record, before it signs: what stands for the request is a hash of the outcome.
async fn record(parts: &Parts, renewing: &Renewing, renewed: &RenewedShares) -> Result<(), Abstention> {
    let mut entry = Entry::new(Kind::Renewed, renewing.now, renewing.operation);
    entry.group = parts.group_of(&renewing.keystore).0;
    entry.keystore = renewing.keystore.0;
    entry.request = Sha256::digest(postcard::to_stdvec(renewed).unwrap_or_default()).into();
    entry.participants = renewing.beginning.nodes();
    entry.applied = renewing.applied;
    entry.verdict = "ok".into();
    parts.record(entry).await
}

fn statement(parts: &Parts, operation: OperationId, version: u64, renewed: RenewedShares) -> Statement {
    let (group, expires) = (parts.group_of(&renewed.keystore), renewed.start);
    Statement {
        expires,
        state_version: version,
        ..unasked(parts, group.0, operation, Command::RenewShares(Box::new(renewed)))
    }
}
