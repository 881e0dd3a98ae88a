//! Tests of the admin listener, over real connections.

use std::sync::Mutex;

use bytes::Bytes;

use super::{super::client, *};
use crate::config::Hex32;
use crate::operator::{Change, Order};
use crate::seal::unseal::{Attempts, door};

const TIMEOUT: Duration = Duration::from_secs(60);

struct Running {
    admin: String,
    verdict: Arc<Mutex<Result<(), NotReady>>>,
    attempts: Option<Attempts>,
    _server: actix_web::rt::task::JoinHandle<io::Result<()>>,
}

fn start() -> Running {
    let (door, attempts) = door();
    let verdict = Arc::new(Mutex::new(Err(NotReady::sealed())));
    let (asked, judged) = (verdict.clone(), verdict.clone());
    let admin = Admin {
        node: 7,
        ready: Arc::new(move || asked.lock().unwrap().clone()),
        health: Arc::new(move || Health {
            health: match judged.lock().unwrap().is_ok() {
                true => Word::Degraded,
                false => Word::Unhealthy,
            },
            concerns: vec!["a concern".into()],
        }),
        status: Arc::new(|| serde_json::json!({ "node": 7 })),
        symmetric: Arc::new(|| serde_json::json!({ "keys": 5 })),
        orders_so_far: Arc::new(|| None),
        orders: Arc::new(|order| {
            let fits = order.order.sequence == 1;
            let problem = || Problem::new(409, "InvalidStateError", "the next one is 1");
            Box::pin(async move { fits.then_some(()).ok_or_else(problem) })
        }),
        backup: Arc::new(|| Err(NotReady::sealed())),
        metrics: Metrics::new(),
        door,
        reception: Reception::new(Hex32([1; 32]), &[], || None),
    };
    let (server, address) = serve("127.0.0.1:0".parse().unwrap(), admin).unwrap();
    Running {
        admin: address.to_string(),
        verdict,
        attempts: Some(attempts),
        _server: actix_web::rt::spawn(server),
    }
}

