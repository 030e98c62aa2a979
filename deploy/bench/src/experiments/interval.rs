//! The interval and the delay: how long a reading takes to be in an answer, and how many readings a second the
//! views take in, at flush intervals from 5 ms to 1 s. Drives the binary.
//!
//! ```text
//!   load ──20 k readings/s──▶ node ──▶ views        a probe is one reading, timed from sending it
//!   probes, some at a time ──▶ node ◀── asked for it   until an answer has it
//! ```
//!
//! Under a load every worker has something to flush at each interval, so that a probe waits for the next one;
//! without it, what comes after a pause is flushed at once. The throughput is from a full log to both views.

use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_e2e::Node;
use tokio::runtime::Runtime;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task::JoinSet;

use super::Found;
use crate::figure::quantile;
use crate::load::{METERS, application, bodies, reading, send, usage_point};
use crate::plot::{Plot, Scale};
use crate::table::{Table, number};

const INTERVALS_MS: [u32; 8] = [5, 10, 20, 50, 100, 200, 500, 1_000];
/// The load beside the probes: a body of so many readings every so many milliseconds.
const BODY: u32 = 200;
const BODY_MS: u64 = 10;
/// Probes under way at a time.
const LANES: u32 = 4;
/// The probes' half hours begin beyond those of the load.
const PROBE_FROM: u32 = 10_000;
const SHARES: [(f64, &str); 4] = [(0.1, "p10"), (0.5, "p50"), (0.9, "p90"), (0.99, "p99")];

/// Measures; see the head of the file.
pub(crate) fn run(quick: bool) -> anyhow::Result<Found> {
    let intervals: &[u32] = if quick { &[5, 50, 500] } else { &INTERVALS_MS };
    let probes = if quick { 15 } else { 75 };
    let log = Log::filled(if quick { 40 } else { 400 })?;
    let mut table =
        Table::new(["interval, ms", "p10, ms", "p50", "p90", "p99", "load, readings/s", "log to views"]);
    let mut lines: Vec<(String, Vec<Option<f64>>)> =
        SHARES.iter().map(|(_, label)| ((*label).to_owned(), Vec::new())).collect();
    let (mut own, mut rates, mut sentences) = (Vec::new(), Vec::new(), Vec::new());
    for &interval in intervals {
        let runtime = Runtime::new()?;
        let rate = runtime.block_on(log.replayed(interval)).with_context(|| format!("{interval} ms"))?;
        let (delays, load) =
            runtime.block_on(delays(interval, probes)).with_context(|| format!("{interval} ms"))?;
        let found = SHARES.map(|(share, _)| quantile(&delays, share));
        let mut row = vec![interval.to_string()];
        row.extend(found.iter().map(|ms| format!("{ms:.1}")));
        row.extend([number(load), number(rate)]);
        table.row(row);
        lines.iter_mut().zip(found).for_each(|((_, line), ms)| line.push(Some(ms)));
        own.push(Some(f64::from(interval)));
        rates.push(Some(rate));
        sentences.push((interval, found[1], found[3], rate));
    }
    lines.push(("the interval itself".to_owned(), own));
    let settings: Vec<String> = intervals.iter().map(u32::to_string).collect();
    let plot = |title: &str, up: &str, scale, lines| Plot {
        title: title.to_owned(),
        across: "flush interval, ms".to_owned(),
        up: up.to_owned(),
        settings: settings.clone(),
        scale,
        lines,
    };
    let delay = plot(
        "From sending a reading to an answer that has it",
        "milliseconds, beside up to 20,000 readings a second",
        Scale::Logarithmic,
        lines,
    );
    let views = vec![("log to both views".to_owned(), rates)];
    let throughput =
        plot("What the views take in", "readings a second, from a full log", Scale::Linear, views);
    let what = format!("{} probes at each interval:", probes * LANES);
    Ok(Found {
        here: here(&sentences)?,
        tables: vec![(what, table)],
        plots: vec![("delay", delay), ("throughput", throughput)],
    })
}

/// Says it in a sentence, of the shortest interval, the default and the longest.
fn here(found: &[(u32, f64, f64, f64)]) -> anyhow::Result<String> {
    let said = |(interval, p50, p99, rate): &(u32, f64, f64, f64)| {
        format!("{interval} ms: {p50:.0} ms in the median, p99 {p99:.0} ms, {} readings/s", number(*rate))
    };
    let at = |interval| found.iter().find(|found| found.0 == interval).context("the default was measured");
    let (first, last) = (found.first().context("intervals")?, found.last().context("intervals")?);
    Ok(format!(
        "Here a worker flushes at an interval of 50 ms unless told otherwise. From sending a reading to an answer that \
         has it, and from a full log into the views, at {}; at {}; at {}.",
        said(first),
        said(at(50)?),
        said(last)
    ))
}

