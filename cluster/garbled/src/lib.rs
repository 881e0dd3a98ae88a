//! HMAC-SHA-256 (RFC 2104) and AES-256 key wrap (RFC 3394) under keys that no node holds: three-party garbled circuits
//! over replicated shares, in the shape of Mohassel, Rosulek, Zhang, "Fast and Secure Three-party Computation: The Garbled
//! Circuit Approach" (CCS 2015). Sans-IO: nothing here sends, waits or draws randomness that it is not given.

pub mod agreement;
pub mod builder;
pub mod burned;
pub mod circuit;
pub mod circuits;
pub mod evaluate;
pub mod garble;
pub mod generation;
mod hash;
pub mod held;
pub mod label;
mod lanes;
pub mod live;
pub mod operations;
pub mod pairs;
pub mod portion;
pub mod program;
pub mod refresh;
pub mod reshare;
pub mod session;
pub mod sharing;
mod source;
mod walk;
