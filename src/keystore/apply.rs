//! Applying an entry: signatures, time, version, revocations, repeats; then the command.
//!
//! Every replica runs this on the same entries and must come to the same bytes, whatever build it is: nothing here
//! reads a clock, and the capability verifier is not called (its verdict is what the endorsers signed).

use super::command::{Command, GeneratedKey};
use super::config::KeystoreConfig;
use super::entry::{Entry, Statement};
use super::layout;
use super::members;
use super::outcome::{Outcome, Rejection, Reply};
use super::query;
use super::record::{KeyRecord, KeystoreRecord, Material, Meter, Repeat, RevocationRecord, Sharing};
use super::renewal;
use super::state::{StateError, WriteState};
use crate::identifier::LocalId;
use crate::keystore::{Roster, Rosters};
use crate::membership::Membership;
use crate::operator::{Change, SignedOrder};

/// Endorsements of one entry lie within this of each other, ms.
const TIME_SPREAD: u64 = 5_000;
/// An entry's oldest endorsement may lie this far below the group's time, ms.
const ENDORSEMENT_LIFE: u64 = 10_000;
/// The same for a key, whose ceremony takes longer, ms.
pub const CEREMONY_LIFE: u64 = 30_000;
/// Twins of a creating request come within this of the first, entry time, ms.
const TWIN_WINDOW: u64 = 2_000;
/// At most this many of one name.
const MAX_TWINS: u8 = 16;
/// How long after a request's `expires` its name is remembered, ms: for the verifier's clock skew an honest member
/// still endorses it, and that endorsement lives for [`CEREMONY_LIFE`].
const NAME_MEMORY: u64 = 300_000 + CEREMONY_LIFE + 1_000;
/// How long after a capability's expiry its revocation is kept, ms.
pub const REVOCATION_MEMORY: u64 = 24 * 3_600_000;
/// Live revocations of one revoker who is no controller.
const MAX_REVOCATIONS: u32 = 10_000;
/// Expired records deleted with each entry.
const SWEEP: usize = 32;

/// Applies one entry to its group's state.
///
/// # Errors
/// Only if the store fails; an entry that may not change anything is an [`Outcome::Refused`].
pub fn apply(
    entry: &Entry,
    group: u32,
    rosters: &Rosters,
    state: &mut impl WriteState,
) -> Result<Outcome, StateError> {
    let statement = &entry.statement;
    let roster = &*rosters.of(state)?;
    let by_operation = layout::operation(&statement.operation);
    let last_time = query::last_time(state)?;
    let endorsed_at = match endorsed(entry, group, roster) {
        Ok(time) => time,
        Err(reason) => return Ok(Outcome::Refused(Rejection::NotEndorsed(reason.to_owned()))),
    };
    // Looked up only once the signatures hold: a stranger must not learn or use another operation's outcome.
    if !matches!(statement.command, Command::Time)
        && let Some(outcome) = state.record::<Outcome>(&by_operation)?
    {
        return Ok(outcome);
    }
    let life = match statement.command {
        Command::GenerateKey(_) | Command::RenewShares(_) => CEREMONY_LIFE,
        _ => ENDORSEMENT_LIFE,
    };
    if endorsed_at.saturating_add(life) < last_time {
        return Ok(Outcome::Refused(Rejection::Stale));
    }
    let time = endorsed_at.max(last_time);
    state.put_record(layout::LAST_TIME, &time)?;
    sweep(time, state)?;

    let outcome = match change(statement, time, (rosters, roster), state)? {
        Ok(reply) => Outcome::Applied(reply),
        Err(rejection) => Outcome::Refused(rejection),
    };
    // A stale entry's operation may come again with fresh endorsements; every other outcome is final.
    let is_final = !matches!(&outcome, Outcome::Refused(rejection) if rejection.is_stale());
    if is_final && !matches!(statement.command, Command::Time) {
        state.put_record(&by_operation, &outcome)?;
        let forgotten = match statement.command {
            // No request that expires.
            Command::Order(_) | Command::CompleteMove(_) | Command::BeginMove(_) => {
                time.saturating_add(NAME_MEMORY)
            }
            _ => name_forgotten(statement),
        };
        let forget = forgotten.min(time.saturating_add(2 * 600_000));
        state.put(&layout::expiry(forget, &by_operation), &[])?;
    }
    Ok(outcome)
}

