//! Faults injected into real processes: cut links, bad disks, flipped bits, wrong clocks, exhausted limits, deaths at each
//! write. What was acknowledged stays, what was revoked stays revoked, nothing wrong is answered, and what was hit comes
//! back.
//!
//! What a machine lacks is said as `skipped: needs X`. What takes long is ignored here and run by `make test-long`.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail loudly")]

mod common;

#[path = "faults/bits.rs"]
mod bits;
#[path = "faults/clocks.rs"]
mod clocks;
#[path = "faults/deaths.rs"]
mod deaths;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/disorder.rs"]
mod disorder;
#[path = "faults/exhausted.rs"]
mod exhausted;
#[path = "faults/partition.rs"]
mod partition;
#[path = "faults/table.rs"]
mod table;
#[path = "faults/weather.rs"]
mod weather;
