//! Whom a coordinator leaves out of the next attempt to generate a key, after attempts that failed. Pure.
//!
//! Everybody else must agree, each by what it knows itself (`conduct.rs`): proof convinces all who took part, a
//! signed abort lets its signer be left out, silence is seen by witnesses.

use std::collections::{BTreeMap, BTreeSet};

use crate::actors::conduct::Abort;
use crate::actors::wire::MAX_ABORTS;

/// Why an attempt failed.
#[derive(Default)]
pub(super) struct Failed {
    /// Gave nothing that can be used, or refused; witnesses, where there are any, say the same.
    pub(super) silent: BTreeSet<u64>,
    /// Ended the ceremony, with whom their evidence convicts.
    pub(super) aborts: Vec<(Abort, Option<u64>)>,
}

impl Failed {
    /// These nodes gave nothing.
    pub(super) fn without(nodes: impl IntoIterator<Item = u64>) -> Self {
        Self {
            silent: nodes.into_iter().collect(),
            ..Self::default()
        }
    }
}

/// What a coordinator has learnt in an operation's attempts.
pub(super) struct Blame {
    me: u64,
    members: BTreeSet<u64>,
    quorum: usize,
    left_out: BTreeSet<u64>,
    accusers: BTreeMap<u64, BTreeSet<u64>>,
    aborts: Vec<Abort>,
}

impl Blame {
    /// Before the first attempt.
    pub(super) fn new(me: u64, members: BTreeSet<u64>, quorum: usize) -> Self {
        Self {
            me,
            members,
            quorum,
            left_out: BTreeSet::new(),
            accusers: BTreeMap::new(),
            aborts: Vec::new(),
        }
    }

    /// Whether the next attempt goes without this node.
    pub(super) fn leaves_out(&self, node: u64) -> bool {
        self.left_out.contains(&node)
    }

    /// For the next attempt's participants, so that they agree.
    pub(super) fn aborts(&self) -> Vec<Abort> {
        self.aborts.clone()
    }

    /// Leaves nobody out in the next attempt; `false` if nobody was.
    pub(super) fn forgive(&mut self) -> bool {
        !std::mem::take(&mut self.left_out).is_empty()
    }

    /// Learns from a failed attempt. `false` if nobody can be left out any more: then everybody is asked again, after
    /// a while, because so many cannot be at fault.
    pub(super) fn learn(&mut self, failed: Failed) -> bool {
        let mut now = failed.silent;
        for (abort, convicted) in failed.aborts {
            now.extend(self.culprit(&abort, convicted));
            if self.aborts.len() < MAX_ABORTS {
                self.aborts.push(abort);
            }
        }
        now.remove(&self.me);
        let all = &self.left_out | &now;
        // Who was left out before may have been blamed by a liar that fell out now.
        let next = [all, now]
            .into_iter()
            .find(|without| !without.is_empty() && self.members.len() - without.len() >= self.quorum);
        self.left_out = next.unwrap_or_default();
        !self.left_out.is_empty()
    }

    /// Whom an abort tells to leave out: the liar that it proves; else the one that it blames if everybody who stays
    /// believes that; else whoever ended the ceremony.
    fn culprit(&mut self, abort: &Abort, convicted: Option<u64>) -> Option<u64> {
        if convicted.is_some() {
            return convicted;
        }
        let ended_here = abort.node == self.me;
        // Nobody who was left out can have ended this attempt.
        let there = |blamed: &u64| *blamed != self.me && !self.left_out.contains(blamed);
        let Some(blamed) = abort.culprit.filter(there) else {
            return (!ended_here).then_some(abort.node);
        };
        let accusers = self.accusers.entry(blamed).or_default();
        accusers.insert(abort.node);
        let stay = self.members.iter().filter(|node| **node != blamed);
        let believed = accusers.len() >= 2
            || stay
                .filter(|node| **node != self.me && !self.left_out.contains(node))
                .all(|node| accusers.contains(node));
        // This node cannot leave itself out: what it has seen itself has to do.
        Some(if believed || ended_here {
            blamed
        } else {
            abort.node
        })
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use rand::rngs::OsRng;

    use super::*;
    use crate::identifier::OperationId;

    fn abort(node: u64, culprit: Option<u64>) -> Abort {
        let operation = OperationId {
            node: 1,
            boot: 1,
            counter: 1,
        };
        let key = SigningKey::generate(&mut OsRng);
        Abort::sign((operation, [0; 32]), (node, &key), culprit, None)
    }

    fn blame(n: u64) -> Blame {
        Blame::new(1, (1..=n).collect(), usize::try_from(n / 2 + 1).unwrap())
    }

    fn aborted(node: u64, culprit: Option<u64>) -> Failed {
        Failed {
            aborts: vec![(abort(node, culprit), None)],
            ..Failed::default()
        }
    }

    fn out(blame: &Blame) -> Vec<u64> {
        blame.left_out.iter().copied().collect()
    }

    #[test]
    fn who_gave_nothing_is_left_out() {
        let mut blame = blame(5);
        assert!(blame.learn(Failed::without([3])));
        assert!(blame.learn(Failed::without([4])));
        assert_eq!(out(&blame), [3, 4]);
    }

    #[test]
    fn proof_goes_before_whoever_brought_it() {
        let mut blame = blame(3);
        let failed = Failed {
            aborts: vec![(abort(2, Some(3)), Some(3))],
            ..Failed::default()
        };
        assert!(blame.learn(failed));
        assert_eq!(out(&blame), [3]);
    }

    #[test]
    fn of_three_the_blamed_is_left_out_and_then_a_liar_that_blamed_it() {
        let mut blame = blame(3);
        assert!(blame.learn(aborted(2, Some(3))));
        assert_eq!(out(&blame), [3], "node 2 knows it, node 1 decides");
        assert!(blame.learn(Failed::without([2])));
        assert_eq!(out(&blame), [2], "node 3 was blamed by a liar");
        assert_eq!(blame.aborts().len(), 1);
    }

    #[test]
    fn who_goes_on_to_blame_a_member_that_is_left_out_is_left_out_itself() {
        let mut blame = blame(3);
        assert!(blame.learn(aborted(2, Some(3))));
        assert!(blame.learn(aborted(2, Some(3))));
        assert_eq!(out(&blame), [2]);
    }

    #[test]
    fn of_five_one_accuser_is_left_out_and_two_are_believed() {
        let mut blame = blame(5);
        assert!(blame.learn(aborted(2, Some(3))));
        assert_eq!(out(&blame), [2], "nobody else knows whether node 3 lied");
        assert!(blame.learn(aborted(4, Some(3))));
        assert_eq!(out(&blame), [2, 3]);
    }

    #[test]
    fn who_blames_the_coordinator_or_nobody_is_left_out() {
        for culprit in [Some(1), None] {
            let mut blame = blame(3);
            assert!(blame.learn(aborted(2, culprit)));
            assert_eq!(out(&blame), [2]);
        }
    }

    #[test]
    fn everybody_is_asked_again_when_too_many_fell_out() {
        let mut blame = blame(3);
        assert!(!blame.learn(Failed::without([2, 3])));
        assert_eq!(out(&blame), [0; 0]);
        assert!(!blame.learn(Failed::without([1])), "this node itself");
    }
}
