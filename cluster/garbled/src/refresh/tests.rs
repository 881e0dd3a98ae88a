use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use serde::de::DeserializeOwned;

use super::*;
use crate::held::inner_digest;
use crate::portion::{Gathered, Portion};
use crate::sharing::{HOLDERS, deal, share_of};

const INNER: [u8; 32] = [9; 32];

/// A key that is known, as its holders have it.
struct World {
    session: Session,
    secret: [u8; 32],
    held: BTreeMap<u8, Held>,
}

impl World {
    fn new(holders: u8, away: Option<u8>, seed: u8) -> Self {
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        let secret = rng.r#gen();
        let pieces = deal(&secret, holders, &mut rng);
        let mut live = Live {
            cluster: [2; 32],
            key: b"key".to_vec(),
            epoch: 6,
            sharing: 0,
            commitments: Vec::new(),
            inner: None,
        };
        let commitments = (1..).zip(&pieces);
        let commitments = commitments.map(|(number, piece)| piece.commitment(&live.name(), number));
        live.commitments = commitments.collect();
        live.inner = Some(inner_digest(&live.name(), &INNER));
        let held = (1..=holders).map(|holder| {
            let share = share_of(&pieces, holder).unwrap();
            let inner = Some(Zeroizing::new(INNER));
            (holder, Held { share, inner })
        });
        Self {
            held: held.collect(),
            session: Session {
                id: [1; 32],
                live,
                away,
            },
            secret,
        }
    }

    /// What is live after a refresh with this outcome.
    fn after(&self, sharing: &Sharing) -> Live {
        Live {
            epoch: self.session.live.epoch + 1,
            commitments: sharing.commitments.clone(),
            ..self.session.live.clone()
        }
    }
}

/// A message on its way: its round from 1, from whom, to whom.
type Way = (u8, u8, u8);
type Outcomes = BTreeMap<u8, Result<(Sharing, Held), Fault>>;

/// Runs it all; `carry` takes every message on its way, also to its own sender, and may change or lose it.
fn run(world: &World, seed: u8, mut carry: impl FnMut(Way, Vec<u8>) -> Option<Vec<u8>>) -> Outcomes {
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    let present: Vec<u8> = world.session.committee().present().collect();
    let mut faults = BTreeMap::new();
    let (mut committed, mut first) = (BTreeMap::new(), BTreeMap::new());
    for me in &present {
        let begun = Committed::begin(world.session.clone(), *me, world.held[me].clone(), &mut rng);
        let (participant, sent) = begun.unwrap();
        committed.insert(*me, participant);
        first.insert(*me, sent);
    }
    let (mut opened, mut second) = (BTreeMap::new(), BTreeMap::new());
    for (me, participant) in committed {
        match participant.open(carried(1, me, &first, &mut carry)) {
            Ok((participant, sent)) => {
                opened.insert(me, participant);
                second.insert(me, sent);
            }
            Err(fault) => drop(faults.insert(me, Err(fault))),
        }
    }
    let (mut combined, mut third) = (BTreeMap::new(), BTreeMap::new());
    for (me, participant) in opened {
        let to_me = second
            .iter()
            .filter_map(|(from, sent)| Some((*from, sent.get(&me)?.clone())));
        match participant.combine(&carried(2, me, &to_me.collect(), &mut carry)) {
            Ok((participant, sent)) => {
                combined.insert(me, participant);
                third.insert(me, sent);
            }
            Err(fault) => drop(faults.insert(me, Err(fault))),
        }
    }
    let agreed = combined.into_iter().map(|(me, participant)| {
        let said = carried(3, me, &third, &mut carry);
        (me, participant.agree(&said))
    });
    let mut outcomes: Outcomes = agreed.collect();
    outcomes.extend(faults);
    outcomes
}

/// As they come to `to`; what cannot be read does not come.
fn carried<T: Serialize + DeserializeOwned>(
    round: u8,
    to: u8,
    sent: &BTreeMap<u8, T>,
    carry: &mut impl FnMut(Way, Vec<u8>) -> Option<Vec<u8>>,
) -> BTreeMap<u8, T> {
    let way = |(from, message): (&u8, &T)| {
        let bytes = carry((round, *from, to), postcard::to_stdvec(message).unwrap())?;
        match postcard::take_from_bytes(&bytes) {
            Ok((message, [])) => Some((*from, message)),
            _ => None,
        }
    };
    sent.iter().filter_map(way).collect()
}

