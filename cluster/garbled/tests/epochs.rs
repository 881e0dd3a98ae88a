//! A key through its epochs: refreshed, dealt to others, repaired. In each of them every trio computes by the real protocol
//! what HMAC and key wrap of other crates compute, and no garbling of one epoch has anything of another's.

#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail loudly")]

use std::collections::{BTreeMap, BTreeSet, HashSet};

use aes_kw::{KeyInit, KwAes256};
use conclave_garbled::agreement::{Fault, Sharing};
use conclave_garbled::burned::{Burned, Ticket};
use conclave_garbled::circuits::sha256::{BLOCK_BYTES, INITIAL_STATE, compress};
use conclave_garbled::held::{Held, inner_digest};
use conclave_garbled::live::Live;
use conclave_garbled::operations;
use conclave_garbled::portion::{Gathered, Portion};
use conclave_garbled::session::{
    Abort, Context, Evaluation, FirstGarbler, Head, PairSecret, SecondGarbler, Tail, Task,
};
use conclave_garbled::sharing::{GarblerParts, HOLDERS, Piece, Share, deal, share_of};
use conclave_garbled::{refresh, reshare, sharing};
use hmac::{Hmac, Mac};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sha2::Sha256;
use zeroize::Zeroizing;

type Random = ChaCha20Rng;

/// A key as the replicated state and its holders have it.
#[derive(Clone)]
struct Key {
    live: Live,
    correction: [u8; 32],
    check: [u8; 16],
    held: BTreeMap<u8, Held>,
}

impl Key {
    /// Shares what is known: an HMAC key's outer state with its inner one beside it, or a wrapping key.
    fn deal(secret: [u8; 32], inner: Option<[u8; 32]>, holders: u8, random: &mut Random) -> Self {
        let correction: [u8; 32] = random.r#gen();
        let corrected: [u8; 32] = std::array::from_fn(|at| secret[at] ^ correction[at]);
        let pieces = deal(&corrected, holders, random);
        let mut live = Live {
            cluster: [1; 32],
            key: b"key".to_vec(),
            epoch: 0,
            sharing: 0,
            commitments: vec![],
            inner: None,
        };
        live.commitments = (1..)
            .zip(&pieces)
            .map(|(number, piece)| piece.commitment(&live.name(), number))
            .collect();
        live.inner = inner.map(|inner| inner_digest(&live.name(), &inner));
        let held = |holder| Held {
            share: share_of(&pieces, holder).unwrap(),
            inner: inner.map(Zeroizing::new),
        };
        Self {
            check: operations::check_of(&live.key, &secret),
            held: (1..=holders).map(|holder| (holder, held(holder))).collect(),
            live,
            correction,
        }
    }

    /// The next epoch: of the key nothing changes but the pieces.
    fn enter(&mut self, outcomes: BTreeMap<u8, Result<(Sharing, Held), Fault>>) {
        let outcomes: BTreeMap<u8, (Sharing, Held)> = outcomes
            .into_iter()
            .map(|(number, outcome)| (number, outcome.unwrap()))
            .collect();
        let (sharing, _) = outcomes.values().next().unwrap();
        assert!(outcomes.values().all(|(other, _)| other == sharing));
        self.live.epoch += 1;
        self.live.commitments.clone_from(&sharing.commitments);
        self.held = outcomes
            .into_iter()
            .map(|(number, (_, held))| (number, held))
            .collect();
        for (number, held) in &self.held {
            self.live.verify(held, *number).unwrap();
        }
    }

    fn refresh(&mut self, away: Option<u8>, random: &mut Random) {
        let session = refresh::Session {
            id: random.r#gen(),
            live: self.live.clone(),
            away,
        };
        let present = self.held.iter().filter(|(number, _)| Some(**number) != away);
        let begun: Vec<_> = present
            .map(|(me, held)| {
                let held = held.clone();
                (
                    *me,
                    refresh::Committed::begin(session.clone(), *me, held, random).unwrap(),
                )
            })
            .collect();
        let committed: BTreeMap<u8, _> = begun.iter().map(|(me, (_, sent))| (*me, sent.clone())).collect();
        let opened: Vec<_> = begun
            .into_iter()
            .map(|(me, (of, _))| (me, of.open(committed.clone()).unwrap()))
            .collect();
        let to = |me: u8| {
            let others = opened.iter().filter(move |(from, _)| *from != me);
            others
                .map(|(from, (_, sent))| (*from, sent[&me].clone()))
                .collect()
        };
        let openings: BTreeMap<u8, BTreeMap<u8, _>> = opened.iter().map(|(me, _)| (*me, to(*me))).collect();
        let combined: Vec<_> = opened
            .into_iter()
            .map(|(me, (of, _))| (me, of.combine(&openings[&me]).unwrap()))
            .collect();
        let said: BTreeMap<u8, _> = combined
            .iter()
            .map(|(me, (_, sent))| (*me, sent.clone()))
            .collect();
        let outcomes = combined.into_iter().map(|(me, (of, _))| (me, of.agree(&said)));
        self.enter(outcomes.collect());
    }

