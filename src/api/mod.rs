//! The public HTTPS interface: WebKMS over actix-web.
use crate::{actors::registry::Registry, authorization::RawRequest, config::Config};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use std::sync::Arc;
/// tmp
pub struct Settings {
    tls: rustls::ServerConfig,
    listen: std::net::SocketAddr,
}
impl Settings {
    /// tmp
    pub fn of(config: &Config) -> anyhow::Result<Self> {
        let (chain, key) = crate::provision::start::read_https(config)?;
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Self {
            tls,
            listen: config.listen.https,
        })
    }
}
async fn handle(request: HttpRequest, body: web::Bytes, registry: web::Data<Registry>) -> HttpResponse {
    let target = request
        .uri()
        .path_and_query()
        .map(|p| p.as_str().to_owned())
        .unwrap_or_default();
    let headers = request
        .headers()
        .iter()
        .map(|(n, v)| (n.as_str().to_owned(), v.as_bytes().to_vec()))
        .collect();
    let raw = RawRequest {
        method: request.method().to_string(),
        target,
        headers,
        body: body.to_vec(),
    };
    let addresses = request.peer_addr().map(|a| a.ip()).into_iter().collect();
    match registry.serve(raw, addresses).await {
        Ok(reply) => {
            let mut r =
                HttpResponse::build(actix_web::http::StatusCode::from_u16(reply.status).unwrap_or_default());
            if let Some(l) = reply.location {
                r.insert_header(("location", l));
            }
            match reply.body {
                Some(b) => r.json(b),
                None => r.finish(),
            }
        }
        Err(problem) => {
            HttpResponse::build(actix_web::http::StatusCode::from_u16(problem.status).unwrap_or_default())
                .json(problem.body())
        }
    }
}
/// tmp
pub fn serve(s: &Settings, registry: Arc<Registry>) -> std::io::Result<actix_web::dev::Server> {
    let data = web::Data::from(registry);
    Ok(
        HttpServer::new(move || App::new().app_data(data.clone()).default_service(web::to(handle)))
            .workers(1)
            .disable_signals()
            .bind_rustls_0_23(s.listen, s.tls.clone())?
            .run(),
    )
}
