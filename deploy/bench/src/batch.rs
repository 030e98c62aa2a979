//! The batch layer, cold: new views over all that is archived, against DuckDB
//! over the same Parquet files.
//!
//! Readings are archived first. Then the node starts with three more views, loads
//! of transformers, feeders and substations by the half hour. What is measured is
//! from its start to the exact answer of each, and the feeders' daily peaks. DuckDB
//! reads the newest-version table's files, joins them with the network and groups
//! them to the same rows; starting it is not measured.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sanso_e2e::Node;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::figure::Figure;
use crate::load::{METERS, application_on, bodies, peak_mb, reading, send, start};

const HALF_HOURS: u32 = 960;

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

/// Number of rows and total of each view, then number and sum of the feeders' daily peaks.
const ANSWERS: [&str; 4] = [
    "SELECT COUNT(*) AS n, SUM(kwh) AS s FROM transformer_load",
    "SELECT COUNT(*) AS n, SUM(kwh) AS s FROM feeder_half_hour",
    "SELECT COUNT(*) AS n, SUM(kwh) AS s FROM substation_load",
    "SELECT COUNT(*) AS n, SUM(peak) AS s FROM (SELECT feeder, date_trunc('day', \"window\") AS d, MAX(kwh) AS peak
     FROM feeder_half_hour GROUP BY 1, 2)",
];

const DUCKDB: &str = r#"
import duckdb, glob, json, sys, time
source, network = sys.argv[1:3]
manifest = json.load(open(sorted(glob.glob(f'{source}/manifests/*.json'))[-1]))['manifest']
files = [f"{source}/{file['path']}" for file in manifest['newest']]
duckdb.sql(f"CREATE TABLE network AS SELECT * FROM read_csv('{network}', all_varchar=true)")
began = time.perf_counter()
for level in ('transformer', 'feeder', 'substation'):
    duckdb.sql(f"""CREATE TABLE {level}_load AS
        SELECT n.{level}, time_bucket(INTERVAL '30 minutes', r.start_utc) AS w, SUM(r.value) AS kwh
        FROM read_parquet({files}) r JOIN network n USING (usage_point) GROUP BY 1, 2""")
answers = [duckdb.sql(f"SELECT COUNT(*), SUM(kwh) FROM {level}_load").fetchone()
           for level in ('transformer', 'feeder', 'substation')]
answers.append(duckdb.sql("""SELECT COUNT(*), SUM(peak) FROM (SELECT feeder, date_trunc('day', w) AS d, MAX(kwh) AS peak
    FROM feeder_load GROUP BY 1, 2)""").fetchone())
seconds = time.perf_counter() - began
print(json.dumps({'seconds': seconds, 'answers': [[str(part) for part in answer] for answer in answers]}))
"#;

/// Measures; see the head of the file.
pub(crate) fn run() -> anyhow::Result<Vec<Figure>> {
    Runtime::new()?.block_on(async {
        let folder = application_on(1)?;
        let node = start(folder.path())?;
        send(&node, bodies(0..HALF_HOURS)).await?;
        let session = fill(&node).await?;
        archived(&node).await?;
        node.stop()?;
        let app = folder.path().join("app.sql");
        let sql = std::fs::read_to_string(&app)? + VIEWS;
        std::fs::write(&app, sql)?;
        let started = Instant::now();
        let node = start(folder.path())?;
        let mut answers = Vec::new();
        for sql in ANSWERS {
            let answer = node.client.query_at(sql, &session).await?;
            answers.push(answer.rows()[0].as_array().context("a row")?.iter().map(text).collect::<Vec<_>>());
        }
        let ours_s = started.elapsed().as_secs_f64();
        let peak = peak_mb(node.pid())?;
        node.stop()?;
        let (theirs_s, theirs) = duckdb(folder.path())?;
        ensure!(answers == theirs, "DuckDB differs: {theirs:?}, not {answers:?}");
        let readings = f64::from(METERS) * f64::from(HALF_HOURS);
        Ok(vec![
            Figure::rate("three new views over what is archived", readings / ours_s, "readings/s")
                .against("DuckDB", readings / theirs_s),
            Figure::cost("start to exact answers", ours_s, "s").against("DuckDB", theirs_s),
            Figure::cost("peak memory", peak, "MB"),
        ])
    })
}

/// Fills the last segment with duplicates, which count for nothing, so that all can be archived.
async fn fill(node: &Node) -> anyhow::Result<String> {
    let source = node.client.get("/v1/sources/readings").await?;
    let segment = source["segment_size"].as_u64().context("a segment's size")?;
    let sent = u64::from(METERS) * u64::from(HALF_HOURS);
    let duplicates = segment - sent % segment;
    let body = |lines: u64| (0..lines).map(|_| reading(0, 0) + "\n").collect::<String>();
    let (whole, rest) = (duplicates / 1_000, duplicates % 1_000 + 1_000);
    send(node, (1..whole).map(|_| body(1_000)).chain([body(rest)])).await
}

/// Waits until the whole log is archived.
async fn archived(node: &Node) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let source = node.client.get("/v1/sources/readings").await?;
        let end = &source["partitions"][0]["end"];
        if end.is_u64() && source["batch"]["cut"][0] == *end {
            return Ok(());
        }
        ensure!(started.elapsed() < Duration::from_secs(600), "not archived after ten minutes: {source}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn duckdb(folder: &Path) -> anyhow::Result<(f64, Vec<Vec<String>>)> {
    let python = std::env::var_os("SANSO_PYTHON").context("SANSO_PYTHON: a Python with DuckDB")?;
    let files = folder.join("data/dataset/readings");
    let output = Command::new(python)
        .args(["-c", DUCKDB])
        .arg(files)
        .arg(folder.join("network.csv"))
        .output()
        .context("start Python")?;
    ensure!(output.status.success(), "DuckDB: {}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    let rows = answer["answers"].as_array().context("answers")?.iter();
    let rows = rows.map(|row| row.as_array().into_iter().flatten().map(text).collect()).collect();
    Ok((answer["seconds"].as_f64().context("seconds")?, rows))
}

/// A number as text, without zeros that say nothing.
fn text(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}
