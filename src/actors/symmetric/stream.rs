//! Segments of garbled circuits on the bulk lane: what a garbler sends before its answer, and the evaluator's word that it
//! has taken one, without which no more than [`WINDOW`] of them are under way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use conclave_garbled::session::Head;
use conclave_transport::Lane;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use crate::actors::parts::Parts;
use crate::actors::wire::CIRCUITS;

/// Bytes of tables in a segment, or a little more.
pub(crate) const SEGMENT: usize = 128 * 1024;
/// Segments of one garbling that are under way.
pub(crate) const WINDOW: usize = 4;
/// Longest wait for room, here or at the evaluator.
const PATIENCE: Duration = Duration::from_secs(5);
/// Garblings that this node does for one evaluator at a time: with all their windows full, less than the lane's queue
/// holds, so that consensus finds room in it.
const MAX_GARBLINGS: usize = 14;
/// Computations that this node evaluates at a time; others wait.
pub(crate) const MAX_EVALUATIONS: usize = 12;
/// Longest segment that is taken.
const LONGEST: usize = 2 * SEGMENT;

/// A frame on the bulk lane, beside the number of its garbling, which the evaluator drew.
pub(crate) enum Segment {
    /// The first garbler's first message.
    Head(Head),
    /// The second garbler's.
    Openings(Bytes),
    /// The next tables.
    Tables(Bytes),
    /// The evaluator has taken one segment of tables.
    Taken,
}

impl Segment {
    /// The lane's tag, the number, a byte for the kind, and the rest as it is.
    fn encode(&self, number: u64) -> Bytes {
        let (kind, body): (u8, Bytes) = match self {
            Self::Head(head) => (0, postcard::to_stdvec(head).unwrap_or_default().into()),
            Self::Openings(openings) => (1, openings.clone()),
            Self::Tables(tables) => (2, tables.clone()),
            Self::Taken => (3, Bytes::new()),
        };
        let mut frame = BytesMut::with_capacity(10 + body.len());
        frame.put_u8(CIRCUITS);
        frame.put_u64(number);
        frame.put_u8(kind);
        frame.put(body);
        frame.freeze()
    }

    /// Reads what follows the lane's tag.
    fn decode(mut frame: Bytes) -> Option<(u64, Self)> {
        if frame.len() < 9 {
            return None;
        }
        let (number, kind) = (frame.get_u64(), frame.get_u8());
        let segment = match kind {
            0 => match postcard::take_from_bytes(&frame) {
                Ok((head, [])) => Self::Head(head),
                _ => return None,
            },
            1 => Self::Openings(frame),
            2 => Self::Tables(frame),
            3 if frame.is_empty() => Self::Taken,
            _ => return None,
        };
        Some((number, segment))
    }
}

/// Where segments go.
pub(crate) struct Streams {
    /// Computations that may be evaluated beside those that are.
    evaluations: Semaphore,
    /// By the number that this node drew as the evaluator.
    arriving: Mutex<HashMap<u64, Arriving>>,
    /// By evaluator and number: room for more.
    leaving: Mutex<HashMap<(u64, u64), Arc<Semaphore>>>,
}

struct Arriving {
    garblers: [u64; 2],
    segments: mpsc::Sender<(u64, Segment)>,
}

/// What arrives of one garbling; ends with it.
pub(crate) struct Arrivals<'a> {
    parts: &'a Parts,
    number: u64,
    segments: mpsc::Receiver<(u64, Segment)>,
}

/// A garbling of this node's for an evaluator; ends with it.
pub(crate) struct Departures<'a> {
    parts: &'a Parts,
    evaluator: u64,
    number: u64,
    room: Arc<Semaphore>,
}

/// The evaluator does not take what it asked for.
#[derive(Debug)]
pub(crate) struct Stuck;

impl Default for Streams {
    fn default() -> Self {
        Self {
            evaluations: Semaphore::new(MAX_EVALUATIONS),
            arriving: Mutex::default(),
            leaving: Mutex::default(),
        }
    }
}

