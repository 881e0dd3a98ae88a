//! Whether a history of calls could have come from one object that does one thing after the other, each between its
//! invocation and its return (Herlihy and Wing 1990). The search is Wing and Gong's, with Lowe's memory of
//! configurations that were tried ("Testing for linearizability", 2017).
//!
//! An object that is many independent ones is checked one by one: the caller partitions its history. Nothing here
//! knows what the object is; that is the [`Model`].

use std::collections::HashSet;
use std::hash::Hash;

/// What an object does when it does one thing after the other.
pub trait Model {
    /// What it remembers.
    type State: Clone + Eq + Hash;
    /// What it is asked.
    type Call;
    /// What it answers.
    type Answer;

    /// Before the first call.
    fn initial(&self) -> Self::State;

    /// The state after `call` in `state`, or none if the object would not have answered so. An unknown answer (`None`)
    /// stands for a call that took effect: one that changes nothing need not be allowed then.
    fn step(
        &self,
        state: &Self::State,
        call: &Self::Call,
        answer: Option<&Self::Answer>,
    ) -> Option<Self::State>;
}

/// One call of a history.
#[derive(Clone, Debug)]
pub struct Operation<C, A> {
    /// What was asked.
    pub call: C,
    /// When: any measure that orders the whole history. Equal moments overlap.
    pub invoked: u64,
    /// When the answer came, and what it was. Without one the call may take effect at any later time, or never.
    pub returned: Option<(u64, A)>,
}

/// The history is not that of such an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No order explains it.
    #[error("no order explains call {stuck}; the best one ends after {}", .longest.len())]
    NotLinearizable {
        /// Places in the history, in the longest order that was found.
        longest: Vec<usize>,
        /// The place of the call that has to come next and fits none.
        stuck: usize,
    },
    /// Too many configurations to remember: nothing is known.
    #[error("more than {0} configurations")]
    TooHard(usize),
}

/// Configurations that a search remembers at most: about 1 GB of small states.
const MAX_CONFIGURATIONS: usize = 4_000_000;

/// A set of places in the history.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Places(Vec<u64>);

impl Places {
    fn none_of(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn flip(&mut self, place: usize) {
        self.0[place / 64] ^= 1 << (place % 64);
    }
}

/// Invocations and returns by time, as a doubly linked list that calls are taken out of and put back into. Place 0 is
/// the list's head.
struct Events {
    /// The call, and whether this is its return.
    what: Vec<(usize, bool)>,
    next: Vec<usize>,
    before: Vec<usize>,
    /// Where the return of a call is, if it has one.
    returns: Vec<Option<usize>>,
}

const HEAD: usize = 0;

impl Events {
    fn of<C, A>(history: &[Operation<C, A>]) -> Self {
        let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * history.len());
        for (place, operation) in history.iter().enumerate() {
            moments.push((operation.invoked, false, place));
            if let Some((at, _)) = operation.returned {
                moments.push((at.max(operation.invoked), true, place));
            }
        }
        moments.sort_unstable();
        let count = moments.len() + 1;
        let mut events = Self {
            what: vec![(usize::MAX, true)],
            next: (1..=count).map(|at| at % count).collect(),
            before: (0..count).map(|at| (at + count - 1) % count).collect(),
            returns: vec![None; history.len()],
        };
        for (at, (_, is_return, place)) in moments.into_iter().enumerate() {
            events.what.push((place, is_return));
            if is_return {
                events.returns[place] = Some(at + 1);
            }
        }
        events
    }

    fn unlink(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        self.next[before] = next;
        self.before[next] = before;
    }

    fn link(&mut self, at: usize) {
        let (before, next) = (self.before[at], self.next[at]);
        self.next[before] = at;
        self.before[next] = at;
    }

    fn take(&mut self, at: usize) {
        self.unlink(at);
        if let Some(returns) = self.returns[self.what[at].0] {
            self.unlink(returns);
        }
    }

    fn put_back(&mut self, at: usize) {
        if let Some(returns) = self.returns[self.what[at].0] {
            self.link(returns);
        }
        self.link(at);
    }
}