    fn reshare(&mut self, dealers: &[u8], holders: u8, random: &mut Random) {
        let outcomes = self.reshared(dealers, holders, random);
        self.enter(outcomes);
    }

    /// What comes of a resharing at each new holder, which computes the check value in some trio.
    fn reshared(
        &self,
        dealers: &[u8],
        holders: u8,
        random: &mut Random,
    ) -> BTreeMap<u8, Result<(Sharing, Held), Fault>> {
        let session = reshare::Session {
            id: random.r#gen(),
            live: self.live.clone(),
            dealers: BTreeSet::from_iter(dealers.iter().copied()),
            holders: (1..=u64::from(holders)).collect(),
            away: None,
            check: self.check,
        };
        let mut dealt: BTreeMap<u8, BTreeMap<u8, _>> = BTreeMap::new();
        for dealer in dealers {
            for (to, parts) in session.deal(*dealer, &self.held[dealer]).unwrap() {
                dealt.entry(to).or_default().insert(*dealer, parts);
            }
        }
        let combined: Vec<_> = dealt
            .iter()
            .map(|(me, dealt)| (*me, session.combine(*me, dealt).unwrap()))
            .collect();
        let said: BTreeMap<u8, _> = combined
            .iter()
            .map(|(me, (_, sent))| (*me, sent.clone()))
            .collect();
        let agreed: BTreeMap<u8, reshare::Agreed> = combined
            .into_iter()
            .map(|(me, (of, _))| (me, of.agree(&said).unwrap()))
            .collect();
        let mut candidate = self.clone();
        candidate
            .live
            .commitments
            .clone_from(&agreed[&1].sharing().commitments);
        candidate.held = agreed.iter().map(|(me, of)| (*me, of.held().clone())).collect();
        let check = operations::check(&self.live.key);
        let with = |me: u8| {
            let mut trios = candidate.trios().into_iter();
            let trio = trios.find(|trio| trio.contains(&me)).unwrap();
            let (_, found) = compute([&candidate; 3], trio, &check);
            <[u8; 16]>::try_from(found.unwrap()).unwrap()
        };
        agreed
            .into_iter()
            .map(|(me, of)| (me, of.conclude(&with(me))))
            .collect()
    }

    /// A holder gets from the others what it has no more.
    fn repair(&mut self, lost: u8) {
        let before = self.held.remove(&lost);
        let wanted = self.live.wanted(lost);
        let mut gathered = Gathered::default();
        for held in self.held.values() {
            gathered.add(&Portion::of(held, lost), &wanted).unwrap();
        }
        let repaired = gathered.held(&wanted).unwrap();
        assert!(before.is_none_or(|before| before.to_bytes() == repaired.to_bytes()));
        self.held.insert(lost, repaired);
    }

    fn trios(&self) -> Vec<[u8; 3]> {
        let numbers = || self.held.keys().copied();
        let all = numbers().flat_map(|a| numbers().flat_map(move |b| numbers().map(move |c| [a, b, c])));
        all.filter(|[a, b, c]| a != b && a != c && b != c).collect()
    }

    /// The context of an operation: the same in all epochs but for the digest of the sharing.
    fn context(&self, trio: [u8; 3]) -> Context {
        let absent = (1..=4).filter(|number| !trio.contains(number) && self.held.contains_key(number));
        Context {
            cluster: [1; 32],
            roles: trio.map(u64::from),
            absent: absent.map(u64::from).collect(),
            boot: [2; 16],
            number: 1,
            operation: [3; 24],
            attempt: 1,
            key: self.live.key.clone(),
            key_type: 5,
            sharing: sharing::digest(&self.live.commitments),
            request: [5; 32],
        }
    }
}

/// Everything that travels in one operation.
struct Sent {
    head: Head,
    tables: Vec<u8>,
    tail: Tail,
    openings: Vec<u8>,
    mac: [u8; 16],
}

impl Sent {
    /// The labels and tables, by 16 bytes.
    fn blocks(&self) -> Vec<&[u8]> {
        let head = &self.head;
        let parts: [&[u8]; 5] = [
            &head.hash,
            &head.openings,
            &head.commitments,
            &self.openings,
            &self.tables,
        ];
        parts.into_iter().flat_map(|part| part.chunks(16)).collect()
    }
}

/// What pairs of nodes share, the same in all operations here.
fn pair(one: u8, two: u8) -> PairSecret {
    Zeroizing::new([one.min(two) << 4 | one.max(two); 32])
}

