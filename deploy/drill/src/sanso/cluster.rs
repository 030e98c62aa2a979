//! A cluster of `sanso node` processes on loopback ports, with its log in real Kafka brokers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use futures::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use super::application;
use super::node_file::NodeFiles;
use super::session::{Acknowledged, Session};
use super::surroundings::{Clock, SmallDisk};
use crate::fault::{Act, Pick};
use crate::history::{Key, Request};
use crate::oracle::Audit;
use crate::ports;
use crate::process::Process;
use crate::target::{Connection, Target};

/// How long the cluster may take to be well.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a node may take to say how the cluster is.
const GLANCE: Duration = Duration::from_secs(1);
/// How long it may take for one question of the audit.
const AUDIT: Duration = Duration::from_secs(20);
/// Partitions of the log.
const LOG_PARTITIONS: u32 = 12;

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nodes; from five on their roles are mixed.
    pub nodes: usize,
    /// Kafka brokers, 1 or 3.
    pub brokers: usize,
    /// Whether each node has a small disk of its own, which can be filled.
    pub small_disks: bool,
    /// Whether each node has a wall clock of its own, which can jump.
    pub own_clocks: bool,
    /// The node that a fault of one node meets, modulo their number.
    pub first: usize,
    /// How long clients wait for an answer.
    pub patience: Duration,
}

/// A running cluster. Its processes are killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    // Before brokers and folder, so that nobody writes to what is removed.
    processes: Vec<Process>,
    disks: Vec<SmallDisk>,
    clocks: Vec<Clock>,
    brokers: sanso_broker::Cluster,
    bases: Vec<String>,
    roles: Vec<&'static [&'static str]>,
    patience: Duration,
    /// The node that is meant when one is enough.
    first: usize,
    acknowledged: Acknowledged,
    _folder: TempDir,
}

impl Cluster {
    /// Starts brokers, then the nodes with this binary.
    pub fn start(binary: &Path, plan: &Plan) -> anyhow::Result<Self> {
        ensure!(plan.nodes >= 3, "a cluster to drill has three nodes or more, not {}", plan.nodes);
        let brokers = sanso_broker::Cluster::start(plan.brokers)
            .context("start Kafka (deploy/setup/install.sh kafka installs what it needs)")?;
        let folder = tempfile::Builder::new().prefix("sanso-drill-").tempdir()?;
        let ports = ports::free(2 * plan.nodes)?;
        let (http, peer) = ports.split_at(plan.nodes);
        let files = NodeFiles {
            folder: folder.path().to_owned(),
            log: format!("kafka://{}", brokers.servers()),
            http: http.to_vec(),
            peer: peer.to_vec(),
        };
        std::fs::write(folder.path().join("app.sql"), application::sql(LOG_PARTITIONS))
            .context("write the application")?;
        std::fs::create_dir(folder.path().join("dataset"))?;
        let (mut processes, mut disks, mut clocks) = (Vec::new(), Vec::new(), Vec::new());
        for node in 0..plan.nodes {
            std::fs::create_dir(files.data(node))?;
            if plan.small_disks {
                disks.push(SmallDisk::mount(&files.data(node))?);
            }
            if plan.own_clocks {
                clocks.push(Clock::new(folder.path().join(format!("clock{node}")))?);
            }
            processes.push(process(binary.to_owned(), &files, node, clocks.get(node).cloned())?);
        }
        processes.iter_mut().try_for_each(Process::start)?;
        Ok(Self {
            processes,
            disks,
            clocks,
            brokers,
            bases: http.iter().map(|port| format!("http://127.0.0.1:{port}")).collect(),
            roles: (0..plan.nodes).map(|node| files.roles(node)).collect(),
            patience: plan.patience,
            first: plan.first % plan.nodes,
            acknowledged: Acknowledged::default(),
            _folder: folder,
        })
    }

    fn session(&self, patience: Duration) -> anyhow::Result<Session> {
        Session::new(self.bases.clone(), patience, &self.acknowledged)
    }

