//! Replays and twins, as a holder judges them (trust.md, section 5), and the holder's clock. Pure: the caller
//! gives every time and the key of the fingerprints, and calls under one lock.

mod claims;
mod clock;
mod guard;
mod memory;

pub use claims::{Claims, Full, claim};
pub use clock::{ClockError, HolderClock};
pub use guard::{Kind, Moment, Refusal, ReplayGuard, Settings, Sighting, Twins, Verdict};

#[cfg(test)]
mod tests;
