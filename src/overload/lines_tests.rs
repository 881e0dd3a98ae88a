//! The order of the crypto pool, on a clock of the test's own.

use proptest::prelude::*;

use super::*;

const PATIENCE: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn of(class: Class, keystore: u8) -> Turn {
    Turn::default()
        .of_class(class)
        .of_keystore(LocalId([keystore; 16]))
}

/// Jobs are (class, keystore, number).
type Job = (Class, u8, u32);

struct World {
    lines: Lines<Job>,
    now: Instant,
    number: u32,
}

impl World {
    fn new(capacity: usize) -> Self {
        Self {
            lines: Lines::new(capacity, PATIENCE),
            now: Instant::now(),
            number: 0,
        }
    }

    fn put(&mut self, class: Class, keystore: u8) -> Result<(), Overloaded> {
        self.number += 1;
        let job = (class, keystore, self.number);
        let put = self.lines.put(&of(class, keystore), job, self.now);
        put.map_err(|(_, why)| why)
    }

    fn fill(&mut self, class: Class, keystore: u8) -> (usize, Overloaded) {
        let mut count = 0;
        loop {
            match self.put(class, keystore) {
                Ok(()) => count += 1,
                Err(why) => return (count, why),
            }
        }
    }

    /// Does the next job, which takes `time`.
    fn next(&mut self, time: Duration) -> Option<Job> {
        let taken = self.lines.take(self.now);
        assert!(taken.late.is_empty(), "nothing is late here");
        let next = taken.next?;
        let ticket = next.ticket();
        self.now += time;
        self.lines.took(ticket, time);
        Some(next.job)
    }
}

#[test]
fn a_keystore_with_ten_thousand_requests_delays_another_by_one_turn() {
    let mut world = World::new(40_000);
    for _ in 0..10_000 {
        world.put(Class::Signatures, 1).unwrap();
    }
    for keystore in [2, 3] {
        world.put(Class::Signatures, keystore).unwrap();
    }
    let order: Vec<u8> = (0..6)
        .map(|_| world.next(Duration::from_micros(10)).unwrap().1)
        .collect();
    assert_eq!(order, [1, 2, 3, 1, 1, 1]);
}

#[test]
fn a_line_is_first_come_first_served() {
    let mut world = World::new(100);
    for _ in 0..3 {
        world.put(Class::Changes, 1).unwrap();
    }
    let numbers: Vec<u32> = (0..3).map(|_| world.next(MS).unwrap().2).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(world.next(MS).is_none());
}

#[test]
fn classes_come_in_their_order() {
    let mut world = World::new(100);
    for class in Class::ALL {
        world.put(class, 1).unwrap();
    }
    // Too short for anybody to earn a turn that is worth it: what is earned is used at once, and paid back.
    let order: Vec<Class> = (0..4).map(|_| world.next(Duration::ZERO).unwrap().0).collect();
    let mut expected = Class::ALL;
    expected.reverse();
    assert_eq!(order, expected);
}

#[test]
fn a_class_that_is_passed_over_gets_its_sixteenth_however_long_its_jobs_are() {
    for (class, each) in [(Class::Bulk, 30), (Class::Symmetric, 1)] {
        let mut world = World::new(64);
        let (mut below, mut all) = (Duration::ZERO, Duration::ZERO);
        let mut waited = Duration::ZERO;
        while all < Duration::from_secs(60) {
            // Both always have something that waits, and nothing waits for long.
            if world.lines.waiting_of(class) == 0 {
                world.put(class, 1).unwrap();
            }
            if world.lines.waiting_of(Class::Signatures) == 0 {
                world.put(Class::Signatures, 2).unwrap();
            }
            let time = match world.lines.choose() {
                Some((next, _)) if next == class => Duration::from_millis(each),
                _ => MS,
            };
            let taken = world.lines.take(world.now);
            world.now += time;
            all += time;
            for (_, late, _) in &taken.late {
                assert_eq!(*late, class, "what matters more is not late");
            }
            let Some(next) = taken.next else { continue };
            world.lines.took(next.ticket(), time);
            if next.class == class {
                below += time;
                waited = Duration::ZERO;
            } else {
                waited += time;
            }
            assert!(waited < Duration::from_secs(1), "{class:?} is stopped");
        }
        let share = below.as_secs_f64() / all.as_secs_f64();
        assert!((0.04..0.07).contains(&share), "{class:?} got {share}");
    }
}

#[test]
fn a_full_queue_refuses_the_least_first_and_takes_changes_last() {
    let mut world = World::new(400);
    for (class, all) in Class::ALL.into_iter().zip([100, 200, 300, 400]) {
        for keystore in 0..=u8::MAX {
            world.fill(class, keystore);
        }
        assert_eq!(world.lines.waiting(), all, "{class:?}");
        assert_eq!(world.put(class, 0), Err(Overloaded::Full));
        for better in Class::ALL.into_iter().filter(|better| *better > class) {
            assert_eq!(
                world.lines.has_room(&of(better, 0)),
                Ok(()),
                "{better:?} above {class:?}"
            );
        }
    }
}

