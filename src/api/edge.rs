//! Bounds at the edge: requests under way in all, and a fair share of them for each client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::problem::Problem;

/// Counts what is under way.
pub(crate) struct Edge {
    limit: usize,
    share: usize,
    under_way: Arc<Mutex<UnderWay>>,
}

#[derive(Default)]
struct UnderWay {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place; given back when dropped.
pub(crate) struct Place {
    address: IpAddr,
    under_way: Arc<Mutex<UnderWay>>,
}

impl Edge {
    /// `limit` requests at once, at most half of them from one address.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            share: (limit / 2).max(1),
            under_way: Arc::default(),
        }
    }

    /// A place for a request of `address`; 429 beyond its share, 503 when there is none at all.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Place, Problem> {
        let mut under_way = self.under_way.lock();
        if under_way.all >= self.limit {
            return Err(Problem::unavailable(
                "This node is at its limit of requests; try again, or another node.",
            ));
        }
        let of_address = under_way.by_address.entry(address).or_default();
        if *of_address >= self.share {
            let mut problem = Problem::new(429, "QuotaExceededError", "Too many requests from this address.");
            problem.retry_after = Some(1);
            return Err(problem);
        }
        *of_address += 1;
        under_way.all += 1;
        Ok(Place {
            address,
            under_way: self.under_way.clone(),
        })
    }
}

impl Edge {
    /// Tells how many requests are under way, also later.
    pub(crate) fn under_way(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let under_way = self.under_way.clone();
        move || under_way.lock().all as u64
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock();
        under_way.all -= 1;
        if let Some(count) = under_way.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                under_way.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_gets_its_share_and_places_come_back() {
        let edge = Edge::new(4);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = [edge.enter(a).unwrap(), edge.enter(a).unwrap()];
        assert_eq!(edge.enter(a).err().map(|problem| problem.status), Some(429));
        let _others = [edge.enter(b).unwrap(), edge.enter(b).unwrap()];
        assert_eq!(
            edge.enter(IpAddr::from([10, 0, 0, 3]))
                .err()
                .map(|problem| problem.status),
            Some(503)
        );
        drop(first);
        assert!(edge.enter(a).is_ok());
    }
}
