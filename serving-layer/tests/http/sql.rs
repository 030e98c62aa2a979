//! `POST /v1/query` over views.

use axum::http::StatusCode;
use sanso_serving::ServingConfig;
use serde_json::json;

use crate::world::{World, line, sample};

async fn filled() -> World {
    let world = World::new().await;
    world.ingest(&sample()).await;
    world.apply().await;
    world
}

#[tokio::test]
async fn sql_over_a_view_is_exact_and_says_how_fresh_it_is() {
    let world = filled().await;
    let (status, answer) =
        world.sql("SELECT usage_point, SUM(kwh) AS kwh FROM meter GROUP BY usage_point ORDER BY 1").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["columns"][0], json!({ "name": "usage_point", "type": "text" }));
    assert!(answer["columns"][1]["type"].as_str().expect("a type").starts_with("decimal("));
    assert_eq!(answer["rows"][0][1].to_string(), "-2.199999");
    assert_eq!(answer["rows"][1][1].to_string(), "1000000000006.999999");
    assert_eq!(answer["complete"], true);
    assert_eq!(answer["freshness"]["views"][0]["view"], "meter");
    assert!(answer["freshness"]["session"].as_str().expect("a token").starts_with("v1."));
}

#[tokio::test]
async fn conditions_on_key_and_time_give_the_same_rows_as_a_scan() {
    let world = filled().await;
    let cases = [
        ("usage_point = 'm1'", 3),
        ("usage_point IN ('m1', 'm2', 'm9')", 5),
        ("usage_point = 'm1' AND hour >= '2024-07-01T01:00:00Z'", 2),
        ("'m1' = usage_point AND hour < '2024-07-01T01:00:00Z'", 1),
        ("hour BETWEEN '2024-07-01T01:00:00Z' AND '2024-07-01T02:00:00Z'", 3),
        ("hour > '2024-07-01T01:00:00Z'", 1),
        ("hour <= '2024-07-01T00:00:00Z'", 2),
        ("hour = TIMESTAMP '2024-07-01 01:00:00'", 2),
        ("usage_point = 'm1' OR usage_point = 'm2'", 5),
        ("usage_point = 'm1' OR kwh = 7", 4),
        ("usage_point = 'm1' AND usage_point = 'm2'", 0),
        ("usage_point <> 'm1'", 2),
        ("usage_point NOT IN ('m1')", 2),
        ("usage_point LIKE 'm%' AND kwh > 0.5", 3),
        ("kwh = 0.300001", 1),
    ];
    for (condition, expected) in cases {
        let (status, answer) = world.sql(&format!("SELECT * FROM meter WHERE {condition}")).await;
        assert_eq!(status, StatusCode::OK, "{condition}: {answer}");
        assert_eq!(answer["rows"].as_array().map(Vec::len), Some(expected), "{condition}: {answer}");
    }
}

#[tokio::test]
async fn a_key_condition_reads_only_the_partition_that_holds_it() {
    let world = filled().await;
    let (_, answer) = world.sql("SELECT * FROM meter WHERE usage_point = 'm1'").await;
    assert_eq!(answer["freshness"]["partitions_total"], 1);
    let (_, answer) = world.sql("SELECT * FROM hourly WHERE usage_point = 'm1' AND channel = 'E1'").await;
    assert_eq!(answer["freshness"]["partitions_total"], 1);
    assert_eq!(answer["rows"].as_array().map(Vec::len), Some(2));
    let (_, answer) = world.sql("SELECT * FROM hourly WHERE usage_point = 'm1'").await;
    assert_eq!(answer["freshness"]["partitions_total"], 4);
}

#[tokio::test]
async fn a_sliding_view_narrowed_by_time_has_whole_windows() {
    let world = filled().await;
    let (_, answer) =
        world.sql("SELECT kwh FROM rolling WHERE usage_point = 'm1' AND span = '2024-07-01T00:00:00Z'").await;
    assert_eq!(answer["rows"][0][0].to_string(), "1.300001", "{answer}");
}

