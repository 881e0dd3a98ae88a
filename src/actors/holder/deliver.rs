//! Envelopes: what this node keeps for members that were away when a key was born, until they confirm.

use std::sync::Arc;

use conclave_shares::ShareId;

use crate::actors::parts::Parts;
use crate::actors::wire::{Abstention, Answer, ShareName};
use crate::identifier::LocalId;

/// Envelopes in one answer: a page of about 64 KiB.
const PAGE: usize = 32;

/// The next page of what is kept for the asking member.
pub(super) async fn envelopes(parts: &Arc<Parts>, from: u64, after: Option<ShareName>) -> Answer {
    let Some(member) = parts.membership.member(from).map(|member| member.index) else {
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
    let Some(member) = parts.membership.member(from).map(|member| member.index) else {
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
