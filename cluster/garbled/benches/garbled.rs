//! AND gates a second on one thread, by role, and a whole operation of three roles one after the other: the CPU that it
//! costs all nodes together, without links. The floor is the AES calls that the hash of labels makes, alone.

use std::hint::black_box;
use std::sync::Arc;

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use conclave_garbled::burned::{Burned, Ticket};
use conclave_garbled::circuits;
use conclave_garbled::program::Program;
use conclave_garbled::session::{
    Context, Evaluation, FirstGarbler, Head, PairSecret, SecondGarbler, Tail, Task,
};
use conclave_garbled::sharing::{Share, deal, share_of};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::OsRng;
use zeroize::Zeroizing;

/// Bytes of a segment of tables.
const SEGMENT: usize = 64 * 1024;

struct Setting {
    context: Context,
    task: Task,
    secrets: [PairSecret; 3],
    shares: Vec<Share>,
}

struct Sent {
    head: Head,
    tables: Vec<Vec<u8>>,
    tail: Tail,
    openings: Vec<u8>,
    mac: [u8; 16],
}

impl Setting {
    fn new(program: Program, public: usize) -> Self {
        let id = program.id();
        let pieces = deal(&[7; 32], 3, &mut OsRng);
        Self {
            context: Context {
                cluster: [1; 32],
                roles: [1, 2, 3],
                absent: vec![],
                boot: [2; 16],
                number: 1,
                operation: [3; 24],
                attempt: 1,
                key: b"key".to_vec(),
                key_type: 5,
                sharing: [4; 32],
                request: [5; 32],
            },
            task: Task::new(Arc::new(program), id, vec![9; public], 0),
            secrets: [1, 2, 3].map(|byte| Zeroizing::new([byte; 32])),
            shares: (1..=3)
                .map(|holder| share_of(&pieces, holder).expect("a share"))
                .collect(),
        }
    }

    fn ticket(&self) -> Ticket {
        let mut burned = Burned::default();
        burned.open(3, [2; 16]).expect("a session");
        burned.burn(3, [2; 16], 1).expect("a number")
    }

    fn first(&self) -> (Head, Vec<Vec<u8>>, Tail) {
        let parts = self.shares[0].as_garbler([1, 2, 3]).expect("a trio");
        let secrets = (&self.secrets[0], &self.secrets[1]);
        let (mut first, head) =
            FirstGarbler::begin(self.ticket(), &self.context, &self.task, secrets, &parts).expect("a task");
        let mut tables = Vec::new();
        loop {
            let segment = first.tables(SEGMENT);
            if segment.is_empty() {
                return (head, tables, first.finish().0);
            }
            tables.push(segment);
        }
    }

    fn second(&self) -> (Vec<u8>, [u8; 16]) {
        let parts = self.shares[1].as_garbler([1, 2, 3]).expect("a trio");
        let secrets = (&self.secrets[0], &self.secrets[2]);
        let (mut second, openings) =
            SecondGarbler::begin(self.ticket(), &self.context, &self.task, secrets, &parts).expect("a task");
        while second.proceed(SEGMENT) {}
        (openings, second.finish().0)
    }

    fn sent(&self) -> Sent {
        let (head, tables, tail) = self.first();
        let (openings, mac) = self.second();
        Sent {
            head,
            tables,
            tail,
            openings,
            mac,
        }
    }

    fn evaluate(&self, sent: &Sent) -> Vec<u8> {
        let parts = self.shares[2].as_evaluator([1, 2, 3]).expect("a trio");
        let secrets = (&self.secrets[1], &self.secrets[2]);
        let mut evaluation = Evaluation::begin(&self.context, self.task.clone(), secrets, parts);
        evaluation.openings(&sent.openings).expect("openings");
        evaluation.head(&sent.head).expect("a head");
        for tables in &sent.tables {
            evaluation.tables(tables).expect("tables");
        }
        evaluation.tail(&sent.tail).expect("a tail");
        evaluation.vouch(sent.mac).expect("a MAC");
        evaluation.finish().expect("an output").opened.to_vec()
    }
}

fn garbled(criterion: &mut Criterion) {
    for (name, program, public) in [
        ("hmac", circuits::hmac_tag(), 256),
        ("wrap of 32 bytes", circuits::wrap(4), 32),
        ("unwrap of 32 bytes", circuits::unwrap(4), 40),
    ] {
        let ands = program.ands() as u64;
        let setting = Setting::new(program, public);
        let sent = setting.sent();
        let mut group = criterion.benchmark_group(name);
        group.sample_size(20).throughput(Throughput::Elements(ands));
        group.bench_function("first garbler", |bencher| {
            bencher.iter(|| black_box(setting.first()))
        });
        group.bench_function("second garbler", |bencher| {
            bencher.iter(|| black_box(setting.second()))
        });
        group.bench_function("evaluator", |bencher| {
            bencher.iter(|| black_box(setting.evaluate(&sent)))
        });
        group.bench_function("all three", |bencher| {
            bencher.iter(|| black_box(setting.evaluate(&setting.sent())));
        });
        for (role, calls) in [("garbler", 8), ("evaluator", 4)] {
            group.bench_function(format!("floor of a {role}: AES-128"), |bencher| {
                let aes = aes::Aes128::new(&[3; 16].into());
                let blocks = || vec![aes::Block::default(); ands as usize * calls];
                bencher.iter_batched_ref(
                    blocks,
                    |blocks| aes.encrypt_blocks(black_box(blocks)),
                    BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, garbled);
criterion_main!(benches);