    /// Says what a node lacks until it and all that it knows of are well, if anything.
    async fn lacks(&self, session: &Session, node: usize) -> Option<String> {
        if let Err(error) = session.ready(node).await {
            return Some(error);
        }
        match session.get(node, "/v1/cluster").await {
            Ok(cluster) => lacking(&cluster, self.bases.len()),
            Err(error) => Some(error),
        }
    }

    /// Returns the node that leads the agreement, as the first one that knows says.
    async fn leader(&self) -> anyhow::Result<usize> {
        let session = self.session(GLANCE)?;
        for node in 0..self.bases.len() {
            let Ok(cluster) = session.get(node, "/v1/cluster").await else { continue };
            if let Some(leader) = cluster["control_leader"].as_u64() {
                return Ok(usize::try_from(leader)? - 1);
            }
        }
        bail!("no node says who leads the agreement")
    }

    /// Sets what a node's links to all others suffer.
    async fn set_links(&self, node: usize, suffer: Option<Value>) -> anyhow::Result<()> {
        let others = (0..self.bases.len()).filter(|other| *other != node);
        let links: serde_json::Map<String, Value> = match suffer {
            Some(suffer) => others.map(|other| ((other + 1).to_string(), suffer.clone())).collect(),
            None => serde_json::Map::new(),
        };
        let session = self.session(GLANCE)?;
        session.post(node, "/v1/drill/links", &Value::Object(links)).await.map_err(anyhow::Error::msg)
    }
}

/// Makes the process of a node and writes its file.
fn process(binary: PathBuf, files: &NodeFiles, node: usize, clock: Option<Clock>) -> anyhow::Result<Process> {
    let file = files.folder.join(format!("node{}.toml", node + 1));
    std::fs::write(&file, files.file(node)).context("write a node's file")?;
    let log = files.folder.join(format!("node{}.log", node + 1));
    Ok(Process::new(format!("node {}", node + 1), log, move || {
        let mut sanso = Command::new(&binary);
        sanso.arg("node").arg("--config").arg(&file);
        if let Some(clock) = &clock {
            clock.govern(&mut sanso);
        }
        sanso
    }))
}

