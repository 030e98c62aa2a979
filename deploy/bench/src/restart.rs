//! From the start of a node that was killed to its first exact answer, beside
//! the size of what it holds.

use std::time::Instant;

use anyhow::ensure;
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
            Figure::cost("kill -9 to ready", ready_s, "s"),
            Figure::cost("kill -9 to the exact answer", exact_s, "s"),
            Figure::rate("readings held", f64::from(METERS) * f64::from(HALF_HOURS), "readings"),
            Figure::cost("data on disk", disk, "MB"),
            Figure::cost("peak memory before", held, "MB"),
            Figure::cost("peak memory after", peak, "MB"),
        ])
    })
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
