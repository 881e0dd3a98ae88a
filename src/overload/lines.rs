//! Who is next for the crypto pool. A line for each keystore in each class; among classes in their order, among the
//! keystores of a class in turn, within a line first come, first served.
//!
//! A class that is passed over earns a sixteenth of the time that the classes above it take, so that it is slowed down
//! and never stopped. What has waited for too long, or beyond its own deadline, is given back unbegun.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::{Class, Overloaded, Turn};
use crate::identifier::LocalId;

/// Between two looks at what has waited for too long.
const SWEEP: Duration = Duration::from_millis(50);
/// A class that waits earns one part in so many of the time that classes above it take.
const EARNED: u32 = 16;
/// What it can have earned at most.
const SAVED: Duration = Duration::from_millis(20);
/// A wait of this length of anything but background work says that the node has more to do than it can.
const LAG: Duration = Duration::from_millis(50);
/// It has been too much until it has not been for this long.
const CALM: Duration = Duration::from_secs(1);

/// What waits. Its caller says how much time passes.
pub struct Lines<J> {
    capacity: usize,
    patience: Duration,
    waiting: usize,
    /// By [`Class::index`].
    classes: [OfClass<J>; Class::ALL.len()],
    next_sweep: Option<Instant>,
    loaded_until: Option<Instant>,
}

struct OfClass<J> {
    waiting: usize,
    /// Keystores with something in their line, in the order of their turns.
    turns: VecDeque<LocalId>,
    lines: HashMap<LocalId, VecDeque<Waiting<J>>>,
    earned: Duration,
    /// Taken beyond what was earned: a job may be longer.
    owed: Duration,
}

struct Waiting<J> {
    since: Instant,
    until: Instant,
    /// Whether `until` is its client's deadline and not the end of our patience.
    is_deadline: bool,
    job: J,
}

/// What comes of a look at the lines.
pub struct Taken<J> {
    /// Given back unbegun, each with why.
    pub late: Vec<(J, Class, Overloaded)>,
    /// To begin now.
    pub next: Option<Next<J>>,
}

/// A job to begin; [`Lines::took`] wants to hear how long it took.
pub struct Next<J> {
    /// The job.
    pub job: J,
    /// Its class.
    pub class: Class,
    /// Whether it was taken before something of a class above it, by what its class had earned.
    passed: bool,
}

impl<J> Next<J> {
    /// What [`Lines::took`] has to know.
    pub fn ticket(&self) -> (Class, bool) {
        (self.class, self.passed)
    }
}

