//! The batch layer's work is divided among nodes, and loses its driver and a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_broker::available;
use sanso_e2e::{Client, Node};
use serde_json::Value;

use crate::world::{APP, METERS, World, day, expected, send, totals};

/// Days of readings that are fed, at most, while batch work loses its nodes.
const DAYS_MAX: u32 = 100;

/// How long batch work over all that was fed may take: on a slow machine that is a lot.
const WORK_MAX: Duration = Duration::from_secs(300);

/// What is said of the job that a node drives.
async fn job(at: &Client, driver: u16) -> anyhow::Result<Value> {
    let mut answer = at.get("/v1/jobs").await?;
    let running = answer["running"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let is_its = |job: &Value| job["driver"] == driver && job["source"] == "readings";
    Ok(running.into_iter().find(is_its).unwrap_or_default())
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
        let job = job(at, driver).await?;
        let running = job["runs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let workers: Vec<u16> =
            running.iter().filter_map(|run| run["node"].as_u64()).map(|w| w as u16).collect();
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

/// All that a node ever said, with the task and the text of each line.
fn lines_of(world: &World, node: u16) -> Vec<Value> {
    let log = std::fs::read_to_string(world.file(node).with_extension("log")).unwrap_or_default();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|mut line| line["fields"].take()).collect()
}

/// How often a node computed which task.
fn computed_by(world: &World, node: u16) -> BTreeMap<String, u32> {
    let mut computed = BTreeMap::new();
    for fields in lines_of(world, node) {
        if let (Some(task), Some("computed a task")) = (fields["task"].as_str(), fields["message"].as_str()) {
            *computed.entry(task.to_owned()).or_default() += 1;
        }
    }
    computed
}

fn said(world: &World) -> Said {
    let mut said = Said::default();
    for node in 1..=world.all {
        for (task, times) in computed_by(world, node) {
            *said.computed.entry(task).or_default() += times;
        }
        for fields in lines_of(world, node) {
            let (task, message) = (fields["task"].as_str(), fields["message"].as_str().unwrap_or_default());
            match (task, message) {
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

/// Waits until every part of the newest-version table is at hand on two of the nodes that are left.
async fn copied(at: &Client) -> anyhow::Result<()> {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let said = at.get("/v1/datasets?parts=true").await?;
        let datasets = said["datasets"].as_array().context("datasets are listed")?;
        let newest = datasets.iter().find(|dataset| dataset["name"] == "readings.newest");
        let parts =
            newest.context("the table is listed")?["part_list"].as_array().context("with its parts")?;
        let places = |part: &Value| part["places"].as_array().map_or(0, Vec::len);
        if !parts.is_empty() && parts.iter().all(|part| places(part) >= 2) {
            return Ok(());
        }
        let least = parts.iter().min_by_key(|part| places(part));
        ensure!(
            Instant::now() < patience,
            "of {} parts, this one has too few copies: {least:?}",
            parts.len()
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_work_outlives_its_driver_and_a_worker_and_nothing_is_done_twice() -> anyhow::Result<()> {
    if !available("batch_work_outlives_its_driver_and_a_worker_and_nothing_is_done_twice") {
        return Ok(());
    }
    let app = APP.replace("partitions = '6'", "partitions = '6', replicas = 2");
    let mut world =
        World::with(5, &app, "interval_ms = 200\nsegments_per_version_max = 48\ntasks_at_once = 1")?;
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
    // Whichever node is asked.
    at_work(world.client(spared), first).await?;
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
    let patience = Instant::now() + WORK_MAX;
    // Of each log partition less than a segment is left.
    while covered(world)? + 6 * 255 < readings {
        ensure!(Instant::now() < patience, "{} of {readings} are covered", covered(world)?);
        tokio::task::yield_now().await;
    }
    for node in world.nodes.keys() {
        let found = totals(world.client(*node), &session).await?;
        ensure!(found == expected(days), "node {node} without {first} and {lost}: {found:?}");
    }
    copied(world.client(spared)).await?;
    let said = said(world);
    let twice = said.computed.iter().filter(|(task, times)| **times > 1 && !said.again.contains(*task));
    let twice: Vec<_> = twice.collect();
    // On a machine that is short of processors a driver may be taken for lost, and two drive for a moment.
    let is_alone = said.drivers == drivers + 1;
    ensure!(!said.computed.is_empty(), "nothing says that it was computed");
    ensure!(twice.is_empty() || !is_alone, "done twice without being lost: {twice:?}");
    one_view_more(world, readings).await
}

/// A view that comes when all is archived is computed from all of it by all nodes that are left, in two stages.
async fn one_view_more(world: &World, readings: u64) -> anyhow::Result<()> {
    for node in world.nodes.keys() {
        let app = std::fs::read_to_string(world.path(&format!("app{node}.sql")))?;
        let view = "CREATE VIEW meters AS SELECT usage_point, COUNT(*) AS readings FROM readings GROUP BY usage_point;";
        world.declare(*node, &format!("{app}{view}"))?;
    }
    for node in world.nodes.keys() {
        let patience = Instant::now() + WORK_MAX;
        loop {
            // It is not known at once.
            let answer =
                world.client(*node).query_within("SELECT SUM(readings) AS n FROM meters", "", 20_000).await;
            let found = answer.as_ref().ok().and_then(|answer| answer.rows().first()?[0].as_u64());
            if found == Some(readings) {
                break;
            }
            ensure!(Instant::now() < patience, "node {node} has {found:?} of {readings}: {answer:?}");
            tokio::task::yield_now().await;
        }
    }
    let patience = Instant::now() + WORK_MAX;
    loop {
        // What a node says last may not be in its log yet.
        let (lifted, combined) = who_computed(world)?;
        if lifted.len() > 1 && combined.len() > 1 {
            return Ok(());
        }
        ensure!(Instant::now() < patience, "{lifted:?} lifted, {combined:?} combined");
        tokio::task::yield_now().await;
    }
}

/// Returns the nodes that lifted something, and those that combined it for the view that came last. What was
/// lifted stays where it was.
fn who_computed(world: &World) -> anyhow::Result<(BTreeSet<u16>, BTreeSet<u16>)> {
    let (mut lifted, mut combined) = (BTreeSet::new(), BTreeSet::new());
    for node in world.nodes.keys() {
        for line in lines_of(world, *node) {
            let task =
                line["task"].as_str().filter(|_| line["message"] == "computed a task").unwrap_or_default();
            if task.starts_with("lift of readings/") {
                let kept = line["pieces_at"].as_str();
                ensure!(kept == Some(&format!("node {node}")), "{task} at node {node}: pieces at {kept:?}");
                lifted.insert(*node);
            }
            if task.starts_with("combine of readings, meters/") {
                combined.insert(*node);
            }
        }
    }
    Ok((lifted, combined))
}