/// Says what a cluster of so many nodes lacks by its own description, if anything.
fn lacking(cluster: &Value, nodes: usize) -> Option<String> {
    let list = |name: &str| cluster[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let down = list("nodes").iter().find(|node| node["standing"] != "up" || node["draining"] != false);
    if let Some(node) = down {
        return Some(format!("node {} is {}", node["node"], node["standing"]));
    }
    if list("nodes").len() != nodes || list("partitions").is_empty() {
        return Some(format!("{} of {nodes} nodes are members", list("nodes").len()));
    }
    let replicas = cluster["replicas"].as_u64().unwrap_or_default() as usize;
    let in_sync = |partition: &Value| partition["in_sync"].as_array().map_or(0, Vec::len);
    let short = list("partitions")
        .iter()
        .find(|partition| partition["primary"].is_null() || in_sync(partition) < replicas)?;
    Some(format!("partition {} has {} of {replicas} replicas in sync", short["partition"], in_sync(short)))
}

#[async_trait]
impl Target for Cluster {
    fn name(&self) -> String {
        format!("Sanso, {} nodes", self.bases.len())
    }

    fn nodes(&mut self) -> &mut [Process] {
        &mut self.processes
    }

    fn contacts(&self) -> Option<usize> {
        Some(self.bases.len())
    }

    fn answers(&self) -> fn(Request) -> bool {
        |_| true
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Connection>> {
        Ok(Box::new(self.session(self.patience)?))
    }

    async fn pick(&mut self, pick: Pick) -> anyhow::Result<BTreeSet<usize>> {
        let nodes = self.bases.len();
        let node = match pick {
            Pick::All => return Ok((0..nodes).collect()),
            Pick::Broker => return Ok(BTreeSet::new()),
            Pick::Node(node) => node,
            Pick::One => self.first,
            Pick::Another => (self.first + 1) % nodes,
            Pick::Leader => self.leader().await?,
            Pick::Role(role) => {
                let mut with: Vec<usize> =
                    (0..nodes).filter(|node| self.roles[*node].contains(&role)).collect();
                with.sort_by_key(|node| self.roles[*node].len());
                *with.first().with_context(|| format!("no node has the role {role}"))?
            }
        };
        Ok(BTreeSet::from([node]))
    }

    async fn act(&mut self, node: usize, act: Act) -> anyhow::Result<()> {
        let suffer = match act {
            Act::Cut => json!({ "cut_in": true, "cut_out": true }),
            Act::CutIn => json!({ "cut_in": true }),
            Act::CutOut => json!({ "cut_out": true }),
            Act::Delay(ms) => json!({ "delay_ms": ms }),
            Act::Lose(percent) => json!({ "loss": f64::from(percent) / 100.0 }),
            Act::Mend => return self.set_links(node, None).await,
            Act::FillDisk => return self.disks.get(node).context("its disk is not its own")?.fill(),
            Act::EmptyDisk => return self.disks.get(node).context("its disk is not its own")?.empty(),
            Act::JumpClock(ahead_s) => {
                return self.clocks.get(node).context("its clock is not its own")?.set(ahead_s);
            }
            Act::SetClock => return self.clocks.get(node).context("its clock is not its own")?.set(0),
            act => return self.processes[node].act(act),
        };
        self.set_links(node, Some(suffer)).await
    }

    async fn act_on_broker(&mut self, act: Act) -> anyhow::Result<()> {
        match act {
            Act::Kill => self.brokers.kill(0),
            Act::Start => self.brokers.restart()?,
            other => bail!("a broker can be killed and started, not {other:?}"),
        }
        Ok(())
    }

    async fn well(&mut self) -> anyhow::Result<()> {
        let session = self.session(GLANCE)?;
        let until = Instant::now() + PATIENCE;
        loop {
            self.processes.iter_mut().try_for_each(Process::check)?;
            let lacks = join_all((0..self.bases.len()).map(|node| self.lacks(&session, node))).await;
            let lacking = (1..).zip(lacks).find_map(|(node, lacks)| lacks.map(|lacks| (node, lacks)));
            let Some((node, lacks)) = lacking else { return Ok(()) };
            ensure!(
                Instant::now() < until,
                "not well within {PATIENCE:?}: node {node} says: {lacks}\n{}",
                self.processes[node - 1].last_words()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn audit(&mut self, keys: Key) -> anyhow::Result<Audit> {
        let session = self.session(AUDIT)?;
        let mut audit = Audit::new();
        for key in 0..keys {
            // Each node in turn: any node answers any question.
            let node = key as usize % self.bases.len();
            let readings = session.readings(node, key).await.map_err(anyhow::Error::msg)?;
            audit.extend(readings.into_iter().map(|(sequence, found)| ((key, sequence), found)));
        }
        Ok(audit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_well_when_all_are_up_and_all_partitions_have_their_replicas() {
        let node = |number: u16| json!({ "node": number, "standing": "up", "draining": false });
        let well = json!({
            "replicas": 2,
            "nodes": [node(1), node(2)],
            "partitions": [{ "partition": 0, "primary": 1, "in_sync": [1, 2] }],
        });
        assert_eq!(lacking(&well, 2), None);
        for (path, ill, says) in [
            ("/nodes/1/standing", json!("suspected"), "node 2 is \"suspected\""),
            ("/nodes/0/draining", json!(true), "node 1"),
            ("/nodes", json!([node(1)]), "1 of 2 nodes"),
            ("/partitions", json!([]), "members"),
            ("/partitions/0/primary", Value::Null, "partition 0"),
            ("/partitions/0/in_sync", json!([2]), "partition 0 has 1 of 2"),
        ] {
            let mut cluster = well.clone();
            *cluster.pointer_mut(path).expect("a path in it") = ill;
            let lacks = lacking(&cluster, 2).expect(path);
            assert!(lacks.contains(says), "{path}: {lacks}");
        }
    }
}
