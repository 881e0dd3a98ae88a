//! Bounds at the edge: requests under way in all, and a fair share of them for each client address.
//!
//! Of an IPv6 address the network counts, its first 64 bits: whoever has one has all addresses in it.

use std::net::{IpAddr, Ipv6Addr};

use crate::overload::{At, Class, Overloaded, Place, Shares};
use crate::problem::Problem;

/// Counts what is under way.
pub(crate) struct Edge(Shares<IpAddr>);

impl Edge {
    /// `limit` requests at once, those of one address at most half of them and no more than are left.
    pub(crate) fn new(limit: usize) -> Self {
        Self(Shares::new(limit, limit / 2))
    }

    /// A place for a request of `address`; 429 beyond its share, 503 when there is none for this class.
    pub(crate) fn enter(&self, address: IpAddr, class: Class) -> Result<Place<IpAddr>, Box<(At, Problem)>> {
        self.0.enter(network(address), class).map_err(|why| match why {
            Overloaded::Share => {
                let problem = Problem::too_many(
                    "This address has as many requests under way as this node keeps for one; wait for some \
                     answers, then try again.",
                );
                Box::new((At::Address, problem))
            }
            _ => {
                let problem = Problem::unavailable(
                    "This node is at its limit of requests; try again, or another node.",
                );
                Box::new((At::Node, problem))
            }
        })
    }

    /// Tells how many requests are under way, also later.
    pub(crate) fn under_way(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let taken = self.0.taken();
        move || taken() as u64
    }
}

/// Who shares with whom.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let host = u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !host))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(edge: &Edge, address: IpAddr, class: Class) -> Option<Problem> {
        edge.enter(address, class).err().map(|refused| refused.1)
    }

    #[test]
    fn one_address_gets_its_share_and_places_come_back() {
        let edge = Edge::new(8);
        let address = |number| IpAddr::from([10, 0, 0, number]);
        let fill = |address| {
            let places = std::iter::from_fn(|| edge.enter(address, Class::Changes).ok());
            places.collect::<Vec<_>>()
        };
        let first = fill(address(1));
        assert_eq!(first.len(), 4);
        let problem = refused(&edge, address(1), Class::Changes).unwrap();
        assert_eq!((problem.status, problem.retry_after), (429, Some(1)));
        let others: Vec<_> = (2..=4).flat_map(|number| fill(address(number))).collect();
        assert_eq!(others.len(), 4);
        let problem = refused(&edge, address(5), Class::Changes).unwrap();
        assert_eq!((problem.status, problem.retry_after), (503, Some(1)));
        drop(first);
        assert!(edge.enter(address(5), Class::Changes).is_ok());
        drop(others);
        assert_eq!(edge.under_way()(), 0);
    }

    #[test]
    fn uses_leave_room_for_changes() {
        let edge = Edge::new(8);
        let crowd: Vec<_> = (0..20)
            .filter_map(|number| {
                edge.enter(IpAddr::from([10, 0, 0, number]), Class::Signatures)
                    .ok()
            })
            .collect();
        assert_eq!(crowd.len(), 6);
        let comes = IpAddr::from([10, 0, 1, 1]);
        assert_eq!(
            refused(&edge, comes, Class::Signatures).map(|problem| problem.status),
            Some(503)
        );
        assert!(edge.enter(comes, Class::Changes).is_ok());
    }

    #[test]
    fn addresses_of_one_network_share() {
        let same = ["2001:db8::1", "2001:db8::ffff:1:2:3"].map(|text| network(text.parse().unwrap()));
        assert_eq!(same[0], same[1]);
        let other = network("2001:db8:0:1::1".parse().unwrap());
        assert_ne!(same[0], other);
        let mapped = network("::ffff:10.1.2.3".parse().unwrap());
        assert_eq!(mapped, IpAddr::from([10, 1, 2, 3]));
    }
}
