//! Entries of formats that this build does not know. A group halts at one, and only at one that its members have endorsed, with
//! builds that do know it: or whoever leads it, or proposes to it, could stop it for ever with bytes that nobody knows, or with an
//! entry of today that it calls one of tomorrow.

use super::entry::Outside;
use crate::keystore::Roster;
use crate::membership::Membership;

/// Whether a quorum of one of the group's lists has signed what such an entry states, whatever that is. A build that knows
/// it asks for more than that, so it changes nothing by an entry that is none here.
pub fn is_endorsed(entry: &[u8], roster: &Roster) -> bool {
    let Some((format, outside)) = entry.split_first() else {
        return false;
    };
    // What comes after that is the format's own.
    let Ok(((statement, _, endorsements), _)) = postcard::take_from_bytes::<Outside<'_>>(outside) else {
        return false;
    };
    let mut signed: Vec<u64> = Vec::new();
    for member in roster.everybody() {
        let mut by = endorsements
            .iter()
            .filter(|one| one.node == member.node && one.format >= *format)
            .take(MOST);
        if !signed.contains(&member.node) && by.any(|one| one.signs(statement, &member.verifying_key)) {
            signed.push(member.node);
        }
    }
    let is_quorum = |list: &Membership| {
        let members = list.members.iter().filter(|member| signed.contains(&member.node));
        members.count() >= list.quorum()
    };
    let next = roster.next.iter().map(|(next, _)| &**next);
    std::iter::once(&*roster.current).chain(next).any(is_quorum)
}

/// Signatures of one member that are looked at. An entry that is in order has one of each; a verification costs something.
const MOST: usize = 1;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::format::NEWEST;
    use crate::keystore::apply_tests::{NOW, endorsed, key, members, statement};
    use crate::keystore::command::Command;
    use crate::keystore::entry::{Entry, EntryError};

    /// The same statement, endorsed by the same members with builds of the next format.
    fn by_later_builds(mut entry: Entry) -> Entry {
        for one in &mut entry.endorsements {
            *one = entry
                .statement
                .endorse_as(NEWEST + 1, one.node, &key(one.node), one.time);
        }
        entry
    }

    /// An entry of the next format: the same outside, and then something of that format's own.
    fn later(entry: &Entry) -> Vec<u8> {
        let mut bytes = [&entry.encode()[..], b"what it adds"].concat();
        bytes[0] = NEWEST + 1;
        assert!(matches!(Entry::decode(&bytes), Err(EntryError::UnknownFormat(_))));
        bytes
    }

    #[test]
    fn what_a_quorum_has_signed_counts_though_nobody_here_can_read_it() {
        let roster = Roster::stable(Arc::new(members()));
        let of_today = |endorsers: &[(u64, u64)]| endorsed(statement(1, Command::Time, 0), endorsers);
        let by = |endorsers: &[(u64, u64)]| by_later_builds(of_today(endorsers));
        let two = by(&[(1, NOW), (3, NOW)]);
        assert!(is_endorsed(&later(&two), &roster));
        assert!(!is_endorsed(&later(&by(&[(2, NOW)])), &roster), "one of three");
        assert!(
            !is_endorsed(&later(&by(&[(2, NOW), (2, NOW)])), &roster),
            "one, twice"
        );
        let mut other = two.clone();
        other.statement.state_version += 1;
        assert!(!is_endorsed(&later(&other), &roster), "something else was signed");
        let mut stranger = two;
        stranger.endorsements[1] = stranger.statement.endorse(3, &key(4), NOW);
        assert!(!is_endorsed(&later(&stranger), &roster), "by another key");
        let renamed = of_today(&[(1, NOW), (2, NOW), (3, NOW)]);
        assert!(
            !is_endorsed(&later(&renamed), &roster),
            "of today, by another name"
        );
        let mut claimed = renamed;
        claimed.endorsements.iter_mut().for_each(|one| one.format += 1);
        assert!(!is_endorsed(&later(&claimed), &roster), "nobody has signed that");
        for garbage in [&[][..], &[NEWEST + 1], &[NEWEST + 1, 255, 255, 255]] {
            assert!(!is_endorsed(garbage, &roster));
        }
    }

    #[test]
    fn while_members_change_a_quorum_of_either_list_counts() {
        let mut next = members();
        next.index = 2;
        next.members.remove(0);
        let roster = Roster {
            next: Some((Arc::new(next), crate::keystore::Stage::Joint)),
            ..Roster::stable(Arc::new(members()))
        };
        let entry = by_later_builds(endorsed(statement(1, Command::Time, 0), &[(2, NOW), (3, NOW)]));
        assert!(is_endorsed(&later(&entry), &roster));
    }
}