#[test]
fn one_keystore_leaves_room_for_others() {
    let mut world = World::new(400);
    assert_eq!(world.fill(Class::Changes, 1), (200, Overloaded::Share));
    assert_eq!(world.fill(Class::Changes, 2), (100, Overloaded::Share));
    assert_eq!(world.put(Class::Changes, 3), Ok(()));
}

#[test]
fn what_has_waited_for_a_second_is_given_back_also_where_nothing_is_taken_of_its_class() {
    let mut world = World::new(1_000);
    world.put(Class::Bulk, 1).unwrap();
    world.put(Class::Symmetric, 1).unwrap();
    world.now += PATIENCE - MS;
    world.put(Class::Changes, 1).unwrap();
    world.put(Class::Changes, 2).unwrap();
    let taken = world.lines.take(world.now);
    assert!(taken.late.is_empty());
    assert!(matches!(
        taken.next,
        Some(Next {
            class: Class::Changes,
            ..
        })
    ));
    world.now += SWEEP;
    let taken = world.lines.take(world.now);
    let late: Vec<_> = taken
        .late
        .iter()
        .map(|(job, class, why)| (job.2, *class, *why))
        .collect();
    let waited = Overloaded::Waited;
    assert_eq!(late, [(1, Class::Bulk, waited), (2, Class::Symmetric, waited)]);
    assert!(matches!(
        taken.next,
        Some(Next {
            class: Class::Changes,
            ..
        })
    ));
    assert_eq!(world.lines.waiting(), 0);
}

#[test]
fn nothing_is_begun_after_its_own_deadline() {
    let mut world = World::new(1_000);
    let turn = of(Class::Signatures, 1).until(world.now + 10 * MS);
    world
        .lines
        .put(&turn, (Class::Signatures, 1, 7), world.now)
        .unwrap();
    world.put(Class::Signatures, 1).unwrap();
    // Between two sweeps, so that it is found when its turn comes.
    world.lines.next_sweep = Some(world.now + SWEEP);
    world.now += 10 * MS;
    let taken = world.lines.take(world.now);
    assert_eq!(
        taken.late,
        [((Class::Signatures, 1, 7), Class::Signatures, Overloaded::Gone)]
    );
    assert_eq!(taken.next.unwrap().job.2, 1);
}

#[test]
fn a_node_is_loaded_while_something_waits_or_is_refused_and_calm_a_second_later() {
    let mut world = World::new(4);
    world.put(Class::Bulk, 1).unwrap();
    world.now += 2 * LAG;
    assert!(world.lines.take(world.now).next.is_some());
    assert!(!world.lines.is_loaded(world.now), "background work says nothing");
    world.put(Class::Signatures, 1).unwrap();
    world.now += 2 * LAG;
    assert!(world.lines.take(world.now).next.is_some());
    assert!(world.lines.is_loaded(world.now));
    world.now += CALM;
    assert!(!world.lines.is_loaded(world.now));
    world.fill(Class::Signatures, 1);
    assert!(world.lines.is_loaded(world.now));
}

proptest! {
    /// Nothing is lost, nothing comes twice, nothing is begun late, and at the end nothing is kept.
    #[test]
    fn every_job_is_begun_or_given_back_once(
        steps in proptest::collection::vec((0..4_usize, 0..5_u8, 0..3_u8, 0..120_u64), 0..300),
    ) {
        let mut world = World::new(40);
        let mut since: HashMap<u32, Instant> = HashMap::new();
        for (class, keystore, what, time) in steps {
            if what > 0 {
                if world.put(Class::ALL[class], keystore).is_ok() {
                    since.insert(world.number, world.now);
                }
                prop_assert!(world.lines.waiting() <= 40);
                continue;
            }
            let time = Duration::from_millis(time);
            let taken = world.lines.take(world.now);
            for (job, _, why) in taken.late {
                prop_assert_eq!(why, Overloaded::Waited);
                let began = since.remove(&job.2);
                prop_assert!(began.is_some_and(|since| world.now - since >= PATIENCE));
            }
            if let Some(next) = taken.next {
                let began = since.remove(&next.job.2);
                prop_assert!(began.is_some_and(|since| world.now - since < PATIENCE));
                world.lines.took(next.ticket(), time);
            }
            world.now += time;
        }
        prop_assert_eq!(world.lines.waiting(), since.len());
        world.now += PATIENCE;
        let late = world.lines.take(world.now + SWEEP).late;
        prop_assert_eq!(late.len(), since.len());
        for class in &world.lines.classes {
            prop_assert!(class.lines.is_empty() && class.turns.is_empty() && class.waiting == 0);
        }
    }
}
