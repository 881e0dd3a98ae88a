//! Answers as the wire contract has them: headers, bodies, and the plain text for those who do not ask for JSON.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde_json::json;

use crate::problem::Problem;
use crate::receipt;
use crate::reply::Reply;

/// What an answer has to know of its request.
pub(super) struct Asker {
    /// GET, POST, …
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    /// Whether `Accept` asks for JSON.
    pub(super) wants_json: bool,
    /// For `X-Request-Id`.
    pub(super) id: String,
    /// Whether the connection ends with the answer: asked when there is one.
    pub(super) closing: Arc<AtomicBool>,
}

impl Asker {
    fn response(&self, status: u16) -> actix_web::HttpResponseBuilder {
        let mut response =
            HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY));
        response.insert_header(("Cache-Control", "no-cache, no-store, must-revalidate"));
        response.insert_header(("Expires", "0"));
        if self.method == "POST" {
            response.insert_header(("Vary", "X-HTTP-Method-Override"));
        }
        if self.target.starts_with("/kms/") || self.target.starts_with("/meters") {
            response.insert_header(("Access-Control-Allow-Origin", "*"));
        }
        response.insert_header(("X-Request-Id", self.id.as_str()));
        if self.closing.load(Ordering::Relaxed) {
            response.force_close();
        }
        response
    }

    /// A success. A 204 has neither body nor content type: the npm client would try to parse it.
    pub(super) fn reply(&self, reply: Reply) -> HttpResponse {
        let mut response = self.response(reply.status);
        if let Some(url) = reply.location {
            response.insert_header(("Location", url));
        }
        if let Some(notice) = reply.notice {
            response.insert_header(("Conclave-Notice", notice));
        }
        attach(&mut response, reply.receipt);
        match reply.body {
            Some(body) => {
                response.content_type("application/json; charset=utf-8");
                response.body(body.to_string())
            }
            None => response.finish(),
        }
    }

    /// A refusal or failure.
    pub(super) fn problem(&self, problem: &Problem) -> HttpResponse {
        let mut response = self.response(problem.status);
        response.insert_header(("X-Content-Type-Options", "nosniff"));
        if problem.status == 408 {
            // What still comes is the rest of the request that was given up.
            response.force_close();
        }
        if let Some(seconds) = problem.retry_after {
            response.insert_header(("Retry-After", seconds));
        }
        attach(&mut response, problem.receipt.clone());
        if self.wants_json {
            response.content_type("application/json; charset=utf-8");
            return response.body(problem.body().to_string());
        }
        response.content_type("text/plain");
        response.body(problem.message.clone())
    }

    /// No such route: the words of the existing server's framework.
    pub(super) fn no_route(&self) -> HttpResponse {
        let mut response = HttpResponse::NotFound();
        response.insert_header(("Cache-Control", "no-cache, no-store, must-revalidate"));
        response.insert_header(("Expires", "0"));
        response.insert_header(("X-Request-Id", self.id.as_str()));
        response.content_type("application/json; charset=utf-8");
        let message = format!("Route {}:{} not found", self.method, self.target);
        response.body(json!({ "message": message, "error": "Not Found", "statusCode": 404 }).to_string())
    }

    /// The answer to a browser's preflight.
    pub(super) fn preflight(&self, wanted_headers: Option<&str>, authority: &str) -> HttpResponse {
        let mut response = HttpResponse::NoContent();
        if authority.contains("localhost") {
            response.insert_header(("Access-Control-Allow-Private-Network", "true"));
        }
        response.insert_header(("Cache-Control", "no-cache, no-store, must-revalidate"));
        response.insert_header(("Expires", "0"));
        response.insert_header(("Access-Control-Allow-Origin", "*"));
        response.insert_header(("Access-Control-Allow-Methods", "GET,HEAD,PUT,PATCH,POST,DELETE"));
        response.insert_header(("Vary", "Access-Control-Request-Headers"));
        if let Some(headers) = wanted_headers {
            response.insert_header(("Access-Control-Allow-Headers", headers));
        }
        response.insert_header(("Access-Control-Max-Age", "86400"));
        response.finish()
    }
}

/// A receipt, where scripts of other origins may read it.
fn attach(response: &mut actix_web::HttpResponseBuilder, receipt: Option<String>) {
    if let Some(receipt) = receipt {
        response.insert_header(("Access-Control-Expose-Headers", receipt::HEADER));
        response.insert_header((receipt::HEADER, receipt));
    }
}
