//! Closed windows go to a topic, and views are made of them, while nodes are killed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_broker::available;
use sanso_e2e::{micro, micro_of};
use serde_json::Value;

use crate::faults::{Fault, ROUNDS};
use crate::world::{APP, METERS, World, day, send};

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
