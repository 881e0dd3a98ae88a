//! Contributions to uses: signature shares and partial Diffie-Hellman results. The message, the key and the epoch
//! come from the client's request and this node's own state, never from the coordinator.
//!
//! Order: verify the request; the record on disk; draw the pair; compute; send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use conclave_threshold::diffie_hellman::{self, Context};
use conclave_threshold::frost::{self, CommitmentList, NonceCommitments};
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

use super::{asked, examine};
use crate::actors::decide::{Decided, Declined, Purpose, decide};
use crate::actors::examined::Examined;
use crate::actors::parts::{OpenError, OpenKey, Parts};
use crate::actors::wire::{Abstention, Answer, Call};
use crate::identifier::{LocalId, OperationId};
use crate::keystore::KeyRecord;
use crate::operation::judge::{Intent, Using};

/// Answers the first (with a quorum of two: the only) question about a use.
pub(super) async fn to_use(parts: &Arc<Parts>, from: u64, call: Call) -> Answer {
    let Some(forwarded) = call.forwarded() else {
        return Answer::Misfit("no request".into());
    };
    match examine(parts, from, forwarded).await {
        Ok(request) => to_examined(parts, from, call, &request).await,
        Err(answer) => answer,
    }
}

/// The same for a request that was authenticated.
pub(super) async fn to_examined(
    parts: &Arc<Parts>,
    from: u64,
    call: Call,
    request: &Arc<Examined>,
) -> Answer {
    let Some(forwarded) = call.forwarded() else {
        return Answer::Misfit("no request".into());
    };
    let attempt = (forwarded.operation, forwarded.attempt);
    let decided = match decide(parts, request, asked(Purpose::Contribute, from, forwarded)).await {
        Ok(decided) => decided,
        Err(Declined::Repeat) => {
            let known = parts.answers.lock().of(&attempt);
            return known.unwrap_or_else(|| Declined::Repeat.into());
        }
        Err(declined) => return declined.into(),
    };
    let frame = Sha256::digest(call.encode()).into();
    let work = {
        let parts = parts.clone();
        move || contribute(&parts, from, &call, decided, &frame)
    };
    let answer = parts
        .pool
        .run(work)
        .await
        .unwrap_or(Answer::Abstained(Abstention::Busy));
    parts.answers.lock().keep(attempt, answer.clone(), Instant::now());
    answer
}

fn contribute(parts: &Parts, from: u64, call: &Call, decided: Decided, frame: &[u8; 32]) -> Answer {
    if !decided.is_fresh() {
        return Answer::Abstained(Abstention::Busy);
    }
    let (keystore, key, record, using) = match &decided.judgement.intent {
        Intent::Use {
            keystore,
            key,
            record,
            using,
        } => (*keystore, *key, record.clone(), using.clone()),
        _ => return Answer::Misfit("a contribution to what uses no key".into()),
    };
    let open = match open(parts, &keystore, &key, &record) {
        Ok(open) => open,
        Err(answer) => return answer,
    };
    match (call, using) {
        (Call::Cosign(_, theirs), Using::Sign(message)) => {
            cosign(parts, from, &open, &message, theirs, frame)
        }
        (Call::Commit(forwarded), Using::Sign(_)) => {
            let Ok((nonces, public)) = frost::commit(&open.share, frame, &mut OsRng) else {
                return Answer::Misfit("a commitment for a key that does not sign".into());
            };
            let attempt = (forwarded.operation, forwarded.attempt);
            match parts.nonces.lock().keep(attempt, from, decided, nonces) {
                true => Answer::Committed(encode(&public)),
                false => Answer::Abstained(Abstention::Busy),
            }
        }
        (Call::Derive(forwarded), Using::DeriveSecret(u)) => {
            partial(parts, &open, forwarded.operation, (&keystore, &key), u)
        }
        _ => Answer::Misfit("a question that does not fit the request".into()),
    }
}

