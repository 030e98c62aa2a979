//! A Redis Cluster on loopback ports, as a target of drills.
//!
//! A key is a hash: a field for each reading. Writing a field again changes nothing, so a client may
//! repeat what was not acknowledged, as with Sanso. The log of every node is appended and flushed once
//! a second, which is Redis' default for a durable one.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_read_routing::RandomReplicaStrategy;
use redis::cmd;
use sanso_drill::fault::{Act, Pick};
use sanso_drill::history::{Key, Request, Seen};
use sanso_drill::oracle::{Audit, Found, value_micro};
use sanso_drill::target::{Connection, Target};
use sanso_drill::{Process, history, ports};
use tempfile::TempDir;
use tokio::time::Instant;

/// Three masters, three replicas.
pub(crate) const NODES: usize = 6;
/// How long the cluster may take to be well again.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a tuned client waits before it makes its connection anew: within the time after which the
/// drill's client tries again.
const RENEWS_AFTER: Duration = Duration::from_millis(400);

/// How the cluster is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tuning {
    /// As it comes: a node is missed after 15 s.
    Default,
    /// A node is missed after 500 ms, its replica does not wait, and the others go on meanwhile.
    Tuned,
    /// The same, and clients also read from replicas.
    Replicas,
}

impl Tuning {
    pub(crate) const ALL: [Tuning; 3] = [Tuning::Default, Tuning::Tuned, Tuning::Replicas];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Tuning::Default => "default",
            Tuning::Tuned => "tuned",
            Tuning::Replicas => "replicas",
        }
    }

    /// Returns a client of a cluster with nodes at these ports.
    fn client(self, ports: &[u16]) -> redis::RedisResult<ClusterClient> {
        let client = ClusterClient::builder(ports.iter().map(|port| format!("redis://127.0.0.1:{port}")));
        // Making a connection asks every node; one that is frozen must not hold it up for long.
        let quick = Duration::from_millis(100);
        match self {
            Tuning::Default => client.build(),
            Tuning::Tuned => client.connection_timeout(quick).build(),
            Tuning::Replicas => {
                client.connection_timeout(quick).read_routing_strategy(RandomReplicaStrategy).build()
            }
        }
    }

    fn settings(self) -> &'static [&'static str] {
        match self {
            Tuning::Default => &[],
            Tuning::Tuned | Tuning::Replicas => &[
                "--cluster-node-timeout",
                "500",
                "--cluster-replica-validity-factor",
                "0",
                "--cluster-require-full-coverage",
                "no",
                "--repl-ping-replica-period",
                "1",
            ],
        }
    }
}

/// A running cluster. Its processes are killed when it is dropped.
pub(crate) struct Cluster {
    // Before the folder, so that nobody writes to it while it is removed.
    processes: Vec<Process>,
    ports: Vec<u16>,
    tuning: Tuning,
    client: ClusterClient,
    _folder: TempDir,
}

