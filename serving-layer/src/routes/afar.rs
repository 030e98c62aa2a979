//! View partitions that a stream follows from afar: this node has no replica of them, so nobody tells of
//! their changes here, and they are looked at instead.

use std::time::Duration;

use futures::future::join_all;
use sanso_core::{PartitionId, PartitionStore, ReadRequest};
use sanso_state::Offset;
use tokio::time::Instant;

/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Some view partitions of other nodes, and what of them was sent last.
pub(crate) struct Afar {
    /// What each had applied.
    sent: Vec<(PartitionId, Vec<Offset>)>,
    looked: Instant,
}

impl Afar {
    /// Follows partitions of which this was sent just now.
    pub(crate) fn of(sent: Vec<(PartitionId, Vec<Offset>)>) -> Self {
        Self { sent, looked: Instant::now() }
    }

    /// Says whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Returns when to look next; none when there is nothing to look at.
    pub(crate) fn due(&self) -> Option<Instant> {
        (!self.is_empty()).then(|| self.looked + LOOK)
    }

    /// Looks, if it is time; says whether one has applied more than was sent. One that is away for a moment
    /// has not.
    pub(crate) async fn moved(&mut self, store: &PartitionStore) -> bool {
        if self.due().is_none_or(|due| Instant::now() < due) {
            return false;
        }
        let looks = self.sent.iter().map(|(id, sent)| async move {
            let reply = store.read(*id, &ReadRequest::Progress).await;
            reply.is_ok_and(|reply| reply.progress.applied.iter().zip(sent).any(|(now, sent)| now > sent))
        });
        let moved = join_all(looks).await.contains(&true);
        self.looked = Instant::now();
        moved
    }
}
