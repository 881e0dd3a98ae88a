//! Uses of symmetric keys: this node as a garbler. What it computes on comes from the client's request and its own state.
//!
//! Order: verify the request; the record on disk; everything that could refuse; burn the number; garble.

use std::sync::Arc;

use super::{asked, examine, key_name};
use crate::actors::decide::{Purpose, decide};
use crate::actors::examined::Examined;
use crate::actors::parts::{OpenError, Parts};
use crate::actors::symmetric;
use crate::actors::symmetric::garble::{self, Garbling};
use crate::actors::symmetric::tasks::{About, corrected, digest, trio};
use crate::actors::wire::{Abstention, Answer, Forwarded, Roles};
use crate::operation::judge::Intent;

/// Garbles for the node that asks.
pub(super) async fn answer(parts: &Arc<Parts>, from: u64, forwarded: Forwarded, roles: &Roles) -> Answer {
    match examine(parts, from, &forwarded).await {
        Ok(request) => to_examined(parts, from, forwarded, roles, &request).await,
        Err(answer) => answer,
    }
}

/// The same for a request that was authenticated here.
pub(super) async fn to_examined(
    parts: &Arc<Parts>,
    from: u64,
    forwarded: Forwarded,
    roles: &Roles,
    request: &Arc<Examined>,
) -> Answer {
    let garbled = garble(parts, from, forwarded, roles, request).await;
    garbled.unwrap_or_else(|answer| answer)
}

async fn garble(
    parts: &Arc<Parts>,
    from: u64,
    forwarded: Forwarded,
    roles: &Roles,
    request: &Arc<Examined>,
) -> Result<Answer, Answer> {
    let misfit = |reason: &str| Answer::Misfit(reason.into());
    let [first, second, evaluator] = roles.nodes;
    if evaluator != from || ![first, second].contains(&parts.node) {
        return Err(misfit("a garbling in other roles"));
    }
    if forwarded.participants != roles.participants() {
        return Err(misfit("a garbling with other participants"));
    }
    let boot = parts.network.boot_of(from).ok_or(Abstention::Unpaired)?;
    let decided = decide(parts, request, asked(Purpose::Contribute, from, &forwarded)).await?;
    let Intent::Use {
        keystore,
        key,
        record,
        using,
    } = &decided.judgement.intent
    else {
        return Err(misfit("a garbling for what uses no key"));
    };
    let sharing = record.material.sharing();
    let sharing = sharing.ok_or_else(|| misfit("a garbling for a key pair"))?;
    let trio = trio(&sharing.holders, roles.nodes).ok_or_else(|| misfit("no three holders of the key"))?;
    let prepared = symmetric::prepare(parts, (keystore, key), record, using);
    let (held, task) = match prepared.await.map_err(|_| Abstention::Busy)? {
        Ok(opened) => opened,
        Err(error) => {
            if !matches!(error, OpenError::NoShare) {
                tracing::error!(%error, %keystore, %key, "a symmetric key cannot be opened");
            }
            return Err(Abstention::NoShare.into());
        }
    };
    let task = task.ok_or_else(|| misfit("nothing to compute"))?;
    let parts_of_secret = held.share.as_garbler(trio);
    let parts_of_secret = parts_of_secret.map_err(|error| misfit(&error.to_string()))?;
    if !decided.is_fresh() {
        return Err(Abstention::Busy.into());
    }
    let about = About {
        cluster: *parts.cluster(),
        roles: roles.nodes,
        holders: &sharing.holders,
        boot,
        number: roles.number,
        operation: forwarded.operation,
        attempt: forwarded.attempt,
    };
    let garbling = Garbling {
        context: about.context(
            key_name(keystore, key),
            record.key_type,
            digest(sharing),
            request.hash,
        ),
        task,
        secret: corrected(parts_of_secret, &sharing.correction),
        circuit: roles.circuit,
    };
    let (answer, _) = garble::garble(parts, garbling).await?;
    Ok(answer)
}
