//! Fetching the shares of keys that were born while this node was away: a key pair's in an envelope that any participant
//! keeps, a symmetric key's pieces from two other holders.

use std::sync::Arc;
use std::time::Duration;

use conclave_consensus::{GroupId, Reason};
use conclave_garbled::portion::{Gathered, Portion, Wanted};
use conclave_threshold::{Commitment, envelope};

use crate::actors::holder::{Sealed, key_name, session_of};
use crate::actors::parts::Parts;
use crate::actors::symmetric::sealed::Letter;
use crate::actors::symmetric::{pairing, tasks};
use crate::actors::wire::{Answer, Call, ShareName};
use crate::keystore::query;
use crate::keystore::record::{KeyRecord, Sharing};

/// How often it asks when no link came up.
const DELIVERY: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it looks whether it may fetch at all.
const STARTING: Duration = Duration::from_millis(200);

/// Fetches envelopes from every peer: at once when a link came up or a share is missed, and now and then.
pub async fn run(parts: Arc<Parts>) {
    loop {
        // What an older copy of a disk takes and confirms would be missing on the newest.
        if !is_current(&parts) || !is_member(&parts) {
            tokio::time::sleep(STARTING).await;
            continue;
        }
        for member in parts.directory.all() {
            if member.node != parts.node && parts.network.connected(member.node) {
                fetch(&parts, member.node).await;
            }
        }
        let _ = tokio::time::timeout(DELIVERY, parts.wake.notified()).await;
    }
}

/// Whether a leader of each group has confirmed, since the start, a state that no member knows to be an older copy.
fn is_current(parts: &Parts) -> bool {
    (0..parts.rules.groups).map(GroupId).all(|group| {
        let abstains = parts.consensus.freshness().may_contribute(group).err();
        abstains.is_none_or(|abstain| !matches!(abstain.reason, Reason::Starting | Reason::RolledBack))
    })
}

/// Whether this node is a member of some group, or will be, by what it has applied.
fn is_member(parts: &Parts) -> bool {
    (0..parts.rules.groups).map(GroupId).any(|group| {
        let roster = parts.roster(group);
        roster.is_ok_and(|roster| roster.everybody().any(|member| member.node == parts.node))
    })
}

async fn fetch(parts: &Arc<Parts>, peer: u64) {
    let mut after = None;
    loop {
        let Ok(Answer::Envelopes(page)) = parts.ask(peer, &Call::Envelopes(after.clone()), PATIENCE).await
        else {
            return;
        };
        let Some((last, _)) = page.last() else { return };
        after = Some(last.clone());
        for (name, bytes) in page {
            match take(parts, &name, bytes).await {
                Ok(true) => confirm(parts, &name).await,
                Ok(false) => {}
                Err(reason) => {
                    tracing::warn!(peer, key = %name.key, reason, "an envelope could not be opened")
                }
            }
        }
    }
}

