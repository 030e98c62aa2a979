//! Blocks on several nodes: which are to have what, by the map, and what nodes ask each other.
//!
//! Blocks never change, so copies need no order and no epoch, and the replication of the core is not for
//! them: a node offers what it has, and who is to have it fetches it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sanso_block::{BlockId, BlockNode, Neighbours, NodeBlocks, OfferedBlock};
use sanso_core::cluster::{ClusterMap, NodeId};
use sanso_state::{LogPartition, Replicas};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use crate::owners;
use crate::questions::Answers;
use crate::start::ClusterNode;

/// The kinds of questions: here are blocks that you are to have; give me a block; which ones have you; remove these.
const OFFER: &str = "batch.offer";
const FETCH: &str = "batch.fetch";
const HELD: &str = "batch.held";
const FORGET: &str = "batch.forget";
/// How long an answer may take.
const OFFER_MAX: Duration = Duration::from_secs(2);
const FETCH_MAX: Duration = Duration::from_secs(20);
const HELD_MAX: Duration = Duration::from_secs(1);
const FORGET_MAX: Duration = Duration::from_secs(1);
/// How long the nodes must have been others than before until blocks are offered to them: one that is started again
/// is back sooner, with what it has on disk.
const OFFER_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What a node's block store does for other nodes.
#[async_trait]
pub trait BlockHost: Send + Sync {
    /// Returns how many log partitions a source has; 0 when it is not known.
    fn log_partitions(&self, source: &str) -> u32;

    /// Takes note of blocks that a node has and this one is to have.
    fn offered(&self, from: BlockNode, blocks: Vec<OfferedBlock>);

    /// Returns a block as bytes; none when it is not here.
    async fn exported(&self, id: BlockId) -> Option<Bytes>;

    /// Says what this node has.
    fn held(&self) -> NodeBlocks;

    /// Removes blocks that nobody will ask for again.
    fn forget(&self, blocks: Vec<BlockId>);
}

/// The block stores of the nodes that keep blocks.
pub struct ClusterBlocks {
    cluster: Arc<ClusterNode>,
    nodes: BTreeSet<NodeId>,
    host: Arc<dyn BlockHost>,
    places: Mutex<Places>,
}

/// Who is to have the blocks of which log partition, as long as these nodes are there.
#[derive(Default)]
struct Places {
    nodes: Vec<NodeId>,
    of: BTreeMap<String, Vec<Vec<BlockNode>>>,
}

impl ClusterBlocks {
    /// Answers other nodes from now on. `nodes`: those that keep blocks.
    pub fn serve(cluster: &Arc<ClusterNode>, nodes: BTreeSet<NodeId>, host: Arc<dyn BlockHost>) -> Arc<Self> {
        cluster.answer(OFFER, Arc::new(Offers(Arc::clone(&host))));
        cluster.answer(FETCH, Arc::new(Fetches(Arc::clone(&host))));
        cluster.answer(HELD, Arc::new(Held(Arc::clone(&host))));
        cluster.answer(FORGET, Arc::new(Forgets(Arc::clone(&host))));
        Arc::new(Self { cluster: Arc::clone(cluster), nodes, host, places: Mutex::default() })
    }

    /// Waits until other nodes than those known have kept blocks for a while, and returns them: then all is to
    /// be offered again. None when there will be no others.
    pub async fn others_came(&self, known: &[NodeId]) -> Option<Vec<NodeId>> {
        let mut maps = self.cluster.maps();
        loop {
            // What is asked inside of the wait holds the map's lock, so it looks at nothing but its argument.
            let others = maps.wait_for(|map| self.keeping(map) != known).await.ok();
            let others = others.map(|map| self.keeping(&map))?;
            sleep(OFFER_AGAIN_AFTER).await;
            if self.usable() == others {
                return Some(others);
            }
        }
    }

    /// Returns the nodes that are there now and keep blocks.
    pub fn usable(&self) -> Vec<NodeId> {
        self.keeping(&self.cluster.maps().borrow())
    }

