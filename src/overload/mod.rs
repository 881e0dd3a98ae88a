//! What a node does when it is asked for more than it can do: who waits, who is refused, and in which order.
//!
//! Pure: given time, and what came and went. [`Lines`] orders what waits for the crypto pool, [`Shares`] bounds what is
//! under way, [`Class`] says what is given up first, [`Turn`] travels with what a task works at, [`Shed`] counts. The
//! bounds themselves are with those who keep them; docs/operations.md has the table.

pub mod class;
pub mod gate;
pub mod lines;
pub mod refusal;
pub mod shares;
pub mod shed;
pub mod turn;

pub use class::Class;
pub use gate::{Gate, Pass};
pub use lines::{Lines, Taken};
pub use refusal::Overloaded;
pub use shares::{Place, Shares};
pub use shed::{At, Shed};
pub use turn::Turn;
