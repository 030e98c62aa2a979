//! Voters in one process, and the links between them.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use sanso_control::{
    ClusterMap, Control, ControlConfig, Founding, NodeId, Timings, Transport, TransportError,
};
use sanso_core::cluster::{Incarnation, Instance};
use tokio::sync::watch;

/// How the clusters of the tests are founded.
pub(crate) const FOUNDING: Founding = Founding { partitions: 8, replicas: 3 };
/// Entries between two snapshots.
pub(crate) const SNAPSHOT_ENTRIES: u64 = 20;

type Message = (NodeId, NodeId, &'static str);

/// Links between voters. A link that is cut swallows, as a network does; it does not refuse.
#[derive(Default)]
pub(crate) struct Net {
    voters: Mutex<BTreeMap<NodeId, Weak<Control>>>,
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    cut_off: Mutex<BTreeSet<NodeId>>,
    refused: Mutex<BTreeSet<(NodeId, NodeId)>>,
    counts: watch::Sender<BTreeMap<Message, usize>>,
}

/// A voter's end of the links.
pub(crate) struct Wire {
    net: Arc<Net>,
    from: NodeId,
}

pub(crate) struct Cluster {
    pub(crate) net: Arc<Net>,
    voters: BTreeMap<u16, Arc<Control>>,
    folder: tempfile::TempDir,
    timings: Timings,
}

impl Net {
    pub(crate) fn wire(self: &Arc<Self>, from: NodeId) -> Arc<dyn Transport> {
        Arc::new(Wire { net: self.clone(), from })
    }

    /// Lets nothing pass from one to the other.
    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.cut.lock().insert((from, to));
    }

    /// Lets nothing pass from or to a node.
    pub(crate) fn isolate(&self, node: NodeId) {
        self.cut_off.lock().insert(node);
    }

    /// Has one not be reached by the other, which is told so.
    pub(crate) fn refuse(&self, from: NodeId, to: NodeId) {
        self.refused.lock().insert((from, to));
    }

    pub(crate) fn heal(&self) {
        self.refused.lock().clear();
        self.cut.lock().clear();
        self.cut_off.lock().clear();
    }

    fn passes(&self, from: NodeId, to: NodeId) -> bool {
        let cut_off = self.cut_off.lock();
        !cut_off.contains(&from) && !cut_off.contains(&to) && !self.cut.lock().contains(&(from, to))
    }

    /// Counts the messages of a kind that were sent by a node, or to one.
    pub(crate) fn count(&self, chosen: impl Fn(Message) -> bool) -> usize {
        let counts = self.counts.borrow();
        counts.iter().filter(|(message, _)| chosen(**message)).map(|(_, count)| count).sum()
    }

    /// Waits until so many messages were sent.
    pub(crate) async fn counted(&self, chosen: impl Fn(Message) -> bool, least: usize) {
        let mut counts = self.counts.subscribe();
        while self.count(&chosen) < least {
            counts.changed().await.unwrap();
        }
    }
}

#[async_trait::async_trait]
impl Transport for Wire {
    async fn call(
        &self,
        to: NodeId,
        kind: &'static str,
        body: Vec<u8>,
        _: Duration,
    ) -> Result<Vec<u8>, TransportError> {
        self.net.counts.send_modify(|counts| *counts.entry((self.from, to, kind)).or_default() += 1);
        if !self.net.passes(self.from, to) {
            return std::future::pending().await;
        }
        if self.net.refused.lock().contains(&(self.from, to)) {
            return Err(TransportError::Unreachable("refused".to_owned()));
        }
        let voter = self.net.voters.lock().get(&to).and_then(Weak::upgrade);
        let voter = voter.ok_or_else(|| TransportError::Unreachable("nobody listens".to_owned()))?;
        let answer = voter.handle(kind, &body).await;
        drop(voter);
        if !self.net.passes(to, self.from) {
            return std::future::pending().await;
        }
        answer.map_err(|error| TransportError::Failed(error.to_string()))
    }
}

impl Cluster {
    /// Opens voters 1 to `count` and founds their cluster.
    pub(crate) async fn founded(count: u16) -> Self {
        Self::with(count, timings()).await
    }