fn ticket(context: &Context) -> Ticket {
    let mut burned = Burned::default();
    burned.open(context.roles[2], context.boot).unwrap();
    burned
        .burn(context.roles[2], context.boot, context.number)
        .unwrap()
}

/// One operation, each role with a key as the node in it has it.
fn compute(by: [&Key; 3], trio: [u8; 3], task: &Task) -> (Sent, Result<Vec<u8>, Abort>) {
    let [first, second, evaluator] = trio;
    let parts = |role: usize| -> GarblerParts {
        let mut parts = by[role].held[&trio[role]].share.as_garbler(trio).unwrap();
        let correction = by[role].correction;
        parts
            .common
            .iter_mut()
            .zip(correction)
            .for_each(|(byte, by)| *byte ^= by);
        parts
    };
    let context = by[0].context(trio);
    let secrets = (&pair(first, second), &pair(first, evaluator));
    let (mut one, head) = FirstGarbler::begin(ticket(&context), &context, task, secrets, &parts(0)).unwrap();
    let mut tables = Vec::new();
    while one.tables_after(&mut tables, usize::MAX) {}
    let (tail, one) = one.finish();
    let context = by[1].context(trio);
    let secrets = (&pair(first, second), &pair(second, evaluator));
    let (mut two, openings) =
        SecondGarbler::begin(ticket(&context), &context, task, secrets, &parts(1)).unwrap();
    while two.proceed(usize::MAX) {}
    let (mac, two) = two.finish();
    let sent = Sent {
        head,
        tables,
        tail,
        openings,
        mac,
    };
    let evaluated = || {
        let context = by[2].context(trio);
        let secrets = (&pair(first, evaluator), &pair(second, evaluator));
        let parts = by[2].held[&evaluator].share.as_evaluator(trio).unwrap();
        let mut evaluation = Evaluation::begin(&context, task.clone(), secrets, parts);
        evaluation.head(&sent.head)?;
        evaluation.openings(&sent.openings)?;
        evaluation.tables(&sent.tables)?;
        evaluation.tail(&sent.tail)?;
        evaluation.vouch(sent.mac)?;
        let outputs = evaluation.finish()?;
        if outputs.kept.is_empty() {
            return Ok(outputs.opened.to_vec());
        }
        let decoded = one.decode(&outputs.kept)?;
        assert_eq!(decoded, two.decode(&outputs.kept)?);
        Ok(decoded.to_vec())
    };
    let outcome = evaluated();
    (sent, outcome)
}

/// An HMAC key's inner and outer state.
fn states(key: &[u8; 32]) -> [[u8; 32]; 2] {
    [0x36, 0x5c].map(|pad| {
        let mut block = [pad; BLOCK_BYTES];
        block.iter_mut().zip(key).for_each(|(padded, key)| *padded ^= key);
        compress(INITIAL_STATE, &block)
    })
}

/// What every trio must find, in whatever epoch.
enum Expected {
    Tag([u8; 32]),
    Wrapped(Vec<u8>),
}

const MESSAGE: &[u8] = b"what is signed in one epoch is verified in another";
const PAYLOAD: [u8; 16] = [7; 16];

fn assert_same_key(key: &Key, expected: &Expected) {
    let epoch = key.live.epoch;
    for trio in key.trios() {
        let by = [key; 3];
        let run = |task: Task| compute(by, trio, &task).1.unwrap();
        assert_eq!(
            run(operations::check(&key.live.key)),
            key.check,
            "epoch {epoch}, {trio:?}"
        );
        match expected {
            Expected::Tag(tag) => {
                let inner = key.held[&trio[0]].inner.as_ref().unwrap();
                assert_eq!(
                    run(operations::tag(inner, MESSAGE)),
                    tag,
                    "epoch {epoch}, {trio:?}"
                );
                assert!(operations::verified(&run(operations::verify(
                    inner, MESSAGE, tag
                ))));
            }
            Expected::Wrapped(wrapped) => {
                assert_eq!(
                    run(operations::wrap(&PAYLOAD).unwrap()),
                    *wrapped,
                    "epoch {epoch}, {trio:?}"
                );
            }
        }
    }
}

/// Random keys of both kinds, and what other crates compute with them.
fn keys(holders: u8, random: &mut Random) -> [(Key, Expected); 2] {
    let secret: [u8; 32] = random.r#gen();
    let [inner, outer] = states(&secret);
    let mut tag = <Hmac<Sha256> as Mac>::new_from_slice(&secret).unwrap();
    tag.update(MESSAGE);
    let mut wrapped = vec![0; PAYLOAD.len() + 8];
    KwAes256::new(&secret.into())
        .wrap_key(&PAYLOAD, &mut wrapped)
        .unwrap();
    [
        (
            Key::deal(outer, Some(inner), holders, random),
            Expected::Tag(tag.finalize().into_bytes().into()),
        ),
        (
            Key::deal(secret, None, holders, random),
            Expected::Wrapped(wrapped),
        ),
    ]
}

