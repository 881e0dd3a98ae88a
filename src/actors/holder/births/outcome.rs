//! The outcome of a birth: what all holders sign.

use std::sync::Arc;

use conclave_garbled::held::{Held, inner_digest};
use conclave_shares::KeptEnvelope;
use zeroize::Zeroizing;

use super::{Birth, Id, Stage, left_out, misfit};
use crate::actors::holder::generate::{share_id, signed};
use crate::actors::parts::Parts;
use crate::actors::symmetric::tasks::{LIVE, digest, name};
use crate::actors::wire::{Abstention, Answer};
use crate::keystore::command::GeneratedKey;
use crate::keystore::record::{Material, Purpose as KeyPurpose, Sharing};

/// What this node, as the coordinator, has all holders sign; beside it an HMAC key's inner state.
pub(crate) fn outcome(parts: &Parts, id: Id) -> Option<(Sharing, Option<[u8; 32]>)> {
    let births = parts.symmetric.births.lock();
    let birth = births.own(parts, &id)?;
    let Stage::Shared(shared) = &birth.stage else {
        return None;
    };
    let key = birth.key();
    let name = name(parts.cluster(), &key, 0, LIVE);
    let inner = shared.states.as_ref().map(|(inner, _)| **inner);
    let sharing = Sharing {
        holders: birth.holders.clone(),
        pieces: shared.live.0.commitments.clone(),
        correction: shared.correction(),
        inner: inner.map(|inner| inner_digest(&name, &inner)),
        check: shared.check?,
    };
    Some((sharing, inner))
}

/// Last step: this node's part on disk and its decision on record, then the signature.
pub(super) async fn sign(
    parts: &Arc<Parts>,
    id: Id,
    birth: Birth,
    sharing: Sharing,
    inner: Option<[u8; 32]>,
) -> Result<Answer, Answer> {
    let inner = inner.map(Zeroizing::new);
    let key = birth.key();
    let Birth {
        operation,
        beginning,
        holders,
        weighed,
        request,
        terms,
        stage: Stage::Shared(shared),
        ..
    } = birth
    else {
        return Err(misfit("a step that does not follow"));
    };
    let name = name(parts.cluster(), &key, 0, LIVE);
    let authenticates = terms.key_type.purpose() == KeyPurpose::Authenticate;
    // Every holder has decoded this itself, or, as the evaluator, heard it from two.
    let own_inner = shared.states.as_ref().map(|(inner, _)| inner);
    let fits = sharing.holders == holders
        && sharing.pieces == shared.live.0.commitments
        && sharing.correction == shared.correction()
        && Some(sharing.check) == shared.check
        && inner.as_ref() == own_inner
        && inner.is_some() == authenticates
        && sharing.inner == inner.as_ref().map(|inner| inner_digest(&name, inner));
    if !fits {
        return Err(misfit("an outcome that this holder has not seen itself"));
    }
    let held = Held {
        share: shared.live.1,
        inner,
    };
    let participants = beginning.nodes();
    let left_out = left_out(&holders, &participants).flatten();
    let away = left_out.and_then(|node| parts.member(node));
    let away: Vec<u16> = away.map(|member| member.index).into_iter().collect();
    let generated = GeneratedKey {
        keystore: terms.keystore,
        key: terms.key,
        key_type: terms.key_type,
        alias: terms.alias,
        max_chain_length: terms.max_chain_length,
        epoch: 0,
        session: id,
        start: beginning.start,
        configuration: beginning.configuration,
        participants,
        away: away.clone(),
        transcript: digest(&sharing),
        material: Material::Pieces(sharing),
    };
    let stored = tokio::task::spawn_blocking({
        let parts = parts.clone();
        let id = share_id(&generated);
        let start = beginning.start;
        // The key's pieces themselves are what is kept for the one that was left out; this remembers that it lacks them.
        let owed = |member| KeptEnvelope {
            member,
            bytes: Vec::new(),
        };
        let owed: Vec<KeptEnvelope> = away.into_iter().map(owed).collect();
        move || parts.shares.put(&id, &held.to_bytes(), &owed, start)
    });
    let (stored, decided) = futures::join!(stored, weighed.record());
    let decided = decided?;
    if !matches!(stored, Ok(Ok(_))) {
        tracing::error!("a share could not be written: the birth is not signed");
        return Err(Abstention::Audit.into());
    }
    Ok(signed(parts, &decided, operation, request, generated))
}
