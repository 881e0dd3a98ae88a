//! A seeded world of clock, network and disks that drives the real cores.
//!
//! A user gives a [`Cluster`]: the application of each node's consensus, and a [`Process`] that runs beside it
//! (holders, coordinators, clients). [`World::run`] takes it through the faults of one seed and checks after
//! every event that committed logs and states agree, that no term has two leaders, that nothing acknowledged
//! is lost, that ReadIndex is linearizable, and in the end that a healed cluster works again.
//!
//! [`majority`] is such a cluster: it checks the freshness rule of consensus.md 1 with a register in place of
//! keystores. Its tests also plant bugs and see them found.

mod clock;
mod disk;
mod faults;
mod ledger;
pub mod majority;
mod name;
mod network;
mod plan;
mod process;
mod setup;
mod world;

pub use disk::SimulatedDisk;
pub use name::Name;
pub use network::Network;
pub use plan::Fault;
pub use process::{Cluster, Node, Process};
pub use setup::{Failure, Report, Setup};
pub use world::World;
