//! Taking part in the generation of a key: the rounds of the ceremony, the share and the record on disk, then the
//! signature over the outcome, which is this participant's endorsement.
//!
//! A question that was answered is answered the same again. Who refuses, abstains or fails is on its own record as
//! having declined the operation, so that others may go on without it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use conclave_consensus::GroupId;
use conclave_shares::{KeptEnvelope, ShareId};
use conclave_threshold::dkg::{Outcome, Participant};
use conclave_threshold::envelope::SealedShare;
use conclave_threshold::{Fault, Member, Purpose as SharePurpose, Session, SessionTerms};
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::contribute::key_name;
use super::{asked, examine, witness};
use crate::actors::ceremonies::{Ceremony, Id};
use crate::actors::conduct::Abort;
use crate::actors::decide::{Decided, Purpose, weigh};
use crate::actors::parts::Parts;
use crate::actors::wire::{Abstention, Answer, Beginning, Call, Forwarded, Round};
use crate::identifier::OperationId;
use crate::keystore::command::GeneratedKey;
use crate::keystore::record::{KeyType, Material, Purpose as KeyPurpose};
use crate::keystore::{Command, Statement, query};
use crate::membership::Membership;
use crate::operation::judge::{Intent, NewKeyTerms};
use crate::problem::Problem;

/// Longest wait for a member's word on whether it takes part.
pub(super) const STANDING: Duration = Duration::from_secs(1);

/// What is kept for a member that was away: everything that it needs beside the replicated state.
#[derive(Serialize, Deserialize)]
pub struct Sealed {
    /// Dealers' round 1 messages, so that a bad envelope can be laid at somebody's door.
    pub packages: BTreeMap<u16, Vec<u8>>,
    /// One envelope of every dealer.
    pub envelopes: Vec<SealedShare>,
}

/// What is said in a ceremony; the error is the answer that says nothing in it.
type Said = Result<(Id, Answer), Answer>;

/// Answers a coordinator's question of any round.
pub(super) async fn round(parts: &Arc<Parts>, from: u64, call: Call) -> Answer {
    let asked = witness::digest(&call);
    let (operation, round, said) = match call {
        Call::Begin(forwarded, beginning, aborts) => {
            let operation = Some(forwarded.operation).filter(|operation| operation.node == from);
            let said = begin(parts, from, forwarded, beginning, aborts).await;
            (operation, Round::Hash, said)
        }
        Call::Continue(id, round, messages) => {
            let session = parts.ceremonies.lock().session(&id, from);
            let operation = session.map(|(_, operation)| operation);
            (operation, round, proceed(parts, from, id, round, messages).await)
        }
        _ => return Answer::Misfit("no question of a generation".into()),
    };
    let mut ceremonies = parts.ceremonies.lock();
    match said {
        Ok((id, answer)) => {
            ceremonies.say(&id, round, asked, &answer);
            answer
        }
        Err(answer) => {
            if let Some(operation) = operation {
                ceremonies.conduct.decline(operation);
            }
            answer
        }
    }
}

/// First round: judge the request, check the proposal, draw the polynomial.
async fn begin(
    parts: &Arc<Parts>,
    from: u64,
    forwarded: Forwarded,
    beginning: Beginning,
    aborts: Vec<Abort>,
) -> Said {
    let request = examine(parts, from, &forwarded).await?;
    let weighed = weigh(parts, &request, asked(Purpose::Endorse, from, &forwarded)).await?;
    let Intent::Generate(terms) = &weighed.judgement.intent else {
        return misfit("a ceremony for a request that generates no key");
    };
    match exists(parts, terms) {
        Some(false) => {}
        Some(true) => {
            let problem = Problem::new(409, "DuplicateError", "Duplicate identifier.");
            return Err(weighed.refuse(problem).into());
        }
        None => return Err(Abstention::Behind.into()),
    }
    let committee = parts.roster(weighed.group)?.births().clone();
    if let Err(reason) = check(parts, &committee, from, &beginning, weighed.now) {
        return misfit(reason);
    }
    let operation = forwarded.operation;
    witness::learn(parts, from, operation, aborts).await;
    let id = ceremony_id(&committee, &forwarded, terms, &beginning, &request.hash);
    if let Some(said) = parts.ceremonies.lock().said(&id, Round::Hash) {
        return Ok((id, said));
    }
    let nodes = beginning.nodes();
    let key = (terms.key_type, 0, key_name(&terms.keystore, &terms.key));
    let Some(session) = session_of(&committee, key, id, &nodes) else {
        return misfit("terms that make no session");
    };
    let begun = {
        let parts = parts.clone();
        move || {
            let me = committee.member(parts.node).map_or(0, |member| member.index);
            Participant::begin(session, me, &parts.signing_key, &mut OsRng)
        }
    };
    let begun = parts.pool.run(begun).await.map_err(|_| Abstention::Busy)?;
    let (participant, message) = begun.map_err(|fault| faulty(parts, (operation, id), fault))?;
    let authenticated = &request.authenticated;
    let named = (
        request.hash,
        authenticated.name,
        authenticated.expires.saturating_mul(1_000),
    );
    let begun = Ceremony::new((from, operation), beginning, weighed, named, participant);
    match parts.ceremonies.lock().begin(id, begun) {
        true => Ok((id, Answer::Message(message))),
        false => Err(Abstention::Busy.into()),
    }
}

