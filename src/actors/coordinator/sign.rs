//! Signatures by FROST. With a quorum of two the holder's commitment and share come in one round trip; with three,
//! or when this node's own share has not arrived yet, there are two.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conclave_threshold::Commitment;
use conclave_threshold::frost::{self, CommitmentList, NonceCommitments, Nonces, VerifyingContext};
use rand::rngs::OsRng;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::gather::{Holders, Target};
use super::{Work, busy};
use crate::actors::decide::{Decided, Weighed};
use crate::actors::parts::OpenKey;
use crate::actors::wire::{Abstention, Answer, Call};
use crate::problem::Problem;
use crate::reply::Reply;

/// Tries with other holders after one that lied.
const TRIES: usize = 3;
const SECOND_ROUND: Duration = Duration::from_millis(1_500);

/// Signs `message`.
pub(super) async fn sign(
    work: &Work,
    weighed: Weighed,
    target: &Target,
    message: Vec<u8>,
) -> Result<Reply, Problem> {
    let message: Arc<[u8]> = message.into();
    let quorum = work.parts.membership.quorum();
    let own = open(work, target).await;
    let mut holders = Holders::new(work);
    let mut weighed = Some(weighed);
    let mut decided = None;
    for _ in 0..TRIES {
        let attempt = match &own {
            Some(own) if quorum == 2 => {
                one_round(
                    work,
                    &mut weighed,
                    &mut decided,
                    own,
                    target,
                    &message,
                    &mut holders,
                )
                .await
            }
            own => {
                two_rounds(
                    work,
                    &mut weighed,
                    &mut decided,
                    own.as_ref(),
                    target,
                    &message,
                    &mut holders,
                )
                .await
            }
        };
        match attempt? {
            Ok(signature) => {
                let value = URL_SAFE_NO_PAD.encode(signature);
                return Ok(Reply::ok(json!({ "signatureValue": value })));
            }
            Err(liars) => name(work, &mut holders, &liars),
        }
    }
    Err(busy())
}

/// A signature, or the share indexes of those who lied.
type Signed = Result<[u8; 64], Vec<u16>>;

/// This node's own share, if it has one.
pub(super) async fn open(work: &Work, target: &Target) -> Option<Arc<OpenKey>> {
    let (parts, record) = (work.parts.clone(), target.record.clone());
    let (keystore, key) = (target.keystore, target.key);
    let opened = parts.pool.run({
        let parts = parts.clone();
        move || parts.open_key(&keystore, &key, &record)
    });
    match opened.await {
        Ok(Ok(open)) => Some(open),
        Ok(Err(error)) => {
            tracing::debug!(%error, "this node coordinates without a share of its own");
            None
        }
        Err(_) => None,
    }
}

/// Names liars by share index: counted, logged, and not asked again.
pub(super) fn name(work: &Work, holders: &mut Holders, liars: &[u16]) {
    for index in liars {
        if let Some(member) = work.parts.membership.by_index(*index) {
            holders.name(work, member.node, "a contribution that does not verify");
        }
    }
}

/// Puts the decision on record once, for all tries.
pub(super) async fn on_record<'a>(
    weighed: &mut Option<Weighed>,
    decided: &'a mut Option<Decided>,
) -> Result<&'a Decided, Problem> {
    if let Some(weighed) = weighed.take() {
        let recorded = weighed.record().await.map_err(|abstention| match abstention {
            Abstention::Busy => busy(),
            other => Problem::unavailable(format!(
                "This node cannot contribute now ({other}); try another node."
            )),
        })?;
        *decided = Some(recorded);
    }
    decided.as_ref().ok_or_else(busy)
}

fn encode(commitments: &NonceCommitments) -> Vec<u8> {
    postcard::to_stdvec(commitments).unwrap_or_default()
}

async fn one_round(
    work: &Work,
    weighed: &mut Option<Weighed>,
    decided: &mut Option<Decided>,
    own: &Arc<OpenKey>,
    target: &Target,
    message: &Arc<[u8]>,
    holders: &mut Holders,
) -> Result<Signed, Problem> {
    let parts = &work.parts;
    let group = parts.group_of(&target.keystore);
    let ask = |node: u64, attempt: u8| {
        let (own, parts) = (own.clone(), parts.clone());
        let mut participants = vec![parts.node, node];
        participants.sort_unstable();
        let forwarded = work.forwarded(attempt, group, participants);
        async move {
            // A pair for each holder and attempt: never one commitment to two holders.
            let drawn = move || {
                let frame = frame(&forwarded.request, attempt, node);
                let drawn = frost::commit(&own.share, &frame, &mut OsRng);
                drawn.map(|(nonces, public)| ((nonces, public), Call::Cosign(forwarded, encode(&public))))
            };
            parts
                .pool
                .run(drawn)
                .await
                .map_err(|_| busy())?
                .map_err(|_| busy())
        }
    };
    let fits = |answer: &Answer| matches!(answer, Answer::Cosigned(..));
    let (gathered, recorded) = futures::join!(
        holders.gather::<(Nonces, NonceCommitments), _>(work, 1, fits, ask),
        on_record(weighed, decided)
    );
    recorded?;
    let Some((node, (nonces, public), Answer::Cosigned(theirs, share))) = gathered?.pop() else {
        return Err(busy());
    };
    let index = parts
        .membership
        .member(node)
        .map(|member| member.index)
        .ok_or_else(busy)?;
    let (own, message) = (own.clone(), message.clone());
    let finish = move || -> Signed {
        let lied = || Err(vec![index]);
        let (Ok(theirs), Ok(share)) = (postcard::from_bytes(&theirs), <[u8; 32]>::try_from(&share[..]))
        else {
            return lied();
        };
        let Some(context) = &own.context else {
            return Err(Vec::new());
        };
        let list = CommitmentList::from([(own.share.index(), public), (index, theirs)]);
        let Ok(mine) = frost::sign(nonces, &own.share, context, &message, &list) else {
            return lied();
        };
        let shares = BTreeMap::from([(own.share.index(), mine), (index, share)]);
        frost::aggregate(context, &message, &list, &shares).map_err(|culprits| culprits.members)
    };
    parts.pool.run(finish).await.map_err(|_| busy())
}

