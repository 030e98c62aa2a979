//! `GET /v1/views` and `GET /v1/views/{view}`.

use std::io::Cursor;

use arrow::ipc::reader::StreamReader;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use sanso_core::{PartitionId, PartitionStore};
use serde_json::json;
use tower::ServiceExt;

use crate::world::{World, create, line, sample};

async fn filled() -> World {
    let world = World::new().await;
    world.ingest(&sample()).await;
    world.apply().await;
    world
}

#[tokio::test]
async fn the_views_are_listed_with_their_columns_key_and_window() {
    let world = World::new().await;
    let (status, answer) = world.get("/v1/views").await;
    assert_eq!(status, StatusCode::OK);
    let names: Vec<&str> =
        answer["views"].as_array().expect("a list").iter().filter_map(|v| v["name"].as_str()).collect();
    assert_eq!(names, ["everything", "hourly", "meter", "rolling"]);
    let hourly = &answer["views"][1];
    assert_eq!(hourly["key"], json!([{"name":"usage_point","type":"text"},{"name":"channel","type":"text"}]));
    assert_eq!(hourly["columns"][2], json!({"name":"hour","type":"timestamp"}));
    assert_eq!(hourly["window"]["kind"], "tumbling");
    assert_eq!(hourly["window"]["column"], "hour");
    assert_eq!(hourly["source"], "readings");
    assert_eq!(answer["views"][3]["window"]["kind"], "sliding");
    assert_eq!(answer["views"][0]["window"]["kind"], "none");
}

