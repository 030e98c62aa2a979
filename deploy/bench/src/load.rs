//! Readings to send, the node to send them to, and what it costs in memory.

use std::fmt::Write;
use std::ops::Range;
use std::path::Path;

use anyhow::Context;
use sanso_e2e::Node;
use tempfile::TempDir;

/// One source, and the network of its meters.
const SOURCE: &str = "
CREATE SOURCE readings (usage_point TEXT, channel TEXT, start_utc TIMESTAMP, duration_s BIGINT,
                        value DECIMAL(18,6), quality TEXT, source_version BIGINT)
  WITH (topic = 'readings', key = 'usage_point', identity = 'usage_point, channel, start_utc',
        version = 'source_version', partitions = '4');
CREATE TABLE network (usage_point TEXT, transformer TEXT, feeder TEXT, substation TEXT) WITH (path = 'network.csv');
";

/// What a meter has used in a day, and the load of a feeder.
const VIEWS: &str = "
CREATE VIEW meter_daily AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 day') AS day, SUM(value) AS kwh, COUNT(*) AS readings
  FROM readings GROUP BY usage_point, day;
CREATE VIEW feeder_load AS
  SELECT n.feeder, TUMBLE(r.start_utc, INTERVAL '30 minutes') AS window, SUM(r.value) AS kwh, COUNT(*) AS readings
  FROM readings r JOIN network n ON r.usage_point = n.usage_point GROUP BY n.feeder, window;
";

/// The meters of the network.
pub(crate) const METERS: u32 = 5_000;
/// The log partitions of the source.
pub(crate) const PARTITIONS: u32 = 4;
/// The lines of a body.
const LINES: u32 = 5_000;

/// Writes an application of one source and two views into a fresh folder.
pub(crate) fn application() -> anyhow::Result<TempDir> {
    let folder = tempfile::tempdir()?;
    write_application(folder.path(), METERS, VIEWS)?;
    Ok(folder)
}

/// Writes an application of so many meters with these views.
pub(crate) fn write_application(folder: &Path, meters: u32, views: &str) -> anyhow::Result<()> {
    let mut network = String::from("usage_point,transformer,feeder,substation\n");
    for meter in 0..meters {
        writeln!(network, "{},T{},F{},S{}", usage_point(meter), meter / 50, meter / 1_000, meter / 2_500)?;
    }
    std::fs::write(folder.join("network.csv"), network)?;
    std::fs::write(folder.join("app.sql"), format!("{SOURCE}{views}"))?;
    Ok(())
}

/// Starts a node on the folder's application and data.
pub(crate) fn start(folder: &Path) -> anyhow::Result<Node> {
    Node::start(&folder.join("app.sql"), &folder.join("data"), &[])
}

/// Returns a meter's name.
pub(crate) fn usage_point(meter: u32) -> String {
    format!("NMI{meter:07}")
}

/// Returns one half hour of one meter as a line of JSON, without the line's end.
pub(crate) fn reading(meter: u32, half_hour: u32) -> String {
    let (day, slot) = (half_hour / 48, half_hour % 48);
    // A value of up to four kilowatt-hours that differs from its neighbours.
    let watt_hours = (meter.wrapping_mul(2_654_435_761) ^ half_hour.wrapping_mul(40_503)) % 4_000;
    format!(
        r#"{{"usage_point":"{}","channel":"E1","start_utc":"2026-{:02}-{:02}T{:02}:{:02}:00Z","duration_s":1800,"value":{}.{:03},"quality":"actual","source_version":1}}"#,
        usage_point(meter),
        1 + day / 28,
        1 + day % 28,
        slot / 2,
        slot % 2 * 30,
        watt_hours / 1_000,
        watt_hours % 1_000,
    )
}

/// Returns a range of half hours of all meters, in bodies of at most 5,000 lines.
pub(crate) fn bodies(half_hours: Range<u32>) -> impl Iterator<Item = String> {
    bodies_of(METERS, half_hours)
}

/// Returns a range of half hours of so many meters, in such bodies.
pub(crate) fn bodies_of(meters: u32, half_hours: Range<u32>) -> impl Iterator<Item = String> {
    half_hours.flat_map(move |half_hour| {
        (0..meters).step_by(LINES as usize).map(move |first| {
            let lines = (first..meters.min(first + LINES)).map(|meter| reading(meter, half_hour) + "\n");
            lines.collect()
        })
    })
}

/// Sends bodies one after the other; returns the token of all that was acknowledged.
pub(crate) async fn send(node: &Node, bodies: impl Iterator<Item = String>) -> anyhow::Result<String> {
    let mut session = String::new();
    for body in bodies {
        let lines = body.lines().count() as u64;
        let (status, answer) = node.client.ingest("readings", body).await?;
        anyhow::ensure!(status == 200 && answer["acknowledged"] == lines, "not all acknowledged: {answer}");
        answer["session"].as_str().context("a token")?.clone_into(&mut session);
    }
    Ok(session)
}

/// Returns the most memory that a process has held, in megabytes.
pub(crate) fn peak_mb(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read the node's memory")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the node's peak memory")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().context("a number of kilobytes")?;
    Ok(kilobytes / 1_000.0)
}
