//! What can't be used is listed wherever it lies and whatever is lost, and goes back into the log once.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use sanso_e2e::{Client, Node, binary, micro, micro_of};
use serde_json::Value;

/// The topic as its first writer declared it: keyed by the sender, who knows nothing of values.
const SENDERS: &str = "
CREATE SOURCE raw (sender TEXT, usage_point TEXT, start_utc TIMESTAMP)
  WITH (topic = 'readings', key = 'sender', identity = 'sender, start_utc', event_time = 'start_utc',
        segment = '16', partitions = '2');
CREATE VIEW senders AS SELECT sender, COUNT(*) AS n FROM raw GROUP BY sender;
";
/// The same topic as it is read now: by meter, so that half of it is in the wrong log partition.
const METERS: &str = "
CREATE SOURCE readings (usage_point TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), source_version BIGINT)
  WITH (topic = 'readings', key = 'usage_point', identity = 'usage_point, start_utc', version = 'source_version',
        segment = '16', partitions = '2');
CREATE VIEW totals AS SELECT usage_point, COUNT(*) AS readings, SUM(value) AS kwh FROM readings GROUP BY usage_point;
";

fn line(number: u32, value: &str, version: u32) -> String {
    format!(
        "{{\"sender\":\"S{number}\",\"usage_point\":\"M{}\",\"start_utc\":\"2026-01-01T{:02}:00:00Z\",\"value\":{value},\"source_version\":{version}}}\n",
        number / 10,
        number % 10
    )
}

/// Readings of one kilowatt-hour each; of every twentieth the value is broken.
fn lines() -> String {
    let value = |number: u32| if number.is_multiple_of(20) { "\"much\"" } else { "1" };
    (0..100).map(|number| line(number, value(number), 1)).collect()
}

/// One reading of six meters, so that each log partition has one, in the given hour.
fn everywhere(hour: u32, value: &str) -> String {
    (20..26).map(|meter| line(meter * 10 + hour, value, 1)).collect()
}

async fn send(client: &Client, source: &str, lines: String) -> anyhow::Result<String> {
    let count = lines.lines().count() as u64;
    let (status, answer) = client.ingest(source, lines).await?;
    assert_eq!((status, answer["acknowledged"].as_u64()), (200, Some(count)), "{answer}");
    assert_eq!(answer["positions"].as_object().map(|all| all.len()), Some(2), "the token stands for both");
    Ok(answer["session"].as_str().expect("a token").to_owned())
}

/// The readings and kilowatt-hours of all meters, with at least what the token stands for.
async fn totals(client: &Client, session: &str) -> anyhow::Result<(u64, i128)> {
    let sql = "SELECT COALESCE(SUM(readings), 0) AS n, SUM(kwh) AS kwh FROM totals";
    let answer = client.query_at(sql, session).await?;
    let row = &answer.rows()[0];
    Ok((row[0].as_u64().expect("a count"), micro_of(&row[1])))
}

/// Reads the whole quarantine in pages of seven; its counts must be those of the list.
async fn listed(client: &Client) -> anyhow::Result<Vec<Value>> {
    let (mut records, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/v1/quarantine/readings?limit=7{after}")).await?;
        records.extend(page["records"].as_array().expect("records").iter().cloned());
        let Some(next) = page["next"].as_str() else {
            let mut counts = BTreeMap::new();
            for record in &records {
                *counts.entry(record["kind"].as_str().expect("a kind")).or_insert(0_u64) += 1;
            }
            for (kind, count) in page["counts"].as_object().expect("counts") {
                assert_eq!(
                    counts.get(kind.as_str()).copied().unwrap_or(0),
                    count.as_u64().expect("a count"),
                    "{kind}"
                );
            }
            return Ok(records);
        };
        after = format!("&after={next}");
    }
}

fn of_kind(records: &[Value], kind: &str) -> usize {
    records.iter().filter(|record| record["kind"] == kind).count()
}

/// Waits until the batch layer has archived what is complete of both log partitions.
async fn archived(client: &Client) -> anyhow::Result<()> {
    loop {
        let source = client.get("/v1/sources/readings").await?;
        let partitions = source["partitions"].as_array().expect("partitions");
        let done = partitions.iter().zip(source["batch"]["cut"].as_array().into_iter().flatten());
        let mut done = done.map(|(partition, cut)| (partition["end"].as_u64(), cut.as_u64()));
        if partitions.len() == 2
            && done.all(|(end, cut)| end.zip(cut).is_some_and(|(end, cut)| cut > 0 && cut == end / 16 * 16))
            && source["batch"]["cut"].is_array()
        {
            return Ok(());
        }
    }
}

/// Runs `sanso quarantine` and returns its exit code and output.
fn quarantine(client: &Client, arguments: &[&str]) -> anyhow::Result<(i32, String)> {
    let command =
        Command::new(binary()).args(["quarantine"]).args(arguments).args(["--to", client.base()]).output()?;
    let text = String::from_utf8(command.stdout)? + &String::from_utf8(command.stderr)?;
    Ok((command.status.code().unwrap_or(-1), text))
}

