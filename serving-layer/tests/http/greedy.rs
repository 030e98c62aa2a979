//! SQL that would eat all memory or all time: refused with the budget it ran into.

use axum::http::StatusCode;
use sanso_serving::ServingConfig;
use serde_json::json;

use crate::server::{Server, read_until, request};
use crate::world::{World, sample};

fn small() -> ServingConfig {
    ServingConfig {
        query_memory_bytes_max: 1 << 20,
        answer_bytes_max: 64 << 10,
        // What is refused is refused for its size, however slow the machine is.
        deadline_ms: 60_000,
        ..ServingConfig::default()
    }
}

#[tokio::test]
async fn a_query_beyond_its_memory_is_refused_with_the_budget() {
    let world = World::with(small()).await;
    for sql in [
        "SELECT v FROM generate_series(1, 10000000) AS t(v) ORDER BY -v",
        "SELECT v, COUNT(*) FROM generate_series(1, 10000000) AS t(v) GROUP BY v",
        "SELECT COUNT(DISTINCT v) FROM generate_series(1, 10000000) AS t(v)",
        "SELECT COUNT(*) FROM generate_series(1, 10000000) AS a(v) JOIN generate_series(1, 10000000) AS b(w) ON v = w",
        "SELECT array_agg(v) FROM generate_series(1, 10000000) AS t(v)",
        "SELECT v, SUM(v) OVER (ORDER BY v ROWS UNBOUNDED PRECEDING) FROM generate_series(1, 10000000) AS t(v) ORDER BY 2 DESC",
    ] {
        let (status, problem) = world.sql(sql).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{sql}: {problem}");
        assert_eq!(problem["budget"], "serving.query_memory_bytes_max", "{sql}: {problem}");
        assert_eq!(problem["budget_bytes"], 1 << 20);
    }
}

#[tokio::test]
async fn a_view_is_not_copied_out_beyond_the_memory_of_its_query() {
    let config = ServingConfig { query_memory_bytes_max: 500, ..ServingConfig::default() };
    let world = World::with(config).await;
    world.ingest(&sample()).await;
    world.apply().await;
    let (status, problem) = world.sql("SELECT COUNT(*) FROM meter").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains("groups of view meter"), "{detail}");
}

#[tokio::test]
async fn an_answer_beyond_its_memory_is_refused_with_the_budget() {
    let world = World::with(small()).await;
    let (status, problem) = world.sql("SELECT v FROM generate_series(1, 10000000) AS t(v) LIMIT 9999").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    assert_eq!(problem["budget"], "serving.answer_bytes_max");
}

#[tokio::test]
async fn endless_work_ends_at_its_deadline() {
    let world = World::with(small()).await;
    for sql in [
        "SELECT COUNT(*) FROM generate_series(1, 1000000) AS a(v) CROSS JOIN generate_series(1, 1000000) AS b(w)",
        "SELECT MAX(v * w) FROM generate_series(1, 10000) AS a(v) JOIN generate_series(1, 1000000000) AS b(w) ON v < w",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT MAX(n) FROM t",
    ] {
        let body = json!({ "sql": sql }).to_string();
        let (status, problem) = world.post("/v1/query?deadline=100", body).await;
        let refused = [StatusCode::GATEWAY_TIMEOUT, StatusCode::UNPROCESSABLE_ENTITY];
        assert!(refused.contains(&status), "{sql}: {status} {problem}");
    }
    // Nothing of it goes on: the places and the memory are free again.
    let (status, answer) = world.sql("SELECT 1").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test]
async fn sql_that_is_nested_too_deep_is_refused_and_not_a_crash() {
    let world = World::new().await;
    let deep = [
        format!("SELECT {}1", "1+".repeat(1_999)),
        format!("SELECT 1 = {}1", "1 OR 1 = ".repeat(990)),
        format!("SELECT * FROM ({}) AS t", vec!["SELECT 1"; 1_900].join(" UNION ALL ")),
        format!("SELECT {}1", "1+".repeat(15_000)),
        format!("SELECT {}1{}", "(".repeat(15_000), ")".repeat(15_000)),
        format!("SELECT {}1", "NOT ".repeat(10_000)),
        format!("SELECT -{}1", "- ".repeat(15_000)),
        format!("{}SELECT 1{}", "SELECT * FROM (".repeat(3_000), ") AS t".repeat(3_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(3_000)),
        format!("SELECT CASE {} END", "WHEN 1 = 2 THEN 3 ".repeat(3_000)),
    ];
    for sql in deep {
        let (status, answer) = world.sql(&sql).await;
        assert!(status != StatusCode::INTERNAL_SERVER_ERROR, "{}: {status} {answer}", &sql[..60]);
    }
}

#[tokio::test]
async fn sql_that_names_its_parts_again_and_again_is_refused_before_it_is_planned() {
    let world = World::new().await;
    let doubled: Vec<String> = (1..30)
        .map(|i| format!("t{i} AS (SELECT a.v FROM t{0} a JOIN t{0} b ON a.v = b.v)", i - 1))
        .collect();
    let sql = format!("WITH t0 AS (SELECT 1 AS v), {} SELECT * FROM t29", doubled.join(", "));
    let (status, problem) = world.sql(&sql).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    assert_eq!(problem["type"], "urn:sanso:problem:query-too-complex");
    let sql = format!("WITH t0 AS (SELECT 1 AS v), {} SELECT * FROM t4", doubled[..4].join(", "));
    assert_eq!(world.sql(&sql).await.0, StatusCode::OK);
}

#[tokio::test]
async fn functions_that_make_text_of_any_length_are_not_there() {
    let world = World::new().await;
    for sql in [
        "SELECT repeat('x', 2000000000)",
        "SELECT lpad('x', 2000000000)",
        "SELECT rpad('x', 2000000000, 'y')",
    ] {
        let (status, problem) = world.sql(sql).await;
        assert_eq!(
            (status, &problem["type"]),
            (StatusCode::BAD_REQUEST, &json!("urn:sanso:problem:bad-sql")),
            "{sql}"
        );
    }
}

#[tokio::test]
async fn queries_beyond_those_that_may_wait_are_told_to_come_again() {
    let config = ServingConfig {
        queries_max: 1,
        queries_waiting_max: 1,
        deadline_ms: 300,
        ..ServingConfig::default()
    };
    let world = World::with(config).await;
    let endless = "SELECT COUNT(*) FROM generate_series(1, 1000000000000)";
    let (a, b, c) = tokio::join!(world.sql(endless), world.sql(endless), world.sql(endless));
    let mut statuses = [a.0.as_u16(), b.0.as_u16(), c.0.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [503, 504, 504]);
}

#[tokio::test]
async fn a_query_whose_client_left_gives_its_place_free() {
    let server = Server::start(ServingConfig { queries_max: 1, ..ServingConfig::default() }).await;
    let ask = |sql: &str| {
        let body = json!({ "sql": sql }).to_string();
        format!(
            "POST /v1/query?deadline=60000 HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let mut leaves = server.connect().await;
    request(&mut leaves, &ask("SELECT COUNT(*) FROM generate_series(1, 1000000000000)")).await;
    let mut stays = server.connect().await;
    request(&mut stays, &ask("SELECT 6 * 7 AS answer")).await;
    drop(leaves);
    read_until(&mut stays, "42").await;
}
