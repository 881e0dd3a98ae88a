//! One operation, between two holders that garble and the third, the coordinator, that evaluates.
//!
//! Both garblers derive everything from one seed, so that the second one can vouch for all that the first one sends with
//! one MAC. Each of them opens its own half of every input label; commitments to both labels of every such half, at the
//! place of their value, pin what is opened. The evaluator compares everything, in full and in constant time, before it
//! decodes anything: no abort depends on a secret, and there is one error for all causes.
//!
//! No private input of the evaluator's choosing may be added to this protocol.

mod context;
mod evaluator;
mod first;
mod kept;
mod message;
mod second;
#[cfg(test)]
mod tests;

pub use context::{Context, PairSecret, Task};
pub use evaluator::{Evaluation, Outputs};
pub use first::FirstGarbler;
pub use kept::Kept;
pub use message::{Head, Tail};
pub use second::SecondGarbler;

/// What came is not what two honest garblers send: nothing is said of what, or why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the computation was aborted: what another holder sent does not fit")]
pub struct Abort;

/// What a garbler is to do does not fit together: a fault of the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task, the parts of its secret inputs and what was burned do not fit each other")]
pub struct Misuse;
