//! The catalog: which sources exist, which view versions are live, and which
//! version of each view serves.
//!
//! Every layer watches it. A view version is *live* from the moment its view
//! partitions exist until it is retired: the speed layer feeds it and the batch
//! layer extends it. Among the live versions of one name, one *serves*.

mod jobs;
mod limits;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use sanso_state::{Fingerprint, LogPartition};
use sanso_view::{Source, View};
use tokio::sync::watch;

pub use jobs::{BatchJob, EndedJob, JobKind, JobOutcome, NodeTasks, RunningTask};
pub use limits::{Limit, LimitGauge, LimitUse, Limits, Registered};
pub use status::{
    AuditCounts, BatchProgress, BatchQuarantine, Order, PartitionProgress, QuarantineStore, RecordCounts,
    StatusBoard,
};

/// What a node of a cluster does for a log partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Sends its deltas to the view partitions.
    Feeds,
    /// Keeps its index of newest versions, so that it can feed from one moment to the next.
    Follows,
}

/// A node's share of the log partitions, by source; it has nothing to do with others.
pub type Shares = BTreeMap<(String, LogPartition), Share>;

/// A snapshot of what is declared and live.
#[derive(Clone, Default)]
pub struct Catalog {
    /// The sources by name.
    pub sources: BTreeMap<String, Arc<Source>>,
    /// The live view versions.
    pub live: BTreeMap<Fingerprint, Arc<View>>,
    /// The version that serves, by view name.
    pub serving: BTreeMap<String, Fingerprint>,
    /// The version whose closed windows are written, by view name; those that serve when absent. In a
    /// cluster it is the same on all nodes, which may serve different ones.
    pub emits: Option<BTreeMap<String, Fingerprint>>,
    /// Which log partitions this process works on; it feeds all of them when absent.
    pub shares: Option<Shares>,
}

impl Catalog {
    /// Says what this process does for a log partition; none when it has nothing to do with it.
    pub fn share(&self, source: &str, partition: LogPartition) -> Option<Share> {
        match &self.shares {
            None => Some(Share::Feeds),
            Some(shares) => shares.get(&(source.to_owned(), partition)).copied(),
        }
    }

    /// Returns the version of a view that serves.
    pub fn serving(&self, name: &str) -> Option<&Arc<View>> {
        self.live.get(self.serving.get(name)?)
    }

    /// Iterates the versions that serve, in order of name.
    pub fn serving_views(&self) -> impl Iterator<Item = &Arc<View>> {
        self.serving.values().filter_map(|fingerprint| self.live.get(fingerprint))
    }

    /// Iterates the versions whose closed windows are written, in order of name.
    pub fn emitting_views(&self) -> impl Iterator<Item = &Arc<View>> {
        self.emits.as_ref().unwrap_or(&self.serving).values().filter_map(|version| self.live.get(version))
    }

    /// Returns the live views of one source.
    pub fn live_of(&self, source: &str) -> Vec<Arc<View>> {
        self.live.values().filter(|view| view.source.name == source).cloned().collect()
    }
}

/// A shared, watched catalog. Clones share it.
#[derive(Clone)]
pub struct CatalogHandle(Arc<watch::Sender<Arc<Catalog>>>);

impl CatalogHandle {
    /// Creates a handle to a catalog.
    pub fn new(catalog: Catalog) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(catalog))))
    }

    /// Returns the current snapshot.
    pub fn current(&self) -> Arc<Catalog> {
        self.0.borrow().clone()
    }

    /// Watches for changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Catalog>> {
        self.0.subscribe()
    }

    /// Changes the catalog in one step.
    pub fn update(&self, change: impl FnOnce(&mut Catalog)) {
        self.0.send_modify(|current| {
            let mut next = Catalog::clone(current);
            change(&mut next);
            *current = Arc::new(next);
        });
    }
}
