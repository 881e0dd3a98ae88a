//! Raft groups on raft-rs: one store loop per node, log and state on RocksDB.
