//! Accepts from every peer: bounded handshakes, one connection per peer and lane, messages and calls to the handler.
//!
//! A stranger costs a bounded number of half-open connections, each for a bounded time; when there are too many, the
//! *oldest* goes, so that whoever is quick (every peer is) gets in while somebody floods.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::counters::Refusal;
use crate::frame::{Frame, FrameReader, ReadError, Verdict};
use crate::hello::{self, Hello};
use crate::network::Lane;
use crate::peers::{Outbound, PeerState, Shared};
use crate::queue::{QueueSender, queue};
use crate::tls::{public_key_of, refusal_of, speaks_our_protocol};
use crate::writer::write_queue;

/// Handshakes under way, oldest first.
#[derive(Default)]
struct HalfOpen {
    next: u64,
    handshakes: BTreeMap<u64, AbortHandle>,
}

/// Accepts until the transport ends.
pub(crate) async fn accept_all(shared: Arc<Shared>, listener: TcpListener) {
    let half_open = Arc::new(Mutex::new(HalfOpen::default()));
    let mut pause = Duration::from_millis(10);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.until_stopped() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                pause = Duration::from_millis(10);
                shared.counters.accepted.one();
                admit(&shared, &half_open, stream);
            }
            Err(error) if one_connection_only(&error) => (),
            Err(error) => {
                // Out of file descriptors or memory: accepting again at once would only spin.
                shared.counters.accept_failed.one();
                tracing::warn!(%error, ?pause, "cannot accept");
                tokio::select! {
                    () = sleep(pause) => (),
                    () = shared.until_stopped() => return,
                }
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

fn one_connection_only(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

fn admit(shared: &Arc<Shared>, half_open: &Arc<Mutex<HalfOpen>>, stream: TcpStream) {
    let task = shared.task();
    let shared = Arc::clone(shared);
    // Locked over the spawn: the task finds its own handle in the table however fast it is.
    let mut table = half_open.lock();
    let id = table.next;
    table.next += 1;
    let half_open = Arc::clone(half_open);
    let most = shared.bounds.half_open;
    let counters = Arc::clone(&shared);
    let handle = tokio::spawn(async move {
        let _task = task;
        tokio::select! {
            () = serve(&shared, &half_open, id, stream) => (),
            () = shared.until_stopped() => (),
        }
    });
    table.handshakes.insert(id, handle.abort_handle());
    if table.handshakes.len() > most
        && let Some((_, oldest)) = table.handshakes.pop_first()
    {
        oldest.abort();
        counters.counters.refuse(Refusal::TooManyHandshakes);
    }
}

async fn serve(shared: &Arc<Shared>, half_open: &Mutex<HalfOpen>, id: u64, stream: TcpStream) {
    let shaken = timeout(shared.bounds.handshake, shake_hands(shared, stream)).await;
    let Some(handle) = half_open.lock().handshakes.remove(&id) else {
        return;
    };
    let (stream, peer, lane) = match shaken.unwrap_or(Err(Refusal::SlowHandshake)) {
        Ok(shaken) => shaken,
        Err(reason) => {
            shared.counters.refuse(reason);
            tracing::debug!(reason = reason.label(), "connection refused");
            return;
        }
    };
    if let Some(older) = peer.lane(lane).reader.lock().replace(handle)
        && !older.is_finished()
    {
        older.abort();
        shared
            .counters
            .with(peer.node, |c| c.replaced[lane.index()].one());
    }
    // The peer is alive: no need to wait for the next attempt to reach it.
    peer.poke();
    let listening = async {
        let _order = peer.lane(lane).order.lock().await;
        listen(shared, &peer, lane, stream).await;
    };
    tokio::select! {
        biased;
        () = peer.until_ended() => (),
        () = listening => (),
    }
}

async fn shake_hands(
    shared: &Shared,
    tcp: TcpStream,
) -> Result<(TlsStream<TcpStream>, Arc<PeerState>, Lane), Refusal> {
    tcp.set_nodelay(true).map_err(|_| Refusal::Handshake)?;
    let acceptor = TlsAcceptor::from(Arc::clone(&shared.tls.server));
    let mut stream = acceptor.accept(tcp).await.map_err(|error| refusal_of(&error))?;
    let connection = stream.get_ref().1;
    if !speaks_our_protocol(connection) {
        return Err(Refusal::Handshake);
    }
    let certificate = connection.peer_certificates().and_then(|chain| chain.first());
    let key = certificate.and_then(public_key_of).ok_or(Refusal::PublicKey)?;
    let peer = shared.peers.by_key(&key).ok_or(Refusal::PublicKey)?;

    let mut bytes = [0; hello::SIZE];
    stream
        .read_exact(&mut bytes)
        .await
        .map_err(|_| Refusal::Handshake)?;
    // Taken off the list since: a stranger, who is not answered.
    if peer.is_ended() {
        return Err(Refusal::PublicKey);
    }
    let stated = Hello::formats(&bytes)?;
    // The rest of a hello of formats that this build does not know may mean anything.
    let (lane, verdict) = match peer.states(stated, shared.formats) {
        Err(reason) => (Lane::Raft, Err(reason)),
        Ok(_) => {
            let theirs = Hello::decode(&bytes)?;
            let verdict = theirs.check(&shared.cluster, peer.node, shared.node);
            (theirs.lane, verdict)
        }
    };
    let own = Hello {
        formats: shared.formats,
        cluster: shared.cluster,
        from: shared.node,
        to: peer.node,
        boot: shared.boot,
        lane,
        accepted: verdict.is_ok(),
    };
    // Also to one that is refused: its operator then reads why in its own log.
    stream
        .write_all(&own.encode())
        .await
        .map_err(|_| Refusal::Handshake)?;
    stream.flush().await.map_err(|_| Refusal::Handshake)?;
    verdict?;
    Ok((stream, peer, lane))
}

/// Reads what the peer sends and writes the answers, until the connection ends.
async fn listen(shared: &Arc<Shared>, peer: &Arc<PeerState>, lane: Lane, stream: TlsStream<TcpStream>) {
    let bounds = &shared.bounds;
    let (reading, writing) = split(stream);
    // Room for every answer that may be owed, and as many refusals.
    let (answers, mut waiting) = queue(2 * bounds.calls + 16, bounds.queue_bytes[lane.index()]);
    let sent = |bytes| shared.counters.sent(peer.node, lane, bytes);
    tokio::select! {
        error = read_requests(shared, peer, lane, reading, answers) => {
            match error {
                ReadError::Length(_) => shared.counters.refuse(Refusal::FrameLength),
                ReadError::Malformed => shared.counters.refuse(Refusal::Frame),
                ReadError::Io(_) | ReadError::Silent => (),
            }
            tracing::debug!(peer = peer.node, ?lane, %error, "incoming connection ended");
        }
        ended = write_queue(writing, &mut waiting, None, bounds.silence, sent) => {
            tracing::debug!(peer = peer.node, ?lane, ?ended, "incoming connection ended");
        }
    }
}

async fn read_requests(
    shared: &Arc<Shared>,
    peer: &Arc<PeerState>,
    lane: Lane,
    stream: ReadHalf<TlsStream<TcpStream>>,
    answers: QueueSender<Outbound>,
) -> ReadError {
    let mut frames = FrameReader::new(stream, shared.bounds.payload_of(lane), shared.bounds.silence);
    // Dropped with the connection, and the calls with it.
    let mut calls = JoinSet::new();
    loop {
        let frame = match frames.next().await {
            Ok(frame) => frame,
            Err(error) => return error,
        };
        // Many frames may be in the buffer; none of them is handled any more.
        if peer.is_ended() {
            return ReadError::Io(io::ErrorKind::ConnectionAborted.into());
        }
        let weight = frame.weight();
        match frame {
            Frame::Ping => {
                // No room means that answers are on their way, which say the same.
                let _ = answers.try_push(Outbound::Pong, 0);
            }
            Frame::Message(payload) if lane != Lane::Ceremony => {
                shared.counters.received(peer.node, lane, weight);
                shared.handler.message(peer.node, lane, payload);
            }
            Frame::Call { id, left, payload } if lane == Lane::Ceremony => {
                shared.counters.received(peer.node, lane, weight);
                while calls.try_join_next().is_some() {}
                let Ok(room) = Arc::clone(&peer.calls_in).try_acquire_owned() else {
                    shared.counters.with(peer.node, |c| c.busy_answered.one());
                    if answers
                        .push(
                            Outbound::Answer {
                                id,
                                verdict: Verdict::Busy,
                            },
                            0,
                        )
                        .await
                        .is_err()
                    {
                        return ReadError::Io(io::ErrorKind::BrokenPipe.into());
                    }
                    continue;
                };
                let owed = Owed {
                    id,
                    answers: answers.clone(),
                    open: true,
                };
                calls.spawn(answer(
                    Arc::clone(shared),
                    Arc::clone(peer),
                    payload,
                    left,
                    owed,
                    room,
                ));
            }
            _ => return ReadError::Malformed,
        }
    }
}

async fn answer(
    shared: Arc<Shared>,
    peer: Arc<PeerState>,
    payload: Bytes,
    left: Duration,
    owed: Owed,
    room: OwnedSemaphorePermit,
) {
    let left = left.min(shared.bounds.call_time);
    let result = timeout(left, async {
        shared.handler.call(peer.node, payload, left).await
    })
    .await;
    let Ok(result) = result else { return owed.forget() };
    let verdict = match result {
        Ok(bytes) if bytes.len() > shared.bounds.payload_of(Lane::Ceremony) => {
            tracing::warn!(
                peer = peer.node,
                bytes = bytes.len(),
                "an answer is above the lane's bound"
            );
            Verdict::Failed
        }
        result => Verdict::from(result),
    };
    // Before the answer: a caller that has it may call again at once.
    drop(room);
    owed.give(verdict).await;
}

/// An answer that the peer waits for. Dropped without one (the handler panicked), it says *failed*.
struct Owed {
    id: u64,
    answers: QueueSender<Outbound>,
    open: bool,
}

impl Owed {
    async fn give(mut self, verdict: Verdict) {
        self.open = false;
        let outbound = Outbound::Answer { id: self.id, verdict };
        let size = match &outbound {
            Outbound::Answer {
                verdict: Verdict::Done(bytes),
                ..
            } => bytes.len(),
            _ => 0,
        };
        // An error means that the connection has ended: the caller knows.
        let _ = self.answers.push(outbound, size).await;
    }

    /// The caller's time is over: nobody waits.
    fn forget(mut self) {
        self.open = false;
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if self.open {
            let outbound = Outbound::Answer {
                id: self.id,
                verdict: Verdict::Failed,
            };
            let _ = self.answers.try_push(outbound, 0);
        }
    }
}
