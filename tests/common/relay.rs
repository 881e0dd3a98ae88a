//! A TCP relay on the cluster's public port: connections go to the nodes in turn, a dead one is skipped, and each
//! is counted. It sees bytes of TLS only. A control port of plain HTTP lets the clients' tests choose a node.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[derive(Default)]
struct State {
    nodes: Vec<SocketAddr>,
    counts: Vec<u64>,
    next: usize,
    pinned: Option<usize>,
}

/// The relay; it ends when it is dropped.
pub(crate) struct Relay {
    /// The port that the public URL names.
    pub(crate) port: u16,
    /// Where the control listens: `GET /counts`, `POST /pin/N`, `POST /turns`.
    pub(crate) control: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Listens at once, so that the port can be named before any node runs.
    pub(crate) async fn listen() -> Relay {
        let state = Arc::new(Mutex::new(State::default()));
        let mut tasks = JoinSet::new();
        let public = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = public.local_addr().unwrap().port();
        tasks.spawn(relay(public, Arc::clone(&state)));
        // `localhost` may mean either; a machine without IPv6 has only the first.
        if let Ok(public) = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await {
            tasks.spawn(relay(public, Arc::clone(&state)));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let control = listener.local_addr().unwrap();
        tasks.spawn(answer(listener, Arc::clone(&state)));
        Relay {
            port,
            control,
            state,
            _tasks: tasks,
        }
    }

    /// Where the bytes go from now on.
    pub(crate) fn set_nodes(&self, nodes: Vec<SocketAddr>) {
        let mut state = self.state.lock().unwrap();
        state.counts = vec![0; nodes.len()];
        state.nodes = nodes;
    }

    /// Sends every connection to this node (from 0), or with `None` to all in turn.
    pub(crate) fn pin(&self, node: Option<usize>) {
        self.state.lock().unwrap().pinned = node;
    }

    /// How many connections each node got.
    pub(crate) fn counts(&self) -> Vec<u64> {
        self.state.lock().unwrap().counts.clone()
    }
}

async fn relay(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            if let Some(mut node) = connect(&state).await {
                // Whoever breaks it off first, the other one learns.
                let _ = copy_bidirectional(&mut client, &mut node).await;
            }
        });
    }
}

/// A connection to the node whose turn it is, or to the next one that lives.
async fn connect(state: &Mutex<State>) -> Option<TcpStream> {
    let order: Vec<(usize, SocketAddr)> = {
        let mut state = state.lock().unwrap();
        let all = state.nodes.len();
        match state.pinned {
            Some(node) => vec![(node, *state.nodes.get(node)?)],
            None => {
                let first = state.next;
                state.next += 1;
                (first..first + all)
                    .map(|at| (at % all, state.nodes[at % all]))
                    .collect()
            }
        }
    };
    for (node, address) in order {
        if let Ok(stream) = TcpStream::connect(address).await {
            state.lock().unwrap().counts[node] += 1;
            return Some(stream);
        }
    }
    None
}

async fn answer(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut lines = BufReader::new(&mut client).lines();
        let Ok(Some(first)) = lines.next_line().await else {
            continue;
        };
        while lines
            .next_line()
            .await
            .is_ok_and(|line| line.is_some_and(|line| !line.is_empty()))
        {}
        let path = first.split(' ').nth(1).unwrap_or_default();
        let (status, connections) = {
            let mut state = state.lock().unwrap();
            let known = match (
                path,
                path.strip_prefix("/pin/")
                    .and_then(|node| node.parse::<usize>().ok()),
            ) {
                ("/counts", _) => true,
                ("/turns", _) => {
                    state.pinned = None;
                    true
                }
                (_, Some(node)) if node < state.nodes.len() => {
                    state.pinned = Some(node);
                    true
                }
                _ => false,
            };
            (
                if known { "200 OK" } else { "404 Not Found" },
                state.counts.clone(),
            )
        };
        let body = serde_json::json!({ "connections": connections }).to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let _ = client.write_all(format!("{head}{body}").as_bytes()).await;
    }
}
