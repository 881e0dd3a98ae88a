//! When the move of a group to other members may begin. There is no way back from it, and from then on the group needs the new
//! members: so it is no leader's word, but that of a quorum of the old members, each by what it knows itself.

use super::roster::{Roster, Stage};

/// Why a member does not say that a move may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooEarly {
    /// The group's state has no such order, or it has begun.
    #[error("no such move is announced in the group")]
    NotAnnounced,
    /// Group 0 could still take the order back, or has.
    #[error("group 0 has not begun to carry out this order")]
    GroupZero,
    /// A new member.
    #[error("node {0}, which is to be a member, is not there or has not caught up")]
    Absent(u64),
}

/// Whether a group with the roster `own` may begin to move to the list of this number, as far as one member knows: `zero` is
/// group 0's roster and the number of the group, none if that is group 0 itself; `is_there` whether a node is linked, has caught up with the group, and
/// others vouch for its state.
///
/// # Errors
/// [`TooEarly`].
pub fn may_begin(
    own: &Roster,
    number: u64,
    zero: Option<(&Roster, u32)>,
    is_there: impl Fn(u64) -> bool,
) -> Result<(), TooEarly> {
    let next = match &own.next {
        Some((next, Stage::Announced)) if next.index == number => next,
        _ => return Err(TooEarly::NotAnnounced),
    };
    if zero.is_some_and(|(zero, group)| zero.begun().of_group(group) != **next) {
        return Err(TooEarly::GroupZero);
    }
    let newcomers = next.members.iter().map(|member| member.node);
    let mut newcomers = newcomers.filter(|node| own.current.member(*node).is_none());
    match newcomers.find(|node| !is_there(*node)) {
        Some(absent) => Err(TooEarly::Absent(absent)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::membership::{Member, Membership};

    fn list(index: u64, nodes: &[u64]) -> Arc<Membership> {
        let member = |node: &u64| Member {
            node: *node,
            index: *node as u16,
            address: String::new(),
            verifying_key: SigningKey::from_bytes(&[*node as u8; 32]).verifying_key(),
            envelope_key: [*node as u8; 32],
        };
        Arc::new(Membership {
            index,
            members: nodes.iter().map(member).collect(),
            ..Membership::default()
        })
    }

    fn moving(number: u64, to: &[u64], stage: Stage) -> Roster {
        Roster {
            next: Some((list(number, to), stage)),
            ..Roster::stable(list(1, &[1, 2, 3]))
        }
    }

    const EVERYBODY: fn(u64) -> bool = |_| true;

    #[test]
    fn group_0_begins_as_soon_as_the_new_members_are_there() {
        let own = moving(2, &[1, 4, 5], Stage::Announced);
        assert_eq!(may_begin(&own, 2, None, EVERYBODY), Ok(()));
        assert_eq!(
            may_begin(&own, 2, None, |node| node != 5),
            Err(TooEarly::Absent(5))
        );
        let asked = std::cell::RefCell::new(Vec::new());
        let is_there = |node| {
            asked.borrow_mut().push(node);
            true
        };
        may_begin(&own, 2, None, is_there).unwrap();
        assert_eq!(asked.into_inner(), [4, 5], "whoever stays is asked nothing");
        let fewer = moving(2, &[1, 2], Stage::Announced);
        assert_eq!(may_begin(&fewer, 2, None, |_| false), Ok(()), "nobody comes");
    }

    #[test]
    fn only_what_is_announced_begins() {
        for stage in [Stage::Begun, Stage::Joint, Stage::Complete] {
            let own = moving(2, &[1, 2, 4], stage);
            assert_eq!(may_begin(&own, 2, None, EVERYBODY), Err(TooEarly::NotAnnounced));
        }
        let own = moving(2, &[1, 2, 4], Stage::Announced);
        assert_eq!(may_begin(&own, 3, None, EVERYBODY), Err(TooEarly::NotAnnounced));
        let stable = Roster::stable(list(1, &[1, 2, 3]));
        assert_eq!(
            may_begin(&stable, 1, None, EVERYBODY),
            Err(TooEarly::NotAnnounced)
        );
    }

    #[test]
    fn no_group_begins_before_group_0_or_after_it_took_the_order_back() {
        let own = moving(2, &[1, 2, 4], Stage::Announced);
        let with = |zero: Roster| may_begin(&own, 2, Some((&zero, 7)), EVERYBODY);
        for stage in [Stage::Begun, Stage::Joint, Stage::Complete] {
            assert_eq!(with(moving(2, &[1, 2, 4], stage)), Ok(()));
        }
        assert_eq!(
            with(Roster::stable(list(2, &[1, 2, 4]))),
            Ok(()),
            "group 0 is over"
        );
        for (what, zero) in [
            ("not begun", moving(2, &[1, 2, 4], Stage::Announced)),
            ("not heard of", Roster::stable(list(1, &[1, 2, 3]))),
            ("another one", moving(2, &[1, 2, 5], Stage::Begun)),
            ("taken back", Roster::stable(list(3, &[1, 2, 3]))),
            ("another in its place", moving(3, &[1, 2, 5], Stage::Begun)),
        ] {
            assert_eq!(with(zero), Err(TooEarly::GroupZero), "{what}");
        }
    }
}
