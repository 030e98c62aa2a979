//! What the serving layer can say of the cluster that its node is in.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

/// A node's cluster, as operators see it.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// Returns this node's number.
    fn node(&self) -> u16;

    /// Returns the other nodes; with the reason where the cluster holds one for lost, as of the newest map.
    fn others(&self) -> BTreeMap<u16, Option<String>>;

    /// Returns the node that drives the batch layer, by the newest map.
    fn batch_driver(&self) -> Option<u16>;

    /// Asks another node, whose [`crate::NodeQuestions`] answers; an error says why there is no answer.
    async fn ask(
        &self,
        node: u16,
        kind: &'static str,
        question: Vec<u8>,
        within: Duration,
    ) -> Result<Vec<u8>, String>;

    /// Returns this node's part in the cluster in figures, for `/metrics`: those of one name follow each other.
    fn figures(&self) -> Vec<Figure>;

    /// Describes members, partitions and what this node holds.
    fn describe(&self) -> Value;

    /// Empties a node of what it holds, or (false) uses it again; an error says why not.
    async fn drain(&self, node: u16, draining: bool) -> Result<(), ClusterRefusal>;

    /// Says who votes on who holds what, and how each node takes part in that.
    async fn voters(&self) -> Value;

    /// Makes these nodes the voters, also fewer than are wise with `force`; says who votes now and what
    /// is to be warned of. Takes as long as new voters need to catch up, within its own bounds.
    async fn change_voters(&self, voters: &[u16], force: bool) -> Result<Value, ClusterRefusal>;

    /// Breaks this node's links to others on purpose, as a drill asks: a document of peer's number to
    /// `{cut_in, cut_out, delay_ms, loss}`. Others are healed.
    fn break_links(&self, links: &Value) -> Result<(), ClusterRefusal>;
}

/// A gauge of a node's part in its cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// What it is said of, by label.
    pub labels: Vec<(&'static str, String)>,
    /// How much.
    pub value: f64,
}

/// Why the cluster does not do what is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterRefusal {
    /// What is asked can't be; it says why.
    Impossible(String),
    /// It can't be agreed on now; it says why.
    Unavailable(String),
    /// Not on this node.
    NotHere(&'static str),
}
