//! What a garbler has garbled before, by evaluator: nothing is garbled twice.
//!
//! An evaluator numbers its garblings, each attempt anew, from 1 in each of its lives. A garbler keeps the highest number and
//! which of the 4,096 below it are burned: requests arrive out of order. It lives in memory only: after the garbler's own
//! restart the pair's secret is another one, and so is every seed.

use std::collections::{HashMap, HashSet};

/// Numbers below the highest that are still told apart; older ones count as burned.
const WINDOW: u64 = 4_096;
/// Lives of one evaluator that are remembered.
const LIVES: usize = 4_096;
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
    /// Lives that ended, by evaluator: none comes back.
    ended: HashMap<u64, HashSet<[u8; 16]>>,
}

/// One garbling, burned: what a garbler begins with, and only once.
pub struct Ticket {
    pub(crate) evaluator: u64,
    pub(crate) boot: [u8; 16],
    pub(crate) number: u64,
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
    ///
    /// # Errors
    /// [`Refusal::Session`]: a life that ended before, or too many of them for one life of ours.
    pub fn open(&mut self, evaluator: u64, boot: [u8; 16]) -> Result<(), Refusal> {
        let ended = self.ended.entry(evaluator).or_default();
        if ended.contains(&boot) {
            return Err(Refusal::Session);
        }
        match self.windows.get(&evaluator) {
            Some(window) if window.boot == boot => return Ok(()),
            Some(window) if ended.len() < LIVES => drop(ended.insert(window.boot)),
            Some(_) => return Err(Refusal::Session),
            None => {}
        }
        let window = Window {
            boot,
            highest: 0,
            seen: Box::new([0; WORDS]),
        };
        self.windows.insert(evaluator, window);
        Ok(())
    }

    /// Burns a number: from now on it is refused, whatever becomes of the garbling.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn burn(&mut self, evaluator: u64, boot: [u8; 16], number: u64) -> Result<Ticket, Refusal> {
        let window = self.windows.get_mut(&evaluator);
        let window = window.filter(|window| window.boot == boot);
        window.ok_or(Refusal::Session)?.burn(number)?;
        Ok(Ticket {
            evaluator,
            boot,
            number,
        })
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

    #[test]
    fn lives_do_not_mix_and_do_not_come_back() {
        let (one, two) = ([1; 16], [2; 16]);
        let mut burned = Burned::default();
        assert_eq!(burned.burn(1, one, 1).err(), Some(Refusal::Session));
        burned.open(1, one).unwrap();
        assert!(burned.burn(1, one, 1).is_ok());
        burned.open(1, one).unwrap();
        assert_eq!(burned.burn(1, one, 1).err(), Some(Refusal::Burned));
        burned.open(1, two).unwrap();
        assert!(burned.burn(1, two, 1).is_ok());
        assert_eq!(burned.burn(1, one, 2).err(), Some(Refusal::Session));
        assert_eq!(burned.open(1, one), Err(Refusal::Session));
        assert_eq!(burned.burn(1, one, 1).err(), Some(Refusal::Session));
    }

    proptest! {
        #[test]
        fn nothing_is_burned_twice_and_what_is_new_and_near_is_not_refused(
            numbers in prop::collection::vec(prop_oneof![1..20_000_u64, 1..5_000_u64], 1..400)
        ) {
            let mut burned = Burned::default();
            burned.open(1, [1; 16]).unwrap();
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
