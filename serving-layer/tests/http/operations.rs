//! Health, readiness, metrics, status, sources, quarantine, the OpenAPI document.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use metrics_exporter_prometheus::PrometheusBuilder;
use sanso_catalog::{
    AuditCounts, BatchJob, BatchProgress, BatchQuarantine, JobKind, JobOutcome, NodeTasks, PartitionProgress,
    RecordCounts, RunningTask,
};
use sanso_state::{Cut, Division, LogPartition, RefusalCounts};
use serde_json::json;

use crate::quarantine::{SpeedQuarantine, refused};
use crate::world::{World, line, sample};

fn post_board(world: &World) {
    let counts = RecordCounts { records: 5, new: 4, corrections: 1, ..RecordCounts::default() };
    let progress = PartitionProgress {
        end: 7,
        position: 5,
        watermark_us: Some(0),
        counts,
        ..PartitionProgress::default()
    };
    world.board.post_speed("readings", LogPartition(0), progress);
    let audit = AuditCounts { compared: 3, skipped: 1, differing: 0 };
    let cut = Cut::new(vec![8, 0]);
    world.board.post_batch(
        "readings",
        BatchProgress {
            version: 2,
            cut: cut.clone(),
            published_us: 0,
            run_ms: 12,
            newest_rows: 4,
            audit,
            quarantine: Some(BatchQuarantine {
                division: Division { from: Cut::zero(2), cut },
                counts: RefusalCounts { conflict: 2, ..RefusalCounts::default() },
                audit: AuditCounts::default(),
            }),
            error: None,
        },
    );
    let speed = [refused(0, 3), refused(1, 3), refused(1, 11)];
    world.board.connect_quarantine(Arc::new(SpeedQuarantine::of(&speed)));
}

#[tokio::test]
async fn the_process_is_alive_at_once_and_ready_when_the_workers_have_caught_up() {
    let world = World::new().await;
    assert_eq!(world.get("/healthz").await.0, StatusCode::OK);
    let (status, problem) = world.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(problem["detail"].as_str().expect("a detail").contains("readings/0"), "{problem}");
    world.ingest(&sample()).await;
    let behind = PartitionProgress { end: 3, position: 1, ..PartitionProgress::default() };
    world.board.post_speed("readings", LogPartition(0), behind);
    assert_eq!(world.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    world.apply().await;
    assert_eq!(world.get("/readyz").await.0, StatusCode::OK);
    // Lagging later is no reason to be taken out of service.
    let behind = PartitionProgress { end: 9_000, position: 1, ..PartitionProgress::default() };
    world.board.post_speed("readings", LogPartition(0), behind);
    assert_eq!(world.get("/readyz").await.0, StatusCode::OK);
    world.store.remove(world.view("meter").fingerprint);
    assert_eq!(world.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_worker_that_stopped_for_good_is_named_with_its_reason_and_never_ready_again() {
    let world = World::new().await;
    world.ingest(&sample()).await;
    world.apply().await;
    assert_eq!(world.get("/readyz").await.0, StatusCode::OK);
    let reason = "the log of readings/1 starts at 40, what is archived ends at 36";
    world.board.post_stopped("readings", LogPartition(1), reason.to_owned());
    // What it has applied is still caught up with all that was in the log.
    world.apply().await;
    let (status, problem) = world.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let missing = format!("the speed worker of readings/1 stopped for good: {reason}");
    assert_eq!(problem["missing"], json!([missing]), "{problem}");
    assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains("needs a person")), "{problem}");
    // It is alive: killing it and starting it again would mend nothing.
    assert_eq!(world.get("/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn metrics_say_what_the_layers_posted() {
    let world = World::new().await;
    post_board(&world);
    let (status, text) = world.text("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for expected in [
        "sanso_speed_lag_records{source=\"readings\",partition=\"0\"} 2",
        "sanso_records_total{source=\"readings\",partition=\"0\",verdict=\"new\"} 4",
        "sanso_batch_version{source=\"readings\"} 2",
        "sanso_audit_differing_total{source=\"readings\"} 0",
        "sanso_audit_compared_total{source=\"readings\"} 3",
        "sanso_quarantined_records{source=\"readings\",kind=\"undecodable\"} 2",
        "sanso_quarantined_records{source=\"readings\",kind=\"conflict\"} 2",
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected} is not in\n{text}");
    }
}

#[tokio::test]
async fn a_job_is_told_while_it_runs_and_once_it_has_ended() {
    let world = World::new().await;
    let (status, answer) = world.get("/v1/jobs").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer, json!({ "running": [], "ended": [], "driver": null, "unanswered": [] }));
    let task = "lift of readings/0 at version 3".to_owned();
    let job = BatchJob {
        version: 3,
        tasks: 4,
        done: 2,
        running: vec![RunningTask { task, worker: 0, elapsed_ms: 700 }],
        kind: JobKind::Views,
        views: vec!["meter".to_owned()],
        waiting: 1,
        found: 1,
        twins: 1,
        nodes: [(0, NodeTasks { done: 1, running: 1, waiting: 1 })].into(),
        elapsed_ms: 900,
        remaining_ms: Some(60_000),
        ..BatchJob::default()
    };
    world.board.post_job("readings", job);
    let (_, answer) = world.get("/v1/jobs").await;
    let told = &answer["running"][0];
    assert_eq!(
        (&told["source"], &told["kind"], &told["views"]),
        (&json!("readings"), &json!("views"), &json!(["meter"]))
    );
    let counts: Vec<_> =
        ["done", "found", "running", "waiting", "twins", "lost"].iter().map(|of| told[of].as_u64()).collect();
    assert_eq!(counts, [2, 1, 1, 1, 1, 0].map(Some));
    assert_eq!(told["nodes"], json!([{ "node": 0, "done": 1, "running": 1, "waiting": 1 }]));
    let elapsed = |of: &serde_json::Value| of["elapsed_ms"].as_u64().expect("a time");
    assert!(elapsed(told) >= 900 && elapsed(&told["runs"][0]) >= 700, "{told}");
    assert!(told["remaining_ms"].as_u64().is_some_and(|left_ms| left_ms <= 60_000), "{told}");
    world.board.end_job("readings", JobOutcome::Failed("the store is full".to_owned()), 0);
    let (_, answer) = world.get("/v1/jobs").await;
    let told = &answer["ended"][0];
    assert_eq!(answer["running"], json!([]));
    assert_eq!((&told["outcome"], &told["error"]), (&json!("failed"), &json!("the store is full")));
    assert_eq!(told["ended"], "1970-01-01T00:00:00Z");
}

#[tokio::test]
async fn the_status_tells_of_all_layers() {
    let world = World::new().await;
    post_board(&world);
    let (status, answer) = world.get("/v1/status").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["audit"], json!({ "compared": 3, "skipped": 1, "differing": 0 }));
    assert_eq!(answer["sources"][0]["batch"]["cut"], json!([8, 0]));
    assert_eq!(answer["sources"][0]["job"], json!(null));
    let task = "advance of readings/1 to version 3".to_owned();
    let running = vec![RunningTask { task, worker: 2, elapsed_ms: 5 }];
    world
        .board
        .post_job("readings", BatchJob { version: 3, tasks: 2, done: 1, running, ..BatchJob::default() });
    let (_, source) = world.get("/v1/sources/readings").await;
    let running = json!([{ "task": "advance of readings/1 to version 3", "worker": 2 }]);
    assert_eq!(source["job"], json!({ "version": 3, "tasks": 2, "done": 1, "running": running }));
    world.board.end_job("readings", JobOutcome::Done, 0);
    assert_eq!(answer["sources"][0]["lag_records"], 2);
    assert_eq!(answer["views"].as_array().map(Vec::len), Some(4));
    assert_eq!(answer["views"][0]["partitions"][0]["live"], true);
    let (_, mut source) = world.get("/v1/sources/readings").await;
    assert_eq!(source["unanswered"].take(), json!([]), "there is one node");
    assert_eq!(source["topic"], "meter-readings");
    assert_eq!(source["columns"][3], json!({ "name": "value", "type": "decimal(18,6)", "nullable": true }));
    assert_eq!(source["counts"]["corrections"], 1);
    let (_, mut sources) = world.get("/v1/sources").await;
    assert_eq!(sources["unanswered"], json!([]));
    // Of a list, the nodes that don't answer are said once.
    sources["sources"][0]["unanswered"] = json!(null);
    assert_eq!(sources["sources"][0], source);
}

