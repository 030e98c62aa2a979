//! Looks at the progress of view partitions, shared by all who wait for it.
//!
//! A view partition may be on another node, and when it falls behind, everybody waits for it: with a look
//! for each of them every few milliseconds, hundreds of waiting requests would ask so often that nothing
//! could catch up any more.

use std::collections::HashMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use sanso_core::{PartitionId, PartitionStore, Progress, ReadRequest};
use sanso_state::Offset;
use tokio::time::Instant;

/// How often progress is looked at while anybody waits for it. View partitions tell of changed groups, but
/// not of offsets that changed none.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// For how long a look is kept in mind; longer than any takes.
const KEPT: Duration = Duration::from_secs(10);

/// What is found; none where the view partition can't be read.
pub(crate) type Found = Shared<BoxFuture<'static, Option<Progress>>>;

/// The looks of one node, with when they began.
#[derive(Default)]
pub(crate) struct Looks(Mutex<HashMap<PartitionId, (Instant, Found)>>);

impl Looks {
    /// Returns the progress of a view partition for someone who has seen offsets of it: what another one
    /// finds who is looking, or found who looked less than [`LOOK`] before `now`.
    pub(crate) fn look(
        &self,
        store: &PartitionStore,
        id: PartitionId,
        seen: &[Offset],
        now: Instant,
    ) -> Found {
        let mut looks = self.0.lock();
        looks.retain(|_, (begun, _)| now < *begun + KEPT);
        if let Some((begun, found)) = looks.get(&id)
            && (found.peek().is_none() || now < *begun + LOOK)
        {
            return found.clone();
        }
        let (store, seen) = (store.clone(), seen.to_vec());
        let look = async move {
            let reply = store.read_as_seen(id, &ReadRequest::Progress, &seen).await;
            reply.ok().map(|reply| reply.progress)
        };
        let found = look.boxed().shared();
        looks.insert(id, (now, found.clone()));
        found
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use futures::future::join_all;
    use sanso_core::{Change, Partitions, ReadReply, StoreError};
    use sanso_state::{Cut, Entry, Fingerprint, Groups, Outcome, SegmentId};
    use tokio::sync::broadcast;

    use super::*;

    /// Partitions far away, that count how often they are asked; each time they have applied one more.
    #[derive(Default)]
    struct Far(AtomicU32);

    #[async_trait]
    impl Partitions for Far {
        async fn read(
            &self,
            _id: PartitionId,
            _request: &ReadRequest,
            _seen: &[Offset],
        ) -> Result<ReadReply, StoreError> {
            let asked = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::task::yield_now().await;
            let progress = Progress {
                version: 0,
                cut: Cut::zero(1),
                applied: vec![asked.into()],
                watermark_us: None,
                base_groups: 0,
                speed_groups: 0,
                late_groups: 0,
            };
            Ok(ReadReply { groups: Vec::new(), progress })
        }

        async fn submit(&self, id: PartitionId, _entry: Entry) -> Result<Outcome, StoreError> {
            Err(StoreError::NotLive(id))
        }

        fn is_in_touch(&self) -> bool {
            true
        }

        async fn segment(&self, id: PartitionId, _: SegmentId) -> Result<Option<Groups>, StoreError> {
            Err(StoreError::NotLive(id))
        }

        fn changes(&self, id: PartitionId) -> Result<broadcast::Receiver<Arc<Change>>, StoreError> {
            Err(StoreError::NotLive(id))
        }

        fn groups(&self) -> u64 {
            0
        }

        fn emits_here(&self) -> Vec<(PartitionId, sanso_core::Readable)> {
            Vec::new()
        }
    }

    #[tokio::test]
    async fn whoever_waits_meanwhile_shares_a_look_and_the_next_one_is_new() {
        let far = Arc::new(Far::default());
        let (store, looks) = (PartitionStore::of_cluster(far.clone()), Looks::default());
        let id = |index| PartitionId { view: Fingerprint::of(b"a view"), index };
        let applied = |found: Option<Progress>| found.expect("it is found").applied;
        let mut now = Instant::now();
        for round in 1..=3 {
            let all = join_all((0..500).map(|_| looks.look(&store, id(0), &[], now))).await;
            assert!(all.into_iter().all(|found| applied(found) == [round]));
            assert_eq!(applied(looks.look(&store, id(0), &[], now + LOOK / 2).await), [round]);
            now += LOOK;
        }
        // One that nobody waits for any longer goes on with the next who does.
        drop(looks.look(&store, id(0), &[], now));
        assert_eq!(applied(looks.look(&store, id(0), &[], now + LOOK).await), [4]);
        assert_eq!(applied(looks.look(&store, id(1), &[], now + LOOK).await), [5]);
        assert_eq!(far.0.load(Ordering::Relaxed), 5);
    }
}
