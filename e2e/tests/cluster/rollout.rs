//! A view changes on one node after the other, while readings come, others read, and a node is killed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_broker::available;
use sanso_e2e::{Client, micro, micro_of};
use serde_json::Value;

use crate::world::{APP, METERS, World, day, send};

const TOTALS: &str =
    "SELECT day, SUM(kwh) AS kwh, SUM(readings) AS readings FROM meter_daily GROUP BY day ORDER BY day";

/// The application whose view has twice the kilowatt-hours.
fn doubled() -> String {
    APP.replace("SUM(value) AS kwh", "SUM(value * 2) AS kwh")
}

/// What an answer says: how many readings there are, and whether their kilowatt-hours are doubled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Total {
    readings: i64,
    doubled: bool,
}

/// Asks for all days. An error, or kilowatt-hours that are neither version's, are errors.
async fn total(client: &Client, session: &str) -> anyhow::Result<(Total, String)> {
    let answer = client.query_within(TOTALS, session, 20_000).await?;
    let days = answer.rows().iter().map(|row| Some((micro_of(&row[1]), row[2].as_i64()?)));
    let days: Vec<(i128, i64)> = days.collect::<Option<_>>().context("a count")?;
    let is = |times: i128| {
        days.iter().all(|(kwh, readings)| *kwh == i128::from(*readings) * micro("0.125") * times)
    };
    ensure!(is(1) || is(2), "neither version: {days:?}");
    let session = answer.document["freshness"]["session"].as_str().context("a token")?.to_owned();
    let readings = days.iter().map(|(_, readings)| readings).sum();
    Ok((Total { readings, doubled: !days.is_empty() && is(2) }, session))
}

/// A node that is read at, the session, and what the last answer said.
type Reader = (u16, Client, String, Total);

/// Clients that read without a pause, each at one node and within its own session.
struct Readers {
    at: Arc<Mutex<Vec<Reader>>>,
    reading: tokio::task::JoinHandle<anyhow::Result<()>>,
}

fn of(readers: &Mutex<Vec<Reader>>) -> MutexGuard<'_, Vec<Reader>> {
    readers.lock().expect("no panic while it is held")
}

impl Readers {
    fn start() -> Self {
        let at: Arc<Mutex<Vec<Reader>>> = Arc::default();
        let shared = Arc::clone(&at);
        let reading = tokio::spawn(async move {
            loop {
                let all = of(&shared).clone();
                for (node, client, session, before) in all {
                    let found = total(&client, &session).await;
                    let mut readers = of(&shared);
                    // One whose node was to be killed meanwhile is not asked any longer.
                    let Some(reader) = readers.iter_mut().find(|reader| reader.0 == node) else { continue };
                    let (now, session) = found.with_context(|| format!("read at node {node}"))?;
                    let is_forth = now.readings >= before.readings && now.doubled >= before.doubled;
                    ensure!(is_forth, "node {node} went from {before:?} to {now:?}");
                    (reader.2, reader.3) = (session, now);
                }
                tokio::task::yield_now().await;
            }
        });
        Self { at, reading }
    }

    fn read(&self, world: &World, node: u16, doubled: bool) {
        let before = Total { readings: 0, doubled };
        of(&self.at).push((node, world.client(node).clone(), String::new(), before));
    }

    fn leave(&self, node: u16) {
        of(&self.at).retain(|reader| reader.0 != node);
    }

