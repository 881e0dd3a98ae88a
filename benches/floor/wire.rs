//! Questions and answers over TLS 1.3 on the loopback, by threads that do nothing else: what was asked always waits to
//! be read, so that nobody sleeps or polls, and nothing is parsed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::clock;

/// Questions under way.
const TOGETHER: usize = 32;

/// Bytes of a question and of its answer.
#[derive(Clone, Copy)]
struct Sizes {
    question: usize,
    answer: usize,
}

/// A client's request for a signature, by a root capability, and the answer.
const REQUEST: Sizes = Sizes {
    question: 1_100,
    answer: 300,
};
/// The same between two nodes.
const FORWARDED: Sizes = Sizes {
    question: 1_000,
    answer: 250,
};

/// CPU time of the two sides.
struct Took {
    asking: Duration,
    answering: Duration,
}

pub(crate) fn exchanges(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("floor");
    group.bench_function("a client's request over TLS, the node's side", |bench| {
        bench.iter_custom(|count| exchange(count, TOGETHER, REQUEST).answering)
    });
    group.bench_function("a question between nodes over TLS, both sides", |bench| {
        bench.iter_custom(|count| {
            let took = exchange(count, 1, FORWARDED);
            took.asking + took.answering
        })
    });
    group.finish();
}

/// At least `count` questions, 32 under way, spread over `connections`; the time is that of `count`.
fn exchange(count: u64, connections: usize, sizes: Sizes) -> Took {
    let rounds = count.div_ceil(TOGETHER as u64);
    let (client, server) = configs();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answering = std::thread::spawn(move || {
        let mut streams: Vec<_> = (0..connections)
            .map(|_| {
                let connection = ServerConnection::new(server.clone()).unwrap();
                StreamOwned::new(connection, nodelay(listener.accept().unwrap().0))
            })
            .collect();
        let each = TOGETHER / connections;
        let answer = vec![8; sizes.answer];
        let mut round = || {
            for stream in &mut streams {
                for _ in 0..each {
                    stream.read_exact(&mut vec![0; sizes.question]).unwrap();
                    stream.write_all(&answer).unwrap();
                }
            }
        };
        // The first has the handshakes.
        round();
        clock::timed(|| (0..rounds).for_each(|_| round())).0
    });
    let mut streams: Vec<_> = (0..connections)
        .map(|_| {
            let name = ServerName::try_from("localhost").unwrap();
            let connection = ClientConnection::new(client.clone(), name).unwrap();
            StreamOwned::new(connection, nodelay(TcpStream::connect(address).unwrap()))
        })
        .collect();
    let each = TOGETHER / connections;
    let question = vec![7; sizes.question];
    let mut round = || {
        for stream in &mut streams {
            for _ in 0..each {
                stream.write_all(&question).unwrap();
            }
        }
        for stream in &mut streams {
            for _ in 0..each {
                stream.read_exact(&mut vec![0; sizes.answer]).unwrap();
            }
        }
    };
    round();
    let (asking, ()) = clock::timed(|| (0..rounds).for_each(|_| round()));
    let of_count = |took: Duration| took.mul_f64(count as f64 / (rounds * TOGETHER as u64) as f64);
    Took {
        asking: of_count(asking),
        answering: of_count(answering.join().unwrap()),
    }
}

fn nodelay(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    stream
}

fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = CertificateDer::from(certified.cert.der().to_vec());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    (Arc::new(client), Arc::new(server))
}