fn misfit<T>(reason: &str) -> Result<T, Answer> {
    Err(Answer::Misfit(reason.into()))
}

/// Whether the key is there already: an operation makes one key (trust.md 2: taken identifiers are refused).
pub(super) fn exists(parts: &Parts, terms: &NewKeyTerms) -> Option<bool> {
    let view = parts.consensus.view(parts.group_of(&terms.keystore)).ok()?;
    let record = query::key(&view, &terms.keystore, &terms.key).ok()?;
    Some(record.is_some())
}

/// What a participant can check of the coordinator's proposal by itself.
pub(super) fn check(
    parts: &Parts,
    committee: &Membership,
    from: u64,
    beginning: &Beginning,
    now: u64,
) -> Result<(), &'static str> {
    let nodes = beginning.nodes();
    if !super::endorse::close(beginning.start, now) {
        return Err("a ceremony that began at another time");
    }
    if beginning.configuration != committee.index {
        return Err("a ceremony of another configuration");
    }
    if !nodes.windows(2).all(|pair| pair[0] < pair[1]) || !nodes.contains(&from) {
        return Err("participants that are not ascending, or leave out the coordinator");
    }
    if nodes.len() < committee.quorum() || nodes.iter().any(|node| committee.member(*node).is_none()) {
        return Err("too few participants, or one who is no member");
    }
    let mine = beginning
        .participants
        .iter()
        .find(|(node, _)| *node == parts.node);
    if mine.is_none_or(|(_, boot)| *boot != parts.boot) {
        return Err("a ceremony of another boot of this node");
    }
    Ok(())
}

/// The ceremony's id: everything that the participants agree on.
pub(crate) fn ceremony_id(
    committee: &Membership,
    forwarded: &Forwarded,
    terms: &NewKeyTerms,
    beginning: &Beginning,
    request: &[u8; 32],
) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"conclave ceremony 1");
    hash.update(committee.cluster);
    hash.update(forwarded.operation.to_bytes());
    hash.update([forwarded.attempt]);
    hash.update(beginning.start.to_be_bytes());
    hash.update(request);
    hash.update(key_name(&terms.keystore, &terms.key));
    hash.update((terms.key_type.name().len() as u64).to_be_bytes());
    hash.update(terms.key_type.name());
    let (n, k) = (committee.members.len(), committee.quorum());
    for number in [
        0,
        n as u64,
        k as u64,
        beginning.configuration,
        beginning.participants.len() as u64,
    ] {
        hash.update(number.to_be_bytes());
    }
    for (node, boot) in &beginning.participants {
        hash.update(node.to_be_bytes());
        hash.update(boot);
    }
    hash.finalize().into()
}

/// The threshold crate's session of a ceremony: derived, never received.
pub fn session_of(
    membership: &Membership,
    key: (KeyType, u64, Vec<u8>),
    ceremony: [u8; 32],
    participants: &[u64],
) -> Option<Session> {
    Session::new(terms_of(membership, key, ceremony, participants)?).ok()
}

/// A member as a session has it.
pub(super) fn in_session(member: &crate::membership::Member) -> Member {
    Member {
        index: member.index,
        verifying_key: member.verifying_key.to_bytes(),
        envelope_key: member.envelope_key,
    }
}

/// Its terms; those of a renewal lack the constants.
pub(super) fn terms_of(
    membership: &Membership,
    (key_type, epoch, name): (KeyType, u64, Vec<u8>),
    ceremony: [u8; 32],
    participants: &[u64],
) -> Option<SessionTerms> {
    let members = membership.members.iter().map(in_session);
    let index = |node: &u64| membership.member(*node).map(|member| member.index);
    Some(SessionTerms {
        cluster: membership.cluster,
        ceremony,
        key: name,
        key_type: key_type.name().to_owned(),
        purpose: match key_type.purpose() {
            KeyPurpose::Sign => SharePurpose::Sign,
            KeyPurpose::DeriveSecret => SharePurpose::Agree,
            KeyPurpose::Authenticate | KeyPurpose::WrapKey => return None,
        },
        epoch,
        threshold: u16::try_from(membership.quorum()).ok()?,
        members: members.collect(),
        participants: participants
            .iter()
            .map(index)
            .collect::<Option<BTreeSet<u16>>>()?,
        leaving: Vec::new(),
        constants: BTreeMap::new(),
    })
}

