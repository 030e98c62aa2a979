//! Real meter files through the whole platform: totals per channel and day
//! equal the reference parsers' to the last digit.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use sanso_e2e::{Client, Node, ingest, micro, micro_of, shared_data};

const COLUMNS: &str = "usage_point TEXT, channel TEXT, start_utc TIMESTAMP, duration_s BIGINT, \
     value DECIMAL(18,6), unit TEXT, quality TEXT, source_quality TEXT, reason TEXT, \
     source_version BIGINT, meter TEXT, received_at TIMESTAMP";

/// Totals by (usage point or nothing, channel or nothing, day).
type Totals = BTreeMap<(String, String, String), (i64, i128)>;

/// Declares one source for each file, so that files that restate each other's
/// days are judged alone, as the reference parsers did; each with one daily view.
fn application(files: &[&str], zone: &str) -> String {
    let mut sql = String::new();
    for index in 0..files.len() {
        writeln!(
            sql,
            "CREATE SOURCE file{index} ({COLUMNS}) WITH (topic = 'file{index}', format = 'json', \
             key = 'usage_point', identity = 'usage_point, channel, start_utc', \
             version = 'source_version', segment = '512', partitions = '2');\n\
             CREATE VIEW daily{index} AS SELECT usage_point, channel, \
             TUMBLE(start_utc, INTERVAL '1 day', '{zone}') AS day, SUM(value) AS total, \
             COUNT(*) AS readings FROM file{index} GROUP BY usage_point, channel, day;"
        )
        .expect("write to a string");
    }
    sql
}

async fn totals(client: &Client, view: &str, zone_offset_s: i64) -> anyhow::Result<Totals> {
    let answer = client
        .query(&format!(
            "SELECT usage_point, channel, CAST(CAST(day AS BIGINT) / 1000000 AS BIGINT) AS day_s, total, readings FROM {view}"
        ))
        .await?;
    let mut totals = Totals::new();
    for row in answer.rows() {
        let text = |column: usize| row[column].as_str().expect("a text").to_owned();
        let day = (row[2].as_i64().expect("seconds") + zone_offset_s) / 86_400;
        let readings = row[4].as_i64().expect("a count");
        totals.insert((text(0), text(1), civil(day)), (readings, micro_of(&row[3])));
    }
    Ok(totals)
}

/// Turns days since 1970 into an ISO date (Howard Hinnant, "chrono-compatible
/// low-level date algorithms").
fn civil(days: i64) -> String {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{:02}", doy - (153 * mp + 2) / 5 + 1)
}

async fn start(sql: &str, folder: &Path) -> anyhow::Result<Node> {
    let app = folder.join("app.sql");
    std::fs::write(&app, sql)?;
    Node::start(&app, &folder.join("data"), &[])
}

fn rows(path: &Path) -> Vec<csv::StringRecord> {
    let mut reader = csv::Reader::from_path(path).expect("open the expected totals");
    reader.records().collect::<Result<_, _>>().expect("read the expected totals")
}

#[tokio::test]
async fn nem_files_give_the_reference_totals() -> anyhow::Result<()> {
    let Some(data) = shared_data() else { return Ok(()) };
    let expected = rows(&data.join("expected/nem_expected_daily.csv"));
    let mut files: Vec<&str> =
        expected.iter().map(|row| &row[0]).filter(|file| !file.starts_with("invalid/")).collect();
    files.dedup();
    assert_eq!(files.len(), 24, "the data folder holds 15 sound NEM12 files and 9 NEM13 files");
    let folder = tempfile::tempdir()?;
    let node = start(&application(&files, "Etc/GMT-10"), folder.path()).await?;
    for (index, file) in files.iter().enumerate() {
        let path = data.join("nem12").join(file);
        let source = format!("file{index}");
        let path = path.to_str().expect("a plain path");
        let (code, summary) = ingest(&node.client, &["--source", &source, path])?;
        assert_eq!(code, 0, "{file}: {summary}");
        let mut wanted = Totals::new();
        for row in expected.iter().filter(|row| &row[0] == *file) {
            let key = (row[1].to_owned(), row[2].to_owned(), row[3].to_owned());
            wanted.insert(key, (row[4].parse()?, scaled(&row[6], unit_scale(&data, file, &row[1], &row[2]))));
        }
        assert_eq!(totals(&node.client, &format!("daily{index}"), 36_000).await?, wanted, "{file}");
    }
    node.stop()
}

/// Returns the factor's inverse by which a channel's unit is scaled to its base unit.
fn unit_scale(data: &Path, file: &str, nmi: &str, suffix: &str) -> i128 {
    let channels = rows(&data.join("expected/nem_expected_channels.csv"));
    let channel = channels.iter().find(|row| &row[0] == file && &row[2] == nmi && &row[3] == suffix);
    let unit = channel.expect("the channel is listed")[4].to_lowercase();
    if matches!(unit.as_str(), "wh" | "varh" | "vah") { 1_000 } else { 1 }
}

fn scaled(text: &str, divisor: i128) -> i128 {
    let value = micro(text);
    assert_eq!(value % divisor, 0, "{text} scales without a rest");
    value / divisor
}