impl<J> Lines<J> {
    /// Room for `capacity` jobs, of which a class finds only its part ([`Class::part_of`]), each for `patience` at most.
    pub fn new(capacity: usize, patience: Duration) -> Self {
        let empty = || OfClass {
            waiting: 0,
            turns: VecDeque::new(),
            lines: HashMap::new(),
            earned: Duration::ZERO,
            owed: Duration::ZERO,
        };
        Self {
            capacity,
            patience,
            waiting: 0,
            classes: std::array::from_fn(|_| empty()),
            next_sweep: None,
            loaded_until: None,
        }
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// The same of one class.
    pub fn waiting_of(&self, class: Class) -> usize {
        self.classes[class.index()].waiting
    }

    /// Whether there is room for one more of this turn: a keystore's line may be as long as what is still free.
    ///
    /// # Errors
    /// [`Overloaded::Full`], or [`Overloaded::Share`] if others would find room.
    pub fn has_room(&self, turn: &Turn) -> Result<(), Overloaded> {
        let free = turn.class.part_of(self.capacity).saturating_sub(self.waiting);
        let line = self.classes[turn.class.index()].lines.get(&turn.keystore);
        match line.map_or(0, VecDeque::len) {
            _ if free == 0 => Err(Overloaded::Full),
            length if length >= free => Err(Overloaded::Share),
            _ => Ok(()),
        }
    }

    /// Puts a job into its line; it comes back when there is no room.
    ///
    /// # Errors
    /// As [`Lines::has_room`].
    pub fn put(&mut self, turn: &Turn, job: J, now: Instant) -> Result<(), (J, Overloaded)> {
        if let Err(why) = self.has_room(turn) {
            self.strain(turn.class, now);
            return Err((job, why));
        }
        let patience = now + self.patience;
        let until = turn.deadline.map_or(patience, |deadline| deadline.min(patience));
        let class = &mut self.classes[turn.class.index()];
        let line = class.lines.entry(turn.keystore).or_default();
        if line.is_empty() {
            class.turns.push_back(turn.keystore);
        }
        line.push_back(Waiting {
            since: now,
            until,
            is_deadline: until < patience,
            job,
        });
        class.waiting += 1;
        self.waiting += 1;
        Ok(())
    }

    /// What is next, and what is given back.
    pub fn take(&mut self, now: Instant) -> Taken<J> {
        let mut taken = Taken {
            late: Vec::new(),
            next: None,
        };
        if self.waiting > 0 && self.next_sweep.is_none_or(|at| at <= now) {
            self.next_sweep = Some(now + SWEEP);
            for class in Class::ALL {
                self.sweep(class, now, &mut taken.late);
            }
        }
        while let Some((class, passed)) = self.choose() {
            let Some(waited) = self.first(class) else { break };
            if now.saturating_duration_since(waited.since) > LAG {
                self.strain(class, now);
            }
            match waited.late(now) {
                Ok(job) => {
                    taken.next = Some(Next { job, class, passed });
                    break;
                }
                Err((job, why)) => taken.late.push((job, class, why)),
            }
        }
        taken
    }

    /// A job that was taken has ended, after so long.
    pub fn took(&mut self, (class, passed): (Class, bool), time: Duration) {
        let own = &mut self.classes[class.index()];
        if passed {
            own.owed += time.saturating_sub(own.earned);
            own.earned = own.earned.saturating_sub(time);
        }
        for below in &mut self.classes[..class.index()] {
            if below.waiting > 0 {
                let earned = time / EARNED;
                let paid = earned.min(below.owed);
                below.owed -= paid;
                below.earned = (below.earned + earned - paid).min(SAVED);
            }
        }
    }

    /// Whether there is, or has just been, more to do than can be done at once: background work waits meanwhile.
    pub fn is_loaded(&self, now: Instant) -> bool {
        self.loaded_until.is_some_and(|until| now < until)
    }

    fn strain(&mut self, class: Class, now: Instant) {
        if class > Class::Bulk {
            self.loaded_until = Some(now + CALM);
        }
    }

    /// The class whose turn it is: the first in order, unless one below has earned a turn.
    fn choose(&self) -> Option<(Class, bool)> {
        let waits = |class: &Class| self.classes[class.index()].waiting > 0;
        let first = Class::ALL.into_iter().rev().find(waits)?;
        let earned = |class: &Class| waits(class) && !self.classes[class.index()].earned.is_zero();
        let passing = Class::ALL[..first.index()]
            .iter()
            .rev()
            .find(|class| earned(class));
        Some(passing.map_or((first, false), |class| (*class, true)))
    }

    /// Takes the first of the keystore whose turn it is.
    fn first(&mut self, class: Class) -> Option<Waiting<J>> {
        let of = &mut self.classes[class.index()];
        let keystore = of.turns.pop_front()?;
        let line = of.lines.get_mut(&keystore)?;
        let first = line.pop_front();
        if line.is_empty() {
            of.lines.remove(&keystore);
        } else {
            of.turns.push_back(keystore);
        }
        let taken = usize::from(first.is_some());
        of.waiting -= taken;
        self.waiting -= taken;
        self.settle(class);
        first
    }

    /// Gives back what has waited for too long in a class.
    fn sweep(&mut self, class: Class, now: Instant, late: &mut Vec<(J, Class, Overloaded)>) {
        let of = &mut self.classes[class.index()];
        let before = late.len();
        for line in of.lines.values_mut() {
            let is_late = |waiting: &Waiting<J>| waiting.until <= now;
            if !line.iter().any(is_late) {
                continue;
            }
            let (gone, kept): (VecDeque<_>, VecDeque<_>) =
                std::mem::take(line).into_iter().partition(is_late);
            *line = kept;
            late.extend(gone.into_iter().map(|waiting| {
                let why = waiting.why();
                (waiting.job, class, why)
            }));
        }
        of.lines.retain(|_, line| !line.is_empty());
        let lines = &of.lines;
        of.turns.retain(|keystore| lines.contains_key(keystore));
        let gone = late.len() - before;
        of.waiting -= gone;
        self.waiting -= gone;
        if gone > 0 {
            self.strain(class, now);
        }
        self.settle(class);
    }

    /// Nothing is kept of a class that has nothing to do, neither what it has earned nor room for a crowd.
    fn settle(&mut self, class: Class) {
        let of = &mut self.classes[class.index()];
        if of.waiting > 0 {
            return;
        }
        of.earned = Duration::ZERO;
        if of.lines.capacity() > 64 {
            of.lines = HashMap::new();
            of.turns = VecDeque::new();
        }
    }
}

impl<J> Waiting<J> {
    fn why(&self) -> Overloaded {
        match self.is_deadline {
            true => Overloaded::Gone,
            false => Overloaded::Waited,
        }
    }

    fn late(self, now: Instant) -> Result<J, (J, Overloaded)> {
        match self.until <= now {
            false => Ok(self.job),
            true => {
                let why = self.why();
                Err((self.job, why))
            }
        }
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
