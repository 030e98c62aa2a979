//! Clusters of real processes: whichever node is killed or stopped, the others answer, nothing
//! acknowledged is lost or doubled, and it comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_broker::{Cluster, available};
use sanso_e2e::{Client, Node, micro, micro_of};
use serde_json::{Map, Value, json};

const METERS: usize = 40;
/// Days of readings that are fed, at most, while batch work loses its nodes.
const DAYS_MAX: u32 = 100;
/// No query may wait longer, whatever is lost.
const STALL_MAX: Duration = Duration::from_secs(5);

const APP: &str = "
CREATE SOURCE readings (usage_point TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), source_version BIGINT)
  WITH (topic = 'readings', key = 'usage_point', identity = 'usage_point, start_utc',
        version = 'source_version', segment = '256', partitions = '6');
CREATE VIEW meter_daily AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 day') AS day, SUM(value) AS kwh, COUNT(*) AS readings
  FROM readings GROUP BY usage_point, day;
";

/// Kafka, the files of some nodes, and the nodes that run.
struct World {
    kafka: Cluster,
    folder: tempfile::TempDir,
    nodes: BTreeMap<u16, Node>,
    all: u16,
    /// The first three numbers of addresses on loopback that nobody else uses.
    network: String,
    /// Settings of the batch layer.
    batch: &'static str,
}

impl World {
    fn new(all: u16) -> anyhow::Result<World> {
        Self::with(all, APP, "interval_ms = 200")
    }

    /// With an application, and settings of the batch layer.
    fn with(all: u16, app: &str, batch: &'static str) -> anyhow::Result<World> {
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
        };
        std::fs::write(world.path("app.sql"), app)?;
        (1..=all).try_for_each(|node| std::fs::write(world.file(node), world.describe(node)))?;
        Ok(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, node: u16) -> PathBuf {
        self.path(&format!("node{node}.toml"))
    }

    fn describe(&self, node: u16) -> String {
        let mut text = format!(
            "node = {node}\napplication = {:?}\ndata = {:?}\nlisten = \"127.0.0.1:0\"\ndrill = true\n\
             [log]\nurl = \"kafka://{}\"\n[dataset]\nurl = {:?}\n[batch]\n{}\n\
             [cluster]\nname = \"test\"\npartitions = 8\nreplicas = 3\n",
            self.path("app.sql"),
            self.path(&format!("data{node}")),
            self.kafka.servers(),
            self.path("dataset"),
            self.batch,
        );
        for member in 1..=self.all {
            let voter = member <= 3;
            let peer = format!("{}.{member}:7171", self.network);
            let _ = write!(text, "[[cluster.nodes]]\nid = {member}\npeer = \"{peer}\"\nvoter = {voter}\n");
        }
        text
    }

    fn start(&mut self, node: u16) -> anyhow::Result<()> {
        self.nodes.insert(node, Node::start_member(&self.file(node))?);
        Ok(())
    }

    fn client(&self, node: u16) -> &Client {
        &self.nodes[&node].client
    }

