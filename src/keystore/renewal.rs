//! Applying a renewal: keys get the shares of their next epoch. Nothing that a client sees of them changes.
//!
//! Every member has taken part, has its new shares on disk and has signed what came out, so that no key is left with fewer
//! shares than members, and no member lets the others choose.

use super::apply::{CEREMONY_LIFE, Changed};
use super::command::{MAX_RENEWED, RenewedKey, RenewedShares};
use super::layout;
use super::outcome::{Rejection, Reply};
use super::query;
use super::record::{KeyRecord, Material, Sharing};
use super::state::{StateError, WriteState};
use crate::membership::Membership;

/// Whether all members that will hold the shares took part, in a ceremony of a size that is carried out.
pub(super) fn is_everybodys(renewed: &RenewedShares, members: &Membership) -> Result<(), &'static str> {
    if members.nodes() != renewed.participants {
        return Err("a renewal without some member");
    }
    if !(1..=MAX_RENEWED).contains(&renewed.keys.len()) {
        return Err("a renewal of no keys, or of too many");
    }
    Ok(())
}

/// All of the keys, or none.
pub(super) fn renew(
    renewed: &RenewedShares,
    time: u64,
    members: &Membership,
    state: &mut impl WriteState,
) -> Result<Changed, StateError> {
    if renewed.configuration != members.index {
        return Ok(Err(Rejection::ConfigurationChanged));
    }
    if time > renewed.start.saturating_add(CEREMONY_LIFE) {
        return Ok(Err(Rejection::Stale));
    }
    let mut records = Vec::with_capacity(renewed.keys.len());
    for new in &renewed.keys {
        let Some(record) = query::key(state, &renewed.keystore, &new.key)? else {
            return Ok(Err(Rejection::Missing));
        };
        let moves = record.committee != members.index;
        if !follows(&record, new, moves.then_some(members)) || records.iter().any(|(key, _)| *key == new.key)
        {
            return Ok(Err(Rejection::EpochPassed));
        }
        let record = KeyRecord {
            epoch: new.epoch,
            session: new.session,
            committee: renewed.configuration,
            material: new.material.clone(),
            away: Vec::new(),
            ..record
        };
        records.push((new.key, record));
    }
    for (key, record) in records {
        state.put_record(&layout::of_key(&renewed.keystore, &key), &record)?;
        state.put_record(&layout::renewal(&renewed.keystore, &key), &time)?;
    }
    Ok(Ok(Reply::Renewed(renewed.keystore)))
}

/// Whether these are the next shares of the same key, with the same holders or, when it moves, with other members.
fn follows(record: &KeyRecord, new: &RenewedKey, moves: Option<&Membership>) -> bool {
    let fits = match (&record.material, &new.material) {
        (Material::Pieces(old), Material::Pieces(renewed)) => {
            let stay = old.holders == renewed.holders;
            let are_members = |committee: &Membership| {
                renewed
                    .holders
                    .iter()
                    .all(|node| committee.member(*node).is_some())
            };
            let ascending = renewed.holders.windows(2).all(|pair| pair[0] < pair[1]);
            let (fewest, most) = (Sharing::TRIO, Sharing::MOST);
            ascending
                && (fewest..=most).contains(&renewed.holders.len())
                && renewed.pieces.len() == renewed.holders.len()
                && moves.map_or(stay, are_members)
        }
        _ => true,
    };
    let same = record.material.is_same_key(&new.material);
    same && fits && record.session == new.replaces && record.epoch.checked_add(1) == Some(new.epoch)
}
