//! Builds that speak different formats: neighbours agree on one, others are refused and can tell why.

// clippy.toml allows it in test functions; this file's other functions are tests' too.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Members, Seen, patient, quick};
use conclave_transport::memory::Hub;
use conclave_transport::{Format, Formats, Handler, Network, NodeId, Refusal, Transport};

fn formats(lowest: Format, highest: Format) -> Formats {
    Formats::new(lowest, highest).unwrap()
}

async fn start(members: &Members, node: NodeId, boot: u8, speaks: Formats) -> (Transport, Arc<Seen>) {
    let seen = Seen::new();
    let mut settings = members.settings(node, [boot; 16], quick());
    settings.formats = speaks;
    (Transport::start(settings, seen.clone()).await.unwrap(), seen)
}

#[tokio::test]
async fn neighbours_use_the_newest_format_that_both_speak_and_know_what_the_other_could() {
    let members = Members::new(2);
    let (one, one_seen) = start(&members, 1, 1, formats(1, 2)).await;
    assert_eq!((one.formats_of(2), one.format_with(2)), (None, None));
    let (two, two_seen) = start(&members, 2, 2, formats(2, 3)).await;
    assert_eq!(one_seen.link().await, (2, true));
    assert_eq!(two_seen.link().await, (1, true));
    assert_eq!(
        (one.formats_of(2), one.format_with(2)),
        (Some(formats(2, 3)), Some(2))
    );
    assert_eq!(
        (two.formats_of(1), two.format_with(1)),
        (Some(formats(1, 2)), Some(2))
    );
    // It comes back as another build: what it states then counts, and until then what it stated last.
    two.shutdown().await;
    assert_eq!(one_seen.link().await, (2, false));
    assert_eq!(
        (one.formats_of(2), one.format_with(2)),
        (Some(formats(2, 3)), None)
    );
    drop(two);
    let (_two, _seen) = start(&members, 2, 3, formats(1, 1)).await;
    assert_eq!(one_seen.link().await, (2, true));
    assert_eq!(
        (one.formats_of(2), one.format_with(2)),
        (Some(formats(1, 1)), Some(1))
    );
}

#[tokio::test]
async fn builds_without_a_format_in_common_have_no_link_and_both_know_why() {
    let members = Members::new(2);
    let (one, one_seen) = start(&members, 1, 1, formats(1, 2)).await;
    let (two, two_seen) = start(&members, 2, 2, formats(3, 4)).await;
    for (node, peer) in [(&one, 2), (&two, 1)] {
        // Twice for what it dials, and what it accepts counts as well.
        patient(async {
            while node.counters().peer(peer).unwrap().connect_failed[0].get() < 2
                || node.counters().refused(Refusal::Format) < 3
            {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        assert_eq!(node.counters().refused(Refusal::Hello), 0);
        assert!(!node.connected(peer));
        assert_eq!(node.format_with(peer), None);
    }
    assert_eq!(one.formats_of(2), Some(formats(3, 4)));
    assert_eq!(two.formats_of(1), Some(formats(1, 2)));
    for seen in [one_seen, two_seen] {
        assert!(seen.links.lock().await.try_recv().is_err());
    }
}

#[tokio::test]
async fn the_double_does_the_same() {
    let hub = Hub::new([1, 2, 3], quick(), None).unwrap();
    let seen = [Seen::new(), Seen::new(), Seen::new()];
    let join = |node: NodeId, speaks| {
        let handler = Arc::clone(&seen[node as usize - 1]) as Arc<dyn Handler>;
        hub.join_speaking(speaks, node, [node as u8; 16], handler)
    };
    let one = join(1, formats(1, 2));
    let two = join(2, formats(2, 3));
    let three = join(3, formats(3, 4));
    assert_eq!((one.format_with(2), two.format_with(1)), (Some(2), Some(2)));
    assert_eq!((two.format_with(3), three.format_with(2)), (Some(3), Some(3)));
    assert_eq!((one.format_with(3), one.connected(3)), (None, false));
    assert_eq!(one.formats_of(3), Some(formats(3, 4)));
    assert!(one.counters().refused(Refusal::Format) > 0);
}