/// A later round.
async fn proceed(
    parts: &Arc<Parts>,
    from: u64,
    id: Id,
    round: Round,
    messages: BTreeMap<u16, Vec<u8>>,
) -> Said {
    let ceremony = {
        let mut ceremonies = parts.ceremonies.lock();
        match ceremonies.said(&id, round) {
            Some(said) if ceremonies.coordinator(&id) == Some(from) => return Ok((id, said)),
            _ => ceremonies.take(&id, from),
        }
    };
    let Some(ceremony) = ceremony else {
        return misfit("a round of a ceremony that is not under way");
    };
    if !ceremony.weighed.is_fresh() {
        return misfit("a ceremony that took longer than its decision is good for");
    }
    let answer = match round {
        Round::Hash => return misfit("a first round that is called as a later one"),
        Round::Package | Round::Deal => middle(parts, id, ceremony, round, messages).await?,
        Round::Outcome => finish(parts, id, ceremony, messages).await?,
    };
    Ok((id, answer))
}

async fn middle(
    parts: &Arc<Parts>,
    id: Id,
    mut ceremony: Ceremony,
    round: Round,
    messages: BTreeMap<u16, Vec<u8>>,
) -> Result<Answer, Answer> {
    let (operation, turn) = (ceremony.operation, ceremony.weighed.turn());
    let work = move || {
        let message = match round {
            Round::Package => ceremony.participant.packages(&messages),
            _ => ceremony.participant.deal(&messages, &mut OsRng),
        };
        (ceremony, message)
    };
    let worked = parts.pool.run_in(turn, work).await;
    let (ceremony, message) = worked.map_err(|_| Abstention::Busy)?;
    let message = message.map_err(|fault| faulty(parts, (operation, id), fault))?;
    parts.ceremonies.lock().put_back(id, ceremony);
    Ok(Answer::Message(message))
}

/// A fault ends the ceremony. Whom it names has signed what is wrong, so this node knows it for itself.
fn faulty(parts: &Parts, (operation, id): (OperationId, Id), fault: Fault) -> Answer {
    let named = fault
        .culprits
        .iter()
        .filter_map(|index| parts.directory.by_index(*index));
    let culprit = named.map(|member| member.node).next();
    tracing::warn!(reason = %fault.reason, ?culprit, "a ceremony ends without a key");
    if let Some(node) = culprit {
        parts.name_liar(node, &fault.reason.to_string());
        parts.ceremonies.lock().conduct.fell(operation, node);
    }
    let signer = (parts.node, &parts.signing_key);
    let abort = Abort::sign((operation, id), signer, culprit, fault.evidence);
    Answer::Aborted(Box::new(abort))
}

/// Last round: the share on disk and the decision on record, then the signature.
async fn finish(
    parts: &Arc<Parts>,
    id: Id,
    ceremony: Ceremony,
    messages: BTreeMap<u16, Vec<u8>>,
) -> Result<Answer, Answer> {
    let Ceremony {
        coordinator,
        operation,
        beginning,
        weighed,
        request,
        named,
        participant,
        ..
    } = ceremony;
    let work = {
        let parts = parts.clone();
        move || participant.finish(&messages, &parts.envelope_key)
    };
    let outcome = parts.pool.run_in(weighed.turn(), work).await;
    let outcome = outcome.map_err(|_| Abstention::Busy)?;
    let outcome = outcome.map_err(|fault| faulty(parts, (operation, id), fault))?;
    let committee = parts.numbered(weighed.group, beginning.configuration)?;
    // The rule is for those that a coordinator leads, not for itself.
    if coordinator != parts.node
        && let Err(node) =
            absent_are_away(parts, operation, weighed.group, left_out(&committee, &beginning)).await
    {
        return misfit(&format!("node {node} was left out and is there"));
    }
    let Intent::Generate(terms) = weighed.judgement.intent.clone() else {
        return misfit("a ceremony for a request that generates no key");
    };
    let Some(generated) = generated(id, &terms, &beginning, &outcome) else {
        return misfit("an outcome that is no key");
    };
    let started = beginning.start;
    let stored = tokio::task::spawn_blocking({
        let parts = parts.clone();
        let generated = generated.clone();
        move || store(&parts, &generated, &outcome, started)
    });
    let (stored, decided) = futures::join!(stored, weighed.record());
    let decided = decided?;
    if !matches!(stored, Ok(Ok(()))) {
        tracing::error!("a share could not be written: the ceremony is not signed");
        return Err(Abstention::Audit.into());
    }
    Ok(signed(
        parts,
        &decided,
        operation,
        (request, named.0, named.1),
        generated,
    ))
}

