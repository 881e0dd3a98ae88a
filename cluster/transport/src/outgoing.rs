//! Dials one lane of one peer, for as long as the transport lives and it is a peer: connect, speak, wait a while, again.

use std::io;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, split};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::backoff::Backoff;
use crate::calls::Calls;
use crate::counters::Refusal;
use crate::formats::{Format, Formats};
use crate::frame::{Frame, FrameReader, ReadError, Verdict};
use crate::hello::{self, Hello};
use crate::network::Lane;
use crate::peers::{Connection, Outbound, PeerState, Shared};
use crate::queue::{QueueReceiver, queue};
use crate::settings::Boot;
use crate::tls::{refusal_of, speaks_our_protocol};
use crate::writer::write_queue;

/// Why an attempt to connect failed.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    Slow,
    #[error("refused here: {}", .0.label())]
    Refused(Refusal),
    /// Which side is to be upgraded follows from who is older.
    #[error("it speaks {theirs} and this build {own}: {}", upgrade(*.own, *.theirs))]
    NoFormat { own: Formats, theirs: Formats },
    #[error("the peer does not take this connection")]
    NotAccepted,
}

fn upgrade(own: Formats, theirs: Formats) -> &'static str {
    match own.highest() < theirs.highest() {
        true => "install a newer version on this node, one version after the other",
        false => "install a newer version on the peer, one version after the other",
    }
}

