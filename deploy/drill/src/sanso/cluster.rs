//! A cluster of `sanso node` processes on loopback ports, with its log in real Kafka brokers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use super::application::{self, Storage};
use super::members::Members;
use super::node_file::NodeFiles;
use super::surroundings::{Clock, SmallDisk};
use crate::fault::{Act, Pick, Views};
use crate::history::{Key, Request};
use crate::oracle::Audit;
use crate::ports;
use crate::process::Process;
use crate::target::{Connection, Target};

/// How long the cluster may take to be well.
const PATIENCE: Duration = Duration::from_secs(120);
/// Before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
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
    /// Where the groups of views are kept.
    pub storage: Storage,
}

/// A running cluster. Its processes are killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    // Before brokers and folder, so that nobody writes to what is removed.
    processes: Vec<Process>,
    /// Each node's folder.
    data: Vec<PathBuf>,
    disks: Vec<SmallDisk>,
    clocks: Vec<Clock>,
    brokers: sanso_broker::Cluster,
    members: Members,
    storage: Storage,
    folder: TempDir,
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
        std::fs::write(folder.path().join("app.sql"), application::sql(LOG_PARTITIONS, plan.storage))
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
            data: (0..plan.nodes).map(|node| files.data(node)).collect(),
            disks,
            clocks,
            brokers,
            members: Members::new(
                http.iter().map(|port| format!("http://127.0.0.1:{port}")).collect(),
                plan.patience,
                plan.first,
            )?,
            storage: plan.storage,
            folder,
        })
    }

    /// Sets what a node's links to all others suffer.
    async fn set_links(&self, node: usize, suffer: Option<Value>) -> anyhow::Result<()> {
        let others = (0..self.members.len()).filter(|other| *other != node);
        let links: serde_json::Map<String, Value> = match suffer {
            Some(suffer) => others.map(|other| ((other + 1).to_string(), suffer.clone())).collect(),
            None => serde_json::Map::new(),
        };
        self.members.tell(node, "/v1/drill/links", &Value::Object(links)).await
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

#[async_trait]
impl Target for Cluster {
    fn name(&self) -> String {
        format!("Sanso, {} nodes", self.members.len())
    }

    fn nodes(&self) -> Vec<String> {
        self.processes.iter().map(|process| process.name().to_owned()).collect()
    }

    fn said(&self) -> Vec<String> {
        self.processes.iter().map(Process::said).collect()
    }

    fn contacts(&self) -> Option<usize> {
        Some(self.members.len())
    }

    fn answers(&self) -> fn(Request) -> bool {
        |_| true
    }

    async fn flood(&mut self, readings: u32) -> anyhow::Result<()> {
        self.members.flood(readings).await
    }

    async fn settle(&mut self) -> anyhow::Result<()> {
        self.members.settle().await
    }

    async fn declare_views(&mut self, views: Views) -> anyhow::Result<()> {
        let sql = application::sql(LOG_PARTITIONS, self.storage);
        let sql = application::declared(views).iter().fold(sql, |sql, (_, view)| sql + view);
        // In one step, for the nodes look at it at any time.
        let (file, beside) = (self.folder.path().join("app.sql"), self.folder.path().join("app.sql.new"));
        std::fs::write(&beside, sql).context("write the application")?;
        std::fs::rename(&beside, &file).context("replace the application")?;
        self.members.working().await.map(drop)
    }

    async fn await_views(&mut self, views: Views) -> anyhow::Result<()> {
        for (view, _) in application::declared(views) {
            self.members.await_view(view).await?;
        }
        Ok(())
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Connection>> {
        self.members.connect()
    }

    async fn pick(&mut self, pick: Pick) -> anyhow::Result<BTreeSet<usize>> {
        self.members.pick(pick).await
    }

    async fn act(&mut self, node: usize, act: Act) -> anyhow::Result<()> {
        let suffer = match act {
            Act::Cut => json!({ "cut_in": true, "cut_out": true }),
            Act::CutIn => json!({ "cut_in": true }),
            Act::CutOut => json!({ "cut_out": true }),
            Act::Delay(ms) => json!({ "delay_ms": ms }),
            Act::Lose(percent) => json!({ "loss": f64::from(percent) / 100.0 }),
            Act::Mend => return self.set_links(node, None).await,
            Act::LoseDisk => {
                self.processes[node].kill()?;
                let data = &self.data[node];
                return std::fs::remove_dir_all(data).with_context(|| format!("delete {}", data.display()));
            }
            Act::Replace => {
                self.processes[node].start()?;
                return self.members.readmit(node).await;
            }
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
        let until = Instant::now() + PATIENCE;
        loop {
            self.processes.iter_mut().try_for_each(Process::check)?;
            let Some((node, lacks)) = self.members.lacking().await? else { return Ok(()) };
            ensure!(
                Instant::now() < until,
                "not well within {PATIENCE:?}: node {} says: {lacks}\n{}",
                node + 1,
                self.processes[node].last_words()
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn audit(&mut self, keys: Key) -> anyhow::Result<Audit> {
        self.members.audit(keys).await
    }
}
