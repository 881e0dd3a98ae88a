//! One participant's word about another: a coordinator that got nothing from a member asks the others to ask it. Who
//! answers them takes part after all; who does not may be left out, because each of them has seen it for itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use conclave_threshold::dkg::is_signed;
use conclave_threshold::{Edwards25519, Session};
use sha2::{Digest, Sha256};

use super::endorse::near;
use super::generate::STANDING;
use crate::actors::ceremonies::Id;
use crate::actors::conduct::Abort;
use crate::actors::parts::Parts;
use crate::actors::wire::{Answer, Call, MAX_ABORTS, Round};
use crate::identifier::OperationId;

/// What two nodes compare when they ask the same.
pub(crate) fn digest(call: &Call) -> [u8; 32] {
    Sha256::digest(call.encode()).into()
}

/// Whether an answer says something in a round of a ceremony, signed by `node`. The outcome is signed over what this
/// node signed itself.
pub(crate) fn says(
    parts: &Parts,
    (session, id): (&Session, &Id),
    round: Round,
    node: u64,
    answer: &Answer,
) -> bool {
    let Some(member) = parts.member(node) else {
        return false;
    };
    match (round, answer) {
        (_, Answer::Message(message)) => round
            .number()
            .is_some_and(|number| is_signed::<Edwards25519>(session, number, member.index, message)),
        (Round::Outcome, Answer::Generated(_, endorsement)) => {
            match parts.ceremonies.lock().said(id, round) {
                // All must sign: one whose clock is off would spoil the others' signatures.
                Some(Answer::Generated(ours, own)) => {
                    endorsement.node == node
                        && near(endorsement.time, own.time)
                        && ours.is_endorsed(endorsement, &member.verifying_key)
                }
                _ => false,
            }
        }
        _ => false,
    }
}

/// Puts a question that this node was asked itself to another participant.
pub(super) async fn ask(parts: &Arc<Parts>, from: u64, call: Call, node: u64) -> Answer {
    let Some((id, round)) = asked_itself(parts, &call) else {
        return Answer::Misfit("a question to relay that was not asked here".into());
    };
    let Some((session, operation)) = parts.ceremonies.lock().session(&id, from) else {
        return Answer::Misfit("a ceremony of another coordinator".into());
    };
    let member = parts.member(node);
    let takes_part = member.is_some_and(|member| session.terms().participants.contains(&member.index));
    if !takes_part || node == parts.node || node == from {
        return Answer::Misfit("a member that cannot be asked about".into());
    }
    if parts.network.connected(node) {
        let relayed = parts.ask(node, &relaying(parts, node, &call), STANDING).await;
        if let Ok(answer) = relayed
            && says(parts, (&session, &id), round, node, &answer)
        {
            return answer;
        }
    }
    parts.ceremonies.lock().conduct.fell(operation, node);
    Answer::Standing { refused: true }
}

/// A question as another node hears it from this one.
fn relaying(parts: &Parts, node: u64, call: &Call) -> Call {
    Call::Relayed(call.encode_in(parts.speaks(node)).unwrap_or_default())
}

/// The ceremony and round of a question that this node was asked, exactly so.
fn asked_itself(parts: &Parts, call: &Call) -> Option<(Id, Round)> {
    let asked = digest(call);
    let ceremonies = parts.ceremonies.lock();
    let (id, round) = match call {
        Call::Begin(..) => (ceremonies.begun_by(&asked)?, Round::Hash),
        Call::Continue(id, round, _) => (*id, *round),
        _ => return None,
    };
    ceremonies.was_asked(&id, round, &asked).then_some((id, round))
}

/// A coordinator's question by way of another participant, answered as if the coordinator had put it. A later round
/// must come with what everybody signed: a relay cannot end a ceremony.
pub(super) async fn relayed(parts: &Arc<Parts>, from: u64, call: Call) -> Answer {
    let coordinator = match &call {
        Call::Begin(forwarded, beginning, _) => {
            let mut nodes = beginning.participants.iter().map(|(node, _)| *node);
            nodes.any(|node| node == from).then_some(forwarded.operation.node)
        }
        Call::Continue(id, round, messages) => {
            let coordinator = parts.ceremonies.lock().coordinator(id);
            coordinator.filter(|coordinator| {
                let session = parts.ceremonies.lock().session(id, *coordinator);
                session.is_some_and(|(session, _)| is_whole(parts, &session, from, *round, messages))
            })
        }
        _ => None,
    };
    match coordinator.filter(|node| *node != parts.node) {
        Some(coordinator) => super::generate::round(parts, coordinator, call).await,
        None => Answer::Misfit("a relayed question that does not fit".into()),
    }
}

/// Whether a participant relays what all participants signed in the round before.
fn is_whole(
    parts: &Parts,
    session: &Session,
    from: u64,
    round: Round,
    messages: &BTreeMap<u16, Vec<u8>>,
) -> bool {
    let Some(before) = round.before().and_then(Round::number) else {
        return false;
    };
    let participants = &session.terms().participants;
    parts
        .member(from)
        .is_some_and(|member| participants.contains(&member.index))
        && messages.keys().eq(participants)
        && messages
            .iter()
            .all(|(sender, message)| is_signed::<Edwards25519>(session, before, *sender, message))
}

/// Learns why earlier attempts of an operation ended, as far as it is signed or proven.
pub(super) async fn learn(parts: &Arc<Parts>, from: u64, operation: OperationId, aborts: Vec<Abort>) {
    for abort in aborts.into_iter().take(MAX_ABORTS) {
        let member = parts.member(abort.node);
        if abort.operation != operation
            || !member.is_some_and(|member| abort.is_signed(&member.verifying_key))
        {
            continue;
        }
        let convicted = convicted(parts, from, &abort);
        parts.ceremonies.lock().conduct.aborted(&abort, convicted);
    }
}

/// Whom the evidence of an abort proves to have lied, in a ceremony that this node was in.
pub(crate) fn convicted(parts: &Parts, coordinator: u64, abort: &Abort) -> Option<u64> {
    let evidence = abort.evidence.as_ref()?;
    let (session, _) = parts.ceremonies.lock().session(&abort.ceremony, coordinator)?;
    let index = evidence.convicts::<Edwards25519>(&session)?;
    Some(parts.directory.by_index(index)?.node)
}
