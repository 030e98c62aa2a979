//! kill -9 at any moment loses and doubles nothing; corrections are exact.

use std::fmt::Write;
use std::path::Path;

use sanso_e2e::{Client, Node, micro, micro_of};

const APP: &str = "
CREATE SOURCE readings (usage_point TEXT, channel TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), source_version BIGINT)
  WITH (topic = 'readings', key = 'usage_point', identity = 'usage_point, channel, start_utc',
        version = 'source_version', segment = '256', partitions = '3');
CREATE VIEW meter_daily AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 day') AS day, SUM(value) AS kwh, COUNT(*) AS readings, MAX(value) AS peak
  FROM readings GROUP BY usage_point, day;
";

/// One batch of half-hourly readings of twenty meters on one day.
fn day(day: u32, version: u32, value: &str) -> String {
    let mut lines = String::new();
    for meter in 0..20 {
        for half_hour in 0..48 {
            writeln!(
                lines,
                r#"{{"usage_point":"M{meter:02}","channel":"E1","start_utc":"2026-01-{day:02}T{:02}:{:02}:00Z","value":{value},"source_version":{version}}}"#,
                half_hour / 2,
                half_hour % 2 * 30
            )
            .expect("write to a string");
        }
    }
    lines
}

/// Sends readings; returns a token of what is then acknowledged.
async fn send(client: &Client, lines: String) -> anyhow::Result<String> {
    let (status, answer) = client.ingest("readings", lines).await?;
    assert_eq!((status, answer["acknowledged"].as_u64()), (200, Some(960)), "{answer}");
    Ok(answer["session"].as_str().expect("an acknowledgement has a token").to_owned())
}

/// The kilowatt-hours and the number of readings of all meters, by day, with
/// at least what the token stands for.
async fn totals(client: &Client, session: &str) -> anyhow::Result<Vec<(i128, i64)>> {
    let sql =
        "SELECT day, SUM(kwh) AS kwh, SUM(readings) AS readings FROM meter_daily GROUP BY day ORDER BY day";
    let answer = client.query_at(sql, session).await?;
    Ok(answer.rows().iter().map(|row| (micro_of(&row[1]), row[2].as_i64().expect("a count"))).collect())
}

fn write_app(folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    let app = folder.join("app.sql");
    std::fs::write(&app, APP)?;
    Ok(app)
}

#[tokio::test]
async fn killing_the_process_again_and_again_keeps_totals_exact() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let app = write_app(folder.path())?;
    let data = folder.path().join("data");
    for number in 1..=8_u32 {
        let node = Node::start(&app, &data, &[])?;
        let client = node.client.clone();
        // The first half is acknowledged; the second is under way when the process dies.
        let session = send(&client, day(number, 1, "0.125")).await?;
        let under_way = tokio::spawn({
            let client = client.clone();
            async move { client.ingest("readings", day(number + 10, 1, "0.25")).await.is_ok() }
        });
        if number % 2 == 0 {
            totals(&client, &session).await?;
        }
        node.kill()?;
        under_way.await?;
    }
    let node = Node::start(&app, &data, &[])?;
    // A producer that got no answer sends again: what was there already is a duplicate.
    let mut session = String::new();
    for number in 1..=8 {
        session = send(&node.client, day(number + 10, 1, "0.25")).await?;
    }
    let mut expected = vec![(960 * micro("0.125"), 960); 8];
    expected.extend(vec![(960 * micro("0.25"), 960); 8]);
    assert_eq!(totals(&node.client, &session).await?, expected);
    node.stop()
}

#[tokio::test]
async fn a_correction_changes_exactly_its_windows() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let app = write_app(folder.path())?;
    let node = Node::start(&app, &folder.path().join("data"), &[])?;
    let mut session = String::new();
    for number in 1..=3 {
        session = send(&node.client, day(number, 1, "0.125")).await?;
    }
    let before = totals(&node.client, &session).await?;
    assert_eq!(before, vec![(960 * micro("0.125"), 960); 3]);
    // The same readings again change nothing.
    session = send(&node.client, day(2, 1, "0.125")).await?;
    assert_eq!(totals(&node.client, &session).await?, before);
    // A later version of day 2 changes day 2 only.
    session = send(&node.client, day(2, 2, "0.5")).await?;
    let corrected = [(960 * micro("0.125"), 960), (960 * micro("0.5"), 960), (960 * micro("0.125"), 960)];
    assert_eq!(totals(&node.client, &session).await?, corrected);
    // An older version of it is stale; equal version with other content is a conflict.
    send(&node.client, day(2, 1, "9")).await?;
    session = send(&node.client, day(2, 2, "9")).await?;
    assert_eq!(totals(&node.client, &session).await?, corrected);
    let quarantine = node.client.get("/v1/quarantine/readings?limit=1000").await?;
    assert_eq!(quarantine["count"].as_u64(), Some(960), "{quarantine}");
    node.stop()
}
