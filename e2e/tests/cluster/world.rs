//! A cluster for tests: its brokers, files and nodes; what is sent to it, and what it should say then.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_broker::Cluster;
use sanso_e2e::{Client, Node, micro, micro_of};
use serde_json::Value;

pub(crate) const METERS: usize = 40;

pub(crate) const APP: &str = "
CREATE SOURCE readings (usage_point TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), source_version BIGINT)
  WITH (topic = 'readings', key = 'usage_point', identity = 'usage_point, start_utc',
        version = 'source_version', segment = '256', partitions = '6');
CREATE VIEW meter_daily AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 day') AS day, SUM(value) AS kwh, COUNT(*) AS readings
  FROM readings GROUP BY usage_point, day;
";

/// Kafka, the files of some nodes, and the nodes that run.
pub(crate) struct World {
    pub(crate) kafka: Cluster,
    folder: tempfile::TempDir,
    pub(crate) nodes: BTreeMap<u16, Node>,
    pub(crate) all: u16,
    /// The first three numbers of addresses on loopback that nobody else uses.
    network: String,
    /// Settings of the batch layer.
    batch: &'static str,
    suspect_ms: u32,
}

/// Longer than a busy machine stands still: what is not about silence must not meet it.
const PATIENT_MS: u32 = 5_000;

impl World {
    pub(crate) fn new(all: u16) -> anyhow::Result<World> {
        Self::with(all, APP, "interval_ms = 200")
    }

    /// With an application, and settings of the batch layer.
    pub(crate) fn with(all: u16, app: &str, batch: &'static str) -> anyhow::Result<World> {
        Self::of(all, app, batch, PATIENT_MS)
    }

    /// With nodes that take a silent one for lost as soon as they do by default.
    pub(crate) fn alert(all: u16) -> anyhow::Result<World> {
        Self::of(all, APP, "interval_ms = 200", 120)
    }

    fn of(all: u16, app: &str, batch: &'static str, suspect_ms: u32) -> anyhow::Result<World> {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let (pid, world) = (std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed));
        let network = format!("127.{}.{}", 16 + pid % 200, pid / 200 % 25 * 10 + world);
        let world = World {
            kafka: Cluster::start(1)?,
            folder: tempfile::tempdir()?,
            nodes: BTreeMap::new(),
            all,
            network,
            batch,
            suspect_ms,
        };
        (1..=all).try_for_each(|node| world.declare(node, app))?;
        (1..=all).try_for_each(|node| std::fs::write(world.file(node), world.describe(node)))?;
        Ok(world)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn file(&self, node: u16) -> PathBuf {
        self.path(&format!("node{node}.toml"))
    }

    /// Gives a node an application.
    pub(crate) fn declare(&self, node: u16, app: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.path(&format!("app{node}.sql")), app)?)
    }

    fn describe(&self, node: u16) -> String {
        let mut text = format!(
            "node = {node}\napplication = {:?}\ndata = {:?}\nlisten = \"127.0.0.1:0\"\ndrill = true\n\
             [log]\nurl = \"kafka://{}\"\n[dataset]\nurl = {:?}\n[batch]\n{}\n\
             [cluster]\nname = \"test\"\npartitions = 8\nreplicas = 3\nsuspect_ms = {}\n",
            self.path(&format!("app{node}.sql")),
            self.path(&format!("data{node}")),
            self.kafka.servers(),
            self.path("dataset"),
            self.batch,
            self.suspect_ms,
        );
        for member in 1..=self.all {
            let voter = member <= 3;
            let peer = format!("{}.{member}:7171", self.network);
            let _ = write!(text, "[[cluster.nodes]]\nid = {member}\npeer = \"{peer}\"\nvoter = {voter}\n");
        }
        text
    }

    /// Puts this into the part `[cluster]` of a node's file, in the place of what was put there before.
    pub(crate) fn secure(&self, node: u16, how: &str) -> anyhow::Result<()> {
        let (file, first) = (self.describe(node), "[[cluster.nodes]]");
        std::fs::write(self.file(node), file.replacen(first, &format!("{how}{first}"), 1))?;
        Ok(())
    }

    /// Gives a node these layers alone, in all files. Call before any node starts.
    pub(crate) fn roles(&self, node: u16, roles: &str) -> anyhow::Result<()> {
        for file in (1..=self.all).map(|of| self.file(of)) {
            let text = std::fs::read_to_string(&file)?;
            let member = format!("[[cluster.nodes]]\nid = {node}\n");
            std::fs::write(&file, text.replace(&member, &format!("{member}roles = {roles}\n")))?;
        }
        Ok(())
    }

    pub(crate) fn start(&mut self, node: u16) -> anyhow::Result<()> {
        self.nodes.insert(node, Node::start_member(&self.file(node))?);
        Ok(())
    }

    pub(crate) fn client(&self, node: u16) -> &Client {
        &self.nodes[&node].client
    }

    /// Waits until a node is ready and the cluster is whole, as it sees it.
    pub(crate) async fn settled(&self, node: u16) -> anyhow::Result<()> {
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let (ready, said) = self.client(node).get_text("/readyz").await?;
            let cluster = self.client(node).get("/v1/cluster").await?;
            if ready == 200 && is_whole(&cluster, usize::from(self.all.min(3))) {
                return Ok(());
            }
            ensure!(Instant::now() < patience, "node {node} is not settled: {said} {cluster}");
            tokio::task::yield_now().await;
        }
    }

    /// Waits until a node sees as many replicas on another one as are wanted.
    pub(crate) async fn holds(&self, at: u16, node: u16, wanted: impl Fn(u64) -> bool) -> anyhow::Result<()> {
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let cluster = self.client(at).get("/v1/cluster").await?;
            let members = cluster["nodes"].as_array().context("a cluster has nodes")?;
            let member = members.iter().find(|member| member["node"] == node);
            if member.and_then(|member| member["replicas"].as_u64()).is_some_and(&wanted) {
                return Ok(());
            }
            ensure!(Instant::now() < patience, "node {at} sees of node {node}: {member:?}");
            tokio::task::yield_now().await;
        }
    }

    /// The logs of all nodes, for a person who looks at a failure.
    pub(crate) fn logs(&self) -> String {
        let all = (1..=self.all).map(|node| {
            let log = std::fs::read_to_string(self.file(node).with_extension("log")).unwrap_or_default();
            format!("--- node {node}\n{log}\n")
        });
        all.collect()
    }
}

