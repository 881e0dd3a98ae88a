//! Who a group consists of, and the steps from one set of voters to another.
//!
//! A move goes from stable, by learners that catch up, into a joint configuration in which both sets of voters must agree,
//! and out of it once the application says that it is complete. Each step is an entry of the log. Which step may be next
//! follows from the applied state alone ([`crate::Application::wanted`]), the same on every replica, also that the joint
//! configuration may be entered; a leader decides nothing but the moment after that.

use crate::ids::NodeId;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a node is in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has nothing of the group yet and waits for a snapshot.
    Joining,
    /// It gets everything and counts for nothing.
    Learner,
    /// It counts.
    Voter,
    /// An applied configuration is without it.
    Removed,
}

/// Who a group consists of. Each list is in order, nobody in it twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Those whose majority decides. Empty: this node has not joined the group yet.
    pub voters: Vec<NodeId>,
    /// Not empty in a joint configuration: the voters from before, whose majority must agree too.
    pub outgoing: Vec<NodeId>,
    /// Those who get the log and do not count.
    pub learners: Vec<NodeId>,
}

/// A change of voters that a group's state calls for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The voters that it starts from.
    pub from: Vec<NodeId>,
    /// The voters that it leads to.
    pub to: Vec<NodeId>,
    /// Whether the joint configuration may be entered: before, newcomers learn and nobody else is asked for anything. A move
    /// may be withdrawn as long as it may not.
    pub begun: bool,
    /// Whether the joint configuration may be left. Once the group is in it, it is the only way out.
    pub complete: bool,
}

/// The next configuration, and the change of raft's that makes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) configuration: Configuration,
    pub(crate) change: ConfChangeV2,
}

fn sorted(nodes: &[NodeId]) -> Vec<NodeId> {
    nodes
        .iter()
        .copied()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn without(nodes: &[NodeId], others: &[NodeId]) -> Vec<NodeId> {
    nodes
        .iter()
        .copied()
        .filter(|node| !others.contains(node))
        .collect()
}

impl Configuration {
    /// These voters and nobody else.
    pub fn stable(voters: &[NodeId]) -> Self {
        Configuration {
            voters: sorted(voters),
            ..Configuration::default()
        }
    }

    /// Whether this node has not joined the group yet.
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty()
    }

    /// Whether two sets of voters must agree.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Everybody in it, once and in order.
    pub fn nodes(&self) -> Vec<NodeId> {
        sorted(&[&self.voters[..], &self.outgoing, &self.learners].concat())
    }

    /// Whether the node is in it.
    pub fn contains(&self, node: NodeId) -> bool {
        self.votes(node) || self.learners.contains(&node)
    }

    /// Whether the node is a voter, in a joint configuration of either set.
    pub fn votes(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// What the node is in it.
    pub fn standing(&self, node: NodeId) -> Standing {
        match () {
            () if self.is_empty() => Standing::Joining,
            () if self.votes(node) => Standing::Voter,
            () if self.learners.contains(&node) => Standing::Learner,
            () => Standing::Removed,
        }
    }

    /// Whether those are a majority: in a joint configuration, of both sets.
    pub(crate) fn is_majority(&self, those: impl Fn(NodeId) -> bool) -> bool {
        let half = |voters: &[NodeId]| {
            let with = voters.iter().filter(|voter| those(**voter)).count();
            voters.is_empty() || with > voters.len() / 2
        };
        half(&self.voters) && half(&self.outgoing)
    }

    /// Whether those are more voters than may be down or lie, in a joint configuration of one set: so that one of them is
    /// honest.
    pub(crate) fn has_honest(&self, those: impl Fn(NodeId) -> bool) -> bool {
        let half = |voters: &[NodeId]| {
            let with = voters.iter().filter(|voter| those(**voter)).count();
            let quorum = voters.len() / 2 + 1;
            with > voters.len() - quorum.min(voters.len())
        };
        half(&self.voters) || half(&self.outgoing)
    }

    /// As raft has it.
    pub(crate) fn conf_state(&self) -> ConfState {
        let mut state = ConfState::from((self.voters.clone(), self.learners.clone()));
        state.voters_outgoing.clone_from(&self.outgoing);
        state
    }

    /// From raft's; `None` if no group can have it.
    pub(crate) fn from_conf_state(state: &ConfState) -> Option<Self> {
        let configuration = Configuration {
            voters: sorted(&state.voters),
            outgoing: sorted(&state.voters_outgoing),
            learners: sorted(&state.learners),
        };
        let once = configuration.voters.len() == state.voters.len()
            && configuration.outgoing.len() == state.voters_outgoing.len()
            && configuration.learners.len() == state.learners.len();
        let apart = !configuration
            .learners
            .iter()
            .any(|learner| configuration.votes(*learner));
        let sound = !configuration.is_empty() && !configuration.contains(0) && once && apart;
        (sound && state.learners_next.is_empty() && !state.auto_leave).then_some(configuration)
    }
}

impl Move {
    /// Everybody whom it concerns.
    pub fn nodes(&self) -> Vec<NodeId> {
        sorted(&[&self.from[..], &self.to].concat())
    }

    pub(crate) fn concerns(&self, node: NodeId) -> bool {
        self.from.contains(&node) || self.to.contains(&node)
    }

    /// The same with its lists in order; `None` if it leads nowhere.
    fn in_order(&self) -> Option<Move> {
        let ordered = Move {
            from: sorted(&self.from),
            to: sorted(&self.to),
            begun: self.begun,
            complete: self.complete,
        };
        let sound = !ordered.to.is_empty() && !ordered.to.contains(&0) && ordered.to != ordered.from;
        sound.then_some(ordered)
    }
}

fn singles(kind: ConfChangeType, nodes: &[NodeId]) -> impl Iterator<Item = ConfChangeSingle> + '_ {
    nodes.iter().map(move |node| {
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = *node;
        single
    })
}

