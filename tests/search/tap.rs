//! A capture of the loopback: what goes over the peer ports, stream by stream, must be TLS records and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};

/// One direction of a connection: ports of sender and receiver.
type Flow = (u16, u16);
/// What was captured of a stream.
struct Segments {
    /// Sequence number of the first: numbers begin anywhere, and go round.
    first: u32,
    /// By their place after it.
    by_place: BTreeMap<u32, Vec<u8>>,
}

impl Segments {
    fn beginning_at(first: u32) -> Self {
        let by_place = BTreeMap::new();
        Self { first, by_place }
    }

    fn insert(&mut self, number: u32, data: &[u8]) {
        let place = number.wrapping_sub(self.first);
        // The loopback shows every frame twice.
        self.by_place.entry(place).or_insert_with(|| data.to_vec());
    }
}

/// A capture that runs until it is asked for what it has.
pub(crate) struct Tap {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<HashMap<Flow, Segments>>,
}

impl Tap {
    /// Begins to capture TCP to and from these ports, in this thread's network namespace.
    pub(crate) fn begin(wanted: impl Fn(u16) -> bool + Send + 'static) -> nix::Result<Self> {
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )?;
        setsockopt(&socket, sockopt::RcvBuf, &(64 << 20))?;
        let wait = nix::sys::time::TimeVal::new(0, 100_000);
        setsockopt(&socket, sockopt::ReceiveTimeout, &wait)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut flows: HashMap<Flow, Segments> = HashMap::new();
            let mut frame = vec![0; 128 << 10];
            while !stopped.load(Ordering::Relaxed) {
                let Ok(length) = recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) else {
                    continue;
                };
                if let Some((flow, number, data)) = tcp(&frame[..length])
                    && (wanted(flow.0) || wanted(flow.1))
                    && !data.is_empty()
                {
                    let segments = flows
                        .entry(flow)
                        .or_insert_with(|| Segments::beginning_at(number));
                    segments.insert(number, data);
                }
            }
            flows
        });
        Ok(Self { stop, thread })
    }

    /// Everything that was captured, by flow, each from its first byte up to a gap.
    pub(crate) fn end(self) -> Vec<(Flow, Vec<u8>)> {
        self.stop.store(true, Ordering::Relaxed);
        let flows = self.thread.join().unwrap();
        flows
            .into_iter()
            .map(|(flow, segments)| (flow, joined(&segments)))
            .collect()
    }
}

/// Ports, sequence number and payload of a TCP segment over IPv4 in an Ethernet frame.
fn tcp(frame: &[u8]) -> Option<(Flow, u32, &[u8])> {
    let ip = frame.strip_prefix(&frame[..14])?;
    if frame.get(12..14)? != [8, 0] || ip.first()? >> 4 != 4 || *ip.get(9)? != 6 {
        return None;
    }
    let header = usize::from(ip[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes(ip.get(2..4)?.try_into().ok()?));
    // Offloaded segments may be longer than the field can say.
    let ip = if total == 0 { ip } else { ip.get(..total)? };
    let tcp = ip.get(header..)?;
    let port = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
    let place = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
    let data = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?;
    Some(((port(0)?, port(2)?), place, data))
}

fn joined(segments: &Segments) -> Vec<u8> {
    let mut stream = Vec::new();
    for (place, data) in &segments.by_place {
        let Some(known) = stream.len().checked_sub(*place as usize) else {
            break;
        };
        if let Some(new) = data.get(known..) {
            stream.extend_from_slice(new);
        }
    }
    stream
}

/// How many TLS records a stream is; the error is the place where it is something else.
pub(crate) fn records(stream: &[u8]) -> Result<usize, usize> {
    let (mut at, mut count) = (0, 0);
    while at + 5 <= stream.len() {
        let [kind, major, minor, high, low] = stream[at..at + 5] else {
            return Err(at);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if !(20..=23).contains(&kind) || major != 3 || minor > 4 || length > 16_384 + 256 {
            return Err(at);
        }
        at += 5 + length;
        count += 1;
    }
    Ok(count)
}

#[test]
fn a_stream_is_joined_across_the_end_of_its_numbers() {
    let mut segments = Segments::beginning_at(u32::MAX - 1);
    segments.insert(1, b"def");
    segments.insert(u32::MAX - 1, b"abc");
    segments.insert(0, b"cd");
    segments.insert(9, b"behind a gap");
    assert_eq!(joined(&segments), b"abcdef");
}

#[test]
fn what_is_no_tls_is_seen() {
    assert_eq!(records(&[22, 3, 1, 0, 2, 9, 9, 23, 3, 3, 0, 1, 0]), Ok(2));
    assert_eq!(
        records(&[22, 3, 1, 0, 2, 9, 9, b'G', b'E', b'T', b' ', b'/']),
        Err(7)
    );
}
