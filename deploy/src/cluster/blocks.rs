//! The dataset's blocks on the nodes of a cluster.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sanso_block::{BlockId, BlockNode, Neighbours, NodeBlocks, OfferedBlock};
use sanso_catalog::CatalogHandle;
use sanso_cluster::{BlockHost, ClusterBlocks, ClusterNode, NodeId};
use sanso_dataset::Dataset;
use tokio::sync::watch;

use crate::cluster::member::stopped;

/// What this node's blocks belong to.
pub(crate) struct Host {
    pub(crate) dataset: Dataset,
    pub(crate) catalog: CatalogHandle,
}

/// Lets nodes know of each other's blocks; `nodes` are those that keep some.
pub(crate) fn serve(
    cluster: &Arc<ClusterNode>,
    nodes: BTreeSet<NodeId>,
    host: Arc<Host>,
) -> Arc<ClusterBlocks> {
    let blocks = ClusterBlocks::serve(cluster, nodes, Arc::clone(&host) as Arc<dyn BlockHost>);
    host.dataset.join_neighbours(Arc::clone(&blocks) as Arc<dyn Neighbours>);
    blocks
}

/// Copies blocks until the node is stopped.
pub(crate) async fn copy(blocks: Arc<ClusterBlocks>, host: Arc<Host>, stop: watch::Receiver<bool>) {
    let offer_again = async {
        let mut known = blocks.usable();
        while let Some(others) = blocks.others_came(&known).await {
            known = others;
            let sources: Vec<String> = host.catalog.current().sources.keys().cloned().collect();
            for source in sources {
                if let Err(error) = host.dataset.offer_again(&source).await {
                    tracing::warn!(source, %error, "blocks are not offered yet to the nodes that are there now");
                    // Known to nobody, they come again.
                    known.clear();
                }
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = stopped(stop) => {}
        () = host.dataset.copy_blocks() => {}
        () = offer_again => {}
    }
}

#[async_trait]
impl BlockHost for Host {
    fn log_partitions(&self, source: &str) -> u32 {
        self.catalog.current().sources.get(source).map_or(0, |source| source.partitions)
    }

    fn offered(&self, from: BlockNode, blocks: Vec<OfferedBlock>) {
        self.dataset.blocks_offered(from, blocks);
    }

    async fn exported(&self, id: BlockId) -> Option<Bytes> {
        self.dataset.exported_block(id).await
    }

    fn held(&self) -> NodeBlocks {
        self.dataset.node_blocks()
    }

    fn forget(&self, blocks: Vec<BlockId>) {
        self.dataset.forget_blocks(&blocks);
    }
}
