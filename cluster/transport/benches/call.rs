//! A question between two nodes over mutual TLS on the loopback, beside the bare loopback under it.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{Members, PATIENCE, Seen};
use conclave_transport::{Bounds, Network, Transport};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn calls(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (one, two) = runtime.block_on(async {
        let members = Members::new(2);
        let start = |node: u64, seen: Arc<Seen>| {
            Transport::start(members.settings(node, [node as u8; 16], Bounds::default()), seen)
        };
        let seen = Seen::new();
        let one = start(1, seen.clone()).await.unwrap();
        let two = start(2, Seen::new()).await.unwrap();
        assert_eq!(seen.link().await, (2, true));
        (one, two)
    });
    let mut group = criterion.benchmark_group("link");
    for (size, together) in [(1_024_usize, 1_usize), (1_024, 32), (16 * 1_024, 1)] {
        group.throughput(Throughput::Elements(together as u64));
        group.bench_function(format!("call of {size} bytes, {together} at once"), |bench| {
            let payload = Bytes::from(vec![7; size]);
            bench.iter(|| {
                let calls = (0..together).map(|_| one.call(2, payload.clone(), PATIENCE));
                runtime.block_on(async {
                    for answer in futures::future::join_all(calls).await {
                        assert_eq!(answer.unwrap().len(), size);
                    }
                });
            })
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("floor: 1,024 bytes there and back over TCP", |bench| {
        let mut stream = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut bytes = [0; 1_024];
                while stream.read_exact(&mut bytes).await.is_ok() {
                    stream.write_all(&bytes).await.unwrap();
                }
            });
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        });
        bench.iter(|| {
            runtime.block_on(async {
                let mut bytes = [7; 1_024];
                stream.write_all(&bytes).await.unwrap();
                stream.read_exact(&mut bytes).await.unwrap();
            })
        });
    });
    group.finish();
    runtime.block_on(async {
        one.shutdown().await;
        two.shutdown().await;
    });
}

criterion_group!(benches, calls);
criterion_main!(benches);
