//! No seed is used twice, over 100,000 operations of four nodes that restart, crash between the burning of a number and what
//! follows, come back from an older disk, and are asked the same again by evaluators that cheat. Counted by hashes.

use std::collections::HashMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sha2::{Digest, Sha256};

use super::*;
use crate::burned::Burned;
use crate::pairs::Pairs;
use crate::session::tests::{small, task};

const CLUSTER: [u8; 32] = [9; 32];
const NODES: u64 = 4;
const OPERATIONS: u32 = 100_000;

/// What a node has in memory; of all this nothing is on its disk.
struct Node {
    boot: [u8; 16],
    pairs: Pairs,
    burned: Burned,
    numbers: u64,
}

impl Node {
    fn start(node: u64, random: &mut ChaCha20Rng) -> Self {
        let boot = random.r#gen();
        Self {
            boot,
            pairs: Pairs::new(CLUSTER, node, boot, random),
            burned: Burned::default(),
            numbers: 0,
        }
    }
}

/// What an evaluator asks: its number, the operation, the request.
type Question = (u64, [u8; 24], [u8; 32]);

struct World {
    random: ChaCha20Rng,
    nodes: Vec<Node>,
    task: Task,
    asked: Vec<([u64; 3], Question)>,
    /// By garbler and hash of a seed: how often it was used.
    used: HashMap<(u64, [u8; 32]), u32>,
    /// By hash of a seed: what it was for.
    meant: HashMap<[u8; 32], [u8; 32]>,
    refused: u32,
}

impl World {
    fn new(seed: u8) -> Self {
        let mut random = ChaCha20Rng::from_seed([seed; 32]);
        let nodes = (1..=NODES).map(|node| Node::start(node, &mut random)).collect();
        Self {
            random,
            nodes,
            task: task(small(), vec![0; 1], 0),
            asked: Vec::new(),
            used: HashMap::new(),
            meant: HashMap::new(),
            refused: 0,
        }
    }

    fn node(&mut self, node: u64) -> &mut Node {
        &mut self.nodes[node as usize - 1]
    }

    fn restart(&mut self, node: u64) {
        let started = Node::start(node, &mut self.random);
        *self.node(node) = started;
    }

    fn secret(&mut self, one: u64, other: u64) -> PairSecret {
        let half = |node: &Node| (node.boot, node.pairs.public());
        let (of_one, of_other) = (half(self.node(one)), half(self.node(other)));
        self.node(one).pairs.learn(other, of_other.0, of_other.1).unwrap();
        self.node(other).pairs.learn(one, of_one.0, of_one.1).unwrap();
        self.node(one).pairs.with(other, &of_other.0).unwrap()
    }

    /// A garbler is asked; `crashes` after it has burned the number.
    fn ask(&mut self, garbler: u64, roles: [u64; 3], question: Question, crashes: bool) {
        let evaluator = roles[2];
        let boot = self.node(evaluator).boot;
        let (number, operation, request) = question;
        let other = if roles[0] == garbler { roles[1] } else { roles[0] };
        let of_garbler = self.node(garbler);
        let opened = of_garbler.burned.open(evaluator, boot);
        if opened.is_err() || of_garbler.burned.burn(evaluator, boot, number).is_err() {
            self.refused += 1;
            return;
        }
        if crashes {
            return self.restart(garbler);
        }
        let secret = self.secret(garbler, other);
        let context = Context {
            cluster: CLUSTER,
            roles,
            absent: (1..=NODES).filter(|node| !roles.contains(node)).collect(),
            boot,
            number,
            operation,
            attempt: 1,
            key: b"key".to_vec(),
            key_type: 5,
            sharing: [4; 32],
            request,
        };
        let seed = Sha256::digest(&context.derive(&self.task, &secret).0[..]).into();
        *self.used.entry((garbler, seed)).or_default() += 1;
        let meaning = context.digest(&self.task);
        let meant = *self.meant.entry(seed).or_insert(meaning);
        assert_eq!(meant, meaning, "one seed for two operations");
    }

    /// An operation, and what goes wrong around it.
    fn step(&mut self, forgets: bool) {
        let mut roles: Vec<u64> = (1..=NODES).collect();
        while roles.len() > 3 {
            roles.remove(self.random.gen_range(0..roles.len()));
        }
        roles.rotate_left(self.random.gen_range(0..3));
        if self.random.r#gen() {
            roles.swap(0, 1);
        }
        let roles = [roles[0], roles[1], roles[2]];
        let evaluator = self.node(roles[2]);
        evaluator.numbers += 1;
        let number = evaluator.numbers;
        let question: Question = (number, rand_array(&mut self.random), self.random.r#gen());
        self.asked.push((roles, question));
        for garbler in [roles[0], roles[1]] {
            let crashes = self.random.gen_ratio(1, 500);
            self.ask(garbler, roles, question, crashes);
        }
        if self.random.gen_ratio(1, 10) {
            // Something of before again, as it was or with another request, number or order of garblers.
            let before = self.asked.len().saturating_sub(1_000);
            let (roles, mut again) = self.asked[self.random.gen_range(before..self.asked.len())];
            if self.random.r#gen() {
                again.2 = self.random.r#gen();
            }
            if self.random.r#gen() {
                again.0 = self.random.gen_range(1..=number);
            }
            let exchanged = [roles[1], roles[0], roles[2]];
            let roles = if self.random.r#gen() { roles } else { exchanged };
            for garbler in [roles[0], roles[1]] {
                self.ask(garbler, roles, again, false);
            }
        }
        if self.random.gen_ratio(1, 200) {
            let node = self.random.gen_range(1..=NODES);
            if forgets {
                self.node(node).burned = Burned::default();
            } else {
                self.restart(node);
            }
        }
        if self.random.gen_ratio(1, 1_000) {
            // An older disk has what any disk has: nothing of this.
            let node = self.random.gen_range(1..=NODES);
            self.restart(node);
        }
    }

    fn reused(&self) -> usize {
        self.used.values().filter(|times| **times > 1).count()
    }
}

fn rand_array(random: &mut ChaCha20Rng) -> [u8; 24] {
    std::array::from_fn(|_| random.r#gen())
}

#[test]
fn no_seed_is_used_twice_in_a_hundred_thousand_operations() {
    let mut world = World::new(1);
    for _ in 0..OPERATIONS {
        world.step(false);
    }
    assert_eq!(world.reused(), 0);
    assert!(world.used.len() > 190_000, "{}", world.used.len());
    assert!(world.refused > 5_000, "{} repetitions", world.refused);
}

/// So that the count above means something.
#[test]
fn a_garbler_that_forgets_what_it_burned_uses_seeds_twice() {
    let mut world = World::new(2);
    for _ in 0..OPERATIONS / 10 {
        world.step(true);
    }
    assert!(world.reused() > 0);
}