impl Cluster {
    /// Starts the nodes and makes a cluster of them.
    pub(crate) async fn start(tuning: Tuning) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("sanso-redis-").tempdir()?;
        let ports = ports::free(2 * NODES)?;
        let (ports, buses) = ports.split_at(NODES);
        let mut processes = Vec::new();
        for (node, (port, bus)) in ports.iter().zip(buses).enumerate() {
            let data = folder.path().join(format!("node-{node}"));
            std::fs::create_dir(&data)?;
            let log = folder.path().join(format!("node-{node}.log"));
            let (port, bus) = (port.to_string(), bus.to_string());
            let command = move || {
                let mut redis = Command::new("redis-server");
                redis.args(["--port", &port, "--cluster-port", &bus, "--bind", "127.0.0.1"]);
                redis.args(["--cluster-enabled", "yes", "--appendonly", "yes", "--save", "", "--dir"]);
                redis.arg(&data).args(tuning.settings());
                redis
            };
            let mut process = Process::new(format!("redis {node}"), log, command);
            process.start().context("start redis-server (deploy/setup/install.sh drill installs it)")?;
            processes.push(process);
        }
        let client = tuning.client(ports)?;
        let mut cluster = Self { processes, ports: ports.to_vec(), tuning, client, _folder: folder };
        cluster.join().await?;
        cluster.well().await?;
        Ok(cluster)
    }

    /// Makes one cluster of the nodes.
    async fn join(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        for node in 0..NODES {
            while self.speak(node).await.is_err() {
                self.processes[node].check()?;
                ensure!(Instant::now() < until, "redis {node} does not answer");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let nodes = self.ports.iter().map(|port| format!("127.0.0.1:{port}"));
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(nodes).args(["--cluster-replicas", "1", "--cluster-yes"]);
        let output = create.stdin(Stdio::null()).output().context("run redis-cli")?;
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "redis-cli --cluster create: {said}");
        Ok(())
    }

    /// Connects to one node.
    async fn speak(&self, node: usize) -> anyhow::Result<MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.ports[node]))?;
        let connected = client.get_multiplexed_async_connection();
        Ok(tokio::time::timeout(Duration::from_secs(1), connected).await??)
    }

    /// Asks one node something that is answered by text.
    async fn ask(&self, node: usize, words: &[&str]) -> anyhow::Result<String> {
        let mut connection = self.speak(node).await?;
        let mut command = cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        let answer = command.query_async(&mut connection);
        Ok(tokio::time::timeout(Duration::from_secs(1), answer).await??)
    }

    /// Says what a node still lacks, if anything.
    async fn lacks(&self, node: usize) -> anyhow::Result<Option<String>> {
        let info = self.ask(node, &["CLUSTER", "INFO"]).await?;
        for wanted in
            ["cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:6", "cluster_size:3"]
        {
            if !info.contains(wanted) {
                return Ok(Some(format!("redis {node} is not at {wanted}")));
            }
        }
        let nodes = self.ask(node, &["CLUSTER", "NODES"]).await?;
        if nodes.contains("fail") || nodes.contains("handshake") || nodes.contains("disconnected") {
            return Ok(Some(format!("redis {node} misses another: {nodes}")));
        }
        let replication = self.ask(node, &["INFO", "replication"]).await?;
        let connected =
            replication.contains("master_link_status:up") || replication.contains("connected_slaves:1");
        Ok((!connected).then(|| format!("redis {node} is alone: {replication}")))
    }
}

#[async_trait]
impl Target for Cluster {
    fn name(&self) -> String {
        format!(
            "Redis Cluster, {}",
            match self.tuning {
                Tuning::Default => "default timeouts",
                Tuning::Tuned => "tuned",
                Tuning::Replicas => "tuned, reads from replicas",
            }
        )
    }

    fn nodes(&self) -> Vec<String> {
        self.processes.iter().map(|process| process.name().to_owned()).collect()
    }

    fn said(&self) -> Vec<String> {
        self.processes.iter().map(Process::said).collect()
    }

    fn contacts(&self) -> Option<usize> {
        None
    }

