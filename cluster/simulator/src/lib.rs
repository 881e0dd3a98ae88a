//! A seeded world of clock, network and disks that drives the real cores.
//!
//! A user gives a [`Cluster`]: the application of each node's consensus, and a [`Process`] that runs beside it
//! (holders, coordinators, clients). [`World::run`] takes it through the faults of one seed and checks after
//! every event that committed logs and states agree, that no term has two leaders, that nothing acknowledged
//! is lost, that ReadIndex is linearizable. A world ends in one of two ways ([`Mode`]): everything is healed and has
//! to work again, or a majority is left alone, the core, and has to make progress whatever the rest does.
//!
//! [`majority`] is such a cluster: it checks the freshness rule of consensus.md 1 with a register in place of
//! keystores. Its tests also plant bugs and see them found. In some worlds operators change the members meanwhile
//! ([`Setup::moving_from_seed`]).

mod clock;
mod disk;
mod disorder;
mod faults;
mod ledger;
pub mod linearizability;
mod liveness;
pub mod majority;
mod members;
mod moves;
mod name;
mod network;
mod plan;
mod process;
pub mod seeds;
mod setup;
mod world;
mod wrapped;

pub use disk::SimulatedDisk;
pub use disorder::Disorderly;
pub use name::Name;
pub use network::Network;
pub use plan::Fault;
pub use process::{Cluster, Node, Process};
pub use setup::{Failure, Mode, Report, Setup};
pub use world::World;
pub use wrapped::{Wrapped, Wrapper};
