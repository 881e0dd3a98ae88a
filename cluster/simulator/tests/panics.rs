//! Code that panics in the middle of a world is reported as a broken rule is: with the seed, and the command that replays it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use conclave_consensus::{Application, GroupId, Halt, NodeId, StateTransaction};
use conclave_simulator::majority::Clerks;
use conclave_simulator::seeds::{self, Replay};
use conclave_simulator::{Cluster, Failure, Setup, World, Wrapped, Wrapper};

/// An application that panics at its fifth entry.
struct Panicking(Arc<dyn Application>);

impl Wrapper for Panicking {
    fn inner(&self) -> &dyn Application {
        &*self.0
    }

    fn apply(
        &self,
        group: GroupId,
        index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        assert!(index < 5, "the fifth entry of {group}");
        self.0.apply(group, index, entry, state)
    }
}

struct Spoiled(Clerks);

impl Cluster for Spoiled {
    type Process = <Clerks as Cluster>::Process;

    fn application(&mut self, node: NodeId) -> Arc<dyn Application> {
        Arc::new(Wrapped(Panicking(self.0.application(node))))
    }

    fn process(&mut self, node: NodeId, life: u64) -> Self::Process {
        self.0.process(node, life)
    }

    fn probe(&mut self, group: GroupId, number: u64) -> Vec<u8> {
        self.0.probe(group, number)
    }
}

#[test]
fn an_application_that_panics_is_reported_with_its_seed() {
    let replay = Replay("-p conclave-simulator --test panics");
    let run = || {
        seeds::on_all_cores(7..8, replay, |seed, _: &mut ()| {
            let setup = Setup::from_seed(seed);
            let clerks = Spoiled(Clerks::new(seed, &setup));
            World::new(seed, setup, clerks).run()?;
            Ok::<(), Failure>(())
        })
    };
    let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    let told = panic.downcast_ref::<String>().unwrap();
    for part in [
        "seed 7: the world panicked: the fifth entry of",
        "replay: SEED=7 cargo test --locked -p conclave-simulator --test panics",
    ] {
        assert!(told.contains(part), "{part:?} is missing in {told:?}");
    }
}
