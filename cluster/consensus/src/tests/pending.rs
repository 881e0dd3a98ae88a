//! What is pending, from when to when (consensus.md 1.1 to 1.3).

use super::harness::*;
use crate::*;
use raft::eraftpb::{Entry, Message, MessageType};

/// A follower that has an entry in its log and does not know that it is committed.
fn uncommitted(nodes: &mut Nodes, entry: &str) -> (NodeId, NodeId) {
    let leader = nodes.elect();
    let follower = other(&[leader]);
    nodes.cut.insert(other(&[leader, follower]));
    nodes.propose(leader, 1, entry);
    nodes.turn(leader);
    let append = nodes
        .wires
        .iter()
        .find(|wire| wire.to == follower && wire.is(MessageType::MsgAppend))
        .cloned();
    nodes.wires.clear();
    nodes.receive(follower, leader, &append.unwrap().frame);
    (leader, follower)
}

#[test]
fn an_entry_is_pending_before_the_message_that_acknowledges_it() {
    let mut nodes = Nodes::new();
    let (leader, follower) = uncommitted(&mut nodes, "a=1");
    let now = nodes.now();
    let freshness = nodes.freshness(follower);
    assert!(
        freshness.settle(G, scope(b'a')).unwrap().is_over(),
        "not yet in the log"
    );
    let turn = nodes.driver(follower).collect(now).unwrap().unwrap();
    nodes.gather(follower);
    assert!(nodes.wires.is_empty(), "nothing is acknowledged");
    assert!(
        !freshness.settle(G, scope(b'a')).unwrap().is_over(),
        "and it is pending already"
    );
    assert!(
        freshness.settle(G, scope(b'b')).unwrap().is_over(),
        "another scope does not wait"
    );
    // The leader's own entry too, before its message leaves.
    assert!(!nodes.freshness(leader).settle(G, scope(b'a')).unwrap().is_over());
    nodes.machines[&follower]
        .disk
        .write(&turn.batch, turn.sync)
        .unwrap();
    nodes.driver(follower).finish(now, turn).unwrap();
    assert!(
        !freshness.settle(G, scope(b'a')).unwrap().is_over(),
        "until it is applied"
    );
    nodes.gather(follower);
    nodes.run(200);
    assert!(freshness.settle(G, scope(b'a')).unwrap().is_over());
    assert_eq!(nodes.value(follower, "a").as_deref(), Some("1"));
}

#[test]
fn a_wait_reads_after_it_ends_and_ignores_what_comes_later() {
    let mut nodes = Nodes::new();
    let (leader, follower) = uncommitted(&mut nodes, "a=1");
    nodes.turn(follower);
    let freshness = nodes.freshness(follower);
    let waiting = freshness.settle(G, scope(b'a')).unwrap();
    let Err(waiting) = waiting.poll(&freshness) else {
        panic!("it must wait")
    };
    nodes.run(200);
    let view = waiting
        .poll(&freshness)
        .unwrap_or_else(|_| panic!("the wait is over"))
        .unwrap();
    assert_eq!(
        view.get(b"a").unwrap().unwrap(),
        b"1",
        "the view is from after the wait"
    );
    // What is applied later does not show in it.
    nodes.apply(leader, "a=2");
    nodes.run(200);
    assert_eq!(view.get(b"a").unwrap().unwrap(), b"1");
}

#[test]
fn generating_restricts_nothing() {
    let mut nodes = Nodes::new();
    let (_, follower) = uncommitted(&mut nodes, "+key");
    nodes.turn(follower);
    assert!(
        nodes
            .freshness(follower)
            .settle(G, scope(b'+'))
            .unwrap()
            .is_over()
    );
}

