//! `POST /v1/ingest/{source}`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use futures::stream;
use sanso_log::{Log, MemoryLog, TopicSpec, partition_for_key};
use sanso_serving::{ServingConfig, ServingContext, ServingLayer};
use serde_json::json;

use crate::world::{World, line, sample};

#[tokio::test]
async fn good_lines_are_in_the_log_and_bad_ones_are_told_with_their_line() {
    let world = World::new().await;
    let good = line("m1", "E1", "2024-07-01T00:00:00Z", "1.5");
    let body = format!("{good}\n\nnot json\n{good}\n{{\"usage_point\":\"m1\"}}\n");
    let (status, answer) = world.post("/v1/ingest/readings", body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["acknowledged"], 2);
    let refused: Vec<u64> =
        answer["refused"].as_array().expect("a list").iter().filter_map(|r| r["line"].as_u64()).collect();
    assert_eq!(refused, [3, 5]);
    assert!(!answer["refused"][0]["reason"].as_str().expect("a reason").is_empty());
    let partition = partition_for_key(b"m1", 2);
    assert_eq!(answer["positions"], json!({ partition.to_string(): 2 }));
    let end = world.log.end_offset("meter-readings", partition).await.expect("an end");
    assert_eq!(end, 2);
}

#[tokio::test]
async fn a_record_keeps_its_bytes_and_order_and_gets_the_time_of_receipt() {
    let world = World::new().await;
    let lines: Vec<String> = (0..20)
        .map(|i| line("m1", "E1", &format!("2024-07-01T00:00:{i:02}Z"), &format!("0.{i:06}")))
        .collect();
    world.ingest(&lines).await;
    let partition = partition_for_key(b"m1", 2);
    let batch = world.log.read("meter-readings", partition, 0, 100, usize::MAX).await.expect("reads");
    assert_eq!(batch.records.len(), 20);
    for (record, line) in batch.records.iter().zip(&lines) {
        assert_eq!(record.key.as_deref(), Some(&b"m1"[..]));
        let text = std::str::from_utf8(&record.payload).expect("text");
        assert!(text.starts_with("{\"received_at\":\"20"), "{text}");
        assert!(text.ends_with(&line[1..]), "{text}");
    }
    let rows = world.source.decode(batch.records.iter().map(|record| &record.payload[..]));
    assert_eq!(rows.rejected, []);
}

#[tokio::test]
async fn a_body_of_refused_lines_only_is_refused_and_an_empty_one_is_not() {
    let world = World::new().await;
    let (status, problem) = world.post("/v1/ingest/readings", "{}\n[]\n").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!((&problem["acknowledged"], &problem["refused_count"]), (&json!(0), &json!(2)));
    let (status, answer) = world.post("/v1/ingest/readings", "\n").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["acknowledged"], 0);
    let (status, problem) = world.post("/v1/ingest/reading", "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(problem["existing"], json!(["readings"]));
}

#[tokio::test]
async fn a_body_may_arrive_in_any_pieces_and_is_taken_chunk_by_chunk() {
    let config = ServingConfig { ingest_chunk_lines_max: 2, ..ServingConfig::default() };
    let world = World::with(config).await;
    let body = sample().join("\n");
    let pieces: Vec<Result<Bytes, std::io::Error>> =
        body.as_bytes().chunks(7).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let (status, answer) = world.post("/v1/ingest/readings", Body::from_stream(stream::iter(pieces))).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["acknowledged"], 6);
}

#[tokio::test]
async fn a_body_that_grows_too_large_tells_what_was_acknowledged() {
    let record = line("m1", "E1", "2024-07-01T00:00:00Z", "1");
    let config = ServingConfig {
        ingest_chunk_lines_max: 1,
        body_bytes_max: 3 * record.len(),
        ..ServingConfig::default()
    };
    let world = World::with(config).await;
    let pieces: Vec<Result<Bytes, std::io::Error>> =
        (0..4).map(|_| Ok(Bytes::from(format!("{record}\n")))).collect();
    let (status, problem) = world.post("/v1/ingest/readings", Body::from_stream(stream::iter(pieces))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(problem["acknowledged"], 2);
    let end = world.log.end_offset("meter-readings", partition_for_key(b"m1", 2)).await.expect("an end");
    assert_eq!(end, 2);
}

#[tokio::test]
async fn a_body_that_breaks_off_tells_what_was_acknowledged() {
    let config = ServingConfig { ingest_chunk_lines_max: 1, ..ServingConfig::default() };
    let world = World::with(config).await;
    let record = line("m1", "E1", "2024-07-01T00:00:00Z", "1");
    let pieces =
        vec![Ok(Bytes::from(format!("{record}\n{record}"))), Err(std::io::Error::other("cable pulled"))];
    let (status, problem) = world.post("/v1/ingest/readings", Body::from_stream(stream::iter(pieces))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(problem["type"], "urn:sanso:problem:body-broken");
    assert_eq!(problem["acknowledged"], 1);
}

#[tokio::test]
async fn when_a_part_of_the_log_fails_what_was_acknowledged_is_told_line_by_line() {
    // The log has one partition where the source expects two: half of the appends fail.
    let world = World::new().await;
    let log = Arc::new(MemoryLog::new());
    log.ensure_topic(&TopicSpec::new("meter-readings", 1)).await.expect("a new topic");
    let context = ServingContext {
        catalog: world.catalog.clone(),
        store: world.store.clone(),
        dataset: world.dataset.clone(),
        log: Arc::clone(&log) as Arc<dyn Log>,
        board: world.board.clone(),
        cluster: None,
    };
    let layer = ServingLayer::new(ServingConfig::default(), context);
    let world = World { router: layer.router(), ..world };
    let points: Vec<String> = (0..10).map(|i| format!("p{i}")).collect();
    let lines: Vec<String> = points.iter().map(|p| line(p, "E1", "2024-07-01T00:00:00Z", "1")).collect();
    let (status, problem) = world.post("/v1/ingest/readings", lines.join("\n")).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let second: Vec<u64> =
        (1..).zip(&points).filter(|(_, p)| partition_for_key(p.as_bytes(), 2) == 1).map(|(n, _)| n).collect();
    assert!(!second.is_empty() && second.len() < 10);
    assert_eq!(problem["unacknowledged"], json!(second));
    assert_eq!(problem["acknowledged"], 10 - second.len());
    assert_eq!(problem["positions"], json!({ "0": 10 - second.len() }));
}
