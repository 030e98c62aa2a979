//! A view as large as its readings: the load of each meter by the half hour, of nearly a year, kept in memory and on disk. What
//! it takes to compute and to load it, in time and memory, and to ask it for a meter's day.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use sanso_e2e::{Answer, Node};
use tokio::runtime::Runtime;

use super::Found;
use crate::batch::{Archive, Size};
use crate::load::{peak_mb, start, usage_point, write_application};
use crate::table::{Table, short};

/// Days of meters that are asked for, one after the other.
const ASKED: u32 = 2_000;

/// What a level of storage costs.
struct Cost {
    computed_s: f64,
    computed_mb: f64,
    loaded_s: f64,
    loaded_mb: f64,
    disk_mb: f64,
    /// Microseconds of each request, ascending.
    asked_us: Vec<u128>,
    answers: Vec<Vec<String>>,
}

/// Measures; see the head of the file.
pub(crate) fn run(quick: bool) -> anyhow::Result<Found> {
    let size = Size { meters: if quick { 200 } else { 2_000 }, days: if quick { 7 } else { 336 } };
    let archive = Runtime::new()?.block_on(Archive::of(size))?;
    let mut table = Table::new([
        "storage",
        "computed in, s",
        "with, MB",
        "started again in, s",
        "with, MB",
        "on disk, MB",
        "a meter's day, p50, us",
        "p99",
    ]);
    let mut costs = Vec::new();
    for storage in ["memory", "disk"] {
        let cost = Runtime::new()?.block_on(cost(archive.folder(), size, storage))?;
        let at = |percent: usize| cost.asked_us[(cost.asked_us.len() - 1) * percent / 100].to_string();
        table.row(vec![
            storage.to_owned(),
            format!("{:.1}", cost.computed_s),
            format!("{:.0}", cost.computed_mb),
            format!("{:.1}", cost.loaded_s),
            format!("{:.0}", cost.loaded_mb),
            format!("{:.0}", cost.disk_mb),
            at(50),
            at(99),
        ]);
        costs.push(cost);
    }
    let [memory, disk] = &costs[..] else { unreachable!("two levels") };
    ensure!(memory.answers == disk.answers, "the answers differ");
    let here = format!(
        "Here a view of {} groups, one for each reading of {} days of {} meters, is computed with {:.0} MB of memory at most where it is \
         kept on disk, and with {:.0} MB where it is in memory, in {:.1} times the time; all {ASKED} answers are equal.",
        short(size.readings()),
        size.days,
        size.meters,
        disk.computed_mb,
        memory.computed_mb,
        disk.computed_s / memory.computed_s,
    );
    Ok(Found {
        here,
        tables: vec![("One node; requests one after the other, over HTTP:".to_owned(), table)],
        plots: Vec::new(),
    })
}

async fn cost(folder: &Path, size: Size, storage: &str) -> anyhow::Result<Cost> {
    let view = format!(
        "CREATE VIEW meter_load WITH (storage = '{storage}', partitions = '64') AS
           SELECT usage_point, TUMBLE(start_utc, INTERVAL '30 minutes') AS window, SUM(value) AS kwh, COUNT(*) AS readings
           FROM readings GROUP BY usage_point, window;"
    );
    write_application(folder, size.meters, &view)?;
    let published = folder.join("data/dataset/readings/views");
    if published.exists() {
        std::fs::remove_dir_all(&published).context("let the view be computed anew")?;
    }
    let (node, computed_s) = started(folder)?;
    let computed_mb = peak_mb(node.pid())?;
    node.stop()?;
    let (node, loaded_s) = started(folder)?;
    let limits = node.client.get("/v1/limits").await?;
    let limits = limits["limits"].as_array().context("limits")?;
    let disk = limits.iter().find(|limit| limit["name"] == "serving.views_disk").context("files of views")?;
    let disk_mb = disk["used"].as_f64().context("bytes")? / 1e6;
    let (mut asked_us, mut answers) = (Vec::new(), Vec::new());
    for number in 0..ASKED {
        // Far apart, so that little of what is asked for was read before.
        let (meter, day) = (number * 7_919 % size.meters, number * 31 % size.days);
        let (month, day) = (1 + day / 28, 1 + day % 28);
        let at = |time: &str| format!("2026-{month:02}-{day:02}T{time}Z");
        let (from, to) = (at("00:00:00"), at("23:59:59"));
        let path = format!("meter_load?key={}&from={from}&to={to}", usage_point(meter));
        let began = Instant::now();
        let answer: Answer = node.client.view(&path).await?;
        asked_us.push(began.elapsed().as_micros());
        ensure!(answer.rows().len() == 48, "{path}: {} half hours", answer.rows().len());
        answers.push(answer.rows().iter().map(ToString::to_string).collect());
    }
    asked_us.sort_unstable();
    let loaded_mb = peak_mb(node.pid())?;
    node.stop()?;
    Ok(Cost { computed_s, computed_mb, loaded_s, loaded_mb, disk_mb, asked_us, answers })
}

fn started(folder: &Path) -> anyhow::Result<(Node, f64)> {
    let began = Instant::now();
    let node = start(folder)?;
    Ok((node, began.elapsed().as_secs_f64()))
}
