//! What is computed at a birth: an HMAC key's states, the check value.

use sha2::{Digest, Sha256};

use super::{Birth, Id, Stage, misfit};
use crate::actors::parts::Parts;
use crate::actors::symmetric::evaluate::Computation;
use crate::actors::symmetric::garble::Garbling;
use crate::actors::symmetric::tasks::{About, corrected, trio};
use crate::actors::wire::{Abstention, Answer, Computed, Roles};
use conclave_garbled::operations;
use conclave_garbled::session::{Context, Task};

/// What is computed at a birth.
fn task(birth: &Birth, computed: Computed) -> Task {
    match computed {
        Computed::States => operations::states(),
        Computed::Check => operations::check(&birth.key()),
    }
}

/// The context of a computation at a birth; the same on all three.
fn context(
    parts: &Parts,
    id: Id,
    birth: &Birth,
    (computed, roles): (Computed, &Roles),
    boot: [u8; 16],
) -> Option<Context> {
    let Stage::Shared(shared) = &birth.stage else {
        return None;
    };
    let mut sharings = Sha256::new_with_prefix(b"conclave birth 1");
    sharings.update(id);
    sharings.update(shared.live.0.digest);
    sharings.update(shared.raw.as_ref().map_or([0; 32], |raw| raw.0.digest));
    // The states are made before a correction is known, and by some holders once more afterwards.
    let correction = match computed {
        Computed::States => [0; 32],
        Computed::Check => shared.correction(),
    };
    sharings.update(correction);
    let about = About {
        cluster: *parts.cluster(),
        roles: roles.nodes,
        holders: &birth.holders,
        boot,
        number: roles.number,
        operation: birth.operation,
        attempt: birth.attempt,
    };
    Some(about.context(
        birth.key(),
        birth.terms.key_type,
        sharings.finalize().into(),
        birth.request.0,
    ))
}

/// This node as a garbler.
pub(super) fn garbling(
    parts: &Parts,
    id: Id,
    birth: &Birth,
    computed: Computed,
    roles: &Roles,
) -> Result<Garbling, Answer> {
    let unfit = || misfit("a garbling that does not fit the birth");
    let [first, second, evaluator] = roles.nodes;
    let boot = parts.network.boot_of(evaluator).ok_or(Abstention::Unpaired)?;
    let trio = trio(&birth.holders, roles.nodes).ok_or_else(unfit)?;
    let Stage::Shared(shared) = &birth.stage else {
        return Err(unfit());
    };
    if evaluator != birth.coordinator || ![first, second].contains(&parts.node) {
        return Err(unfit());
    }
    let live = shared.live.1.as_garbler(trio).map_err(|_| unfit())?;
    let secret = match computed {
        Computed::States => {
            let (_, raw) = shared.raw.as_ref().ok_or_else(unfit)?;
            let mut raw = raw.as_garbler(trio).map_err(|_| unfit())?;
            raw.common.extend_from_slice(&live.common);
            raw.own.extend_from_slice(&live.own);
            raw
        }
        // Before the states are known, what is shared is a mask and no key.
        Computed::Check if shared.raw.is_some() && shared.states.is_none() => return Err(unfit()),
        Computed::Check => corrected(live, &shared.correction()),
    };
    Ok(Garbling {
        context: context(parts, id, birth, (computed, roles), boot).ok_or_else(unfit)?,
        task: task(birth, computed),
        secret,
        circuit: roles.circuit,
    })
}

/// The same for this node as the evaluator of a birth that it coordinates.
pub(crate) fn computation(parts: &Parts, id: Id, computed: Computed, roles: &Roles) -> Option<Computation> {
    let births = parts.symmetric.births.lock();
    let birth = births.own(parts, &id)?;
    let Stage::Shared(shared) = &birth.stage else {
        return None;
    };
    let trio = trio(&birth.holders, roles.nodes)?;
    let live = shared.live.1.as_evaluator(trio).ok()?;
    let secret = match computed {
        Computed::States => {
            let mut raw = shared.raw.as_ref()?.1.as_evaluator(trio).ok()?;
            raw.first.extend_from_slice(&live.first);
            raw.second.extend_from_slice(&live.second);
            raw
        }
        Computed::Check => live,
    };
    Some(Computation {
        context: context(parts, id, birth, (computed, roles), parts.boot)?,
        task: task(birth, computed),
        secret,
    })
}

/// The evaluator has heard the same from both garblers.
pub(crate) fn heard(parts: &Parts, id: Id, computed: Computed, decoded: &[u8]) -> Option<()> {
    let mut births = parts.symmetric.births.lock();
    let birth = births
        .under_way
        .get_mut(&id)
        .filter(|birth| birth.coordinator == parts.node)?;
    birth.shared().ok()?.learn(computed, decoded)
}