/// Whether an entry carries the endorsements that it must carry in `group`: whoever shows one without them lies.
pub fn is_endorsed(entry: &Entry, group: u32, roster: &Roster) -> bool {
    endorsed(entry, group, roster).is_ok()
}

/// Checks the signatures; the smallest of their times, or what is wrong.
fn endorsed(entry: &Entry, group: u32, roster: &Roster) -> Result<u64, &'static str> {
    let statement = &entry.statement;
    if statement.cluster != roster.current.cluster {
        return Err("another cluster");
    }
    if statement.group != group {
        return Err("another group");
    }
    if !matches!(statement.command, Command::Time) && request_hash(&entry.request) != statement.request {
        return Err("the request is not the one that was endorsed");
    }
    if entry.endorsements.len() > roster.deciders().len() {
        return Err("more endorsements than members");
    }
    let mut seen = Vec::new();
    for endorsement in &entry.endorsements {
        let member = roster
            .decider(endorsement.node)
            .ok_or("an endorser is no member")?;
        if seen.contains(&endorsement.node) {
            return Err("two endorsements of one member");
        }
        seen.push(endorsement.node);
        if !statement.is_endorsed(endorsement, &member.verifying_key) {
            return Err("an endorsement's signature is wrong");
        }
    }
    match statement.command.participants() {
        Some(participants) => took_part(participants, &seen, roster.births())?,
        None if !roster.is_quorum(&seen) => return Err("fewer endorsements than a quorum"),
        None => {}
    }
    if let Command::RenewShares(renewed) = &statement.command {
        renewal::is_everybodys(renewed, roster.births())?;
    }
    if let Command::Order(order) = &statement.command {
        let verified = order.verify(&roster.current);
        verified.map_err(|_| "an order that the operators have not signed")?;
        if group != 0 && !matches!(order.order.change, Change::Members(_)) {
            return Err("an order outside of group 0");
        }
    }
    if let Command::GenerateKey(generated) = &statement.command
        && let Material::Pieces(sharing) = &generated.material
    {
        let participates = |holder: &&u64| generated.participants.contains(holder);
        if sharing.holders.iter().filter(participates).count() < Sharing::TRIO {
            return Err("fewer than three holders of a symmetric key took part");
        }
    }
    let smallest = entry
        .endorsements
        .iter()
        .map(|endorsement| endorsement.time)
        .min()
        .unwrap_or(0);
    let largest = entry
        .endorsements
        .iter()
        .map(|endorsement| endorsement.time)
        .max()
        .unwrap_or(0);
    if largest - smallest > TIME_SPREAD {
        return Err("the endorsers' clocks are too far apart");
    }
    Ok(smallest)
}

/// What a ceremony makes is decided by those that hold it: as many as are a quorum of them, and all that took part.
fn took_part(participants: &[u64], seen: &[u64], committee: &Membership) -> Result<(), &'static str> {
    if !participants.iter().all(|node| seen.contains(node)) {
        return Err("a participant of the ceremony has not signed");
    }
    let members = participants
        .iter()
        .filter(|node| committee.member(**node).is_some());
    if members.count() < committee.quorum().max(participants.len()) {
        return Err("fewer participants than a quorum, or one who is no member");
    }
    Ok(())
}

/// SHA-256 of the encoded request, as endorsers state it.
pub fn request_hash(request: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(request).into()
}

pub(super) type Changed = Result<Reply, Rejection>;

fn change(
    statement: &Statement,
    time: u64,
    rosters: (&Rosters, &Roster),
    state: &mut impl WriteState,
) -> Result<Changed, StateError> {
    let stored = match statement.command.keystore() {
        Some(id) => {
            for (capability, delegator) in &statement.chain {
                if query::revoked(state, &id, capability, delegator)? {
                    return Ok(Err(Rejection::ChainRevoked));
                }
            }
            query::keystore(state, &id)?
        }
        None => None,
    };
    let version = stored.as_ref().map_or(0, |record| record.version);
    let creates = matches!(
        statement.command,
        Command::CreateKeystore { .. } | Command::CreateMeter { .. }
    );
    if creates && version > 0 {
        return Ok(Err(Rejection::Exists));
    }
    if version != statement.state_version {
        return Ok(Err(Rejection::VersionPassed));
    }
    let repeat = match creates || matches!(statement.command, Command::GenerateKey(_)) {
        true => match first_or_twin(statement, time, state)? {
            None => return Ok(Err(Rejection::Replayed)),
            repeat => repeat,
        },
        false => None,
    };
    let changed = carry_out(statement, stored, time, rosters, state)?;
    // Only what was done counts: a ceremony that was refused may be tried again after the window of twins.
    if let (Ok(_), Some(repeat)) = (&changed, repeat) {
        remember(statement, repeat, state)?;
    }
    Ok(changed)
}