#[test]
fn an_entry_that_is_cut_away_is_waited_for_no_longer() {
    let mut nodes = Nodes::new();
    let leader = nodes.elect();
    // The leader alone has the entry.
    nodes.cut.insert(leader);
    nodes.propose(leader, 1, "a=lost");
    nodes.deliver();
    let freshness = nodes.freshness(leader);
    let mut waiting = freshness.settle(G, scope(b'a')).unwrap();
    assert!(!waiting.is_over());
    let next = nodes.elect();
    nodes.apply(next, "b=kept");
    nodes.cut.clear();
    nodes.run(1_000);
    assert!(waiting.is_over(), "its entry was cut away");
    assert_eq!(nodes.value(leader, "b").as_deref(), Some("kept"));
}

#[test]
fn what_was_pending_is_pending_again_when_a_node_starts() {
    let mut nodes = Nodes::new();
    let (_, follower) = uncommitted(&mut nodes, "a=1");
    nodes.turn(follower);
    let disk = nodes.machines.remove(&follower).unwrap().disk;
    nodes.start(settings(follower), disk, Words::default());
    assert!(
        !nodes
            .freshness(follower)
            .settle(G, scope(b'a'))
            .unwrap()
            .is_over()
    );
}

#[test]
fn waiters_are_bounded() {
    let mut nodes = Nodes::with(|settings| settings.max_waiters = 3);
    let (_, follower) = uncommitted(&mut nodes, "a=1");
    nodes.turn(follower);
    let freshness = nodes.freshness(follower);
    let waiters: Vec<_> = (0..3)
        .map(|_| freshness.settle(G, scope(b'a')).unwrap())
        .collect();
    assert!(matches!(
        freshness.settle(G, scope(b'a')),
        Err(Behind::Crowded(_))
    ));
    drop(waiters);
    assert!(freshness.settle(G, scope(b'a')).is_ok());
}

#[tokio::test]
async fn a_wait_that_ends_without_the_entry_is_behind() {
    let mut nodes = Nodes::new();
    let (_, follower) = uncommitted(&mut nodes, "a=1");
    nodes.turn(follower);
    let freshness = nodes.freshness(follower);
    let now = std::time::Instant::now();
    let outcome = freshness
        .settled(G, scope(b'a'), now + std::time::Duration::from_millis(30))
        .await;
    assert!(matches!(outcome, Err(Behind::TimedOut(_))));
    assert_eq!(nodes.machines[&follower].driver.counters().behind.get(), 1);
    // One that is over in time is woken.
    let far = now + std::time::Duration::from_secs(60);
    let waiting = tokio::spawn(async move { freshness.settled(G, scope(b'a'), far).await });
    tokio::task::yield_now().await;
    nodes.run(200);
    let view = waiting.await.unwrap().unwrap();
    assert_eq!(view.get(b"a").unwrap().unwrap(), b"1");
}

#[test]
fn a_cut_ends_a_wait_before_anything_else_is_applied() {
    let mut nodes = Nodes::new();
    let (leader, follower) = uncommitted(&mut nodes, "a=1");
    nodes.turn(follower);
    let mut waiting = nodes.freshness(follower).settle(G, scope(b'a')).unwrap();
    assert!(!waiting.is_over());
    // The third node leads a later term and has something else at that index, not committed yet either.
    let third = other(&[leader, follower]);
    let status = nodes.status(follower);
    let other_entry = Entry {
        index: status.last_index,
        term: status.term + 1,
        data: b"+x".to_vec().into(),
        ..Entry::default()
    };
    let mut append = Message {
        from: third,
        to: follower,
        term: status.term + 1,
        index: status.last_index - 1,
        log_term: status.term,
        commit: status.committed,
        ..Message::default()
    };
    append.set_msg_type(MessageType::MsgAppend);
    append.set_entries(vec![other_entry].into());
    nodes.receive(follower, third, &raft_frame(&append));
    nodes.turn(follower);
    assert_eq!(nodes.status(follower).applied, status.applied);
    assert!(waiting.is_over());
    assert!(
        nodes
            .freshness(follower)
            .settle(G, scope(b'a'))
            .unwrap()
            .is_over()
    );
}
