//! What a garbler has garbled before, by evaluator: nothing is garbled twice.
//!
//! An evaluator numbers its garblings, each attempt anew, from 1 in each of its lives. A garbler keeps the highest number and
//! which of the 4,096 below it are burned: requests arrive out of order. It lives in memory only: after the garbler's own
//! restart the pair's secret is another one, and so is every seed.

use std::collections::HashMap;

/// Numbers below the highest that are still told apart; older ones count as burned.
const WINDOW: u64 = 4_096;
const WORDS: usize = WINDOW as usize / 64;

/// Why a number is not garbled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was burned before, or is too old to tell.
    #[error("this garbling was asked for before")]
    Burned,
    /// No session with this life of the evaluator has been opened.
    #[error("the evaluator's session is not known")]
    Session,
}

/// The memory.
#[derive(Default)]
pub struct Burned {
    windows: HashMap<u64, Window>,
}

struct Window {
    boot: [u8; 16],
    highest: u64,
    /// Bit n % 4,096 of each number that is not too old.
    seen: Box<[u64; WORDS]>,
}

impl Burned {
    /// A session with a life of this evaluator has been opened; what ran in its earlier life has been dropped. The same
    /// life again, after a link was cut, goes on where it was.
    pub fn open(&mut self, evaluator: u64, boot: [u8; 16]) {
        let known = self
            .windows
            .get(&evaluator)
            .is_some_and(|window| window.boot == boot);
        if !known {
            let window = Window {
                boot,
                highest: 0,
                seen: Box::new([0; WORDS]),
            };
            self.windows.insert(evaluator, window);
        }
    }

    /// Burns a number: from now on it is refused, whatever becomes of the garbling.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn burn(&mut self, evaluator: u64, boot: [u8; 16], number: u64) -> Result<(), Refusal> {
        let window = self
            .windows
            .get_mut(&evaluator)
            .filter(|window| window.boot == boot);
        window.ok_or(Refusal::Session)?.burn(number)
    }
}

impl Window {
    fn burn(&mut self, number: u64) -> Result<(), Refusal> {
        if number == 0 || number.saturating_add(WINDOW) <= self.highest {
            return Err(Refusal::Burned);
        }
        // What lies between the old highest and this one has not been seen.
        let passed = number.saturating_sub(self.highest).min(WINDOW);
        for new in (0..passed).map(|back| number - back) {
            let (word, bit) = place(new);
            self.seen[word] &= !bit;
        }
        self.highest = self.highest.max(number);
        let (word, bit) = place(number);
        if self.seen[word] & bit != 0 {
            return Err(Refusal::Burned);
        }
        self.seen[word] |= bit;
        Ok(())
    }
}

fn place(number: u64) -> (usize, u64) {
    let at = number % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn lives_do_not_mix() {
        let mut burned = Burned::default();
        assert_eq!(burned.burn(1, [1; 16], 1), Err(Refusal::Session));
        burned.open(1, [1; 16]);
        assert_eq!(burned.burn(1, [1; 16], 1), Ok(()));
        burned.open(1, [1; 16]);
        assert_eq!(burned.burn(1, [1; 16], 1), Err(Refusal::Burned));
        burned.open(1, [2; 16]);
        assert_eq!(burned.burn(1, [2; 16], 1), Ok(()));
        assert_eq!(burned.burn(1, [1; 16], 2), Err(Refusal::Session));
    }

    proptest! {
        #[test]
        fn nothing_is_burned_twice_and_what_is_new_and_near_is_not_refused(
            numbers in prop::collection::vec(prop_oneof![1..20_000_u64, 1..5_000_u64], 1..400)
        ) {
            let mut burned = Burned::default();
            burned.open(1, [1; 16]);
            let (mut seen, mut highest) = (HashSet::new(), 0);
            for number in numbers {
                let result = burned.burn(1, [1; 16], number);
                let near = number + WINDOW > highest;
                prop_assert_eq!(result.is_ok(), near && seen.insert(number));
                highest = highest.max(number);
            }
        }
    }
}