#[tokio::test]
async fn views_join_and_each_has_its_freshness() {
    let world = filled().await;
    let sql = "SELECT m.usage_point, h.channel FROM meter m JOIN hourly h ON m.usage_point = h.usage_point AND m.hour = h.hour";
    let (status, answer) = world.sql(sql).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["rows"].as_array().map(Vec::len), Some(5));
    assert_eq!(answer["freshness"]["views"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn an_error_in_the_sql_is_told_with_its_place() {
    let world = World::new().await;
    let (status, problem) = world.sql("SELECT usage_point\nFROM meter\nWHERE kw > 1").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!((&problem["line"], &problem["column"]), (&json!(3), &json!(7)), "{problem}");
    let (status, problem) = world.sql("SELECT FROM WHERE").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(problem["line"], 1, "{problem}");
    let (status, problem) = world.sql("SELECT * FROM metre").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(problem["hint"].as_str().expect("a hint").contains("meter"), "{problem}");
}

#[tokio::test]
async fn only_queries_are_answered() {
    let world = World::new().await;
    for sql in [
        "CREATE TABLE t AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/tmp/x'",
        "INSERT INTO meter VALUES ('a')",
        "DROP TABLE meter",
        "SET datafusion.execution.batch_size = 1",
        "COPY (SELECT 1) TO 'sanso://dataset/x.parquet'",
        "SELECT 1; SELECT 2",
        "SELECT * FROM '/etc/passwd'",
    ] {
        let (status, problem) = world.sql(sql).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{sql}: {problem}");
    }
    for sql in ["EXPLAIN SELECT * FROM meter", "SHOW TABLES", "VALUES (1)", "SELECT 1 + 1"] {
        let (status, answer) = world.sql(sql).await;
        assert_eq!(status, StatusCode::OK, "{sql}: {answer}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_a_query_is_refused() {
    let world = World::new().await;
    for body in
        ["", "SELECT 1", "[]", "{}", r#"{"sql": 1}"#, r#"{"sql": " "}"#, r#"{"sql": "SELECT 1", "limit": 1}"#]
    {
        let (status, problem) = world.post("/v1/query", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {problem}");
        assert_eq!(problem["type"], "urn:sanso:problem:bad-body");
    }
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_stopped() {
    let world = World::new().await;
    let endless = json!({ "sql": "SELECT COUNT(*) FROM generate_series(1, 1000000000000)" }).to_string();
    let (status, problem) = world.post("/v1/query?deadline=50", endless).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(problem["deadline_ms"], 50);
}

#[tokio::test]
async fn a_query_that_needs_too_much_memory_is_refused() {
    let config = ServingConfig { query_memory_bytes_max: 1 << 20, ..ServingConfig::default() };
    let world = World::with(config).await;
    let (status, problem) =
        world.sql("SELECT * FROM generate_series(1, 5000000) AS t(v) ORDER BY v DESC").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    assert_eq!(problem["type"], "urn:sanso:problem:query-memory");
}

#[tokio::test]
async fn a_long_answer_is_cut_and_says_so() {
    let world = World::new().await;
    let body = json!({ "sql": "SELECT v FROM generate_series(1, 100) AS t(v) ORDER BY v" }).to_string();
    let (_, answer) = world.post("/v1/query?limit=3", body.clone()).await;
    assert_eq!(answer["rows"], json!([[1], [2], [3]]));
    assert_eq!(answer["truncated"], true);
    let (_, answer) = world.post("/v1/query?limit=100", body).await;
    assert_eq!(answer["truncated"], false);
}

#[tokio::test]
async fn a_query_waits_for_what_its_session_has_seen() {
    let world = World::new().await;
    let token = world.ingest(&[line("m1", "E1", "2024-07-01T00:00:00Z", "1")]).await["session"].clone();
    let token = token.as_str().expect("a token");
    let body = json!({ "sql": "SELECT COUNT(*) FROM meter" }).to_string();
    let (status, problem) =
        world.post(&format!("/v1/query?session={token}&deadline=2000"), body.clone()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
    assert_eq!(problem["type"], "urn:sanso:problem:behind-session");
    world.apply().await;
    let (_, answer) = world.post(&format!("/v1/query?session={token}"), body).await;
    assert_eq!(answer["rows"], json!([[1]]));
}
