//! The partition store: view partitions by name, in this process or anywhere in the cluster.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sanso_state::{
    Difference, Entry, Fingerprint, Groups, Offset, Outcome, SegmentId, ViewPartition, compare,
};
use tokio::sync::broadcast;

use crate::hosted::{Readable, finished};
use crate::read::{ReadReply, ReadRequest};
use crate::slots::{Change, Slot, Slots};

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
    /// Nobody who holds the partition answered in time. An entry may have been applied.
    #[error("view partition {id} can't be reached: {reason}")]
    Unreachable {
        /// The partition.
        id: PartitionId,
        /// What was tried.
        reason: String,
    },
}

/// Where view partitions are, behind a [`PartitionStore`].
#[async_trait]
pub trait Partitions: Send + Sync {
    /// See [`PartitionStore::submit`].
    async fn submit(&self, id: PartitionId, entry: Entry) -> Result<Outcome, StoreError>;

    /// See [`PartitionStore::read_as_seen`].
    async fn read(
        &self,
        id: PartitionId,
        request: &ReadRequest,
        seen: &[Offset],
    ) -> Result<ReadReply, StoreError>;

    /// See [`PartitionStore::is_in_touch`].
    fn is_in_touch(&self) -> bool;

    /// Returns what speed holds of a segment; None when it is not held complete.
    async fn segment(&self, id: PartitionId, segment: SegmentId) -> Result<Option<Groups>, StoreError>;

    /// See [`PartitionStore::changes`].
    fn changes(&self, id: PartitionId) -> Result<broadcast::Receiver<Arc<Change>>, StoreError>;

    /// Returns how many groups this process holds.
    fn groups(&self) -> u64;

    /// See [`PartitionStore::emits_here`].
    fn emits_here(&self) -> Vec<(PartitionId, Readable)>;

    /// See [`PartitionStore::held_here`].
    fn held_here(&self) -> Vec<(PartitionId, Readable)> {
        Vec::new()
    }
}

/// The view partitions, wherever they are. Clones share it.
#[derive(Clone)]
pub struct PartitionStore {
    /// Those of this process alone; empty in a cluster.
    own: Arc<Slots>,
    cluster: Option<Arc<dyn Partitions>>,
}

impl Default for PartitionStore {
    fn default() -> Self {
        Self::new()
    }
}

impl PartitionStore {
    /// Creates an empty store of this process alone.
    pub fn new() -> Self {
        Self { own: Arc::default(), cluster: None }
    }

    /// Creates a store whose partitions are those of a cluster.
    pub fn of_cluster(partitions: Arc<dyn Partitions>) -> Self {
        Self { own: Arc::default(), cluster: Some(partitions) }
    }

    /// Adds (or replaces) a view partition of this process alone.
    pub fn create(&self, id: PartitionId, partition: ViewPartition) {
        debug_assert!(self.cluster.is_none(), "a cluster's partitions are made by its writes");
        self.own.insert(id, partition);
    }

    /// Removes all partitions of a view version that are of this process alone.
    pub fn remove(&self, view: Fingerprint) {
        self.own.remove(view);
    }

    /// Returns the partitions that are of this process alone, in order.
    pub fn list(&self) -> Vec<PartitionId> {
        self.own.list()
    }

    /// Appends an entry to a partition's log; resolves when it is applied on
    /// every in-sync replica. Entries of one partition are applied in order of
    /// submission by any one caller.
    pub async fn submit(&self, id: PartitionId, entry: Entry) -> Result<Outcome, StoreError> {
        if let Some(cluster) = &self.cluster {
            return cluster.submit(id, entry).await;
        }
        Ok(self.slot(id)?.apply(entry))
    }

    /// Reads from a partition; groups and progress are of one instant. In a cluster another
    /// replica may answer the next read, and be a little behind: who has seen progress compares it.
    pub async fn read(&self, id: PartitionId, request: &ReadRequest) -> Result<ReadReply, StoreError> {
        self.read_as_seen(id, request, &[]).await
    }

    /// Reads from a partition for someone who has seen offsets of it. A replica that can't know
    /// whether it has everything is not taken at its word while it lacks some of them; the answer may
    /// lack some all the same, of which nobody who could be asked had heard.
    pub async fn read_as_seen(
        &self,
        id: PartitionId,
        request: &ReadRequest,
        seen: &[Offset],
    ) -> Result<ReadReply, StoreError> {
        match &self.cluster {
            Some(cluster) => cluster.read(id, request, seen).await,
            None => finished(id, self.slot(id)?.begin(request)).ok_or(StoreError::NotLive(id)),
        }
    }

    /// Says whether this node hears from most of its cluster. One that does not has no way to learn
    /// what it lacks.
    pub fn is_in_touch(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.is_in_touch())
    }

    /// Subscribes to a partition's changes. A subscriber that lags loses the
    /// oldest and is told so; it reads again.
    pub fn changes(&self, id: PartitionId) -> Result<broadcast::Receiver<Arc<Change>>, StoreError> {
        match &self.cluster {
            Some(cluster) => cluster.changes(id),
            None => Ok(self.slot(id)?.subscribe()),
        }
    }

    /// Compares a complete speed segment with batch's computation of it; None
    /// when the segment is not held complete. See [`ViewPartition::audit`].
    pub async fn audit(
        &self,
        id: PartitionId,
        segment: SegmentId,
        batch: &Groups,
    ) -> Result<Option<Vec<Difference>>, StoreError> {
        match &self.cluster {
            Some(cluster) => {
                let speed = cluster.segment(id, segment).await?;
                Ok(speed.map(|speed| compare(segment, &speed, batch)))
            }
            None => Ok(self.slot(id)?.with(|partition| partition.audit(segment, batch))),
        }
    }

    /// Returns the partitions whose closed windows this process emits, in order: in a cluster those that
    /// it holds as their primary, as far as it knows. For a moment two processes may both think so.
    pub fn emits_here(&self) -> Vec<(PartitionId, Readable)> {
        match &self.cluster {
            Some(cluster) => cluster.emits_here(),
            None => self.own_here(),
        }
    }

    /// Returns the partitions of which this process has a replica, in sync or not.
    pub fn held_here(&self) -> Vec<(PartitionId, Readable)> {
        self.cluster.as_ref().map_or_else(|| self.own_here(), |cluster| cluster.held_here())
    }

    fn own_here(&self) -> Vec<(PartitionId, Readable)> {
        self.own.list().into_iter().map(|id| (id, Readable::of(&self.own))).collect()
    }

    /// Returns how many groups the partitions in this process hold in memory, in their bases and since;
    /// what its memory grows with.
    pub fn groups(&self) -> u64 {
        self.cluster.as_ref().map_or_else(|| self.own.groups(), |cluster| cluster.groups())
    }

    fn slot(&self, id: PartitionId) -> Result<Arc<Slot>, StoreError> {
        self.own.get(id).ok_or(StoreError::NotLive(id))
    }
}
