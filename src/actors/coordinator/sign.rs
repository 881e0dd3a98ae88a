//! Signatures by FROST. With a quorum of two the holder's commitment and share come in one round trip; with three,
//! or when this node's own share has not arrived yet, there are two.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conclave_threshold::frost::{self, CommitmentList, NonceCommitments, Nonces, VerifyingContext};
use rand::rngs::OsRng;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::busy;
use super::gather::{Contribution, Wave};
use super::using::{Use, committed};
use crate::actors::parts::OpenKey;
use crate::actors::wire::{Answer, Call};
use crate::problem::Problem;
use crate::reply::Reply;

/// Tries with other holders after one that lied.
const TRIES: usize = 3;
const SECOND_ROUND: Duration = Duration::from_millis(1_500);

/// A signature, or the share indexes of those who lied.
type Signed = Result<[u8; 64], Vec<u16>>;

/// Signs `message`.
pub(super) async fn sign(using: &mut Use<'_>, message: Vec<u8>) -> Result<Reply, Problem> {
    let message: Arc<[u8]> = message.into();
    let quorum = using.holders.committee().quorum();
    for _ in 0..TRIES {
        let signed = match using.own.clone() {
            Some(own) if quorum == 2 => one_round(using, own, &message).await?,
            own => two_rounds(using, own, &message).await?,
        };
        match signed {
            Ok(signature) => {
                let value = URL_SAFE_NO_PAD.encode(signature);
                return Ok(Reply::ok(json!({ "signatureValue": value })));
            }
            Err(liars) => using.name(&liars),
        }
    }
    Err(busy())
}

fn encode(commitments: &NonceCommitments) -> Vec<u8> {
    postcard::to_stdvec(commitments).unwrap_or_default()
}

async fn one_round(using: &mut Use<'_>, own: Arc<OpenKey>, message: &Arc<[u8]>) -> Result<Signed, Problem> {
    let (work, target) = (using.work, using.target);
    let ask = |node: u64,
               Wave {
                   attempt,
                   participants,
               }| {
        let own = own.clone();
        let forwarded = target.forwarded(work, attempt, participants);
        async move {
            // A pair for each holder and attempt: never one commitment to two holders. Some 30 us: a way to the pool and
            // back would cost as much.
            let frame = frame(&forwarded.request, attempt, node);
            let (nonces, public) = frost::commit(&own.share, &frame, &mut OsRng).map_err(|_| busy())?;
            let call = Call::Cosign(forwarded, encode(&public));
            Ok(((nonces, public), call))
        }
    };
    let fits = |answer: &Answer| matches!(answer, Answer::Cosigned(..));
    let (_, mut contributions) = using.gather::<(Nonces, NonceCommitments), _>(fits, ask).await?;
    let Some(Contribution {
        node,
        context: (nonces, public),
        answer: Answer::Cosigned(theirs, share),
    }) = contributions.pop()
    else {
        return Err(busy());
    };
    let index = using.index(node)?;
    let message = message.clone();
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
        let shares = BTreeMap::from([(index, share)]);
        frost::finish(nonces, &own.share, context, &message, &list, &shares)
            .map_err(|culprits| culprits.members)
    };
    using.aggregate(finish).await
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
    using: &mut Use<'_>,
    own: Option<Arc<OpenKey>>,
    message: &Arc<[u8]>,
) -> Result<Signed, Problem> {
    let (work, target) = (using.work, using.target);
    let parts = &work.parts;
    let ask = |_,
               Wave {
                   attempt,
                   participants,
               }| {
        let forwarded = target.forwarded(work, attempt, participants);
        async move { Ok(((), Call::Commit(forwarded))) }
    };
    let fits = |answer: &Answer| matches!(answer, Answer::Committed(_));
    let (wave, contributions) = using.gather::<(), _>(fits, ask).await?;

    let mut list: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
    let mut signers = Vec::new();
    for Contribution { node, answer, .. } in contributions {
        let index = using.index(node)?;
        let Answer::Committed(commitments) = answer else {
            return Ok(Err(vec![index]));
        };
        // Looked at before anybody else sees it: the others would refuse the list, and not know whose fault it is.
        if !postcard::from_bytes::<NonceCommitments>(&commitments).is_ok_and(|points| points.are_sound()) {
            return Ok(Err(vec![index]));
        }
        list.insert(index, commitments);
        signers.push((node, index));
    }
    let mut mine = None;
    if let Some(own) = own {
        let frame = frame(&work.request.encoded, wave.attempt, parts.node);
        let drawn = {
            let own = own.clone();
            move || frost::commit(&own.share, &frame, &mut OsRng)
        };
        let drawn = parts.pool.run(drawn).await?;
        let (nonces, public) = drawn.map_err(|_| busy())?;
        list.insert(own.share.index(), encode(&public));
        mine = Some((own, nonces));
    }
    let shares = signers.iter().map(|(node, index)| {
        let call = Call::SignShare(work.operation, wave.attempt, list.clone());
        async move {
            let answer = work.ask(*node, &call, SECOND_ROUND.min(work.left())).await;
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
                using.holders.exclude(node);
                complete = false;
            }
            Ok(_) => liars.push(index),
        }
    }
    if !liars.is_empty() || !complete {
        return Ok(Err(liars));
    }
    let (record, message) = (using.target.record.clone(), message.clone());
    let finish = move || -> Result<Signed, Problem> {
        let own = mine.as_ref().map(|(own, _)| own.clone());
        let made;
        let context = match own.as_ref().and_then(|own| own.context.as_ref()) {
            Some(context) => context,
            None => {
                made = VerifyingContext::new(&committed(&record)?).map_err(|_| busy())?;
                &made
            }
        };
        let decoded = list
            .iter()
            .map(|(index, bytes)| postcard::from_bytes(bytes).map(|public| (*index, public)));
        let Ok(list) = decoded.collect::<Result<CommitmentList, _>>() else {
            return Ok(Err(Vec::new()));
        };
        let signed = match mine {
            Some((own, nonces)) => frost::finish(nonces, &own.share, context, &message, &list, &shared),
            None => frost::aggregate(context, &message, &list, &shared),
        };
        Ok(signed.map_err(|culprits| culprits.members))
    };
    using.aggregate(finish).await?
}
