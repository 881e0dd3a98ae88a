//! Which addresses a client has for the IP allow list: the socket's, and what proxies say only where configured.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::HttpRequest;

/// Addresses taken from one `X-Forwarded-For`.
const MAX_FORWARDED: usize = 16;

/// Whose share of the places a request takes: the socket's, or where a proxy is believed the address that the nearest one
/// has seen, which it wrote last. What stands before it the client may have made up.
pub(super) fn client(request: &HttpRequest, trust_forwarded_for: bool) -> IpAddr {
    let socket = request
        .peer_addr()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    if !trust_forwarded_for {
        return socket;
    }
    let last = request.headers().get_all("x-forwarded-for").last();
    let last = last.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    last.unwrap_or(socket)
}

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

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_share_is_the_sockets_or_what_the_nearest_proxy_wrote() {
        let proxy = "10.0.0.1:443".parse().unwrap();
        let with = |header: &str| {
            let request = TestRequest::default().peer_addr(proxy);
            request
                .insert_header(("x-forwarded-for", header))
                .to_http_request()
        };
        let request = with("203.0.113.9, 198.51.100.7");
        assert_eq!(client(&request, false), proxy.ip());
        assert_eq!(client(&request, true), IpAddr::from([198, 51, 100, 7]));
        assert_eq!(client(&with("nonsense"), true), proxy.ip());
    }
}
