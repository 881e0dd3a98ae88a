//! The `Digest` header of a signed request: exactly two spellings of one body's hash are taken.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use conclave::authorization::{digest, root_id};
use sha2::{Digest as _, Sha256};

use super::{Seed, Target, seed};
use crate::support::request::{AUTHORITY, KEY_PATH, KEYSTORE, judge, signed};

pub(super) const TARGET: Target = Target {
    name: "digest",
    longest: 256,
    mutations: 2_000,
    run,
    seeds,
};

const BODY: &[u8] = br#"{"type":"SignOperation"}"#;

fn spellings() -> [String; 2] {
    let plain = format!("SHA-256={}", STANDARD.encode(Sha256::digest(BODY)));
    [digest::header_value(BODY), plain]
}

fn run(value: &[u8]) -> bool {
    let invocation = format!("zcap id=\"{}\",action=\"sign\"", root_id(KEYSTORE));
    let headers: [(&str, &[u8]); 4] = [
        ("host", AUTHORITY.as_bytes()),
        ("capability-invocation", invocation.as_bytes()),
        ("content-type", b"application/json"),
        ("digest", value),
    ];
    let taken = judge(&signed(KEY_PATH, &headers, BODY)).is_ok();
    let text = std::str::from_utf8(value).unwrap_or_default().trim_matches(' ');
    assert_eq!(
        taken,
        spellings().iter().any(|spelling| spelling == text),
        "a digest has two spellings: {text:?}"
    );
    taken
}

fn seeds() -> Vec<Seed> {
    let [multihash, plain] = spellings();
    vec![
        seed("multihash", multihash.clone()),
        seed("plain", plain.clone()),
        seed("list", format!("{multihash},{plain}")),
        seed("padded", format!("{multihash}=")),
        seed("md5", "md5=1B2M2Y8AsgTpgAmY7PhCfg=="),
    ]
}
