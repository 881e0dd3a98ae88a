//! Shared secrets by threshold X25519: partial results of a quorum, every proof verified before anything is used.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conclave_threshold::Commitment;
use conclave_threshold::diffie_hellman::{self, Context};
use rand::rngs::OsRng;
use serde_json::json;
use zeroize::Zeroizing;

use super::gather::{Holders, Target};
use super::sign::{name, on_record, open};
use super::{Work, busy};
use crate::actors::decide::Weighed;
use crate::actors::holder::key_name;
use crate::actors::wire::{Answer, Call};
use crate::problem::Problem;
use crate::reply::Reply;

/// Tries with other holders after one that lied.
const TRIES: usize = 3;

/// The secret shared with the holder of `u`.
pub(super) async fn derive(
    work: &Work,
    weighed: Weighed,
    target: &Target,
    u: [u8; 32],
) -> Result<Reply, Problem> {
    if let Err(refused) = diffie_hellman::lift(u) {
        return Err(Problem::not_authorized(
            "DataError",
            format!("The given public key is not acceptable: {refused}."),
        ));
    }
    let parts = &work.parts;
    let group = parts.group_of(&target.keystore);
    let own = open(work, target).await;
    let needed = parts.membership.quorum() - usize::from(own.is_some());
    let (mut weighed, mut decided) = (Some(weighed), None);
    let mut holders = Holders::new(work);
    for _ in 0..TRIES {
        let ask = |node: u64, attempt: u8| {
            let mut participants = vec![parts.node, node];
            participants.sort_unstable();
            let forwarded = work.forwarded(attempt, group, participants);
            async move { Ok(((), Call::Derive(forwarded))) }
        };
        let fits = |answer: &Answer| matches!(answer, Answer::Derived(_));
        let (gathered, recorded) = futures::join!(
            holders.gather::<(), _>(work, needed, fits, ask),
            on_record(&mut weighed, &mut decided)
        );
        recorded?;
        let mut partials = BTreeMap::new();
        for (node, (), answer) in gathered? {
            let index = parts
                .membership
                .member(node)
                .map(|member| member.index)
                .ok_or_else(busy)?;
            let Answer::Derived(partial) = answer else {
                continue;
            };
            partials.insert(index, Zeroizing::new(partial));
        }
        let combine = {
            let (own, record, operation) = (own.clone(), target.record.clone(), work.operation.to_bytes());
            let (cluster, key) = (parts.membership.cluster, key_name(&target.keystore, &target.key));
            move || -> Result<Result<Zeroizing<[u8; 32]>, Vec<u16>>, Problem> {
                let commitment: Commitment = postcard::from_bytes(&record.commitment).map_err(|_| busy())?;
                let context = Context {
                    cluster: &cluster,
                    operation: &operation,
                    key: &key,
                };
                let peer = diffie_hellman::lift(u).map_err(|_| busy())?;
                if let Some(own) = own {
                    let mine = diffie_hellman::partial(&own.share, &commitment, &context, &peer, &mut OsRng);
                    partials.insert(own.share.index(), mine.map_err(|_| busy())?);
                }
                Ok(diffie_hellman::combine(&commitment, &context, &peer, &partials)
                    .map_err(|culprits| culprits.members))
            }
        };
        match parts.pool.run(combine).await.map_err(|_| busy())?? {
            Ok(secret) => {
                return Ok(Reply::ok(
                    json!({ "secret": URL_SAFE_NO_PAD.encode(&secret[..]) }),
                ));
            }
            Err(liars) => name(work, &mut holders, &liars),
        }
    }
    Err(busy())
}