#[tokio::test]
async fn decimals_are_numbers_exact_to_the_last_digit() {
    let world = filled().await;
    let (status, text) = world.text("/v1/views/meter?key=m2&key=m1").await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains(r#"["m1","2024-07-01T00:00:00Z",0.300001,"#), "{text}");
    assert!(text.contains(r#"["m2","2024-07-01T00:00:00Z",999999999999.999999,"#), "{text}");
    assert!(text.contains(r#"["m1","2024-07-01T02:00:00Z",-3.500000,"#), "{text}");
}

#[tokio::test]
async fn rows_come_in_order_of_key_and_window() {
    let world = filled().await;
    let (_, answer) = world.get("/v1/views/meter").await;
    let rows = answer["rows"].as_array().expect("rows");
    let order: Vec<String> = rows.iter().map(|row| format!("{} {}", row[0], row[1])).collect();
    let mut sorted = order.clone();
    sorted.sort();
    assert_eq!(order.len(), 5);
    assert_eq!(order, sorted);
}

#[tokio::test]
async fn a_range_of_time_is_half_open_on_the_windows_start() {
    let world = filled().await;
    let (_, answer) =
        world.get("/v1/views/meter?key=m1&from=2024-07-01T01:00:00Z&to=2024-07-01T02:00:00Z").await;
    assert_eq!(answer["rows"].as_array().map(Vec::len), Some(1));
    assert_eq!(answer["rows"][0][1], "2024-07-01T01:00:00Z");
    let (_, answer) =
        world.get("/v1/views/meter?key=m1&from=2024-07-01T11:00:00%2B10:00&to=2024-07-02").await;
    assert_eq!(answer["rows"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_sliding_window_is_whole_even_at_the_ends_of_the_range() {
    let world = filled().await;
    let (_, text) =
        world.text("/v1/views/rolling?key=m1&from=2024-07-01T00:00:00Z&to=2024-07-01T01:00:00Z").await;
    // 00:00 to 02:00 holds both hours, although the second begins at `to`.
    assert!(text.contains(r#""rows":[["m1","2024-07-01T00:00:00Z",1.300001,"#), "{text}");
}

#[tokio::test]
async fn parts_of_a_composite_key_are_separated_by_commas() {
    let world = World::new().await;
    let odd = line(r"a,b", "E1", "2024-07-01T00:00:00Z", "1");
    world.ingest(&[odd, line("a", "b", "2024-07-01T00:00:00Z", "2")]).await;
    world.apply().await;
    let (_, answer) = world.get(r"/v1/views/hourly?key=a%5C,b,E1").await;
    assert_eq!(answer["rows"][0][0], "a,b");
    assert_eq!(answer["rows"].as_array().map(Vec::len), Some(1));
    let (status, problem) = world.get("/v1/views/hourly?key=a").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(problem["hint"].as_str().expect("a hint").contains("usage_point, channel"), "{problem}");
}

#[tokio::test]
async fn the_top_n_are_ordered_by_a_column() {
    let world = filled().await;
    let (_, text) = world.text("/v1/views/meter?by=kwh&top=2").await;
    assert!(text.contains(r#""rows":[["m2","2024-07-01T00:00:00Z",999999999999.999999,"#), "{text}");
    let (_, answer) = world.get("/v1/views/meter?by=kwh&order=asc&limit=1").await;
    assert_eq!(answer["rows"][0][1], "2024-07-01T02:00:00Z");
    assert_eq!(answer["truncated"], true);
    let (status, problem) = world.get("/v1/views/meter?by=kw&top=2").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(problem["hint"].as_str().expect("a hint").contains("kwh"), "{problem}");
}

#[tokio::test]
async fn a_bounded_answer_says_that_rows_are_missing() {
    let world = filled().await;
    let (_, answer) = world.get("/v1/views/meter?limit=2").await;
    assert_eq!(answer["rows"].as_array().map(Vec::len), Some(2));
    assert_eq!((&answer["truncated"], &answer["complete"]), (&json!(true), &json!(true)));
    let (_, answer) = world.get("/v1/views/meter?limit=5").await;
    assert_eq!(answer["truncated"], false);
}

#[tokio::test]
async fn rows_can_be_objects() {
    let world = filled().await;
    let (_, answer) = world.get("/v1/views/everything?key=B1&format=objects").await;
    assert_eq!(answer["rows"][0]["channel"], "B1");
    assert_eq!(answer["rows"][0]["kwh"].to_string(), "-3.500000");
}

#[tokio::test]
async fn an_answer_can_be_an_arrow_stream_with_its_freshness() {
    let world = filled().await;
    let request = Request::get("/v1/views/meter?key=m1")
        .header(header::ACCEPT, "application/vnd.apache.arrow.stream")
        .body(Body::empty())
        .expect("a request");
    let response = world.router.clone().oneshot(request).await.expect("infallible");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/vnd.apache.arrow.stream");
    let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    let reader = StreamReader::try_new(Cursor::new(bytes), None).expect("an Arrow stream");
    let freshness = reader.schema().metadata()["sanso.freshness"].clone();
    assert!(freshness.contains("\"applied\":{\"readings\":["), "{freshness}");
    let rows: usize = reader.map(|batch| batch.expect("a batch").num_rows()).sum();
    assert_eq!(rows, 3);
}

#[tokio::test]
async fn freshness_says_what_is_applied_and_what_is_still_to_come() {
    let world = filled().await;
    let (_, answer) = world.get("/v1/views/meter?staleness=60000").await;
    let fresh = &answer["freshness"];
    let applied: u64 =
        fresh["applied"]["readings"].as_array().expect("offsets").iter().filter_map(|v| v.as_u64()).sum();
    assert_eq!(applied, 6);
    assert_eq!((&fresh["lag_records"], &fresh["corrections_pending"]), (&json!(0), &json!(false)));
    assert_eq!((&fresh["partitions_answered"], &fresh["partitions_total"]), (&json!(4), &json!(4)));
    assert_eq!(fresh["batch_version"], 0);
    assert_eq!(fresh["views"][0]["view"], "meter");
    world.ingest(&[line("m3", "E1", "2024-07-01T00:00:00Z", "1")]).await;
    let (status, problem) = world.get("/v1/views/meter?staleness=0&deadline=30").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(problem["type"], "urn:sanso:problem:too-stale");
    let (_, answer) = world.get("/v1/views/meter").await;
    assert_eq!(answer["freshness"]["lag_records"], 1);
    assert_eq!(answer["freshness"]["corrections_pending"], true);
}

#[tokio::test]
async fn a_node_that_is_cut_off_does_not_wait_for_what_it_will_not_get() {
    let world = World::cut_off().await;
    let token = world.ingest(&sample()).await["session"].as_str().expect("a token").to_owned();
    // What it has, it still answers with.
    let (status, _) = world.get("/v1/views/meter?key=m1").await;
    assert_eq!(status, StatusCode::OK);
    for path in ["/v1/views/meter?key=m1", "/v1/views/meter?"] {
        let (status, problem) = world.get(&format!("{path}&session={token}&deadline=60000")).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
        assert_eq!(problem["type"], "urn:sanso:problem:behind-session");
        assert_eq!(problem["hint"], "ask another node: this one does not hear from its cluster");
    }
    let (status, problem) = world.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(problem.to_string().contains("does not hear from most of its cluster"), "{problem}");
}

#[tokio::test]
async fn a_session_waits_for_what_it_has_seen() {
    let world = World::new().await;
    let token = world.ingest(&sample()).await["session"].as_str().expect("a token").to_owned();
    let path = format!("/v1/views/meter?key=m1&session={token}");
    let (status, problem) = world.get(&format!("{path}&deadline=30")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(problem["type"], "urn:sanso:problem:behind-session");
    let ((status, answer), ()) = tokio::join!(world.get(&path), world.apply());
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["rows"].as_array().map(Vec::len), Some(3));
    let (status, _) = world.get("/v1/views/meter?session=made-up").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_missing_partition_is_refused_unless_the_caller_allows_it() {
    let world = filled().await;
    let view = world.view("meter").clone();
    world.store.remove(view.fingerprint);
    create(&world.store, &view, 0);
    create(&world.store, &view, 1);
    let (status, problem) = world.get("/v1/views/meter").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(problem["type"], "urn:sanso:problem:partition-not-live");
    let (status, answer) = world.get("/v1/views/meter?partial=allow").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["complete"], false);
    assert_eq!(answer["freshness"]["partitions_answered"], 2);
    assert_eq!(answer["freshness"]["partitions_total"], 4);
}

#[tokio::test]
async fn what_does_not_exist_is_refused_naming_what_does() {
    let world = World::new().await;
    let (status, problem) = world.get("/v1/views/hurly").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(problem["existing"], json!(["everything", "hourly", "meter", "rolling"]));
    let (status, problem) = world.get("/v1/views/meter?kye=1").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(problem["hint"].as_str().expect("a hint").contains("key, from, to"), "{problem}");
    let (status, _) = world.get("/v1/views/everything?from=2024-01-01").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = world.get("/v1/views/meter?from=2024-01-02&to=2024-01-01").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn every_partition_of_a_view_is_found_by_its_keys() {
    let world = World::new().await;
    let points: Vec<String> = (0..40).map(|i| format!("p{i}")).collect();
    let lines: Vec<String> =
        points.iter().map(|point| line(point, "E1", "2024-07-01T00:00:00Z", "1")).collect();
    world.ingest(&lines).await;
    world.apply().await;
    let used = |store: &PartitionStore| {
        store.list().iter().filter(|id: &&PartitionId| id.view == world.view("meter").fingerprint).count()
    };
    assert_eq!(used(&world.store), 4);
    for point in points {
        let (_, answer) = world.get(&format!("/v1/views/meter?key={point}")).await;
        assert_eq!(answer["rows"][0][0], point.as_str());
    }
}