#[actix_web::test]
async fn health_tells_life_from_readiness() {
    let running = start();
    let live = client::get(&running.admin, "/health/live", TIMEOUT)
        .await
        .unwrap();
    let live: Live = serde_json::from_slice(&live.body).unwrap();
    assert_eq!(
        live,
        Live {
            live: true,
            node: 7,
            pid: std::process::id()
        }
    );
    let ready = client::get(&running.admin, "/health/ready", TIMEOUT)
        .await
        .unwrap();
    assert_eq!(ready.status.as_u16(), 503);
    let body: Readiness = serde_json::from_slice(&ready.body).unwrap();
    assert_eq!(
        (body.ready, body.reason.as_deref()),
        (false, Some("the node is sealed"))
    );
    assert!(body.hint.unwrap().contains("conclave unseal"));
    *running.verdict.lock().unwrap() = Ok(());
    let ready = client::get(&running.admin, "/health/ready", TIMEOUT)
        .await
        .unwrap();
    assert_eq!(
        (ready.status.as_u16(), ready.body.as_ref()),
        (200, br#"{"ready":true}"#.as_slice())
    );
}

#[actix_web::test]
async fn health_is_a_word_with_its_concerns() {
    let running = start();
    let health = client::get(&running.admin, "/health", TIMEOUT).await.unwrap();
    assert_eq!(health.status.as_u16(), 503);
    *running.verdict.lock().unwrap() = Ok(());
    let health = client::get(&running.admin, "/health", TIMEOUT).await.unwrap();
    let told = br#"{"health":"degraded","concerns":["a concern"]}"#.as_slice();
    assert_eq!((health.status.as_u16(), health.body.as_ref()), (200, told));
}

#[actix_web::test]
async fn metrics_and_status_are_answered_and_nothing_else_is() {
    let running = start();
    let metrics = client::get(&running.admin, "/metrics", TIMEOUT).await.unwrap();
    assert!(String::from_utf8_lossy(&metrics.body).ends_with("# EOF\n"));
    let status = client::get(&running.admin, "/status", TIMEOUT).await.unwrap();
    assert_eq!(status.body.as_ref(), br#"{"node":7}"#);
    for path in ["/", "/kms/keystores", "/unseal"] {
        let answer = client::get(&running.admin, path, TIMEOUT).await.unwrap();
        assert!(
            matches!(answer.status.as_u16(), 404 | 405),
            "{path}: {}",
            answer.status
        );
    }
}

#[actix_web::test]
async fn an_order_reaches_the_node_and_its_answer_the_caller() {
    let running = start();
    let order = |sequence| {
        let order = Order {
            cluster: Hex32([1; 32]),
            sequence,
            change: Change::RenewShares,
        };
        SignedOrder::new(order).to_json()
    };
    let too_long = vec![b' '; MAX_ORDER + 1];
    for (body, status) in [
        (order(1), 204),
        (order(2), 409),
        (b"{}".to_vec(), 400),
        (too_long, 413),
    ] {
        let answer = client::post(&running.admin, "/orders", body.into(), TIMEOUT).await;
        assert_eq!(answer.unwrap().status.as_u16(), status);
    }
}

#[actix_web::test]
async fn a_passphrase_reaches_the_seal_and_its_answer_the_caller() {
    let mut running = start();
    let mut attempts = running.attempts.take().unwrap();
    let replies = [
        (UnsealReply::Wrong, 403),
        (UnsealReply::TooSoon { seconds: 4 }, 429),
        (
            UnsealReply::Unusable {
                reason: "damaged".to_owned(),
            },
            500,
        ),
        (UnsealReply::Opened, 204),
    ];
    for (reply, status) in replies {
        let post = client::post(
            &running.admin,
            "/unseal",
            Bytes::from_static(b"open sesame\n"),
            TIMEOUT,
        );
        let inner = async {
            let (passphrase, answer) = attempts.receive().await.unwrap().split();
            assert_eq!(*passphrase, b"open sesame");
            answer.send(reply.clone());
        };
        let (answer, ()) = futures::join!(post, inner);
        let answer = answer.unwrap();
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.retry_after, (status == 429).then_some(4));
    }
    drop(attempts);
    let answer = client::post(&running.admin, "/unseal", Bytes::from_static(b"again"), TIMEOUT)
        .await
        .unwrap();
    assert_eq!(answer.status.as_u16(), 409);
}

#[actix_web::test]
async fn a_passphrase_is_bounded_before_it_is_tried() {
    let running = start();
    for (length, status) in [(0, 400), (MAX_PASSPHRASE + 3, 413), (1 << 20, 413)] {
        let body = Bytes::from(vec![b'x'; length]);
        match client::post(&running.admin, "/unseal", body, TIMEOUT).await {
            Ok(answer) => assert_eq!(answer.status.as_u16(), status, "{length}"),
            // The listener may close before all of an endless body is sent.
            Err(error) => assert!(length > 1 << 16, "{length}: {error}"),
        }
    }
}

#[actix_web::test]
async fn a_machine_is_seen_with_a_token_only() {
    use crate::provision::candidate::tests::candidate;
    use crate::provision::candidate::{Speaker, Token};
    use reception::{Invited, Waiting};

    let running = start();
    let admin = &running.admin;
    let candidate = candidate(4, &mut rand::rngs::OsRng);
    let text = serde_json::to_string(&candidate).unwrap();
    let present = |token: &Token| {
        let spoken = serde_json::to_vec(&token.say(Speaker::Candidate, text.clone())).unwrap();
        client::post(admin, "/candidates", Bytes::from(spoken), TIMEOUT)
    };
    let stranger = Token::generate([1; 32], &mut rand::rngs::OsRng);
    let seen = async || {
        let answer = client::get(admin, "/candidates", TIMEOUT).await.unwrap();
        serde_json::from_slice::<Vec<Waiting>>(&answer.body).unwrap()
    };
    assert_eq!(present(&stranger).await.unwrap().status.as_u16(), 403);
    assert!(seen().await.is_empty());

    let invited = client::post(admin, "/candidates/invitation", Bytes::new(), TIMEOUT).await;
    let invited: Invited = serde_json::from_slice(&invited.unwrap().body).unwrap();
    let token: Token = invited.token.parse().unwrap();
    // This one has no files to welcome it with, and says so; it is seen all the same.
    assert_eq!(present(&token).await.unwrap().status.as_u16(), 503);
    let fingerprint = candidate.fingerprint();
    assert_eq!(
        seen().await,
        [Waiting {
            fingerprint: fingerprint.clone(),
            candidate
        }]
    );

    let path = format!("/candidates/{fingerprint}/admission");
    let none_yet = client::get(admin, &path, TIMEOUT).await.unwrap();
    assert_eq!(none_yet.status.as_u16(), 204);
    let nonsense = client::post(admin, &path, Bytes::from_static(b"{}"), TIMEOUT)
        .await
        .unwrap();
    assert_eq!(nonsense.status.as_u16(), 400);
    let nobody = client::get(admin, "/candidates/0000/admission", TIMEOUT)
        .await
        .unwrap();
    assert_eq!(nobody.status.as_u16(), 404);
}
