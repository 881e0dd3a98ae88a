//! The node-local sealed store of key shares.
