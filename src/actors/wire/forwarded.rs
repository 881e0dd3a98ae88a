//! A client's request on its way between nodes, and what it is answered.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::authorization::RawRequest;
use crate::identifier::OperationId;
use crate::keystore::Stage;
use crate::operation::route::Route;
use crate::overload::Class;
use crate::problem::Problem;

/// A client's request on its way to another node.
#[derive(Clone, Serialize, Deserialize)]
pub struct Forwarded {
    /// Drawn by the sender for this request.
    pub operation: OperationId,
    /// Counts from 1: a retry of the same operation after a holder fell out.
    pub attempt: u8,
    /// The signed part of the request, encoded.
    pub request: Vec<u8>,
    /// (group, index): what the sender had applied of the groups that the decision rests on.
    pub needs: Vec<(u32, u64)>,
    /// The nodes that take part, ascending: goes on every participant's record.
    pub participants: Vec<u64>,
    /// Of a use: the epoch of the key in the sender's state. Whoever has another one abstains.
    pub epoch: Option<u64>,
}

/// Addresses of a client that are read: the socket's, and what proxies say.
pub const MAX_ADDRESSES: usize = 32;

/// A client's request about a group of which the node that it reached has no part.
#[derive(Clone, Serialize, Deserialize)]
pub struct Relay {
    /// The request.
    pub forwarded: Forwarded,
    /// The client's addresses, for the allow list: the sender's word. [`MAX_ADDRESSES`] at most.
    pub addresses: Vec<IpAddr>,
    /// Whether the client asks for a receipt.
    pub receipt: bool,
}

impl Relay {
    /// What is given up first under load, as far as the path of the request tells. What cannot be read is given up early.
    pub fn class(&self) -> Class {
        let request = RawRequest::decode(&self.forwarded.request).ok();
        let route = request.and_then(|request| Route::parse(&request.method, &request.target));
        route.map_or(Class::Bulk, |route| route.class())
    }
}

/// What a client is to be told.
#[derive(Clone, Serialize, Deserialize)]
pub struct Relayed {
    /// The reply, or why there is none.
    pub served: Result<Served, Problem>,
    /// Members' signatures over it, if they were asked for.
    pub receipt: Option<String>,
}

/// A reply on its way to the node that the client reached.
#[derive(Clone, Serialize, Deserialize)]
pub struct Served {
    /// The HTTP status.
    pub status: u16,
    /// Where the new thing is.
    pub location: Option<String>,
    /// JSON; none with 204.
    pub body: Option<Vec<u8>>,
}

/// How far a group's members have changed, as one of them has applied it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The number of the list that its members are of.
    pub current: u64,
    /// The list that it is on its way to, and how far.
    pub next: Option<(u64, Stage)>,
    /// Keys that are to be moved yet, where the node knows: its leader does.
    pub unmoved: Option<u64>,
}