impl Step {
    /// Raft would take several learners in one change for a joint configuration that it leaves by itself. Nothing of the
    /// kind is ever asked of it: what changes no voter is given to it one by one.
    pub(crate) fn parts(&self) -> Vec<ConfChangeV2> {
        if self.change.changes.is_empty() || self.change.get_transition() == ConfChangeTransition::Explicit {
            return vec![self.change.clone()];
        }
        let part = |single: &ConfChangeSingle| {
            let mut part = ConfChangeV2::default();
            part.mut_changes().push(single.clone());
            part
        };
        self.change.changes.iter().map(part).collect()
    }
}

/// The only step that may be taken from `current` while the state calls for `wanted`; `None` if there is none.
pub(crate) fn next(current: &Configuration, wanted: Option<&Move>) -> Option<Step> {
    if current.is_empty() {
        return None;
    }
    let wanted = wanted.and_then(Move::in_order);
    let mut change = ConfChangeV2::default();
    if current.is_joint() {
        let over = wanted.is_some_and(|m| m.complete && m.to == current.voters && m.from == current.outgoing);
        return over.then(|| Step {
            configuration: Configuration::stable(&current.voters),
            change,
        });
    }
    let wanted = wanted.filter(|wanted| wanted.from == current.voters);
    let newcomers = wanted
        .as_ref()
        .map(|wanted| without(&wanted.to, &wanted.from))
        .unwrap_or_default();
    if current.learners != newcomers {
        let gone = without(&current.learners, &newcomers);
        let come = without(&newcomers, &current.learners);
        let changes = change.mut_changes();
        changes.extend(singles(ConfChangeType::RemoveNode, &gone));
        changes.extend(singles(ConfChangeType::AddLearnerNode, &come));
        return Some(Step {
            configuration: Configuration {
                learners: newcomers,
                ..current.clone()
            },
            change,
        });
    }
    let wanted = wanted.filter(|wanted| wanted.begun)?;
    change.set_transition(ConfChangeTransition::Explicit);
    let leaving = without(&wanted.from, &wanted.to);
    let changes = change.mut_changes();
    changes.extend(singles(ConfChangeType::AddNode, &newcomers));
    changes.extend(singles(ConfChangeType::RemoveNode, &leaving));
    Some(Step {
        configuration: Configuration {
            voters: wanted.to,
            outgoing: wanted.from,
            learners: Vec::new(),
        },
        change,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(from: &[NodeId], to: &[NodeId], complete: bool) -> Move {
        Move {
            from: from.to_vec(),
            to: to.to_vec(),
            begun: true,
            complete,
        }
    }

    fn configurations(start: &[NodeId], wanted: &Move) -> Vec<Configuration> {
        let mut all = vec![Configuration::stable(start)];
        while let Some(step) = next(&all[all.len() - 1], Some(wanted)) {
            all.push(step.configuration);
        }
        all
    }

    fn of(voters: &[NodeId], outgoing: &[NodeId], learners: &[NodeId]) -> Configuration {
        Configuration {
            voters: voters.to_vec(),
            outgoing: outgoing.to_vec(),
            learners: learners.to_vec(),
        }
    }

    #[test]
    fn newcomers_learn_before_they_count() {
        let steps = configurations(&[1, 2, 3], &wanted(&[3, 2, 1], &[5, 4, 3], true));
        assert_eq!(
            steps,
            [
                of(&[1, 2, 3], &[], &[]),
                of(&[1, 2, 3], &[], &[4, 5]),
                of(&[3, 4, 5], &[1, 2, 3], &[]),
                of(&[3, 4, 5], &[], &[]),
            ]
        );
    }

    #[test]
    fn before_it_has_begun_newcomers_only_learn() {
        let announced = Move {
            begun: false,
            ..wanted(&[1, 2, 3], &[3, 4, 5], true)
        };
        let steps = configurations(&[1, 2, 3], &announced);
        assert_eq!(steps, [of(&[1, 2, 3], &[], &[]), of(&[1, 2, 3], &[], &[4, 5])]);
        let nobody_new = Move {
            begun: false,
            ..wanted(&[1, 2, 3], &[1, 2], false)
        };
        assert_eq!(configurations(&[1, 2, 3], &nobody_new).len(), 1);
    }

    #[test]
    fn nobody_new_needs_no_learners_and_nothing_is_left_before_it_is_complete() {
        let steps = configurations(&[1, 2, 3], &wanted(&[1, 2, 3], &[1, 2], false));
        assert_eq!(steps, [of(&[1, 2, 3], &[], &[]), of(&[1, 2], &[1, 2, 3], &[])]);
    }

    #[test]
    fn what_is_withdrawn_takes_its_learners_away_and_leaves_nothing_joint() {
        let step = next(&of(&[1, 2], &[], &[3, 4]), None).unwrap();
        assert_eq!(step.configuration, of(&[1, 2], &[], &[]));
        assert_eq!(step.parts().len(), 2, "one at a time, or raft would go joint");
        let other = wanted(&[1, 2], &[1, 2, 4, 5], true);
        let step = next(&of(&[1, 2], &[], &[3, 4]), Some(&other)).unwrap();
        assert_eq!(step.configuration, of(&[1, 2], &[], &[4, 5]));
        assert_eq!(next(&of(&[1, 2], &[1, 2, 3], &[]), None), None);
        assert_eq!(next(&of(&[1, 2], &[1, 2, 3], &[]), Some(&other)), None);
    }

    #[test]
    fn a_move_from_somewhere_else_or_to_nowhere_is_none() {
        let stable = Configuration::stable(&[1, 2, 3]);
        for none in [
            wanted(&[1, 2], &[1, 2, 4], true),
            wanted(&[1, 2, 3], &[], true),
            wanted(&[1, 2, 3], &[1, 2, 0], true),
            wanted(&[1, 2, 3], &[3, 2, 1], true),
        ] {
            assert_eq!(next(&stable, Some(&none)), None);
        }
        assert_eq!(
            next(&Configuration::default(), Some(&wanted(&[], &[1], true))),
            None
        );
    }

    #[test]
    fn a_majority_is_one_of_both_sets() {
        let joint = of(&[3, 4, 5], &[1, 2, 3], &[6]);
        assert!(!joint.is_majority(|node| [4, 5, 6].contains(&node)));
        assert!(!joint.is_majority(|node| [1, 2].contains(&node)));
        assert!(joint.is_majority(|node| [1, 3, 4].contains(&node)));
    }

    #[test]
    fn raft_is_believed_no_configuration_that_a_group_cannot_have() {
        let sound = of(&[1, 2, 3], &[1, 2], &[4]);
        assert_eq!(
            Configuration::from_conf_state(&sound.conf_state()),
            Some(sound.clone())
        );
        let bent = |bend: fn(&mut ConfState)| {
            let mut state = sound.conf_state();
            bend(&mut state);
            Configuration::from_conf_state(&state)
        };
        assert_eq!(bent(|state| state.auto_leave = true), None);
        assert_eq!(bent(|state| state.learners_next.push(1)), None);
        assert_eq!(bent(|state| state.learners.push(1)), None);
        assert_eq!(bent(|state| state.voters.push(1)), None);
        assert_eq!(bent(|state| state.voters.clear()), None);
        assert_eq!(bent(|state| state.learners.push(0)), None);
    }
}
