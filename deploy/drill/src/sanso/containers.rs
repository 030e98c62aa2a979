//! The cluster of `deploy/compose.yaml`: nodes, brokers and the object store in containers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use tempfile::TempDir;
use tokio::time::Instant;

use super::application::{self, Storage};
use super::members::Members;
use crate::fault::{Act, Fault, Pick, Step};
use crate::history::{Key, Request};
use crate::oracle::Audit;
use crate::target::{Connection, Target};

/// How many nodes the cluster has; where each is published, `deploy/compose.yaml` says.
pub const NODES: usize = 5;
const FIRST_PORT: usize = 7071;
/// Its own project, so that a cluster with somebody's data is never met.
const PROJECT: &str = "sanso-drill";
/// Partitions of the log.
const LOG_PARTITIONS: u32 = 12;
/// How long the cluster may take to be well.
const PATIENCE: Duration = Duration::from_secs(180);
/// Before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A running cluster of containers. They and what they hold are removed when it is dropped.
#[derive(Debug)]
pub struct Containers {
    compose: Compose,
    nodes: Vec<Container>,
    broker: Container,
    members: Members,
    application: TempDir,
}

/// The script that brings the cluster up and takes it away.
#[derive(Debug)]
struct Compose {
    script: PathBuf,
    /// Certificates and files of the nodes.
    run: PathBuf,
}

#[derive(Debug)]
struct Container {
    service: String,
    id: String,
    network: String,
}

impl Containers {
    /// Brings the cluster up from the folder with `compose.yaml`, with nothing in it. `run` is where its
    /// certificates and files are put. Takes minutes.
    pub fn start(deploy: &Path, run: &Path, first: usize, patience: Duration) -> anyhow::Result<Self> {
        let script = deploy.join("cluster/cluster.sh");
        ensure!(
            script.exists(),
            "{} is missing: --compose takes the folder deploy of a checkout",
            script.display()
        );
        std::fs::create_dir_all(run).with_context(|| format!("create {}", run.display()))?;
        let compose = Compose { script, run: run.canonicalize()? };
        let application = tempfile::Builder::new().prefix("sanso-drill-").tempdir()?;
        std::fs::write(application.path().join("app.sql"), application::sql(LOG_PARTITIONS, Storage::Memory))
            .context("write the application")?;
        // What a drill before this one may have left.
        compose.run(&["erase"], application.path())?;
        let services: Vec<String> = (1..=NODES).map(|node| format!("node-{node}")).collect();
        let mut up = vec!["up"];
        up.extend(services.iter().map(String::as_str));
        compose.run(&up, application.path())?;
        let nodes = services.into_iter().map(Container::find).collect::<anyhow::Result<_>>()?;
        let base = |node| format!("http://127.0.0.1:{}", FIRST_PORT + node);
        Ok(Self {
            compose,
            nodes,
            broker: Container::find("kafka-1".to_owned())?,
            members: Members::new((0..NODES).map(base).collect(), patience, first)?,
            application,
        })
    }

    /// Says whether all that a fault does can be done to containers.
    pub fn suffer(fault: &Fault) -> bool {
        use Act::{Cut, Feed, Flood, Kill, Mend, Pause, Resume, Settle, Start, Starve, Stop};
        fault.steps.iter().all(|step| match step {
            Step::Do(act, _) => {
                let of_process = matches!(act, Kill | Stop | Start | Pause | Resume | Starve(_) | Feed);
                of_process || matches!(act, Cut | Mend | Flood(_) | Settle)
            }
            Step::Hold(_) | Step::Well => true,
        })
    }
}

impl Compose {
    fn run(&self, arguments: &[&str], application: &Path) -> anyhow::Result<()> {
        let mut script = Command::new(&self.script);
        script.args(arguments).env("COMPOSE_PROJECT_NAME", PROJECT).env("SANSO_CLUSTER", &self.run);
        script.env("APPLICATION", application).stdin(Stdio::null());
        let status = script.status().with_context(|| format!("run {}", self.script.display()))?;
        ensure!(status.success(), "{} {} failed ({status})", self.script.display(), arguments.join(" "));
        Ok(())
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        if let Err(error) = self.compose.run(&["erase"], self.application.path()) {
            tracing::warn!(error = format!("{error:#}"), "the containers are left");
        }
    }
}

impl Container {
    fn find(service: String) -> anyhow::Result<Self> {
        let project = format!("label=com.docker.compose.project={PROJECT}");
        let named = format!("label=com.docker.compose.service={service}");
        let id = docker(&["ps", "-q", "--filter", &project, "--filter", &named])?;
        ensure!(!id.is_empty() && !id.contains('\n'), "there is not one container of {service}: {id:?}");
        let networks = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}";
        let network = docker(&["inspect", "--format", networks, &id])?;
        Ok(Self { service, id, network })
    }

    fn act(&self, act: Act) -> anyhow::Result<()> {
        let Self { service, id, network } = self;
        match act {
            Act::Kill => docker(&["kill", "--signal", "KILL", id]),
            Act::Stop => docker(&["stop", id]),
            Act::Start => docker(&["start", id]),
            Act::Pause => docker(&["pause", id]),
            Act::Resume => docker(&["unpause", id]),
            Act::Cut => docker(&["network", "disconnect", network, id]),
            Act::Mend => docker(&["network", "connect", "--alias", service, network, id]),
            Act::Starve(percent) => {
                let quota_us = (percent * 1_000).to_string();
                docker(&["update", "--cpu-period", "100000", "--cpu-quota", &quota_us, id])
            }
            Act::Feed => docker(&["update", "--cpu-quota", "-1", id]),
            other => bail!("{other:?} can't be done to a container"),
        }
        .map(drop)
    }

    fn said(&self) -> String {
        let said = Command::new("docker").args(["logs", &self.id]).output();
        said.map_or_else(
            |error| format!("docker logs: {error}"),
            |said| {
                String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
            },
        )
    }
}

/// Runs a command of docker and returns what it printed.
fn docker(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("docker").args(arguments).output().context("run docker")?;
    ensure!(
        output.status.success(),
        "docker {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[async_trait]
impl Target for Containers {
    fn name(&self) -> String {
        format!("Sanso, {NODES} containers")
    }

    fn nodes(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.service.clone()).collect()
    }

    fn said(&self) -> Vec<String> {
        self.nodes.iter().map(Container::said).collect()
    }

    fn contacts(&self) -> Option<usize> {
        Some(NODES)
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

    async fn connect(&self) -> anyhow::Result<Box<dyn Connection>> {
        self.members.connect()
    }

    async fn pick(&mut self, pick: Pick) -> anyhow::Result<BTreeSet<usize>> {
        self.members.pick(pick).await
    }

    async fn act(&mut self, node: usize, act: Act) -> anyhow::Result<()> {
        self.nodes[node].act(act)
    }

    async fn act_on_broker(&mut self, act: Act) -> anyhow::Result<()> {
        self.broker.act(act)
    }

    async fn well(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        while let Some((node, lacks)) = self.members.lacking().await? {
            ensure!(
                Instant::now() < until,
                "not well within {PATIENCE:?}: {} says: {lacks}",
                self.nodes[node].service
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    async fn audit(&mut self, keys: Key) -> anyhow::Result<Audit> {
        self.members.audit(keys).await
    }
}
