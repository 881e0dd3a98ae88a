use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::operations::check_of;
use crate::portion::{Gathered, Portion};
use crate::sharing::{deal, share_of};

const INNER: [u8; STATE_BYTES] = [9; STATE_BYTES];

/// A key that is known, as its holders have it.
struct World {
    session: Session,
    secret: [u8; 32],
    held: BTreeMap<u8, Held>,
}

impl World {
    /// From so many holders, of whom some deal, to so many.
    fn new(from: u8, dealers: &[u8], to: u8, seed: u8) -> Self {
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        let secret = rng.r#gen();
        let pieces = deal(&secret, from, &mut rng);
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
        let held = (1..=from).map(|holder| {
            let share = share_of(&pieces, holder).unwrap();
            let inner = Some(Zeroizing::new(INNER));
            (holder, Held { share, inner })
        });
        Self {
            held: held.collect(),
            session: Session {
                id: [1; 32],
                live,
                dealers: dealers.iter().copied().collect(),
                holders: (10..10 + u64::from(to)).collect(),
                away: None,
                check: check_of(b"key", &secret),
            },
            secret,
        }
    }

    fn after(&self, sharing: &Sharing) -> Live {
        Live {
            epoch: self.session.live.epoch + 1,
            commitments: sharing.commitments.clone(),
            ..self.session.live.clone()
        }
    }

    /// What each new holder gets, by dealers.
    fn dealt(&self) -> BTreeMap<u8, BTreeMap<u8, Dealt>> {
        let mut dealt: BTreeMap<u8, BTreeMap<u8, Dealt>> = BTreeMap::new();
        for dealer in &self.session.dealers {
            for (to, parts) in self.session.deal(*dealer, &self.held[dealer]).unwrap() {
                dealt.entry(to).or_default().insert(*dealer, parts);
            }
        }
        dealt
    }

    /// What comes of what the new holders got, and of what they say, which `spoil` may change on its way.
    fn received(
        &self,
        dealt: &BTreeMap<u8, BTreeMap<u8, Dealt>>,
        spoil: impl Fn(u8, &mut BTreeMap<u8, Pieces>),
    ) -> Outcomes {
        let combined = dealt
            .iter()
            .map(|(me, dealt)| (*me, self.session.combine(*me, dealt)));
        let combined: BTreeMap<u8, _> = combined.collect();
        let said = combined
            .iter()
            .filter_map(|(me, of)| Some((*me, of.as_ref().ok()?.1.clone())));
        let said: BTreeMap<u8, Pieces> = said.collect();
        let agreed = combined.into_iter().map(|(me, combined)| {
            let mut said = said.clone();
            spoil(me, &mut said);
            (me, combined.and_then(|(combined, _)| combined.agree(&said)))
        });
        let agreed: BTreeMap<u8, Result<Agreed, Fault>> = agreed.collect();
        // What a trio of them would compute; the real one is in the test of whole epochs.
        let held = agreed
            .values()
            .filter_map(|agreed| Some(agreed.as_ref().ok()?.held()));
        let all: BTreeMap<u8, [u8; 32]> = held.flat_map(pieces).collect();
        let check = check_of(&self.session.live.key, &xor(all.values()));
        let concluded = agreed
            .into_iter()
            .map(|(me, agreed)| (me, agreed.and_then(|agreed| agreed.conclude(&check))));
        concluded.collect()
    }

    fn honest(&self) -> BTreeMap<u8, (Sharing, Held)> {
        let outcomes = self.received(&self.dealt(), |_, _| ());
        outcomes
            .into_iter()
            .map(|(me, outcome)| (me, outcome.unwrap()))
            .collect()
    }
}

type Outcomes = BTreeMap<u8, Result<(Sharing, Held), Fault>>;