    pub(crate) async fn with(count: u16, timings: Timings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Self { net: Arc::default(), voters: BTreeMap::new(), folder, timings };
        for node in 1..=count {
            cluster.open(node).await;
        }
        let first: Vec<u16> = (1..=count).collect();
        let founding = cluster.voters.values().map(|voter| {
            let (voter, first) = (voter.clone(), ids(&first));
            tokio::spawn(async move { voter.bootstrap(&first, FOUNDING).await })
        });
        for founded in founding.collect::<Vec<_>>() {
            assert_eq!(founded.await.unwrap().unwrap().version, 0);
        }
        cluster
    }

    pub(crate) fn folder(&self, node: u16) -> PathBuf {
        self.folder.path().join(node.to_string())
    }

    /// Opens a voter: a new one, or one that crashed.
    pub(crate) async fn open(&mut self, node: u16) {
        let mut config = ControlConfig::new(NodeId(node), "test", self.folder(node));
        config.timings = self.timings;
        config.snapshot_entries = SNAPSHOT_ENTRIES;
        let voter = Arc::new(Control::open(config, self.net.wire(NodeId(node))).await.unwrap());
        self.net.voters.lock().insert(NodeId(node), Arc::downgrade(&voter));
        self.voters.insert(node, voter);
    }

    /// Ends a voter as the end of its process would.
    pub(crate) async fn crash(&mut self, node: u16) {
        drop(self.take(node).await);
    }

    /// Takes a voter off the links, once nobody calls it any more.
    pub(crate) async fn take(&mut self, node: u16) -> Control {
        let mut voter = self.voters.remove(&node).unwrap();
        self.net.voters.lock().remove(&NodeId(node));
        loop {
            match Arc::try_unwrap(voter) {
                Ok(voter) => return voter,
                Err(shared) => voter = shared,
            }
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn voter(&self, node: u16) -> Arc<Control> {
        self.voters[&node].clone()
    }

    pub(crate) fn voters(&self) -> Vec<Arc<Control>> {
        self.voters.values().cloned().collect()
    }

    /// Waits for a leader.
    pub(crate) async fn leader(&self) -> NodeId {
        let all: Vec<u16> = self.voters.keys().copied().collect();
        self.leader_of(&all).await
    }

    /// Waits until one of these leads.
    pub(crate) async fn leader_of(&self, nodes: &[u16]) -> NodeId {
        let leads = nodes.iter().map(|node| {
            let mut leads = self.voters[node].leads();
            Box::pin(async move {
                leads.wait_for(|leads| *leads).await.unwrap();
                NodeId(*node)
            })
        });
        futures::future::select_all(leads).await.0
    }

    /// Waits until all voters have at least this version of the map, and returns their maps.
    pub(crate) async fn all_at(&self, version: u64) -> Vec<Arc<ClusterMap>> {
        let mut all = Vec::new();
        for voter in self.voters.values() {
            let mut maps = voter.maps();
            let map = maps.wait_for(|map| map.as_ref().is_some_and(|map| map.version >= version)).await;
            all.extend(map.unwrap().clone());
        }
        all
    }

    /// Waits until a voter knows these as the voters.
    pub(crate) async fn voters_known(&self, node: u16, voters: &[u16]) {
        let mut status = self.voters[&node].status();
        status.wait_for(|status| status.voters == ids(voters)).await.unwrap();
        assert_eq!(self.voters[&node].voters(), ids(voters));
    }

    pub(crate) fn map_of(&self, node: u16) -> Arc<ClusterMap> {
        self.voters[&node].maps().borrow().clone().unwrap()
    }
}

/// Times that a busy machine keeps.
pub(crate) fn timings() -> Timings {
    Timings {
        heartbeat_ms: 100,
        election_ms_min: 1_000,
        election_ms_max: 2_000,
        proposal_ms_max: 20_000,
        ..Timings::default()
    }
}

/// Times in which a leader is not lost, however busy the machine.
pub(crate) fn slow() -> Timings {
    Timings { heartbeat_ms: 200, election_ms_min: 2_000, election_ms_max: 3_000, ..timings() }
}

pub(crate) fn ids(nodes: &[u16]) -> BTreeSet<NodeId> {
    nodes.iter().copied().map(NodeId).collect()
}

pub(crate) fn instance(node: u16) -> Instance {
    Instance { node: NodeId(node), incarnation: Incarnation(1) }
}

/// Fails instead of waiting for ever.
pub(crate) async fn within(test: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(180), test).await.expect("done in three minutes");
}
