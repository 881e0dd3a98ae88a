//! SIGKILL, to one node after the other under load and to all at once.

use std::time::Duration;

use crate::common::load::Load;
use crate::common::world::World;

/// No request to a live node takes longer.
const LONGEST: Duration = Duration::from_secs(5);

/// Kills the leader of most groups first, then each node in turn, `rounds` times, with load all the while.
async fn nodes_die_under_load(rounds: usize, workers: usize, longest: Option<Duration>) {
    let mut world = World::start(3).await;
    let load = Load::start(|| world.new_clients(), workers, None).await;
    load.goes_on(5).await;
    for round in 0..rounds {
        let leader = world.leader_of_most(round % 3).await;
        for dead in [leader, (leader + 1) % 3, (leader + 2) % 3] {
            load.goes_down(dead);
            world.cluster.kill(dead).await;
            load.goes_on(10).await;
            world.cluster.restart(dead).await;
            load.is_up(dead);
            load.goes_on(5).await;
        }
    }
    let account = load.finish().await;
    account.is_faultless();
    if let Some(longest) = longest {
        assert!(account.slowest.0 < longest, "{:?}", account.slowest);
    }
    assert!(!account.keys.is_empty() && !account.revoked.is_empty());
    for client in &world.clients {
        account.holds_at(client).await;
    }
    account.whole_or_nothing(&world.clients).await;

    world.cluster.restart_all().await;
    for client in &world.clients {
        account.holds_at(client).await;
    }
    account.whole_or_nothing(&world.clients).await;
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_may_die_under_load_and_nothing_acknowledged_is_lost() {
    nodes_die_under_load(1, 1, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: run by make test-long"]
async fn thirty_deaths_under_load_and_no_answer_is_slower_than_five_seconds() {
    nodes_die_under_load(10, 3, Some(LONGEST)).await;
}
