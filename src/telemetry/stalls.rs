//! Groups whose move to other members stands still. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::status::MoveStatus;

/// Keys move one after the other, a few a second: one that has done nothing for this long is stuck.
const PATIENCE: Duration = Duration::from_secs(600);

/// How far each move is, and since when.
#[derive(Debug, Default)]
pub struct Stalls(HashMap<u32, ((String, Option<u64>), Instant)>);

impl Stalls {
    /// Takes in how far they are now.
    pub fn look(&mut self, moves: &[MoveStatus], now: Instant) {
        self.0
            .retain(|group, _| moves.iter().any(|one| one.group == *group));
        for one in moves {
            let stage = (one.stage.clone(), one.keys);
            let known = self.0.entry(one.group).or_insert_with(|| (stage.clone(), now));
            if known.0 != stage {
                *known = (stage, now);
            }
        }
    }

    /// The groups that have come no further for too long, ascending.
    pub fn stalled(&self, now: Instant) -> Vec<u32> {
        let stuck = |since: &Instant| now.saturating_duration_since(*since) >= PATIENCE;
        let mut stalled: Vec<u32> = (self.0.iter())
            .filter(|(_, (_, since))| stuck(since))
            .map(|(group, _)| *group)
            .collect();
        stalled.sort_unstable();
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(group: u32, stage: &str, keys: Option<u64>) -> MoveStatus {
        MoveStatus {
            group,
            stage: stage.into(),
            keys,
            ..MoveStatus::default()
        }
    }

    #[test]
    fn a_move_that_comes_no_further_is_told_and_one_that_does_is_not() {
        let (mut stalls, start) = (Stalls::default(), Instant::now());
        stalls.look(&[at(1, "announced", None), at(2, "joint", Some(9))], start);
        let half = start + PATIENCE / 2;
        stalls.look(&[at(1, "announced", None), at(2, "joint", Some(8))], half);
        assert_eq!(stalls.stalled(half), [0; 0]);
        assert_eq!(stalls.stalled(start + PATIENCE), [1]);
        stalls.look(&[at(2, "joint", Some(8))], start + PATIENCE);
        assert_eq!(stalls.stalled(start + PATIENCE), [0; 0], "it has arrived");
        assert_eq!(stalls.stalled(half + PATIENCE), [2]);
    }
}
