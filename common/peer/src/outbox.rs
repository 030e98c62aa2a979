//! What waits to go to a peer on one lane, and how it leaves.
//!
//! There is one outbox for each connection: what waited for one that broke is
//! dropped with it, so nothing is sent in the name of an earlier connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use sanso_core::cluster::NodeId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::chunk::Chunks;
use crate::error::Dropped;
use crate::proto::Frame;
use crate::proto::frame::Content;
use crate::shared::Shared;

/// A message that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    bytes: Bytes,
    /// Not to be sent before; only when the link filter delays.
    due: Option<Instant>,
    weight: Weight,
}

/// Counts a message's bytes as waiting for as long as it is there.
#[derive(Debug)]
struct Weight {
    bytes: usize,
    waiting: Arc<AtomicUsize>,
}

impl Weight {
    fn add(bytes: usize, waiting: &Arc<AtomicUsize>) -> (Self, usize) {
        let total = waiting.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (Self { bytes, waiting: waiting.clone() }, total)
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Where messages for one lane of one connection are put.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    queue: mpsc::Sender<Waiting>,
    waiting: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl Outbox {
    /// Makes an outbox, and what its messages come out of.
    pub(crate) fn new(messages_max: usize, bytes_max: usize) -> (Self, mpsc::Receiver<Waiting>) {
        let (queue, waiting) = mpsc::channel(messages_max);
        (Self { queue, waiting: Arc::default(), bytes_max }, waiting)
    }

    /// Returns how many bytes wait.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Takes a message, or drops it. Never waits.
    pub(crate) fn put(&self, bytes: Bytes, due: Option<Instant>) -> Result<(), Dropped> {
        let (weight, total) = Weight::add(bytes.len(), &self.waiting);
        if total > self.bytes_max {
            return Err(Dropped::Full);
        }
        self.queue.try_send(Waiting { bytes, due, weight }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Dropped::Full,
            mpsc::error::TrySendError::Closed(_) => Dropped::NotConnected,
        })
    }
}

/// Makes the frames of a connection: the hello, then what comes to its outbox,
/// cut into chunks.
pub(crate) fn frames(
    shared: Arc<Shared>,
    to: NodeId,
    queue: mpsc::Receiver<Waiting>,
) -> impl Stream<Item = Frame> + Send + 'static {
    let hello = Frame { content: Some(Content::Hello(shared.identity.hello(to))) };
    let leaving = Leaving { shared, to, queue, under_way: None };
    let chunks = stream::unfold(leaving, |mut leaving| async {
        let chunk = leaving.next().await?;
        Some((chunk, leaving))
    });
    stream::iter([hello]).chain(chunks)
}

struct Leaving {
    shared: Arc<Shared>,
    to: NodeId,
    queue: mpsc::Receiver<Waiting>,
    /// The chunks left of a message; what waits weighs until all have left.
    under_way: Option<(Chunks, Weight)>,
}

impl Leaving {
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((chunks, _)) = &mut self.under_way {
                match chunks.next() {
                    Some(chunk) => return Some(Frame { content: Some(Content::Chunk(chunk)) }),
                    None => self.under_way = None,
                }
            }
            let Waiting { bytes, due, weight } = self.queue.recv().await?;
            if let Some(due) = due {
                sleep_until(due).await;
            }
            if !self.shared.filter.is_cut_to(self.to) {
                self.under_way = Some((Chunks::of(bytes), weight));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_dropped_and_weighs_nothing() {
        let (outbox, mut queue) = Outbox::new(2, 10);
        let put = |bytes: usize| outbox.put(Bytes::from(vec![0; bytes]), None);
        assert_eq!(put(6), Ok(()));
        assert_eq!(put(5), Err(Dropped::Full), "too many bytes");
        assert_eq!(put(4), Ok(()));
        assert_eq!(put(0), Err(Dropped::Full), "too many messages");
        drop(queue.try_recv().unwrap());
        assert_eq!(put(7), Err(Dropped::Full));
        assert_eq!(put(6), Ok(()));
        drop(queue);
        assert_eq!(put(0), Err(Dropped::NotConnected));
        assert_eq!(outbox.waiting_bytes(), 0);
    }
}
