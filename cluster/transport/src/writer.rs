//! The writing half of a connection. Takes all frames that wait into one write: under load a TLS record, a system call
//! and often a packet carry many.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::frame::Frame;
use crate::peers::Outbound;
use crate::queue::QueueReceiver;

const BUFFER: usize = 64 * 1024;

/// Writes what the queue gives until it ends or the connection does. With `probe`, a ping is written that often, so
/// that the other side has something to answer. `sent` is told each payload's size. Longer than `silence` without one
/// byte taken is an error.
pub(crate) async fn write_queue<W: AsyncWrite + Unpin>(
    stream: W,
    queue: &mut QueueReceiver<Outbound>,
    probe: Option<Duration>,
    silence: Duration,
    sent: impl Fn(usize),
) -> io::Result<()> {
    let mut writer = Writer {
        stream: BufWriter::with_capacity(BUFFER, stream),
        head: Vec::new(),
        silence,
    };
    // Without probes the timer never fires.
    let period = probe.unwrap_or(Duration::from_secs(3600));
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            first = queue.next() => {
                let Some(first) = first else { break };
                writer.write(first, &sent).await?;
            }
            _ = ticks.tick(), if probe.is_some() => writer.frame(&Frame::Ping).await?,
        }
        while let Some(next) = queue.try_next() {
            writer.write(next, &sent).await?;
        }
        within(silence, writer.stream.flush()).await?;
    }
    within(silence, writer.stream.shutdown()).await
}

struct Writer<W> {
    stream: BufWriter<W>,
    head: Vec<u8>,
    silence: Duration,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    async fn write(&mut self, outbound: Outbound, sent: &impl Fn(usize)) -> io::Result<()> {
        let frame = match outbound {
            Outbound::Message(payload) => Frame::Message(payload),
            Outbound::Answer { id, verdict } => Frame::Answer { id, verdict },
            Outbound::Pong => return self.frame(&Frame::Pong).await,
            Outbound::Call {
                id,
                deadline,
                payload,
            } => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    // Its caller has been told already.
                    return Ok(());
                }
                Frame::Call { id, left, payload }
            }
        };
        self.frame(&frame).await?;
        sent(frame.weight());
        Ok(())
    }

    async fn frame(&mut self, frame: &Frame) -> io::Result<()> {
        let mut head = std::mem::take(&mut self.head);
        let payload = frame.encode(&mut head);
        self.bytes(&head).await?;
        self.head = head;
        self.bytes(&payload).await
    }

    /// As `write_all`, but the time starts anew with each byte taken: a slow link is not a dead one.
    async fn bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match within(self.silence, self.stream.write(bytes)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => bytes = &bytes[n..],
            }
        }
        Ok(())
    }
}

async fn within<T>(time: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(time, work)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use bytes::Bytes;

    use super::*;
    use crate::queue::queue;

    /// Counts writes.
    struct Sink(Arc<AtomicUsize>);

    impl AsyncWrite for Sink {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(Ok(buf.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn frames_that_wait_share_one_write() {
        let writes = Arc::new(AtomicUsize::new(0));
        let (sender, mut receiver) = queue(1000, 1 << 20);
        for _ in 0..500 {
            sender
                .try_push(Outbound::Message(Bytes::from_static(b"frame")), 5)
                .unwrap();
        }
        drop(sender);
        let silence = Duration::from_secs(5);
        write_queue(Sink(Arc::clone(&writes)), &mut receiver, None, silence, |_| ())
            .await
            .unwrap();
        assert_eq!(writes.load(Ordering::Relaxed), 1);
    }
}
