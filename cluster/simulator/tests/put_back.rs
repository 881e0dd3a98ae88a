//! An older copy of a disk is put back while a leader dies: whoever is left must not elect without what was acknowledged,
//! and the node must recognize what it runs on. `SEEDS=2000 cargo test -p conclave-simulator --test put_back` for more.

use conclave_simulator::majority::Clerks;
use conclave_simulator::seeds::{self, Replay};
use conclave_simulator::{Failure, Fault, Mode, Setup, World};

#[test]
fn an_older_copy_undoes_nothing() {
    let replay = Replay("-p conclave-simulator --test put_back");
    seeds::on_all_cores(seeds::from_environment(60), replay, |seed, _: &mut ()| {
        let mut setup = Setup::from_seed(seed);
        setup.nodes = 3;
        setup.mode = Mode::Safety;
        // Of three, one is out of it in the end and one may lack the log: nobody is left to vouch for what the third one has.
        setup.settings.believe_leaders = true;
        setup.faulty_micros = 6_500_000;
        let node = |place: u64| (seed + place) % 3 + 1;
        let (old, slow) = (node(0), node(1 + seed / 3 % 2));
        let dying = 6 - old - slow;
        setup.faults = Some(vec![
            (1_400_000, Fault::Copy(old)),
            // The slow one gets nothing from the one that dies, so that the other two are the only ones who know.
            (1_500_000, Fault::CutOne(dying, slow)),
            (4_200_000, Fault::PutBack(old, 50_000)),
            (4_200_000, Fault::Crash(dying, 2_000_000)),
            (4_200_001, Fault::Mend),
        ]);
        let clerks = Clerks::new(seed, &setup);
        let report = World::new(seed, setup, clerks).run()?;
        assert!(report.acknowledgements > 20, "{report:?}");
        Ok::<(), Failure>(())
    });
}
