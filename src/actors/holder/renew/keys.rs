//! One key of a renewal, in the protocol of its kind: a key pair's by redistribution, a symmetric key's by refreshed pieces or,
//! where it moves to other holders, by resharing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use conclave_garbled::held::Held;
use conclave_garbled::live::Live;
use conclave_garbled::reshare;
use conclave_threshold::dkg::{Outcome, Participant, renewal};
use conclave_threshold::{Commitment, Fault, Session};
use rand::rngs::OsRng;
use zeroize::Zeroizing;

use super::ended;
use crate::actors::holder::generate::{in_session, terms_of};
use crate::actors::holder::{births, key_name};
use crate::actors::parts::{OpenError, Parts};
use crate::actors::renewals::{OfKey, Protocol, Renewing};
use crate::actors::symmetric::refreshing::{self, Refreshing, Said, Secrets};
use crate::actors::symmetric::resharing::Resharing;
use crate::actors::symmetric::tasks::{LIVE, digest};
use crate::actors::symmetric::{self, pairing};
use crate::actors::wire::{Answer, Round, ToRenew};
use crate::identifier::LocalId;
use crate::keystore::KeyRecord;
use crate::keystore::command::RenewedKey;
use crate::keystore::record::{KeyType, Material, Purpose, Sharing};
use crate::membership::{Member, Membership};

/// How one key begins.
pub(super) enum Begun {
    /// With this node's first message.
    UnderWay(Box<OfKey>, Vec<u8>),
    /// This node was to deal, and has no share.
    Lacking(LocalId),
}

/// Begins with one key; in the pool.
pub(super) fn begin(
    parts: &Parts,
    committees: (&Membership, &Membership),
    coordinator: u64,
    keystore: &LocalId,
    (to_renew, record): (ToRenew, KeyRecord),
    session: [u8; 32],
) -> Result<Begun, Answer> {
    let ToRenew { key, dealers, .. } = to_renew;
    let moves = committees.0.index != committees.1.index;
    let begun = match record.material.sharing() {
        None => renew(parts, committees, (keystore, &key), &record, session, &dealers)?,
        Some(sharing) => {
            let holders = match moves {
                true => births::holders(committees.1, coordinator, (keystore, &key)),
                false => sharing.holders.clone(),
            };
            // A holder that does not deal has lost its part, or leaves: the others give the key to who is to hold it.
            let stays = |node: &u64| committees.1.member(*node).is_some() && dealers.contains(node);
            let stay = holders.len() == sharing.holders.len() && sharing.holders.iter().all(stays);
            let of_key = (keystore, &key, &record, sharing);
            match stay {
                true => refresh(parts, of_key, session)?,
                false => {
                    if !moves {
                        check_repair(parts, of_key, coordinator, &dealers)?;
                    }
                    reshare(parts, of_key, session, (holders, &dealers))?
                }
            }
        }
    };
    let Some((protocol, message)) = begun else {
        return Ok(Begun::Lacking(key));
    };
    let of_key = OfKey {
        key,
        record,
        session,
        protocol,
    };
    Ok(Begun::UnderWay(Box::new(of_key), message))
}

