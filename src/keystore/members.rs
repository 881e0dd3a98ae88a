//! Moving a group to other members, as its own state tells it: ordered by operators, carried out in stages, each an entry.

use super::apply::Changed;
use super::layout;
use super::outcome::{Rejection, Reply};
use super::roster::{MembersRecord, Roster, Rosters, Stage};
use super::state::{ReadState, StateError, WriteState};
use crate::membership::{FIRST, Lineage, NewMembers};
use crate::operator::{Change, SignedOrder};

/// What Raft's configurations of the group are to come to: the nodes that it moves from and to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The voters that there are.
    pub from: Vec<u64>,
    /// Those that take their place.
    pub to: Vec<u64>,
    /// Whether both may begin to decide together.
    pub begun: bool,
    /// Whether nothing is left to be done in joint consensus.
    pub complete: bool,
}

/// Takes an order that names the group's next members; its signatures are verified already. One that is announced and not begun
/// may be taken back by one that starts from the same members.
pub(super) fn announce(
    (signed, new): (&SignedOrder, &NewMembers),
    group: u32,
    (rosters, roster): (&Rosters, &Roster),
    state: &mut impl WriteState,
) -> Result<Result<(), &'static str>, StateError> {
    let mut lineage = lineage(rosters, roster, state)?;
    let takes_back = lineage.takes_back(new);
    let reason = match &roster.next {
        Some((_, Stage::Announced)) if takes_back => None,
        Some((_, Stage::Announced)) => {
            Some("they are being changed already; that order can only be taken back")
        }
        Some(_) => Some("they are being changed already, and that has begun"),
        // Group 0 decides; another group that went on by itself goes back.
        None if takes_back && group == 0 => Some("the order that it takes back is carried out"),
        None => None,
    };
    if let Some(reason) = reason.or(lineage.follow(new).err()) {
        return Ok(Err(reason));
    }
    let mut record: MembersRecord = state.record(layout::MEMBERS)?.unwrap_or_default();
    record.highest = lineage.highest();
    state.put_record(&layout::members(new.number), signed)?;
    // The same nodes, with other addresses or since an order was taken back, or one for other groups: nothing moves.
    match rosters.place(lineage.last()).nodes() == roster.current.nodes() {
        true => (record.current, record.next) = (Some(signed.clone()), None),
        false => record.next = Some((signed.clone(), Stage::Announced)),
    }
    state.put_record(layout::MEMBERS, &record)?;
    Ok(Ok(()))
}

/// The cluster's last list as the group knows it, and the one that it was ordered in the place of.
///
/// # Errors
/// When the state cannot be read.
pub fn lineage(rosters: &Rosters, roster: &Roster, state: &impl ReadState) -> Result<Lineage, StateError> {
    let last = roster.next.as_ref().map_or(&roster.current, |(next, _)| next);
    let last = rosters.list(state, last.index)?;
    let mut base = last.clone();
    let record: MembersRecord = state.record(layout::MEMBERS)?.unwrap_or_default();
    let made = record.next.map(|(order, _)| order).or(record.current);
    if let Some(Change::Members(made_by)) = made.map(|order| order.order.change) {
        for number in (FIRST..last.index).rev() {
            let earlier = rosters.list(state, number)?;
            if earlier.digest() == made_by.replaces.0 {
                base = earlier;
                break;
            }
        }
    }
    Ok(Lineage::between(base, last, roster.highest))
}

/// The new members are there, says a quorum of the old ones, each by what it knows itself: from here on there is no way back.
pub(super) fn begin(number: u64, state: &mut impl WriteState) -> Result<Changed, StateError> {
    let mut record: MembersRecord = state.record(layout::MEMBERS)?.unwrap_or_default();
    match &mut record.next {
        Some((order, stage @ Stage::Announced)) if number_of(order) == Some(number) => *stage = Stage::Begun,
        _ => return Ok(Err(Rejection::Members("no such move is announced".into()))),
    }
    state.put_record(layout::MEMBERS, &record)?;
    Ok(Ok(Reply::Begun(number)))
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
        begun: *stage != Stage::Announced,
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
        (true, Some((order, Stage::Begun))) => record.next = Some((order, Stage::Joint)),
        (false, Some((order, Stage::Complete))) => record.current = Some(order),
        (_, next) => record.next = next,
    }
    state.put_record(layout::MEMBERS, &record)
}

/// The orders that changed the members, one after the other, as group 0 has taken them.
///
/// # Errors
/// When the state cannot be read.
pub fn orders(state: &impl ReadState) -> Result<Vec<SignedOrder>, StateError> {
    let record: MembersRecord = state.record(layout::MEMBERS)?.unwrap_or_default();
    let last = record.next.map(|(order, _)| order).or(record.current);
    let last = last.as_ref().and_then(number_of).unwrap_or(FIRST);
    let order = |number| {
        let order: Option<SignedOrder> = state.record(&layout::members(number))?;
        order.ok_or_else(|| StateError(format!("no list of members has number {number}")))
    };
    (FIRST + 1..=last).map(order).collect()
}

/// Whether a state that another node brings has the lists of members that this node knows of the group: what comes later in its
/// history has all of them, and others in nobody's place.
///
/// # Errors
/// When the state cannot be read.
pub fn goes_on(rosters: &Rosters, known: &Roster, state: &impl ReadState) -> Result<bool, StateError> {
    let theirs = rosters.of(state)?;
    if theirs.last_index() < known.last_index() || theirs.current.index < known.current.index {
        return Ok(false);
    }
    let next = known.next.iter().map(|(next, _)| next);
    for list in std::iter::once(&known.current).chain(next) {
        if rosters.numbered(state, list.index)? != *list {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the orders in a state that another node brings are the operators', one after the other from the genesis statement
/// on: whoever brings it decides nothing.
///
/// # Errors
/// When the state cannot be read.
pub fn is_ordered(rosters: &Rosters, state: &impl ReadState) -> Result<bool, StateError> {
    let record: MembersRecord = state.record(layout::MEMBERS)?.unwrap_or_default();
    let order_of = |number| state.record::<SignedOrder>(&layout::members(number));
    let current = record.current.as_ref().map_or(Some(FIRST), number_of);
    let next = record.next.as_ref().map(|(order, _)| number_of(order));
    let (Some(current), Some(last)) = (current, next.unwrap_or(current)) else {
        return Ok(false);
    };
    if current > last {
        return Ok(false);
    }
    let mut lineage = Lineage::new(rosters.genesis().clone());
    let mut at_current = lineage.clone();
    for number in FIRST + 1..=last {
        let Some(SignedOrder { order, .. }) =
            order_of(number)?.filter(|order| order.verify(rosters.genesis()).is_ok())
        else {
            return Ok(false);
        };
        let Change::Members(new) = &order.change else {
            return Ok(false);
        };
        if lineage.follow(new).is_err() {
            return Ok(false);
        }
        if number == current {
            at_current = lineage.clone();
        }
    }
    let stored = rosters.of(state)?;
    // The next list starts from the current one, or from the one before lists that were taken back, of which a group that went
    // on by itself may have come to one.
    let starts_there = match &record.next {
        Some((order, _)) => {
            let begins = lineage.base().index..last;
            order_of(last)?.as_ref() == Some(order) && begins.contains(&stored.current.index)
        }
        None => true,
    };
    let last_kept = match record.current {
        Some(_) => order_of(current)?,
        None => None,
    };
    let same = *stored.current == *rosters.place(at_current.last()) && last_kept == record.current;
    Ok(same && starts_there && stored.highest == lineage.highest())
}