#[tokio::test]
async fn green_button_feeds_give_the_reference_totals() -> anyhow::Result<()> {
    let Some(data) = shared_data() else { return Ok(()) };
    let expected = rows(&data.join("expected/espi_expected_daily_utc.csv"));
    let mut files: Vec<&str> =
        expected.iter().map(|row| &row[0]).filter(|f| f.starts_with("electricity/")).collect();
    files.dedup();
    let folder = tempfile::tempdir()?;
    let node = start(&application(&files, "UTC"), folder.path()).await?;
    for (index, file) in files.iter().enumerate() {
        let path = data.join("espi").join(file);
        let source = format!("file{index}");
        let (code, summary) =
            ingest(&node.client, &["--source", &source, path.to_str().expect("a plain path")])?;
        assert_eq!(code, 0, "{file}: {summary}");
        let mut found = BTreeMap::new();
        for ((_, _, day), total) in totals(&node.client, &format!("daily{index}"), 0).await? {
            assert!(found.insert(day, total).is_none(), "{file} has one usage point and channel");
        }
        let wanted: BTreeMap<String, (i64, i128)> = expected
            .iter()
            .filter(|row| &row[0] == *file)
            .map(|row| (row[1].to_owned(), (row[2].parse().expect("a count"), scaled(&row[3], 1_000))))
            .collect();
        assert_eq!(found, wanted, "{file}");
    }
    node.stop()
}

/// The sample was anonymised by search and replace: some intervals last 14 or
/// 16 minutes, and some quarter hours come twice with other quantities. The
/// first are refused, the second quarantined; nothing else may be missing, so
/// their quantities, as the summary quotes them, complete the reference totals.
#[tokio::test]
async fn mscons_file_gives_the_reference_totals() -> anyhow::Result<()> {
    let Some(data) = shared_data() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let node = start(&application(&["mscons"], "UTC"), folder.path()).await?;
    let path = data.join("mscons/MSCONS_TL_SAMPLE01.txt");
    let arguments = ["--source", "file0", path.to_str().expect("a plain path")];
    let (code, summary) = ingest(&node.client, &arguments)?;
    assert_eq!(code, 1, "{summary}");
    let mut found: BTreeMap<String, (i64, i128)> = BTreeMap::new();
    let mut add = |day: String, readings: i64, value: i128| {
        let total = found.entry(day).or_default();
        *total = (total.0 + readings, total.1 + value);
    };
    for ((_, _, day), (readings, total)) in totals(&node.client, "daily0", 0).await? {
        add(day, readings, total);
    }
    let refused = summary["refused"].as_array().expect("the refused records");
    for record in refused {
        let (day, value) = quoted(record["record"].as_str().expect("a record"));
        add(day, 1, value);
    }
    let quarantined = summary["quarantined"].as_array().expect("the quarantined records");
    for record in quarantined {
        let payload: serde_json::Value =
            serde_json::from_str(record["payload"].as_str().expect("a payload"))?;
        add(payload["start_utc"].as_str().expect("a start")[..10].to_owned(), 1, micro_of(&payload["value"]));
    }
    assert_eq!((refused.len(), quarantined.len()), (70, 3), "{summary}");
    let expected: BTreeMap<String, (i64, i128)> = rows(&data.join("expected/mscons_expected_daily_utc.csv"))
        .iter()
        .map(|row| (row[2].to_owned(), (row[3].parse().expect("a count"), micro(&row[4]))))
        .collect();
    assert_eq!(found, expected);
    node.stop()
}

/// Returns the UTC day and the quantity of a refused MSCONS record.
fn quoted(record: &str) -> (String, i128) {
    let value = record.strip_prefix("QTY+220:").and_then(|rest| rest.split('\'').next()).expect("a quantity");
    let start = record.split("DTM+163:").nth(1).expect("a start");
    // In Central European winter time, as `201512010030?+01`.
    assert_eq!(&start[12..16], "?+01");
    let (date, hour) = (&start[..8], start[8..10].parse::<i64>().expect("an hour"));
    assert!(hour > 0, "no refused record lies in the hour that UTC counts to the day before");
    (format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..]), micro(&value.replace(',', ".")))
}

#[tokio::test]
async fn london_file_gives_the_reference_totals() -> anyhow::Result<()> {
    let Some(data) = shared_data() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let node = start(&application(&["lcl"], "UTC"), folder.path()).await?;
    let path = data.join("interval/lcl/MAC000002.csv");
    let (code, summary) = ingest(
        &node.client,
        &["--source", "file0", "--mapping", "lcl", path.to_str().expect("a plain path")],
    )?;
    // One row holds no number at a time off the grid: refused, the rest goes on.
    assert_eq!(code, 1, "{summary}");
    let answer = client_total(&node.client, "daily0").await?;
    assert_eq!(answer, (24_140, micro("6095.672")));
    // The same file again changes no total.
    let (code, _) = ingest(
        &node.client,
        &["--source", "file0", "--mapping", "lcl", path.to_str().expect("a plain path")],
    )?;
    assert_eq!(code, 1);
    assert_eq!(client_total(&node.client, "daily0").await?, (24_140, micro("6095.672")));
    node.stop()
}

async fn client_total(client: &Client, view: &str) -> anyhow::Result<(i64, i128)> {
    let answer = client.query(&format!("SELECT SUM(readings) AS n, SUM(total) AS total FROM {view}")).await?;
    let row = &answer.rows()[0];
    Ok((row[0].as_i64().expect("a count"), micro_of(&row[1])))
}
