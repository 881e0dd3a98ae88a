//! Shared secrets by threshold X25519: partial results of a quorum, every proof verified before anything is used.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conclave_threshold::diffie_hellman::{self, Context};
use rand::rngs::OsRng;
use serde_json::json;
use zeroize::Zeroizing;

use super::busy;
use super::gather::{Contribution, Wave};
use super::using::{Use, committed};
use crate::actors::holder::key_name;
use crate::actors::wire::{Answer, Call};
use crate::problem::Problem;
use crate::reply::Reply;

/// Tries with other holders after one that lied.
const TRIES: usize = 3;

/// The secret shared with the holder of `u`.
pub(super) async fn derive(using: &mut Use<'_>, u: [u8; 32]) -> Result<Reply, Problem> {
    let peer = diffie_hellman::lift(u).map_err(|refused| {
        Problem::not_authorized(
            "DataError",
            format!("The given public key is not acceptable: {refused}."),
        )
    })?;
    let (work, target) = (using.work, using.target);
    let parts = &work.parts;
    for _ in 0..TRIES {
        let ask = |_,
                   Wave {
                       attempt,
                       participants,
                   }| {
            let forwarded = target.forwarded(work, attempt, participants);
            async move { Ok(((), Call::Derive(forwarded))) }
        };
        let fits = |answer: &Answer| matches!(answer, Answer::Derived(_));
        let (_, contributions) = using.gather(fits, ask).await?;
        let mut partials = BTreeMap::new();
        for Contribution { node, answer, .. } in contributions {
            if let Answer::Derived(partial) = answer {
                partials.insert(using.index(node)?, Zeroizing::new(partial));
            }
        }
        let combine = {
            let (own, record) = (using.own.clone(), target.record.clone());
            let (operation, key) = (work.operation.to_bytes(), key_name(&target.keystore, &target.key));
            let cluster = *parts.cluster();
            move || -> Result<Result<Zeroizing<[u8; 32]>, Vec<u16>>, Problem> {
                let commitment = committed(&record)?;
                let context = Context {
                    cluster: &cluster,
                    operation: &operation,
                    key: &key,
                };
                if let Some(own) = own {
                    let mine = diffie_hellman::partial(&own.share, &commitment, &context, &peer, &mut OsRng);
                    partials.insert(own.share.index(), mine.map_err(|_| busy())?);
                }
                Ok(diffie_hellman::combine(&commitment, &context, &peer, &partials)
                    .map_err(|culprits| culprits.members))
            }
        };
        match using.aggregate(combine).await?? {
            Ok(secret) => {
                return Ok(Reply::ok(
                    json!({ "secret": URL_SAFE_NO_PAD.encode(&secret[..]) }),
                ));
            }
            Err(liars) => using.name(&liars),
        }
    }
    Err(busy())
}
