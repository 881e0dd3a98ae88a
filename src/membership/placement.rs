//! Which nodes have which group, in a cluster of more nodes than a committee has: an explicit list for each group, signed by the
//! operators, so that no node derives anything. What the operators' tools sign is computed here.

use serde::{Deserialize, Serialize};

use super::{FEWEST, MOST};

/// Most groups that can be placed: what is signed stays a small file.
pub const MOST_GROUPS: u32 = 256;

/// The nodes of each group but group 0, which is on every node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Placement(Vec<Placed>);

/// The nodes of one group.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    /// The group, from 1.
    pub group: u32,
    /// Its nodes, ascending.
    pub nodes: Vec<u64>,
}

impl Placement {
    /// As it is written down; [`Placement::check`] says whether it can be one.
    pub fn new(placed: Vec<Placed>) -> Self {
        Self(placed)
    }

    /// The nodes of a group; none of group 0, and of a group that there is not.
    pub fn of(&self, group: u32) -> Option<&[u64]> {
        let placed = self.0.iter().find(|placed| placed.group == group)?;
        Some(&placed.nodes)
    }

    /// Every group with its nodes.
    pub fn each(&self) -> impl Iterator<Item = (u32, &[u64])> {
        self.0.iter().map(|placed| (placed.group, &placed.nodes[..]))
    }

    /// The size of its largest committee.
    pub fn committee(&self) -> usize {
        self.0.iter().map(|placed| placed.nodes.len()).max().unwrap_or(0)
    }

    /// The groups that a node has, group 0 not among them.
    pub fn groups_of(&self, node: u64) -> impl Iterator<Item = u32> {
        let has = move |placed: &&Placed| placed.nodes.contains(&node);
        self.0.iter().filter(has).map(|placed| placed.group)
    }

    /// Whether every one of `groups` groups but group 0 is on 3 to 5 of the cluster's nodes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, groups: u32, is_member: impl Fn(u64) -> bool) -> Result<(), &'static str> {
        if groups > MOST_GROUPS {
            return Err("a cluster of so many groups has all of them on every node");
        }
        for (at, placed) in (1..).zip(&self.0) {
            match placed.group {
                0 => return Err("group 0 is on every node and is not placed"),
                group if group >= groups => return Err("a group is placed that the cluster does not have"),
                group if group > at => return Err("a group is not placed"),
                group if group < at => return Err("groups are placed once, by rising number"),
                _ => {}
            }
            if !placed.nodes.is_sorted_by(|one, next| one < next) {
                return Err("the nodes of a group are listed once, by rising number");
            }
            if !placed.nodes.iter().all(|node| is_member(*node)) {
                return Err("a group is placed on a node that is no member");
            }
            if !(FEWEST..=MOST).contains(&placed.nodes.len()) {
                return Err("a group is on 3 to 5 nodes");
            }
        }
        match u32::try_from(self.0.len()).is_ok_and(|placed| placed + 1 == groups) {
            true => Ok(()),
            false => Err("a group is not placed"),
        }
    }

    /// As it is signed and hashed: numbers big endian, lists with their length before them.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = (self.0.len() as u64).to_be_bytes().to_vec();
        for placed in &self.0 {
            bytes.extend_from_slice(&placed.group.to_be_bytes());
            bytes.extend_from_slice(&(placed.nodes.len() as u64).to_be_bytes());
            let nodes = placed.nodes.iter();
            nodes.for_each(|node| bytes.extend_from_slice(&node.to_be_bytes()));
        }
        bytes
    }

    /// In words, a line for each node.
    pub fn explain(&self, nodes: &[u64]) -> String {
        let line = |node: &u64| {
            let groups: Vec<String> = self.groups_of(*node).map(|group| group.to_string()).collect();
            format!("node {node} has group 0 and groups {}", groups.join(", "))
        };
        nodes.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Where `groups` groups are put on these nodes, `committee` nodes for each: evenly, so that no node has two groups more than
/// another, and with little of what `before` has moving beyond what has to. None where every group is on every node.
pub fn place(
    groups: u32,
    nodes: &[u64],
    committee: usize,
    before: impl Fn(u32) -> Vec<u64>,
) -> Option<Placement> {
    let committee = committee.clamp(FEWEST, MOST);
    if nodes.len() <= committee {
        return None;
    }
    let before: Vec<Vec<u64>> = (1..groups).map(before).collect();
    let mut seats = Seats {
        nodes,
        of: vec![Vec::new(); before.len()],
    };
    for (group, had) in before.iter().enumerate() {
        seats.of[group] = had.iter().copied().filter(|node| nodes.contains(node)).collect();
    }
    // What a group has too much goes from the fullest nodes, what it lacks comes from the emptiest.
    for group in 0..before.len() {
        while seats.of[group].len() > committee {
            let fullest = seats.of[group]
                .iter()
                .copied()
                .max_by_key(|node| seats.load(*node));
            seats.of[group].retain(|node| Some(*node) != fullest);
        }
    }
    for group in 0..before.len() {
        while seats.of[group].len() < committee {
            let free = nodes
                .iter()
                .copied()
                .filter(|node| !seats.of[group].contains(node));
            let Some(emptiest) = free.min_by_key(|node| seats.load(*node)) else {
                break;
            };
            seats.of[group].push(emptiest);
        }
    }
    while seats.even_out(&before) {}
    let placed = (1..).zip(seats.of).map(|(group, mut nodes)| {
        nodes.sort_unstable();
        Placed { group, nodes }
    });
    Some(Placement(placed.collect()))
}

/// A placement in the making.
struct Seats<'a> {
    nodes: &'a [u64],
    of: Vec<Vec<u64>>,
}

