//! Moving a group to other members, as its own state tells it: ordered by operators, carried out in stages, each an entry.

use super::apply::Changed;
use super::layout;
use super::outcome::{Rejection, Reply};
use super::state::{ReadState, StateError, WriteState};
use crate::membership::roster::MembersRecord;
use crate::membership::{Membership, Roster, Rosters, Stage};
use crate::operator::{Change, NewMembers, SignedOrder};

/// What Raft's configurations of the group are to come to: the nodes that it moves from and to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The voters that there are.
    pub from: Vec<u64>,
    /// Those that take their place.
    pub to: Vec<u64>,
    /// Whether nothing is left to be done in joint consensus.
    pub complete: bool,
}

/// Takes an order that names the group's next members; its signatures are verified already.
pub(super) fn announce(
    signed: &SignedOrder,
    new: &NewMembers,
    roster: &Roster,
    state: &mut impl WriteState,
) -> Result<Result<(), &'static str>, StateError> {
    if roster.next.is_some() {
        return Ok(Err("they are being changed already"));
    }
    let next = match next_members(new, roster) {
        Ok(next) => next,
        Err(reason) => return Ok(Err(reason)),
    };
    let mut record: MembersRecord = state.record(layout::MEMBERS)?.unwrap_or_default();
    record.highest = roster
        .highest
        .max(next.members.last().map_or(0, |member| member.node));
    state.put_record(&layout::members(new.number), signed)?;
    // Other addresses of the same nodes: nothing moves.
    match next.nodes() == roster.current.nodes() {
        true => record.current = Some(signed.clone()),
        false => record.next = Some((signed.clone(), Stage::Announced)),
    }
    state.put_record(layout::MEMBERS, &record)?;
    Ok(Ok(()))
}

/// The members that an order makes, if it starts from those that there are.
///
/// # Errors
/// What is wrong with it.
pub fn next_members(new: &NewMembers, roster: &Roster) -> Result<Membership, &'static str> {
    if new.number != roster.current.index + 1 || new.replaces.0 != roster.current.digest() {
        return Err("the order replaces other members than there are");
    }
    roster.current.followed_by(&new.members, roster.highest)
}

/// Every key is with the new members, say quorums of both.
pub(super) fn complete(number: u64, state: &mut impl WriteState) -> Result<Changed, StateError> {
    let mut record: MembersRecord = state.record(layout::MEMBERS)?.unwrap_or_default();
    match &mut record.next {
        Some((order, stage @ Stage::Joint)) if number_of(order) == Some(number) => *stage = Stage::Complete,
        _ => return Ok(Err(Rejection::Members("no such move is under way".into()))),
    }
    state.put_record(layout::MEMBERS, &record)?;
    Ok(Ok(Reply::Moved(number)))
}

fn number_of(order: &SignedOrder) -> Option<u64> {
    match &order.order.change {
        Change::Members(new) => Some(new.number),
        Change::RenewShares => None,
    }
}

/// What Raft's configurations are to come to.
///
/// # Errors
/// When the state cannot be read.
pub fn wanted(rosters: &Rosters, state: &impl ReadState) -> Result<Option<Move>, StateError> {
    let roster = rosters.of(state)?;
    Ok(roster.next.as_ref().map(|(next, stage)| Move {
        from: roster.current.nodes(),
        to: next.nodes(),
        complete: *stage == Stage::Complete,
    }))
}

/// A configuration of Raft is in force: both halves vote, or the new members only.
///
/// # Errors
/// When the state cannot be read or written.
pub fn configured(
    rosters: &Rosters,
    (voters, joint): (&[u64], bool),
    state: &mut impl WriteState,
) -> Result<(), StateError> {
    let roster = rosters.of(state)?;
    let mut record: MembersRecord = state.record(layout::MEMBERS)?.unwrap_or_default();
    let Some((next, _)) = &roster.next else {
        return Ok(());
    };
    if next.nodes() != voters {
        return Ok(());
    }
    match (joint, record.next.take()) {
        (true, Some((order, Stage::Announced))) => record.next = Some((order, Stage::Joint)),
        (false, Some((order, Stage::Complete))) => record.current = Some(order),
        (_, next) => record.next = next,
    }
    state.put_record(layout::MEMBERS, &record)
}

/// Whether the orders in a state that another node brings are the operators', one after the other from the genesis statement
/// on: whoever brings it decides nothing.
///
/// # Errors
/// When the state cannot be read.
pub fn is_ordered(rosters: &Rosters, state: &impl ReadState) -> Result<bool, StateError> {
    let record: MembersRecord = state.record(layout::MEMBERS)?.unwrap_or_default();
    let mut roster = Roster::stable(rosters.genesis().clone());
    let follow = |order: &SignedOrder, roster: &Roster| {
        let Change::Members(new) = &order.order.change else {
            return None;
        };
        order.verify(rosters.genesis()).ok()?;
        next_members(new, roster).ok()
    };
    let last = record
        .current
        .as_ref()
        .map_or(Some(crate::membership::FIRST), number_of);
    let Some(last) = last else { return Ok(false) };
    for number in crate::membership::FIRST + 1..=last {
        let order: Option<SignedOrder> = state.record(&layout::members(number))?;
        let Some(members) = order.and_then(|order| follow(&order, &roster)) else {
            return Ok(false);
        };
        let highest = roster
            .highest
            .max(members.members.last().map_or(0, |member| member.node));
        roster.current = members.into();
        roster.highest = highest;
    }
    let stored = rosters.of(state)?;
    let next_follows = match &record.next {
        Some((order, _)) => {
            let kept: Option<SignedOrder> = state.record(&layout::members(last + 1))?;
            let next = follow(order, &roster);
            let highest = next.as_ref().and_then(|next| next.members.last());
            roster.highest = roster.highest.max(highest.map_or(0, |member| member.node));
            next.is_some() && kept.as_ref() == Some(order)
        }
        None => true,
    };
    let last_kept: Option<SignedOrder> = match record.current {
        Some(_) => state.record(&layout::members(last))?,
        None => None,
    };
    let same = *stored.current == *roster.current && last_kept == record.current;
    Ok(same && next_follows && stored.highest == roster.highest)
}
