//! Node-to-node mutual TLS: frames, lanes, calls; an in-memory double.
//!
//! Callers hold an `Arc<dyn Network>` and give a [`Handler`]. [`Transport`] is the real thing (framed TCP under
//! TLS 1.3, every peer's public key pinned); [`memory::Hub`] is the double. One contract suite
//! (`tests/contract.rs`) runs against both.
//!
//! **Connections.** Each node dials every peer, once per lane, for what it sends and for its calls, and accepts from
//! every peer; answers return on the connection that carried the call. One TCP connection per lane instead of
//! interleaved chunks on one: each lane then has its own window, socket buffer and loss recovery, so a snapshot that
//! fills its own never stands before a heartbeat, and no code of ours has to reassemble or be fair.
//!
//! **Who the peers are** may change while it runs: [`Network::set_peers`] takes the whole new list. Every handshake looks
//! at the list of that moment, so a node that was taken off it is a stranger at once.
//!
//! **Formats.** The first frame of each side states which formats it speaks; a link is one between builds that have a
//! format in common, whatever their payloads mean in it. See [`formats`].
//!
//! **What is never promised.** A one-way message that was accepted may still be lost with its connection; a call ends
//! with an answer or an error, never in silence, and after `TimedOut` or `Closed` its outcome is unknown.

mod backoff;
mod calls;
mod change;
pub mod codec;
pub mod counters;
pub mod formats;
mod frame;
mod hello;
mod incoming;
pub mod memory;
pub mod network;
mod outgoing;
mod peers;
mod queue;
pub mod settings;
mod table;
pub mod tcp;
pub mod tls;
mod writer;

pub use counters::{Counters, PeerCounters, Refusal};
pub use formats::{Format, Formats};
pub use network::{BoxFuture, CallError, Handler, Lane, Network, NodeId, Refused, SendError};
pub use settings::{Boot, Bounds, Peer, Settings, SettingsError};
pub use tcp::{StartError, Transport};
pub use tls::{TlsError, public_key_of};