fn faults(outcomes: Outcomes) -> Vec<Option<Fault>> {
    outcomes.into_values().map(Result::err).collect()
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

/// All ways to deal: from how many, by whom, to how many.
fn ways() -> Vec<(u8, Vec<u8>, u8)> {
    let mut ways = Vec::new();
    for from in HOLDERS {
        for dealers in 0..1_u32 << from {
            let dealers: Vec<u8> = (1..=from)
                .filter(|number| dealers >> (number - 1) & 1 == 1)
                .collect();
            if dealers.len() >= 2 {
                ways.extend(HOLDERS.map(|to| (from, dealers.clone(), to)));
            }
        }
    }
    ways
}

#[test]
fn any_two_or_more_holders_deal_the_same_key_to_others() {
    for (seed, (from, dealers, to)) in (0..).zip(ways()) {
        let world = World::new(from, &dealers, to, seed);
        let resharing = world.honest();
        assert_eq!(resharing.len(), usize::from(to));
        let (sharing, _) = &resharing[&1];
        let live = world.after(sharing);
        let mut all = BTreeMap::new();
        for (me, (agreed, held)) in &resharing {
            assert_eq!(agreed, sharing);
            live.verify(held, *me).unwrap();
            all.extend(pieces(held));
        }
        assert_eq!(all.len(), usize::from(to));
        assert_eq!(xor(all.values()), world.secret);
    }
}

/// A dealer and a new holder together, be they two nodes or one: they lack one part, of the piece that the one lacks and the
/// number that the other lacks, and it makes all the difference.
#[test]
fn an_old_part_and_a_new_one_are_no_key() {
    for (from, to) in [(3, 3), (3, 4), (4, 3), (4, 4)] {
        let world = World::new(from, &(1..=from).collect::<Vec<u8>>(), to, 3);
        let resharing = world.honest();
        let dealt = world.dealt();
        for old in 1..=from {
            let mut known: BTreeMap<Part, [u8; 32]> = BTreeMap::new();
            let session = world.session.digest();
            for (number, piece) in world.held[&old].share.pieces() {
                let parts = split(&session, number, piece, to);
                known.extend(parts.into_iter().map(|(at, part)| (at, part.value)));
            }
            for new in 1..=to {
                let mut known = known.clone();
                for of in dealt[&new].values() {
                    assert!(of.parts.keys().all(|(_, number)| *number != new));
                    known.extend(of.parts.iter().map(|(at, part)| (*at, part.value)));
                }
                assert!(!known.contains_key(&(old, new)));
                assert_eq!(known.len(), usize::from(from) * usize::from(to) - 1);
                assert_ne!(xor(known.values()), world.secret);
                // Nor do whole pieces of both epochs add up, however they are chosen.
                let (before, after) = (pieces(&world.held[&old]), pieces(&resharing[&new].1));
                let all: Vec<&[u8; 32]> = before.values().chain(after.values()).collect();
                for choice in 0..1_u32 << all.len() {
                    let chosen = all.iter().enumerate().filter(|(at, _)| choice >> at & 1 == 1);
                    assert_ne!(xor(chosen.map(|(_, piece)| *piece)), world.secret);
                }
            }
        }
    }
}

/// Two attempts, in which a node has two numbers: had the parts been the same, it would have them all.
#[test]
fn whatever_differs_between_two_sessions_gives_other_parts() {
    let world = World::new(4, &[1, 2, 3], 4, 4);
    let base = world.dealt();
    type Edit = fn(&mut Session);
    let edits: [Edit; 6] = [
        |session| session.id[0] ^= 1,
        |session| session.check[0] ^= 1,
        |session| session.holders[3] += 1,
        |session| session.holders = vec![9, 10, 11, 12],
        |session| session.away = Some(4),
        |session| session.dealers = BTreeSet::from([1, 2, 3, 4]),
    ];
    for (at, edit) in edits.into_iter().enumerate() {
        let mut other = World::new(4, &[1, 2, 3], 4, 4);
        edit(&mut other.session);
        for (to, by_dealer) in other.dealt() {
            for (dealer, of) in by_dealer {
                let Some(before) = base[&to].get(&dealer) else {
                    continue;
                };
                for (part, piece) in &of.parts {
                    assert_ne!(piece.value, before.parts[part].value, "edit {at}, {part:?}");
                    assert_ne!(piece.salt, before.parts[part].salt, "edit {at}, {part:?}");
                }
            }
        }
    }
    let again = world.dealt();
    let bytes = |dealt: &BTreeMap<u8, BTreeMap<u8, Dealt>>| postcard::to_stdvec(dealt).unwrap();
    assert_eq!(
        bytes(&again),
        bytes(&base),
        "the same session repeats bytes and nothing else"
    );
}

/// Every byte of everything that is dealt and said, on its way to one holder.
#[test]
fn whatever_is_changed_on_the_way_ends_it() {
    let world = World::new(3, &[1, 2, 3], 3, 5);
    let base = world.dealt();
    for (to, dealer) in [(1, 1), (2, 3), (3, 2)] {
        let whole = postcard::to_stdvec(&base[&to][&dealer]).unwrap();
        for at in 0..whole.len() {
            let mut spoiled = whole.clone();
            spoiled[at] ^= 1 << (at % 8);
            let mut dealt = world.dealt();
            let to_one = dealt.get_mut(&to).unwrap();
            match postcard::take_from_bytes::<Dealt>(&spoiled) {
                Ok((of, [])) => drop(to_one.insert(dealer, of)),
                _ => drop(to_one.remove(&dealer)),
            }
            for (me, outcome) in world.received(&dealt, |_, _| ()) {
                let fault = outcome.err().unwrap();
                let expected = match fault {
                    Fault::Dealer(named) => me == to && named == dealer,
                    Fault::Dealers(one, two) => me == to && [one, two].contains(&dealer),
                    // The others hear nothing from it.
                    fault => me != to && fault == Fault::Holder(to),
                };
                assert!(expected, "byte {at}: {fault:?} at {me}");
            }
        }
    }
    let length = postcard::to_stdvec(&world.session.combine(1, &base[&1]).unwrap().1)
        .unwrap()
        .len();
    for at in 0..length {
        let outcomes = world.received(&base, |me, said| {
            let Some(from_two) = said.get(&2).filter(|_| me == 1) else {
                return;
            };
            let mut bytes = postcard::to_stdvec(from_two).unwrap();
            bytes[at] ^= 1 << (at % 8);
            match postcard::take_from_bytes(&bytes) {
                Ok((pieces, [])) => drop(said.insert(2, pieces)),
                _ => drop(said.remove(&2)),
            }
        });
        assert!(outcomes[&1].is_err(), "byte {at}");
    }
}

/// What holder `dealer` has for everybody, of another piece than it holds.
fn lie(world: &World, dealer: u8, dealt: &mut BTreeMap<u8, BTreeMap<u8, Dealt>>) {
    for to in dealt.values_mut() {
        let parts = &mut to.get_mut(&dealer).unwrap().parts;
        let number = if dealer == 1 { 2 } else { 1 };
        for new in world.session.committee().numbers() {
            if let Some(part) = parts.get_mut(&(number, new)) {
                part.value[0] ^= new;
            }
        }
    }
}

#[test]
fn of_three_that_deal_a_piece_the_liar_is_named_and_of_two_both() {
    let world = World::new(4, &[1, 2, 3, 4], 3, 6);
    let mut dealt = world.dealt();
    lie(&world, 4, &mut dealt);
    assert_eq!(
        faults(world.received(&dealt, |_, _| ())),
        [Some(Fault::Dealer(4)); 3]
    );
    let world = World::new(4, &[1, 2, 4], 3, 6);
    let mut dealt = world.dealt();
    lie(&world, 4, &mut dealt);
    assert_eq!(
        faults(world.received(&dealt, |_, _| ())),
        [Some(Fault::Dealers(2, 4)); 3]
    );
}

/// Who alone deals a piece can make it another key, and all new holders agree: the check value tells.
#[test]
fn what_one_holder_alone_deals_is_its_word_until_it_is_checked() {
    let world = World::new(3, &[1, 2], 3, 7);
    let mut dealt = world.dealt();
    for to in dealt.values_mut() {
        for ((number, new), part) in &mut to.get_mut(&2).unwrap().parts {
            part.value[0] ^= u8::from((*number, *new) == (1, 1));
        }
    }
    let outcomes = faults(world.received(&dealt, |_, _| ()));
    assert_eq!(outcomes, [Some(Fault::Check); 3]);
    // A node that has taken the number of the one that is gone deals, too: nothing is one's word any more.
    let wanted = world.session.live.wanted(3);
    let mut gathered = Gathered::default();
    for from in [1, 2] {
        gathered
            .add(&Portion::of(&world.held[&from], 3), &wanted)
            .unwrap();
    }
    let mut whole = World::new(3, &[1, 2, 3], 3, 7);
    whole.held.insert(3, gathered.held(&wanted).unwrap());
    let mut dealt = whole.dealt();
    for to in dealt.values_mut() {
        for ((number, new), part) in &mut to.get_mut(&2).unwrap().parts {
            part.value[0] ^= u8::from((*number, *new) == (1, 1));
        }
    }
    let outcomes = faults(whole.received(&dealt, |_, _| ()));
    // Holder 1 lacks the spoiled part; it hears nothing from the others.
    assert_eq!(
        outcomes,
        [
            Some(Fault::Holder(2)),
            Some(Fault::Dealers(2, 3)),
            Some(Fault::Dealers(2, 3))
        ]
    );
}

#[test]
fn a_dealer_that_tells_two_holders_different_things_is_found() {
    let world = World::new(3, &[1, 2], 4, 8);
    let mut dealt = world.dealt();
    let to_three = dealt.get_mut(&3).unwrap().get_mut(&2).unwrap();
    to_three.parts.get_mut(&(1, 2)).unwrap().value[0] ^= 1;
    let outcomes = faults(world.received(&dealt, |_, _| ()));
    // Of the second piece holders 1, 3 and 4 tell.
    assert_eq!(outcomes, [Some(Fault::Between(1, 3)); 4]);
}

#[test]
fn of_four_new_holders_one_may_be_away_and_has_its_part_from_the_others() {
    for away in 1..=4 {
        let mut world = World::new(3, &[1, 2, 3], 4, 9);
        world.session.away = Some(away);
        let resharing = world.honest();
        assert!(!resharing.contains_key(&away));
        let live = world.after(&resharing.values().next().unwrap().0);
        let mut gathered = Gathered::default();
        let wanted = live.wanted(away);
        for (_, held) in resharing.values().take(2) {
            gathered.add(&Portion::of(held, away), &wanted).unwrap();
        }
        live.verify(&gathered.held(&wanted).unwrap(), away).unwrap();
    }
}

/// Who holds nothing sees the same sharing as the holders do, and sees when they do not agree.
#[test]
fn a_witness_sees_what_the_new_holders_agree_on() {
    for to in HOLDERS {
        let world = World::new(3, &[1, 2], to, 11);
        let dealt = world.dealt();
        let combined = dealt.iter().map(|(me, of)| (*me, world.session.combine(*me, of)));
        let mut said: BTreeMap<u8, Pieces> = combined.map(|(me, of)| (me, of.unwrap().1)).collect();
        assert_eq!(world.session.witness(&said).unwrap(), world.honest()[&1].0);
        said.get_mut(&2).unwrap().of.get_mut(&(0, 1)).unwrap()[0] ^= 1;
        assert_eq!(world.session.witness(&said), Err(Fault::Between(2, 3)));
        said.remove(&2);
        assert_eq!(world.session.witness(&said), Err(Fault::Holder(2)));
        let mut alone = world.session.clone();
        alone.dealers = BTreeSet::from([1]);
        assert_eq!(alone.witness(&said), Err(SharingError::Holders.into()));
    }
}

#[test]
fn a_session_that_cannot_be_is_not_dealt_and_not_taken() {
    type Edit = fn(&mut Session);
    let edits: [(Edit, SharingError); 9] = [
        (
            |session| session.dealers = BTreeSet::from([1]),
            SharingError::Holders,
        ),
        (
            |session| session.dealers = BTreeSet::from([1, 4]),
            SharingError::Holders,
        ),
        (
            |session| session.dealers = BTreeSet::from([0, 1]),
            SharingError::Holders,
        ),
        (
            |session| session.live.commitments.truncate(2),
            SharingError::Holders,
        ),
        (|session| session.holders.truncate(2), SharingError::Holders),
        (|session| session.holders.extend([20, 21]), SharingError::Holders),
        (|session| session.holders[2] = 11, SharingError::Holders),
        (|session| session.away = Some(3), SharingError::Holders),
        (|session| session.live.epoch = u64::MAX, SharingError::Epoch),
    ];
    for (at, (edit, expected)) in edits.into_iter().enumerate() {
        let mut world = World::new(3, &[1, 2, 3], 3, 10);
        let dealt = world.dealt();
        edit(&mut world.session);
        let expected = Some(Fault::Session(expected));
        assert_eq!(
            world.session.deal(1, &world.held[&1]).err(),
            expected,
            "edit {at}"
        );
        assert_eq!(world.session.combine(1, &dealt[&1]).err(), expected, "edit {at}");
    }
    let world = World::new(3, &[1, 2], 3, 10);
    let deal = |me: u8, held: u8| world.session.deal(me, &world.held[&held]).err();
    assert_eq!(deal(3, 3), Some(SharingError::Holders.into()), "no dealer");
    assert_eq!(deal(1, 2), Some(SharingError::Pieces.into()));
    let combine = |me: u8| world.session.combine(me, &world.dealt()[&1]).err();
    assert_eq!(combine(4), Some(SharingError::Holders.into()));
    let later = Session {
        live: Live {
            epoch: 7,
            ..world.session.live.clone()
        },
        ..world.session.clone()
    };
    assert_eq!(
        later.deal(1, &world.held[&1]).err(),
        Some(SharingError::Commitment.into())
    );
    let whole = World::new(3, &[1, 2, 3], 3, 10);
    let strange = world.session.combine(1, &whole.dealt()[&1]).err();
    assert_eq!(strange, Some(Fault::Dealer(3)));
}