fn carry_out(
    statement: &Statement,
    stored: Option<KeystoreRecord>,
    time: u64,
    (rosters, roster): (&Rosters, &Roster),
    state: &mut impl WriteState,
) -> Result<Changed, StateError> {
    match &statement.command {
        Command::Time => Ok(Ok(Reply::Time)),
        Command::CreateMeter {
            id,
            controller,
            product,
        } => {
            if query::meter(state, id)?.is_some() {
                return Ok(Err(Rejection::Exists));
            }
            let meter = Meter {
                controller: controller.clone(),
                product: product.clone(),
                sequence: 0,
            };
            state.put_record(&layout::meter(id), &meter)?;
            Ok(Ok(Reply::Meter(*id)))
        }
        Command::CreateKeystore { id, config } => {
            index_controllers(id, &[], &config.controllers, state)?;
            let record = KeystoreRecord {
                config: config.clone(),
                version: 1,
                created: time,
            };
            state.put_record(&layout::keystore(id), &record)?;
            Ok(Ok(Reply::Keystore(*id)))
        }
        Command::UpdateKeystore { id, config } => update(id, config, stored, state),
        Command::GenerateKey(generated) => {
            generate(generated, stored.is_some(), time, roster.births(), state)
        }
        Command::RenewShares(renewed) => renewal::renew(renewed, time, roster.births(), state),
        Command::Order(order) => obey(order, (statement.group, time), (rosters, roster), state),
        Command::BeginMove(number) => members::begin(*number, state),
        Command::CompleteMove(number) => members::complete(*number, state),
        Command::Revoke {
            keystore,
            capability,
            delegator,
            expires,
            revoker,
        } => {
            let key = layout::revocation(keystore, capability, delegator);
            let record = RevocationRecord {
                expires: *expires,
                revoker: revoker.clone(),
            };
            revoke(keystore, &key, record, state)
        }
    }
}

/// How often the request's name will have been applied with this entry; `None` if it may not be applied again.
fn first_or_twin(
    statement: &Statement,
    time: u64,
    state: &impl WriteState,
) -> Result<Option<Repeat>, StateError> {
    Ok(match state.record::<Repeat>(&layout::name(&statement.name))? {
        None => Some(Repeat {
            first: time,
            count: 1,
        }),
        Some(seen) if time <= seen.first.saturating_add(TWIN_WINDOW) && seen.count < MAX_TWINS => {
            Some(Repeat {
                first: seen.first,
                count: seen.count + 1,
            })
        }
        Some(_) => None,
    })
}

/// When a request's name may be forgotten, ms.
fn name_forgotten(statement: &Statement) -> u64 {
    statement.expires.saturating_add(NAME_MEMORY)
}

fn remember(statement: &Statement, repeat: Repeat, state: &mut impl WriteState) -> Result<(), StateError> {
    let key = layout::name(&statement.name);
    if repeat.count == 1 {
        state.put(&layout::expiry(name_forgotten(statement), &key), &[])?;
    }
    state.put_record(&key, &repeat)
}

fn update(
    id: &LocalId,
    config: &KeystoreConfig,
    stored: Option<KeystoreRecord>,
    state: &mut impl WriteState,
) -> Result<Changed, StateError> {
    let Some(stored) = stored else {
        return Ok(Err(Rejection::Missing));
    };
    let follows = Some(config.sequence) == stored.config.sequence.checked_add(1)
        && config.kms_module == stored.config.kms_module
        && config.meter == stored.config.meter;
    if !follows {
        return Ok(Err(Rejection::Sequence));
    }
    index_controllers(id, &stored.config.controllers, &config.controllers, state)?;
    let record = KeystoreRecord {
        config: config.clone(),
        version: stored.version + 1,
        created: stored.created,
    };
    state.put_record(&layout::keystore(id), &record)?;
    // Its controller has looked at it since it was restored.
    let hold = layout::hold(id);
    if state.get(&hold)?.is_some() {
        state.delete(&hold)?;
    }
    Ok(Ok(Reply::Keystore(*id)))
}

