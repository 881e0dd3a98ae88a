//! Why work was not taken or not begun, and what its client is told: each says what to do.

use crate::problem::Problem;

/// Work that was refused for the node's load alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overloaded {
    /// Whoever asks has its share of the places; others still get some.
    #[error("the asker has its share of the places")]
    Share,
    /// There is no place for work of this class.
    #[error("no place is left for work of this class")]
    Full,
    /// It waited for as long as it may and was not begun.
    #[error("it has waited for too long")]
    Waited,
    /// Nobody waits for it any more: the time that its client gives it is over.
    #[error("nobody waits for it any more")]
    Gone,
    /// It panicked.
    #[error("it panicked")]
    Panicked,
}

impl From<Overloaded> for Problem {
    /// 429 for whoever takes more than its share, else 503; a try in a second may succeed.
    fn from(overloaded: Overloaded) -> Self {
        match overloaded {
            Overloaded::Share => Problem::too_many(
                "This keystore has as many requests under way as this node keeps for one; wait for some answers, \
                 then try again.",
            ),
            Overloaded::Full => Problem::unavailable(
                "This node has no room for more of this now; try again, or another node.",
            ),
            Overloaded::Waited | Overloaded::Gone => Problem::unavailable(
                "This node did not come to this request in time; try again, or another node.",
            ),
            Overloaded::Panicked => {
                Problem::unavailable("This node could not compute this; try again, or another node.")
            }
        }
    }
}