impl Streams {
    /// Waits until this node may evaluate one more.
    pub(crate) async fn admit(&self) -> Option<SemaphorePermit<'_>> {
        let admitted = tokio::time::timeout(PATIENCE, self.evaluations.acquire()).await;
        admitted.ok()?.ok()
    }

    /// A frame of a peer, without the lane's tag; one that nobody waits for is dropped.
    pub(crate) fn receive(&self, from: u64, frame: Bytes) {
        if frame.len() > LONGEST {
            return;
        }
        let Some((number, segment)) = Segment::decode(frame) else {
            return;
        };
        if let Segment::Taken = segment {
            let room = self.leaving.lock().get(&(from, number)).cloned();
            if let Some(room) = room.filter(|room| room.available_permits() < WINDOW) {
                room.add_permits(1);
            }
            return;
        }
        let mut arriving = self.arriving.lock();
        let of = arriving.get(&number).filter(|of| of.garblers.contains(&from));
        // More than the window has: nothing more of that garbling is taken.
        if of.is_some_and(|of| of.segments.try_send((from, segment)).is_err()) {
            arriving.remove(&number);
        }
    }
}

impl<'a> Arrivals<'a> {
    /// Takes what two garblers send of a garbling.
    pub(crate) fn open(parts: &'a Parts, number: u64, garblers: [u64; 2]) -> Self {
        // A head, openings, and what the window lets be under way.
        let (sender, segments) = mpsc::channel(2 + WINDOW);
        let arriving = Arriving {
            garblers,
            segments: sender,
        };
        parts.symmetric.streams.arriving.lock().insert(number, arriving);
        Self {
            parts,
            number,
            segments,
        }
    }

    /// The next segment and who sent it; none when nothing more can come.
    pub(crate) async fn next(&mut self) -> Option<(u64, Segment)> {
        self.segments.recv().await
    }

    /// Lets the first garbler send one more; waits for room on the lane.
    pub(crate) async fn taken(&self, garbler: u64) {
        let taken = Segment::Taken.encode(self.number);
        let sent = self
            .parts
            .network
            .send_when_free(garbler, Lane::Bulk, taken, PATIENCE);
        // Where it cannot be sent the garbler ends by itself.
        let _ = sent.await;
    }
}

impl Drop for Arrivals<'_> {
    fn drop(&mut self) {
        self.parts.symmetric.streams.arriving.lock().remove(&self.number);
    }
}

impl<'a> Departures<'a> {
    /// Begins to send; none if there are too many for this evaluator.
    pub(crate) fn open(parts: &'a Parts, evaluator: u64, number: u64) -> Option<Self> {
        let mut leaving = parts.symmetric.streams.leaving.lock();
        let under_way = leaving.keys().filter(|(other, _)| *other == evaluator).count();
        if under_way >= MAX_GARBLINGS || leaving.contains_key(&(evaluator, number)) {
            return None;
        }
        let room = Arc::new(Semaphore::new(WINDOW));
        leaving.insert((evaluator, number), room.clone());
        Some(Self {
            parts,
            evaluator,
            number,
            room,
        })
    }

    /// Sends what does not count; tables when there is room for them at the evaluator.
    pub(crate) async fn send(&self, segment: Segment) -> Result<(), Stuck> {
        if let Segment::Tables(_) = segment {
            let room = tokio::time::timeout(PATIENCE, self.room.acquire()).await;
            room.map_err(|_| Stuck)?.map_err(|_| Stuck)?.forget();
        }
        let frame = segment.encode(self.number);
        let sent = self
            .parts
            .network
            .send_when_free(self.evaluator, Lane::Bulk, frame, PATIENCE);
        sent.await.map_err(|_| Stuck)
    }
}

impl Drop for Departures<'_> {
    fn drop(&mut self) {
        let mut leaving = self.parts.symmetric.streams.leaving.lock();
        leaving.remove(&(self.evaluator, self.number));
    }
}
