//! Which members operators order in a world, and which of them are left alone in liveness mode.

use conclave_consensus::NodeId;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// A group has at least and at most so many members.
const FEWEST: usize = 3;
const MOST: usize = 5;
/// The highest number of a node: each costs time.
const HIGHEST: NodeId = 9;

/// One to three lists of members, each after the one before it. A new node takes a number that no node had before.
pub(crate) fn orders(nodes: u64, rng: &mut ChaCha8Rng) -> Vec<Vec<NodeId>> {
    let count = *[1, 1, 2, 2, 3].choose(rng).unwrap_or(&1);
    let mut current: Vec<NodeId> = (1..=nodes).collect();
    let mut highest = nodes;
    let mut lists = Vec::new();
    for _ in 0..count {
        let (gone, come) = change(current.len(), rng);
        if highest + come > HIGHEST {
            break;
        }
        for _ in 0..gone {
            current.remove(rng.gen_range(0..current.len()));
        }
        current.extend(highest + 1..=highest + come);
        highest += come;
        lists.push(current.clone());
    }
    lists
}

/// How many go and how many come.
fn change(members: usize, rng: &mut ChaCha8Rng) -> (u64, u64) {
    let all = members as u64;
    match rng.gen_range(0..10) {
        // One more, or one less.
        0 | 1 if members < MOST => (0, 1),
        2 | 3 if members > FEWEST => (1, 0),
        // Others in the place of all of them.
        4 => (all, FEWEST as u64),
        5 => (2, 2),
        6 if members > FEWEST => (all - 1, 2),
        _ => (1, 1),
    }
}

/// A majority of the members before a change and of those after it. In two worlds of three it has all of the new ones, so that
/// the change comes to its end; without one of them it does not, and everything else has to go on all the same.
pub(crate) fn core(nodes: u64, to: &[NodeId], rng: &mut ChaCha8Rng) -> std::collections::BTreeSet<NodeId> {
    let some_of = |list: Vec<NodeId>, rng: &mut ChaCha8Rng| {
        let mut list = list;
        list.shuffle(rng);
        list.truncate(list.len() / 2 + 1);
        list
    };
    let mut core = match rng.gen_bool(0.66) {
        true => to.to_vec(),
        false => some_of(to.to_vec(), rng),
    };
    let old: Vec<NodeId> = (1..=nodes).collect();
    let quorum = old.len() / 2 + 1;
    let mut others: Vec<NodeId> = old.iter().copied().filter(|node| !core.contains(node)).collect();
    others.shuffle(rng);
    let have = old.iter().filter(|node| core.contains(node)).count();
    core.extend(others.into_iter().take(quorum.saturating_sub(have)));
    core.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn lists_are_ones_that_operators_may_order() {
        let mut sizes = std::collections::BTreeSet::new();
        for seed in 0..2_000 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let nodes = 3 + seed % 3;
            let mut before: Vec<NodeId> = (1..=nodes).collect();
            let mut highest = nodes;
            let lists = orders(nodes, &mut rng);
            assert!(!lists.is_empty());
            for list in &lists {
                assert!(
                    (FEWEST..=MOST).contains(&list.len()) && *list != before,
                    "{lists:?}"
                );
                assert!(list.is_sorted_by(|one, next| one < next), "{lists:?}");
                let new = |node: &&NodeId| !before.contains(node);
                assert!(list.iter().filter(new).all(|node| *node > highest), "{lists:?}");
                sizes.insert((before.len(), list.len()));
                highest = highest.max(list.last().copied().unwrap_or(0));
                before.clone_from(list);
            }
            let core = core(nodes, &lists[0], &mut rng);
            let has = |list: &[NodeId]| list.iter().filter(|node| core.contains(node)).count();
            let old: Vec<NodeId> = (1..=nodes).collect();
            assert!(has(&old) > old.len() / 2 && has(&lists[0]) > lists[0].len() / 2);
        }
        for change in [(3, 3), (3, 4), (4, 5), (5, 3), (4, 3), (5, 4), (4, 4), (5, 5)] {
            assert!(sizes.contains(&change), "{change:?}");
        }
    }
}
