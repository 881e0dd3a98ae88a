//! Segments of garbled circuits on the bulk lane: what a garbler sends before its answer, and the evaluator's word that it
//! has taken one, without which no more than [`WINDOW`] of them are under way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use conclave_garbled::session::Head;
use conclave_transport::Lane;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use crate::actors::parts::Parts;
use crate::actors::wire::CIRCUITS;
use crate::overload::{Gate, Overloaded, Pass};

/// Bytes of tables in a segment, or a little more.
pub(crate) const SEGMENT: usize = 384 * 1024;
/// Segments of one garbling that are under way.
pub(crate) const WINDOW: usize = 3;
/// Longest wait for room, here or at the evaluator.
const PATIENCE: Duration = Duration::from_secs(5);
/// Garblings that this node does for one evaluator at a time: with all their windows full, less than the lane's queue
/// holds, so that consensus finds room in it.
const MAX_GARBLINGS: usize = 12;
/// Computations that this node evaluates at a time; others wait.
pub(crate) const MAX_EVALUATIONS: usize = 10;
/// So many.
const MAX_WAITING: usize = 512;
/// What a segment may be longer by: a layer is not cut.
const SLACK: usize = 8 * 1024;
/// Longest segment that is taken.
const LONGEST: usize = 2 * SEGMENT;

/// A frame on the bulk lane, beside the number of its garbling, which the evaluator drew.
pub(crate) enum Segment {
    /// The first garbler's first message.
    Head(Head),
    /// The second garbler's.
    Openings(Bytes),
    /// The next tables; [`Departures::frames`] makes the frame around them.
    Tables(Bytes),
    /// The evaluator has taken so many segments of tables.
    Taken(u8),
}

const HEAD: u8 = 0;
const OPENINGS: u8 = 1;
const TABLES: u8 = 2;
const TAKEN: u8 = 3;

/// The beginning of a frame: the lane's tag, the number, a byte for the kind.
fn frame(number: u64, kind: u8, body: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(10 + body);
    frame.put_u8(CIRCUITS);
    frame.put_u64(number);
    frame.put_u8(kind);
    frame
}

impl Segment {
    fn encode(&self, number: u64) -> Bytes {
        let (kind, body): (u8, Bytes) = match self {
            Self::Head(head) => (HEAD, postcard::to_stdvec(head).unwrap_or_default().into()),
            Self::Openings(openings) => (OPENINGS, openings.clone()),
            Self::Tables(tables) => (TABLES, tables.clone()),
            Self::Taken(count) => (TAKEN, vec![*count].into()),
        };
        let mut frame = frame(number, kind, body.len());
        frame.extend_from_slice(&body);
        frame.into()
    }

    /// Reads what follows the lane's tag.
    fn decode(mut frame: Bytes) -> Option<(u64, Self)> {
        if frame.len() < 9 {
            return None;
        }
        let (number, kind) = (frame.get_u64(), frame.get_u8());
        let segment = match kind {
            HEAD => match postcard::take_from_bytes(&frame) {
                Ok((head, [])) => Self::Head(head),
                _ => return None,
            },
            OPENINGS => Self::Openings(frame),
            TABLES => Self::Tables(frame),
            TAKEN if frame.len() == 1 => Self::Taken(frame[0]),
            _ => return None,
        };
        Some((number, segment))
    }
}

/// Where segments go.
pub(crate) struct Streams {
    /// Computations that may be evaluated beside those that are.
    pub(crate) evaluations: Gate,
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
            evaluations: Gate::new(MAX_EVALUATIONS, MAX_WAITING, PATIENCE),
            arriving: Mutex::default(),
            leaving: Mutex::default(),
        }
    }
}

impl Streams {
    /// Waits until this node may evaluate one more.
    pub(crate) async fn admit(&self) -> Result<Pass, Overloaded> {
        self.evaluations.enter().await
    }

    /// A frame of a peer, without the lane's tag; one that nobody waits for is dropped.
    pub(crate) fn receive(&self, from: u64, frame: Bytes) {
        if frame.len() > LONGEST {
            return;
        }
        let Some((number, segment)) = Segment::decode(frame) else {
            return;
        };
        if let Segment::Taken(count) = segment {
            if let Some(room) = self.leaving.lock().get(&(from, number)) {
                let most = WINDOW.saturating_sub(room.available_permits());
                room.add_permits(most.min(count.into()));
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

    /// What is here already.
    pub(crate) fn next_now(&mut self) -> Option<(u64, Segment)> {
        self.segments.try_recv().ok()
    }

    /// Lets the first garbler send so many more; waits for room on the lane.
    pub(crate) async fn taken(&self, garbler: u64, count: u8) {
        let taken = Segment::Taken(count).encode(self.number);
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

    /// Waits for room at the evaluator: as many frames for tables as it takes now, one at least.
    pub(crate) async fn frames(&self) -> Result<Vec<Vec<u8>>, Stuck> {
        let room = tokio::time::timeout(PATIENCE, self.room.acquire()).await;
        room.map_err(|_| Stuck)?.map_err(|_| Stuck)?.forget();
        let more = std::iter::from_fn(|| self.room.try_acquire().ok().map(SemaphorePermit::forget)).count();
        Ok((0..=more)
            .map(|_| frame(self.number, TABLES, SEGMENT + SLACK))
            .collect())
    }

    /// Sends what needs no room.
    pub(crate) async fn send(&self, segment: Segment) -> Result<(), Stuck> {
        self.send_frame(segment.encode(self.number)).await
    }

    /// Sends one of [`Departures::frames`], filled.
    pub(crate) async fn send_frame(&self, frame: Bytes) -> Result<(), Stuck> {
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
