use std::sync::Arc;

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::*;
use crate::burned::{Burned, Ticket};
use crate::circuits;
use crate::program::Program;
use crate::sharing::{Share, deal, share_of};

/// Three holders and what they share about one operation.
pub(super) struct Setting {
    pub(super) context: Context,
    pub(super) task: Task,
    pub(super) secrets: [PairSecret; 3],
    pub(super) shares: Vec<Share>,
    pub(super) trio: [u8; 3],
}

/// Everything that travels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Transcript {
    pub(super) head: Head,
    pub(super) tables: Vec<Vec<u8>>,
    pub(super) tail: Tail,
    pub(super) openings: Vec<u8>,
    pub(super) mac: [u8; 16],
}

pub(super) fn context(trio: [u8; 3]) -> Context {
    Context {
        cluster: [1; 32],
        roles: trio.map(u64::from),
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

impl Setting {
    pub(super) fn new(
        task: Task,
        secret: &[u8; 32],
        holders: u8,
        trio: [u8; 3],
        rng: &mut ChaCha20Rng,
    ) -> Self {
        let pieces = deal(secret, holders, rng);
        Self {
            context: context(trio),
            task,
            secrets: std::array::from_fn(|_| {
                let mut secret = Zeroizing::new([0; 32]);
                rng.fill_bytes(&mut secret[..]);
                secret
            }),
            shares: (1..=holders)
                .map(|holder| share_of(&pieces, holder).unwrap())
                .collect(),
            trio,
        }
    }

    fn share(&self, role: usize) -> &Share {
        &self.shares[usize::from(self.trio[role]) - 1]
    }

    /// As a garbler that has burned it. The tests garble twice what no node would.
    fn ticket(&self) -> Ticket {
        let (evaluator, boot) = (self.context.roles[2], self.context.boot);
        let mut burned = Burned::default();
        burned.open(evaluator, boot).unwrap();
        burned.burn(evaluator, boot, self.context.number).unwrap()
    }

    /// What honest garblers send, and what they keep.
    pub(super) fn garbled(&self) -> (Transcript, [Kept; 2]) {
        let [between, with_first, with_second] = &self.secrets;
        let parts = |role: usize| self.share(role).as_garbler(self.trio).unwrap();
        let (mut first, head) = FirstGarbler::begin(
            self.ticket(),
            &self.context,
            &self.task,
            (between, with_first),
            &parts(0),
        )
        .unwrap();
        let (mut second, openings) = SecondGarbler::begin(
            self.ticket(),
            &self.context,
            &self.task,
            (between, with_second),
            &parts(1),
        )
        .unwrap();
        let mut tables = Vec::new();
        loop {
            let segment = first.tables(100_000);
            if segment.is_empty() {
                break;
            }
            tables.push(segment);
        }
        while second.proceed(70_000) {}
        let (tail, first) = first.finish();
        let (mac, second) = second.finish();
        let transcript = Transcript {
            head,
            tables,
            tail,
            openings,
            mac,
        };
        (transcript, [first, second])
    }

    pub(super) fn evaluation(&self) -> Evaluation {
        let [_, with_first, with_second] = &self.secrets;
        let parts = self.share(2).as_evaluator(self.trio).unwrap();
        Evaluation::begin(&self.context, self.task.clone(), (with_first, with_second), parts)
    }

    pub(super) fn evaluate(&self, sent: &Transcript) -> Result<Outputs, Abort> {
        let mut evaluation = self.evaluation();
        evaluation.openings(&sent.openings)?;
        evaluation.head(&sent.head)?;
        for segment in &sent.tables {
            evaluation.tables(segment)?;
        }
        evaluation.tail(&sent.tail)?;
        evaluation.vouch(sent.mac)?;
        evaluation.finish()
    }
}

pub(super) fn task(program: Program, public: Vec<u8>, kept: usize) -> Task {
    let id = program.id();
    Task::new(Arc::new(program), id, public, kept)
}

fn random<const N: usize>(rng: &mut ChaCha20Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

#[test]
fn every_trio_computes_what_the_circuit_says() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    for holders in [3, 4] {
        for trio in trios(holders) {
            let (secret, public) = (random::<32>(&mut rng), random::<256>(&mut rng));
            let program = circuits::hmac_tag();
            let expected = program.evaluate(&secret, &public);
            let setting = Setting::new(
                task(program, public.to_vec(), 0),
                &secret,
                holders,
                trio,
                &mut rng,
            );
            let (transcript, _) = setting.garbled();
            let outputs = setting.evaluate(&transcript).unwrap();
            assert_eq!(*outputs.opened, expected);
            assert!(outputs.kept.is_empty());
        }
    }
}

/// Four columns at once, both ways.
#[test]
fn what_is_wrapped_by_three_is_unwrapped_by_three() {
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let (key, payload) = (random::<32>(&mut rng), random::<24>(&mut rng));
    let mut computed = |program: Program, public: &[u8]| {
        let expected = program.evaluate(&key, public);
        let setting = Setting::new(task(program, public.to_vec(), 0), &key, 3, [2, 3, 1], &mut rng);
        let (transcript, _) = setting.garbled();
        let outputs = setting.evaluate(&transcript).unwrap();
        assert_eq!(*outputs.opened, expected);
        expected
    };
    let wrapped = computed(circuits::wrap(3), &payload);
    let opened = computed(circuits::unwrap(3), &wrapped);
    assert_eq!(opened[0] & 1, 1);
    let mut broken = wrapped;
    broken[31] ^= 0x10;
    assert_eq!(computed(circuits::unwrap(3), &broken), [0; 25]);
}

/// The first garbler and the second may have different processors; what they send is the same bytes. A circuit that is
/// built differently has another id and so another seed: these hashes change with it.
#[test]
fn what_is_sent_does_not_depend_on_the_processor() {
    let mut rng = ChaCha20Rng::from_seed([10; 32]);
    let key = random(&mut rng);
    for (program, public, expected) in [
        (small(), 32, "bb0a54e07c8aa81d"),
        (circuits::unwrap(2), 24, "cb6a44594c331da9"),
    ] {
        let setting = Setting::new(task(program, vec![7; public], 0), &key, 3, [1, 2, 3], &mut rng);
        let (sent, _) = setting.garbled();
        let mut hash = Sha256::new_with_prefix(&sent.head.commitments);
        sent.tables.iter().for_each(|tables| hash.update(tables));
        let hash = hash.chain_update(sent.mac).finalize();
        let hex: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }
}

pub(super) fn trios(holders: u8) -> Vec<[u8; 3]> {
    let numbers = || 1..=holders;
    numbers()
        .flat_map(|a| numbers().flat_map(move |b| numbers().map(move |c| [a, b, c])))
        .filter(|[a, b, c]| a != b && a != c && b != c)
        .collect()
}

/// A small program with everything that the large ones have.
pub(super) fn small() -> Program {
    circuits::check_value()
}

#[test]
fn messages_may_come_in_any_order_of_two_links() {
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    let secret = random(&mut rng);
    let setting = Setting::new(task(small(), vec![7; 32], 0), &secret, 3, [1, 2, 3], &mut rng);
    let (sent, _) = setting.garbled();
    let expected = setting.evaluate(&sent).unwrap();
    let mut late = setting.evaluation();
    late.vouch(sent.mac).unwrap();
    late.head(&sent.head).unwrap();
    for segment in &sent.tables {
        for piece in segment.chunks(1_000) {
            late.tables(piece).unwrap();
        }
    }
    assert!(late.waiting() > 0);
    late.tail(&sent.tail).unwrap();
    assert!(!late.is_complete());
    late.openings(&sent.openings).unwrap();
    assert!(late.is_complete());
    assert_eq!(*late.finish().unwrap().opened, *expected.opened);
}

/// Every message of both garblers, every field of it, altered or cut: one error, and before it nothing.
#[test]
fn whatever_a_garbler_alters_is_an_abort() {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    for _ in 0..4 {
        let secret = random(&mut rng);
        let setting = Setting::new(task(small(), vec![7; 32], 0), &secret, 3, [3, 1, 2], &mut rng);
        let (sent, _) = setting.garbled();
        assert!(setting.evaluate(&sent).is_ok());
        let mut alter = |what: &str, edit: &dyn Fn(&mut Transcript, usize, u8)| {
            for _ in 0..12 {
                let mut spoiled = sent.clone();
                let (at, by) = (rng.next_u32() as usize, 1 << (rng.next_u32() % 8));
                edit(&mut spoiled, at, by);
                assert_eq!(setting.evaluate(&spoiled).err(), Some(Abort), "{what} at {at}");
            }
        };
        let flip = |bytes: &mut [u8], at: usize, by: u8| bytes[at % bytes.len()] ^= by;
        alter("the first openings", &|sent, at, by| {
            flip(&mut sent.head.openings, at, by)
        });
        alter("the hash key", &|sent, at, by| flip(&mut sent.head.hash, at, by));
        alter("the commitments", &|sent, at, by| {
            flip(&mut sent.head.commitments, at, by)
        });
        alter("the tables", &|sent, at, by| {
            let segment = at % sent.tables.len();
            flip(&mut sent.tables[segment], at, by);
        });
        alter("the decode bits", &|sent, at, by| {
            flip(&mut sent.tail.decode, at, by)
        });
        alter("the second openings", &|sent, at, by| {
            flip(&mut sent.openings, at, by)
        });
        alter("the MAC", &|sent, at, by| flip(&mut sent.mac, at, by));
        alter("commitments of two values exchanged", &|sent, at, _| {
            let (labels, _) = sent.head.commitments.as_chunks_mut::<16>();
            let pair = at % (labels.len() / 2);
            labels.swap(2 * pair, 2 * pair + 1);
        });
        alter("a table missing", &|sent, _, _| {
            sent.tables.last_mut().unwrap().pop();
        });
        alter("a table more", &|sent, _, by| {
            sent.tables.last_mut().unwrap().push(by)
        });
        alter("openings cut off", &|sent, _, _| {
            sent.openings.pop();
        });
        alter("no decode bits", &|sent, _, _| sent.tail.decode.clear());
    }
}

/// A second message of a kind is an abort for good, even if the caller goes on: or the labels that are checked would not
/// be those that were evaluated.
#[test]
fn a_message_that_comes_twice_ends_it() {
    let mut rng = ChaCha20Rng::from_seed([7; 32]);
    let secret = random(&mut rng);
    let setting = Setting::new(task(small(), vec![7; 32], 0), &secret, 3, [1, 2, 3], &mut rng);
    let (sent, _) = setting.garbled();
    for twice in 0..4 {
        let mut evaluation = setting.evaluation();
        evaluation.openings(&sent.openings).unwrap();
        evaluation.head(&sent.head).unwrap();
        for segment in &sent.tables {
            evaluation.tables(segment).unwrap();
        }
        evaluation.tail(&sent.tail).unwrap();
        evaluation.vouch(sent.mac).unwrap();
        let again = match twice {
            0 => evaluation.openings(&sent.openings),
            1 => evaluation.head(&sent.head),
            2 => evaluation.tail(&sent.tail),
            _ => evaluation.vouch(sent.mac),
        };
        assert_eq!(again, Err(Abort));
        assert_eq!(evaluation.finish().err(), Some(Abort));
    }
}

#[test]
fn what_was_not_burned_is_not_garbled() {
    let mut rng = ChaCha20Rng::from_seed([8; 32]);
    let secret = random(&mut rng);
    let mut setting = Setting::new(task(small(), vec![7; 32], 0), &secret, 3, [1, 2, 3], &mut rng);
    let parts = setting.share(0).as_garbler(setting.trio).unwrap();
    let ticket = setting.ticket();
    setting.context.number += 1;
    let [between, with_first, _] = &setting.secrets;
    let begun = FirstGarbler::begin(
        ticket,
        &setting.context,
        &setting.task,
        (between, with_first),
        &parts,
    );
    assert_eq!(begun.err(), Some(Misuse));
}

/// A corrupt first garbler that opens its half at the other value must not learn by the abort what the bit is: the
/// abort comes for each bit and each key alike.
#[test]
fn no_abort_depends_on_the_key() {
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    let secrets = [[0; 32], [255; 32], random(&mut rng)];
    for secret in secrets {
        let setting = Setting::new(task(small(), vec![7; 32], 0), &secret, 3, [1, 2, 3], &mut rng);
        let (sent, _) = setting.garbled();
        for place in [0, 1, 100, 255] {
            // Only a garbler can do this: it knows Delta.
            let labels = setting
                .context
                .derive(&setting.task, &setting.secrets[0])
                .garbling(256);
            let delta = labels.delta.label().to_le_bytes();
            for opened in [true, false] {
                let mut spoiled = sent.clone();
                let openings = if opened {
                    &mut spoiled.head.openings
                } else {
                    &mut spoiled.openings
                };
                for (byte, by) in openings[16 * place..].iter_mut().zip(delta) {
                    *byte ^= by;
                }
                assert_eq!(setting.evaluate(&spoiled).err(), Some(Abort));
            }
        }
    }
}

#[test]
fn what_is_kept_only_the_garblers_decode() {
    let mut rng = ChaCha20Rng::from_seed([5; 32]);
    let secret: [u8; 32] = random(&mut rng);
    let program = small();
    let (expected, all) = (program.evaluate(&secret, &[7; 32]), program.outputs.len());
    let setting = Setting::new(task(program, vec![7; 32], 64), &secret, 3, [1, 2, 3], &mut rng);
    let (sent, kept) = setting.garbled();
    assert_eq!(sent.tail.decode.len(), (all - 64) / 8);
    let outputs = setting.evaluate(&sent).unwrap();
    assert_eq!(*outputs.opened, expected[..(all - 64) / 8]);
    for garbler in &kept {
        assert_eq!(
            *garbler.decode(&outputs.kept).unwrap(),
            expected[(all - 64) / 8..]
        );
        let mut spoiled = outputs.kept.clone();
        spoiled[40] ^= 4;
        assert_eq!(garbler.decode(&spoiled).err(), Some(Abort));
        assert_eq!(garbler.decode(&outputs.kept[16..]).err(), Some(Abort));
    }
}

/// The attack on a seed that misses a field: what differs in it must give other labels everywhere, or two garblings of
/// different inputs would show the evaluator Delta.
#[test]
fn every_field_of_the_context_is_in_the_seed() {
    let mut rng = ChaCha20Rng::from_seed([6; 32]);
    let secret = random(&mut rng);
    let mut setting = Setting::new(task(small(), vec![7; 32], 0), &secret, 3, [1, 2, 3], &mut rng);
    let (base, _) = setting.garbled();
    let honest = setting.context.clone();
    type Edit = (&'static str, fn(&mut Context));
    let edits: [Edit; 12] = [
        ("cluster", |context| context.cluster[0] ^= 1),
        ("roles exchanged", |context| context.roles.swap(0, 1)),
        ("another evaluator", |context| context.roles[2] += 1),
        ("absent members", |context| context.absent.push(4)),
        ("the evaluator's boot", |context| context.boot[15] ^= 1),
        ("number", |context| context.number += 1),
        ("operation", |context| context.operation[23] ^= 1),
        ("attempt", |context| context.attempt += 1),
        ("key", |context| context.key.push(0)),
        ("key type", |context| context.key_type += 1),
        ("sharing", |context| context.sharing[0] ^= 1),
        ("request", |context| context.request[0] ^= 1),
    ];
    let differs = |setting: &Setting, what: &str| {
        let (other, _) = setting.garbled();
        for (name, one, two) in [
            ("hash", &base.head.hash[..], &other.head.hash[..]),
            ("openings", &base.head.openings, &other.head.openings),
            ("openings", &base.openings, &other.openings),
            ("tables", &base.tables[0], &other.tables[0]),
            ("commitments", &base.head.commitments, &other.head.commitments),
        ] {
            let same = one
                .chunks(16)
                .zip(two.chunks(16))
                .filter(|(one, two)| one == two)
                .count();
            assert_eq!(same, 0, "{what}: {name}");
        }
    };
    for (what, edit) in edits {
        edit(&mut setting.context);
        differs(&setting, what);
        setting.context = honest.clone();
    }
    let honest = setting.task.clone();
    setting.task.id[0] ^= 1;
    differs(&setting, "circuit");
    setting.task = Task::new(honest.program.clone(), honest.id, vec![8; 32], 0);
    differs(&setting, "public inputs");
    setting.task = honest;
    assert_eq!(
        setting.garbled().0,
        base,
        "a seed repeated repeats bytes and nothing else"
    );
}
