//! `GET /v1/views/{view}/stream`.

use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode, header};
use futures::StreamExt;
use sanso_log::partition_for_key;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::world::{World, create, line, sample};

/// Reads events of a stream one by one.
struct Events {
    body: BodyDataStream,
    text: String,
}

impl Events {
    async fn open(world: &World, path: &str) -> Self {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = world.router.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let event: String = self.text.drain(..end + 2).collect();
                if event.starts_with(':') {
                    continue;
                }
                let field = |name: &str| {
                    let found = event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    found.unwrap_or_else(|| panic!("no {name} in {event}")).to_owned()
                };
                return (field("event"), serde_json::from_str(&field("data")).expect("JSON"));
            }
            let part = self.body.next().await.expect("the stream goes on").expect("no error");
            self.text.push_str(std::str::from_utf8(&part).expect("text"));
        }
    }
}

#[tokio::test]
async fn a_snapshot_comes_first_and_then_the_rows_that_change() {
    let world = World::new().await;
    world.ingest(&sample()).await;
    world.apply().await;
    let mut events = Events::open(&world, "/v1/views/meter/stream?key=m1").await;
    let (kind, data) = events.next().await;
    assert_eq!(kind, "snapshot");
    assert_eq!(data["rows"].as_array().map(Vec::len), Some(3));
    world.ingest(&[line("m2", "E1", "2024-07-01T00:30:00Z", "1")]).await;
    world.ingest(&[line("m1", "E1", "2024-07-01T00:45:00Z", "0.000001")]).await;
    world.apply().await;
    let (kind, data) = events.next().await;
    assert_eq!(kind, "update");
    assert_eq!(data["rows"].as_array().map(Vec::len), Some(1));
    assert_eq!(data["rows"][0][0], "m1");
    assert_eq!(data["rows"][0][2].to_string(), "0.300002");
    assert_eq!(data["removed"], json!([]));
}

#[tokio::test]
async fn a_node_that_has_nothing_of_a_view_follows_it_from_afar() {
    let world = World::elsewhere().await;
    world.ingest(&sample()).await;
    world.apply().await;
    let mut events = Events::open(&world, "/v1/views/meter/stream?key=m1").await;
    let (kind, data) = events.next().await;
    assert_eq!((kind.as_str(), data["rows"].as_array().map(Vec::len)), ("snapshot", Some(3)));
    for (minute, sum) in [(45, "0.300002"), (46, "0.300003")] {
        world.ingest(&[line("m1", "E1", &format!("2024-07-01T00:{minute}:00Z"), "0.000001")]).await;
        world.apply().await;
        let (kind, data) = events.next().await;
        assert_eq!((kind.as_str(), data["rows"][0][2].to_string().as_str()), ("snapshot", sum));
    }
}

#[tokio::test]
async fn a_window_that_lost_all_its_rows_is_removed() {
    let world = World::new().await;
    let only = line("m1", "E1", "2024-07-01T00:00:00Z", "1");
    world.ingest(std::slice::from_ref(&only)).await;
    world.apply().await;
    let mut events = Events::open(&world, "/v1/views/hourly/stream").await;
    assert_eq!(events.next().await.0, "snapshot");
    world.retract(partition_for_key(b"m1", 2), &only).await;
    let (kind, data) = events.next().await;
    assert_eq!(kind, "update");
    assert_eq!(data["rows"], json!([]));
    assert_eq!(data["removed"], json!([{ "key": ["m1", "E1"], "window_start": "2024-07-01T00:00:00Z" }]));
}

#[tokio::test]
async fn every_sliding_window_of_a_changed_pane_is_sent_whole() {
    let world = World::new().await;
    world.ingest(&sample()).await;
    world.apply().await;
    let mut events = Events::open(&world, "/v1/views/rolling/stream?key=m1").await;
    events.next().await;
    world.ingest(&[line("m1", "E1", "2024-07-01T00:59:00Z", "10")]).await;
    world.apply().await;
    let (_, data) = events.next().await;
    let rows: Vec<(String, String)> = data["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (row[1].to_string(), row[2].to_string()))
        .collect();
    assert_eq!(
        rows,
        [
            ("\"2024-06-30T23:00:00Z\"".to_owned(), "10.300001".to_owned()),
            ("\"2024-07-01T00:00:00Z\"".to_owned(), "11.300001".to_owned()),
        ]
    );
}

#[tokio::test]
async fn a_reader_that_fell_behind_gets_a_snapshot() {
    let world = World::new().await;
    let mut events = Events::open(&world, "/v1/views/meter/stream?key=m1").await;
    assert_eq!(events.next().await.0, "snapshot");
    let lines: Vec<String> = (0..600)
        .map(|i| line("m1", "E1", &format!("2024-07-01T00:{:02}:{:02}Z", i / 60, i % 60), "1"))
        .collect();
    world.ingest(&lines).await;
    // Nobody reads meanwhile, and the store keeps 256 changes.
    world.apply().await;
    let (kind, data) = events.next().await;
    assert_eq!(kind, "snapshot");
    assert_eq!(data["rows"][0][2].to_string(), "600.000000");
}

#[tokio::test]
async fn a_replaced_partition_is_read_again() {
    let world = World::new().await;
    world.ingest(&sample()).await;
    world.apply().await;
    let mut events = Events::open(&world, "/v1/views/meter/stream").await;
    assert_eq!(events.next().await.1["rows"].as_array().map(Vec::len), Some(5));
    let view = world.view("meter").clone();
    (0..view.partitions).for_each(|index| create(&world.store, &view, index));
    let (kind, data) = events.next().await;
    assert_eq!((kind.as_str(), &data["rows"]), ("snapshot", &json!([])));
}

#[tokio::test]
async fn a_stream_ends_when_its_view_is_gone() {
    let world = World::new().await;
    let mut events = Events::open(&world, "/v1/views/meter/stream").await;
    events.next().await;
    world.catalog.update(|catalog| {
        catalog.serving.remove("meter");
    });
    assert_eq!(events.next().await.0, "end");
    assert!(events.body.next().await.is_none());
}
