//! The batch layer, cold: new views over all that is archived, against others over the same Parquet files.
//!
//! Readings are archived first. Then the node starts with three views, loads of transformers, feeders and
//! substations by the half hour. What is measured is from its start to the exact answer of each, and the
//! feeders' daily peaks. A peer reads the newest-version table's files, joins them with the network and groups
//! them to the same rows; starting it is not measured.
//!
//! Then, warm: one more day is put into the log while the batch layer rests. What is measured is from the next start
//! of the node until that day is archived and in all three views; a peer reads all days again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_e2e::Node;
use sanso_log::partition_for_key;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::figure::Figure;
use crate::load::{
    METERS, PARTITIONS, bodies_of, peak_mb, reading, send, start, usage_point, write_application,
};
use crate::peers::engine::{DUCKDB, How};

const VIEWS: &str = "
CREATE VIEW transformer_load AS
  SELECT n.transformer, TUMBLE(r.start_utc, INTERVAL '30 minutes') AS window, SUM(r.value) AS kwh
  FROM readings r JOIN network n ON r.usage_point = n.usage_point GROUP BY n.transformer, window;
CREATE VIEW feeder_half_hour AS
  SELECT n.feeder, TUMBLE(r.start_utc, INTERVAL '30 minutes') AS window, SUM(r.value) AS kwh
  FROM readings r JOIN network n ON r.usage_point = n.usage_point GROUP BY n.feeder, window;
CREATE VIEW substation_load AS
  SELECT n.substation, TUMBLE(r.start_utc, INTERVAL '30 minutes') AS window, SUM(r.value) AS kwh
  FROM readings r JOIN network n ON r.usage_point = n.usage_point GROUP BY n.substation, window;
";

/// How long archiving what was sent may take.
const ARCHIVED_WITHIN: Duration = Duration::from_secs(1_200);

/// Number of rows and total of each view, then number and sum of the feeders' daily peaks.
const ANSWERS: [&str; 4] = [
    "SELECT COUNT(*) AS n, SUM(kwh) AS s FROM transformer_load",
    "SELECT COUNT(*) AS n, SUM(kwh) AS s FROM feeder_half_hour",
    "SELECT COUNT(*) AS n, SUM(kwh) AS s FROM substation_load",
    "SELECT COUNT(*) AS n, SUM(peak) AS s FROM (SELECT feeder, date_trunc('day', \"window\") AS d, MAX(kwh) AS peak
     FROM feeder_half_hour GROUP BY 1, 2)",
];

/// Number of rows and total of each level, then of the feeders' daily peaks.
pub(crate) type Answers = Vec<Vec<String>>;

/// How many readings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) meters: u32,
    pub(crate) days: u32,
}

impl Size {
    /// Half-hourly ones.
    pub(crate) fn readings(self) -> f64 {
        f64::from(self.meters) * f64::from(self.days) * 48.0
    }
}

/// Readings, archived, and an application whose views nobody has computed.
pub(crate) struct Archive {
    folder: TempDir,
    session: String,
    /// The most memory of the node that took the readings in, in MB.
    pub(crate) intake_mb: f64,
}

impl Archive {
    /// Sends the readings to a node and waits until its log is archived.
    pub(crate) async fn of(size: Size) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        write_application(folder.path(), size.meters, "")?;
        let node = start(folder.path())?;
        send(&node, bodies_of(size.meters, 0..size.days * 48)).await?;
        let session = fill(&node, size).await?;
        archived(&node).await?;
        let intake_mb = peak_mb(node.pid())?;
        node.stop()?;
        write_application(folder.path(), size.meters, VIEWS)?;
        Ok(Self { folder, session, intake_mb })
    }

    /// Starts a node and asks it; returns the answers, the seconds from its start on and its peak memory in MB.
    pub(crate) async fn ours(&self) -> anyhow::Result<(Answers, f64, f64)> {
        let started = Instant::now();
        let node = start(self.folder.path())?;
        let answers = self.answers(&node).await?;
        let seconds = started.elapsed().as_secs_f64();
        let peak = peak_mb(node.pid())?;
        node.stop()?;
        Ok((answers, seconds, peak))
    }

    /// Puts one more day into the log, and starts a node that makes it part of everything; returns the answers, and the
    /// seconds from its start until the day is archived and published.
    pub(crate) async fn one_more_day(&mut self, before: Size) -> anyhow::Result<(Answers, f64)> {
        let resting = self.folder.path().join("resting.toml");
        std::fs::write(&resting, "[batch]\ninterval_ms = 86400000\n")?;
        let resting = ["--config", resting.to_str().context("a path of text")?];
        let (app, data) = (self.folder.path().join("app.sql"), self.folder.path().join("data"));
        let node = Node::start(&app, &data, &resting)?;
        let day = before.days * 48..(before.days + 1) * 48;
        send(&node, bodies_of(before.meters, day)).await?;
        self.session = fill(&node, Size { days: 1, ..before }).await?;
        let is_archived = is_archived(&node).await?;
        node.stop()?;
        ensure!(!is_archived, "the batch layer did not rest");
        let started = Instant::now();
        let node = start(self.folder.path())?;
        archived(&node).await?;
        let seconds = started.elapsed().as_secs_f64();
        let answers = self.answers(&node).await?;
        node.stop()?;
        Ok((answers, seconds))
    }

    async fn answers(&self, node: &Node) -> anyhow::Result<Answers> {
        let mut answers = Vec::new();
        for sql in ANSWERS {
            let answer = node.client.query_at(sql, &self.session).await?;
            answers.push(answer.rows()[0].as_array().context("a row")?.iter().map(text).collect::<Vec<_>>());
        }
        Ok(answers)
    }

    /// The folder of the application and its data.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The source's folder in the master dataset.
    pub(crate) fn readings(&self) -> PathBuf {
        self.folder.path().join("data/dataset/readings")
    }

    /// The network's table.
    pub(crate) fn network(&self) -> PathBuf {
        self.folder.path().join("network.csv")
    }
}

