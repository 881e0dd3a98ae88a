//! A queue that is bounded in frames and in bytes, so that neither many small nor few large ones exhaust memory.

use std::sync::Arc;

use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// The end that fills the queue.
pub(crate) struct QueueSender<T> {
    items: mpsc::Sender<Queued<T>>,
    room: Arc<Semaphore>,
    bytes: usize,
}

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        Self {
            items: self.items.clone(),
            room: Arc::clone(&self.room),
            bytes: self.bytes,
        }
    }
}

/// The end that empties it.
pub(crate) struct QueueReceiver<T> {
    items: mpsc::Receiver<Queued<T>>,
}

struct Queued<T> {
    item: T,
    _room: OwnedSemaphorePermit,
}

/// Why an item was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    Full,
    Closed,
}

/// A queue of at most `frames` items and `bytes` bytes.
pub(crate) fn queue<T>(frames: usize, bytes: usize) -> (QueueSender<T>, QueueReceiver<T>) {
    let (sender, receiver) = mpsc::channel(frames);
    (
        QueueSender {
            items: sender,
            room: Arc::new(Semaphore::new(bytes)),
            bytes,
        },
        QueueReceiver { items: receiver },
    )
}

impl<T> QueueSender<T> {
    /// An item above the whole bound waits for all of it instead of for ever.
    fn permits(&self, size: usize) -> u32 {
        u32::try_from(size.min(self.bytes)).unwrap_or(u32::MAX)
    }

    /// Takes the item if there is room now.
    pub(crate) fn try_push(&self, item: T, size: usize) -> Result<(), PushError> {
        if self.items.is_closed() {
            return Err(PushError::Closed);
        }
        let room = Arc::clone(&self.room)
            .try_acquire_many_owned(self.permits(size))
            .map_err(|_| PushError::Full)?;
        self.items
            .try_send(Queued { item, _room: room })
            .map_err(|error| match error {
                TrySendError::Full(_) => PushError::Full,
                TrySendError::Closed(_) => PushError::Closed,
            })
    }

    /// Waits for room; an error means that the other end is gone.
    pub(crate) async fn push(&self, item: T, size: usize) -> Result<(), PushError> {
        // The semaphore knows nothing of the receiver's end, so its end must be awaited beside it.
        let room = tokio::select! {
            room = Arc::clone(&self.room).acquire_many_owned(self.permits(size)) => room,
            () = self.items.closed() => return Err(PushError::Closed),
        };
        let room = room.map_err(|_| PushError::Closed)?;
        self.items
            .send(Queued { item, _room: room })
            .await
            .map_err(|_| PushError::Closed)
    }
}

impl<T> QueueReceiver<T> {
    /// The next item; `None` when every sender is gone. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<T> {
        self.items.recv().await.map(|queued| queued.item)
    }

    /// The next item, if one waits.
    pub(crate) fn try_next(&mut self) -> Option<T> {
        match self.items.try_recv() {
            Ok(queued) => Some(queued.item),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    /// Takes no more items and returns those that wait.
    pub(crate) fn close(mut self) -> Vec<T> {
        self.items.close();
        std::iter::from_fn(|| self.try_next()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_room_returns() {
        let (sender, mut receiver) = queue(3, 10);
        assert_eq!(sender.try_push('a', 6), Ok(()));
        assert_eq!(sender.try_push('b', 5), Err(PushError::Full));
        assert_eq!(sender.try_push('c', 0), Ok(()));
        assert_eq!(sender.try_push('d', 0), Ok(()));
        assert_eq!(sender.try_push('e', 0), Err(PushError::Full));
        assert_eq!(receiver.try_next(), Some('a'));
        assert_eq!(sender.try_push('f', 10), Ok(()));
        assert_eq!(receiver.close(), ['c', 'd', 'f']);
        assert_eq!(sender.try_push('g', 0), Err(PushError::Closed));
    }

    #[tokio::test]
    async fn a_waiting_push_ends_when_room_comes_or_the_receiver_goes() {
        let (sender, mut receiver) = queue(10, 10);
        sender.push(1, 10).await.unwrap();
        let waiting = tokio::spawn({
            let sender = sender.clone();
            async move { sender.push(2, 10).await }
        });
        assert_eq!(receiver.next().await, Some(1));
        assert_eq!(waiting.await.unwrap(), Ok(()));
        let waiting = tokio::spawn(async move { sender.push(3, 10).await });
        drop(receiver);
        assert_eq!(waiting.await.unwrap(), Err(PushError::Closed));
    }
}