#[tokio::test]
async fn a_wrong_path_and_a_wrong_method_are_problems() {
    let world = World::new().await;
    assert_eq!(world.get("/v2").await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.post("/v1/views", "").await.0, StatusCode::METHOD_NOT_ALLOWED);
    let request = Request::delete("/v1/views/meter").body(Body::empty()).expect("a request");
    assert_eq!(world.send(request).await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_api_describes_every_route_and_no_other() {
    let world = World::new().await;
    let (_, document) = world.get("/openapi.json").await;
    let mut described = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        described
            .extend(methods.as_object().expect("methods").keys().map(|m| (m.to_uppercase(), path.clone())));
    }
    let mut routed: Vec<(String, String)> =
        sanso_serving::routes::paths().into_iter().map(|(method, path)| (method, path.to_owned())).collect();
    described.sort();
    routed.sort();
    assert_eq!(described, routed);
}

#[tokio::test]
async fn every_reference_in_the_api_description_resolves() {
    fn check(value: &serde_json::Value, document: &serde_json::Value) {
        match value {
            serde_json::Value::Object(members) => {
                if let Some(reference) = members.get("$ref").and_then(|r| r.as_str()) {
                    assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
                }
                members.values().for_each(|member| check(member, document));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| check(item, document)),
            _ => {}
        }
    }
    let world = World::new().await;
    let (_, document) = world.get("/openapi.json").await;
    check(&document, &document);
}

#[tokio::test]
async fn the_console_is_served_at_the_root() {
    let world = World::new().await;
    let (status, page) = world.text("/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.starts_with("<!doctype html>"));
}

#[tokio::test]
async fn requests_beyond_the_bound_are_refused() {
    let config = sanso_serving::ServingConfig { requests_max: 0, ..Default::default() };
    let world = World::with(config).await;
    let (status, problem) =
        world.post("/v1/ingest/readings", line("m", "E1", "2024-07-01T00:00:00Z", "1")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(problem["type"], "urn:sanso:problem:busy");
    assert_eq!(world.get("/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn requests_are_measured_by_route() {
    let recorder = sanso_serving::metrics::with_buckets(PrometheusBuilder::new()).build_recorder();
    let world = World::new().await;
    let world = World { layer: world.layer.with_metrics(recorder.handle()), ..world };
    let _installed = metrics::set_default_local_recorder(&recorder);
    world.get("/v1/views/meter?key=m1").await;
    world.get("/v1/views/nothing").await;
    world.ingest(&sample()).await;
    let (_, text) = world.text("/metrics").await;
    for expected in [
        "sanso_http_request_seconds_count{route=\"/v1/views/{view}\",method=\"GET\",status=\"200\"} 1",
        "sanso_http_request_seconds_count{route=\"/v1/views/{view}\",method=\"GET\",status=\"404\"} 1",
        "sanso_ingest_acknowledged_total{source=\"readings\"} 6",
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected} is not in\n{text}");
    }
}
