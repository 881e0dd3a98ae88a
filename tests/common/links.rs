//! Proxies on the links between nodes. A link is TLS over TCP: its bytes can be late, come in small pieces, stop coming, or
//! end with a reset; none of them can be lost, doubled or reordered inside a stream without TLS ending the connection. So
//! loss is a reset here: what was under way is gone, and the nodes dial again. Loss, duplication and reordering of single
//! messages is the simulator's.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// What the links do to what goes over them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// The shortest and the longest delay of a piece, milliseconds, one way.
    pub(crate) delay: (u64, u64),
    /// Longest piece, bytes.
    pub(crate) piece: usize,
    /// Chance that a connection is reset, for each piece.
    pub(crate) reset: f64,
}

/// Nothing is done.
pub(crate) const FAIR: Weather = Weather {
    delay: (0, 0),
    piece: 64 * 1024,
    reset: 0.0,
};

/// Pieces that wait on a link, each way, before the sender is held back.
const WAITING: usize = 256;

/// One proxy for each ordered pair of nodes; they end when they are dropped.
pub(crate) struct Links {
    /// `[from][to]`: what `from` dials for `to`.
    pub(crate) addresses: Vec<Vec<SocketAddr>>,
    weather: watch::Sender<Weather>,
    resets: Arc<Mutex<u64>>,
    _tasks: JoinSet<()>,
}

impl Links {
    /// Before the nodes at these addresses.
    pub(crate) async fn before(nodes: &[SocketAddr], seed: u64) -> Links {
        let (weather, resets) = (watch::channel(FAIR).0, Arc::default());
        let (mut addresses, mut tasks) = (Vec::new(), JoinSet::new());
        let mut random = StdRng::seed_from_u64(seed);
        for _ in nodes {
            let mut row = Vec::new();
            for to in nodes {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                row.push(listener.local_addr().unwrap());
                let link = Link {
                    to: *to,
                    weather: weather.subscribe(),
                    random: StdRng::from_rng(&mut random).unwrap(),
                    resets: Arc::clone(&resets),
                };
                tasks.spawn(link.accept(listener));
            }
            addresses.push(row);
        }
        Links {
            addresses,
            weather,
            resets,
            _tasks: tasks,
        }
    }

    /// From now on.
    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Connections that were reset until now.
    pub(crate) fn resets(&self) -> u64 {
        *self.resets.lock().unwrap()
    }
}

struct Link {
    to: SocketAddr,
    weather: watch::Receiver<Weather>,
    random: StdRng,
    resets: Arc<Mutex<u64>>,
}

impl Link {
    async fn accept(mut self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        while let Ok((dialler, _)) = listener.accept().await {
            let there = self.fork();
            let back = self.fork();
            connections.spawn(async move {
                let Ok(dialled) = TcpStream::connect(there.to).await else {
                    return;
                };
                for stream in [&dialler, &dialled] {
                    // Else what is left after a reset is delivered first.
                    let _ = stream.set_zero_linger();
                    let _ = stream.set_nodelay(true);
                }
                let ((from, to), (other_from, other_to)) = (dialler.into_split(), dialled.into_split());
                // Whichever way ends ends both: both sockets are dropped, which resets them.
                tokio::select! {
                    () = there.carry(from, other_to) => {}
                    () = back.carry(other_from, to) => {}
                }
            });
        }
    }

    fn fork(&mut self) -> Link {
        Link {
            to: self.to,
            weather: self.weather.clone(),
            random: StdRng::from_rng(&mut self.random).unwrap(),
            resets: Arc::clone(&self.resets),
        }
    }

    /// Carries one way until an end closes or the weather resets it.
    async fn carry(
        mut self,
        mut from: tokio::net::tcp::OwnedReadHalf,
        mut to: tokio::net::tcp::OwnedWriteHalf,
    ) {
        let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(WAITING);
        let take = async move {
            let mut last = Instant::now();
            loop {
                let Weather { delay, piece, reset } = *self.weather.borrow();
                let mut bytes = vec![0; piece];
                let Ok(length @ 1..) = from.read(&mut bytes).await else {
                    return;
                };
                if self.random.gen_bool(reset) {
                    *self.resets.lock().unwrap() += 1;
                    return;
                }
                bytes.truncate(length);
                let delay = Duration::from_millis(self.random.gen_range(delay.0..=delay.1));
                // In order, as TCP has it: what is behind a late piece is late as well.
                last = last.max(Instant::now() + delay);
                if sender.send((last, bytes)).await.is_err() {
                    return;
                }
            }
        };
        let give = async move {
            while let Some((due, bytes)) = pieces.recv().await {
                sleep_until(due).await;
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = take => {}
            () = give => {}
        }
    }
}