/// This node's part of one key pair, as a dealer if it has a share; none if it was to deal and has none. Whoever has a share
/// deals: a coordinator chooses nobody.
fn renew(
    parts: &Parts,
    (before, committee): (&Membership, &Membership),
    (keystore, key): (&LocalId, &LocalId),
    record: &KeyRecord,
    session: [u8; 32],
    dealers: &[u64],
) -> Result<Option<(Protocol, Vec<u8>)>, Answer> {
    let open = match parts.open_key(keystore, key, record) {
        Ok(open) => Some(open),
        Err(OpenError::NoShare) => None,
        Err(error) => return Err(ended(error)),
    };
    let epoch = record
        .epoch
        .checked_add(1)
        .ok_or_else(|| ended("the last epoch"))?;
    let of_key = (record.key_type, epoch, key_name(keystore, key));
    let terms = terms_of(committee, of_key, session, &[]);
    let mut terms = terms.ok_or_else(|| ended("a renewal of a key that is no pair"))?;
    let dealing = dealers.iter().map(|dealer| before.member(*dealer));
    let dealing: Vec<&Member> = dealing
        .collect::<Option<_>>()
        .ok_or_else(|| ended("dealers that are no members"))?;
    terms.participants = dealing.iter().map(|member| member.index).collect();
    let leaving = dealing
        .iter()
        .filter(|member| committee.member(member.node).is_none());
    terms.leaving = leaving.map(|member| in_session(member)).collect();
    let (commitment, _) = record.material.pair().ok_or_else(|| ended("no key pair"))?;
    let commitment: Commitment = postcard::from_bytes(commitment).map_err(ended)?;
    let constants = renewal::constants(&commitment, terms.participants.iter().copied());
    terms.constants = constants.ok_or_else(|| ended("too few that have a share of the key"))?;
    let session = Session::new(terms).map_err(ended)?;
    let mine = committee.member(parts.node).or_else(|| before.member(parts.node));
    let me = mine.map_or(0, |member| member.index);
    let moves = before.index != committee.index;
    let begun = match (open, dealers.contains(&parts.node)) {
        (Some(open), true) => Participant::renew(session, me, &parts.signing_key, &open.share, &mut OsRng),
        // Where a key moves, as many of its holders deal as are needed.
        (Some(_), false) if moves => Participant::receive(session, me).map(|receiver| (receiver, Vec::new())),
        (None, false) => Participant::receive(session, me).map(|receiver| (receiver, Vec::new())),
        (None, true) => return Ok(None),
        (Some(_), false) => {
            return Err(ended("a renewal in which this node deals nothing of what it has"));
        }
    };
    let (participant, message) = begun.map_err(|fault| faulty(parts, fault))?;
    Ok(Some((Protocol::Pair(Box::new(participant)), message)))
}

/// A symmetric key as the state has it.
type Symmetric<'a> = (&'a LocalId, &'a LocalId, &'a KeyRecord, &'a Sharing);

/// This node's part in new pieces for the same holders; none if it has lost its own. In the pool.
fn refresh(
    parts: &Parts,
    of_key: Symmetric<'_>,
    session: [u8; 32],
) -> Result<Option<(Protocol, Vec<u8>)>, Answer> {
    let (_, _, _, sharing) = of_key;
    let held = match sharing.number(parts.node) {
        Some(_) => match held(parts, of_key)? {
            None => return Ok(None),
            held => held,
        },
        None => None,
    };
    let own = (parts.node, held);
    let begun = Refreshing::begin((session, live(parts, of_key)), &sharing.holders, own, &mut OsRng);
    let (refreshing, message) = begun.map_err(ended)?;
    Ok(Some((Protocol::Pieces(Box::new(refreshing)), message)))
}

/// Whether a key is dealt anew to the same holders, of whom some have lost their parts, as it has to be: whoever has one deals, so that a
/// coordinator chooses nobody.
fn check_repair(
    parts: &Parts,
    of_key: Symmetric<'_>,
    coordinator: u64,
    dealers: &[u64],
) -> Result<(), Answer> {
    let (_, _, _, sharing) = of_key;
    if !sharing.holders.contains(&coordinator) {
        // It could not compute the check value with them.
        return Err(ended("a repair that one of the key's holders has to lead"));
    }
    let is_left_out = sharing.number(parts.node).is_some() && !dealers.contains(&parts.node);
    if is_left_out && held(parts, of_key)?.is_some() {
        return Err(ended("a renewal in which this node deals nothing of what it has"));
    }
    Ok(())
}

