//! What is under way to view partitions and back: one thing at a time for each.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use sanso_core::{PartitionId, PartitionStore, ReadRequest, StoreError};
use sanso_state::{Delta, Entry, LogPartition, Offset, Outcome};
use tokio::runtime::Handle;

/// What a view partition says.
#[derive(Debug)]
pub(crate) enum Said {
    /// What it has applied of the log partition.
    Applied(Result<Offset, StoreError>),
    /// What became of a delta.
    Outcome(Result<Outcome, StoreError>),
}

/// Questions and deltas to view partitions that are not answered yet. They go on only while this is waited on.
pub(crate) struct UnderWay {
    store: PartitionStore,
    runtime: Handle,
    waiting: FuturesUnordered<BoxFuture<'static, (PartitionId, Said)>>,
    since: BTreeMap<PartitionId, Instant>,
    /// Answers that nobody has taken yet.
    said: VecDeque<(PartitionId, Said)>,
}

impl UnderWay {
    pub(crate) fn new(store: PartitionStore, runtime: Handle) -> Self {
        let (waiting, since, said) = Default::default();
        Self { store, runtime, waiting, since, said }
    }

    /// Says whether something is under way to a view partition, or its answer is not taken yet.
    pub(crate) fn has(&self, id: PartitionId) -> bool {
        self.since.contains_key(&id)
    }

    /// Asks a view partition what it has applied.
    pub(crate) fn ask(&mut self, id: PartitionId, partition: LogPartition) {
        let store = self.store.clone();
        self.begin(id, async move {
            let reply = store.read(id, &ReadRequest::Progress).await;
            Said::Applied(reply.map(|reply| reply.progress.applied[partition.index()]))
        });
    }

    /// Submits a delta.
    pub(crate) fn submit(&mut self, id: PartitionId, delta: Delta) {
        let store = self.store.clone();
        self.begin(id, async move { Said::Outcome(store.submit(id, Entry::Delta(delta)).await) });
    }

    fn begin(&mut self, id: PartitionId, said: impl Future<Output = Said> + Send + 'static) {
        let before = self.since.insert(id, Instant::now());
        debug_assert!(before.is_none(), "one thing at a time");
        self.waiting.push(Box::pin(async move { (id, said.await) }));
    }

    /// Returns an answer, if there is one before everything has been under way for longer than `patience`:
    /// who takes longer than that is not waited for.
    pub(crate) fn next(&mut self, patience: Duration) -> Option<(PartitionId, Said)> {
        if self.said.is_empty() {
            let left = patience.saturating_sub(self.since.values().max()?.elapsed());
            let runtime = self.runtime.clone();
            // None when the time is over.
            let _ = runtime.block_on(async { tokio::time::timeout(left, self.arrives()).await });
        }
        let (id, said) = self.said.pop_front()?;
        self.since.remove(&id);
        Some((id, said))
    }

    /// Waits until there is an answer; for ever where nothing is under way. Nothing is lost when this is given up.
    pub(crate) async fn arrives(&mut self) {
        if !self.said.is_empty() {
            return;
        }
        match self.waiting.next().await {
            Some(said) => self.said.push_back(said),
            None => std::future::pending().await,
        }
    }
}
