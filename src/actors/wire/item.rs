//! Questions about one item of a batch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Roles;
#[cfg(doc)]
use super::{Call, Forwarded};
use crate::identifier::OperationId;

/// A question about one item of a batch.
#[derive(Clone, Serialize, Deserialize)]
pub struct Item {
    /// Its place in the batch, from 0.
    pub index: u8,
    /// Its own operation: it is judged, recorded and remembered as a request of its own.
    pub operation: OperationId,
    /// Its own attempt.
    pub attempt: u8,
    /// As in [`Forwarded`].
    pub needs: Vec<(u32, u64)>,
    /// The nodes that take part in it, ascending.
    pub participants: Vec<u64>,
    /// As in [`Forwarded`].
    pub epoch: Option<u64>,
    /// What is asked.
    pub ask: ItemAsk,
}

/// What can be asked about an item: as the calls of the same names.
#[derive(Clone, Serialize, Deserialize)]
pub enum ItemAsk {
    /// [`Call::Cosign`].
    Cosign(Vec<u8>),
    /// [`Call::Commit`].
    Commit,
    /// [`Call::SignShare`].
    SignShare(BTreeMap<u16, Vec<u8>>),
    /// [`Call::Derive`].
    Derive,
    /// [`Call::Garble`].
    Garble(Roles),
    /// [`Call::Serve`].
    Serve,
}
