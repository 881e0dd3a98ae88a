//! Where machines that are to become members show themselves: `conclave node invite`, `join` and `admit` on the node's side.

use std::sync::Arc;
use std::time::Instant;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use parking_lot::Mutex;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};

use super::{Admin, from_elsewhere, refuse};
use crate::config::{Config, Hex32};
use crate::provision::candidate::{Admission, Candidate, Speaker, Spoken, Token, Welcome};
use crate::provision::waiting_room::{Turned, WaitingRoom};

/// What candidates may know of the node that they ask, and the room where they wait.
#[derive(Clone)]
pub struct Reception {
    cluster: Hex32,
    operators: Arc<[Hex32]>,
    welcome: Arc<dyn Fn() -> Option<Welcome> + Send + Sync>,
    room: Arc<Mutex<WaitingRoom>>,
}

/// The answer to an invitation.
#[derive(Deserialize, Serialize)]
pub struct Invited {
    /// [`Token::to_text`]: it opens nothing, so it may pass through memory that is not wiped.
    pub token: String,
}

/// One machine that waits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Waiting {
    /// [`Candidate::fingerprint`].
    pub fingerprint: String,
    /// What it says.
    pub candidate: Candidate,
}

impl Reception {
    /// Of a node of this configuration, whose files are read when somebody asks.
    pub fn of(config: &Config) -> Self {
        let welcome = {
            let config = config.clone();
            move || Welcome::of(&config).ok()
        };
        Self::new(config.cluster, &config.operators.keys, welcome)
    }

    /// Of a cluster with these operators; `welcome` is called for each candidate, off the listener's thread.
    pub fn new(
        cluster: Hex32,
        operators: &[Hex32],
        welcome: impl Fn() -> Option<Welcome> + Send + Sync + 'static,
    ) -> Self {
        Self {
            cluster,
            operators: operators.into(),
            welcome: Arc::new(welcome),
            room: Arc::default(),
        }
    }
}

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/candidates", web::get().to(list))
        .route("/candidates", web::post().to(present))
        .route("/candidates/invitation", web::post().to(invite))
        .route("/candidates/{fingerprint}/admission", web::get().to(admission))
        .route("/candidates/{fingerprint}/admission", web::post().to(admit));
}

async fn invite(request: HttpRequest, admin: web::Data<Admin>) -> HttpResponse {
    if let Some(refused) = from_elsewhere(&request, "an invitation") {
        return refused;
    }
    let reception = &admin.reception;
    let token = Token::generate(reception.cluster.0, &mut OsRng);
    let text = token.to_text().to_string();
    match reception.room.lock().invite(token, Instant::now()) {
        Ok(()) => HttpResponse::Ok().json(Invited { token: text }),
        Err(turned) => turn(turned),
    }
}

async fn present(body: web::Bytes, admin: web::Data<Admin>) -> HttpResponse {
    let Ok(spoken) = serde_json::from_slice::<Spoken>(&body) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "the body is no candidate of this version",
        );
    };
    let reception = admin.reception.clone();
    let presented = reception.room.lock().present(&spoken, Instant::now());
    let token = match presented {
        Ok(token) => token,
        Err(turned) => return turn(turned),
    };
    let welcome = web::block(move || (reception.welcome)()).await.ok().flatten();
    let text = welcome.and_then(|welcome| serde_json::to_string(&welcome).ok());
    match text {
        Some(text) => HttpResponse::Ok().json(token.say(Speaker::Node, text)),
        None => refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "the node cannot read its own genesis.json and ca.pem",
        ),
    }
}

async fn list(admin: web::Data<Admin>) -> HttpResponse {
    let candidates = admin.reception.room.lock().candidates(Instant::now());
    let waiting = candidates.into_iter().map(|candidate| Waiting {
        fingerprint: candidate.fingerprint(),
        candidate,
    });
    HttpResponse::Ok().json(waiting.collect::<Vec<_>>())
}

async fn admit(fingerprint: web::Path<String>, body: web::Bytes, admin: web::Data<Admin>) -> HttpResponse {
    let Ok(admission) = serde_json::from_slice::<Admission>(&body) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "the body holds no certificates of this version",
        );
    };
    let reception = &admin.reception;
    let by = (reception.cluster, &*reception.operators);
    let admitted = reception.room.lock().admit(by, &fingerprint, admission);
    match admitted {
        Ok(()) => HttpResponse::NoContent().finish(),
        Err(turned) => turn(turned),
    }
}

async fn admission(fingerprint: web::Path<String>, admin: web::Data<Admin>) -> HttpResponse {
    match admin.reception.room.lock().admission(&fingerprint) {
        Ok(Some(admission)) => HttpResponse::Ok().json(admission),
        Ok(None) => HttpResponse::NoContent().finish(),
        Err(turned) => turn(turned),
    }
}

fn turn(turned: Turned) -> HttpResponse {
    let status = match turned {
        Turned::Full => StatusCode::TOO_MANY_REQUESTS,
        Turned::Token | Turned::Unsigned => StatusCode::FORBIDDEN,
        Turned::Fault(_) => StatusCode::BAD_REQUEST,
        Turned::Unknown => StatusCode::NOT_FOUND,
    };
    refuse(status, &turned.to_string())
}
