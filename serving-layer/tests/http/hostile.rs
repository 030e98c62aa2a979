//! Clients that are slow, silent, wrong or greedy: each is told or cut off, and
//! the next one is served. Nothing here waits for a time of its own: where a
//! client must lose its place, the next client gets it.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode, header};
use futures::stream;
use sanso_log::Log;
use sanso_serving::ServingConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tower::ServiceExt;

use crate::server::{Server, read_until, request};
use crate::world::{World, line};

const ALIVE: &str = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// One place for a connection, and little patience.
fn one_place() -> ServingConfig {
    ServingConfig {
        connections_max: 1,
        header_ms_max: 50,
        write_stall_ms_max: 50,
        ..ServingConfig::default()
    }
}

/// How long a place may take to come free before a test fails: far more than any here needs.
const PATIENCE: Duration = Duration::from_secs(60);

async fn is_answered(server: &Server, ask: &str, wanted: &str) {
    let answered = async {
        let mut next = server.connect().await;
        request(&mut next, ask).await;
        read_until(&mut next, wanted).await;
    };
    timeout(PATIENCE, answered).await.expect("the place of the client before came free");
}

async fn is_served(server: &Server) {
    is_answered(server, ALIVE, "alive").await;
}

#[tokio::test]
async fn a_client_that_never_ends_its_head_loses_its_place() {
    let server = Server::start(one_place()).await;
    let mut slow = server.connect().await;
    request(&mut slow, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Endless: ").await;
    is_served(&server).await;
    let silent = server.connect().await;
    is_served(&server).await;
    drop(silent);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_loses_its_place() {
    let server = Server::start(one_place()).await;
    let sql = format!("SELECT v, '{}' FROM generate_series(1, 20000) AS t(v)", "x".repeat(100));
    let body = json!({ "sql": sql }).to_string();
    let mut greedy = server.connect().await;
    let head =
        format!("POST /v1/query?limit=20000 HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    request(&mut greedy, &(head + &body)).await;
    is_served(&server).await;
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_loses_its_place_and_its_stream() {
    let config = ServingConfig { streams_max: 1, ..one_place() };
    let server = Server::start(config).await;
    let lines: Vec<String> =
        (0..400).map(|i| line(&format!("point-{i:04}"), "E1", "2024-07-01T00:00:00Z", "1")).collect();
    server.world.ingest(&lines).await;
    server.world.apply().await;
    let subscribe = "GET /v1/views/meter/stream HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut silent = server.connect().await;
    request(&mut silent, subscribe).await;
    is_answered(&server, subscribe, "event: snapshot").await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_success_and_leaves_no_part_in_the_log() {
    let server = Server::start(ServingConfig::default()).await;
    let (log, topic) = (&server.world.log, &server.world.source.topic);
    let ends = async || {
        (log.end_offset(topic, 0).await.expect("an end"), log.end_offset(topic, 1).await.expect("an end"))
    };
    let before = ends().await;
    let whole = line("m1", "E1", "2024-07-02T00:00:00Z", "1");
    let mut client = server.connect().await;
    let head = "POST /v1/ingest/readings HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n";
    request(&mut client, &format!("{head}{whole}\n{{\"usage_")).await;
    client.shutdown().await.expect("half-closes");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("reads to the end");
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    assert_eq!(ends().await, before);
    is_served(&server).await;
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let world = World::with(ServingConfig { body_stall_ms_max: 1, ..ServingConfig::default() }).await;
    let silence = stream::pending::<Result<Bytes, std::io::Error>>();
    let (status, problem) = world.post("/v1/ingest/readings", Body::from_stream(silence)).await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT, "{problem}");
    assert_eq!(problem["type"], "urn:sanso:problem:body-stalled");
}

#[tokio::test]
async fn encoded_bodies_and_those_of_another_kind_are_refused() {
    let world = World::new().await;
    for path in ["/v1/ingest/readings", "/v1/query"] {
        for (name, value) in [("content-encoding", "gzip"), ("content-type", "text/csv")] {
            let request = Request::post(path).header(name, value).body(Body::from("x")).expect("a request");
            let (status, text) = world.send(request).await;
            assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path} {name}: {text}");
        }
    }
}

#[tokio::test]
async fn a_query_longer_than_allowed_is_refused_with_the_limit() {
    let world = World::with(ServingConfig { sql_bytes_max: 100, ..ServingConfig::default() }).await;
    for length in [101, 10_000] {
        let (status, problem) = world.sql(&format!("SELECT '{}'", "x".repeat(length))).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{problem}");
        assert_eq!(problem["budget_bytes"], 100);
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_are_refused_as_what_they_are() {
    let world = World::new().await;
    for path in ["/v1/views/%FF", "/v1/sources/%C3%28", "/v1/views/%FF/stream", "/%FF"] {
        assert_eq!(world.get(path).await.0, StatusCode::BAD_REQUEST, "{path}");
    }
    let (status, problem) = world.post("/v1/query", &b"{\"sql\": \"\xff\"}"[..]).await;
    assert_eq!((status, &problem["type"]), (StatusCode::BAD_REQUEST, &json!("urn:sanso:problem:bad-body")));
    let (status, answer) =
        world.post("/v1/ingest/readings", &b"{\"usage_point\":\"\xff\"}\n\xc3\x28"[..]).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer["refused_count"], 2, "{answer}");
}

#[tokio::test]
async fn absurd_parameters_are_refused_by_name() {
    let world = World::new().await;
    let keys = "key=a&".repeat(1_001);
    for (parameters, name) in [
        ("limit=-1", "limit"),
        ("limit=1e309", "limit"),
        ("limit=18446744073709551616", "limit"),
        ("deadline=0", "deadline"),
        ("deadline=99999999999", "deadline"),
        ("from=9999999999999-01-01T00:00:00Z", "from"),
        ("from=2024-07-02&to=2024-07-01", "to"),
        ("staleness=NaN", "staleness"),
        ("by=%00", "by"),
        ("session=v1.zz", "session"),
        ("__proto__=1", "__proto__"),
        (keys.as_str(), "key"),
    ] {
        let (status, problem) = world.get(&format!("/v1/views/meter?{parameters}")).await;
        assert_eq!(
            (status, problem["parameter"].as_str()),
            (StatusCode::BAD_REQUEST, Some(name)),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn heads_beyond_their_bound_and_other_protocols_do_not_stop_the_server() {
    let server = Server::start(ServingConfig::default()).await;
    let long = "a".repeat(100_000);
    for (head, status) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), "414"),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {long}{long}\r\n\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "X-Many: 1\r\n".repeat(200)), "431"),
        ("\x16\x03\x01\x02\x00 this is TLS\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400"),
    ] {
        let mut client = server.connect().await;
        // The server may have answered and closed before it was all sent.
        let _ = client.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        // What is not read of the request resets the connection, which may cut the answer anywhere.
        let expected = format!("HTTP/1.1 {status}");
        assert!(answer.starts_with(&expected) || expected.starts_with(&*answer), "{status}: {answer}");
        is_served(&server).await;
    }
}

#[tokio::test]
async fn methods_that_a_path_does_not_take_are_refused_with_those_it_does() {
    let world = World::new().await;
    for (method, path) in
        [("BREW", "/v1/views"), ("DELETE", "/v1/views/meter"), ("GET", "/v1/query"), ("TRACE", "/")]
    {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        let response = world.router.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        assert!(response.headers().contains_key(header::ALLOW), "{method} {path}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(ServingConfig::default()).await;
    let mut client = server.connect().await;
    let first = "GET /v1/views/meter?key=m1 HTTP/1.1\r\nHost: x\r\n\r\n";
    let second = "GET /v1/views/nowhere HTTP/1.1\r\nHost: x\r\n\r\n";
    request(&mut client, &format!("{first}{second}{ALIVE}")).await;
    let text = read_until(&mut client, "alive").await;
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part} in {text}"));
    assert!(at("0.300001") < at("unknown-view") && at("unknown-view") < at("alive"));
}

#[tokio::test]
async fn subscribers_beyond_the_limit_are_told_when_to_come_again() {
    let world = World::with(ServingConfig { streams_max: 1, ..ServingConfig::default() }).await;
    let open = async || {
        let request = Request::get("/v1/views/meter/stream").body(Body::empty()).expect("a request");
        world.router.clone().oneshot(request).await.expect("infallible")
    };
    let first = open().await;
    let second = open().await;
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(second.headers()[header::RETRY_AFTER], "1");
    drop(first);
    assert_eq!(open().await.status(), StatusCode::OK);
}

#[tokio::test]
async fn ingestion_waits_outside_while_the_views_are_full() {
    let world = World::with(ServingConfig { view_groups_max: 3, ..ServingConfig::default() }).await;
    world.ingest(&[line("m1", "E1", "2024-07-01T00:00:00Z", "1")]).await;
    world.apply().await;
    let (status, problem) =
        world.post("/v1/ingest/readings", line("m2", "E1", "2024-07-01T00:00:00Z", "1")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
    assert_eq!(problem["type"], "urn:sanso:problem:views-full");
    assert_eq!(problem["acknowledged"], 0);
}

#[tokio::test]
async fn the_limits_show_their_use() {
    let world = World::new().await;
    let used = async |name: &str| {
        let (_, answer) = world.get("/v1/limits").await;
        let limits = answer["limits"].as_array().expect("limits").clone();
        let limit = limits.into_iter().find(|limit| limit["name"] == name);
        let limit: Value = limit.unwrap_or_else(|| panic!("no {name} in {answer}"));
        assert!(limit["max"].as_u64() > Some(0), "{limit}");
        limit["used"].as_u64().expect("a number")
    };
    assert_eq!((used("serving.requests").await, used("views.groups").await), (1, 0));
    world.ingest(&[line("m1", "E1", "2024-07-01T00:00:00Z", "1")]).await;
    world.apply().await;
    // One group in each view, and a pane of the sliding one.
    assert_eq!(used("views.groups").await, 4);
    let (_, text) = world.text("/metrics").await;
    assert!(text.contains("sanso_limit_used{limit=\"views.groups\",unit=\"groups\"} 4"), "{text}");
    assert!(text.contains("sanso_limit_max{limit=\"serving.requests\",unit=\"requests\"} 512"), "{text}");
}
