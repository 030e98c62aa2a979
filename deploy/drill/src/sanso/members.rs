//! The nodes of a cluster as its clients see them: over HTTP, wherever they run.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::application;
use super::session::{Acknowledged, Session};
use crate::fault::{PRELOADED_METERS, Pick};
use crate::history::Key;
use crate::oracle::Audit;
use crate::target::Connection;

/// How long a node may take to say how the cluster is.
const GLANCE: Duration = Duration::from_secs(1);
/// How long it may take for one question of the audit.
const AUDIT: Duration = Duration::from_secs(20);

/// How long a voter without its folder may take to say so, and to vote again.
const READMISSION: Duration = Duration::from_secs(60);
/// Before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Readings in one request when there are to be many.
const FLOOD_AT_ONCE: u32 = 20_000;
/// How long it may take until they can be seen and are archived.
const FLOOD_MAX: Duration = Duration::from_secs(300);
/// How long it may take until a view that was declared is computed.
const JOB_BEGINS: Duration = Duration::from_secs(30);
/// Before it is looked at again: a job may be short.
const JOB_LOOK: Duration = Duration::from_millis(5);
/// What it takes to adopt what is archived, once that has begun.
const ADOPTION: Duration = Duration::from_secs(5);

/// The nodes of a cluster, from 0; they call themselves from 1.
#[derive(Debug)]
pub(super) struct Members {
    bases: Vec<String>,
    /// How long clients wait for an answer.
    patience: Duration,
    /// The node that is meant when one is enough.
    first: usize,
    acknowledged: Acknowledged,
    /// The session of readings that nobody asks for, and how many there are.
    flood: Session,
    flooded: u32,
}

impl Members {
    /// Makes those at `http://HOST:PORT`. A fault of one node meets the one of number `first`, modulo
    /// how many there are.
    pub(super) fn new(bases: Vec<String>, patience: Duration, first: usize) -> anyhow::Result<Self> {
        let (first, acknowledged) = (first % bases.len(), Acknowledged::default());
        let flood = Session::new(bases.clone(), AUDIT, &acknowledged)?;
        Ok(Self { bases, patience, first, acknowledged, flood, flooded: 0 })
    }

    pub(super) fn len(&self) -> usize {
        self.bases.len()
    }

    fn session(&self, patience: Duration) -> anyhow::Result<Session> {
        Session::new(self.bases.clone(), patience, &self.acknowledged)
    }

    /// Opens a client's session.
    pub(super) fn connect(&self) -> anyhow::Result<Box<dyn Connection>> {
        Ok(Box::new(self.session(self.patience)?))
    }

    /// Tells a node something.
    pub(super) async fn tell(&self, node: usize, path: &str, what: &Value) -> anyhow::Result<()> {
        self.session(GLANCE)?.post(node, path, what).await.map_err(anyhow::Error::msg)
    }