/// Stores this node's share of a key of which a peer keeps something; `false` while the key is not live in our state, or
/// not everything is to be had.
async fn take(parts: &Arc<Parts>, name: &ShareName, bytes: Vec<u8>) -> Result<bool, String> {
    let view = parts
        .consensus
        .view(parts.group_of(&name.keystore))
        .map_err(text)?;
    let record = query::key(&view, &name.keystore, &name.key).map_err(text)?;
    let Some(record) = record.filter(|record| record.session == name.session) else {
        return Ok(false);
    };
    let id = Parts::share_id(&name.keystore, &name.key, &record);
    let looked = tokio::task::spawn_blocking({
        let parts = parts.clone();
        move || parts.shares.get(&id).map(|share| share.is_some())
    });
    if looked.await.map_err(text)?.map_err(text)? {
        return Ok(true);
    }
    if let Some(sharing) = record.material.sharing() {
        return gather(parts, name, &record, sharing).await;
    }
    let (parts, name) = (parts.clone(), name.clone());
    let stored = tokio::task::spawn_blocking(move || open(&parts, &name, &record, &bytes).map(|()| true));
    stored.await.map_err(text)?
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// Opens an envelope and stores the share.
fn open(parts: &Parts, name: &ShareName, record: &KeyRecord, bytes: &[u8]) -> Result<(), String> {
    let sealed: Sealed = postcard::from_bytes(bytes).map_err(text)?;
    let (commitment, _) = record.material.pair().ok_or("an envelope of a symmetric key")?;
    let commitment: Commitment = postcard::from_bytes(commitment).map_err(text)?;
    let committee = parts.committee(&name.keystore, record).map_err(text)?;
    let members = committee.nodes().into_iter();
    let nodes: Vec<u64> = members.filter(|node| !parts.was_away(record, *node)).collect();
    let key = (record.key_type, record.epoch, key_name(&name.keystore, &name.key));
    let session = session_of(&committee, key, record.session, &nodes).ok_or("no session")?;
    let me = committee.member(parts.node).map_or(0, |member| member.index);
    let (packages, envelopes) = (&sealed.packages, &sealed.envelopes);
    let share = envelope::open(
        &session,
        me,
        &parts.envelope_key,
        &commitment,
        packages,
        envelopes,
    )
    .map_err(|fault| fault.reason.to_string())?;
    store(parts, name, record, &share.to_sealed_bytes())
}

fn store(parts: &Parts, name: &ShareName, record: &KeyRecord, share: &[u8]) -> Result<(), String> {
    let id = Parts::share_id(&name.keystore, &name.key, record);
    let stored = parts.shares.put(&id, share, &[], record.created);
    stored.map_err(text)?;
    parts.metrics.delivered.inc();
    Ok(())
}

/// Asks the other holders of a symmetric key until every piece is here, each compared with what all committed to.
async fn gather(
    parts: &Arc<Parts>,
    name: &ShareName,
    record: &KeyRecord,
    sharing: &Sharing,
) -> Result<bool, String> {
    let key = key_name(&name.keystore, &name.key);
    let birthplace = record.birthplace(parts.cluster());
    let wanted = Wanted {
        name: tasks::name(birthplace, &key, record.epoch, tasks::LIVE),
        commitments: &sharing.pieces,
        inner: sharing.inner,
        holder: sharing.number(parts.node).ok_or("pieces of others")?,
    };
    let mut gathered = Gathered::default();
    for node in sharing.holders.iter().filter(|node| **node != parts.node) {
        let portion = match portion(parts, name, *node).await {
            Ok(portion) => portion,
            Err(reason) => {
                tracing::debug!(node, key = %name.key, reason, "a holder gives no pieces now");
                continue;
            }
        };
        if let Err(error) = gathered.add(&portion, &wanted) {
            parts.name_liar(*node, &error.to_string());
        }
        if let Some(held) = gathered.held(&wanted) {
            let (parts, name, record) = (parts.clone(), name.clone(), record.clone());
            let stored = tokio::task::spawn_blocking(move || store(&parts, &name, &record, &held.to_bytes()));
            return stored.await.map_err(text)?.map(|()| true);
        }
    }
    Ok(false)
}

/// What one holder has of this node's pieces.
async fn portion(parts: &Arc<Parts>, name: &ShareName, node: u64) -> Result<Portion, String> {
    let answer = parts.ask(node, &Call::Portion(name.clone()), PATIENCE).await;
    let Answer::Message(sealed) = answer.map_err(text)? else {
        return Err("no pieces".into());
    };
    let secret = pairing::with(parts, node).await.map_err(text)?;
    let opened = Letter::of_portion(name.session, node, parts.node).open(&secret, &sealed);
    let opened = opened.ok_or("a letter that does not open")?;
    postcard::from_bytes(&opened).map_err(text)
}

/// Tells everybody that may keep an envelope of ours that it can go.
async fn confirm(parts: &Arc<Parts>, name: &ShareName) {
    for member in parts
        .directory
        .all()
        .iter()
        .filter(|member| member.node != parts.node)
    {
        if parts.network.connected(member.node) {
            let _ = parts
                .ask(member.node, &Call::Confirm(name.clone()), PATIENCE)
                .await;
        }
    }
}
