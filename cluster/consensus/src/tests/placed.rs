//! A group that began on some of the nodes only is empty on the others, which elect nobody in it and are asked nothing about it.

use super::harness::*;
use crate::*;

const ELSEWHERE: GroupId = GroupId(1);

fn placed(voters: &[NodeId]) -> impl Fn(&mut Settings) {
    let voters = voters.to_vec();
    move |settings: &mut Settings| {
        settings.groups = 2;
        settings.placed.insert(ELSEWHERE, voters.clone());
    }
}

#[test]
fn who_has_no_part_of_a_group_has_nothing_of_it_and_disturbs_nobody() {
    let mut nodes = Nodes::with(placed(&[1, 2]));
    nodes.elect();
    nodes.run(5_000);
    let of = |nodes: &Nodes, node: NodeId| nodes.machines[&node].driver.status()[1].clone();
    let (one, three) = (of(&nodes, 1), of(&nodes, 3));
    assert!(one.leader.is_some_and(|leader| leader < 3));
    assert_eq!(one.configuration, Configuration::stable(&[1, 2]));
    assert_eq!(
        (three.standing, three.term, three.leader),
        (Standing::Joining, 0, None)
    );
    assert_eq!(nodes.freshness(3).standing(ELSEWHERE), Some(Standing::Joining));
    assert_eq!(nodes.freshness(3).standing(GroupId(9)), None);
    let abstains = nodes.freshness(3).may_contribute(ELSEWHERE).unwrap_err();
    assert_eq!(abstains.reason, Reason::Joining);
    assert!(nodes.freshness(3).view(ELSEWHERE).is_err());
    for node in 1..=3 {
        let counters = nodes.machines[&node].driver.counters();
        assert_eq!(counters.dropped_total(), 0, "{:?}", counters.dropped());
    }
    // In the group that all have all are voters.
    assert_eq!(nodes.status(3).standing, Standing::Voter);
}

#[test]
fn no_group_begins_on_a_node_that_is_no_voter() {
    let mut strange = settings(1);
    placed(&[1, 9])(&mut strange);
    let refused = Driver::bootstrap(&*std::sync::Arc::<Memory>::default(), &strange);
    assert!(matches!(refused, Err(OpenError::Settings(why)) if why.contains("no voter")));
}
