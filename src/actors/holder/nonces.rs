//! Nonce pairs between the two rounds of a signature with a quorum of three: in memory only, 2 s at most, for one
//! coordinator, and taken before the second round computes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use conclave_threshold::frost::Nonces;

use crate::actors::decide::Decided;
use crate::identifier::OperationId;

const LIFE: Duration = Duration::from_secs(2);
const MAX: usize = 8_192;

/// A drawn pair and the decision that it was drawn for.
pub struct Drawn {
    /// Who asked.
    pub coordinator: u64,
    /// The decision.
    pub decided: Decided,
    /// The pair.
    pub nonces: Nonces,
    at: Instant,
}

/// Pairs that wait for their second round.
#[derive(Default)]
pub struct DrawnNonces(HashMap<(OperationId, u8), Drawn>);

impl DrawnNonces {
    /// Keeps a pair; `false` if there are too many, or one of this attempt.
    pub fn keep(
        &mut self,
        attempt: (OperationId, u8),
        coordinator: u64,
        decided: Decided,
        nonces: Nonces,
    ) -> bool {
        self.0.retain(|_, drawn| drawn.at.elapsed() < LIFE);
        if self.0.len() >= MAX || self.0.contains_key(&attempt) {
            return false;
        }
        self.0.insert(
            attempt,
            Drawn {
                coordinator,
                decided,
                nonces,
                at: Instant::now(),
            },
        );
        true
    }

    /// Takes the pair of an attempt, if this coordinator asked for it less than 2 s ago.
    pub fn take(&mut self, attempt: &(OperationId, u8), coordinator: u64) -> Option<Drawn> {
        let drawn = self.0.remove(attempt)?;
        (drawn.coordinator == coordinator && drawn.at.elapsed() < LIFE).then_some(drawn)
    }

    /// A connection ended: its pairs die with it.
    pub fn disconnected(&mut self, coordinator: u64) {
        self.0.retain(|_, drawn| drawn.coordinator != coordinator);
    }
}
