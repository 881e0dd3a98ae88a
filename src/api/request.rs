//! A client's request as it was sent: raw target, raw header lines, a body read within its bound.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::web::Payload;
use futures::StreamExt;

use super::Api;
use super::server::CLIENT_PATIENCE;
use crate::authorization::RawRequest;
use crate::authorization::request::{MAX_HEADERS, MAX_TARGET};
use crate::problem::Problem;

/// Of a body that is too long, this much is read and thrown away, so that the client sees the answer and not a
/// connection reset.
const DRAIN: usize = 1024 * 1024;
/// A client that sends nothing for this long is waiting for the answer.
const DRAIN_PAUSE: Duration = Duration::from_millis(250);

/// Checks the head and the one accepted authority, then reads the body. Who waits to be told whether to send a body is
/// told no before it is read.
pub(super) async fn read(
    request: &HttpRequest,
    mut payload: Payload,
    api: &Api,
) -> Result<RawRequest, Problem> {
    let max_body = api.max_body;
    let raw = head(request, &api.authority)?;
    let declared = declared_length(&raw)?;
    // Chunks bring trailers and every way to disagree with a proxy about where a request ends; no client needs them.
    if raw
        .headers
        .iter()
        .any(|(name, _)| name == "transfer-encoding" || name == "trailer")
    {
        return Err(Problem::malformed(
            "A body must come whole, with its Content-Length: no chunks and no trailers.",
        ));
    }
    if raw.headers.iter().any(|(name, _)| name == "expect") {
        api.registry.admits(&raw)?;
    }
    if raw.headers.iter().any(|(name, _)| name == "content-encoding") {
        return Err(Problem::new(
            415,
            "NotSupportedError",
            "A compressed body is not accepted.",
        ));
    }
    if declared.is_some_and(|length| length > max_body) {
        drain(&mut payload, declared.unwrap_or(DRAIN)).await;
        return Err(too_large());
    }
    let body = body(&mut payload, declared.unwrap_or(0), max_body);
    let body = tokio::time::timeout(CLIENT_PATIENCE, body).await;
    let body = body.map_err(|_| Problem::new(408, "TimeoutError", "The body did not come in time."))??;
    Ok(RawRequest { body, ..raw })
}

async fn body(payload: &mut Payload, declared: usize, most: usize) -> Result<Vec<u8>, Problem> {
    let mut body = Vec::with_capacity(declared);
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| Problem::malformed("The body could not be read."))?;
        if body.len() + chunk.len() > most {
            drain(payload, DRAIN).await;
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn too_large() -> Problem {
    Problem::new(413, "QuotaExceededError", "Content is too large.")
}

async fn drain(payload: &mut Payload, most: usize) {
    let mut seen = 0;
    while let Ok(Some(Ok(chunk))) = tokio::time::timeout(DRAIN_PAUSE, payload.next()).await {
        seen += chunk.len();
        if seen >= most.min(DRAIN) {
            return;
        }
    }
}

fn declared_length(raw: &RawRequest) -> Result<Option<usize>, Problem> {
    let Some(value) = raw.header("content-length")? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value).ok();
    let length = text.and_then(|text| text.parse().ok());
    length
        .map(Some)
        .ok_or_else(|| Problem::malformed("The content-length header is not a length."))
}

/// Everything but the body.
fn head(request: &HttpRequest, authority: &str) -> Result<RawRequest, Problem> {
    let uri = &request.head().uri;
    if uri.authority().is_some() || uri.scheme().is_some() {
        return Err(Problem::malformed("The request target must be a path."));
    }
    let target = uri
        .path_and_query()
        .map(|target| target.as_str().to_owned())
        .unwrap_or_default();
    if target.len() > MAX_TARGET {
        return Err(Problem::new(
            414,
            "QuotaExceededError",
            "The request target is too long.",
        ));
    }
    let mut headers = Vec::new();
    let mut bytes = 0;
    for (name, value) in request.headers() {
        bytes += name.as_str().len() + value.len() + 4;
        headers.push((name.as_str().to_owned(), value.as_bytes().to_vec()));
    }
    if bytes > MAX_HEADERS {
        return Err(Problem::new(
            431,
            "QuotaExceededError",
            "The header block is too large.",
        ));
    }
    let mut hosts = headers
        .iter()
        .filter(|(name, _)| name == "host")
        .map(|(_, value)| value);
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if host.as_slice() == authority.as_bytes() => {}
        (Some(_), None) => {
            return Err(Problem::malformed(format!(
                "This cluster is {authority}; the Host header names another."
            )));
        }
        _ => return Err(Problem::malformed("Exactly one Host header is needed.")),
    }
    Ok(RawRequest {
        method: request.method().as_str().to_owned(),
        target,
        headers,
        body: Vec::new(),
    })
}
