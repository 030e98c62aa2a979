//! From the acknowledgement of a reading to the answer that holds it, one
//! reading at a time: on an idle node, and on one that takes in half of what it
//! can.

use std::time::{Duration, Instant};

use anyhow::ensure;
use sanso_e2e::Node;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::figure::{Figure, quantile};
use crate::load::{METERS, application, bodies, peak_mb, reading, send, start};

const PROBES: u32 = 300;
/// Half hours sent at full speed, to learn what half is.
const RAMP: u32 = 40;
/// The probes' half hours begin beyond those of the load.
const PROBE_FROM: u32 = 10_000;

/// Measures; see the head of the file.
pub(crate) fn run() -> anyhow::Result<Vec<Figure>> {
    Runtime::new()?.block_on(async {
        let folder = application()?;
        let node = start(folder.path())?;
        let idle = probes(&node, 0).await?;
        let started = Instant::now();
        send(&node, bodies(0..RAMP)).await?;
        let pause = started.elapsed() / RAMP;
        let (stop, stopped) = oneshot::channel();
        let background = async {
            let mut stopped = stopped;
            let mut next = RAMP;
            let began = Instant::now();
            // One body every twice the time that one takes at full speed.
            while stopped.try_recv().is_err() {
                send(&node, bodies(next..next + 1)).await?;
                next += 1;
                let due = pause * 2 * (next - RAMP);
                tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
            }
            anyhow::Ok(f64::from((next - RAMP) * METERS) / began.elapsed().as_secs_f64())
        };
        let probing = async {
            let half = probes(&node, PROBES).await;
            // The load may have failed and ended already.
            let _ = stop.send(());
            half
        };
        let (rate, half) = tokio::join!(background, probing);
        let (rate, half) = (rate?, half?);
        let peak = peak_mb(node.pid())?;
        node.stop()?;
        let mut figures = vec![Figure::rate("load beside the second", rate, "readings/s")];
        for (name, times) in [("idle", idle), ("half load", half)] {
            for (share, label) in [(0.5, "p50"), (0.99, "p99"), (1.0, "worst")] {
                figures.push(Figure::cost(format!("{name}, {label}"), quantile(&times, share), "ms"));
            }
        }
        figures.push(Figure::cost("peak memory", peak, "MB"));
        Ok(figures)
    })
}

/// Sends readings one by one; returns the sorted times from acknowledged to answered, in milliseconds.
async fn probes(node: &Node, from: u32) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::with_capacity(PROBES as usize);
    for probe in from..from + PROBES {
        let half_hour = (PROBE_FROM + probe) % 16_000;
        let line = reading(probe % METERS, half_hour % (12 * 28 * 48));
        let session = send(node, std::iter::once(line)).await?;
        let acknowledged = Instant::now();
        let path = format!("meter_daily?key=NMI{:07}&session={session}", probe % METERS);
        let answer = node.client.view(&path).await?;
        times.push(acknowledged.elapsed().as_secs_f64() * 1e3);
        ensure!(!answer.rows().is_empty(), "the reading is not in the answer: {}", answer.document);
        tokio::time::sleep(Duration::from_millis(u64::from(probe % 17))).await;
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}
