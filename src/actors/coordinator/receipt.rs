//! Receipts for clients that ask for one: k members' signatures over what this node is about to answer, gathered when the
//! answer is there. Whoever does not ask pays nothing: a description stays one read of this node's own state.
//!
//! An answer is never held back for its receipt: after a second it goes with the signatures that there are, or none, and
//! the client says what is missing.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::confirm_group;
use crate::actors::examined::Examined;
use crate::actors::parts::Parts;
use crate::actors::receipts::{About, Vouch};
use crate::actors::wire::{Answer, Call};
use crate::authorization::{DidKey, RawRequest};
use crate::identifier::LocalId;
use crate::keystore::query;
use crate::operation::description::keystore_url;
use crate::operation::route::{Named, Route};
use crate::problem::Problem;
use crate::receipt::{HEADER, Receipt, Statement, Subject, Voucher, WANTED};
use crate::reply::Reply;

/// How far members' clocks may be apart, ms.
const CLOCKS: u64 = 60_000;
/// Longest wait for members' signatures: with the eight seconds of a change it is less than clients wait.
const WAIT: Duration = Duration::from_secs(1);

/// Whether the client asks for a receipt, in so many words.
pub fn is_wanted(request: &RawRequest) -> bool {
    matches!(request.header(HEADER), Ok(Some(value)) if value == WANTED.as_bytes())
}

/// A key's description with its receipt.
pub async fn with_description(
    parts: &Arc<Parts>,
    (keystore, key): (&Named, &Named),
    served: Result<Reply, Problem>,
) -> Result<Reply, Problem> {
    let mut reply = served?;
    if let (Some(keystore), Some(key), Some(body)) = (keystore.id, key.id, &reply.body) {
        let url = crate::operation::description::key_url(&parts.rules.public_url, &keystore, &key);
        let subject = Subject::description(url, body.to_string().as_bytes());
        reply.receipt = gather(parts, About::Description { keystore, key }, subject).await;
    }
    Ok(reply)
}

/// The answer to a change with its receipt: of a key that was made, or of a revocation, also one that was made before.
pub async fn with_change(
    parts: &Arc<Parts>,
    request: &Examined,
    served: Result<Reply, Problem>,
) -> Result<Reply, Problem> {
    match (&request.route, served) {
        (Route::GenerateKey(keystore), Ok(mut reply)) => {
            if let Some((about, subject)) = keystore.id.and_then(|id| birth(parts, request, id, &reply)) {
                reply.receipt = gather(parts, about, subject).await;
            }
            Ok(reply)
        }
        (Route::Revoke(keystore), Ok(mut reply)) => {
            if let Some((about, subject)) = keystore.id.and_then(|id| revocation(parts, request, id)) {
                reply.receipt = gather(parts, about, subject).await;
            }
            Ok(reply)
        }
        (Route::Revoke(keystore), Err(mut problem)) if problem.may_mean_revoked() => {
            if let Some((about, subject)) = keystore.id.and_then(|id| revocation(parts, request, id)) {
                problem.receipt = gather(parts, about, subject).await;
            }
            Err(problem)
        }
        (_, served) => served,
    }
}

fn birth(parts: &Parts, request: &Examined, keystore: LocalId, reply: &Reply) -> Option<(About, Subject)> {
    let body = reply.body.as_ref()?;
    let key = LocalId::parse(reply.location.as_ref()?.rsplit('/').next()?)?;
    let request = request.authenticated.name;
    let url = format!("{}/keys", keystore_url(&parts.rules.public_url, &keystore));
    let subject = Subject::birth(request, url, body.to_string().as_bytes());
    let about = About::Birth {
        keystore,
        key,
        request,
    };
    Some((about, subject))
}

fn revocation(parts: &Parts, request: &Examined, keystore: LocalId) -> Option<(About, Subject)> {
    let revoked = request.authenticated.body_json.as_ref()?;
    let capability = revoked.get("id")?.as_str()?.to_owned();
    let method = revoked.pointer("/proof/verificationMethod")?.as_str()?;
    let delegator = DidKey::from_method(method).ok()?.did;
    let subject = Subject::Revocation {
        keystore: keystore_url(&parts.rules.public_url, &keystore),
        capability: capability.clone(),
        delegator: delegator.clone(),
    };
    let about = About::Revocation {
        keystore,
        capability,
        delegator,
    };
    Some((about, subject))
}

/// Asks every member that there is a link to, until a quorum has signed what this node answers.
async fn gather(parts: &Arc<Parts>, about: About, subject: Subject) -> Option<String> {
    let _room = parts.receipts.gather()?;
    let until = Instant::now() + WAIT;
    let group = parts.group_of(about.keystore());
    // Another node may have made the change in this one's place: this one applies it before it says how far it is.
    if !is_applied(parts, &about) {
        let _ = tokio::time::timeout_at(until, confirm_group(parts, group)).await;
    }
    let members = parts.roster(group).ok()?.births().clone();
    let statement = Statement::new(&members, subject);
    let call = Call::Vouch(Box::new(Vouch {
        members: members.index,
        applied: parts.consensus.applied_index(group),
        about,
    }));
    let linked = |node: &u64| *node == parts.node || parts.network.connected(*node);
    let call = &call;
    let asked = members.nodes().into_iter().filter(linked).map(|node| async move {
        let left = until.saturating_duration_since(Instant::now());
        (node, parts.ask(node, call, left).await)
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    let mut vouchers: Vec<Voucher> = Vec::new();
    while vouchers.len() < members.quorum()
        && let Ok(Some((node, answer))) = tokio::time::timeout_at(until, asked.next()).await
    {
        let Ok(Answer::Voucher(time, halves)) = answer else {
            continue;
        };
        let signature = halves.concat().try_into().unwrap_or([0; 64]);
        let voucher = Voucher {
            node,
            time,
            signature,
        };
        // One dated otherwise would make the client doubt all of it.
        if parts.now().is_ok_and(|now| now.abs_diff(time) > CLOCKS) {
            continue;
        }
        // A description changes with its keystore's controllers: who is behind, or ahead, has signed another one.
        let member = members.member(node)?;
        match statement.is_vouched(&voucher, &member.verifying_key) {
            true => vouchers.push(voucher),
            false => tracing::debug!(node, "a member vouches for another answer"),
        }
    }
    vouchers.sort_by_key(|voucher| voucher.node);
    let receipt = Receipt {
        members: members.index,
        vouchers,
    };
    (!receipt.vouchers.is_empty()).then(|| receipt.to_string())
}

fn is_applied(parts: &Parts, about: &About) -> bool {
    let Ok(view) = parts.consensus.view(parts.group_of(about.keystore())) else {
        return false;
    };
    let found = match about {
        About::Description { keystore, key } | About::Birth { keystore, key, .. } => {
            query::key(&view, keystore, key).map(|key| key.is_some())
        }
        About::Revocation {
            keystore,
            capability,
            delegator,
        } => query::revoked(&view, keystore, capability, delegator),
    };
    found.unwrap_or(false)
}
