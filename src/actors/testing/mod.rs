//! Whole nodes in one process: real consensus, share store, audit chain, registry and actors, joined by the
//! in-memory network. What a test takes over, it takes over at the network: the rest of the node is honest.

mod claims;
mod client;
mod cluster;

mod absence;
mod actor;
mod batch;
mod beginnings;
mod births;
mod born_without_one;
mod broken_off;
mod comes_back;
mod endorsers;
mod everywhere;
mod five;
mod formats;
mod frames;
mod full_disk;
mod heads;
mod liars;
mod malicious_coordinator;
mod malicious_leader;
mod moves;
mod moves_symmetric;
mod overload;
mod placement;
mod races;
mod receipts;
mod record;
mod refusals;
mod renewal;
mod replays;
mod sabotage;
mod symmetric;
