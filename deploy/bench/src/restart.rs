//! From the start of a node that was killed to its first exact answer, beside
//! the size of what it holds: a view of a group for every reading among others.
//!
//! Killed twice: right after ingestion, when the batch layer is behind and the
//! log has to be replayed, and once the batch layer has covered every whole
//! segment, as in a node that keeps up.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_e2e::{Answer, Node};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::figure::Figure;
use crate::load::{METERS, application, bodies, peak_mb, send, start};

const HALF_HOURS: u32 = 600;
/// Every reading is a group of its own.
const VIEW: &str = "
CREATE VIEW meter_load AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '30 minutes') AS window, SUM(value) AS kwh, COUNT(*) AS readings
  FROM readings GROUP BY usage_point, window;
";
/// All of one view, and all of one meter: a query over every group would take more memory than one may.
const TOTAL: &str = "SELECT SUM(readings) AS n FROM feeder_load
                     UNION ALL SELECT SUM(readings) FROM meter_load WHERE usage_point = 'NMI0000042' ORDER BY n";

/// Measures; see the head of the file.
pub(crate) fn run() -> anyhow::Result<Vec<Figure>> {
    Runtime::new()?.block_on(async {
        let folder = application()?;
        let app = folder.path().join("app.sql");
        let mut sql = std::fs::read_to_string(&app)?;
        sql.write_str(VIEW)?;
        std::fs::write(&app, sql)?;
        let node = start(folder.path())?;
        let session = send(&node, bodies(0..HALF_HOURS)).await?;
        let before = node.client.query_at(TOTAL, &session).await?;
        let readings = f64::from(METERS) * f64::from(HALF_HOURS);
        let held = peak_mb(node.pid())?;
        let (node, behind) = killed(node, &folder, &session, &before).await?;
        caught_up(&node).await?;
        let disk = size_mb(&folder.path().join("data"))?;
        let (node, covered) = killed(node, &folder, &session, &before).await?;
        let peak = peak_mb(node.pid())?;
        node.stop()?;
        Ok(vec![
            Figure::cost("batch behind: kill -9 to ready", behind.0, "s"),
            Figure::cost("batch behind: kill -9 to the exact answer", behind.1, "s"),
            Figure::cost("batch caught up: kill -9 to ready", covered.0, "s"),
            Figure::cost("batch caught up: kill -9 to the exact answer", covered.1, "s"),
            Figure::rate("readings held", readings, "readings"),
            Figure::cost("data on disk", disk, "MB"),
            Figure::cost("peak memory before", held, "MB"),
            Figure::cost("peak memory after", peak, "MB"),
        ])
    })
}

/// Kills a node and starts it again; returns the seconds until it is ready, and until it answers as before.
async fn killed(
    node: Node,
    folder: &TempDir,
    session: &str,
    before: &Answer,
) -> anyhow::Result<(Node, (f64, f64))> {
    node.kill()?;
    let started = Instant::now();
    let node = start(folder.path())?;
    let ready_s = started.elapsed().as_secs_f64();
    let after = node.client.query_at(TOTAL, session).await?;
    let exact_s = started.elapsed().as_secs_f64();
    ensure!(after.rows() == before.rows(), "the answer changed: {} {}", before.document, after.document);
    Ok((node, (ready_s, exact_s)))
}

/// Waits until batch covers every whole segment.
async fn caught_up(node: &Node) -> anyhow::Result<()> {
    loop {
        let document = node.client.get("/v1/sources").await?;
        let source = &document["sources"][0];
        let size = source["segment_size"].as_u64().context("the size of a segment")?;
        let partitions = source["partitions"].as_array().context("the log partitions")?;
        // A node that has just started has not published anything yet.
        let cut = source["batch"]["cut"].as_array().map_or(&[][..], Vec::as_slice);
        let covered = |(cut, log): (&Value, &Value)| Some(log["end"].as_u64()? - cut.as_u64()? < size);
        if cut.len() == partitions.len() && cut.iter().zip(partitions).all(|pair| covered(pair) == Some(true))
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
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
