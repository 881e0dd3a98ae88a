//! Taking part in the generation of a key: the rounds of the ceremony, the share and the record on disk, then the
//! signature over the outcome, which is this participant's endorsement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use conclave_consensus::GroupId;
use conclave_shares::KeptEnvelope;
use conclave_threshold::dkg::{Outcome, Participant};
use conclave_threshold::envelope::SealedShare;
use conclave_threshold::{Fault, Member, Purpose as SharePurpose, Session, SessionTerms};
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::contribute::key_name;
use super::{asked, examine};
use crate::actors::ceremonies::Ceremony;
use crate::actors::decide::{Purpose, weigh};
use crate::actors::parts::Parts;
use crate::actors::wire::{Abstention, Answer, Beginning, Call, Forwarded, Round};
use crate::keystore::command::GeneratedKey;
use crate::keystore::record::{KeyType, Purpose as KeyPurpose};
use crate::keystore::{Command, Statement, query};
use crate::membership::Membership;
use crate::operation::judge::{Intent, NewKeyTerms};
use crate::problem::Problem;

/// What is kept for a member that was away: everything that it needs beside the replicated state.
#[derive(Serialize, Deserialize)]
pub struct Sealed {
    /// Dealers' round 1 messages, so that a bad envelope can be laid at somebody's door.
    pub packages: BTreeMap<u16, Vec<u8>>,
    /// One envelope of every dealer.
    pub envelopes: Vec<SealedShare>,
}

