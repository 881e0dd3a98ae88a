//! What this node keeps for members that were away when a key was born, until they confirm: envelopes, and of symmetric keys
//! the pieces that it holds itself.

use std::sync::Arc;

use conclave_garbled::portion::Portion;
use conclave_shares::ShareId;
use zeroize::Zeroizing;

use crate::actors::parts::Parts;
use crate::actors::symmetric::sealed::Letter;
use crate::actors::symmetric::{self, pairing};
use crate::actors::wire::{Abstention, Answer, ShareName};
use crate::identifier::LocalId;
use crate::keystore::query;

/// Envelopes in one answer: a page of about 64 KiB.
const PAGE: usize = 32;

/// The next page of what is kept for the asking member.
pub(super) async fn envelopes(parts: &Arc<Parts>, from: u64, after: Option<ShareName>) -> Answer {
    let Some(member) = parts.member(from).map(|member| member.index) else {
        return Answer::Misfit("an asker that is no member".into());
    };
    let parts = parts.clone();
    let read = tokio::task::spawn_blocking(move || {
        let after = after.and_then(|name| share_id(&parts, &name));
        parts.shares.envelopes_for(member, after.as_ref(), PAGE)
    });
    match read.await {
        Ok(Ok(open)) => Answer::Envelopes(
            open.into_iter()
                .map(|open| (name_of(&open.id), open.bytes))
                .collect(),
        ),
        _ => Answer::Abstained(Abstention::Busy),
    }
}

/// The asking member has its share on disk: its envelope can go.
pub(super) async fn confirm(parts: &Arc<Parts>, from: u64, name: ShareName) -> Answer {
    let Some(member) = parts.member(from).map(|member| member.index) else {
        return Answer::Misfit("an asker that is no member".into());
    };
    let parts = parts.clone();
    let removed = tokio::task::spawn_blocking(move || match share_id(&parts, &name) {
        Some(id) => parts.shares.confirm(member, &id).map(|_| ()),
        None => Ok(()),
    });
    match removed.await {
        Ok(Ok(())) => Answer::Confirmed,
        _ => Answer::Abstained(Abstention::Busy),
    }
}

/// The pieces of a symmetric key that the asking member holds too and did not get at its birth: the key's record says so.
pub(super) async fn portion(parts: &Arc<Parts>, from: u64, name: ShareName) -> Answer {
    if parts.consensus.rolled_back().is_some() {
        return Abstention::Fenced.into();
    }
    let opened = tokio::task::spawn_blocking({
        let (parts, name) = (parts.clone(), name.clone());
        move || owed(&parts, from, &name)
    });
    let text = match opened.await {
        Ok(Ok(text)) => text,
        Ok(Err(answer)) => return answer,
        Err(_) => return Abstention::Busy.into(),
    };
    let secret = match pairing::with(parts, from).await {
        Ok(secret) => secret,
        Err(abstention) => return abstention.into(),
    };
    let letter = Letter::of_portion(name.session, parts.node, from);
    letter
        .seal(&secret, &text)
        .map_or_else(|| Abstention::Busy.into(), Answer::Message)
}

/// The portion of `from`, in clear; blocks on the disk.
fn owed(parts: &Parts, from: u64, name: &ShareName) -> Result<Zeroizing<Vec<u8>>, Answer> {
    let view = parts.consensus.view(parts.group_of(&name.keystore));
    let view = view.map_err(|_| Abstention::Behind)?;
    let record = query::key(&view, &name.keystore, &name.key).map_err(|_| Abstention::Behind)?;
    let record = record.filter(|record| record.session == name.session);
    let record = record.ok_or(Abstention::Behind)?;
    let number = record.material.sharing().and_then(|sharing| sharing.number(from));
    let number = number.filter(|_| parts.was_away(&record, from));
    let number = number.ok_or_else(|| Answer::Misfit("pieces that are not the asker's to get".into()))?;
    let held =
        symmetric::open(parts, (&name.keystore, &name.key), &record).map_err(|_| Abstention::NoShare)?;
    let text = postcard::to_stdvec(&Portion::of(&held, number)).map_err(|_| Abstention::Busy)?;
    Ok(Zeroizing::new(text))
}

fn name_of(id: &ShareId) -> ShareName {
    ShareName {
        keystore: LocalId(id.keystore),
        key: LocalId(id.key),
        session: id.session,
    }
}

/// The store's full name of a share that this node has.
fn share_id(parts: &Parts, name: &ShareName) -> Option<ShareId> {
    let sessions = parts.shares.sessions(&name.keystore.0, &name.key.0).ok()?;
    sessions
        .into_iter()
        .map(|session| session.id)
        .find(|id| id.session == name.session)
}
