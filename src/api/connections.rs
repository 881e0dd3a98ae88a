//! Clients' connections: a share of them for each address, and an end for those on which no request comes.
//!
//! The HTTP library ends a connection whose first head is late, and one on which nothing comes after an answer; but one byte of a
//! later head stops its clock for good. So connections are looked at from outside, too.

use std::any::Any;
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::Extensions;
use parking_lot::Mutex;

use super::edge::network;

/// A connection without a request under way for this long is ended.
const IDLE: Duration = Duration::from_secs(90);
/// How often it is looked for such.
const LOOK: Duration = Duration::from_secs(5);

/// All that are open.
pub(crate) struct Connections {
    /// As many may be one address's.
    share: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    of: HashMap<IpAddr, usize>,
    all: HashMap<u64, Weak<Connection>>,
    /// Ended since the start: beyond their address's share, and idle.
    refused: u64,
    idle: u64,
}

/// One of them; it leaves when it is dropped, with the library's own.
pub(super) struct Connection {
    number: u64,
    address: IpAddr,
    socket: TcpStream,
    use_: Mutex<Use>,
    among: Arc<Connections>,
}

struct Use {
    /// Requests under way.
    requests: usize,
    /// Since when there are so many.
    since: Instant,
}

/// What a request holds while it is under way.
pub(super) struct Serving(Arc<Connection>);

impl Connections {
    /// Of `limit`, one address has half at most.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            share: (limit / 2).max(1),
            open: Mutex::default(),
        })
    }

    /// How many are open; and how many were ended beyond their address's share, and as idle.
    pub(crate) fn count(&self) -> (u64, [(&'static str, u64); 2]) {
        let open = self.open.lock();
        (
            open.all.len() as u64,
            [("share", open.refused), ("idle", open.idle)],
        )
    }

    /// Takes in a connection that the library has accepted, or ends it.
    pub(super) fn accept(self: &Arc<Self>, io: &dyn Any, data: &mut Extensions) {
        let stream = io.downcast_ref::<TlsStream<actix_web::rt::net::TcpStream>>();
        let Some(stream) = stream.map(|stream| stream.get_ref().0) else {
            return;
        };
        // Another handle to the same socket: only to end it.
        let socket = stream.as_fd().try_clone_to_owned().map(TcpStream::from);
        if let (Ok(peer), Ok(socket)) = (stream.peer_addr(), socket)
            && let Some(connection) = self.admit(peer.ip(), socket, Instant::now())
        {
            data.insert(connection);
        }
    }

    fn admit(self: &Arc<Self>, address: IpAddr, socket: TcpStream, now: Instant) -> Option<Arc<Connection>> {
        let address = network(address);
        let mut open = self.open.lock();
        let own = open.of.entry(address).or_default();
        if *own >= self.share {
            open.refused += 1;
            end(&socket);
            return None;
        }
        *own += 1;
        open.next += 1;
        let connection = Arc::new(Connection {
            number: open.next,
            address,
            socket,
            use_: Mutex::new(Use {
                requests: 0,
                since: now,
            }),
            among: self.clone(),
        });
        open.all.insert(connection.number, Arc::downgrade(&connection));
        Some(connection)
    }

    /// Ends those that have been idle for too long, again and again, as long as there is a listener.
    pub(super) async fn watch(this: Weak<Self>) {
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            ticks.tick().await;
            match this.upgrade() {
                Some(connections) => connections.sweep(Instant::now()),
                None => return,
            }
        }
    }

    fn sweep(&self, now: Instant) {
        let all: Vec<Arc<Connection>> = (self.open.lock().all.values())
            .filter_map(Weak::upgrade)
            .collect();
        // Not under the lock: the last handle of one may be dropped here, which takes it.
        let idle = all.iter().filter(|connection| connection.is_idle(now));
        let ended = idle.map(|connection| end(&connection.socket)).count();
        self.open.lock().idle += ended as u64;
    }
}

/// Its task in the library sees the end and drops it. One that is closed already has no more to end.
fn end(socket: &TcpStream) {
    let _ = socket.shutdown(Shutdown::Both);
}

impl Connection {
    /// A request begins.
    pub(super) fn serve(self: &Arc<Self>) -> Serving {
        self.changes(|requests| requests + 1);
        Serving(self.clone())
    }

    fn changes(&self, count: impl FnOnce(usize) -> usize) {
        let mut in_use = self.use_.lock();
        in_use.requests = count(in_use.requests);
        in_use.since = Instant::now();
    }

    fn is_idle(&self, now: Instant) -> bool {
        let in_use = self.use_.lock();
        in_use.requests == 0 && now.saturating_duration_since(in_use.since) >= IDLE
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.changes(|requests| requests.saturating_sub(1));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.among.open.lock();
        open.all.remove(&self.number);
        if let Some(own) = open.of.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                open.of.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;

    /// Both ends of a new connection.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn is_ended(mut client: &TcpStream) -> bool {
        match client.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }

    fn address(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    #[test]
    fn one_address_has_its_share_and_gets_it_back() {
        let (connections, now) = (Connections::new(4), Instant::now());
        let mut open = Vec::new();
        for _ in 0..2 {
            let (client, server) = pair();
            open.push((connections.admit(address(1), server, now).unwrap(), client));
        }
        let (client, server) = pair();
        assert!(connections.admit(address(1), server, now).is_none());
        assert!(is_ended(&client) && !is_ended(&open[0].1));
        let (_other, server) = pair();
        let others = connections.admit(address(2), server, now).unwrap();
        assert_eq!(connections.count(), (3, [("share", 1), ("idle", 0)]));
        open.pop();
        let (_client, server) = pair();
        assert!(connections.admit(address(1), server, now).is_some());
        drop((open, others));
        assert_eq!(connections.count().0, 0);
        assert!(connections.open.lock().of.is_empty());
    }

    #[test]
    fn what_is_idle_is_ended_and_what_is_served_is_not() {
        let (connections, now) = (Connections::new(4), Instant::now());
        let [idle, busy] = [1, 2].map(|number| {
            let (client, server) = pair();
            (connections.admit(address(number), server, now).unwrap(), client)
        });
        let serving = busy.0.serve();
        connections.sweep(now + IDLE - Duration::from_secs(1));
        assert!(!is_ended(&idle.1) && !is_ended(&busy.1));
        connections.sweep(now + 2 * IDLE);
        assert!(is_ended(&idle.1) && !is_ended(&busy.1));
        // From its answer on it is idle.
        let ended = Instant::now();
        drop(serving);
        connections.sweep(ended + IDLE / 2);
        assert!(!is_ended(&busy.1));
        connections.sweep(ended + 2 * IDLE);
        assert!(is_ended(&busy.1));
    }
}