/// First round: judge the request, check the proposal, draw the polynomial.
pub(super) async fn begin(
    parts: &Arc<Parts>,
    from: u64,
    forwarded: Forwarded,
    beginning: Beginning,
) -> Answer {
    let request = match examine(parts, from, &forwarded).await {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    let weighed = match weigh(parts, &request, asked(Purpose::Endorse, from, &forwarded)).await {
        Ok(weighed) => weighed,
        Err(declined) => return declined.into(),
    };
    let Intent::Generate(terms) = &weighed.judgement.intent else {
        return Answer::Misfit("a ceremony for a request that generates no key".into());
    };
    match exists(parts, terms) {
        Some(false) => {}
        Some(true) => {
            let problem = Problem::new(409, "DuplicateError", "Duplicate identifier.");
            return weighed.refuse(problem).into();
        }
        None => return Answer::Abstained(Abstention::Behind),
    }
    if let Err(reason) = check(parts, from, &beginning, weighed.now) {
        return Answer::Misfit(reason.into());
    }
    let ceremony = ceremony_id(parts, &forwarded, terms, &beginning, &request.hash);
    let nodes: Vec<u64> = beginning.participants.iter().map(|(node, _)| *node).collect();
    let key = (terms.key_type, 0, key_name(&terms.keystore, &terms.key));
    let session = match session_of(&parts.membership, key, ceremony, &nodes) {
        Some(session) => session,
        None => return Answer::Misfit("terms that make no session".into()),
    };
    let begun = {
        let parts = parts.clone();
        move || {
            let me = parts
                .membership
                .member(parts.node)
                .map_or(0, |member| member.index);
            Participant::begin(session, me, &parts.signing_key, &mut OsRng)
        }
    };
    let (participant, message) = match parts.pool.run(begun).await {
        Ok(Ok(begun)) => begun,
        Ok(Err(fault)) => return faulty(parts, ceremony, &fault),
        Err(_) => return Answer::Abstained(Abstention::Busy),
    };
    let authenticated = &request.authenticated;
    let named = (
        request.hash,
        authenticated.name,
        authenticated.expires.saturating_mul(1_000),
    );
    let begun = Ceremony::new(
        (from, forwarded.operation),
        beginning,
        weighed,
        named,
        participant,
    );
    match parts.ceremonies.lock().begin(ceremony, begun) {
        true => Answer::Message(message),
        false => Answer::Abstained(Abstention::Busy),
    }
}

/// Whether the key is there already: an operation makes one key (trust.md 2: taken identifiers are refused).
fn exists(parts: &Parts, terms: &NewKeyTerms) -> Option<bool> {
    let view = parts.consensus.view(parts.group_of(&terms.keystore)).ok()?;
    let record = query::key(&view, &terms.keystore, &terms.key).ok()?;
    Some(record.is_some())
}

/// What a participant can check of the coordinator's proposal by itself.
fn check(parts: &Parts, from: u64, beginning: &Beginning, now: u64) -> Result<(), &'static str> {
    let nodes: Vec<u64> = beginning.participants.iter().map(|(node, _)| *node).collect();
    if !super::endorse::close(beginning.start, now) {
        return Err("a ceremony that began at another time");
    }
    if beginning.configuration != parts.membership.index {
        return Err("a ceremony of another configuration");
    }
    if !nodes.windows(2).all(|pair| pair[0] < pair[1]) || !nodes.contains(&from) {
        return Err("participants that are not ascending, or leave out the coordinator");
    }
    if nodes.len() < parts.membership.quorum()
        || nodes.iter().any(|node| parts.membership.member(*node).is_none())
    {
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
    parts: &Parts,
    forwarded: &Forwarded,
    terms: &NewKeyTerms,
    beginning: &Beginning,
    request: &[u8; 32],
) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"conclave ceremony 1");
    hash.update(parts.membership.cluster);
    hash.update(forwarded.operation.to_bytes());
    hash.update([forwarded.attempt]);
    hash.update(beginning.start.to_be_bytes());
    hash.update(request);
    hash.update(key_name(&terms.keystore, &terms.key));
    hash.update((terms.key_type.name().len() as u64).to_be_bytes());
    hash.update(terms.key_type.name());
    let (n, k) = (parts.membership.members.len(), parts.membership.quorum());
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
    (key_type, epoch, name): (KeyType, u64, Vec<u8>),
    ceremony: [u8; 32],
    participants: &[u64],
) -> Option<Session> {
    let members = membership.members.iter().map(|member| Member {
        index: member.index,
        verifying_key: member.verifying_key.to_bytes(),
        envelope_key: member.envelope_key,
    });
    let index = |node: &u64| membership.member(*node).map(|member| member.index);
    let terms = SessionTerms {
        cluster: membership.cluster,
        ceremony,
        key: name,
        key_type: key_type.name().to_owned(),
        purpose: match key_type.purpose() {
            KeyPurpose::Sign => SharePurpose::Sign,
            KeyPurpose::DeriveSecret => SharePurpose::Agree,
        },
        epoch,
        threshold: u16::try_from(membership.quorum()).ok()?,
        members: members.collect(),
        participants: participants
            .iter()
            .map(index)
            .collect::<Option<BTreeSet<u16>>>()?,
    };
    Session::new(terms).ok()
}

/// A later round.
pub(super) async fn proceed(
    parts: &Arc<Parts>,
    from: u64,
    id: [u8; 32],
    round: Round,
    messages: BTreeMap<u16, Vec<u8>>,
) -> Answer {
    let Some(ceremony) = parts.ceremonies.lock().take(&id, from) else {
        return Answer::Misfit("a round of a ceremony that is not under way".into());
    };
    if !ceremony.weighed.is_fresh() {
        parts.ceremonies.lock().over(id, false);
        return Answer::Misfit("a ceremony that took longer than its decision is good for".into());
    }
    match round {
        Round::Packages | Round::Deal => middle(parts, id, ceremony, round, messages).await,
        Round::Finish => finish(parts, id, ceremony, messages).await,
    }
}

async fn middle(
    parts: &Arc<Parts>,
    id: [u8; 32],
    mut ceremony: Ceremony,
    round: Round,
    messages: BTreeMap<u16, Vec<u8>>,
) -> Answer {
    let work = move || {
        let message = match round {
            Round::Packages => ceremony.participant.packages(&messages),
            _ => ceremony.participant.deal(&messages, &mut OsRng),
        };
        (ceremony, message)
    };
    match parts.pool.run(work).await {
        Err(_) => Answer::Abstained(Abstention::Busy),
        Ok((_, Err(fault))) => faulty(parts, id, &fault),
        Ok((ceremony, Ok(message))) => {
            parts.ceremonies.lock().put_back(id, ceremony);
            Answer::Message(message)
        }
    }
}

