//! The one handler: read, serve, answer. A panic below it costs this request alone.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use actix_web::http::Method;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures::FutureExt;
use tracing::Instrument;

use super::Api;
use super::address::{addresses, client};
use super::connections::Connection;
use super::problem::Asker;
use super::request::read;
use crate::identifier::OperationId;
use crate::operation::route::Route;
use crate::overload::Class;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::telemetry::logs::request_span;

/// Answers a request.
pub(super) async fn handle(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    let connection = request.conn_data::<Arc<Connection>>();
    let _serving = connection.map(Connection::serve);
    let operation = api.registry.next_operation();
    let asker = asker(&request, &api, &operation);
    if request.method() == Method::OPTIONS && has_preflight(&asker.target) {
        let wanted = request
            .headers()
            .get("access-control-request-headers")
            .and_then(|value| value.to_str().ok());
        return asker.preflight(wanted, &api.authority);
    }
    let span = request_span(&asker.id);
    let served = AssertUnwindSafe(serve(&request, payload, &api, (&asker, operation)))
        .catch_unwind()
        .instrument(span);
    match served.await {
        Ok(Ok(Some(reply))) => asker.reply(reply),
        Ok(Ok(None)) => asker.no_route(),
        Ok(Err(problem)) if problem.status >= 500 => {
            // Not the client's fault, so an operator will ask why.
            tracing::warn!(
                request = asker.id,
                method = asker.method,
                target = asker.target,
                status = problem.status,
                reason = problem.message,
                "not served"
            );
            asker.problem(&problem)
        }
        Ok(Err(problem)) => {
            tracing::debug!(
                request = asker.id,
                status = problem.status,
                name = problem.name,
                "refused"
            );
            asker.problem(&problem)
        }
        Err(_) => {
            tracing::error!(request = asker.id, "a request's handler panicked");
            asker.problem(&Problem::new(
                500,
                "OperationError",
                "An unspecified error occurred.",
            ))
        }
    }
}

/// `None`: there is no such route.
async fn serve(
    request: &HttpRequest,
    payload: Payload,
    api: &Api,
    (asker, operation): (&Asker, OperationId),
) -> Result<Option<Reply>, Problem> {
    let route = Route::parse(&asker.method, &asker.target);
    let class = route.as_ref().map_or(Class::Bulk, Route::class);
    let address = client(request, api.trust_forwarded_for);
    let enter = || {
        api.edge.enter(address, class).map_err(|refused| {
            let (at, problem) = *refused;
            api.registry.shed(at, class);
            problem
        })
    };
    // Nothing is read where there is no place. But who sends slowly takes nobody's while it does.
    drop(enter()?);
    let absolute = request.head().uri.authority().is_some();
    if route.is_none() && !absolute && asker.target.len() <= 2_048 {
        return Ok(None);
    }
    let raw = api.registry.reading(read(request, payload, api)).await?;
    let _place = enter()?;
    let addresses = addresses(request, api.trust_forwarded_for);
    api.registry.serve(operation, raw, addresses).await.map(Some)
}

fn asker(request: &HttpRequest, api: &Api, operation: &OperationId) -> Asker {
    let accept = request
        .headers()
        .get("accept")
        .and_then(|value| value.to_str().ok())
        .unwrap_or("*/*");
    Asker {
        method: request.method().as_str().to_owned(),
        target: request
            .head()
            .uri
            .path_and_query()
            .map(|target| target.as_str().to_owned())
            .unwrap_or_default(),
        wants_json: accept.contains("json"),
        id: operation.request_id(),
        closing: api.closing.clone(),
    }
}

/// The routes that browsers may ask about: those that take a POST, and keys.
fn has_preflight(target: &str) -> bool {
    Route::parse("POST", target).is_some()
}
