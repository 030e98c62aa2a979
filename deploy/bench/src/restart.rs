//! From the start of a node that was killed to its first exact answer, beside
//! the size of what it holds. It is killed once the batch layer has covered all
//! complete segments, as it has but for seconds after a burst.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_e2e::Node;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::figure::Figure;
use crate::load::{METERS, application, bodies, peak_mb, send, start};

const HALF_HOURS: u32 = 400;

/// Measures; see the head of the file.
pub(crate) fn run() -> anyhow::Result<Vec<Figure>> {
    Runtime::new()?.block_on(async {
        let folder = application()?;
        let node = start(folder.path())?;
        let session = send(&node, bodies(0..HALF_HOURS)).await?;
        let total = "SELECT SUM(readings) AS n FROM feeder_load";
        let before = node.client.query_at(total, &session).await?;
        let covering = Instant::now();
        while !is_covered(&node).await? {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let covered_s = covering.elapsed().as_secs_f64();
        let held = peak_mb(node.pid())?;
        node.kill()?;
        let disk = size_mb(&folder.path().join("data"))?;
        let started = Instant::now();
        let node = start(folder.path())?;
        let ready_s = started.elapsed().as_secs_f64();
        let after = node.client.query_at(total, &session).await?;
        let exact_s = started.elapsed().as_secs_f64();
        ensure!(after.rows() == before.rows(), "the answer changed: {} {}", before.document, after.document);
        let peak = peak_mb(node.pid())?;
        node.stop()?;
        Ok(vec![
            Figure::cost("last reading visible to batch has covered it", covered_s, "s"),
            Figure::cost("kill -9 to ready", ready_s, "s"),
            Figure::cost("kill -9 to the exact answer", exact_s, "s"),
            Figure::rate("readings held", f64::from(METERS) * f64::from(HALF_HOURS), "readings"),
            Figure::cost("data on disk", disk, "MB"),
            Figure::cost("peak memory before", held, "MB"),
            Figure::cost("peak memory after", peak, "MB"),
        ])
    })
}

/// Offsets of one segment; see the application.
const SEGMENT: u64 = 65_536;

/// Says whether every view partition stands on a batch version with all complete segments.
async fn is_covered(node: &Node) -> anyhow::Result<bool> {
    let status = node.client.get("/v1/status").await?;
    let views = status["views"].as_array().context("the views")?;
    let partitions = views.iter().flat_map(|view| view["partitions"].as_array().into_iter().flatten());
    let offsets =
        |of: &Value| of.as_array().into_iter().flatten().filter_map(Value::as_u64).collect::<Vec<_>>();
    Ok(partitions.into_iter().all(|partition| {
        let (applied, cut) = (offsets(&partition["applied"]), offsets(&partition["cut"]));
        applied.len() == cut.len() && applied.iter().zip(&cut).all(|(applied, cut)| applied - cut < SEGMENT)
    }))
}

fn size_mb(folder: &std::path::Path) -> anyhow::Result<f64> {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                bytes += entry.metadata()?.len();
            }
        }
    }
    Ok(bytes as f64 / 1e6)
}
