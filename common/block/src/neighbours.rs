//! The block stores of other nodes, as this one sees them.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use sanso_state::LogPartition;
use serde::{Deserialize, Serialize};

use crate::BlockId;
use crate::replicas::TableFigures;

/// A node, by its number in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockNode(pub u16);

impl fmt::Display for BlockNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// A part of a source's table, of which nodes keep one block: the newest that they know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartId {
    /// The source.
    pub source: String,
    /// The log partition.
    pub partition: LogPartition,
    /// The UTC date of event time, in days since 1970-01-01; none where the table is not divided by date.
    pub date: Option<i32>,
}

/// The block of a part that a node has and others should have, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedBlock {
    /// The part.
    pub part: PartId,
    /// The version of the table that it belongs to, or a later one.
    pub version: u64,
    /// The block.
    pub id: BlockId,
}

/// A block that a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBlock {
    /// The block.
    pub id: BlockId,
    /// Whether it is in memory; else it is on the node's disk alone.
    pub in_memory: bool,
    /// Its bytes there.
    pub bytes: u64,
}

/// What a node says of its blocks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeBlocks {
    /// Those that it has.
    pub blocks: Vec<HeldBlock>,
    /// What it has measured, by source.
    pub tables: BTreeMap<String, TableFigures>,
}

/// Speaks with the block stores of other nodes.
#[async_trait]
pub trait Neighbours: Send + Sync {
    /// Returns this node.
    fn me(&self) -> BlockNode;

    /// Returns the nodes that are to keep the blocks of a log partition, best first, all that are there
    /// being among them. The first works on the log partition, the second would without it, and so on.
    fn places(&self, source: &str, partition: LogPartition) -> Vec<BlockNode>;

    /// Returns all nodes that keep blocks, this one among them if it does.
    fn nodes(&self) -> Vec<BlockNode>;

    /// Asks another node what it has.
    async fn held(&self, of: BlockNode) -> Result<NodeBlocks, String>;

    /// Tells a node what it may fetch here.
    async fn offer(&self, to: BlockNode, blocks: Vec<OfferedBlock>) -> Result<(), String>;

    /// Asks a node for a block; none when it doesn't have it.
    async fn fetch(&self, from: BlockNode, id: BlockId) -> Result<Option<Bytes>, String>;

    /// Lets another node remove blocks that nobody will ask for again.
    async fn forget(&self, at: BlockNode, blocks: Vec<BlockId>) -> Result<(), String>;
}