fn is_whole(cluster: &Value, replicas: usize) -> bool {
    let partitions = cluster["partitions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let whole = |partition: &Value| {
        partition["primary"].is_u64()
            && partition["in_sync"].as_array().is_some_and(|all| all.len() == replicas)
    };
    !partitions.is_empty() && partitions.iter().all(whole)
}

/// A day of all meters, one reading each half hour; in months of 28 days.
pub(crate) fn day(day: u32) -> String {
    let (month, day) = (1 + (day - 1) / 28, 1 + (day - 1) % 28);
    let half_hours = (0..METERS).flat_map(|meter| (0..48).map(move |half_hour| (meter, half_hour)));
    let line = |(meter, half_hour): (usize, u32)| {
        let (hour, minute) = (half_hour / 2, half_hour % 2 * 30);
        format!(
            "{{\"usage_point\":\"M{meter:02}\",\"start_utc\":\"2026-{month:02}-{day:02}T{hour:02}:{minute:02}:00Z\",\"value\":0.125,\"source_version\":1}}\n"
        )
    };
    half_hours.map(line).collect()
}

pub(crate) async fn send(client: &Client, lines: String) -> anyhow::Result<String> {
    let (status, answer) = client.ingest("readings", lines).await?;
    ensure!(status == 200 && answer["acknowledged"].as_u64() == Some(METERS as u64 * 48), "{answer}");
    Ok(answer["session"].as_str().context("an acknowledgement has a token")?.to_owned())
}

/// Kilowatt-hours and readings of all meters, by day.
pub(crate) async fn totals(client: &Client, session: &str) -> anyhow::Result<Vec<(i128, i64)>> {
    let sql =
        "SELECT day, SUM(kwh) AS kwh, SUM(readings) AS readings FROM meter_daily GROUP BY day ORDER BY day";
    let answer = client.query_within(sql, session, 20_000).await?;
    Ok(answer.rows().iter().map(|row| (micro_of(&row[1]), row[2].as_i64().expect("a count"))).collect())
}

pub(crate) fn expected(days: u32) -> Vec<(i128, i64)> {
    let readings = METERS as i128 * 48;
    vec![(readings * micro("0.125"), readings as i64); days as usize]
}
