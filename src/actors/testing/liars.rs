//! A holder that sends garbage, points of small order or wrong partials is named, and the answer is right with the
//! others. Nobody else is named.

use parking_lot::Mutex;

use super::client::{Client, Key, Keystore, derive_well, furnished, sign_well};
use super::cluster::{Cluster, Tamper, run};
use crate::actors::wire::{Answer, Call};

/// A point of order 8, compressed.
const ORDER_8: [u8; 32] = [
    0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
    0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
];
/// The identity, compressed.
const IDENTITY: [u8; 32] = {
    let mut one = [0; 32];
    one[0] = 1;
    one
};

/// Replaces the answers to uses; everything else stays honest.
fn lie(lie: impl Fn(Answer) -> Vec<u8> + Send + Sync + 'static) -> Tamper {
    std::sync::Arc::new(move |call: &Call, answer: Answer| match call {
        Call::Cosign(..) | Call::Commit(_) | Call::SignShare(..) | Call::Derive(_) => lie(answer),
        _ => answer.encode(),
    })
}

fn point(point: [u8; 32]) -> impl Fn(Answer) -> Vec<u8> + Send + Sync {
    let at_end = move |mut bytes: Vec<u8>| {
        let start = bytes.len() - 32;
        bytes[start..].copy_from_slice(&point);
        bytes
    };
    move |answer| {
        match answer {
            Answer::Cosigned(commitments, share) => Answer::Cosigned(at_end(commitments), share),
            Answer::Committed(commitments) => Answer::Committed(at_end(commitments)),
            Answer::Signed(share) => Answer::Signed(at_end(share)),
            Answer::Derived(mut partial) => {
                partial[..32].copy_from_slice(&point);
                Answer::Derived(partial)
            }
            answer => answer,
        }
        .encode()
    }
}

fn wrong(answer: Answer) -> Vec<u8> {
    let flip = |mut bytes: Vec<u8>, at: usize| {
        bytes[at] ^= 1;
        bytes
    };
    match answer {
        Answer::Cosigned(commitments, share) => Answer::Cosigned(commitments, flip(share, 0)),
        Answer::Signed(share) => Answer::Signed(flip(share, 0)),
        Answer::Derived(partial) => Answer::Derived(flip(partial, 64)),
        answer => answer,
    }
    .encode()
}

fn short(answer: Answer) -> Vec<u8> {
    match answer {
        Answer::Cosigned(commitments, _) => Answer::Cosigned(commitments, Vec::new()),
        Answer::Committed(_) => Answer::Committed(Vec::new()),
        Answer::Signed(_) => Answer::Signed(Vec::new()),
        Answer::Derived(_) => Answer::Derived(Vec::new()),
        answer => answer,
    }
    .encode()
}

/// Answers everything with the first answer of the kind: right then, wrong now.
fn stale() -> impl Fn(Answer) -> Vec<u8> + Send + Sync {
    let seen: Mutex<Vec<Answer>> = Mutex::default();
    move |answer| {
        // Other commitments than its own make the liar's own share refuse: that is silence, which names nobody.
        if let Answer::Committed(_) = answer {
            return answer.encode();
        }
        let mut seen = seen.lock();
        let kind = std::mem::discriminant(&answer);
        if let Some(first) = seen.iter().find(|first| std::mem::discriminant(*first) == kind) {
            return first.encode();
        }
        seen.push(answer.clone());
        answer.encode()
    }
}

fn lies() -> Vec<(&'static str, Tamper)> {
    vec![
        ("garbage", lie(|_| vec![0xff; 90])),
        ("nothing", lie(|_| Vec::new())),
        ("another kind", lie(|_| Answer::Confirmed.encode())),
        ("too short", lie(short)),
        ("identity", lie(point(IDENTITY))),
        ("small order", lie(point(ORDER_8))),
        ("wrong", lie(wrong)),
        ("stale", lie(stale())),
    ]
}

/// Signs and derives through node 1 until `liar` has been named for both; every answer on the way must be right.
async fn named(
    cluster: &Cluster,
    client: &Client,
    keystore: &Keystore,
    (signing, agreement): (&Key, &Key),
    (what, liar): (&str, u64),
) {
    let coordinator = cluster.node(1);
    let (mut by_signing, mut by_deriving) = (0, 0);
    for turn in 0..12_u8 {
        let message = format!("{what} {turn}");
        let before = coordinator.named(liar);
        sign_well(coordinator, client, keystore, signing, message.as_bytes()).await;
        by_signing += coordinator.named(liar) - before;
        // Who is asked first goes round with every request: three a turn, so that it is the liar's turn in each.
        let between = format!("{what} between {turn}");
        sign_well(coordinator, client, keystore, signing, between.as_bytes()).await;
        let before = coordinator.named(liar);
        derive_well(coordinator, client, keystore, agreement).await;
        by_deriving += coordinator.named(liar) - before;
        if by_signing > 0 && by_deriving > 0 {
            break;
        }
    }
    assert!(by_signing > 0, "{what}: not named for a signature");
    assert!(by_deriving > 0, "{what}: not named for a secret");
    for node in cluster.nodes().iter().map(|node| node.parts.node) {
        assert!(
            node == liar || coordinator.named(node) == 0,
            "{what}: honest node {node} is named"
        );
    }
}

#[test]
fn one_liar_of_three_is_named_and_the_answers_are_right() {
    run(async {
        let (cluster, client, keystore, signing, agreement) = furnished(3).await;
        for (what, tamper) in lies() {
            cluster.node(3).tamper(move |call, answer| tamper(call, answer));
            named(&cluster, &client, &keystore, (&signing, &agreement), (what, 3)).await;
        }
        cluster.stop().await;
    });
}

#[test]
fn one_liar_of_five_is_named_though_another_node_is_away() {
    run(async {
        let (cluster, client, keystore, signing, agreement) = furnished(5).await;
        cluster.isolate(4);
        let there: Vec<_> = [1, 2, 3, 5].map(|number| cluster.node(number)).into();
        cluster.settle(&there).await;
        for (what, tamper) in lies() {
            cluster.node(5).tamper(move |call, answer| tamper(call, answer));
            named(&cluster, &client, &keystore, (&signing, &agreement), (what, 5)).await;
        }
        cluster.stop().await;
    });
}