fn honest(world: &World, seed: u8) -> BTreeMap<u8, (Sharing, Held)> {
    let outcomes = run(world, seed, |_, message| Some(message));
    let outcomes = outcomes.into_iter().map(|(me, outcome)| (me, outcome.unwrap()));
    outcomes.collect()
}

fn faults(outcomes: Outcomes) -> BTreeMap<u8, Option<Fault>> {
    let fault = |(me, outcome): (u8, Result<_, Fault>)| (me, outcome.err());
    outcomes.into_iter().map(fault).collect()
}

fn pieces(held: &Held) -> BTreeMap<u8, [u8; 32]> {
    let pieces = held.share.pieces();
    pieces.map(|(number, piece)| (number, piece.value)).collect()
}

fn xor<'a>(pieces: impl IntoIterator<Item = &'a [u8; 32]>) -> [u8; 32] {
    let mut sum = [0; 32];
    for piece in pieces {
        sum.iter_mut().zip(piece).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

#[test]
fn all_agree_on_other_pieces_of_the_same_key() {
    for (holders, away) in [(3, None), (4, None), (4, Some(1)), (4, Some(2)), (4, Some(4))] {
        for seed in 0..20 {
            let world = World::new(holders, away, seed);
            let refreshed = honest(&world, seed);
            let (sharing, _) = refreshed.values().next().unwrap();
            let live = world.after(sharing);
            let mut all = BTreeMap::new();
            for (me, (agreed, held)) in &refreshed {
                assert_eq!(agreed, sharing);
                live.verify(held, *me).unwrap();
                assert!(world.session.live.verify(held, *me).is_err(), "of the old epoch");
                assert!(live.verify(&world.held[me], *me).is_err(), "of the new one");
                all.extend(pieces(held));
                for (number, piece) in held.share.pieces() {
                    let before = world.held[me].share.pieces().find(|(old, _)| *old == number);
                    assert_ne!(piece.value, before.unwrap().1.value);
                    assert_ne!(piece.salt, before.unwrap().1.salt);
                }
            }
            assert_eq!(all.len(), usize::from(holders));
            assert_eq!(xor(all.values()), world.secret);
            let same = live.commitments.iter().zip(&world.session.live.commitments);
            assert!(same.into_iter().all(|(new, old)| new != old));
        }
    }
}

#[test]
fn who_was_away_gets_its_part_from_any_two_of_the_others_and_its_old_one_is_none() {
    for away in 1..=4 {
        let world = World::new(4, Some(away), 1);
        let refreshed = honest(&world, 1);
        let (sharing, _) = refreshed.values().next().unwrap();
        let live = world.after(sharing);
        assert!(live.verify(&world.held[&away], away).is_err());
        for left_out in refreshed.keys() {
            let wanted = live.wanted(away);
            let mut gathered = Gathered::default();
            let from = refreshed.iter().filter(|(number, _)| *number != left_out);
            for (number, (_, held)) in from {
                // What it asks of one that is still in the old epoch is refused.
                let old = Portion::of(&world.held[number], away);
                assert_eq!(gathered.add(&old, &wanted), Err(SharingError::Commitment));
                gathered.add(&Portion::of(held, away), &wanted).unwrap();
            }
            live.verify(&gathered.held(&wanted).unwrap(), away).unwrap();
        }
    }
}

/// What a mobile adversary has: everything of one holder before, everything of another one after. However it puts the two
/// together, it is not the key.
#[test]
fn an_old_part_and_a_new_one_of_two_holders_are_no_key() {
    for holders in HOLDERS {
        let world = World::new(holders, None, 3);
        let refreshed = honest(&world, 3);
        for (before, old) in &world.held {
            for (after, (sharing, new)) in &refreshed {
                if before == after {
                    continue;
                }
                let (old, new) = (pieces(old), pieces(new));
                for choice in 0..1_u32 << holders {
                    let chosen = (1..=holders).filter_map(|number| match choice >> number & 1 {
                        0 => old.get(&number).or(new.get(&number)),
                        _ => new.get(&number).or(old.get(&number)),
                    });
                    assert_ne!(xor(chosen), world.secret);
                }
                // Nor do they pass for a part of either epoch.
                let live = world.after(sharing);
                let mut mixed = BTreeMap::new();
                for held in [&world.held[before], &refreshed[after].1] {
                    let part = held.share.pieces();
                    mixed.extend(part.map(|(number, piece)| (number, piece.clone())));
                }
                for number in 1..=holders {
                    let mut mixed = mixed.clone();
                    mixed.remove(&number);
                    let share = crate::sharing::Share::new(holders, number, mixed).unwrap();
                    let inner = Some(Zeroizing::new(INNER));
                    let mixed = Held { share, inner };
                    assert_eq!(
                        world.session.live.verify(&mixed, number).err(),
                        Some(SharingError::Commitment)
                    );
                    // But the new part itself with a piece that nobody looks at.
                    assert_eq!(live.verify(&mixed, number).is_ok(), number == *after);
                }
            }
        }
    }
}

#[test]
fn masks_add_up_to_nothing_and_follow_from_what_every_holder_drew() {
    let drawn = |seeds: &[u8]| masks(&Source::new(b"conclave refresh seed 1", &[1; 32], seeds), 4);
    let base = drawn(&[7; 96]);
    assert_eq!(xor(base.iter().map(|mask| &mask.value)), [0; 32]);
    assert_ne!(xor(base.iter().map(|mask| &mask.salt)), [0; 32]);
    for at in [0, 32, 95] {
        let mut seeds = [7; 96];
        seeds[at] ^= 1;
        for (one, two) in base.iter().zip(drawn(&seeds)) {
            assert_ne!(one.value, two.value);
            assert_ne!(one.salt, two.salt);
            assert_ne!(one.value, [0; 32]);
        }
    }
}

/// Every byte of every message, on its way to one holder: it ends without an outcome or with the right one.
#[test]
fn whatever_is_changed_on_the_way_ends_it_or_changes_nothing() {
    for (holders, away) in [(3, None), (4, Some(2))] {
        let world = World::new(holders, away, 4);
        let expected = honest(&world, 5);
        let mut lengths: BTreeMap<Way, usize> = BTreeMap::new();
        run(&world, 5, |way, message| {
            lengths.insert(way, message.len());
            Some(message)
        });
        assert_eq!(lengths.len(), 3 * 3 + 3 * 2 + 3 * 3);
        for (spoiled, length) in lengths {
            for at in 0..length {
                let outcomes = run(&world, 5, |way, mut message| {
                    if way == spoiled {
                        message[at] ^= 1 << (at % 8);
                    }
                    Some(message)
                });
                assert!(outcomes[&spoiled.2].is_err(), "{spoiled:?}, byte {at}");
                for (me, outcome) in outcomes {
                    if let Ok((sharing, held)) = outcome {
                        let (right, part) = &expected[&me];
                        assert_eq!(&sharing, right);
                        assert_eq!(held.to_bytes(), part.to_bytes());
                    }
                }
            }
        }
    }
}

#[test]
fn whatever_is_lost_ends_it() {
    let world = World::new(3, None, 6);
    for round in 1..=3 {
        for (from, to) in [(1, 2), (3, 1)] {
            let outcomes = run(&world, 6, |way, message| {
                (way != (round, from, to)).then_some(message)
            });
            assert_eq!(faults(outcomes)[&to], Some(Fault::Holder(from)));
        }
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> T {
    postcard::from_bytes(bytes).unwrap()
}

fn written(message: &impl Serialize) -> Option<Vec<u8>> {
    Some(postcard::to_stdvec(message).unwrap())
}

#[test]
fn whoever_opens_what_it_did_not_commit_to_is_named() {
    let world = World::new(3, None, 7);
    let outcomes = run(&world, 7, |way, message| {
        let mut opening = match way {
            (2, 2, 1) => read::<Opening>(&message),
            _ => return Some(message),
        };
        opening.drawn.seed[0] ^= 1;
        written(&opening)
    });
    let faults = faults(outcomes);
    assert_eq!(faults[&1], Some(Fault::Holder(2)));
    // Nobody goes on without it.
    assert_eq!(faults[&2], Some(Fault::Holder(1)));
    assert_eq!(faults[&3], Some(Fault::Holder(1)));
}

/// A holder that commits to two seeds, and opens to each other one what it committed to there. The sealed openings tell:
/// what is said after them comes by way of a messenger that may be in league with it.
#[test]
fn two_seeds_of_one_holder_split_the_others() {
    let world = World::new(4, None, 8);
    let other = Drawn {
        seed: [5; 32],
        salt: [6; 32],
    };
    let session = &world.session;
    let outcomes = run(&world, 8, |way, message| match way {
        (1, 4, 1) => written(&session.commitment(4, &other)),
        (2, 4, 1) => {
            let mut opening = read::<Opening>(&message);
            opening.drawn = other.clone();
            written(&opening)
        }
        (3, ..) => panic!("it goes on"),
        _ => Some(message),
    });
    for (me, fault) in faults(outcomes) {
        assert_eq!(fault, Some(Fault::Split), "holder {me}");
    }
}

#[test]
fn two_that_do_not_say_the_same_of_a_piece_are_named() {
    for holders in HOLDERS {
        let world = World::new(holders, None, 9);
        let outcomes = run(&world, 9, |way, message| match way {
            (3, 3, to) if to != 3 => {
                let mut said = read::<Pieces>(&message);
                said.of.insert((0, 1), [9; 32]);
                written(&said)
            }
            _ => Some(message),
        });
        let faults = faults(outcomes);
        assert_eq!(faults[&1], Some(Fault::Between(2, 3)));
        assert_eq!(faults[&2], Some(Fault::Between(2, 3)));
    }
}

/// A holder that is behind, one that has other pieces on record, one whom another ceremony asks: none is mixed in, and none
/// is called a liar.
#[test]
fn holders_that_start_from_different_things_do_not_go_on() {
    let world = World::new(3, None, 10);
    type Edit = fn(&mut Session);
    let edits: [Edit; 7] = [
        |session| session.id[0] ^= 1,
        |session| session.live.cluster[0] ^= 1,
        |session| session.live.key.push(0),
        |session| session.live.epoch += 1,
        |session| session.live.commitments[0][0] ^= 1,
        |session| session.live.inner = None,
        |session| session.away = Some(3),
    ];
    for (at, edit) in edits.into_iter().enumerate() {
        let mut other = world.session.clone();
        edit(&mut other);
        let outcomes = run(&world, 10, |way, message| match way {
            (1, 2, 1) => {
                let mut first = read::<Commitment>(&message);
                first.session = other.digest();
                written(&first)
            }
            _ => Some(message),
        });
        assert_eq!(faults(outcomes)[&1], Some(Fault::Elsewhere(2)), "edit {at}");
    }
}

#[test]
fn a_session_that_cannot_be_does_not_begin() {
    let mut rng = ChaCha20Rng::from_seed([0; 32]);
    let mut fault = |edit: fn(&mut World), holders, away, me: u8| {
        let mut world = World::new(holders, away, 11);
        edit(&mut world);
        let held = world.held.remove(&me).unwrap();
        match Committed::begin(world.session, me, held, &mut rng) {
            Err(Fault::Session(error)) => error,
            _ => panic!("it began"),
        }
    };
    let as_it_is: fn(&mut World) = |_| ();
    assert_eq!(fault(as_it_is, 3, Some(3), 1), SharingError::Holders);
    assert_eq!(fault(as_it_is, 4, Some(1), 1), SharingError::Holders);
    assert_eq!(fault(as_it_is, 4, Some(5), 1), SharingError::Holders);
    assert_eq!(
        fault(|world| world.session.live.commitments.truncate(2), 3, None, 1),
        SharingError::Holders
    );
    assert_eq!(
        fault(|world| world.session.live.epoch = u64::MAX, 3, None, 1),
        SharingError::Epoch
    );
    assert_eq!(
        fault(|world| world.session.live.epoch += 1, 3, None, 1),
        SharingError::Commitment
    );
    assert_eq!(
        fault(|world| world.session.live.inner = None, 3, None, 1),
        SharingError::Commitment
    );
    assert_eq!(
        fault(
            |world| drop(world.held.insert(1, world.held[&2].clone())),
            3,
            None,
            1
        ),
        SharingError::Pieces
    );
}
