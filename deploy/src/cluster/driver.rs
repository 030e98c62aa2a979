//! Drives the batch layer where it is this node's to drive, and makes the view partitions that nobody holds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sanso_batch::{BatchLayer, Executor, TaskWorker};
use sanso_cluster::{ClusterMap, NodeId, owners};
use sanso_core::{PartitionId, ReadRequest, StoreError};
use sanso_state::StorageLevel;
use sanso_view::View;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::cluster::member::{World, stopped};
use crate::cluster::tasks::ClusterTasks;

/// How often the node with the batch layer looks for view partitions that nobody holds.
const RECONCILE: Duration = Duration::from_millis(500);

/// How long the batch layer has to be this node's before it runs here, and another's before it ends here: a
/// run that is broken off is work lost, and nobody waits for it.
const BATCH_BEGINS_AFTER: Duration = Duration::from_millis(500);
const BATCH_ENDS_AFTER: Duration = Duration::from_secs(2);

/// Says whether a node drives the batch layer, of those that have it.
pub(super) fn drives(map: &ClusterMap, nodes: &BTreeSet<NodeId>, node: NodeId) -> bool {
    owners::holder_of("batch", &owners::usable(map, |node| nodes.contains(&node))) == Some(node)
}

/// Drives the batch layer whenever it is this node's to drive. Two that drive it for a moment do no
/// harm: one of them is refused its version by the dataset.
pub(super) async fn run(world: World, tasks: Arc<ClusterTasks>, stop: watch::Receiver<bool>) {
    let me = world.cluster.me().node;
    let is_mine = |map: &Arc<ClusterMap>| drives(map, tasks.nodes(), me);
    let follow = async {
        while held_for(BATCH_BEGINS_AFTER, world.cluster.maps(), is_mine).await {
            tracing::info!("the batch layer is driven here");
            tokio::select! {
                _ = held_for(BATCH_ENDS_AFTER, world.cluster.maps(), |map| !is_mine(map)) => {
                    tracing::info!("the batch layer is driven elsewhere");
                }
                () = world.run_batch(&tasks) => {}
            }
            world.board.forget_batch();
        }
    };
    tokio::select! {
        () = stopped(stop.clone()) => {}
        () = follow => {}
    }
}

/// Drives the batch layer of a node that has no others.
pub(super) async fn run_alone(world: World, batch: BatchLayer, stop: watch::Receiver<bool>) {
    tokio::select! {
        () = batch.run(stopped(stop)) => {}
        () = world.reconcile(&batch) => {}
    }
}

/// Waits until something has held of the newest map for a while; false when there will be no other map.
async fn held_for(
    time: Duration,
    mut maps: watch::Receiver<Arc<ClusterMap>>,
    holds: impl Fn(&Arc<ClusterMap>) -> bool,
) -> bool {
    while maps.wait_for(&holds).await.is_ok() {
        match tokio::time::timeout(time, maps.wait_for(|map| !holds(map))).await {
            Err(_) => return true,
            Ok(Err(_)) => return false,
            Ok(Ok(_)) => {}
        }
    }
    false
}

impl World {
    /// Begins to do what is driven elsewhere, too.
    pub(super) fn tasks(&self, nodes: BTreeSet<NodeId>, background: Handle) -> Arc<ClusterTasks> {
        let worker = TaskWorker::new(
            self.batch.clone(),
            Arc::clone(&self.log),
            self.dataset.clone(),
            self.catalog.clone(),
        );
        ClusterTasks::serve(Arc::clone(&self.cluster), nodes, (worker, self.catalog.clone()), background)
    }

    /// Makes the batch layer, which does its tasks itself.
    pub(super) fn batch_layer(&self) -> BatchLayer {
        BatchLayer::new(
            self.batch.clone(),
            Arc::clone(&self.log),
            self.dataset.clone(),
            self.catalog.clone(),
            self.store.clone(),
            self.board.clone(),
        )
    }

    async fn run_batch(&self, tasks: &Arc<ClusterTasks>) {
        let batch = self.batch_layer().with_executor(Arc::clone(tasks) as Arc<dyn Executor>);
        tokio::join!(batch.run(std::future::pending()), self.reconcile(&batch), tasks.follow());
    }

    /// Sees to it that every view partition is held: those of new views, and those of which all
    /// replicas were lost, from the newest version.
    async fn reconcile(&self, batch: &BatchLayer) {
        let mut told = None;
        loop {
            let error = self.create_missing(batch).await.err().map(|error| format!("{error:#}"));
            if let Some(error) = error.as_ref().filter(|_| told != error) {
                tracing::warn!(error, "view partitions are missing");
            }
            told = error;
            tokio::time::sleep(RECONCILE).await;
        }
    }

    /// Makes the view partitions that nobody holds.
    pub(super) async fn create_missing(&self, batch: &BatchLayer) -> anyhow::Result<()> {
        let mut missing: Vec<(&Arc<View>, Vec<u32>)> = Vec::new();
        let catalog = self.catalog.current();
        for view in catalog.live.values() {
            let mut indexes = Vec::new();
            for index in 0..view.partitions {
                let id = PartitionId { view: view.fingerprint, index };
                match self.store.read(id, &ReadRequest::Progress).await {
                    Ok(_) => {}
                    Err(StoreError::NotLive(_)) => indexes.push(index),
                    Err(error) => return Err(error.into()),
                }
            }
            if !indexes.is_empty() {
                missing.push((view, indexes));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let views: Vec<Arc<View>> = missing.iter().map(|(view, _)| Arc::clone(view)).collect();
        let mut live = batch.live_views(&views).await.context("find or compute the views")?;
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        for (view, indexes) in missing {
            for indexes in indexes.chunks(at_once) {
                let blocks = live.blocks(view, indexes).await.context("load a view")?;
                // One that was retired meanwhile needs none.
                for (&index, block) in indexes.iter().zip(blocks.unwrap_or_default()) {
                    let id = PartitionId { view: view.fingerprint, index };
                    self.cluster.create(id, view.partition_config(), block).await?;
                    tracing::info!(view = view.name, partition = index, "view partition is made");
                }
                if view.storage != StorageLevel::Memory {
                    // Not all of them may find room in memory; the error is told by who moves what is held.
                    let _ = self.spiller.turn().await;
                }
            }
        }
        Ok(())
    }
}