fn generate(
    generated: &GeneratedKey,
    keystore_exists: bool,
    time: u64,
    members: &Membership,
    state: &mut impl WriteState,
) -> Result<Changed, StateError> {
    if !keystore_exists {
        return Ok(Err(Rejection::Missing));
    }
    if generated.configuration != members.index {
        return Ok(Err(Rejection::ConfigurationChanged));
    }
    if time > generated.start.saturating_add(CEREMONY_LIFE) {
        return Ok(Err(Rejection::Stale));
    }
    let key = layout::of_key(&generated.keystore, &generated.key);
    if state.get(&key)?.is_some() {
        return Ok(Err(Rejection::Exists));
    }
    let record = KeyRecord {
        key_type: generated.key_type,
        epoch: generated.epoch,
        session: generated.session,
        committee: generated.configuration,
        material: generated.material.clone(),
        away: generated.away.clone(),
        alias: generated.alias.clone(),
        max_chain_length: generated.max_chain_length,
        created: time,
        origin: None,
    };
    state.put_record(&key, &record)?;
    Ok(Ok(Reply::Key(generated.keystore, generated.key)))
}

/// Group 0 counts orders; the others carry out what group 0 has taken, and the state that an order starts from is on it.
fn obey(
    signed: &SignedOrder,
    (group, time): (u32, u64),
    rosters: (&Rosters, &Roster),
    state: &mut impl WriteState,
) -> Result<Changed, StateError> {
    let order = &signed.order;
    let mut orders = query::orders(state)?;
    if group == 0 && orders.sequence.checked_add(1) != Some(order.sequence) {
        return Ok(Err(Rejection::Sequence));
    }
    match &order.change {
        Change::RenewShares => orders.renew_before = time,
        Change::Members(new) => {
            if let Err(reason) = members::announce((signed, new), group, rosters, state)? {
                return Ok(Err(Rejection::Members(reason.into())));
            }
        }
    }
    if group == 0 {
        orders.sequence = order.sequence;
        state.put_record(layout::ORDERS, &orders)?;
    }
    Ok(Ok(Reply::Ordered(order.sequence)))
}

fn revoke(
    keystore: &LocalId,
    key: &[u8],
    record: RevocationRecord,
    state: &mut impl WriteState,
) -> Result<Changed, StateError> {
    if query::keystore(state, keystore)?.is_none() {
        return Ok(Err(Rejection::Missing));
    }
    if state.get(key)?.is_some() {
        return Ok(Err(Rejection::AlreadyRevoked));
    }
    if let Some(revoker) = &record.revoker {
        let counter = layout::revoker(keystore, revoker);
        let live: u32 = state.record(&counter)?.unwrap_or(0);
        if live >= MAX_REVOCATIONS {
            return Ok(Err(Rejection::TooManyRevocations));
        }
        state.put_record(&counter, &(live + 1))?;
    }
    state.put(&layout::expiry(record.expires, key), &[])?;
    state.put_record(key, &record)?;
    Ok(Ok(Reply::Revoked))
}

fn index_controllers(
    id: &LocalId,
    before: &[String],
    after: &[String],
    state: &mut impl WriteState,
) -> Result<(), StateError> {
    for gone in before.iter().filter(|controller| !after.contains(controller)) {
        state.delete(&layout::controlled(gone, id))?;
    }
    for new in after {
        state.put(&layout::controlled(new, id), &[])?;
    }
    Ok(())
}

/// Deletes a bounded number of records whose time has passed.
fn sweep(time: u64, state: &mut impl WriteState) -> Result<(), StateError> {
    for (index, _) in state.scan(layout::EXPIRY, SWEEP)? {
        let Some((expiry, target)) = layout::parse_expiry(&index) else {
            continue;
        };
        if expiry > time {
            break;
        }
        if target.first() == Some(&b'r') {
            forget_revoker(target, state)?;
        }
        state.delete(target)?;
        state.delete(&index)?;
    }
    Ok(())
}

fn forget_revoker(revocation: &[u8], state: &mut impl WriteState) -> Result<(), StateError> {
    let Some(record) = state.record::<RevocationRecord>(revocation)? else {
        return Ok(());
    };
    let keystore = revocation
        .get(1..17)
        .and_then(|id| id.try_into().ok())
        .map(LocalId);
    let (Some(revoker), Some(keystore)) = (record.revoker, keystore) else {
        return Ok(());
    };
    let counter = layout::revoker(&keystore, &revoker);
    match state.record::<u32>(&counter)?.unwrap_or(0) {
        0 | 1 => state.delete(&counter),
        live => state.put_record(&counter, &(live - 1)),
    }
}
