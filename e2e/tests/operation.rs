//! What an operator relies on: names, refusals, and changing a view or the
//! network while it runs.

use std::path::Path;

use sanso_e2e::{Client, Node, micro, micro_of};

const APP: &str = "
CREATE SOURCE readings (usage_point TEXT, channel TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), source_version BIGINT)
  WITH (topic = 'readings', key = 'usage_point', identity = 'usage_point, channel, start_utc',
        version = 'source_version', segment = '64', partitions = '2');
CREATE TABLE network (usage_point TEXT, feeder TEXT) WITH (path = 'network.csv');
CREATE VIEW feeder_load AS
  SELECT n.feeder, TUMBLE(r.start_utc, INTERVAL '1 hour') AS window, SUM(r.value * {factor}) AS kwh, COUNT(*) AS readings
  FROM readings r JOIN network n ON r.usage_point = n.usage_point GROUP BY n.feeder, window;
";

fn declare(folder: &Path, factor: &str, network: &str) -> anyhow::Result<std::path::PathBuf> {
    std::fs::write(folder.join("network.csv"), format!("usage_point,feeder\n{network}"))?;
    let app = folder.join("app.sql");
    std::fs::write(&app, APP.replace("{factor}", factor))?;
    Ok(app)
}

/// 24 hourly readings of four meters, one kilowatt-hour each.
fn readings(version: u32) -> String {
    let line = |meter: u32, hour: u32| {
        format!(
            "{{\"usage_point\":\"M{meter}\",\"channel\":\"E1\",\"start_utc\":\"2026-02-01T{hour:02}:00:00Z\",\"value\":{version},\"source_version\":{version}}}\n"
        )
    };
    (0..4).flat_map(|meter| (0..24).map(move |hour| line(meter, hour))).collect()
}

async fn send(client: &Client, version: u32) -> anyhow::Result<String> {
    let (status, answer) = client.ingest("readings", readings(version)).await?;
    assert_eq!((status, answer["acknowledged"].as_u64()), (200, Some(96)), "{answer}");
    Ok(answer["session"].as_str().expect("a token").to_owned())
}

/// The kilowatt-hours of each feeder, in order of name.
async fn feeders(client: &Client, session: &str) -> anyhow::Result<Vec<(String, i128)>> {
    let sql = "SELECT feeder, SUM(kwh) AS kwh FROM feeder_load GROUP BY feeder ORDER BY feeder";
    let answer = client.query_at(sql, session).await?;
    Ok(answer
        .rows()
        .iter()
        .map(|row| (row[0].as_str().expect("a name").to_owned(), micro_of(&row[1])))
        .collect())
}

/// Asks until another version of the view serves. Every answer on the way must be a good one.
async fn taken_over(client: &Client, old: &str) -> anyhow::Result<String> {
    loop {
        let answer = client.view("feeder_load?key=F1").await?;
        let version =
            answer.document["freshness"]["views"][0]["version"].as_str().expect("a version").to_owned();
        if version != old {
            return Ok(version);
        }
    }
}

fn loads(loads: &[(&str, &str)]) -> Vec<(String, i128)> {
    loads.iter().map(|(feeder, kwh)| ((*feeder).to_owned(), micro(kwh))).collect()
}

#[tokio::test]
async fn a_view_and_the_network_change_while_the_old_version_serves() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let app = declare(folder.path(), "1", "M0,F1\nM1,F1\nM2,F2\nM3,F2\n")?;
    let node = Node::start(&app, &folder.path().join("data"), &[])?;
    let session = send(&node.client, 1).await?;
    assert_eq!(feeders(&node.client, &session).await?, loads(&[("F1", "48"), ("F2", "48")]));

    // The view's SQL changes: all history is computed anew.
    let first = taken_over(&node.client, "").await?;
    declare(folder.path(), "2", "M0,F1\nM1,F1\nM2,F2\nM3,F2\n")?;
    let second = taken_over(&node.client, &first).await?;
    assert_eq!(feeders(&node.client, &session).await?, loads(&[("F1", "96"), ("F2", "96")]));

    // The network is corrected: history follows it, and so does a later correction of readings.
    declare(folder.path(), "2", "M0,F1\nM1,F1\nM2,F1\nM3,F2\n")?;
    let third = taken_over(&node.client, &second).await?;
    assert_eq!(feeders(&node.client, &session).await?, loads(&[("F1", "144"), ("F2", "48")]));
    let session = send(&node.client, 3).await?;
    let corrected = loads(&[("F1", "432"), ("F2", "144")]);
    assert_eq!(feeders(&node.client, &session).await?, corrected);

    // A restart serves the same version with the same answer.
    node.stop()?;
    let node = Node::start(&app, &folder.path().join("data"), &[])?;
    assert_eq!(feeders(&node.client, &session).await?, corrected);
    assert_eq!(taken_over(&node.client, "").await?, third);
    node.stop()
}

#[tokio::test]
async fn the_names_that_others_rely_on_answer() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let app = declare(folder.path(), "1", "M0,F1\n")?;
    let node = Node::start(&app, &folder.path().join("data"), &[])?;
    let session = send(&node.client, 1).await?;
    let path =
        format!("feeder_load?key=F1&from=2026-02-01T05:00:00Z&to=2026-02-01T07:00:00Z&session={session}");
    let answer = node.client.view(&path).await?;
    assert_eq!(answer.rows().len(), 2, "{}", answer.document);
    assert_eq!(answer.document["complete"], true);
    for (path, status, part) in [
        ("/healthz", 200, ""),
        ("/readyz", 200, ""),
        ("/metrics", 200, "sanso_"),
        ("/openapi.json", 200, "\"/v1/query\""),
        ("/", 200, "<html"),
        ("/v1/views/feeder_lod", 404, "feeder_load"),
        ("/v1/views/feeder_load?form=x", 400, "form"),
    ] {
        let (found, text) = node.client.get_text(path).await?;
        assert_eq!(found, status, "{path}: {text}");
        assert!(text.contains(part), "{path} says '{part}': {}", &text[..text.len().min(400)]);
    }
    let broken =
        "{\"usage_point\":\"M0\",\"channel\":\"E1\",\"start_utc\":\"yesterday\",\"value\":1}\nnot json\n";
    let (status, answer) = node.client.ingest("readings", broken.to_owned()).await?;
    assert_eq!(status, 422, "{answer}");
    assert_eq!(answer["refused"][0]["line"], 1, "{answer}");
    assert_eq!(answer["refused"][1]["line"], 2, "{answer}");
    node.stop()
}
