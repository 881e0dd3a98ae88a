//! Invocation targets and what lies under them (contract 3.3, threats 60-63). A target is an https URL in the one
//! spelling that cannot be read in two ways; attenuation is by path segment or by further query parameters, as plain
//! text, with nothing decoded or normalised.

/// The longest target, in bytes.
const MAX_TARGET: usize = 2_048;

/// Whether a text is a target that this verifier will compare at all: `https`, a lower-case host without user-info or
/// a final dot, no default port, no fragment, no empty or dot segment, no encoded slash, backslash or dot in the path,
/// no `;`, and no query parameter twice.
pub fn is_strict(target: &str) -> bool {
    if target.len() > MAX_TARGET {
        return false;
    }
    let Some(rest) = target.strip_prefix("https://") else {
        return false;
    };
    let Some((authority, path_and_query)) = rest.split_once('/') else {
        return false;
    };
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    is_authority(authority) && path.split('/').all(is_segment) && query.is_none_or(is_query)
}

/// Whether `child` is `parent` or lies under it. Without `attenuation` only the same target is.
/// Both must be strict.
pub fn allows(parent: &str, child: &str, attenuation: bool) -> bool {
    if !is_strict(parent) || !is_strict(child) {
        return false;
    }
    match child.strip_prefix(parent) {
        Some("") => true,
        Some(further) if attenuation => {
            if parent.contains('?') {
                further.starts_with('&')
            } else {
                further.starts_with('/') || further.starts_with('?')
            }
        }
        _ => false,
    }
}

/// A host and, unless it is the default, a port; an IPv6 address in brackets.
pub(crate) fn is_authority(authority: &str) -> bool {
    let (host, port) = match authority.rfind(']') {
        Some(end) => (&authority[..=end], &authority[end + 1..]),
        None => match authority.find(':') {
            Some(colon) => authority.split_at(colon),
            None => (authority, ""),
        },
    };
    let port_is_fine = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(digits) => {
            digits != "443"
                && !digits.starts_with('0')
                && digits.bytes().all(|b| b.is_ascii_digit())
                && digits.parse::<u16>().is_ok()
        }
    };
    let host_is_fine = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address
            .parse::<std::net::Ipv6Addr>()
            .is_ok_and(|parsed| parsed.to_string() == address),
        None => {
            host.len() <= 253
                && host.split('.').all(|label| {
                    !label.is_empty()
                        && label
                            .bytes()
                            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                        && !label.starts_with("xn--")
                })
        }
    };
    host_is_fine && port_is_fine
}

fn is_segment(segment: &str) -> bool {
    if segment.is_empty() || segment == "." || segment == ".." {
        return false;
    }
    every_character(segment, b"-._~!$&'()*+,=:@", |byte| {
        // An encoded slash, backslash or dot may become one in the next reader; an encoded control never is meant.
        !matches!(byte, b'/' | b'\\' | b'.' | 0..=0x1f | 0x7f)
    })
}

fn is_query(query: &str) -> bool {
    let mut names: Vec<Vec<u8>> = Vec::new();
    query.split('&').all(|parameter| {
        let name = parameter.split('=').next().unwrap_or_default();
        let decoded = decode(name);
        let is_new = !decoded.is_empty() && !names.contains(&decoded);
        names.push(decoded);
        is_new
            && every_character(parameter, b"-._~!$'()*+,=:@/?", |byte| {
                !matches!(byte, 0..=0x1f | 0x7f)
            })
    })
}

/// Whether a text has only unreserved characters, some others, and well-formed percent-encodings of accepted bytes.
fn every_character(text: &str, others: &[u8], accepts_encoded: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => match bytes.get(at + 1..at + 3).and_then(encoded_byte) {
                Some(byte) if accepts_encoded(byte) => at += 3,
                _ => return false,
            },
            byte if byte.is_ascii_alphanumeric() || others.contains(&byte) => at += 1,
            _ => return false,
        }
    }
    true
}

fn encoded_byte(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(text, 16).ok()
}

/// A query name as most readers see it, only to find that two are the same.
fn decode(name: &str) -> Vec<u8> {
    let bytes = name.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1..at + 3).and_then(encoded_byte)) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYSTORE: &str = "https://kms.example/kms/keystores/z1A";

    #[test]
    fn accepts_what_lies_under_the_parent() {
        for child in [
            "",
            "/keys",
            "/keys/z1B",
            "?x=1",
            "/keys/z1B?x=1&y=%2F",
            "/zcaps/revocations/urn%3Auuid%3A1",
        ] {
            assert!(allows(KEYSTORE, &format!("{KEYSTORE}{child}"), true), "{child}");
        }
        assert!(allows("https://h/a?x=1", "https://h/a?x=1&y=2", true));
        assert!(allows(
            "https://localhost:18443/kms",
            "https://localhost:18443/kms/a",
            true
        ));
        assert!(allows("https://[::1]:8443/kms", "https://[::1]:8443/kms/a", true));
        assert!(allows(KEYSTORE, KEYSTORE, false));
    }

    #[test]
    fn refuses_what_does_not() {
        for child in [
            "X",
            "-",
            "/",
            "//keys",
            "/keys/",
            "/keys/..",
            "/keys/../../z1O/keys/k",
            "/./keys",
            "/%2e%2e/a",
            "/.%2E/a",
            "/a%2Fb",
            "/a%2fb",
            "/a%5Cb",
            "/a\\b",
            "/a;v=1",
            "/a#f",
            "#f",
            "/a b",
            "/a%",
            "/a%4",
            "/a%zz",
            "/é",
            "/a%00",
            "?",
            "?x=1&x=2",
            "?x=1&%78=2",
            "?=1",
            "?x=1&&y=2",
            "?x=1#f",
            "&x=1",
            "/a\"b",
            "/a<b>",
            "/%+1",
        ] {
            assert!(!allows(KEYSTORE, &format!("{KEYSTORE}{child}"), true), "{child}");
        }
        assert!(!allows("https://h/a?x=1", "https://h/a?x=1&x=2", true));
        assert!(!allows("https://h/a?x=1", "https://h/a?x=1/b", true));
        assert!(!allows("https://h/a?x=1", "https://h/a?x=12", true));
        assert!(!allows(KEYSTORE, "https://kms.example/kms/keystores", true));
        assert!(!allows(KEYSTORE, "https://kms.example/kms/keystores/z1O", true));
        assert!(!allows(KEYSTORE, &format!("{KEYSTORE}/keys"), false));
    }

    #[test]
    fn refuses_second_spellings_of_a_host() {
        for url in [
            "http://h/a",
            "HTTPS://h/a",
            "https://H/a",
            "https://h./a",
            "https://h:443/a",
            "https://h:0443/a",
            "https://h:/a",
            "https://h:99999/a",
            "https://u@h/a",
            "https://u:p@h/a",
            "https://xn--bcher-kva/a",
            "https://bücher/a",
            "https://[::0001]/a",
            "https://h",
            "https:///a",
            "https://h\\a/b",
            "//h/a",
            "/a",
            "",
        ] {
            assert!(!is_strict(url), "{url}");
        }
        assert!(is_strict("https://kms-1.example:8443/a"));
    }
}
