//! Which faults a seed brings, and when.

use crate::setup::{Mode, Setup};
use conclave_consensus::NodeId;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// One fault, or its end.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The process dies; what it had not synced may be lost. It starts again after so many microseconds.
    Crash(NodeId, u64),
    /// The process dies while it writes its next synced batch, after what may leave before has left.
    CrashWriting(NodeId, u64),
    /// The disk fails at the next write (F12): the process ends itself, and starts again on a disk that works.
    FailDisk(NodeId, u64),
    /// All processes die at once (F5).
    PowerCut(u64),
    /// These nodes and the others do not hear each other.
    Partition(Vec<NodeId>),
    /// The node hears nobody, and everybody hears it (F8).
    Deaf(NodeId),
    /// Everybody hears nobody of it, and it hears everybody.
    Mute(NodeId),
    /// One direction of one link.
    CutOne(NodeId, NodeId),
    /// Delay from and to in microseconds, loss and duplication.
    Weather((u64, u64), f64, f64),
    /// Syncs of this node take this many microseconds longer (F11).
    SlowDisk(NodeId, u64),
    /// The node's wall clock jumps to this many milliseconds from the world's; the one that was wrong before is put
    /// right. A minority of clocks is wrong at once.
    Clock(NodeId, i64),
    /// Somebody copies the node's disk.
    Copy(NodeId),
    /// The process dies and starts again, after so many microseconds, on the copy of its disk (F29).
    PutBack(NodeId, u64),
    /// All cuts end.
    Mend,
    /// Network and disks are as good as new.
    Clear,
}

/// Faults with the microseconds at which they happen, in order.
pub(crate) fn faults(setup: &Setup, rng: &mut ChaCha8Rng) -> Vec<(u64, Fault)> {
    let mut plan = Vec::new();
    // A change of members needs all the new ones in the end.
    let changes = !setup.moves.is_empty();
    let mut at = 1_200_000;
    while at < setup.faulty_micros {
        plan.push((at, fault(setup, rng)));
        at += rng.gen_range(100_000..900_000);
    }
    let Mode::Liveness { core, steady } = &setup.mode else {
        plan.retain(|(_, fault)| !(changes && fault.leaves_records_of_later()));
        return plan;
    };
    while at < setup.faulty_micros + CORE_MICROS {
        let fault = fault(setup, rng);
        if !(*steady && fault.is_of_links()) {
            plan.push((at, fault));
        }
        at += rng.gen_range(50_000..600_000);
    }
    // A clock that was ten minutes ahead leaves records of that time behind, and its node waits until it is over: such a
    // node is not healthy.
    plan.retain(|(_, fault)| !matches!(fault, Fault::Clock(node, _) if core.contains(node)));
    plan.retain(|(_, fault)| !(changes && fault.leaves_records_of_later()));
    plan
}

/// How long the faults of the others go on while a core is left alone: longer than it may take.
const CORE_MICROS: u64 = 40_000_000;

impl Fault {
    /// The node whose process, disk or clock it happens to, if it is one node's.
    pub(crate) fn node(&self) -> Option<NodeId> {
        match self {
            Fault::Crash(node, _)
            | Fault::CrashWriting(node, _)
            | Fault::FailDisk(node, _)
            | Fault::SlowDisk(node, _)
            | Fault::Clock(node, _)
            | Fault::PutBack(node, _) => Some(*node),
            _ => None,
        }
    }

    /// Whether a node has records of a time afterwards that has not come yet, so that it says nothing until then.
    fn leaves_records_of_later(&self) -> bool {
        matches!(self, Fault::Clock(_, millis) if *millis > 4_000)
    }

    /// Whether it cuts or mends links.
    fn is_of_links(&self) -> bool {
        matches!(
            self,
            Fault::Partition(_)
                | Fault::Deaf(_)
                | Fault::Mute(_)
                | Fault::CutOne(..)
                | Fault::Mend
                | Fault::Clear
        )
    }
}

fn fault(setup: &Setup, rng: &mut ChaCha8Rng) -> Fault {
    let count = setup.everybody().len() as u64;
    let node = |rng: &mut ChaCha8Rng| rng.gen_range(1..=count);
    match rng.gen_range(0..26) {
        0..=2 => Fault::Crash(node(rng), rng.gen_range(50_000..2_500_000)),
        3 | 20 | 21 => Fault::CrashWriting(node(rng), rng.gen_range(20_000..1_000_000)),
        22 => Fault::FailDisk(node(rng), rng.gen_range(20_000..1_000_000)),
        4 => Fault::PowerCut(rng.gen_range(50_000..800_000)),
        5..=7 => {
            let mut nodes = setup.everybody();
            nodes.shuffle(rng);
            nodes.truncate(rng.gen_range(1..=nodes.len() / 2));
            Fault::Partition(nodes)
        }
        8 => Fault::Deaf(node(rng)),
        9 => Fault::Mute(node(rng)),
        10 | 11 => Fault::CutOne(node(rng), node(rng)),
        12 | 13 => {
            let slow = rng.gen_range(1_000..120_000);
            let loss = *[0.0, 0.02, 0.05, 0.2].choose(rng).unwrap_or(&0.0);
            Fault::Weather((100, slow), loss, rng.gen_range(0.0..0.1))
        }
        14 => Fault::SlowDisk(node(rng), rng.gen_range(20_000..300_000)),
        15..=17 => Fault::Mend,
        23 | 24 => {
            // Ten minutes, an hour, or seconds.
            let reach = *[600_000, 3_600_000, 8_000].choose(rng).unwrap_or(&8_000);
            Fault::Clock(node(rng), rng.gen_range(-reach..=reach))
        }
        _ => Fault::Clear,
    }
}
