//! The one number that says how nodes talk to each other and what they write into logs (ARCHITECTURE.md, "Versions").
//!
//! A build speaks its own format and the one before, and reads every entry since the first. It changes with a release that
//! changes a call, an answer or an entry; what is on one node's disk alone has numbers of its own.

#[cfg(feature = "next-format")]
mod next;

/// Counts from 1; the first byte of every encoding.
pub type Format = u8;

/// The first one.
pub const FIRST: Format = 1;

/// The one of this build.
#[cfg(not(feature = "next-format"))]
pub const NEWEST: Format = 1;
/// The one of this build: of the release after, for the test of upgrades.
#[cfg(feature = "next-format")]
pub const NEWEST: Format = 2;

/// The oldest that this build speaks.
pub const OLDEST: Format = if NEWEST > FIRST { NEWEST - 1 } else { FIRST };

/// Whether a peer may say something in this format.
pub const fn is_spoken(format: Format) -> bool {
    OLDEST <= format && format <= NEWEST
}

/// Whether an entry of this format can be read.
pub const fn is_read(format: Format) -> bool {
    FIRST <= format && format <= NEWEST
}

/// Ends an encoding whose first byte is its format, as that format wants it: the place for what a format changes in all of
/// them.
pub(crate) fn close(encoded: Vec<u8>) -> Vec<u8> {
    #[cfg(feature = "next-format")]
    let encoded = next::close(encoded);
    encoded
}

/// What is between the format and the end; `None` where the end is not as the format wants it. The caller has looked
/// whether it knows the format.
pub(crate) fn open(encoded: &[u8]) -> Option<&[u8]> {
    #[cfg(feature = "next-format")]
    let encoded = next::open(encoded)?;
    encoded.get(1..)
}