/// This node's part in moving a key to these holders: those that hold it deal, as far as they are dealers of this renewal. None
/// if this node was to deal and has lost its part. In the pool.
fn reshare(
    parts: &Parts,
    of_key: Symmetric<'_>,
    session: [u8; 32],
    (holders, dealers): (Vec<u64>, &[u64]),
) -> Result<Option<(Protocol, Vec<u8>)>, Answer> {
    let (_, _, _, sharing) = of_key;
    let number = |node: &u64| sharing.number(*node);
    let session = reshare::Session {
        id: session,
        live: live(parts, of_key),
        dealers: dealers.iter().filter_map(number).collect(),
        holders,
        away: None,
        check: sharing.check,
    };
    let held = match number(&parts.node).is_some_and(|me| session.dealers.contains(&me)) {
        true => match held(parts, of_key)? {
            None => return Ok(None),
            held => held,
        },
        false => None,
    };
    let begun = Resharing::begin(session, &sharing.holders, (parts.node, held));
    let resharing = begun.map_err(ended)?;
    Ok(Some((Protocol::Moved(Box::new(resharing)), Vec::new())))
}

/// This node's part of what is live; none if it has not arrived, or is lost.
fn held(parts: &Parts, (keystore, key, record, _): Symmetric<'_>) -> Result<Option<Held>, Answer> {
    match symmetric::open(parts, (keystore, key), record) {
        Ok(open) => Ok(Some(Held::clone(&open))),
        Err(OpenError::NoShare) => Ok(None),
        Err(error) => Err(ended(error)),
    }
}

fn live(parts: &Parts, (keystore, key, record, sharing): Symmetric<'_>) -> Live {
    Live {
        cluster: *record.birthplace(parts.cluster()),
        key: key_name(keystore, key),
        epoch: record.epoch,
        sharing: LIVE,
        commitments: sharing.pieces.clone(),
        inner: sharing.inner,
    }
}

/// A fault ends the renewal; the old shares stay.
fn faulty(parts: &Parts, fault: Fault) -> Answer {
    for index in &fault.culprits {
        if let Some(member) = parts.directory.by_index(*index) {
            parts.name_liar(member.node, &fault.reason.to_string());
        }
    }
    ended(fault.reason)
}

/// What this node shares with the other holders of symmetric keys; nothing if there is no such key.
pub(super) async fn secrets(parts: &Arc<Parts>, renewing: &Renewing) -> Result<Secrets, Answer> {
    let mut secrets = Secrets::new();
    let mut nodes: BTreeSet<u64> = BTreeSet::new();
    for of_key in &renewing.keys {
        match (&of_key.protocol, of_key.record.material.sharing()) {
            (Protocol::Moved(resharing), _) => nodes.extend(resharing.correspondents()),
            (_, Some(sharing)) if sharing.number(parts.node).is_some() => nodes.extend(&sharing.holders),
            _ => {}
        }
    }
    for node in nodes.into_iter().filter(|node| *node != parts.node) {
        secrets.insert(node, pairing::with(parts, node).await?);
    }
    Ok(secrets)
}

/// A round between the first and the last, of one key; in the pool.
pub(super) fn go_on(
    parts: &Parts,
    protocol: &mut Protocol,
    round: Round,
    messages: &BTreeMap<u16, Vec<u8>>,
    secrets: &Secrets,
) -> Result<Vec<u8>, Answer> {
    match (protocol, round) {
        (Protocol::Pair(participant), Round::Package) => participant
            .packages(messages)
            .map_err(|fault| faulty(parts, fault)),
        (Protocol::Pair(participant), _) => {
            let dealt = participant.deal(messages, &mut OsRng);
            dealt.map_err(|fault| faulty(parts, fault))
        }
        (Protocol::Pieces(refreshing), Round::Package) => {
            refreshing.open(&by_node(parts, messages), secrets).map_err(ended)
        }
        (Protocol::Pieces(refreshing), _) => refreshing
            .combine(&by_node(parts, messages), secrets)
            .map_err(ended),
        (Protocol::Moved(resharing), Round::Package) => resharing.deal(secrets).map_err(ended),
        (Protocol::Moved(resharing), _) => resharing
            .combine(&by_node(parts, messages), secrets)
            .map_err(ended),
    }
}

