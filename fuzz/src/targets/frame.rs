//! Frames between nodes, and the hello before them: one encoding each, lengths bounded before anything is read.

use std::sync::LazyLock;

use conclave_transport::codec;
use tokio::runtime::Runtime;

use super::{Seed, Target, seed};

pub(super) const TARGET: Target = Target {
    name: "frame",
    longest: 4_096,
    mutations: 20_000,
    run,
    seeds,
};

/// A lane's bound on payloads here: small, so that it is met.
const PAYLOAD: usize = 1_024;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime without threads")
});

fn run(bytes: &[u8]) -> bool {
    let hello = codec::hello(bytes);
    if let Some(hello) = &hello {
        assert_eq!(hello, bytes, "a hello has one encoding");
    }
    let (frames, is_whole) = RUNTIME.block_on(codec::frames(bytes, PAYLOAD));
    let read = frames.concat();
    assert!(bytes.starts_with(&read), "a frame has one encoding");
    assert!(
        frames
            .iter()
            .all(|frame| frame.len() <= 4 + 1 + 8 + 4 + PAYLOAD + 512)
    );
    assert!(!is_whole || read.len() == bytes.len());
    hello.is_some() || is_whole && !frames.is_empty()
}

fn seeds() -> Vec<Seed> {
    let frame = |kind: u8, body: &[u8]| {
        let length = (1 + body.len()) as u32;
        [&length.to_be_bytes()[..], &[kind], body].concat()
    };
    let call = frame(
        2,
        &[&7u64.to_be_bytes()[..], &1_500_001u32.to_be_bytes(), b"payload"].concat(),
    );
    let done = frame(3, &[&7u64.to_be_bytes()[..], &[0], b"payload"].concat());
    let refused = frame(
        3,
        &[&7u64.to_be_bytes()[..], &[3, 2, 1], "käfig".as_bytes()].concat(),
    );
    let busy = frame(3, &[&7u64.to_be_bytes()[..], &[1]].concat());
    let message = frame(1, b"payload");
    let (ping, pong) = (frame(4, &[]), frame(5, &[]));
    let hello = [
        b"conclave".as_slice(),
        &[1, 2],
        &[7; 32],
        &[0; 7],
        &[1],
        &[0; 7],
        &[2],
        &[9; 16],
        &[2, 1],
    ];
    vec![
        seed("hello", hello.concat()),
        seed("call", call.clone()),
        seed("refused", refused.clone()),
        seed("all", [message, call, done, refused, busy, ping, pong].concat()),
        seed("too-long", frame(1, &[0; PAYLOAD + 600])),
        seed("announced", [&100_000_000u32.to_be_bytes()[..], &[1]].concat()),
    ]
}
