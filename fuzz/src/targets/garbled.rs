//! What two garblers send to an evaluator, in any order, altered, cut and repeated: what is decoded is right.

use std::sync::{Arc, LazyLock};

use conclave_garbled::builder::Builder;
use conclave_garbled::burned::{Burned, Ticket};
use conclave_garbled::program::{Call, Program};
use conclave_garbled::session::{
    Abort, Context, Evaluation, FirstGarbler, Head, Kept, PairSecret, SecondGarbler, Tail, Task,
};
use conclave_garbled::sharing::{Share, deal, share_of};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

use super::{Seed, Target, seed};
use crate::support::input::{Input, Output};

pub(super) const TARGET: Target = Target {
    name: "garbled",
    longest: 1_024,
    mutations: 3_000,
    run,
    seeds,
};

/// Messages in one input.
const MOST_MESSAGES: usize = 16;

const HEAD: u8 = 0;
const OPENINGS: u8 = 1;
const TABLES: u8 = 2;
const TAIL: u8 = 3;
const VOUCH: u8 = 4;
const OTHER_HEAD: u8 = 5;
const OTHER_TAIL: u8 = 6;
const OTHER_TABLES: u8 = 7;

/// An honest garbling, and what comes of it.
struct Garbled {
    head: Head,
    openings: Vec<u8>,
    tables: Vec<u8>,
    tail: Tail,
    mac: [u8; 16],
    kept: Kept,
    outputs: Vec<u8>,
}

static TASK: LazyLock<Task> = LazyLock::new(|| {
    let program = program();
    let id = program.id();
    Task::new(Arc::new(program), id, vec![0b1010_0110], 8)
});
static SHARES: LazyLock<[Share; 3]> = LazyLock::new(|| {
    let pieces = deal(&SECRET, 3, &mut ChaCha20Rng::from_seed([1; 32]));
    [1, 2, 3].map(|holder| share_of(&pieces, holder).expect("one of three"))
});
static HONEST: LazyLock<Garbled> = LazyLock::new(garble);

const SECRET: [u8; 32] = [0x5a; 32];
const TRIO: [u8; 3] = [1, 2, 3];

/// A few gates of each kind over all inputs.
fn program() -> Program {
    let (secret, public, outputs) = (256, 8, 16);
    let (mut builder, bits) = Builder::new(secret + public);
    let outs: Vec<_> = (0..outputs)
        .map(|at| {
            let both = builder.and(bits[at], bits[100 + at]);
            let sum = builder.xor(both, bits[200 + at]);
            builder.and(sum, builder.not(bits[secret + at % public]))
        })
        .collect();
    let first = 1 + secret + public;
    let wires =
        |from: usize, count: usize| (from..from + count).map(|wire| wire as u32).collect::<Vec<u32>>();
    let call = Call {
        circuit: Arc::new(builder.finish(&outs)),
        inputs: wires(1, secret + public),
        outputs: wires(first, outputs),
    };
    Program {
        name: "fuzz",
        secret,
        public,
        wires: first + outputs,
        calls: vec![call],
        outputs: wires(first, outputs),
    }
}

fn context() -> Context {
    Context {
        cluster: [1; 32],
        roles: TRIO.map(u64::from),
        absent: vec![],
        boot: [2; 16],
        number: 1,
        operation: [3; 24],
        attempt: 1,
        key: b"key".to_vec(),
        key_type: 5,
        sharing: [4; 32],
        request: [5; 32],
    }
}

/// Shared by the garblers, by the first and the evaluator, by the second and the evaluator.
fn secrets() -> [PairSecret; 3] {
    [1, 2, 3].map(|byte| Zeroizing::new([byte; 32]))
}

fn ticket() -> Ticket {
    let (context, mut burned) = (context(), Burned::default());
    let evaluator = context.roles[2];
    burned.open(evaluator, context.boot).expect("its first life");
    burned
        .burn(evaluator, context.boot, context.number)
        .expect("its first number")
}

fn garble() -> Garbled {
    let [between, with_first, with_second] = &secrets();
    let parts = |at: usize| SHARES[at].as_garbler(TRIO).expect("a garbler");
    let first = FirstGarbler::begin(ticket(), &context(), &TASK, (between, with_first), &parts(0));
    let second = SecondGarbler::begin(ticket(), &context(), &TASK, (between, with_second), &parts(1));
    let ((mut first, head), (mut second, openings)) =
        (first.expect("a sound task"), second.expect("a sound task"));
    let mut tables = Vec::new();
    while first.tables_after(&mut tables, usize::MAX) {}
    while second.proceed(1 << 20) {}
    let ((tail, kept), (mac, _)) = (first.finish(), second.finish());
    let outputs = TASK.program.evaluate(&SECRET, &TASK.public);
    Garbled {
        head,
        openings,
        tables,
        tail,
        mac,
        kept,
        outputs,
    }
}

