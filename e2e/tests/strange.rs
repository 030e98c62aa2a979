//! Readings from the far future and past, and bytes that are no readings.

use std::time::{Duration, Instant};

use sanso_e2e::{Node, micro, micro_of};

const APP: &str = "
CREATE SOURCE readings (usage_point TEXT, channel TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), source_version BIGINT)
  WITH (topic = 'readings', key = 'usage_point', identity = 'usage_point, channel, start_utc',
        version = 'source_version', segment = '4', partitions = '1');
CREATE VIEW daily AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 day') AS day, SUM(value) AS kwh FROM readings GROUP BY usage_point, day;
";

fn reading(start: &str, value: &str) -> String {
    format!(r#"{{"usage_point":"M","channel":"E","start_utc":"{start}","value":{value},"source_version":1}}"#)
}

#[tokio::test]
async fn readings_of_other_centuries_are_exact_and_do_not_move_the_watermark() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let app = folder.path().join("app.sql");
    std::fs::write(&app, APP)?;
    let data = folder.path().join("data");
    let node = Node::start(&app, &data, &[])?;
    let starts =
        ["2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1900-01-01T00:00:00Z", "0001-01-01T00:00:00Z"];
    let lines: String = starts.iter().map(|start| reading(start, "1.5") + "\n").collect();
    let (status, answer) = node.client.ingest("readings", lines).await?;
    assert_eq!((status, answer["acknowledged"].as_u64()), (200, Some(4)), "{answer}");
    let session = answer["session"].as_str().expect("a token").to_owned();
    let sql = "SELECT day, kwh FROM daily ORDER BY day";
    let mut expected: Vec<_> =
        starts.iter().map(|start| (format!("{}T00:00:00Z", &start[..10]), micro("1.5"))).collect();
    expected.sort();
    let rows = |answer: sanso_e2e::Answer| -> Vec<(String, i128)> {
        let row =
            |row: &serde_json::Value| (row[0].as_str().unwrap_or_default().to_owned(), micro_of(&row[1]));
        answer.rows().iter().map(row).collect()
    };
    assert_eq!(rows(node.client.query_at(sql, &session).await?), expected);
    // It may still say how it was before them.
    let patience = Instant::now() + Duration::from_secs(60);
    let partition = loop {
        let status = node.client.get("/v1/status").await?;
        let partition = &status["sources"][0]["partitions"][0];
        if partition["position"] == 4 {
            break partition.clone();
        }
        assert!(Instant::now() < patience, "{partition}");
        tokio::task::yield_now().await;
    };
    let watermark = partition["watermark"].as_str().unwrap_or_default();
    assert!(watermark.starts_with("2025-12-31") || watermark.starts_with("2026-01-01"), "{watermark}");
    node.kill()?;
    let node = Node::start(&app, &data, &[])?;
    assert_eq!(rows(node.client.query_at(sql, &session).await?), expected);
    node.stop()
}

#[tokio::test]
async fn what_is_no_reading_is_refused_with_its_line_and_the_rest_is_taken() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let app = folder.path().join("app.sql");
    std::fs::write(&app, APP)?;
    let node = Node::start(&app, &folder.path().join("data"), &[])?;
    let hour = |value: &str| reading("2026-01-01T00:00:00Z", value);
    let bad = [
        hour("1e999999"),
        hour("NaN"),
        hour("1.0000001"),
        hour("9999999999999"),
        reading("2026-02-30T00:00:00Z", "1"),
        reading("+10000-01-01T00:00:00Z", "1"),
        format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
        "{\"a\":".repeat(100_000),
        hour("1").replace("\"channel\"", "\"usage_point\":\"N\",\"channel\""),
        hour("1").replace("\"M\"", "null"),
        hour("1").replace("\"M\"", "\"a\u{0}b\""),
        hour("1").replace("\"M\"", "\"\\ud800\""),
        format!("{{\"x\":\"{}\"}}", "a".repeat(2 << 20)),
    ];
    let mut lines: Vec<String> = bad.to_vec();
    lines.push(hour("7"));
    let (status, answer) = node.client.ingest("readings", lines.join("\n")).await?;
    assert_eq!((status, answer["acknowledged"].as_u64()), (200, Some(1)), "{answer}");
    let refused = answer["refused"].as_array().expect("refusals");
    let named: Vec<_> = refused.iter().filter_map(|refusal| refusal["line"].as_u64()).collect();
    assert_eq!(named, (1..=bad.len() as u64).collect::<Vec<_>>(), "{answer}");
    let session = answer["session"].as_str().expect("a token");
    let answer = node.client.query_at("SELECT SUM(kwh) FROM daily", session).await?;
    assert_eq!(micro_of(&answer.rows()[0][0]), micro("7"));
    node.stop()
}