    fn keeping(&self, map: &ClusterMap) -> Vec<NodeId> {
        owners::usable(map, |node| self.nodes.contains(&node))
    }

    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        to: BlockNode,
        kind: &'static str,
        question: &Q,
        within: Duration,
    ) -> Result<A, String> {
        let question = encoded(question)?;
        let answer = self.cluster.ask(NodeId(to.0), kind, question, within).await;
        decoded(&answer.map_err(|error| error.to_string())?)
    }
}

#[async_trait]
impl Neighbours for ClusterBlocks {
    fn me(&self) -> BlockNode {
        BlockNode(self.cluster.me().node.0)
    }

    fn places(&self, source: &str, partition: LogPartition) -> Vec<BlockNode> {
        let nodes = self.usable();
        let partitions = self.host.log_partitions(source);
        if partitions == 0 {
            return Vec::new();
        }
        let mut places = self.places.lock();
        if places.nodes != nodes {
            *places = Places { nodes: nodes.clone(), of: BTreeMap::new() };
        }
        let of_source = places.of.entry(source.to_owned()).or_insert_with(|| {
            let jobs: Vec<u32> = (0..partitions).collect();
            let weight = |l: &u32, node| owners::weight(source, *l, node);
            let assigned = owners::assign_places(&jobs, &nodes, Replicas::MAX.into(), weight);
            let named = |nodes: Vec<NodeId>| nodes.into_iter().map(|node| BlockNode(node.0)).collect();
            assigned.into_values().map(named).collect()
        });
        of_source.get(partition.index()).cloned().unwrap_or_default()
    }

    fn nodes(&self) -> Vec<BlockNode> {
        self.nodes.iter().map(|node| BlockNode(node.0)).collect()
    }

    async fn held(&self, of: BlockNode) -> Result<NodeBlocks, String> {
        self.ask(of, HELD, &(), HELD_MAX).await
    }

    async fn offer(&self, to: BlockNode, blocks: Vec<OfferedBlock>) -> Result<(), String> {
        self.ask(to, OFFER, &blocks, OFFER_MAX).await
    }

    async fn fetch(&self, from: BlockNode, id: BlockId) -> Result<Option<Bytes>, String> {
        let answer = self.cluster.ask(NodeId(from.0), FETCH, encoded(&id)?, FETCH_MAX).await;
        // As it is, since a block may be large; one as bytes is never empty.
        answer.map(|bytes| Some(bytes).filter(|bytes| !bytes.is_empty())).map_err(|error| error.to_string())
    }

    async fn forget(&self, at: BlockNode, blocks: Vec<BlockId>) -> Result<(), String> {
        self.ask(at, FORGET, &blocks, FORGET_MAX).await
    }
}

fn encoded(what: &impl Serialize) -> Result<Vec<u8>, String> {
    rmp_serde::to_vec_named(what).map_err(|error| error.to_string())
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|error| error.to_string())
}

struct Offers(Arc<dyn BlockHost>);
struct Fetches(Arc<dyn BlockHost>);
struct Held(Arc<dyn BlockHost>);
struct Forgets(Arc<dyn BlockHost>);

#[async_trait]
impl Answers for Offers {
    async fn answer(&self, from: NodeId, question: Bytes) -> Result<Bytes, String> {
        self.0.offered(BlockNode(from.0), decoded(&question)?);
        encoded(&()).map(Bytes::from)
    }
}

#[async_trait]
impl Answers for Fetches {
    async fn answer(&self, _from: NodeId, question: Bytes) -> Result<Bytes, String> {
        Ok(self.0.exported(decoded(&question)?).await.unwrap_or_default())
    }
}

#[async_trait]
impl Answers for Held {
    async fn answer(&self, _from: NodeId, _question: Bytes) -> Result<Bytes, String> {
        encoded(&self.0.held()).map(Bytes::from)
    }
}

#[async_trait]
impl Answers for Forgets {
    async fn answer(&self, _from: NodeId, question: Bytes) -> Result<Bytes, String> {
        self.0.forget(decoded(&question)?);
        encoded(&()).map(Bytes::from)
    }
}