/// An order of the history's calls, as places in it, that `model` explains. Calls without an answer may be missing.
///
/// # Errors
/// [`Refused`].
pub fn check<M: Model>(model: &M, history: &[Operation<M::Call, M::Answer>]) -> Result<Vec<usize>, Refused> {
    let mut events = Events::of(history);
    let mut left = history
        .iter()
        .filter(|operation| operation.returned.is_some())
        .count();
    let mut state = model.initial();
    let mut done = Places::none_of(history.len());
    let mut seen = HashSet::new();
    // Calls in the order so far, with the state before each.
    let mut order: Vec<(usize, M::State)> = Vec::new();
    let mut longest: Vec<usize> = Vec::new();
    let mut stuck = 0;
    let place_of = |events: &Events, at: usize| events.what[at].0;
    let mut at = events.next[HEAD];
    while left > 0 {
        let (place, is_return) = events.what[at];
        if !is_return {
            let Operation { call, returned, .. } = &history[place];
            let answer = returned.as_ref().map(|(_, answer)| answer);
            if let Some(after) = model.step(&state, call, answer) {
                done.flip(place);
                if seen.insert((done.clone(), after.clone())) {
                    if seen.len() > MAX_CONFIGURATIONS {
                        return Err(Refused::TooHard(MAX_CONFIGURATIONS));
                    }
                    order.push((at, std::mem::replace(&mut state, after)));
                    left -= usize::from(answer.is_some());
                    events.take(at);
                    at = events.next[HEAD];
                    continue;
                }
                done.flip(place);
            }
            at = events.next[at];
            continue;
        }
        // A call that returned here is not in the order yet: the last choice was wrong.
        if order.len() >= longest.len() {
            longest = order.iter().map(|(at, _)| place_of(&events, *at)).collect();
            stuck = place;
        }
        let Some((last, before)) = order.pop() else {
            return Err(Refused::NotLinearizable { longest, stuck });
        };
        let place = place_of(&events, last);
        done.flip(place);
        left += usize::from(history[place].returned.is_some());
        state = before;
        events.put_back(last);
        at = events.next[last];
    }
    Ok(order.iter().map(|(at, _)| place_of(&events, *at)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// A register that is set only by who knows what is in it.
    struct Register;

    #[derive(Clone, Debug)]
    enum Call {
        Read,
        /// From, to.
        Set(u64, u64),
    }

    #[derive(Clone, Debug, PartialEq)]
    enum Answer {
        Value(u64),
        Done,
        Refused,
    }

    impl Model for Register {
        type State = u64;
        type Call = Call;
        type Answer = Answer;

        fn initial(&self) -> u64 {
            0
        }

        fn step(&self, state: &u64, call: &Call, answer: Option<&Answer>) -> Option<u64> {
            match (call, answer) {
                (Call::Read, Some(Answer::Value(value))) => (value == state).then_some(*state),
                (Call::Set(from, to), Some(Answer::Done) | None) => (from == state).then_some(*to),
                (Call::Set(from, _), Some(Answer::Refused)) => (from != state).then_some(*state),
                _ => None,
            }
        }
    }

    type Step = Operation<Call, Answer>;

    fn read(value: u64, invoked: u64, returned: u64) -> Step {
        let returned = Some((returned, Answer::Value(value)));
        Operation {
            call: Call::Read,
            invoked,
            returned,
        }
    }

    fn set(from: u64, to: u64, invoked: u64, returned: Option<(u64, Answer)>) -> Step {
        Operation {
            call: Call::Set(from, to),
            invoked,
            returned,
        }
    }

    fn done(at: u64) -> Option<(u64, Answer)> {
        Some((at, Answer::Done))
    }

    fn refused(at: u64) -> Option<(u64, Answer)> {
        Some((at, Answer::Refused))
    }

    fn accepts(history: &[Step]) -> bool {
        match check(&Register, history) {
            Ok(_) => true,
            Err(Refused::NotLinearizable { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn known_histories_are_accepted() {
        assert!(accepts(&[]));
        assert!(accepts(&[set(0, 1, 0, done(1)), read(1, 2, 3)]));
        // A read that overlaps a write sees either.
        assert!(accepts(&[set(0, 1, 0, done(10)), read(0, 1, 2), read(1, 3, 4)]));
        // The order of returns is not the order of effects.
        assert!(accepts(&[
            set(1, 2, 0, done(3)),
            set(0, 1, 0, done(9)),
            read(2, 4, 5)
        ]));
        // Of two that set the same sequence one loses.
        assert!(accepts(&[set(0, 1, 0, done(5)), set(0, 2, 0, refused(5))]));
        // What nobody heard of may have happened, much later too, or not.
        assert!(accepts(&[set(0, 1, 0, None), read(0, 5, 6), read(1, 7, 8)]));
        assert!(accepts(&[set(0, 1, 0, None), read(0, 5, 6)]));
        // Equal moments overlap.
        assert!(accepts(&[set(0, 1, 0, done(1)), read(0, 1, 2)]));
    }

    #[test]
    fn known_histories_are_refused() {
        // A stale read.
        assert!(!accepts(&[set(0, 1, 0, done(1)), read(0, 2, 3)]));
        // Two readers see a write come and go.
        assert!(!accepts(&[set(0, 1, 0, done(10)), read(1, 1, 2), read(0, 3, 4)]));
        // Two winners of one sequence.
        assert!(!accepts(&[set(0, 1, 0, done(5)), set(0, 2, 0, done(5))]));
        // A lost write, acknowledged and refused at once.
        assert!(!accepts(&[set(0, 1, 0, refused(1))]));
        // Before it was asked for.
        assert!(!accepts(&[read(1, 0, 1), set(0, 1, 2, None)]));
        // What happened stays.
        assert!(!accepts(&[set(0, 1, 0, None), read(1, 5, 6), read(0, 7, 8)]));
    }

    #[test]
    fn a_refusal_names_the_call_that_does_not_fit() {
        let history = [set(0, 1, 0, done(1)), read(1, 2, 3), read(0, 4, 5)];
        let refused = check(&Register, &history).unwrap_err();
        let expected = Refused::NotLinearizable {
            longest: vec![0, 1],
            stuck: 2,
        };
        assert_eq!(refused, expected);
    }

    /// Whether some order explains it, by trying all of them.
    fn by_all_orders(history: &[Step], order: &mut Vec<usize>, state: u64) -> bool {
        let missing = |place: &usize| !order.contains(place);
        let open: Vec<usize> = (0..history.len()).filter(missing).collect();
        if open.iter().all(|place| history[*place].returned.is_none()) {
            return true;
        }
        let earliest_return = open
            .iter()
            .filter_map(|place| history[*place].returned.as_ref())
            .map(|(at, _)| *at);
        let earliest_return = earliest_return.min().unwrap();
        open.iter().any(|place| {
            let Operation {
                call,
                invoked,
                returned,
            } = &history[*place];
            let answer = returned.as_ref().map(|(_, answer)| answer);
            let after = Register.step(&state, call, answer);
            let Some(after) = after.filter(|_| *invoked <= earliest_return) else {
                return false;
            };
            order.push(*place);
            let explained = by_all_orders(history, order, after);
            order.pop();
            explained
        })
    }

    #[test]
    fn it_says_what_trying_all_orders_says() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let mut accepted = 0;
        for _ in 0..4_000 {
            let count = rng.gen_range(1..=6);
            let history: Vec<Step> = (0..count)
                .map(|_| {
                    let invoked = rng.gen_range(0..12);
                    let returned = invoked + rng.gen_range(1..6);
                    let value = rng.gen_range(0..3);
                    match rng.gen_range(0..4) {
                        0 => read(value, invoked, returned),
                        1 => set(value, value + 1, invoked, None),
                        2 => set(value, value + 1, invoked, done(returned)),
                        _ => set(value, value + 1, invoked, refused(returned)),
                    }
                })
                .collect();
            let all = by_all_orders(&history, &mut Vec::new(), 0);
            assert_eq!(accepts(&history), all, "{history:?}");
            accepted += u32::from(all);
        }
        assert!((500..3_500).contains(&accepted), "{accepted} accepted");
    }

    #[test]
    fn long_histories_of_a_real_register_are_accepted_and_one_stale_read_in_them_is_not() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for _ in 0..50 {
            let (mut history, mut value) = (Vec::new(), 0);
            for effect in (0..400).map(|number| 10 * number + 100) {
                let (invoked, returned) = (effect - rng.gen_range(1..60), effect + rng.gen_range(1..60));
                history.push(match rng.gen_range(0..3) {
                    0 => {
                        value += 1;
                        let known = rng.gen_bool(0.9).then_some((returned, Answer::Done));
                        set(value - 1, value, invoked, known)
                    }
                    1 => set(value + 7, value + 8, invoked, refused(returned)),
                    _ => read(value, invoked, returned),
                });
            }
            let last = 10 * 400 + 300;
            history.push(read(value, last, last + 1));
            history.shuffle(&mut rng);
            let mut stale = history.clone();
            stale.push(read(value - 1, last + 2, last + 3));
            assert!(accepts(&history));
            assert!(!accepts(&stale));
        }
    }
}