/// Measures; see the head of the file.
pub(crate) fn run() -> anyhow::Result<Vec<Figure>> {
    Runtime::new()?.block_on(async {
        let size = Size { meters: METERS, days: 20 };
        let mut archive = Archive::of(size).await?;
        let (answers, seconds, peak) = archive.ours().await?;
        let theirs = DUCKDB.run(&archive, How::Each)?;
        theirs.compared(&answers)?;
        let (answers, day_s) = archive.one_more_day(size).await?;
        let all_again = DUCKDB.run(&archive, How::Each)?;
        all_again.compared(&answers)?;
        Ok(vec![
            Figure::rate("three new views over what is archived", size.readings() / seconds, "readings/s")
                .against("DuckDB", size.readings() / theirs.first_s),
            Figure::cost("start to exact answers", seconds, "s").against("DuckDB", theirs.first_s),
            Figure::cost("peak memory", peak, "MB").against("DuckDB", theirs.peak_mb),
            Figure::cost("one more day, start to published", day_s, "s")
                .against("DuckDB, all days", all_again.first_s),
        ])
    })
}

/// Fills the last segment of each log partition with duplicates, which count for nothing, so that all can be
/// archived. Returns the token of all.
async fn fill(node: &Node, size: Size) -> anyhow::Result<String> {
    let source = node.client.get("/v1/sources/readings").await?;
    let segment = source["segment_size"].as_u64().context("a segment's size")?;
    let mut lines = Vec::new();
    let mut last = String::new();
    for partition in 0..PARTITIONS {
        let here = |meter: &u32| partition_for_key(usage_point(*meter).as_bytes(), PARTITIONS) == partition;
        let meters: Vec<u32> = (0..size.meters).filter(here).collect();
        let meter = *meters.first().with_context(|| format!("no meter is in log partition {partition}"))?;
        let held = meters.len() as u64 * u64::from(size.days) * 48;
        // At least one, so that the last body names the end of every log partition.
        lines.extend(std::iter::repeat_n(meter, (segment - held % segment - 1) as usize));
        last += &(reading(meter, 0) + "\n");
    }
    let bodies = lines
        .chunks(5_000)
        .map(|meters| meters.iter().map(|meter| reading(*meter, 0) + "\n").collect::<String>());
    send(node, bodies.chain([last])).await
}

/// Says whether the whole log is archived.
async fn is_archived(node: &Node) -> anyhow::Result<bool> {
    let source = node.client.get("/v1/sources/readings").await?;
    let partitions = source["partitions"].as_array().context("partitions")?;
    let ends: Vec<&Value> = partitions.iter().map(|partition| &partition["end"]).collect();
    let cut = source["batch"]["cut"].as_array();
    Ok(ends.iter().all(|end| end.is_u64()) && cut.is_some_and(|cut| ends.iter().copied().eq(cut)))
}

/// Waits until the whole log is archived.
async fn archived(node: &Node) -> anyhow::Result<()> {
    let started = Instant::now();
    while !is_archived(node).await? {
        ensure!(started.elapsed() < ARCHIVED_WITHIN, "not archived after {ARCHIVED_WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// A number as text, without zeros that say nothing.
pub(crate) fn text(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}
