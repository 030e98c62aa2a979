//! What a drill runs on: a cluster, and how clients speak to it.

use std::collections::BTreeSet;

use anyhow::bail;
use async_trait::async_trait;

use crate::fault::{Act, Pick, Views};
use crate::history::{Key, Request, Seen};
use crate::oracle::Audit;

/// A client's own session with a cluster. Cheap to use from many tasks at once.
#[async_trait]
pub trait Connection: Send + Sync {
    /// Asks a node once; returns what a good answer said, or why there is none. The node is none where
    /// [`Target::contacts`] is.
    ///
    /// The caller may stop waiting at any time by dropping the future.
    async fn attempt(&self, node: Option<usize>, request: Request) -> Result<Option<Seen>, String>;
}

/// A cluster that can be harmed.
#[async_trait]
pub trait Target: Send + Sync {
    /// Returns the name in reports.
    fn name(&self) -> String;

    /// Returns the names of its nodes.
    fn nodes(&self) -> Vec<String>;

    /// Returns all that each node said.
    fn said(&self) -> Vec<String>;

    /// Returns how many nodes a client chooses from; none where its library finds the way by itself.
    fn contacts(&self) -> Option<usize>;

    /// Returns what says whether it has an answer to a kind of question.
    fn answers(&self) -> fn(Request) -> bool;

    /// Puts so many readings in, of keys that nobody asks for, as fast as they are taken.
    async fn flood(&mut self, readings: u32) -> anyhow::Result<()> {
        bail!("{} is not flooded with {readings} readings", self.name())
    }

    /// Waits until all of them can be seen, where all answers come from.
    async fn settle(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Declares views over all that is archived; returns when the batch layer works on them.
    async fn declare_views(&mut self, _views: Views) -> anyhow::Result<()> {
        bail!("{} is not given another view", self.name())
    }

    /// Waits until they are there, and compares them with the readings that nobody asks for.
    async fn await_views(&mut self, _views: Views) -> anyhow::Result<()> {
        Ok(())
    }

    /// Opens a session.
    async fn connect(&self) -> anyhow::Result<Box<dyn Connection>>;

    /// Returns the nodes that a pick means now.
    async fn pick(&mut self, pick: Pick) -> anyhow::Result<BTreeSet<usize>> {
        let nodes = self.nodes().len();
        match pick {
            Pick::All => Ok((0..nodes).collect()),
            Pick::Node(node) if node < nodes => Ok(BTreeSet::from([node])),
            Pick::One => Ok(BTreeSet::from([0])),
            Pick::Another if nodes > 1 => Ok(BTreeSet::from([1])),
            Pick::Broker | Pick::Nobody => Ok(BTreeSet::new()),
            other => bail!("{} has no node that is {other:?}", self.name()),
        }
    }

    /// Does something to a node.
    async fn act(&mut self, node: usize, act: Act) -> anyhow::Result<()>;

    /// Kills or starts a broker of its log.
    async fn act_on_broker(&mut self, act: Act) -> anyhow::Result<()> {
        bail!("{} has no broker to {act:?}", self.name())
    }

    /// Waits until all nodes are in service with all that they should hold.
    async fn well(&mut self) -> anyhow::Result<()>;

    /// Returns all readings of the keys `0..keys`, once all that was acknowledged can be seen.
    async fn audit(&mut self, keys: Key) -> anyhow::Result<Audit>;
}
