//! Readings over HTTP into the log, and from the log into the views.
//!
//! The second starts a node on a log that is full and everything else empty, so
//! that what is measured is reading, judging, lifting and merging. Beside it a
//! plain loop does the same sums from the same lines: parse JSON, add up by meter
//! and day and by feeder and half hour; no log, no versions, no index, nothing
//! kept.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::{Context, ensure};
use sanso_broker::{Cluster, available};
use sanso_e2e::Node;
use tokio::runtime::Runtime;

use crate::figure::Figure;
use crate::load::{METERS, application, bodies, peak_mb, send};

const HALF_HOURS: u32 = 200;

/// Measures with the embedded log; see the head of the file.
pub(crate) fn embedded() -> anyhow::Result<Vec<Figure>> {
    run(&[])
}

/// Measures with a topic of one Kafka broker, whose processor time is not ours but comes out of the same cores.
pub(crate) fn kafka() -> anyhow::Result<Vec<Figure>> {
    ensure!(available("the section kafka"), "no Apache Kafka");
    let cluster = Cluster::start(1)?;
    run(&["--log", &format!("kafka://{}", cluster.servers())])
}

fn run(log: &[&str]) -> anyhow::Result<Vec<Figure>> {
    let readings = f64::from(METERS) * f64::from(HALF_HOURS);
    let lines: Vec<String> = bodies(0..HALF_HOURS).collect();
    let loop_s = plain_loop(&lines)?;
    Runtime::new()?.block_on(async {
        let folder = application()?;
        let (app, data) = (folder.path().join("app.sql"), folder.path().join("data"));
        let node = Node::start(&app, &data, log)?;
        let started = Instant::now();
        let session = send(&node, lines.into_iter()).await?;
        let acknowledged_s = started.elapsed().as_secs_f64();
        let total = "SELECT SUM(readings) AS n FROM feeder_load";
        node.client.query_at(total, &session).await?;
        let visible_s = started.elapsed().as_secs_f64();
        let peak = peak_mb(node.pid())?;
        node.stop()?;
        for derived in ["speed", "dataset"] {
            std::fs::remove_dir_all(data.join(derived)).context("empty the node")?;
        }
        let started = Instant::now();
        let node = Node::start(&app, &data, log)?;
        let answer = node.client.query_at(total, &session).await?;
        let log_to_view_s = started.elapsed().as_secs_f64();
        ensure!(answer.rows()[0][0] == readings as u64, "wrong total: {}", answer.document);
        let replay_peak = peak_mb(node.pid())?;
        node.stop()?;
        Ok(vec![
            Figure::rate("HTTP to acknowledged", readings / acknowledged_s, "readings/s"),
            Figure::rate("HTTP to visible in both views", readings / visible_s, "readings/s"),
            Figure::rate("log to both views", readings / log_to_view_s, "readings/s")
                .against("a plain loop", readings / loop_s),
            Figure::cost("peak memory while ingesting", peak, "MB"),
            Figure::cost("peak memory from the log", replay_peak, "MB"),
        ])
    })
}

/// Adds up the same two views from lines of JSON; returns the seconds it took.
fn plain_loop(bodies: &[String]) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut meters: HashMap<(String, String), (i64, u64)> = HashMap::new();
    let mut feeders: HashMap<(u32, String), (i64, u64)> = HashMap::new();
    for line in bodies.iter().flat_map(|body| body.lines()) {
        let reading: serde_json::Value = serde_json::from_str(line)?;
        let text = |name: &str| reading[name].as_str().unwrap_or_default();
        let (meter, start) = (text("usage_point"), text("start_utc"));
        let value = (reading["value"].as_f64().context("a value")? * 1e6).round() as i64;
        let feeder = meter.trim_start_matches("NMI").parse::<u32>()? / 1_000;
        let daily = meters.entry((meter.to_owned(), start[..10].to_owned())).or_default();
        *daily = (daily.0 + value, daily.1 + 1);
        let load = feeders.entry((feeder, start.to_owned())).or_default();
        *load = (load.0 + value, load.1 + 1);
    }
    ensure!(meters.values().map(|(_, n)| n).sum::<u64>() == feeders.values().map(|(_, n)| n).sum::<u64>());
    Ok(started.elapsed().as_secs_f64())
}