/// A node's settings with another interval.
fn settings(folder: &Path, interval_ms: u32) -> anyhow::Result<String> {
    let path = folder.join("own.toml");
    std::fs::write(&path, format!("[speed]\nflush_ms = {interval_ms}\n"))?;
    Ok(path.to_str().context("a path in UTF-8")?.to_owned())
}

/// A node's folder with a full log.
struct Log {
    folder: tempfile::TempDir,
    session: String,
    readings: u64,
}

impl Log {
    /// Fills it with half hours of all meters.
    fn filled(half_hours: u32) -> anyhow::Result<Self> {
        let folder = application()?;
        let session = Runtime::new()?.block_on(async {
            let node = crate::load::start(folder.path())?;
            let session = send(&node, bodies(0..half_hours)).await?;
            node.stop()?;
            anyhow::Ok(session)
        })?;
        Ok(Self { folder, session, readings: u64::from(METERS) * u64::from(half_hours) })
    }

    /// Starts a node that has nothing but the log; returns readings a second until both views have all.
    async fn replayed(&self, interval_ms: u32) -> anyhow::Result<f64> {
        let data = self.folder.path().join("data");
        for derived in ["speed", "dataset"] {
            let path = data.join(derived);
            if path.exists() {
                std::fs::remove_dir_all(path).context("empty the node")?;
            }
        }
        let config = settings(self.folder.path(), interval_ms)?;
        let started = Instant::now();
        let node = Node::start(&self.folder.path().join("app.sql"), &data, &["--config", &config])?;
        for view in ["feeder_load", "meter_daily"] {
            let total = format!("SELECT SUM(readings) AS n FROM {view}");
            let answer = node.client.query_at(&total, &self.session).await?;
            ensure!(answer.rows()[0][0] == self.readings, "wrong total of {view}: {}", answer.document);
        }
        let seconds = started.elapsed().as_secs_f64();
        node.stop()?;
        Ok(self.readings as f64 / seconds)
    }
}

/// Returns the sorted delays of probes in milliseconds, and the load that there was beside them.
async fn delays(interval_ms: u32, probes: u32) -> anyhow::Result<(Vec<f64>, f64)> {
    let folder = application()?;
    let config = settings(folder.path(), interval_ms)?;
    let node =
        Node::start(&folder.path().join("app.sql"), &folder.path().join("data"), &["--config", &config])?;
    let (stop, stopped) = oneshot::channel();
    let probing = async {
        let mut lanes = JoinSet::new();
        for lane in 0..LANES {
            lanes.spawn(lane_of_probes(node.client.clone(), lane, probes, interval_ms));
        }
        let mut all = Vec::new();
        while let Some(lane) = lanes.join_next().await {
            all.extend(lane.context("a lane")??);
        }
        drop(stop);
        anyhow::Ok(all)
    };
    let (load, delays) = tokio::join!(load(&node, stopped), probing);
    let (load, mut delays) = (load?, delays?);
    node.stop()?;
    delays.sort_by(f64::total_cmp);
    Ok((delays, load))
}

/// Sends readings at a steady rate until nobody holds the other end; returns how many a second it came to.
async fn load(node: &Node, mut stopped: oneshot::Receiver<Infallible>) -> anyhow::Result<f64> {
    let (began, mut bodies) = (Instant::now(), 0_u32);
    while matches!(stopped.try_recv(), Err(TryRecvError::Empty)) {
        let numbers = bodies * BODY..(bodies + 1) * BODY;
        let lines = numbers.map(|number| reading(number % METERS, number / METERS % PROBE_FROM) + "\n");
        send(node, std::iter::once(lines.collect())).await?;
        bodies += 1;
        let due = Duration::from_millis(BODY_MS) * bodies;
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
    }
    Ok(f64::from(bodies * BODY) / began.elapsed().as_secs_f64())
}

async fn lane_of_probes(
    client: sanso_e2e::Client,
    lane: u32,
    probes: u32,
    interval_ms: u32,
) -> anyhow::Result<Vec<f64>> {
    let mut delays = Vec::new();
    for probe in 0..probes {
        let number = probe * LANES + lane;
        // Spread over the interval: multiples of the golden section.
        let part = f64::from(number) * 0.618_034 % 1.0;
        tokio::time::sleep(Duration::from_secs_f64(part * f64::from(interval_ms + 20) / 1e3)).await;
        let meter = number % METERS;
        let sent = Instant::now();
        let (status, answer) = client.ingest("readings", reading(meter, PROBE_FROM + number)).await?;
        ensure!(status == 200, "not acknowledged: {answer}");
        let session = answer["session"].as_str().context("a token")?;
        let path = format!("meter_daily?key={}&session={session}", usage_point(meter));
        let found = client.view(&path).await?;
        delays.push(sent.elapsed().as_secs_f64() * 1e3);
        ensure!(!found.rows().is_empty(), "the reading is not in the answer: {}", found.document);
    }
    Ok(delays)
}