/// This member's signature over a new key, of the client's request with this hash, name and expiry (ms).
pub(super) fn signed(
    parts: &Parts,
    decided: &Decided,
    operation: OperationId,
    (request, name, expires): ([u8; 32], [u8; 32], u64),
    generated: GeneratedKey,
) -> Answer {
    let statement = Statement {
        cluster: *parts.cluster(),
        group: decided.group.0,
        operation,
        request,
        name,
        expires,
        command: Command::GenerateKey(Box::new(generated)),
        state_version: decided.judgement.state_version,
        chain: decided.judgement.chain.clone(),
    };
    let endorsement = statement.endorse(parts.node, &parts.signing_key, decided.now);
    Answer::Generated(Box::new(statement), endorsement)
}

fn left_out(committee: &Membership, beginning: &Beginning) -> Vec<u64> {
    let nodes = beginning.nodes();
    let members = committee.nodes().into_iter();
    members.filter(|node| !nodes.contains(node)).collect()
}

/// A participant signs without a member only if it has no link to it itself, knows for itself that it fell out, or
/// has asked it itself and heard that it refused, or nothing within a second: a coordinator cannot choose whom to
/// leave out.
pub(super) async fn absent_are_away(
    parts: &Arc<Parts>,
    operation: OperationId,
    group: GroupId,
    left_out: impl IntoIterator<Item = u64>,
) -> Result<(), u64> {
    for node in left_out {
        let known = parts.ceremonies.lock().conduct.may_be_left_out(&operation, node);
        if known || !parts.network.connected(node) {
            continue;
        }
        let standing = Call::Standing(operation, group.0);
        if let Ok(Answer::Standing { refused: false }) = parts.ask(node, &standing, STANDING).await {
            return Err(node);
        }
        parts.ceremonies.lock().conduct.fell(operation, node);
    }
    Ok(())
}

fn generated(
    session: [u8; 32],
    terms: &NewKeyTerms,
    beginning: &Beginning,
    outcome: &Outcome,
) -> Option<GeneratedKey> {
    let public_key = match terms.key_type.purpose() {
        KeyPurpose::Sign => outcome.commitment.public_key(),
        KeyPurpose::DeriveSecret => outcome.commitment.montgomery(),
        KeyPurpose::Authenticate | KeyPurpose::WrapKey => return None,
    };
    Some(GeneratedKey {
        keystore: terms.keystore,
        key: terms.key,
        key_type: terms.key_type,
        alias: terms.alias.clone(),
        max_chain_length: terms.max_chain_length,
        epoch: outcome.commitment.epoch(),
        session,
        start: beginning.start,
        configuration: beginning.configuration,
        participants: beginning.nodes(),
        away: outcome.envelopes.keys().copied().collect(),
        transcript: outcome.transcript,
        material: Material::Pair {
            commitment: postcard::to_stdvec(&outcome.commitment).ok()?,
            public_key,
        },
    })
}

/// The name of a share of a new key.
pub(super) fn share_id(generated: &GeneratedKey) -> ShareId {
    ShareId {
        keystore: generated.keystore.0,
        key: generated.key.0,
        session: generated.session,
        key_type: generated.key_type.name().to_owned(),
        epoch: generated.epoch,
    }
}

/// The share, and for each member that was away everything that it will need.
fn store(parts: &Parts, generated: &GeneratedKey, outcome: &Outcome, started: u64) -> Result<(), StoreError> {
    let id = share_id(generated);
    let mut kept = Vec::new();
    for (member, envelopes) in &outcome.envelopes {
        let sealed = Sealed {
            packages: outcome.packages.clone(),
            envelopes: envelopes.clone(),
        };
        kept.push(KeptEnvelope {
            member: *member,
            bytes: postcard::to_stdvec(&sealed)?,
        });
    }
    parts
        .shares
        .put(&id, &outcome.share.to_sealed_bytes(), &kept, started)?;
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error(transparent)]
    Encoding(#[from] postcard::Error),
    #[error(transparent)]
    Shares(#[from] conclave_shares::Error),
}
