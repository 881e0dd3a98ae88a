//! The repository's vectors, read for seeds: `tests/vectors/`.

use std::path::PathBuf;

use conclave::authorization::RawRequest;
use serde_json::Value;

/// A file of the vectors.
pub(crate) fn read(path: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/vectors")
        .join(path);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The signed requests of the vectors with their names.
pub(crate) fn requests() -> Vec<(String, RawRequest)> {
    let cases = read("zcap/http-invocations.json");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let request = |case: &Value| {
        let sent = &case["request"];
        let headers = sent["headers"].as_object().into_iter().flatten();
        RawRequest {
            method: text(&sent["method"]),
            target: text(&sent["url"]).replacen("https://kms.example", "", 1),
            headers: headers
                .map(|(name, value)| (name.clone(), text(value).into_bytes()))
                .collect(),
            body: text(&sent["body"]).into_bytes(),
        }
    };
    let cases = cases.as_array().into_iter().flatten();
    cases.map(|case| (text(&case["name"]), request(case))).collect()
}

/// The delegated capabilities of the vectors with their names.
pub(crate) fn capabilities() -> Vec<(String, Value)> {
    let index = read("zcap/index.json");
    let files = index.as_array().into_iter().flatten();
    let named = files.filter_map(|entry| {
        let file = entry["file"].as_str()?;
        let capability = read(&format!("zcap/{file}"))["capability"].take();
        let name = file.trim_end_matches(".json").to_owned();
        capability.is_object().then_some((name, capability))
    });
    named.collect()
}

/// Bodies that the npm client sent, with the step that sent them.
pub(crate) fn bodies() -> Vec<(String, Vec<u8>)> {
    let captures = read("captures.json");
    let captures = captures.as_array().into_iter().flatten();
    let bodies = captures.filter_map(|capture| {
        let body = capture["body"].as_str().filter(|body| !body.is_empty())?;
        Some((capture["step"].as_str()?.to_owned(), body.as_bytes().to_vec()))
    });
    bodies.collect()
}
