//! The network between nodes: delay, loss, duplication, and cuts that may be one-way.

use conclave_consensus::NodeId;
use rand::Rng;
use std::collections::BTreeSet;

/// How the links behave now.
#[derive(Clone, Debug)]
pub struct Network {
    /// Shortest and longest delay, microseconds. A wide span also reorders.
    pub delay: (u64, u64),
    /// Share of messages lost.
    pub loss: f64,
    /// Share of messages that arrive twice.
    pub duplication: f64,
    /// Ordered pairs over which nothing arrives.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes between which no fault ever happens again.
    sound: BTreeSet<NodeId>,
}

/// Shortest and longest delay of a link that nothing ails, microseconds.
const FAIR: (u64, u64) = (200, 2_000);

impl Default for Network {
    fn default() -> Self {
        Network {
            delay: FAIR,
            loss: 0.0,
            duplication: 0.0,
            cut: BTreeSet::new(),
            sound: BTreeSet::new(),
        }
    }
}

impl Network {
    /// Nothing from `from` arrives at `to`.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Whether anything from `from` may arrive at `to`.
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&(from, to)) && !self.is_sound(from, to)
    }

    /// Everything works again.
    pub fn heal(&mut self) {
        let sound = std::mem::take(&mut self.sound);
        *self = Network {
            sound,
            ..Network::default()
        };
    }

    /// From now on the links between these nodes are good.
    pub fn spare(&mut self, nodes: &BTreeSet<NodeId>) {
        self.sound = nodes.clone();
    }

    fn is_sound(&self, from: NodeId, to: NodeId) -> bool {
        self.sound.contains(&from) && self.sound.contains(&to)
    }

    /// Ends all cuts; delay and loss stay.
    pub fn mend(&mut self) {
        self.cut.clear();
    }

    /// The delays after which copies of one message arrive: none, one or two.
    pub(crate) fn deliveries(&self, from: NodeId, to: NodeId, rng: &mut impl Rng) -> Vec<u64> {
        let delay = |rng: &mut dyn rand::RngCore| rng.gen_range(self.delay.0..=self.delay.1);
        if from == to {
            return vec![1];
        }
        if self.is_sound(from, to) {
            return vec![rng.gen_range(FAIR.0..=FAIR.1)];
        }
        if self.is_cut(from, to) || rng.gen_bool(self.loss) {
            return Vec::new();
        }
        let mut delays = vec![delay(rng)];
        if rng.gen_bool(self.duplication) {
            delays.push(delay(rng));
        }
        delays
    }
}
