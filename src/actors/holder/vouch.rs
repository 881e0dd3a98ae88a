//! Vouching: this member's signature over what a client is answered, by its own applied state, rendered here. Whoever asks
//! names the key or the capability, and learns nothing that a client could not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_consensus::View;

use crate::actors::parts::Parts;
use crate::actors::receipts::{About, Vouch};
use crate::actors::wire::{Abstention, Answer};
use crate::identifier::LocalId;
use crate::keystore::query;
use crate::operation::description::{describe, describe_birth, key_url, keystore_url};
use crate::receipt::{Statement, Subject};

/// Longest wait for what the asker has applied.
const PATIENCE: Duration = Duration::from_millis(800);

/// Vouches, if this node's state says it.
pub(super) async fn answer(parts: &Arc<Parts>, from: u64, vouch: Vouch) -> Answer {
    let Some(_room) = parts.receipts.answer(from) else {
        return Abstention::Busy.into();
    };
    match sign(parts, &vouch).await {
        Ok(answer) => answer,
        Err(abstention) => abstention.into(),
    }
}

async fn sign(parts: &Parts, vouch: &Vouch) -> Result<Answer, Abstention> {
    let group = parts.group_of(vouch.about.keystore());
    let consensus = &parts.consensus;
    let deadline = Instant::now() + PATIENCE;
    let applied = consensus.wait_applied(group, vouch.applied, deadline);
    applied.await.map_err(|_| Abstention::Behind)?;
    if let About::Birth {
        keystore,
        key,
        request,
    } = &vouch.about
        && !parts.receipts.have_made(request, (keystore, key), deadline).await
    {
        return Err(Abstention::Behind);
    }
    // What this state says may be long past where no leader is heard.
    let fence = consensus.freshness().may_contribute(group);
    fence.map_err(|_| Abstention::Fenced)?;
    let now = parts.now().map_err(|_| Abstention::Clock)?;
    let view = consensus.view(group).map_err(|_| Abstention::Behind)?;
    let roster = parts.roster_in(&view).map_err(|_| Abstention::Behind)?;
    let members = roster.numbered(vouch.members).ok_or(Abstention::Behind)?;
    if members.member(parts.node).is_none() {
        return Err(Abstention::Behind);
    }
    let subject = subject(parts, &view, &vouch.about).ok_or(Abstention::Behind)?;
    let voucher = Statement::new(members, subject).vouch(parts.node, &parts.signing_key, now);
    let (first, second) = voucher.signature.split_at(32);
    let half = |bytes: &[u8]| bytes.try_into().unwrap_or_default();
    Ok(Answer::Voucher(now, [half(first), half(second)]))
}

/// What this node's state says about it; none if it does not say it.
fn subject(parts: &Parts, view: &View, about: &About) -> Option<Subject> {
    let public_url = &parts.rules.public_url;
    let described = |keystore: &LocalId, key: &LocalId| {
        let stored = query::keystore(view, keystore).ok()??;
        let record = query::key(view, keystore, key).ok()??;
        let url = key_url(public_url, keystore, key);
        let description = describe(&url, &record, &stored.config).ok()?;
        Some((url, description))
    };
    match about {
        About::Description { keystore, key } => {
            let (url, description) = described(keystore, key)?;
            Some(Subject::description(url, description.to_string().as_bytes()))
        }
        About::Birth {
            keystore,
            key,
            request,
        } => {
            let (url, description) = described(keystore, key)?;
            let body = describe_birth(&url, description).to_string();
            let at = format!("{}/keys", keystore_url(public_url, keystore));
            Some(Subject::birth(*request, at, body.as_bytes()))
        }
        About::Revocation {
            keystore,
            capability,
            delegator,
        } => {
            // Applied, so that no leader can take it back: an endorsement alone would be provisional.
            let revoked = query::revoked(view, keystore, capability, delegator).ok()?;
            revoked.then(|| Subject::Revocation {
                keystore: keystore_url(public_url, keystore),
                capability: capability.clone(),
                delegator: delegator.clone(),
            })
        }
    }
}
