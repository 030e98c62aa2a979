//! Names and positions of the core.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names a node; given by its configuration, the same over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u16);

/// Numbers the lives of a node: a restart is a larger one, with empty memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// One life of a node: what holds replicas, and what is fenced once it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Instance {
    /// The node.
    pub node: NodeId,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

/// A holder of a replica. A node that let go of a partition and gets it again in
/// the same life begins anew, which `since` tells: what was known of its replica
/// before says nothing of the one it has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    /// The node, in this life.
    pub instance: Instance,
    /// The version of the map that made it a holder.
    pub since: u64,
}

/// Numbers a partition of the core, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Partition(pub u32);

/// Numbers the primaries of a partition: a new primary is a larger one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// A place in a partition's log: the entry numbered `seq` (from 1), which the
/// primary of `epoch` wrote; 0 is the beginning. Two logs that agree on an
/// entry's position agree on all entries before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Which history of the partition: the next begins, empty, when all replicas are lost.
    pub life: u32,
    /// The epoch in which the entry was written.
    pub epoch: Epoch,
    /// The entry's number.
    pub seq: u64,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.node, self.incarnation.0)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.instance, self.since)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}", self.0)
    }
}
