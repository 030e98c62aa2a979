//! `POST /v1/query` over the master dataset's files.

use axum::http::StatusCode;
use sanso_dataset::Manifest;
use sanso_state::{Cut, Fingerprint, LogPartition, SegmentId};
use serde_json::json;

use crate::world::{World, line};

/// Archives one segment of two versions of a reading and one of another.
async fn archive(world: &World) {
    let second = line("m1", "E1", "2024-07-01T00:00:00Z", "2.000001")
        .replace("\"source_version\":1", "\"source_version\":2");
    let lines = [
        line("m1", "E1", "2024-07-01T00:00:00Z", "1"),
        second.clone(),
        line("m1", "E1", "2024-07-01T01:00:00Z", "5"),
    ];
    let rows = world.source.decode(lines.iter().map(|line| line.as_bytes())).rows;
    let id = SegmentId { partition: LogPartition(0), index: 0 };
    let segment =
        world.dataset.put_segment("readings", id, &rows, vec![0, 1, 4], vec![7; 3]).await.expect("writes");
    let archived = world.dataset.read_segment("readings", &segment).await.expect("reads");
    let newest = archived.slice(1, 2);
    let made_from = Fingerprint::of(b"test");
    let newest = world
        .dataset
        .put_newest("readings", 1, LogPartition(0), None, made_from, newest)
        .await
        .expect("writes");
    let manifest = Manifest {
        version: 1,
        cut: Cut::new(vec![8, 0]),
        rows: 2,
        segments: vec![segment],
        newest: vec![newest],
        ..Manifest::beginning("readings", 2, 8)
    };
    world.dataset.commit(&manifest).await.expect("commits");
}

#[tokio::test]
async fn a_source_has_its_newest_versions_and_its_history_as_tables() {
    let world = World::new().await;
    archive(&world).await;
    let (status, answer) = world.sql("SELECT SUM(value), COUNT(*) FROM readings").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["rows"][0][0].to_string(), "7.000001");
    assert_eq!(answer["rows"][0][1], 2);
    assert_eq!(answer["freshness"]["batch_version"], 1);
    assert_eq!(answer["freshness"]["cut"], json!({ "readings": [8, 0] }));
    assert_eq!(answer["freshness"]["views"][0]["kind"], "dataset");
    let sql = "SELECT _offset, value FROM readings_history WHERE source_version = 1 ORDER BY _offset";
    let (_, answer) = world.sql(sql).await;
    assert_eq!(answer["rows"].to_string(), "[[0,1.000000],[4,5.000000]]");
}

#[tokio::test]
async fn a_source_without_a_batch_version_is_an_empty_table() {
    let world = World::new().await;
    let (status, answer) = world.sql("SELECT * FROM readings").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["rows"], json!([]));
    assert_eq!(answer["columns"][3], json!({ "name": "value", "type": "decimal(18,6)" }));
    assert_eq!(answer["freshness"]["batch_version"], 0);
}
