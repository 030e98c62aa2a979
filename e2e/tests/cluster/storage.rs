//! A view on disk in a cluster: every replica keeps its own runs, and one that comes back is sent what lies on another's disk.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_broker::available;
use sanso_e2e::{Client, cut_off_groups, micro, micro_of};

use crate::world::{APP, METERS, World, day, send};

/// More groups than stay in memory, in one view partition.
const DAYS: u32 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_on_disk_outlives_a_node_and_is_sent_to_it_when_it_comes_back() -> anyhow::Result<()> {
    if !available("a_view_on_disk_outlives_a_node_and_is_sent_to_it_when_it_comes_back") {
        return Ok(());
    }
    let app = format!(
        "{APP}
         CREATE VIEW half_hours WITH (storage = 'disk', partitions = '1') AS
           SELECT usage_point, TUMBLE(start_utc, INTERVAL '30 minutes') AS half_hour, SUM(value) AS kwh, COUNT(*) AS readings
           FROM readings GROUP BY usage_point, half_hour;"
    );
    let mut world = World::with(3, &app, "interval_ms = 200")?;
    (1..=3).try_for_each(|node| world.start(node))?;
    let outcome = lose_and_bring_back(&mut world).await;
    outcome.map_err(|error| anyhow::anyhow!("{error:?}\n{}", world.logs()))
}

async fn lose_and_bring_back(world: &mut World) -> anyhow::Result<()> {
    for node in 1..=3 {
        world.settled(node).await?;
    }
    let mut session = String::new();
    for which in 1..=DAYS {
        session = send(world.client(1), day(which)).await?;
    }
    for node in 1..=3 {
        is_on_disk(world.client(node)).await?;
        holds(world.client(node), &session, DAYS).await?;
    }
    // What one of them can't read any longer the others answer, until it has it from the dataset.
    ensure!(cut_off_groups(&world.path("data2"))? > 0, "nothing is on disk");
    for _ in 0..20 {
        holds(world.client(2), &session, DAYS).await?;
    }
    world.nodes.remove(&1).context("it runs")?.kill()?;
    for node in 2..=3 {
        holds(world.client(node), &session, DAYS).await?;
    }
    let session = send(world.client(2), day(DAYS + 1)).await?;
    world.start(1)?;
    world.settled(1).await?;
    is_on_disk(world.client(1)).await?;
    for node in 1..=3 {
        holds(world.client(node), &session, DAYS + 1).await?;
    }
    Ok(())
}

/// Waits until a node has groups on disk.
async fn is_on_disk(at: &Client) -> anyhow::Result<()> {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let limits = at.get("/v1/limits").await?;
        let all = limits["limits"].as_array().context("limits")?;
        let disk =
            all.iter().find(|limit| limit["name"] == "serving.views_disk").context("it is on the board")?;
        if disk["used"].as_u64().is_some_and(|used| used > 0) {
            return Ok(());
        }
        ensure!(Instant::now() < patience, "{} has nothing on disk: {disk}", at.base());
        tokio::task::yield_now().await;
    }
}

/// Holds all groups, and those of one meter, against what was sent.
async fn holds(at: &Client, session: &str, days: u32) -> anyhow::Result<()> {
    let sql = "SELECT COUNT(*) AS groups, SUM(kwh) AS kwh, SUM(readings) AS readings FROM half_hours";
    let answer = at.query_within(sql, session, 20_000).await?;
    let row = &answer.rows()[0];
    let sent = METERS as i64 * 48 * i64::from(days);
    let found = (row[0].as_i64(), micro_of(&row[1]), row[2].as_i64());
    ensure!(
        found == (Some(sent), i128::from(sent) * micro("0.125"), Some(sent)),
        "{} has {found:?}",
        at.base()
    );
    let one = at.view(&format!("half_hours?key=M07&session={session}")).await?;
    ensure!(one.rows().len() == 48 * days as usize, "{}: {} of a meter", at.base(), one.rows().len());
    Ok(())
}