fn run(bytes: &[u8]) -> bool {
    let [_, with_first, with_second] = &secrets();
    let parts = SHARES[2].as_evaluator(TRIO).expect("the evaluator");
    let mut evaluation = Evaluation::begin(&context(), TASK.clone(), (with_first, with_second), parts);
    let mut input = Input(bytes);
    for _ in 0..MOST_MESSAGES {
        if input.is_empty() {
            break;
        }
        // Whoever goes on after an abort gets nothing all the same.
        let _ = take(&mut evaluation, &mut input);
        assert!(
            evaluation.waiting() <= HONEST.tables.len(),
            "no more waits than there is"
        );
    }
    let is_complete = evaluation.is_complete();
    let Ok(outputs) = evaluation.finish() else {
        return false;
    };
    assert!(is_complete);
    let kept = HONEST
        .kept
        .decode(&outputs.kept)
        .expect("labels that the garblers know");
    assert_eq!(
        [&outputs.opened[..], &kept[..]].concat(),
        HONEST.outputs,
        "a wrong result was believed"
    );
    true
}

/// The next message: what an honest garbler sends, with a byte changed or cut off, or anything.
fn take(evaluation: &mut Evaluation, input: &mut Input<'_>) -> Result<(), Abort> {
    let kind = input.byte() % 8;
    if let OTHER_HEAD | OTHER_TAIL | OTHER_TABLES = kind {
        let other = input.chunk();
        return match kind {
            OTHER_HEAD => postcard::from_bytes(other).map_or(Err(Abort), |head| evaluation.head(&head)),
            OTHER_TAIL => postcard::from_bytes(other).map_or(Err(Abort), |tail| evaluation.tail(&tail)),
            _ => evaluation.tables(other),
        };
    }
    let (field, at, by, length) = (input.byte(), input.short(), input.byte(), input.short());
    let edit = |bytes: &[u8]| {
        let mut bytes = bytes[..bytes.len().min(length.into())].to_vec();
        let count = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(usize::from(at) % count) {
            *byte ^= by;
        }
        bytes
    };
    match kind {
        HEAD => {
            let mut head = HONEST.head.clone();
            match field % 3 {
                0 => head.openings = edit(&head.openings),
                1 => head.commitments = edit(&head.commitments),
                _ => head.hash[usize::from(at) % 16] ^= by,
            }
            evaluation.head(&head)
        }
        OPENINGS => evaluation.openings(&edit(&HONEST.openings)),
        TABLES => {
            let from = HONEST.tables.len() * usize::from(field) / 256;
            evaluation.tables(&edit(&HONEST.tables[from..]))
        }
        TAIL => evaluation.tail(&Tail {
            decode: edit(&HONEST.tail.decode),
        }),
        VOUCH => {
            let mut mac = HONEST.mac;
            mac[usize::from(at) % 16] ^= by;
            evaluation.vouch(mac)
        }
        _ => Err(Abort),
    }
}

fn seeds() -> Vec<Seed> {
    let message = |output: Output, kind: u8, field: u8, length: u16| {
        output.byte(kind).byte(field).short(0).byte(0).short(length)
    };
    let honest = |kinds: [u8; 5]| {
        let output = Output::default();
        kinds
            .iter()
            .fold(output, |output, kind| message(output, *kind, 0, u16::MAX))
            .0
    };
    let halves = HONEST.tables.len() as u16 / 2;
    let pieces = message(Output::default(), HEAD, 0, u16::MAX);
    let pieces = message(message(pieces, TABLES, 0, halves), TABLES, 128, u16::MAX);
    let pieces = message(
        message(message(pieces, OPENINGS, 0, u16::MAX), TAIL, 0, 9),
        VOUCH,
        0,
        9,
    );
    let tail = postcard::to_stdvec(&HONEST.tail).unwrap_or_default();
    let other = message(
        message(Output::default(), OPENINGS, 0, u16::MAX),
        HEAD,
        0,
        u16::MAX,
    );
    let other = other
        .byte(OTHER_TABLES)
        .chunk(&HONEST.tables[..64])
        .byte(OTHER_TAIL)
        .chunk(&tail);
    vec![
        seed("openings-first", honest([OPENINGS, HEAD, TABLES, TAIL, VOUCH])),
        seed("vouch-first", honest([VOUCH, HEAD, TABLES, TAIL, OPENINGS])),
        seed("in-pieces", pieces.0),
        seed("other", other.0),
    ]
}
