//! What the new holders of a symmetric key that moves compute before they sign: its check value, with two garblers at a time for
//! the coordinator, until every other one has decoded it itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use conclave_garbled::operations;
use conclave_garbled::session::Context;
use sha2::{Digest, Sha256};

use super::keys::by_node;
use super::{ended, misfit};
use crate::actors::holder::key_name;
use crate::actors::parts::Parts;
use crate::actors::renewals::{Id, OfKey, Renewing};
use crate::actors::symmetric::evaluate::Computation;
use crate::actors::symmetric::garble::{self, Garbling};
use crate::actors::symmetric::resharing::Resharing;
use crate::actors::symmetric::tasks::{About, corrected, trio};
use crate::actors::wire::{Abstention, Answer, RenewCompute, Roles};

/// One step, of the key at this place. A renewal is taken out while it works, and put back: whatever fails ends it.
pub(in crate::actors::holder) async fn compute(
    parts: &Arc<Parts>,
    from: u64,
    id: Id,
    place: u8,
    step: RenewCompute,
) -> Answer {
    let computed = try_compute(parts, from, id, place, step).await;
    computed.unwrap_or_else(|answer| {
        parts.renewals.lock().end_of(&id, from);
        answer
    })
}

async fn try_compute(
    parts: &Arc<Parts>,
    from: u64,
    id: Id,
    place: u8,
    step: RenewCompute,
) -> Result<Answer, Answer> {
    let renewing = parts.renewals.lock().take(&id, from);
    let mut renewing = renewing.ok_or_else(|| ended("a step of a renewal that is not under way"))?;
    let answer = match step {
        RenewCompute::Agree(messages) => {
            moved(&mut renewing, place)?
                .agree(&by_node(parts, &messages))
                .map_err(ended)?;
            Answer::Confirmed
        }
        RenewCompute::Garble(roles) => {
            let garbling = garbling(parts, &id, &renewing, place, &roles)?;
            let (answer, kept) = garble::garble(parts, garbling).await?;
            moved(&mut renewing, place)?.keep(kept);
            answer
        }
        RenewCompute::Decode(labels) => {
            let decoded = moved(&mut renewing, place)?.decode(&labels);
            Answer::Message(decoded.map_err(misfit)?.to_vec())
        }
    };
    parts.renewals.lock().keep(&id, renewing);
    Ok(answer)
}

fn moved(renewing: &mut Renewing, place: u8) -> Result<&mut Resharing, Answer> {
    let of_key = renewing.keys.get_mut(usize::from(place));
    let moved = of_key.and_then(OfKey::moved_mut);
    moved.ok_or_else(|| misfit("a computation on a key that does not move"))
}

/// The context of a computation; the same on all three.
fn context(
    parts: &Parts,
    id: &Id,
    renewing: &Renewing,
    place: u8,
    (roles, boot): (&Roles, [u8; 16]),
) -> Option<Context> {
    let of_key = renewing.keys.get(usize::from(place))?;
    let resharing = of_key.moved()?;
    let [session, pieces] = resharing.digests()?;
    let correction = of_key.record.material.sharing()?.correction;
    let sharing = Sha256::new_with_prefix(b"conclave reshared 1")
        .chain_update(session)
        .chain_update(pieces)
        .chain_update(correction);
    let about = About {
        cluster: *parts.cluster(),
        roles: roles.nodes,
        holders: resharing.holders(),
        boot,
        number: roles.number,
        operation: renewing.operation,
        attempt: 1,
    };
    let key = key_name(&renewing.keystore, &of_key.key);
    // No client asks for it: in place of the request stands the renewal.
    Some(about.context(key, of_key.record.key_type, sharing.finalize().into(), *id))
}

/// This node as a garbler.
fn garbling(
    parts: &Parts,
    id: &Id,
    renewing: &Renewing,
    place: u8,
    roles: &Roles,
) -> Result<Garbling, Answer> {
    let unfit = || misfit("a garbling that does not fit the renewal");
    let [first, second, evaluator] = roles.nodes;
    if evaluator != renewing.coordinator || ![first, second].contains(&parts.node) {
        return Err(unfit());
    }
    let boot = parts.network.boot_of(evaluator).ok_or(Abstention::Unpaired)?;
    let of_key = renewing.keys.get(usize::from(place)).ok_or_else(unfit)?;
    let (resharing, sharing) = (of_key.moved(), of_key.record.material.sharing());
    let (resharing, sharing) = resharing.zip(sharing).ok_or_else(unfit)?;
    let trio = trio(resharing.holders(), roles.nodes).ok_or_else(unfit)?;
    let secret = resharing.as_garbler(trio).ok_or_else(unfit)?;
    Ok(Garbling {
        context: context(parts, id, renewing, place, (roles, boot)).ok_or_else(unfit)?,
        task: operations::check(&key_name(&renewing.keystore, &of_key.key)),
        secret: corrected(secret, &sharing.correction),
        circuit: roles.circuit,
    })
}

/// The symmetric keys of a renewal that move, each by its place with who will hold it: what this node, as the coordinator, has
/// them compute.
pub(crate) fn moving(parts: &Parts, id: &Id) -> BTreeMap<u8, Vec<u64>> {
    let renewals = parts.renewals.lock();
    let keys = renewals
        .kept(id, parts.node)
        .map_or(&[][..], |renewing| &renewing.keys);
    let moving = (0..).zip(keys);
    moving
        .filter_map(|(place, of_key)| Some((place, of_key.moved()?.holders().to_vec())))
        .collect()
}

/// The same computation for this node as the evaluator.
pub(crate) fn computation(parts: &Parts, id: &Id, place: u8, roles: &Roles) -> Option<Computation> {
    let renewals = parts.renewals.lock();
    let renewing = renewals.kept(id, parts.node)?;
    let of_key = renewing.keys.get(usize::from(place))?;
    let resharing = of_key.moved()?;
    let trio = trio(resharing.holders(), roles.nodes)?;
    Some(Computation {
        context: context(parts, id, renewing, place, (roles, parts.boot))?,
        task: operations::check(&key_name(&renewing.keystore, &of_key.key)),
        secret: resharing.as_evaluator(trio)?,
    })
}

/// The evaluator has heard the same from both garblers.
pub(crate) fn heard(parts: &Parts, id: &Id, place: u8, decoded: &[u8]) -> Option<()> {
    let mut renewals = parts.renewals.lock();
    let renewing = renewals.kept_mut(id, parts.node)?;
    let resharing = renewing.keys.get_mut(usize::from(place))?.moved_mut()?;
    resharing.learn(decoded.try_into().ok()?).ok()
}
