//! A flood of refusals is on the record by its count, also when no other refusal comes after it (trust.md 7).

use super::cluster::{Cluster, Node, run};
use crate::actors::decide::record_refusal;
use crate::audit::{Entry, Kind};
use crate::problem::Problem;

/// Refusals of one second; the rate lets 200 be recorded one by one.
const FLOOD: u32 = 350;

/// How many refusals this node's record stands for, and in how many entries.
async fn counted(node: &Node) -> (u32, usize) {
    let records = node.records().await;
    let counts: Vec<u32> = records
        .iter()
        .filter(|entry| entry.kind == Kind::Refused)
        .map(|entry| entry.count)
        .collect();
    (counts.iter().sum(), counts.len())
}

#[test]
fn what_a_flood_held_back_is_counted_by_the_chores() {
    run(async {
        let cluster = Cluster::start(3).await;
        let node = cluster.node(1);
        let now = node.parts.now().unwrap();
        for _ in 0..FLOOD {
            let entry = Entry::new(Kind::Refused, now, node.parts.next_operation());
            record_refusal(&node.parts, entry, 3, &Problem::replayed());
        }
        // The chores come every 5 s.
        let mut found = (0, 0);
        for _ in 0..60 {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            found = counted(node).await;
            if found.0 == FLOOD {
                break;
            }
        }
        assert_eq!(found, (FLOOD, 201));
        let records = node.records().await;
        let last = records.iter().rfind(|entry| entry.kind == Kind::Refused).unwrap();
        assert_eq!((&*last.verdict, last.count), ("held back", FLOOD - 200));
        cluster.stop().await;
    });
}