/// What a nonce is bound to beside the randomness: everything that tells this question from another.
fn frame(request: &[u8], attempt: u8, node: u64) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"conclave coordinator frame 1");
    hash.update(node.to_be_bytes());
    hash.update([attempt]);
    hash.update(request);
    hash.finalize().into()
}

async fn two_rounds(
    work: &Work,
    weighed: &mut Option<Weighed>,
    decided: &mut Option<Decided>,
    own: Option<&Arc<OpenKey>>,
    target: &Target,
    message: &Arc<[u8]>,
    holders: &mut Holders,
) -> Result<Signed, Problem> {
    let parts = &work.parts;
    let group = parts.group_of(&target.keystore);
    let needed = parts.membership.quorum() - usize::from(own.is_some());
    let ask = |node: u64, attempt: u8| {
        let forwarded = work.forwarded(attempt, group, vec![node]);
        async move { Ok((attempt, Call::Commit(forwarded))) }
    };
    let fits = |answer: &Answer| matches!(answer, Answer::Committed(_));
    let (gathered, recorded) = futures::join!(
        holders.gather::<u8, _>(work, needed, fits, ask),
        on_record(weighed, decided)
    );
    recorded?;
    let gathered = gathered?;

    let mut list: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
    let mut signers = Vec::new();
    for (node, attempt, answer) in gathered {
        let index = parts
            .membership
            .member(node)
            .map(|member| member.index)
            .ok_or_else(busy)?;
        let Answer::Committed(commitments) = answer else {
            return Ok(Err(vec![index]));
        };
        // Looked at before anybody else sees it: the others would refuse the list, and not know whose fault it is.
        if !postcard::from_bytes::<NonceCommitments>(&commitments).is_ok_and(|points| points.are_sound()) {
            return Ok(Err(vec![index]));
        }
        list.insert(index, commitments);
        signers.push((node, index, attempt));
    }
    let mut mine = None;
    if let Some(own) = own {
        let frame = frame(&work.request.encoded, 0, parts.node);
        let drawn = {
            let own = own.clone();
            move || frost::commit(&own.share, &frame, &mut OsRng)
        };
        let drawn = parts.pool.run(drawn).await.map_err(|_| busy())?;
        let (nonces, public) = drawn.map_err(|_| busy())?;
        list.insert(own.share.index(), encode(&public));
        mine = Some((own.clone(), nonces));
    }
    let shares = signers.iter().map(|(node, index, attempt)| {
        let call = Call::SignShare(work.operation, *attempt, list.clone());
        async move {
            let answer = parts.ask(*node, &call, SECOND_ROUND.min(work.left())).await;
            (*node, *index, answer)
        }
    });
    let mut shared = BTreeMap::new();
    let (mut liars, mut complete) = (Vec::new(), true);
    for (node, index, answer) in futures::future::join_all(shares).await {
        match answer {
            Ok(Answer::Signed(share)) => match <[u8; 32]>::try_from(&share[..]) {
                Ok(share) => drop(shared.insert(index, share)),
                Err(_) => liars.push(index),
            },
            // No lie: its nonces may have died with a connection. It is not asked again all the same.
            Ok(Answer::Misfit(_) | Answer::Abstained(_) | Answer::Refused(_)) | Err(_) => {
                holders.exclude(node);
                complete = false;
            }
            Ok(_) => liars.push(index),
        }
    }
    if !liars.is_empty() || !complete {
        return Ok(Err(liars));
    }
    let (record, message) = (target.record.clone(), message.clone());
    let finish = move || -> Result<Signed, Problem> {
        let commitment: Commitment = postcard::from_bytes(&record.commitment).map_err(|_| busy())?;
        let context = VerifyingContext::new(&commitment).map_err(|_| busy())?;
        let decoded = list
            .iter()
            .map(|(index, bytes)| postcard::from_bytes(bytes).map(|public| (*index, public)));
        let Ok(list) = decoded.collect::<Result<CommitmentList, _>>() else {
            return Ok(Err(Vec::new()));
        };
        if let Some((own, nonces)) = mine {
            let Ok(share) = frost::sign(nonces, &own.share, &context, &message, &list) else {
                return Ok(Err(Vec::new()));
            };
            shared.insert(own.share.index(), share);
        }
        Ok(frost::aggregate(&context, &message, &list, &shared).map_err(|culprits| culprits.members))
    };
    parts.pool.run(finish).await.map_err(|_| busy())?
}