fn open(
    parts: &Parts,
    keystore: &LocalId,
    key: &LocalId,
    record: &KeyRecord,
) -> Result<Arc<OpenKey>, Answer> {
    parts.open_key(keystore, key, record).map_err(|error| match error {
        OpenError::NoShare => Answer::Abstained(Abstention::NoShare),
        error => {
            tracing::error!(%error, %keystore, %key, "a share cannot be opened: this node contributes nothing for it");
            Answer::Abstained(Abstention::NoShare)
        }
    })
}

fn cosign(
    parts: &Parts,
    from: u64,
    open: &OpenKey,
    message: &[u8],
    theirs: &[u8],
    frame: &[u8; 32],
) -> Answer {
    let coordinator = parts.member(from).map(|member| member.index);
    let theirs = postcard::from_bytes::<NonceCommitments>(theirs);
    let (Some(index), Ok(theirs), Some(context)) = (coordinator, theirs, &open.context) else {
        return Answer::Misfit("commitments that cannot be read".into());
    };
    match frost::cosign(&open.share, context, message, (index, theirs), frame, &mut OsRng) {
        Ok((public, share)) => Answer::Cosigned(encode(&public), share.to_vec()),
        Err(refusal) => Answer::Misfit(refusal.to_string()),
    }
}

fn encode(commitments: &NonceCommitments) -> Vec<u8> {
    postcard::to_stdvec(commitments).unwrap_or_default()
}

/// A partial result; the proof is bound to the operation and the key.
fn partial(
    parts: &Parts,
    open: &OpenKey,
    operation: OperationId,
    (keystore, key): (&LocalId, &LocalId),
    u: [u8; 32],
) -> Answer {
    let Ok(peer) = diffie_hellman::lift(u) else {
        return Answer::Misfit("a partial for a point that has no shared secret".into());
    };
    let (operation, name) = (operation.to_bytes(), key_name(keystore, key));
    let context = Context {
        cluster: parts.cluster(),
        operation: &operation,
        key: &name,
    };
    match diffie_hellman::partial(&open.share, &open.commitment, &context, &peer, &mut OsRng) {
        Ok(partial) => Answer::Derived(partial.to_vec()),
        Err(refusal) => Answer::Misfit(refusal.to_string()),
    }
}

/// A key's name in ceremonies: keystore and key, 32 bytes.
pub(crate) fn key_name(keystore: &LocalId, key: &LocalId) -> Vec<u8> {
    [keystore.0, key.0].concat()
}

/// Second round of a signature with a quorum of three: the pair is taken, then the share is computed.
pub(super) async fn second_round(
    parts: &Arc<Parts>,
    from: u64,
    attempt: (OperationId, u8),
    list: BTreeMap<u16, Vec<u8>>,
) -> Answer {
    let Some(drawn) = parts.nonces.lock().take(&attempt, from) else {
        return Answer::Misfit("no nonces wait for this second round".into());
    };
    let turn = drawn.decided.turn();
    let work = {
        let parts = parts.clone();
        move || {
            if !drawn.decided.is_fresh() {
                return Answer::Abstained(Abstention::Busy);
            }
            let Intent::Use {
                keystore,
                key,
                record,
                using: Using::Sign(message),
            } = &drawn.decided.judgement.intent
            else {
                return Answer::Misfit("a signature share for what is not a signature".into());
            };
            let list: Option<CommitmentList> = list
                .into_iter()
                .map(|(index, bytes)| Some((index, postcard::from_bytes(&bytes).ok()?)))
                .collect();
            let (open, list) = match (open(&parts, keystore, key, record), list) {
                (Ok(open), Some(list)) => (open, list),
                (Err(answer), _) => return answer,
                (_, None) => return Answer::Misfit("commitments that cannot be read".into()),
            };
            let Some(context) = &open.context else {
                return Answer::Misfit("the key does not sign".into());
            };
            match frost::sign(drawn.nonces, &open.share, context, message, &list) {
                Ok(share) => Answer::Signed(share.to_vec()),
                Err(refusal) => Answer::Misfit(refusal.to_string()),
            }
        }
    };
    parts
        .pool
        .run_in(turn, work)
        .await
        .unwrap_or(Answer::Abstained(Abstention::Busy))
}
