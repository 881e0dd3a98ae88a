//! Bugs put in on purpose, so that the simulator can show that it finds them (feature `sabotage`).
//!
//! Without the feature the type has no value, so no build that serves clients can contain one.

/// One rule of consensus.md 1, broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sabotage {
    /// A decision waits for what is pending, and then decides by the state from before the wait.
    #[cfg(feature = "sabotage")]
    DecideByOldState,
    /// Pending entries are published a tick after the message that acknowledged them.
    #[cfg(feature = "sabotage")]
    PublishAfterAcknowledging,
}

/// Whether `planted` is the bug that publishes pending entries too late.
pub(crate) fn publishes_late(planted: Option<Sabotage>) -> bool {
    match planted {
        #[cfg(feature = "sabotage")]
        Some(Sabotage::PublishAfterAcknowledging) => true,
        _ => false,
    }
}

/// Whether `planted` is the bug that decides by the state from before the wait.
pub(crate) fn decides_by_old_state(planted: Option<Sabotage>) -> bool {
    match planted {
        #[cfg(feature = "sabotage")]
        Some(Sabotage::DecideByOldState) => true,
        _ => false,
    }
}
