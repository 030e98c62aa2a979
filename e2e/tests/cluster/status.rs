//! Whichever node is asked, it tells of the whole cluster; one that is gone is named.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_broker::available;
use sanso_e2e::{Client, package};
use serde_json::{Value, json};

use crate::world::{METERS, World, day, send};

/// Readings of one day, and of the file that is sent after it.
const DAY: u64 = METERS as u64 * 48;
const MORE: u64 = 20;

/// How long what is waited for may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until what a node answers is as wanted. While it does not hear another one it may refuse.
async fn until(at: &Client, path: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let patience = Instant::now() + PATIENCE;
    loop {
        let (status, text) = at.get_text(path).await?;
        let answer: Value = serde_json::from_str(&text)?;
        if status == 200 && wanted(&answer) {
            return Ok(answer);
        }
        ensure!(Instant::now() < patience, "{path} of {}: {status} {answer}", at.base());
        tokio::task::yield_now().await;
    }
}

/// Says whether a status counts so many records, each log partition once.
fn counts(status: &Value, records: u64) -> bool {
    let source = &status["sources"][0];
    let partitions = source["partitions"].as_array().map_or(0, Vec::len);
    partitions == 6 && source["counts"]["records"] == records && source["lag_records"] == 0
}

/// Runs `sanso` against a node; returns its exit code, and what it said.
fn sanso(at: &Client, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let ran = Command::new(sanso_e2e::binary()).args(arguments).args(["--to", at.base()]).output()?;
    let said = [ran.stdout, ran.stderr].concat();
    Ok((ran.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

/// Runs `sanso`, which changes nothing, against a node until it ends with this code and says what is wanted.
async fn says(
    at: &Client,
    arguments: &[&str],
    exit: i32,
    wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    let patience = Instant::now() + PATIENCE;
    loop {
        let (code, said) = sanso(at, arguments)?;
        if code == Some(exit) && wanted(&said) {
            return Ok(());
        }
        ensure!(Instant::now() < patience, "{arguments:?} of {}: {code:?} {said}", at.base());
        tokio::task::yield_now().await;
    }
}

/// Returns the names of a cluster's own metrics in some text.
fn cluster_metrics(text: &str) -> BTreeSet<&str> {
    let names = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    names
        .filter(|name| name.starts_with("sanso_cluster_") || name.starts_with("sanso_replication_"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_node_is_asked_it_tells_of_all() -> anyhow::Result<()> {
    if !available("whichever_node_is_asked_it_tells_of_all") {
        return Ok(());
    }
    // The fourth has no layer but serving: it feeds nothing, and holds its share of the views.
    let mut world = World::with(4, crate::world::APP, "interval_ms = 200")?;
    world.roles(4, "[\"serving\"]")?;
    (1..=4).try_for_each(|node| world.start(node))?;
    let outcome = tells_of_all(&mut world).await;
    outcome.map_err(|error| anyhow::anyhow!("{error:?}\n{}", world.logs()))
}

async fn tells_of_all(world: &mut World) -> anyhow::Result<()> {
    for node in 1..=4 {
        world.settled(node).await?;
    }
    // One reading contradicts another of its version.
    send(world.client(1), day(1)).await?;
    let contrary = day(1).lines().next().context("a line")?.replace("0.125", "9");
    world.client(1).ingest("readings", contrary + "\n").await?;
    for node in 1..=4 {
        let status = until(world.client(node), "/v1/status", |status| {
            let answers =
                status["nodes"].as_array().is_some_and(|all| all.iter().all(|n| n["answers"] == true));
            answers && counts(status, DAY + 1) && status["sources"][0]["batch"]["version"].as_u64() > Some(0)
        });
        let status = status.await?;
        let nodes = status["nodes"].as_array().context("a cluster has nodes")?;
        ensure!(nodes.len() == 4 && nodes[3]["feeds"] == 0, "{nodes:?}");
        let is_whole = |list: &Value| list["count"] == 1 && list["partial"] == false;
        let list = until(world.client(node), "/v1/quarantine/readings", is_whole).await?;
        ensure!(list["records"][0]["kind"] == "conflict", "{list}");
        let names_all = |said: &str| (1..=4).all(|n| said.contains(&format!("node {n}\n")));
        says(world.client(node), &["limits"], 0, names_all).await?;
    }
    all_name_one_driver(world).await?;
    metrics_are_there(world).await?;
    ingests_where_nothing_is_fed(world).await?;
    replays_where_nothing_is_kept(world).await?;
    lacks_nothing_unsaid(world).await
}

/// Whichever node is asked who drives the batch layer, it is the same one.
async fn all_name_one_driver(world: &World) -> anyhow::Result<()> {
    let patience = Instant::now() + PATIENCE;
    loop {
        let mut named: Vec<Vec<u64>> = Vec::new();
        for node in 1..=4 {
            let status = world.client(node).get("/v1/status").await?;
            let nodes = status["nodes"].as_array().context("a cluster has nodes")?;
            let drive = nodes.iter().filter(|n| n["drives_batch"] == true);
            named.push(drive.filter_map(|n| n["node"].as_u64()).collect());
        }
        if named[0].len() == 1 && named.iter().all(|drivers| *drivers == named[0]) {
            return Ok(());
        }
        // Another one drives while a node is suspected, and not all know it at the same moment.
        ensure!(Instant::now() < patience, "all name one driver, not {named:?}");
        tokio::task::yield_now().await;
    }
}

/// What the dashboard and the alerts ask of a cluster is there.
async fn metrics_are_there(world: &World) -> anyhow::Result<()> {
    let patience = Instant::now() + PATIENCE;
    loop {
        let mut known = String::new();
        for node in 1..=4 {
            known += &world.client(node).get_text("/metrics").await?.1;
        }
        let Some(lack) = lack(&known)? else { return Ok(()) };
        // Nodes are asked one after the other: who counts for all may be another one meanwhile.
        ensure!(Instant::now() < patience, "{lack}");
        tokio::task::yield_now().await;
    }
}

/// Says what all nodes' metrics together lack, if anything.
fn lack(known: &str) -> anyhow::Result<Option<String>> {
    for file in ["grafana/dashboards/sanso.json", "prometheus/alerts.yml"] {
        let text = std::fs::read_to_string(package().join("../deploy").join(file))?;
        let asked = cluster_metrics(&text);
        ensure!(!asked.is_empty(), "{file} asks for nothing of a cluster");
        let unknown: Vec<_> = asked.difference(&cluster_metrics(known)).copied().collect();
        if !unknown.is_empty() {
            return Ok(Some(format!("{file} asks for {unknown:?}")));
        }
    }
    let counted = known.lines().filter(|line| line.starts_with("sanso_quarantined_records")).count();
    let said = || format!("one node counts the four kinds of the quarantine for all, not {counted}");
    Ok((counted != 4).then(said))
}

/// `sanso ingest` waits for the cluster, whichever node it sends to.
async fn ingests_where_nothing_is_fed(world: &World) -> anyhow::Result<()> {
    let file = world.path("more.csv");
    let rows = (1..=20).map(|day| format!("M{day},Std,2025-03-{day:02} 01:00:00,0.5\n"));
    std::fs::write(
        &file,
        "LCLid,stdorToU,DateTime,KWH/hh (per half hour)\n".to_owned() + &rows.collect::<String>(),
    )?;
    let file = file.to_string_lossy();
    let arguments = ["ingest", "--mapping", "lcl", "--source-version", "1", "--json", &file];
    let (code, said) = sanso(world.client(4), &arguments)?;
    ensure!(code == Some(0), "{said}");
    let said: Value =
        serde_json::from_str(said.lines().find(|line| line.starts_with('{')).context("a summary")?)?;
    ensure!(said["settled"] == true, "{said}");
    // The changes that it tells of are of those nodes that answered before and after.
    let new = |status: &Value| status["sources"][0]["counts"]["new"] == DAY + MORE;
    until(world.client(4), "/v1/status", |status| counts(status, DAY + 1 + MORE) && new(status)).await?;
    Ok(())
}

/// A conflict is replayed through the node that has nothing of it, once.
async fn replays_where_nothing_is_kept(world: &World) -> anyhow::Result<()> {
    for (node, replayed) in [(4, "1 record replayed\n"), (2, "0 records replayed\n")] {
        // What a node that does not answer has can't be replayed.
        let is_whole = |list: &Value| list["count"] == 1 && list["partial"] == false;
        until(world.client(node), "/v1/quarantine/readings", is_whole).await?;
        let (_, said) =
            sanso(world.client(node), &["quarantine", "replay", "--kind", "conflict", "--version", "2"])?;
        ensure!(said.contains(replayed), "{said}");
    }
    for node in 1..=4 {
        let is_marked = |list: &Value| list["replayed"] == 1 && list["partial"] == false;
        let list = until(world.client(node), "/v1/quarantine/readings", is_marked).await?;
        ensure!(list["count"] == 1, "{list}");
    }
    Ok(())
}

/// A node that is gone is named; its log partitions are told of by others, or named as missing.
async fn lacks_nothing_unsaid(world: &mut World) -> anyhow::Result<()> {
    world.nodes.remove(&2).context("it runs")?.kill()?;
    for node in [1, 3, 4] {
        let status = world.client(node).get("/v1/status").await?;
        let second = status["nodes"][1].clone();
        ensure!(second["answers"] == false && second["error"].is_string(), "{second}");
        let names_it = |list: &Value| {
            let silent = list["unanswered"].as_array().map(Vec::as_slice).unwrap_or_default();
            silent.iter().any(|silent| silent["node"] == 2)
        };
        let list = until(world.client(node), "/v1/quarantine/readings", names_it).await?;
        ensure!(list["partial"] == true, "{list}");
        ensure!(list["count"] == 1 || list["partitions_missing"] != json!([]), "{list}");
        let whole = |status: &Value| {
            counts(status, DAY + MORE + 2) && status["sources"][0]["partitions_missing"] == json!([])
        };
        until(world.client(node), "/v1/status", whole).await?;
        let lacks = |said: &str| said.contains("node 2 does not answer");
        says(world.client(node), &["quarantine", "list"], 1, lacks).await?;
        let (code, said) = sanso(world.client(node), &["limits"])?;
        ensure!(code == Some(1) && said.contains("node 2\ndoes not answer"), "{said}");
    }
    Ok(())
}
