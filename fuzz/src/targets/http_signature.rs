//! The `Authorization` header, as it came and with the signature that its text asks for.

use super::{Seed, Target, seed};
use crate::support::request::{AUTHORITY, KEY_PATH, KEYSTORE, NOW, judge, resign, signed};
use crate::support::vectors;
use conclave::authorization::{RawRequest, digest, root_id};

pub(super) const TARGET: Target = Target {
    name: "http_signature",
    longest: 2_048,
    mutations: 2_500,
    run,
    seeds,
};

const BODY: &[u8] = br#"{"type":"SignOperation"}"#;

/// What every request must cover.
const COVERED: [&str; 8] = [
    "(key-id)",
    "(created)",
    "(expires)",
    "(request-target)",
    "host",
    "capability-invocation",
    "content-type",
    "digest",
];

fn request() -> RawRequest {
    let invocation = format!("zcap id=\"{}\",action=\"sign\"", root_id(KEYSTORE));
    let digest = digest::header_value(BODY);
    let headers: [(&str, &[u8]); 5] = [
        ("host", AUTHORITY.as_bytes()),
        ("capability-invocation", invocation.as_bytes()),
        ("content-type", b"application/json"),
        ("digest", digest.as_bytes()),
        ("date", b"Mon, 01 Jun 2026 12:00:05 GMT"),
    ];
    signed(KEY_PATH, &headers, BODY)
}

fn run(value: &[u8]) -> bool {
    let mut request = request();
    for (name, header) in &mut request.headers {
        if name == "authorization" {
            *header = value.to_vec();
        }
    }
    let as_it_came = is_taken(&request);
    resign(&mut request);
    is_taken(&request) || as_it_came
}

fn is_taken(request: &RawRequest) -> bool {
    let part = request.signed_part();
    let Ok(taken) = judge(request) else {
        return false;
    };
    let part = part.expect("what was taken has a signed part");
    assert!(
        part.headers
            .iter()
            .all(|(name, _)| name == "authorization" || taken.signing_string.contains(&format!("{name}: "))),
        "nothing unsigned is in the signed part"
    );
    for name in COVERED {
        let lines = taken.signing_string.lines();
        let lines = lines.filter(|line| line.starts_with(&format!("{name}: ")));
        assert_eq!(lines.count(), 1, "{name} is signed once");
    }
    assert!(taken.created <= taken.expires && taken.expires - taken.created <= 600);
    assert!(taken.created <= NOW + 300 && NOW <= taken.expires + 300);
    true
}

fn seeds() -> Vec<Seed> {
    let header = |request: &RawRequest| {
        let mut headers = request.headers.iter();
        let found = headers.find(|(name, _)| name == "authorization");
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let mut seeds = vec![seed("own", header(&request()))];
    for (name, request) in vectors::requests() {
        if !name.starts_with("bad-body") {
            seeds.push(seed(name, header(&request)));
        }
    }
    seeds
}