fn declare(folder: &Path, name: &str, sql: &str) -> anyhow::Result<std::path::PathBuf> {
    let app = folder.join(name);
    std::fs::write(&app, sql)?;
    Ok(app)
}

#[tokio::test]
async fn what_was_refused_is_listed_after_any_loss_and_replayed_once() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let config = declare(folder.path(), "config.toml", "[batch]\ninterval_ms = 50\n")?;
    let more = ["--config", config.to_str().expect("a plain path")];
    let node = Node::start(&declare(folder.path(), "senders.sql", SENDERS)?, &data, &more)?;
    send(&node.client, "raw", lines()).await?;
    node.stop()?;

    // The kept log is read by another declaration: much of it is refused.
    let app = declare(folder.path(), "meters.sql", METERS)?;
    let node = Node::start(&app, &data, &more)?;
    let session = send(&node.client, "readings", everywhere(0, "5")).await?;
    let (accepted, _) = totals(&node.client, &session).await?;
    let refused = listed(&node.client).await?;
    let misplaced = of_kind(&refused, "misplaced");
    assert_eq!(of_kind(&refused, "undecodable"), 5);
    assert!(misplaced > 20, "{misplaced}");
    assert_eq!(accepted as usize, 6 + 95 - misplaced);
    archived(&node.client).await?;
    assert_eq!(listed(&node.client).await?, refused, "batch refuses what speed refused");
    node.kill()?;

    // Whatever the speed layer loses, the list is the same.
    for lost in ["index", "quarantine", ""] {
        std::fs::remove_dir_all(data.join("speed").join(lost))?;
        let node = Node::start(&app, &data, &more)?;
        assert_eq!(totals(&node.client, &session).await?.0, accepted, "{lost}");
        assert_eq!(listed(&node.client).await?, refused, "{lost}");
        node.kill()?;
    }
    replays(&app, &data, &more, misplaced).await
}

/// Mends all of it from the command line; a second time appends nothing.
async fn replays(app: &Path, data: &Path, more: &[&str], misplaced: usize) -> anyhow::Result<()> {
    let node = Node::start(app, data, more)?;
    let client = &node.client;
    for round in 0..2 {
        let (code, text) = quarantine(client, &["replay", "--kind", "misplaced"])?;
        let expected = if round == 0 { misplaced } else { 0 };
        assert_eq!((code, text), (0, format!("{expected} records replayed\n")));
    }
    let session = send(
        client,
        "readings",
        line(1, "7", 1) + &line(2, "7", 1) + &line(99, "7", 1) + &everywhere(1, "0"),
    )
    .await?;
    let fives = 6 * micro("5");
    assert_eq!(totals(client, &session).await?, (107, fives + micro("95")), "all but the broken ones");
    assert_eq!(of_kind(&listed(client).await?, "conflict"), 3);

    let (code, text) = quarantine(client, &["replay", "--kind", "conflict"])?;
    assert!(
        code == 1 && text.contains("higher version") && text.ends_with("0 records replayed, 3 not\n"),
        "{text}"
    );
    let (code, text) = quarantine(client, &["replay", "--kind", "conflict", "--version", "2"])?;
    assert_eq!((code, text.as_str()), (0, "3 records replayed\n"));

    let export = data.join("refused.jsonl");
    let export = export.to_str().expect("a plain path");
    assert_eq!(quarantine(client, &["export", "--kind", "undecodable", "--out", export])?.0, 0);
    let (code, text) = quarantine(client, &["replay", "--mended", export])?;
    assert!(code == 1 && text.contains("column value"), "not mended yet: {text}");
    let mut mended = String::new();
    for line in std::fs::read_to_string(export)?.lines() {
        writeln!(mended, "{}", line.replace("\"much\"", "2"))?;
    }
    std::fs::write(export, mended)?;
    for expected in ["5 records replayed\n", "0 records replayed\n"] {
        assert_eq!(quarantine(client, &["replay", "--mended", export])?, (0, expected.to_owned()));
    }
    let session = send(client, "readings", everywhere(2, "0")).await?;
    let whole = (118, fives + micro("92") + 3 * micro("7") + 5 * micro("2"));
    assert_eq!(totals(client, &session).await?, whole);

    // The marks outlive the process.
    let before = listed(client).await?;
    assert!(before.iter().all(|record| record["replayed"]["offset"].is_u64()), "{before:?}");
    node.kill()?;
    let node = Node::start(app, data, more)?;
    assert_eq!(totals(&node.client, &session).await?, whole);
    assert_eq!(listed(&node.client).await?, before);
    let (code, text) = quarantine(&node.client, &["list", "--kind", "conflict"])?;
    assert!(code == 0 && text.contains("replayed"), "{text}");
    assert_eq!(quarantine(&node.client, &["replay", "--kind", "misplaced"])?.1, "0 records replayed\n");
    node.stop()
}