fn faulty(parts: &Parts, id: [u8; 32], fault: &Fault) -> Answer {
    parts.ceremonies.lock().over(id, false);
    for index in &fault.culprits {
        if let Some(member) = parts.membership.by_index(*index) {
            parts.name_liar(member.node, &fault.reason.to_string());
        }
    }
    Answer::Misfit(fault.reason.to_string())
}

/// Last round: the share on disk and the decision on record, then the signature.
async fn finish(
    parts: &Arc<Parts>,
    id: [u8; 32],
    ceremony: Ceremony,
    messages: BTreeMap<u16, Vec<u8>>,
) -> Answer {
    let Ceremony {
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
    let outcome = match parts.pool.run(work).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(fault)) => return faulty(parts, id, &fault),
        Err(_) => return Answer::Abstained(Abstention::Busy),
    };
    if let Err(node) = absent_are_away(parts, id, weighed.group, &beginning).await {
        parts.ceremonies.lock().over(id, false);
        return Answer::Misfit(format!("node {node} was left out and is there"));
    }
    let Intent::Generate(terms) = weighed.judgement.intent.clone() else {
        return Answer::Misfit("a ceremony for a request that generates no key".into());
    };
    let generated = match generated(id, &terms, &beginning, &outcome) {
        Some(generated) => generated,
        None => return Answer::Misfit("an outcome that is no key".into()),
    };
    let started = beginning.start;
    let stored = tokio::task::spawn_blocking({
        let parts = parts.clone();
        let generated = generated.clone();
        move || store(&parts, &generated, &outcome, started)
    });
    let (stored, decided) = futures::join!(stored, weighed.record());
    let decided = match decided {
        Ok(decided) => decided,
        Err(abstention) => return Answer::Abstained(abstention),
    };
    if !matches!(stored, Ok(Ok(()))) {
        tracing::error!("a share could not be written: the ceremony is not signed");
        return Answer::Abstained(Abstention::Audit);
    }
    parts.ceremonies.lock().over(id, true);
    let statement = Statement {
        cluster: parts.membership.cluster,
        group: decided.group.0,
        operation,
        request,
        name: named.0,
        expires: named.1,
        command: Command::GenerateKey(Box::new(generated)),
        state_version: decided.judgement.state_version,
        chain: decided.judgement.chain.clone(),
    };
    let endorsement = statement.endorse(parts.node, &parts.signing_key, decided.now);
    Answer::Generated(Box::new(statement), endorsement)
}

/// A participant signs without a member only if it has no link to it itself, or has asked it itself and heard that
/// it refused, or nothing within a second: a coordinator cannot choose whom to leave out.
async fn absent_are_away(
    parts: &Arc<Parts>,
    id: [u8; 32],
    group: GroupId,
    beginning: &Beginning,
) -> Result<(), u64> {
    let takes_part = |node: u64| {
        beginning
            .participants
            .iter()
            .any(|(participant, _)| *participant == node)
    };
    for member in parts
        .membership
        .members
        .iter()
        .filter(|member| !takes_part(member.node))
    {
        if !parts.network.connected(member.node) {
            continue;
        }
        match parts
            .ask(member.node, &Call::Standing(id, group.0), Duration::from_secs(1))
            .await
        {
            Ok(Answer::Standing { refused: false }) => return Err(member.node),
            _ => continue,
        }
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
        participants: beginning.participants.iter().map(|(node, _)| *node).collect(),
        away: outcome.envelopes.keys().copied().collect(),
        transcript: outcome.transcript,
        commitment: postcard::to_stdvec(&outcome.commitment).ok()?,
        public_key,
    })
}

/// The share, and for each member that was away everything that it will need.
fn store(parts: &Parts, generated: &GeneratedKey, outcome: &Outcome, started: u64) -> Result<(), StoreError> {
    let id = conclave_shares::ShareId {
        keystore: generated.keystore.0,
        key: generated.key.0,
        session: generated.session,
        key_type: generated.key_type.name().to_owned(),
        epoch: generated.epoch,
    };
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