    fn answers(&self) -> fn(Request) -> bool {
        |request| request != Request::Total
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Connection>> {
        let connection = Arc::new(Mutex::new(self.client.get_async_connection().await?));
        let renews = self.tuning != Tuning::Default;
        Ok(Box::new(Session { client: self.client.clone(), connection, renewing: Arc::default(), renews }))
    }

    async fn pick(&mut self, pick: Pick) -> anyhow::Result<BTreeSet<usize>> {
        let which = match pick {
            Pick::One => 0,
            Pick::Another => 1,
            Pick::All => return Ok((0..NODES).collect()),
            Pick::Node(node) => return Ok(BTreeSet::from([node])),
            Pick::Nobody => return Ok(BTreeSet::new()),
            Pick::Leader | Pick::Role(_) | Pick::Worker | Pick::Broker => {
                bail!("Redis Cluster has no node that is {pick:?}")
            }
        };
        let mut masters = Vec::new();
        for node in 0..NODES {
            if self.ask(node, &["INFO", "replication"]).await?.contains("role:master") {
                masters.push(node);
            }
        }
        Ok(BTreeSet::from([*masters.get(which).context("there are too few masters")?]))
    }

    async fn act(&mut self, node: usize, act: Act) -> anyhow::Result<()> {
        self.processes[node].act(act)
    }

    async fn well(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        for node in 0..NODES {
            loop {
                self.processes[node].check()?;
                let lacks =
                    self.lacks(node).await.unwrap_or_else(|error| Some(format!("redis {node}: {error:#}")));
                let Some(lacks) = lacks else { break };
                ensure!(Instant::now() < until, "not well within {PATIENCE:?}: {lacks}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    async fn audit(&mut self, keys: Key) -> anyhow::Result<Audit> {
        let mut connection = self.client.get_async_connection().await?;
        let mut audit = Audit::new();
        for key in 0..keys {
            let fields: Vec<(u32, u64)> = cmd("HGETALL").arg(name(key)).query_async(&mut connection).await?;
            audit.extend(
                fields
                    .into_iter()
                    .map(|(sequence, value_micro)| ((key, sequence), Found { count: 1, value_micro })),
            );
        }
        Ok(audit)
    }
}

fn name(key: history::Key) -> String {
    format!("meter:{key}")
}

/// An ordinary client: the library's, as it comes. Where it is tuned, it connects quickly and does what its users do about
/// connections that hang: it makes a new one after an error, which learns anew where the keys are.
struct Session {
    client: ClusterClient,
    connection: Arc<Mutex<ClusterConnection>>,
    /// Held while a new one is being made.
    renewing: Arc<tokio::sync::Mutex<()>>,
    renews: bool,
}

impl Session {
    /// Replaces the connection, unless that is being done already. Requests go on meanwhile.
    fn renew(&self) {
        let Ok(renewing) = Arc::clone(&self.renewing).try_lock_owned() else { return };
        let (client, connection) = (self.client.clone(), Arc::clone(&self.connection));
        tokio::spawn(async move {
            let connecting = tokio::time::timeout(Duration::from_secs(2), client.get_async_connection());
            // Should it not succeed, the next error tries again.
            if let Ok(Ok(fresh)) = connecting.await {
                *connection.lock().expect("nobody panics with it") = fresh;
            }
            drop(renewing);
        });
    }
}

#[async_trait]
impl Connection for Session {
    async fn attempt(&self, _node: Option<usize>, request: Request) -> Result<Option<Seen>, String> {
        let mut connection = self.connection.lock().expect("nobody panics with it").clone();
        let patience = if self.renews { RENEWS_AFTER } else { Duration::MAX };
        let error = match tokio::time::timeout(patience, ask(&mut connection, request)).await {
            Ok(Ok(readings)) => {
                return Ok(readings.map(|readings| Seen { readings, staleness_ms_max: None }));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "timed out".to_owned(),
        };
        if self.renews {
            self.renew();
        }
        Err(error)
    }
}

async fn ask(connection: &mut impl ConnectionLike, request: Request) -> redis::RedisResult<Option<u64>> {
    match request {
        Request::Write { key, sequence } => {
            let mut write = cmd("HSET");
            write.arg(name(key)).arg(sequence).arg(value_micro(key, sequence));
            write.query_async::<u64>(connection).await.map(|_| None)
        }
        Request::Point { key } | Request::Visible { key } => {
            cmd("HLEN").arg(name(key)).query_async(connection).await.map(Some)
        }
        Request::Range { key } => {
            let fields: Vec<(u32, u64)> = cmd("HGETALL").arg(name(key)).query_async(connection).await?;
            Ok(Some(fields.len() as u64))
        }
        Request::Total => unreachable!("a cluster has no answer to it, and says so"),
    }
}