#[test]
fn every_trio_of_every_epoch_has_the_same_key() {
    let mut random = Random::from_seed([1; 32]);
    for holders in HOLDERS {
        for (mut key, expected) in keys(holders, &mut random) {
            assert_same_key(&key, &expected);
            key.refresh(None, &mut random);
            assert_same_key(&key, &expected);
            if holders == 4 {
                key.refresh(Some(2), &mut random);
                assert_same_key(&key, &expected);
                key.repair(2);
                assert_same_key(&key, &expected);
            }
            let all: Vec<u8> = (1..=holders).collect();
            let others = if holders == 3 { 4 } else { 3 };
            key.reshare(&all, others, &mut random);
            assert_same_key(&key, &expected);
            key.repair(3);
            key.refresh(None, &mut random);
            assert_same_key(&key, &expected);
            // Two holders are enough to deal, if need be.
            key.reshare(&[1, 3], holders, &mut random);
            assert_same_key(&key, &expected);
            assert!(key.live.epoch >= 4);
        }
    }
}

/// The digest of the sharing is in the seed: with all else the same (a node could not even do this: numbers are burned), a
/// garbling of one epoch has not one label, table or commitment of another's.
#[test]
fn no_garbling_of_one_epoch_has_anything_of_anothers() {
    let mut random = Random::from_seed([2; 32]);
    let [(mut key, _), _] = keys(4, &mut random);
    let task = operations::tag(key.held[&1].inner.as_ref().unwrap(), MESSAGE);
    let mut epochs = vec![key.clone()];
    key.refresh(None, &mut random);
    epochs.push(key.clone());
    key.refresh(Some(4), &mut random);
    key.repair(4);
    epochs.push(key.clone());
    key.reshare(&[1, 2, 3, 4], 4, &mut random);
    epochs.push(key);
    let trio = [1, 2, 3];
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    for key in &epochs {
        let (sent, tag) = compute([key; 3], trio, &task);
        tag.unwrap();
        for block in sent.blocks() {
            assert!(seen.insert(block.to_vec()), "epoch {}", key.live.epoch);
        }
    }
    // Had the digest stayed, the seed would have: the key of the label hash follows from it alone.
    let mut forged = epochs[1].clone();
    forged.live.commitments.clone_from(&epochs[0].live.commitments);
    let (sent, _) = compute([&forged; 3], trio, &task);
    assert!(seen.contains(&sent.head.hash[..]));
}

/// Who is in another epoch, in whatever role, and even if it thinks that it is in this one: nothing comes of it.
#[test]
fn parts_of_two_epochs_compute_nothing() {
    let mut random = Random::from_seed([3; 32]);
    for holders in HOLDERS {
        let [(old, _), _] = keys(holders, &mut random);
        let mut new = old.clone();
        new.refresh(None, &mut random);
        let mut dealt = old.clone();
        dealt.reshare(&[1, 2, 3], holders, &mut random);
        let task = operations::tag(old.held[&1].inner.as_ref().unwrap(), MESSAGE);
        for later in [new, dealt] {
            let mut mistaken = old.clone();
            mistaken.live.clone_from(&later.live);
            for behind in [&old, &mistaken] {
                for trio in later.trios() {
                    for role in 0..3 {
                        let mut by = [&later; 3];
                        by[role] = behind;
                        assert_eq!(compute(by, trio, &task).1, Err(Abort), "{trio:?}, role {role}");
                        let mut by = [behind; 3];
                        by[role] = &later;
                        assert_eq!(compute(by, trio, &task).1, Err(Abort), "{trio:?}, role {role}");
                    }
                }
            }
        }
    }
}

/// What new holders get of the only dealer of a piece that it makes up is what they would get of an honest one that held
/// another piece: they agree, and the check value alone tells.
#[test]
fn the_check_value_tells_of_a_piece_that_one_dealer_made_up() {
    let mut random = Random::from_seed([4; 32]);
    for (mut key, _) in keys(3, &mut random) {
        let sound = key.reshared(&[1, 2], 3, &mut random);
        assert!(sound.values().all(Result::is_ok));
        let mut pieces: BTreeMap<u8, Piece> = key.held[&2]
            .share
            .pieces()
            .map(|(number, piece)| (number, piece.clone()))
            .collect();
        pieces.get_mut(&1).unwrap().value[0] ^= 1;
        key.live.commitments[0] = pieces[&1].commitment(&key.live.name(), 1);
        let share = Share::new(3, 2, pieces).unwrap();
        let inner = key.held[&2].inner.clone();
        key.held.insert(2, Held { share, inner });
        for outcome in key.reshared(&[1, 2], 3, &mut random).into_values() {
            assert_eq!(outcome.err(), Some(Fault::Check));
        }
    }
}