    /// Waits until a node is ready and the cluster is whole, as it sees it.
    async fn settled(&self, node: u16) -> anyhow::Result<()> {
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
    async fn holds(&self, at: u16, node: u16, wanted: impl Fn(u64) -> bool) -> anyhow::Result<()> {
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
    fn logs(&self) -> String {
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
fn day(day: u32) -> String {
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

async fn send(client: &Client, lines: String) -> anyhow::Result<String> {
    let (status, answer) = client.ingest("readings", lines).await?;
    ensure!(status == 200 && answer["acknowledged"].as_u64() == Some(METERS as u64 * 48), "{answer}");
    Ok(answer["session"].as_str().context("an acknowledgement has a token")?.to_owned())
}

/// Kilowatt-hours and readings of all meters, by day.
async fn totals(client: &Client, session: &str) -> anyhow::Result<Vec<(i128, i64)>> {
    let sql =
        "SELECT day, SUM(kwh) AS kwh, SUM(readings) AS readings FROM meter_daily GROUP BY day ORDER BY day";
    let answer = client.query_within(sql, session, 20_000).await?;
    Ok(answer.rows().iter().map(|row| (micro_of(&row[1]), row[2].as_i64().expect("a count"))).collect())
}

fn expected(days: u32) -> Vec<(i128, i64)> {
    let readings = METERS as i128 * 48;
    vec![(readings * micro("0.125"), readings as i64); days as usize]
}

/// Reads one meter again and again, in turn at the given nodes; returns the longest time between
/// two good answers once told to stop.
async fn keep_reading(clients: Vec<Client>, stop: Arc<AtomicBool>) -> Duration {
    let (mut worst, mut last) = (Duration::ZERO, Instant::now());
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        let client = &clients[turn % clients.len()];
        turn += 1;
        let path = format!("meter_daily?key=M{:02}", turn % METERS);
        let answered = tokio::time::timeout(Duration::from_secs(1), client.view(&path)).await;
        if answered.is_ok_and(|answer| answer.is_ok_and(|answer| !answer.rows().is_empty())) {
            worst = worst.max(last.elapsed());
            last = Instant::now();
        }
    }
    worst.max(last.elapsed())
}

/// What befalls a node.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed,
    Paused,
    CutOff,
}

impl Fault {
    async fn inflict(self, world: &mut World, on: u16) -> anyhow::Result<()> {
        match self {
            Fault::Killed => world.nodes.remove(&on).context("it runs")?.kill(),
            Fault::Paused => signal(&world.nodes[&on], "-STOP"),
            Fault::CutOff => {
                let cut = |node: u16| (node.to_string(), json!({ "cut_in": true, "cut_out": true }));
                for node in 1..=world.all {
                    let from: Vec<u16> = (1..=world.all).filter(|other| *other != node).collect();
                    let broken = from.into_iter().filter(|other| node == on || *other == on).map(cut);
                    break_links(world.client(node), broken.collect()).await?;
                }
                Ok(())
            }
        }
    }

    async fn mend(self, world: &mut World, on: u16) -> anyhow::Result<()> {
        match self {
            Fault::Killed => world.start(on),
            Fault::Paused => signal(&world.nodes[&on], "-CONT"),
            Fault::CutOff => {
                for node in 1..=world.all {
                    break_links(world.client(node), Map::new()).await?;
                }
                Ok(())
            }
        }
    }
}

fn signal(node: &Node, signal: &str) -> anyhow::Result<()> {
    let sent = Command::new("kill").args([signal, &node.pid().to_string()]).status()?;
    ensure!(sent.success(), "kill {signal}");
    Ok(())
}

async fn break_links(client: &Client, links: Map<String, Value>) -> anyhow::Result<()> {
    client.post("/v1/drill/links", &Value::Object(links)).await.map(|_| ())
}

/// Each fault is inflicted so often at least.
const ROUNDS: u16 = 5;

/// Inflicts a fault on each node in turn, while others read and write.
async fn trial(fault: Fault, nodes: u16) -> anyhow::Result<()> {
    if !available(&format!("{fault:?} nodes of a cluster")) {
        return Ok(());
    }
    let mut world = World::new(nodes)?;
    (1..=nodes).try_for_each(|node| world.start(node))?;
    let outcome = each_in_turn(&mut world, fault).await;
    outcome.map_err(|error| anyhow::anyhow!("{error:?}\n{}", world.logs()))
}

async fn each_in_turn(world: &mut World, fault: Fault) -> anyhow::Result<()> {
    for node in 1..=world.all {
        world.settled(node).await?;
    }
    send(world.client(1), day(1)).await?;
    let mut days = 1;
    for round in 0..world.all.max(ROUNDS) {
        let lost = round % world.all + 1;
        let others: Vec<u16> = (1..=world.all).filter(|node| *node != lost).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let clients = others.iter().map(|node| world.client(*node).clone()).collect();
        let reading = tokio::spawn(keep_reading(clients, Arc::clone(&stop)));
        fault.inflict(world, lost).await?;
        days += 1;
        let session = send(world.client(others[0]), day(days)).await?;
        for node in &others {
            let found = totals(world.client(*node), &session).await?;
            ensure!(found == expected(days), "node {node}, {lost} is {fault:?}: {found:?}");
        }
        stop.store(true, Ordering::Relaxed);
        let stall = reading.await?;
        ensure!(stall < STALL_MAX, "while {lost} was {fault:?} a reader waited {stall:?}");
        fault.mend(world, lost).await?;
        world.settled(lost).await?;
        let found = totals(world.client(lost), &session).await?;
        ensure!(found == expected(days), "node {lost} is back: {found:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_node_is_killed_the_others_answer_and_it_comes_back() -> anyhow::Result<()> {
    trial(Fault::Killed, 3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_node_is_paused_the_others_answer_and_it_catches_up() -> anyhow::Result<()> {
    trial(Fault::Paused, 3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_node_is_cut_off_the_others_answer_and_it_catches_up() -> anyhow::Result<()> {
    trial(Fault::CutOff, 3).await
}

// A fourth and a fifth node vote on nothing and hold their share.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_stand_the_loss_of_any() -> anyhow::Result<()> {
    trial(Fault::Killed, 5).await
}

/// Runs `sanso cluster voters`; returns whether it was done, and what it said.
fn voters(at: &Client, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
    let mut command = Command::new(sanso_e2e::binary());
    let ran = command.args(["cluster", "--to", at.base(), "voters"]).args(arguments).output()?;
    let said = [ran.stdout, ran.stderr].concat();
    Ok((ran.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_stand_the_pause_of_any() -> anyhow::Result<()> {
    trial(Fault::Paused, 5).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_stand_that_any_is_cut_off() -> anyhow::Result<()> {
    trial(Fault::CutOff, 5).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_holds_nothing_votes_no_more_and_is_used_again() -> anyhow::Result<()> {
    if !available("a_drained_node_holds_nothing_votes_no_more_and_is_used_again") {
        return Ok(());
    }
    let mut world = World::new(4)?;
    (1..=4).try_for_each(|node| world.start(node))?;
    for node in 1..=4 {
        world.settled(node).await?;
    }
    let session = send(world.client(1), day(1)).await?;
    // The node that came last holds its share once it has been moved there.
    world.holds(1, 2, |replicas| replicas > 0).await?;
    world.client(3).post("/v1/cluster/nodes/2/drain", &json!({})).await?;
    world.holds(1, 2, |replicas| replicas == 0).await?;
    let (done, said) = voters(world.client(4), &["1,3"])?;
    ensure!(!done && said.contains("2 instead of 3 voters stand no loss of a node"), "{said}");
    let (done, said) = voters(world.client(4), &["1,3,4"])?;
    ensure!(done && said.lines().nth(4).is_some_and(|node| node.starts_with("4     votes")), "{said}");
    world.nodes.remove(&2).context("it runs")?.kill()?;
    for node in [1, 3, 4] {
        assert_eq!(totals(world.client(node), &session).await?, expected(1), "node {node} without 2");
    }
    world.start(2)?;
    world.client(2).post("/v1/cluster/nodes/2/fill", &json!({})).await?;
    world.holds(1, 2, |replicas| replicas > 0).await?;
    assert_eq!(totals(world.client(2), &session).await?, expected(1), "node 2 is back");
    // Its own file says that it votes.
    let (done, said) = voters(world.client(2), &[])?;
    ensure!(done && said.lines().nth(2).is_some_and(|node| node.starts_with("2     waits")), "{said}");
    Ok(())
}

/// What is written when a day is over, and what is made of that.
const STAGES: &str = "
CREATE SOURCE days FROM VIEW meter_daily WITH (segment = '64');
CREATE VIEW peaks WITH (partitions = '2') AS
  SELECT TUMBLE(d.day, INTERVAL '1 day') AS on_day, MAX(d.kwh) AS most, COUNT(*) AS meters FROM days d GROUP BY on_day;
";

/// A closed window, as a consumer knows it: its revision, kilowatt-hours and readings.
type Told = (u64, i128, i64);

/// Returns what a topic says of each window, in order.
fn told(world: &World) -> anyhow::Result<BTreeMap<String, Vec<Told>>> {
    let mut windows: BTreeMap<String, Vec<Told>> = BTreeMap::new();
    // The topic is made with its first window; until then there is none to read.
    let said = world.kafka.kcat(&["-C", "-q", "-e", "-t", "closed", "-f", "%s\n"], "").unwrap_or_default();
    for line in said.lines() {
        let window: Value = serde_json::from_str(line)?;
        let readings = window["values"]["readings"].as_i64().context("a count")?;
        let revision = window["revision"].as_u64().context("a revision")?;
        let name = window["id"].as_str().context("a name")?.to_owned();
        windows.entry(name).or_default().push((revision, micro_of(&window["values"]["kwh"]), readings));
    }
    Ok(windows)
}

/// What a consumer knows that goes by the order of records, and one that goes by revisions.
fn newest(windows: &BTreeMap<String, Vec<Told>>) -> [BTreeMap<&str, (i128, i64)>; 2] {
    let content = |(_, kwh, readings): &Told| (*kwh, *readings);
    let last = windows.iter().filter_map(|(name, all)| Some((name.as_str(), content(all.last()?))));
    let highest = windows.iter().filter_map(|(name, all)| Some((name.as_str(), content(all.iter().max()?))));
    [last.collect(), highest.collect()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_windows_are_written_and_views_made_of_them_whoever_is_killed() -> anyhow::Result<()> {
    if !available("closed_windows_are_written_and_views_made_of_them_whoever_is_killed") {
        return Ok(());
    }
    let app = APP.replace("meter_daily AS", "meter_daily WITH (output_topic = 'closed') AS") + STAGES;
    let mut world = World::with(3, &app, "interval_ms = 200")?;
    (1..=3).try_for_each(|node| world.start(node))?;
    let outcome = emit_while_killed(&mut world).await;
    outcome.map_err(|error| anyhow::anyhow!("{error:?}\n{}", world.logs()))
}

async fn emit_while_killed(world: &mut World) -> anyhow::Result<()> {
    for node in 1..=3 {
        world.settled(node).await?;
    }
    send(world.client(1), day(1)).await?;
    for round in 0..u32::from(ROUNDS) {
        // Each day closes the one before it, and a reading of the first day is corrected; whoever
        // writes that down dies meanwhile.
        let lost = (round % 3 + 1) as u16;
        let other = lost % 3 + 1;
        send(world.client(other), day(round + 2)).await?;
        let corrected = format!(
            "{{\"usage_point\":\"M07\",\"start_utc\":\"2026-01-01T00:00:00Z\",\"value\":{}.125,\"source_version\":{}}}\n",
            round + 1,
            round + 2
        );
        let (status, answer) = world.client(other).ingest("readings", corrected).await?;
        ensure!(status == 200, "{answer}");
        Fault::Killed.inflict(world, lost).await?;
        Fault::Killed.mend(world, lost).await?;
        world.settled(lost).await?;
    }
    let days = u32::from(ROUNDS);
    let of = |meter: usize, day: u32| {
        let amended = meter == 7 && day == 1;
        if amended { micro("6") + i128::from(ROUNDS) * micro("1") } else { micro("6") }
    };
    let name =
        |meter: usize, day: u32| format!("{{\"usage_point\":\"M{meter:02}\"}} 2026-01-{day:02}T00:00:00Z");
    let wanted: BTreeMap<String, (i128, i64)> = (0..METERS)
        .flat_map(|meter| (1..=days).map(move |day| (name(meter, day), (of(meter, day), 48))))
        .collect();
    let wanted: BTreeMap<&str, _> = wanted.iter().map(|(name, content)| (name.as_str(), *content)).collect();
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let windows = told(world)?;
        if newest(&windows) == [wanted.clone(), wanted.clone()] {
            break;
        }
        ensure!(Instant::now() < patience, "told {windows:?}");
    }
    for (name, all) in told(world)? {
        let of_revision: BTreeMap<u64, Told> = all.iter().map(|told| (told.0, *told)).collect();
        ensure!(all.iter().all(|told| of_revision[&told.0] == *told), "{name}: {all:?}");
    }
    for node in 1..=3 {
        let peaks: Vec<(i128, i64)> = (1..=days)
            .map(|day| ((0..METERS).map(|meter| of(meter, day)).max().unwrap_or(0), METERS as i64))
            .collect();
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = world.client(node).query("SELECT most, meters FROM peaks ORDER BY on_day").await?;
            let rows = answer.rows().iter().map(|row| (micro_of(&row[0]), row[1].as_i64().unwrap_or(0)));
            if rows.collect::<Vec<_>>() == peaks {
                break;
            }
            ensure!(Instant::now() < patience, "node {node}: {:?}, not {peaks:?}", answer.rows());
        }
    }
    Ok(())
}

/// What is said of a job, by the node that drives it.
async fn job(at: &Client) -> anyhow::Result<Value> {
    Ok(at.get("/v1/sources/readings").await?["job"].take())
}

/// Waits until one node alone says that it drives the batch layer; not one that did before.
async fn driver(world: &World, before: Option<u16>) -> anyhow::Result<u16> {
    let drives = |node: &Node| {
        let log = node.log().into_iter().rev().find(|line| line.contains("the batch layer is driven "));
        log.is_some_and(|line| line.contains("driven here"))
    };
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let driving: Vec<u16> =
            world.nodes.iter().filter(|(_, of)| drives(of)).map(|(node, _)| *node).collect();
        if let [driver] = driving[..]
            && Some(driver) != before
        {
            return Ok(driver);
        }
        ensure!(Instant::now() < patience, "one node drives the batch layer, not {driving:?}");
        tokio::task::yield_now().await;
    }
}

/// Waits until a driver has given tasks to others too; returns who works.
async fn at_work(at: &Client, driver: u16) -> anyhow::Result<Vec<u16>> {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let job = job(at).await?;
        let running = job["running"].as_array().map(Vec::as_slice).unwrap_or_default();
        let workers: Vec<u16> =
            running.iter().filter_map(|run| run["worker"].as_u64()).map(|w| w as u16).collect();
        if workers.iter().any(|worker| *worker != driver) {
            return Ok(workers);
        }
        ensure!(Instant::now() < patience, "node {driver} drives nothing at other nodes: {job}");
    }
}

/// Returns how many readings the versions in the dataset cover.
fn covered(world: &World) -> anyhow::Result<u64> {
    let mut newest = 0;
    let folder = world.path("dataset/readings/manifests");
    for file in std::fs::read_dir(folder).into_iter().flatten() {
        let path = file?.path();
        // One that is removed meanwhile is not the newest; one of another name is being written.
        let read = path.extension().is_some_and(|is| is == "json").then(|| std::fs::read_to_string(&path));
        let Some(Ok(text)) = read else { continue };
        let document: Value = serde_json::from_str(&text)?;
        let cut = document["manifest"]["cut"].as_array().context("a manifest has a cut")?;
        newest = newest.max(cut.iter().filter_map(Value::as_u64).sum());
    }
    Ok(newest)
}

/// What all nodes that ever ran said of the batch layer's work.
#[derive(Default)]
struct Said {
    /// How often each task was computed.
    computed: BTreeMap<String, u32>,
    /// Tasks that were given to a second worker, as the first was slow, failed or lost.
    again: BTreeSet<String>,
    /// How often a node began to drive.
    drivers: u32,
}

fn said(world: &World) -> Said {
    let mut said = Said::default();
    for node in 1..=world.all {
        let log = std::fs::read_to_string(world.file(node).with_extension("log")).unwrap_or_default();
        for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let fields = &line["fields"];
            let (task, message) = (fields["task"].as_str(), fields["message"].as_str().unwrap_or_default());
            match (task, message) {
                (Some(task), "computed a task") => *said.computed.entry(task.to_owned()).or_default() += 1,
                (Some(task), message) if message.contains("another node") || message.contains("again") => {
                    said.again.insert(task.to_owned());
                }
                (None, "the batch layer is driven here") => said.drivers += 1,
                _ => {}
            }
        }
    }
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_work_outlives_its_driver_and_a_worker_and_nothing_is_done_twice() -> anyhow::Result<()> {
    if !available("batch_work_outlives_its_driver_and_a_worker_and_nothing_is_done_twice") {
        return Ok(());
    }
    let mut world =
        World::with(5, APP, "interval_ms = 200\nsegments_per_version_max = 48\ntasks_at_once = 1")?;
    (1..=5).try_for_each(|node| world.start(node))?;
    let outcome = lose_driver_and_worker(&mut world).await;
    outcome.map_err(|error| anyhow::anyhow!("{error:?}\n{}", world.logs()))
}

/// Sends day after day until told to stop; returns how many, and the last token.
async fn feed(client: Client, stop: Arc<AtomicBool>) -> anyhow::Result<(u32, String)> {
    let (mut days, mut session) = (0, String::new());
    while days < DAYS_MAX && !stop.load(Ordering::Relaxed) {
        days += 1;
        session = send(&client, day(days)).await?;
    }
    Ok((days, session))
}

async fn lose_driver_and_worker(world: &mut World) -> anyhow::Result<()> {
    for node in 1..=world.all {
        world.settled(node).await?;
    }
    let first = driver(world, None).await?;
    let spared = if first == 1 { 2 } else { 1 };
    let client = world.client(spared).clone();
    let (stop, drivers) = (Arc::new(AtomicBool::new(false)), said(world).drivers);
    let feeding = tokio::spawn(feed(client, Arc::clone(&stop)));
    at_work(world.client(first), first).await?;
    world.nodes.remove(&first).context("it runs")?.kill()?;
    let second = driver(world, Some(first)).await?;
    let workers = at_work(world.client(second), second).await?;
    // The last ones don't vote: those who do must not become too few.
    let others: Vec<u16> =
        world.nodes.keys().copied().filter(|node| ![second, spared].contains(node)).collect();
    let lost = others.iter().rev().find(|node| workers.contains(node)).or(others.last());
    let lost = *lost.context("there are others")?;
    let lost = if lost <= 3 && first <= 3 { *others.last().context("there are others")? } else { lost };
    world.nodes.remove(&lost).context("it runs")?.kill()?;
    stop.store(true, Ordering::Relaxed);
    let (days, session) = feeding.await??;
    let readings = u64::from(days) * METERS as u64 * 48;
    let patience = Instant::now() + Duration::from_secs(120);
    // Of each log partition less than a segment is left.
    while covered(world)? + 6 * 255 < readings {
        ensure!(Instant::now() < patience, "{} of {readings} are covered", covered(world)?);
        tokio::task::yield_now().await;
    }
    for node in world.nodes.keys() {
        let found = totals(world.client(*node), &session).await?;
        ensure!(found == expected(days), "node {node} without {first} and {lost}: {found:?}");
    }
    let said = said(world);
    let twice = said.computed.iter().filter(|(task, times)| **times > 1 && !said.again.contains(*task));
    let twice: Vec<_> = twice.collect();
    // On a machine that is short of processors a driver may be taken for lost, and two drive for a moment.
    let is_alone = said.drivers == drivers + 1;
    ensure!(!said.computed.is_empty(), "nothing says that it was computed");
    ensure!(twice.is_empty() || !is_alone, "done twice without being lost: {twice:?}");
    Ok(())
}
