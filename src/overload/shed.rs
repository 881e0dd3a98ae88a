//! How much was refused for load, by class and by who refused it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Class, Overloaded};
use crate::telemetry;
use crate::telemetry::metrics::{Kind, Sample};

/// Who refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The edge: one client address had its share (429).
    Address,
    /// The edge: no place for this class (503).
    Node,
    /// One keystore had its share of the node's places (429).
    Keystore,
    /// The crypto pool's queue had no room for this class, or for more of this keystore (503, 429).
    Queue,
    /// One keystore had its share of a group's proposals (503).
    Proposals,
    /// It waited for the pool for as long as it may (503).
    Wait,
    /// Its client's time was over before it was begun.
    Gone,
    /// A peer had as many questions under way as this node answers it (`busy`).
    Peer,
    /// Background work that waited for a quieter moment.
    Quiet,
}

impl At {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Address, "address"),
        (Self::Node, "node"),
        (Self::Keystore, "keystore"),
        (Self::Queue, "queue"),
        (Self::Proposals, "proposals"),
        (Self::Wait, "wait"),
        (Self::Gone, "gone"),
        (Self::Peer, "peer"),
        (Self::Quiet, "quiet"),
    ];
}

/// Counters.
#[derive(Default)]
pub struct Shed([[AtomicU64; Class::ALL.len()]; At::ALL.len()]);

impl Shed {
    /// One more.
    pub fn count(&self, at: At, class: Class) {
        self.0[at as usize][class.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// The same for what the pool refused.
    pub fn count_pool(&self, why: Overloaded, class: Class) {
        match why {
            Overloaded::Share | Overloaded::Full => self.count(At::Queue, class),
            Overloaded::Waited => self.count(At::Wait, class),
            Overloaded::Gone => self.count(At::Gone, class),
            Overloaded::Panicked => {}
        }
    }

    /// How often so far.
    pub fn counted(&self, at: At, class: Class) -> u64 {
        self.0[at as usize][class.index()].load(Ordering::Relaxed)
    }

    /// Everything of a class so far, whoever refused it.
    pub fn of_class(&self, class: Class) -> u64 {
        At::ALL.iter().map(|(at, _)| self.counted(*at, class)).sum()
    }

    /// Tells them in `metrics`.
    pub fn register(self: &std::sync::Arc<Self>, metrics: &telemetry::Metrics) {
        let shed = self.clone();
        metrics.sample(
            "shed",
            "Work refused for load, by class and by who refused it",
            Kind::Counter,
            move || {
                let each = At::ALL
                    .iter()
                    .flat_map(|(at, name)| Class::ALL.map(|class| (*at, *name, class)));
                each.map(|(at, name, class)| Sample {
                    labels: vec![("class", class.name().to_owned()), ("at", name.to_owned())],
                    value: shed.counted(at, class),
                })
                .collect()
            },
        );
    }
}
