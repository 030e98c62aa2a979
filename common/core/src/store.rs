//! The partition store: every view partition of this process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use sanso_state::{
    Difference, Emission, Entry, Fingerprint, GroupId, Groups, Offset, Outcome, SegmentId, ViewPartition,
};
use tokio::sync::{Notify, broadcast};

use crate::read::{ReadReply, ReadRequest, answer};

/// How many changes a slow subscriber may lag behind before it must re-read.
const CHANGES_MAX: usize = 256;

/// Names a view partition: a view version and an index below its partition count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// The view version.
    pub view: Fingerprint,
    /// The index.
    pub index: u32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.view.short(), self.index)
    }
}

/// Why the store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The partition is not held: its view version is not live (yet, or any longer).
    #[error("view partition {0} is not live")]
    NotLive(PartitionId),
}

/// What one accepted entry changed.
#[derive(Clone, Debug)]
pub struct Change {
    /// The groups touched.
    pub groups: Vec<GroupId>,
    /// Offsets applied after it.
    pub applied: Vec<Offset>,
}

struct Slot {
    partition: RwLock<ViewPartition>,
    /// Groups held, told here so that counting them waits for nobody.
    groups: AtomicU64,
    changes: broadcast::Sender<Arc<Change>>,
}

/// Holds the view partitions of this process. Clones share it.
#[derive(Clone, Default)]
pub struct PartitionStore(Arc<Inner>);

#[derive(Default)]
struct Inner {
    slots: RwLock<BTreeMap<PartitionId, Arc<Slot>>>,
    emitted: Notify,
}

impl PartitionStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds (or replaces) a view partition.
    pub fn create(&self, id: PartitionId, partition: ViewPartition) {
        let slot = Slot {
            groups: AtomicU64::new(groups_of(&partition)),
            partition: RwLock::new(partition),
            changes: broadcast::Sender::new(CHANGES_MAX),
        };
        self.0.slots.write().insert(id, Arc::new(slot));
        self.0.emitted.notify_one();
    }

    /// Removes all partitions of a view version.
    pub fn remove(&self, view: Fingerprint) {
        self.0.slots.write().retain(|id, _| id.view != view);
    }

    /// Returns the partitions held, in order.
    pub fn list(&self) -> Vec<PartitionId> {
        self.0.slots.read().keys().copied().collect()
    }

    /// Appends an entry to a partition's log; resolves when it is applied on
    /// every in-sync replica. Entries of one partition are applied in order of
    /// submission by any one caller.
    pub async fn submit(&self, id: PartitionId, entry: Entry) -> Result<Outcome, StoreError> {
        let slot = self.slot(id)?;
        let touched = match &entry {
            Entry::Delta(delta) if slot.changes.receiver_count() > 0 => ids(&delta.groups),
            Entry::Rebuild(_, groups) if slot.changes.receiver_count() > 0 => ids(groups),
            _ => Vec::new(),
        };
        let mut partition = slot.partition.write();
        let outcome = partition.apply(entry);
        let applied = partition.applied().to_vec();
        let emits = partition.has_emissions();
        slot.groups.store(groups_of(&partition), Ordering::Relaxed);
        drop(partition);
        let changed = matches!(outcome, Outcome::Accepted { .. } | Outcome::Rebuilt);
        if changed && !touched.is_empty() {
            // An error only says that nobody listens any longer.
            let _ = slot.changes.send(Arc::new(Change { groups: touched, applied }));
        }
        if emits {
            self.0.emitted.notify_one();
        }
        Ok(outcome)
    }

    /// Reads from a partition; groups and progress are of one instant.
    pub async fn read(&self, id: PartitionId, request: &ReadRequest) -> Result<ReadReply, StoreError> {
        Ok(answer(&self.slot(id)?.partition.read(), request))
    }

    /// Subscribes to a partition's changes. A subscriber that lags loses the
    /// oldest and is told so; it reads again.
    pub fn changes(&self, id: PartitionId) -> Result<broadcast::Receiver<Arc<Change>>, StoreError> {
        Ok(self.slot(id)?.changes.subscribe())
    }

    /// Compares a complete speed segment with batch's computation of it; None
    /// when the segment is not held complete. See [`ViewPartition::audit`].
    pub async fn audit(
        &self,
        id: PartitionId,
        segment: SegmentId,
        batch: &Groups,
    ) -> Result<Option<Vec<Difference>>, StoreError> {
        Ok(self.slot(id)?.partition.read().audit(segment, batch))
    }

    /// Takes a partition's waiting emissions with the offsets applied at that instant.
    pub fn take_emissions(&self, id: PartitionId) -> Result<(Vec<Emission>, Vec<Offset>), StoreError> {
        let slot = self.slot(id)?;
        let mut partition = slot.partition.write();
        Ok((partition.take_emissions(), partition.applied().to_vec()))
    }

    /// Returns how many groups all partitions hold, in their bases and since;
    /// what this process's memory grows with.
    pub fn groups(&self) -> u64 {
        self.0.slots.read().values().map(|slot| slot.groups.load(Ordering::Relaxed)).sum()
    }

    /// Resolves when some partition may have emissions waiting. One waiter.
    pub async fn emissions_waiting(&self) {
        self.0.emitted.notified().await;
    }

    fn slot(&self, id: PartitionId) -> Result<Arc<Slot>, StoreError> {
        self.0.slots.read().get(&id).cloned().ok_or(StoreError::NotLive(id))
    }
}

fn groups_of(partition: &ViewPartition) -> u64 {
    let (base, since) = partition.group_counts();
    (base + since) as u64
}

fn ids(groups: &Groups) -> Vec<GroupId> {
    groups.ids().collect()
}
