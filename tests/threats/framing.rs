//! Rows 23, 25, 26, 29 and 33: what only a server can be given, byte by byte.

use super::server::Server;
use super::servers::{Results, by_alice};
use super::support::{Forge, host, key_path, keystore};
use serde_json::json;

/// A request for the key, with these further header lines and this body, as it stands.
fn raw(lines: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("POST {} HTTP/1.1\r\nhost: {}\r\n", key_path(), host());
    for line in lines {
        head.push_str(line);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

pub(crate) async fn all(server: &Server, results: &mut Results) {
    let refused = [400, 0];
    let chunked = "transfer-encoding: chunked";
    for (row, case, lines, body) in [
        (
            23,
            "length and chunked",
            vec!["content-length: 4", chunked],
            &b"0\r\n\r\n"[..],
        ),
        (
            23,
            "two lengths",
            vec!["content-length: 4", "content-length: 5"],
            b"abcde",
        ),
        (
            23,
            "two equal lengths",
            vec!["content-length: 4", "content-length: 4"],
            b"abcd",
        ),
        (
            23,
            "chunked with a trailer",
            vec![chunked, "trailer: digest", "connection: close"],
            b"1\r\na\r\n0\r\ndigest: SHA-256=x\r\n\r\n",
        ),
        (
            23,
            "chunked with a trailer nobody announced",
            vec![chunked, "connection: close"],
            b"1\r\na\r\n0\r\ndigest: SHA-256=x\r\n\r\n",
        ),
        (33, "CL.TE", vec!["content-length: 6", chunked], b"0\r\n\r\nG"),
        (
            33,
            "TE.CL",
            vec![chunked, "content-length: 4"],
            b"5c\r\nGPOST / HTTP/1.1\r\n\r\n0\r\n\r\n",
        ),
        (
            33,
            "TE.TE",
            vec![chunked, "transfer-encoding: identity"],
            b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ),
        (33, "xchunked", vec!["transfer-encoding: xchunked"], b"0\r\n\r\n"),
        (
            33,
            "chunked in capitals and spaces",
            vec!["transfer-encoding : chunked"],
            b"0\r\n\r\n",
        ),
        (33, "length with a sign", vec!["content-length: +4"], b"abcd"),
        (33, "length in hex", vec!["content-length: 0x4"], b"abcd"),
        (
            33,
            "a chunk's size overflows",
            vec![chunked],
            b"fffffffffffffffff\r\na\r\n0\r\n\r\n",
        ),
        (33, "header without a name", vec![": x"], b""),
        (
            32,
            "a header goes on in the next line",
            vec!["a: b", " c", "connection: close"],
            b"",
        ),
        (32, "NUL in a header", vec!["a: b\0c"], b""),
    ] {
        results.expect(row, case, &refused, &server.send_bytes(&raw(&lines, body)).await);
    }
    // The answer comes at once: nobody waits for a body that was only announced.
    let wrong = Forge::root().sent("Signature keyId=\"nobody\"");
    let authorization = wrong
        .headers
        .iter()
        .find(|(name, _)| name == "authorization")
        .unwrap();
    let authorization = format!("authorization: {}", String::from_utf8_lossy(&authorization.1));
    let expecting = [
        "expect: 100-continue",
        "content-length: 50",
        "connection: close",
        &authorization,
    ];
    let outcome = server.send_bytes(&raw(&expecting, b"")).await;
    results.expect(26, "bad signature before the body", &[400, 403, 417], &outcome);

    // 29: the same bytes at once are an operation of their own, of a GET too; much later they are not, which
    // tests/clients.rs and tests/cluster show.
    let message = json!({
        "type": "SignOperation",
        "invocationTarget": format!("https://{}{}", host(), key_path()),
        "verifyData": "dHdpbnM",
    });
    let request = by_alice("POST", key_path(), "sign", &message);
    for case in ["first", "twin"] {
        results.expect(29, case, &[200], &server.send(&request).await);
    }
    let path = keystore()
        .strip_prefix(&format!("https://{}", host()))
        .unwrap()
        .to_owned();
    let read = by_alice("GET", &path, "read", &json!(null));
    let mut bare = read.clone();
    bare.body.clear();
    results.expect(
        22,
        "GET with a digest that has no body",
        &[400, 403],
        &server.send(&bare).await,
    );

    let long = format!("x-long: {}", "a".repeat(40 * 1024));
    let outcome = server.send_bytes(&raw(&[&long, "connection: close"], b"")).await;
    results.expect(25, "headers of 40 KiB", &[431, 400, 0], &outcome);
    let declared = ["content-length: 9999999", "connection: close"];
    let outcome = server.send_bytes(&raw(&declared, b"")).await;
    results.expect(25, "a body of 10 MB, announced", &[413], &outcome);
}
