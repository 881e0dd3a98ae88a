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
