//! Memory stays bounded on every node: ingestion is refused, blocks make room, queries go on.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_broker::available;
use sanso_e2e::{Client, micro_of};
use serde_json::Value;

use crate::world::{APP, METERS, World, day, expected, totals};

/// Groups that the views of a node may hold: so many days of all meters.
const DAYS: u32 = 25;
const GROUPS: u64 = DAYS as u64 * METERS as u64;
/// Bytes of the newest-version table that a node may keep at hand: less than a day.
const BLOCKS: u64 = 100_000;
/// Returns the use and the bound of one of a node's limits.
fn limit(limits: &Value, name: &str) -> Option<(u64, u64)> {
    let all = limits["limits"].as_array()?;
    let limit = all.iter().find(|limit| limit["name"] == name)?;
    Some((limit["used"].as_u64()?, limit["max"].as_u64()?))
}

/// Sends as many days as there is room for, to the nodes in turn; returns the last token. A node that refuses
/// before that takes more once a batch version has put together what its speed layer holds twice.
async fn fill(world: &World) -> anyhow::Result<String> {
    let mut session = String::new();
    for which in 1..=DAYS {
        let at = world.client((which % 3) as u16 + 1);
        session = takes(at, which).await?;
        ensure!(totals(at, &session).await? == expected(which), "day {which}");
    }
    Ok(session)
}

/// Waits until a node refuses to take a reading, and says when to come again.
async fn refuses(at: &Client) -> anyhow::Result<()> {
    let patience = Instant::now() + Duration::from_secs(30);
    // A reading that is there already: taken or not, it changes nothing.
    let line = day(1).lines().next().context("a line")?.to_owned() + "\n";
    loop {
        let (status, retry_after, answer) = at.ingest_or_retry("readings", line.clone()).await?;
        if status == 503 && retry_after.is_some() && answer["type"] == "urn:sanso:problem:views-full" {
            return Ok(());
        }
        ensure!(Instant::now() < patience, "{} takes more: {status} {answer}", at.base());
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_views_have_no_room_for_is_refused_everywhere_and_queries_go_on() -> anyhow::Result<()> {
    if !available("what_the_views_have_no_room_for_is_refused_everywhere_and_queries_go_on") {
        return Ok(());
    }
    let mut world = World::with(
        4,
        APP,
        "interval_ms = 200\nblocks_memory_bytes_max = 100000\n[serving]\nview_groups_max = 1000",
    )?;
    assert_eq!((GROUPS, BLOCKS), (1_000, 100_000), "as the nodes' files say");
    (1..=4).try_for_each(|node| world.start(node))?;
    let outcome = fill_and_ask(&mut world).await;
    outcome.map_err(|error| anyhow::anyhow!("{error:?}\n{}", world.logs()))
}

async fn fill_and_ask(world: &mut World) -> anyhow::Result<()> {
    for node in 1..=4 {
        world.settled(node).await?;
    }
    // The fourth holds nothing of the views; what it takes would be the others' all the same.
    world.client(1).post("/v1/cluster/nodes/4/drain", &Value::Null).await?;
    world.holds(1, 4, |replicas| replicas == 0).await?;
    let (days, session) = (DAYS, fill(world).await?);
    for node in 1..=4 {
        refuses(world.client(node)).await?;
        let found = totals(world.client(node), &session).await?;
        ensure!(found == expected(days), "node {node} of a full cluster: {found:?}");
    }
    makes_room(world).await?;
    for node in 1..=3 {
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let limits = world.client(node).get("/v1/limits").await?;
            let (groups, max) = limit(&limits, "views.groups").context("it is on the board")?;
            ensure!(max == GROUPS, "node {node} may hold {max} groups");
            // Of a meter's day some readings may be archived and some not; and a node that was taken for lost
            // holds few until its replicas have caught up.
            if (GROUPS..=GROUPS + METERS as u64).contains(&groups) {
                break;
            }
            ensure!(Instant::now() < patience, "node {node} holds {groups} groups of {max}");
            tokio::task::yield_now().await;
        }
    }
    // Who has more memory takes more: after a restart with another bound, node by node.
    for node in 1..=4 {
        world.nodes.remove(&node).context("it runs")?.stop()?;
        let text = std::fs::read_to_string(world.file(node))?;
        std::fs::write(world.file(node), text.replace("view_groups_max = 1000", "view_groups_max = 100000"))?;
        world.start(node)?;
        world.settled(node).await?;
    }
    let more = takes(world.client(1), days + 1).await?;
    for node in 1..=4 {
        ensure!(totals(world.client(node), &more).await? == expected(days + 1), "node {node} with more room");
    }
    Ok(())
}

/// Waits until a node takes a day; returns its token.
async fn takes(at: &Client, which: u32) -> anyhow::Result<String> {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let (status, answer) = at.ingest("readings", day(which)).await?;
        if status == 200 && answer["refused_count"] == 0 {
            return Ok(answer["session"].as_str().context("a token")?.to_owned());
        }
        ensure!(status == 503 && Instant::now() < patience, "{status} {answer}");
        tokio::task::yield_now().await;
    }
}

/// Waits until blocks have made room for others on every node that does batch work, within the bound.
async fn makes_room(world: &World) -> anyhow::Result<()> {
    let patience = Instant::now() + Duration::from_secs(60);
    let mut made = BTreeSet::new();
    while made.is_empty() {
        for node in 1..=4 {
            let limits = world.client(node).get("/v1/limits").await?;
            let (used, max) = limit(&limits, "batch.blocks_memory").context("it is on the board")?;
            ensure!(max == BLOCKS && used <= BLOCKS, "node {node} keeps {used} bytes of blocks");
            let (_, metrics) = world.client(node).get_text("/metrics").await?;
            let left = metrics.lines().filter(|line| {
                line.starts_with("sanso_blocks_left_total{")
                    || line.starts_with("sanso_blocks_refused_total{")
            });
            let left: f64 = left.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
            if left > 0.0 {
                made.insert(node);
            }
        }
        ensure!(Instant::now() < patience, "no block ever made room for another");
    }
    let sum = "SELECT SUM(value) AS kwh FROM readings";
    let archived = world.client(1).query(sum).await?;
    ensure!(micro_of(&archived.rows()[0][0]) > 0, "SQL over the archive goes on");
    Ok(())
}
