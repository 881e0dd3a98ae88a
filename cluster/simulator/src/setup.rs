//! What a run is like, and how it ends.

use crate::moves;
use crate::plan::Fault;
use conclave_consensus::{NodeId, Settings};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

/// How a run ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything is healed, and has ten seconds to work again.
    Safety,
    /// A healthy majority is left alone, and the faults of everybody else go on (I14).
    Liveness {
        /// The majority: from then on its links to each other, its disks and its clocks are good, and none of it dies.
        core: BTreeSet<NodeId>,
        /// The links of the others are cut at that moment and stay as they are, instead of changing all the time.
        steady: bool,
    },
}

/// What a run is like. The same setup and seed give the same run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Nodes, with ids from 1.
    pub nodes: u64,
    /// How it ends.
    pub mode: Mode,
    /// Faults happen to everybody until this many microseconds have passed.
    pub faulty_micros: u64,
    /// After that everything works, for at least this many microseconds more.
    pub calm_micros: u64,
    /// Wall clocks differ from the world's by this many milliseconds at most, but for the one that a fault puts wrong.
    pub skew_millis: i64,
    /// Settings of all nodes; cluster, node and voters are filled in.
    pub settings: Settings,
    /// Faults of the user's own, instead of the seed's.
    pub faults: Option<Vec<(u64, Fault)>>,
    /// The lists of members that operators order, one after the other; none: the first nodes stay. Nodes that are not among
    /// the first ones begin with empty disks.
    pub moves: Vec<Vec<NodeId>>,
}

impl Setup {
    /// Nodes and lengths drawn from the seed: mostly three nodes, two groups, snapshots and truncation early; one seed in
    /// four is in liveness mode.
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5e7u64.rotate_left(40));
        let nodes = *[3, 3, 3, 3, 3, 3, 4, 5].get(rng.gen_range(0..8)).unwrap_or(&3);
        let mut settings = Settings::new([0; 32], 1, vec![1]);
        settings.groups = rng.gen_range(1..=2);
        settings.truncate_above = rng.gen_range(20..200);
        settings.keep_entries = rng.gen_range(1..20);
        settings.chunk_bytes = rng.gen_range(100..4_000);
        settings.statement_ms = 1_000;
        let faulty_micros = rng.gen_range(3_000_000..6_500_000);
        let mode = match seed % 4 {
            3 => {
                let mut core: Vec<NodeId> = (1..=nodes).collect();
                core.shuffle(&mut rng);
                core.truncate(rng.gen_range(nodes / 2 + 1..nodes) as usize);
                Mode::Liveness {
                    core: core.into_iter().collect(),
                    steady: rng.gen_bool(0.5),
                }
            }
            _ => Mode::Safety,
        };
        // Two of three that are left alone cannot vouch for a state that one of them got from the other.
        settings.believe_leaders = mode != Mode::Safety;
        Setup {
            nodes,
            mode,
            faulty_micros,
            calm_micros: 1_500_000,
            skew_millis: rng.gen_range(0..1_500),
            settings,
            faults: None,
            moves: Vec::new(),
        }
    }

    /// The same in a world whose members change, by one to three orders.
    pub fn moving_from_seed(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x30eu64.rotate_left(40));
        let mut setup = Setup::from_seed(seed);
        setup.faulty_micros += 2_000_000;
        setup.moves = moves::orders(setup.nodes, &mut rng);
        setup.settings.peers = setup.everybody();
        let mut lists: Vec<Vec<NodeId>> = vec![(1..=setup.nodes).collect()];
        lists.extend(setup.moves.iter().cloned());
        let leaves = |pair: &[Vec<NodeId>]| pair[0].iter().any(|node| !pair[1].contains(node));
        if lists.windows(2).any(leaves) {
            // As in production: who was removed while it was away is told so by the log, and by nothing else.
            setup.settings.keep_entries = 2_048;
            setup.settings.truncate_above = 2_100;
        }
        if let Mode::Liveness { core, .. } = &mut setup.mode {
            // The core is one of both lists.
            setup.moves.truncate(1);
            *core = moves::core(setup.nodes, &setup.moves[0], &mut rng);
        }
        setup
    }

    /// All nodes that there ever are, from 1.
    pub fn everybody(&self) -> Vec<NodeId> {
        let newest = self.moves.iter().flatten().max().copied().unwrap_or(0);
        (1..=newest.max(self.nodes)).collect()
    }

    /// The members that are left in the end.
    pub fn last_members(&self) -> Vec<NodeId> {
        let first = || (1..=self.nodes).collect();
        self.moves.last().cloned().unwrap_or_else(first)
    }
}

/// A rule was broken.
#[derive(Debug, thiserror::Error)]
#[error("seed {seed} at {micros} us: {what}")]
pub struct Failure {
    /// The seed that shows it, again and again.
    pub seed: u64,
    /// When.
    pub micros: u64,
    /// What.
    pub what: String,
}

/// A run without a broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Hash of what happened, in order and with its time: frames (their bytes) and messages of processes (what they show of
    /// themselves) as they come to a node, ticks, timers, replies of consensus, ends of synced writes, links, starts, deaths in
    /// the middle of a write, and faults. What the network lost is not in it.
    pub trace: u64,
    /// How many events.
    pub events: u64,
    /// Virtual microseconds.
    pub micros: u64,
    /// Acknowledged proposals, the world's own probes included.
    pub acknowledgements: u64,
    /// Snapshots installed on any node, in its last life.
    pub snapshots: u64,
    /// Operations that a core achieved while the rest misbehaved.
    pub achieved: u64,
}