impl DialError {
    /// The peer's host is there and nobody listens.
    fn is_refused_by_the_host(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// Keeps a lane to a peer up until the transport ends, or the peer does.
pub(crate) async fn keep_up(
    shared: Arc<Shared>,
    peer: Arc<PeerState>,
    lane: Lane,
    config: Arc<ClientConfig>,
) {
    let mut rng = StdRng::from_entropy();
    let mut backoff = Backoff::new(shared.bounds.backoff_first, shared.bounds.backoff_most);
    let mut failures = 0_u64;
    // Where the connection led that was lost: another address that refuses says nothing of that process.
    let mut lost = None;
    while !shared.stopped() && !peer.is_ended() {
        let address = peer.address();
        let attempt = tokio::select! {
            attempt = timeout(shared.bounds.handshake, dial(&shared, &peer, &address, lane, &config)) => attempt,
            () = shared.until_over(&peer) => return,
        };
        match attempt.unwrap_or(Err(DialError::Slow)) {
            Ok((stream, boot, format)) => {
                failures = 0;
                let began = Instant::now();
                speak(&shared, &peer, lane, stream, (boot, format)).await;
                lost = (lane == Lane::Raft).then_some(address);
                // One that is taken and dropped at once is no better than one that is refused.
                if began.elapsed() >= shared.bounds.backoff_most {
                    backoff.reset();
                }
            }
            Err(error) => {
                failures += 1;
                let same_place = lost.take() == Some(address);
                if same_place && error.is_refused_by_the_host() && !peer.is_ended() {
                    shared.handler.gone(peer.node);
                }
                shared
                    .counters
                    .with(peer.node, |c| c.connect_failed[lane.index()].one());
                match error {
                    DialError::Refused(reason) => shared.counters.refuse(reason),
                    DialError::NoFormat { .. } => shared.counters.refuse(Refusal::Format),
                    _ => (),
                }
                if failures == 1 {
                    tracing::warn!(peer = peer.node, ?lane, %error, "cannot connect");
                } else {
                    tracing::debug!(peer = peer.node, ?lane, failures, %error, "cannot connect");
                }
            }
        }
        tokio::select! {
            () = sleep(backoff.wait(&mut rng)) => (),
            () = peer.lane(lane).poke.notified() => (),
            () = shared.until_over(&peer) => return,
        }
    }
}

async fn dial(
    shared: &Shared,
    peer: &PeerState,
    address: &str,
    lane: Lane,
    config: &Arc<ClientConfig>,
) -> Result<(TlsStream<TcpStream>, Boot, Format), DialError> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    // Never sent and never checked: the pinned key is the identity.
    let name = ServerName::try_from("node.conclave.internal").map_err(io::Error::other)?;
    let mut stream = TlsConnector::from(Arc::clone(config))
        .connect(name, tcp)
        .await
        .map_err(|error| match refusal_of(&error) {
            Refusal::Handshake => DialError::Io(error),
            refusal => DialError::Refused(refusal),
        })?;
    if !speaks_our_protocol(stream.get_ref().1) {
        return Err(DialError::Refused(Refusal::Handshake));
    }
    let own = Hello {
        formats: shared.formats,
        cluster: shared.cluster,
        from: shared.node,
        to: peer.node,
        boot: shared.boot,
        lane,
        accepted: true,
    };
    stream.write_all(&own.encode()).await?;
    stream.flush().await?;
    let mut bytes = [0; hello::SIZE];
    stream.read_exact(&mut bytes).await?;
    let theirs = Hello::formats(&bytes).map_err(DialError::Refused)?;
    let format = peer.states(theirs, shared.formats);
    let format = format.map_err(|_| DialError::NoFormat {
        own: shared.formats,
        theirs,
    })?;
    let theirs = Hello::decode(&bytes).map_err(DialError::Refused)?;
    theirs
        .check(&shared.cluster, peer.node, shared.node)
        .map_err(DialError::Refused)?;
    if theirs.lane != lane {
        return Err(DialError::Refused(Refusal::Hello));
    }
    if !theirs.accepted {
        return Err(DialError::NotAccepted);
    }
    Ok((stream, theirs.boot, format))
}

/// Publishes the connection, carries frames until it ends, and takes it back.
async fn speak(
    shared: &Shared,
    peer: &PeerState,
    lane: Lane,
    stream: TlsStream<TcpStream>,
    (boot, format): (Boot, Format),
) {
    let bounds = &shared.bounds;
    let (sender, mut receiver) = queue(
        bounds.queue_frames[lane.index()],
        bounds.queue_bytes[lane.index()],
    );
    let calls = Arc::new(Calls::default());
    let connection = Connection {
        queue: sender,
        calls: Arc::clone(&calls),
        boot,
        format,
    };
    peer.lane(lane).current.send_replace(Some(Arc::new(connection)));
    shared
        .counters
        .with(peer.node, |c| c.connected[lane.index()].one());
    peer.refresh_link(shared.handler.as_ref());

    let (reading, writing) = split(stream);
    let sent = |bytes| shared.counters.sent(peer.node, lane, bytes);
    tokio::select! {
        // First, so that nothing more is written to one that is let go.
        biased;
        () = shared.until_over(peer) => (),
        error = read_answers(shared, peer, lane, reading, &calls) => {
            match error {
                ReadError::Length(_) => shared.counters.refuse(Refusal::FrameLength),
                ReadError::Malformed => shared.counters.refuse(Refusal::Frame),
                ReadError::Io(_) | ReadError::Silent => (),
            }
            tracing::debug!(peer = peer.node, ?lane, %error, "connection ended");
        }
        ended = write_queue(writing, &mut receiver, Some(bounds.probe), bounds.silence, sent) => {
            tracing::debug!(peer = peer.node, ?lane, ?ended, "connection ended");
        }
    }

    peer.lane(lane).current.send_replace(None);
    count_lost(shared, peer, lane, receiver);
    calls.close();
    peer.refresh_link(shared.handler.as_ref());
}

/// Answers and pongs; anything else has no place on a connection that we dialled.
async fn read_answers(
    shared: &Shared,
    peer: &PeerState,
    lane: Lane,
    stream: ReadHalf<TlsStream<TcpStream>>,
    calls: &Calls,
) -> ReadError {
    let mut frames = FrameReader::new(stream, shared.bounds.payload_of(lane), shared.bounds.silence);
    loop {
        let frame = match frames.next().await {
            Ok(frame) => frame,
            Err(error) => return error,
        };
        let weight = frame.weight();
        match frame {
            Frame::Pong => (),
            Frame::Answer { id, verdict } if lane == Lane::Ceremony => {
                shared.counters.received(peer.node, lane, weight);
                if verdict == Verdict::Busy {
                    shared.counters.with(peer.node, |c| c.busy_there.one());
                }
                if !calls.answer(id, verdict) {
                    shared.counters.with(peer.node, |c| c.late.one());
                }
            }
            _ => return ReadError::Malformed,
        }
    }
}

fn count_lost(shared: &Shared, peer: &PeerState, lane: Lane, receiver: QueueReceiver<Outbound>) {
    let lost = receiver
        .close()
        .iter()
        .filter(|item| matches!(item, Outbound::Message(_)))
        .count();
    shared
        .counters
        .with(peer.node, |c| c.lost[lane.index()].add(lost as u64));
}
