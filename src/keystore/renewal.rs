//! Applying a renewal: keys get the shares of their next epoch. Nothing that a client sees of them changes.
//!
//! Every member has taken part, has its new shares on disk and has signed what came out, so that no key is left with fewer
//! shares than members, and no member lets the others choose.

use super::apply::{CEREMONY_LIFE, Changed};
use super::command::{MAX_RENEWED, RenewedKey, RenewedShares};
use super::layout;
use super::outcome::{Rejection, Reply};
use super::query;
use super::record::{KeyRecord, Material};
use super::state::{StateError, WriteState};
use crate::membership::Membership;

/// Whether all members took part, in a ceremony of a size that is carried out.
pub(super) fn is_everybodys(renewed: &RenewedShares, members: &Membership) -> Result<(), &'static str> {
    let nodes = members.members.iter().map(|member| member.node);
    if !nodes.eq(renewed.participants.iter().copied()) {
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
        if !follows(&record, new) || records.iter().any(|(key, _)| *key == new.key) {
            return Ok(Err(Rejection::EpochPassed));
        }
        let record = KeyRecord {
            epoch: new.epoch,
            session: new.session,
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

/// Whether these are the next shares of the same key.
fn follows(record: &KeyRecord, new: &RenewedKey) -> bool {
    let same = match (&record.material, &new.material) {
        (
            Material::Pair { public_key: old, .. },
            Material::Pair {
                public_key: renewed, ..
            },
        ) => old == renewed,
        (Material::Pieces(old), Material::Pieces(renewed)) => {
            (&old.holders, old.correction, old.inner, old.check)
                == (&renewed.holders, renewed.correction, renewed.inner, renewed.check)
                && old.pieces.len() == renewed.pieces.len()
        }
        _ => false,
    };
    same && record.session == new.replaces && record.epoch.checked_add(1) == Some(new.epoch)
}
