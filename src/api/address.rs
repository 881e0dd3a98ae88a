//! Which addresses a client has for the IP allow list: the socket's, and what proxies say only where configured.

use std::net::IpAddr;

use actix_web::HttpRequest;

/// Addresses taken from one `X-Forwarded-For`.
const MAX_FORWARDED: usize = 16;

/// The socket's address first.
pub(super) fn addresses(request: &HttpRequest, trust_forwarded_for: bool) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = request.peer_addr().map(|peer| peer.ip()).into_iter().collect();
    if trust_forwarded_for {
        let values = request
            .headers()
            .get_all("x-forwarded-for")
            .filter_map(|value| value.to_str().ok());
        let listed = values
            .flat_map(|value| value.split(','))
            .filter_map(|text| text.trim().parse::<IpAddr>().ok());
        addresses.extend(listed.take(MAX_FORWARDED));
    }
    addresses
}