    /// Fails as the readers have; else ends them.
    async fn end(self) -> anyhow::Result<()> {
        self.reading.abort();
        match self.reading.await {
            Ok(read) => read,
            Err(error) if error.is_cancelled() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Sends days, and holds what nodes answer against them.
struct Feeding {
    days: u32,
    session: String,
}

impl Feeding {
    async fn day(&mut self, at: &Client) -> anyhow::Result<()> {
        self.days += 1;
        self.session = send(at, day(self.days)).await?;
        Ok(())
    }

    /// What was acknowledged is in every answer, in the one version or the other.
    async fn check(&self, world: &World, doubled: &[(u16, bool)]) -> anyhow::Result<()> {
        for (node, doubled) in doubled {
            let (found, _) = total(world.client(*node), &self.session).await?;
            let expected = Total { readings: i64::from(self.days) * METERS as i64 * 48, doubled: *doubled };
            ensure!(found == expected, "node {node}: {found:?}, not {expected:?}");
        }
        Ok(())
    }

    /// Sends on until a node answers by the new version.
    async fn until_doubled(&mut self, world: &World, node: u16) -> anyhow::Result<()> {
        // It computes anew all that was sent, and more comes meanwhile.
        let patience = Instant::now() + Duration::from_secs(300);
        while !total(world.client(node), "").await?.0.doubled {
            ensure!(Instant::now() < patience, "node {node} stays with its old version");
            if self.days < 80 {
                self.day(world.client(node)).await?;
            }
        }
        Ok(())
    }
}

/// Waits until a node says of the cluster what is wanted.
async fn until(at: &Client, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let cluster = at.get("/v1/cluster").await?;
        if wanted(&cluster) {
            return Ok(());
        }
        ensure!(Instant::now() < patience, "{} {}", cluster["applications"], cluster["views"]);
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_changes_on_one_node_after_the_other_and_every_answer_is_one_versions() -> anyhow::Result<()> {
    if !available("a_view_changes_on_one_node_after_the_other_and_every_answer_is_one_versions") {
        return Ok(());
    }
    let mut world = World::new(3)?;
    (1..=3).try_for_each(|node| world.start(node))?;
    let readers = Readers::start();
    let mut outcome = change_one_after_the_other(&mut world, &readers).await;
    let read = readers.end().await;
    if let Err(error) = read {
        outcome = Err(error);
    }
    outcome.map_err(|error| anyhow::anyhow!("{error:?}\n{}", world.logs()))
}

async fn change_one_after_the_other(world: &mut World, readers: &Readers) -> anyhow::Result<()> {
    for node in 1..=3 {
        world.settled(node).await?;
    }
    let mut feeding = Feeding { days: 0, session: String::new() };
    feeding.day(world.client(1)).await?;
    (1..=3).for_each(|node| readers.read(world, node, false));
    feeding.check(world, &[(1, false), (2, false), (3, false)]).await?;

    // One node has the new file: its answers change, and nobody else's.
    world.declare(1, &doubled())?;
    feeding.until_doubled(world, 1).await?;
    feeding.day(world.client(2)).await?;
    feeding.check(world, &[(1, true), (2, false), (3, false)]).await?;

    // A node with the old file is killed, and the next one has the new file meanwhile.
    readers.leave(3);
    world.nodes.remove(&3).context("it runs")?.kill()?;
    world.declare(2, &doubled())?;
    feeding.day(world.client(1)).await?;
    feeding.check(world, &[(1, true)]).await?;
    feeding.until_doubled(world, 2).await?;
    feeding.day(world.client(2)).await?;
    feeding.check(world, &[(1, true), (2, true)]).await?;

    // It comes back with the old file, and answers by it.
    world.start(3)?;
    world.settled(3).await?;
    feeding.check(world, &[(1, true), (2, true), (3, false)]).await?;
    readers.read(world, 3, false);

    // A broken file harms nobody, and is told of everywhere.
    world.declare(3, "CREATE VIEW broken AS")?;
    until(world.client(1), |cluster| cluster["applications"]["3"]["refuses"].is_string()).await?;
    feeding.day(world.client(3)).await?;
    feeding.check(world, &[(1, true), (2, true), (3, false)]).await?;

    // The last node follows, and the old version is gone everywhere.
    world.declare(3, &doubled())?;
    feeding.until_doubled(world, 3).await?;
    let versions = |cluster: &Value| {
        let views = cluster["views"].as_array().map(Vec::as_slice).unwrap_or_default();
        views
            .iter()
            .map(|view| (view["version"].to_string(), view["held_by"].to_string()))
            .collect::<BTreeSet<_>>()
    };
    for node in 1..=3 {
        until(world.client(node), |cluster| versions(cluster).len() == 1).await?;
    }
    feeding.day(world.client(1)).await?;
    feeding.check(world, &[(1, true), (2, true), (3, true)]).await
}