    /// Does what an operator is told to do with a node that has lost its folder: if it votes, it is taken out
    /// of the voters, then added again.
    pub(super) async fn readmit(&self, node: usize) -> anyhow::Result<()> {
        let (number, asked) = (node as u64 + 1, (node + 1) % self.len());
        let (session, until) = (self.session(AUDIT)?, Instant::now() + READMISSION);
        let mut voters = Vec::new();
        let mut last = "nobody said who votes".to_owned();
        loop {
            ensure!(Instant::now() < until, "node {number} does not vote again: {last}");
            let change = match session.get(asked, "/v1/cluster/voters").await {
                Err(error) => Err(error),
                Ok(said) => {
                    let (now, node) = (numbers(&said["voters"]), part(&said, number));
                    match node["part"].as_str() {
                        Some("lost its folder") if now.contains(&number) => {
                            voters = now.clone();
                            let others: Vec<u64> = now.into_iter().filter(|voter| *voter != number).collect();
                            Ok(json!({ "voters": others, "force": true }))
                        }
                        // One that has just been started says so before it knows what it has lost.
                        Some("votes") if node["applied"].is_u64() => return Ok(()),
                        Some("waits") if voters.is_empty() && !now.contains(&number) => return Ok(()),
                        Some("waits" | "learns") if !voters.is_empty() => Ok(json!({ "voters": voters })),
                        part => Err(format!("it {}", part.unwrap_or("is not known"))),
                    }
                }
            };
            let told = match change {
                Ok(change) => session.post(asked, "/v1/cluster/voters", &change).await,
                Err(lacks) => Err(lacks),
            };
            last = told.err().unwrap_or(last);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Returns a node that lacks something until it and all that it knows of are well, and what.
    pub(super) async fn lacking(&self) -> anyhow::Result<Option<(usize, String)>> {
        let session = self.session(GLANCE)?;
        let lacks = join_all((0..self.len()).map(|node| self.lacks(&session, node))).await;
        Ok((0..).zip(lacks).find_map(|(node, lacks)| lacks.map(|lacks| (node, lacks))))
    }

    async fn lacks(&self, session: &Session, node: usize) -> Option<String> {
        if let Err(error) = session.ready(node).await {
            return Some(error);
        }
        match session.get(node, "/v1/cluster").await {
            Ok(cluster) => lacking(&cluster, self.len()),
            Err(error) => Some(error),
        }
    }

    /// Returns the nodes that a pick means now.
    pub(super) async fn pick(&self, pick: Pick) -> anyhow::Result<BTreeSet<usize>> {
        let node = match pick {
            Pick::All => return Ok((0..self.len()).collect()),
            Pick::Broker | Pick::Nobody => return Ok(BTreeSet::new()),
            Pick::Node(node) => node,
            Pick::One => self.first,
            Pick::Another => (self.first + 1) % self.len(),
            Pick::Leader => number(&self.described("control_leader").await?["control_leader"])?,
            Pick::Role(role) => with_role(&self.described("nodes").await?, role)?,
            Pick::Worker => self.working().await?,
        };
        Ok(BTreeSet::from([node]))
    }

    /// Returns how the first node that knows something of the cluster describes it.
    async fn described(&self, wanted: &str) -> anyhow::Result<Value> {
        let session = self.session(GLANCE)?;
        for node in 0..self.len() {
            let Ok(cluster) = session.get(node, "/v1/cluster").await else { continue };
            if !cluster[wanted].is_null() {
                return Ok(cluster);
            }
        }
        bail!("no node says anything of {wanted}")
    }

    /// Puts so many more readings in that nobody asks for, by requests to all nodes in turn.
    pub(super) async fn flood(&mut self, readings: u32) -> anyhow::Result<()> {
        let (from, to) = (self.flooded, self.flooded + readings);
        for (turn, from) in (from..to).step_by(FLOOD_AT_ONCE as usize).enumerate() {
            let lines = application::preloaded(from..to.min(from + FLOOD_AT_ONCE));
            self.flood.load(turn % self.len(), lines).await.map_err(anyhow::Error::msg)?;
        }
        self.flooded = to;
        Ok(())
    }

    /// Waits until all of them can be seen and are archived.
    pub(super) async fn settle(&self) -> anyhow::Result<()> {
        let until = Instant::now() + FLOOD_MAX;
        while !self.is_archived(&self.flood).await {
            ensure!(Instant::now() < until, "after {FLOOD_MAX:?} not all readings are archived");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(ADOPTION).await;
        let (found, _) = self.flood.preloaded(0, "meter").await.map_err(anyhow::Error::msg)?;
        ensure!(found == u64::from(self.flooded), "{found} of {} readings can be seen", self.flooded);
        Ok(())
    }

    /// Waits until a view is computed from all that is archived; returns a node that works on it, but does not drive
    /// the batch layer where there is another.
    pub(super) async fn working(&self) -> anyhow::Result<usize> {
        let (session, until) = (self.session(GLANCE)?, Instant::now() + JOB_BEGINS);
        loop {
            for node in 0..self.len() {
                let Ok(jobs) = session.get(node, "/v1/jobs").await else { continue };
                if let Some(worker) = worker(&jobs) {
                    return number(&json!(worker));
                }
                let ended = jobs["ended"].as_array().into_iter().flatten();
                let is_over = |job: &Value| {
                    job["views"].as_array().is_some_and(|views| views.contains(&json!(application::DAILY)))
                };
                ensure!(
                    !ended.clone().any(is_over),
                    "the view was there before anything could be done to a worker"
                );
            }
            ensure!(Instant::now() < until, "nobody works on the view within {JOB_BEGINS:?}");
            tokio::time::sleep(JOB_LOOK).await;
        }
    }

    /// Waits until a new view has all readings that nobody asks for.
    ///
    /// It is asked meter by meter: one question about all of them would be the largest load of all.
    pub(super) async fn await_view(&self, view: &str) -> anyhow::Result<()> {
        let until = Instant::now() + FLOOD_MAX;
        let mut found = (0, 0);
        for meter in 0..PRELOADED_METERS {
            let such = format!("usage_point = '{}'", application::preloaded_meter(meter));
            let (readings, micro) = loop {
                match self.flood.totals(0, view, &such).await {
                    Ok(totals) => break totals,
                    Err(lacks) => {
                        ensure!(Instant::now() < until, "{view} is not there in {FLOOD_MAX:?}: {lacks}");
                    }
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            };
            found = (found.0 + readings, found.1 + micro);
        }
        let all = u64::from(self.flooded);
        let sent = (all, all * application::PRELOADED_MICRO);
        ensure!(found == sent, "{view} has {found:?}, not the {sent:?} that were sent");
        Ok(())
    }

    /// Says whether both views have begun to adopt all that can be archived.
    async fn is_archived(&self, session: &Session) -> bool {
        let views = ["meter", "half_hour"].map(|view| session.is_archived(0, view));
        join_all(views).await.into_iter().all(|archived| archived == Ok(true))
    }

    /// Returns all readings of the keys `0..keys`.
    pub(super) async fn audit(&self, keys: Key) -> anyhow::Result<Audit> {
        let session = self.session(AUDIT)?;
        let mut audit = Audit::new();
        for key in 0..keys {
            // Each node in turn: any node answers any question.
            let readings =
                session.readings(key as usize % self.len(), key).await.map_err(anyhow::Error::msg)?;
            audit.extend(readings.into_iter().map(|(sequence, found)| ((key, sequence), found)));
        }
        Ok(audit)
    }
}

/// Returns how a node takes part in control.
fn part(said: &Value, number: u64) -> &Value {
    let nodes = said["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    nodes.iter().find(|node| node["node"] == number).unwrap_or(&Value::Null)
}

fn numbers(list: &Value) -> Vec<u64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

/// Reads a node's number, as it calls itself.
fn number(node: &Value) -> anyhow::Result<usize> {
    let number = node.as_u64().and_then(|number| number.checked_sub(1));
    Ok(usize::try_from(number.with_context(|| format!("{node} is no node"))?)?)
}

/// Returns a node that does a task for views, another than who drives the job where there is one.
fn worker(jobs: &Value) -> Option<u64> {
    let jobs = jobs["running"].as_array().into_iter().flatten();
    let of_views = jobs.filter(|job| job["kind"] == "views");
    let works = |job: &Value| {
        let runs = job["runs"].as_array().cloned().unwrap_or_default();
        let nodes = runs.iter().filter_map(|run| run["node"].as_u64());
        nodes.min_by_key(|node| (job["driver"] == *node, *node))
    };
    of_views.filter_map(works).next()
}

/// Returns the node with a role and the fewest others.
fn with_role(cluster: &Value, role: &str) -> anyhow::Result<usize> {
    let roles = |node: &Value| node["roles"].as_array().cloned().unwrap_or_default();
    let nodes = cluster["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let with = nodes.iter().filter(|node| roles(node).iter().any(|held| held == role));
    let node = with.min_by_key(|node| roles(node).len());
    number(&node.with_context(|| format!("no node has the role {role}"))?["node"])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_works_on_views_is_found_and_not_who_drives_if_there_is_another() {
        let jobs = |kind: &str, nodes: &[u16]| {
            let runs: Vec<Value> =
                nodes.iter().map(|node| json!({ "task": "a task", "node": node })).collect();
            json!({ "running": [{ "kind": kind, "driver": 1, "runs": runs }] })
        };
        for (kind, nodes, expected) in [
            ("views", &[1_u16, 3, 2][..], Some(2)),
            ("views", &[1], Some(1)),
            ("views", &[], None),
            ("advance", &[2], None),
        ] {
            assert_eq!(worker(&jobs(kind, nodes)), expected, "{kind} {nodes:?}");
        }
    }

    #[test]
    fn a_role_is_found_where_it_is_most_alone() {
        let nodes = json!({ "nodes": [
            { "node": 1, "roles": ["batch", "serving"] },
            { "node": 2, "roles": ["batch"] },
            { "node": 3, "roles": ["serving"] },
        ]});
        assert_eq!(with_role(&nodes, "batch").expect("two have it"), 1);
        assert_eq!(with_role(&nodes, "serving").expect("two have it"), 2);
        assert!(with_role(&nodes, "speed").is_err());
    }

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