/// Messages by node in place of share index.
pub(super) fn by_node<'a>(parts: &Parts, messages: &'a BTreeMap<u16, Vec<u8>>) -> Said<'a> {
    let members = parts.directory.all().into_iter();
    let said = members.filter_map(|member| Some((member.node, &messages.get(&member.index)?[..])));
    said.collect()
}

/// One key's new share, for this node's disk, and what the state is to say of it.
pub(super) struct Finished {
    pub(super) new: RenewedKey,
    pub(super) key_type: KeyType,
    /// None if this node holds no part.
    pub(super) share: Option<Zeroizing<Vec<u8>>>,
}

/// What everybody is to know of a key's new shares, the digest of the ceremony, and this node's share if it is to have one.
type New = (Material, [u8; 32], Option<Zeroizing<Vec<u8>>>);

/// What came of one key; in the pool.
pub(super) fn outcome(
    parts: &Parts,
    of_key: OfKey,
    messages: &BTreeMap<u16, Vec<u8>>,
) -> Result<Finished, Answer> {
    let OfKey {
        key,
        record,
        session,
        protocol,
    } = of_key;
    let (material, transcript, share) = match protocol {
        Protocol::Pair(participant) => {
            let outcome = participant.finish(messages, &parts.envelope_key);
            let outcome = outcome.map_err(|fault| faulty(parts, fault))?;
            let share = outcome.share.to_sealed_bytes();
            (same_pair(&record, &outcome)?, outcome.transcript, Some(share))
        }
        Protocol::Pieces(refreshing) => {
            let outcome = refreshing.agree(&by_node(parts, messages)).map_err(ended)?;
            same_secret(&record, outcome, None)?
        }
        Protocol::Moved(resharing) => {
            let holders = resharing.holders().to_vec();
            let concluded = resharing.conclude(&by_node(parts, messages));
            let outcome = concluded.map_err(|reason| {
                tracing::error!(%key, reason, "a symmetric key is not moved: the shares that there are stay");
                ended(reason)
            })?;
            same_secret(&record, outcome, Some(holders))?
        }
    };
    let epoch = record
        .epoch
        .checked_add(1)
        .ok_or_else(|| ended("the last epoch"))?;
    Ok(Finished {
        new: RenewedKey {
            key,
            replaces: record.session,
            epoch,
            session,
            transcript,
            material,
        },
        key_type: record.key_type,
        share,
    })
}

/// The same symmetric key in new pieces, of the same holders or of others.
fn same_secret(
    record: &KeyRecord,
    outcome: refreshing::Outcome,
    holders: Option<Vec<u64>>,
) -> Result<New, Answer> {
    let sharing = record.material.sharing();
    let sharing = sharing.ok_or_else(|| ended("no symmetric key"))?;
    let renewed = Sharing {
        holders: holders.unwrap_or_else(|| sharing.holders.clone()),
        pieces: outcome.agreed.commitments,
        ..sharing.clone()
    };
    let share = outcome.held.map(|held| held.to_bytes());
    let transcript = digest(&renewed);
    Ok((Material::Pieces(renewed), transcript, share))
}

/// The same key pair, shared anew; nothing else.
fn same_pair(record: &KeyRecord, outcome: &Outcome) -> Result<Material, Answer> {
    let (_, public_key) = record.material.pair().ok_or_else(|| ended("no key pair"))?;
    let same = match record.key_type.purpose() {
        Purpose::Sign => outcome.commitment.public_key() == *public_key,
        Purpose::DeriveSecret => outcome.commitment.montgomery() == *public_key,
        Purpose::Authenticate | Purpose::WrapKey => false,
    };
    if !same {
        return Err(ended("a renewal that came to another key"));
    }
    Ok(Material::Pair {
        commitment: postcard::to_stdvec(&outcome.commitment).map_err(ended)?,
        public_key: *public_key,
    })
}