impl Seats<'_> {
    fn load(&self, node: u64) -> usize {
        self.of.iter().filter(|nodes| nodes.contains(&node)).count()
    }

    /// Takes one group from a node that has two more than another, and gives that one a group. If it can be it moves nothing that was
    /// there before, perhaps by way of others, whose number stays as it is; if not, one group that was goes. There is always one
    /// that the emptiest does not have.
    fn even_out(&mut self, before: &[Vec<u64>]) -> bool {
        let load = |node: &u64| self.load(*node);
        let (Some(fullest), Some(emptiest)) = (
            self.nodes.iter().copied().max_by_key(load),
            self.nodes.iter().copied().min_by_key(load),
        ) else {
            return false;
        };
        if load(&fullest) < load(&emptiest) + 2 {
            return false;
        }
        let fullest_all = self
            .nodes
            .iter()
            .copied()
            .filter(|node| load(node) == load(&fullest));
        let path = fullest_all
            .into_iter()
            .find_map(|from| self.free_path(from, before));
        let moves = path.unwrap_or_else(|| {
            let movable = |group: &usize| self.may_go(*group, fullest, emptiest);
            let group = (0..self.of.len()).find(movable);
            group
                .map(|group| (group, fullest, emptiest))
                .into_iter()
                .collect()
        });
        for (group, from, to) in &moves {
            self.of[*group].retain(|node| node != from);
            self.of[*group].push(*to);
        }
        !moves.is_empty()
    }

    fn may_go(&self, group: usize, from: u64, to: u64) -> bool {
        self.of[group].contains(&from) && !self.of[group].contains(&to)
    }

    /// Moves of groups, last first, that take one from a node and give one to another which has two less, and of which each takes
    /// only what its node has not had before, or gives back.
    fn free_path(&self, from: u64, before: &[Vec<u64>]) -> Option<Vec<(usize, u64, u64)>> {
        let is_free = |group: usize, from: u64, to: u64| {
            let had = |node| {
                before
                    .get(group)
                    .is_some_and(|had: &Vec<u64>| had.contains(&node))
            };
            self.may_go(group, from, to) && (!had(from) || had(to))
        };
        // How each node is reached, breadth first.
        let mut reached: Vec<(u64, Option<(usize, usize)>)> = vec![(from, None)];
        let mut at = 0;
        while let Some((node, _)) = reached.get(at).copied() {
            if self.load(node) + 2 <= self.load(from) {
                let (mut moves, mut at) = (Vec::new(), at);
                while let (to, Some((group, earlier))) = reached[at] {
                    moves.push((group, reached[earlier].0, to));
                    at = earlier;
                }
                return Some(moves);
            }
            for next in self.nodes {
                let is_new = reached.iter().all(|(known, _)| known != next);
                let group = (0..self.of.len()).find(|group| is_free(*group, node, *next));
                if let Some(group) = group.filter(|_| is_new) {
                    reached.push((*next, Some((group, at))));
                }
            }
            at += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loads(placement: &Placement, nodes: &[u64]) -> Vec<usize> {
        nodes
            .iter()
            .map(|node| placement.groups_of(*node).count())
            .collect()
    }

    fn is_even(placement: &Placement, nodes: &[u64]) -> bool {
        let loads = loads(placement, nodes);
        loads
            .iter()
            .max()
            .zip(loads.iter().min())
            .is_some_and(|(most, least)| most - least <= 1)
    }

    #[test]
    fn five_nodes_share_fifteen_groups_evenly() {
        let nodes = [1, 2, 3, 4, 5];
        let placement = place(16, &nodes, 3, |_| Vec::new()).unwrap();
        placement.check(16, |node| nodes.contains(&node)).unwrap();
        assert_eq!(loads(&placement, &nodes), [9; 5]);
        assert_eq!(
            place(16, &nodes[..3], 3, |_| Vec::new()),
            None,
            "everybody has all"
        );
        assert_eq!(place(16, &nodes, 5, |_| Vec::new()), None, "everybody has all");
    }

    #[test]
    fn a_node_in_the_place_of_another_takes_its_groups_and_nothing_else_moves() {
        let first = place(16, &[1, 2, 3, 4, 5], 3, |_| Vec::new()).unwrap();
        let second = place(16, &[1, 2, 4, 5, 6], 3, |group| first.of(group).unwrap().to_vec()).unwrap();
        for group in 1..16 {
            let mut expected: Vec<u64> = first.of(group).unwrap().to_vec();
            for node in &mut expected {
                if *node == 3 {
                    *node = 6;
                }
            }
            expected.sort_unstable();
            assert_eq!(second.of(group).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_no_placement_is_refused_by_name() {
        let nodes = [1, 2, 3, 4, 5];
        let sound = place(4, &nodes, 3, |_| Vec::new()).unwrap();
        let bent = |bend: &dyn Fn(&mut Vec<Placed>)| {
            let mut placed = sound.0.clone();
            bend(&mut placed);
            Placement(placed)
                .check(4, |node| nodes.contains(&node))
                .unwrap_err()
        };
        sound.check(4, |node| nodes.contains(&node)).unwrap();
        assert!(bent(&|placed| placed[1].nodes.truncate(2)).contains("3 to 5 nodes"));
        assert!(bent(&|placed| placed[1].nodes = vec![1, 2, 9]).contains("no member"));
        assert!(bent(&|placed| placed[1].nodes = vec![1, 2, 2]).contains("listed once"));
        assert!(bent(&|placed| placed[1].nodes = vec![3, 2, 1]).contains("listed once"));
        assert!(bent(&|placed| drop(placed.remove(1))).contains("not placed"));
        assert!(bent(&|placed| drop(placed.pop())).contains("not placed"));
        assert!(bent(&|placed| placed[1].group = 1).contains("once, by rising number"));
        assert!(bent(&|placed| placed[2].group = 4).contains("does not have"));
        assert!(bent(&|placed| placed[0].group = 0).contains("group 0"));
        assert!(
            Placement(vec![])
                .check(MOST_GROUPS + 1, |_| true)
                .unwrap_err()
                .contains("so many")
        );
    }

    #[test]
    fn no_two_placements_are_signed_as_the_same_bytes() {
        let placed = |group, nodes: &[u64]| Placed {
            group,
            nodes: nodes.to_vec(),
        };
        let one = Placement(vec![placed(1, &[1, 2, 3]), placed(2, &[1, 2, 3])]);
        for other in [
            Placement(vec![placed(1, &[1, 2, 3])]),
            Placement(vec![placed(1, &[1, 2, 3, 4]), placed(2, &[1, 2, 3])]),
            Placement(vec![placed(1, &[1, 2, 4]), placed(2, &[1, 2, 3])]),
            Placement(vec![placed(1, &[1, 2, 3]), placed(3, &[1, 2, 3])]),
        ] {
            assert_ne!(one.bytes(), other.bytes());
        }
    }

    proptest! {
        #[test]
        fn every_placement_is_even_and_moves_no_more_than_it_must(
            groups in 2u32..40,
            (first, second) in (
                proptest::collection::btree_set(1u64..12, 3..10),
                proptest::collection::btree_set(1u64..12, 3..10),
            ),
            (committee, then) in (3usize..6, 3usize..6),
        ) {
            let first: Vec<u64> = first.into_iter().collect();
            let second: Vec<u64> = second.into_iter().collect();
            let everybody = |nodes: &[u64], placement: &Option<Placement>, group: u32| match placement {
                Some(placement) => placement.of(group).unwrap().to_vec(),
                None => nodes.iter().copied().take(MOST).collect(),
            };
            let before = place(groups, &first, committee, |_| Vec::new());
            let had = |group| everybody(&first, &before, group);
            let Some(after) = place(groups, &second, then, had) else {
                prop_assert!(second.len() <= then);
                return Ok(());
            };
            prop_assert!(after.check(groups, |node| second.contains(&node)).is_ok());
            prop_assert!(is_even(&after, &second));
            prop_assert!(after.each().all(|(_, nodes)| nodes.len() == then));
            // A seat has to move if its node is gone, or if its node has more than its share.
            let kept = |node: u64| (1..groups).filter(|group| had(*group).contains(&node)).count();
            let share = (groups as usize - 1) * then / second.len();
            let surplus: usize = second.iter().map(|node| kept(*node).saturating_sub(share)).sum();
            let stay = |group: u32| had(group).iter().filter(|node| second.contains(node)).count().min(then);
            let missing: usize = (1..groups).map(|group| then - stay(group)).sum();
            let moved = |group: u32| {
                let had = had(group);
                after.of(group).unwrap().iter().filter(|node| !had.contains(node)).count()
            };
            let moved: usize = (1..groups).map(moved).sum();
            // No node twice in a group, and one group at a time: that may cost some more, never one for every second group.
            let more = (groups as usize).div_ceil(2);
            prop_assert!(moved <= missing + surplus + more, "{moved} of {missing} + {surplus}");
            // What is placed once stays where it is.
            let again = place(groups, &second, then, |group| after.of(group).unwrap().to_vec());
            prop_assert_eq!(again, Some(after));
        }
    }
}
