//! The log with a stand-in registry: what readers and writers see, and when the registry fails.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::Mutex;
use sanso_log::{Append, Log, LogError, MemoryLog, Retry, TopicSpec};
use sanso_schema::{Format, Registry, RegistryConfig, TopicFormat, TranscodingLog};
use serde_json::{Value, json};

/// What the stand-in knows: answers by path. Shared with the test.
type Answers = Arc<Mutex<BTreeMap<String, Value>>>;

async fn answer(State(answers): State<Answers>, Path(path): Path<String>) -> Result<Json<Value>, StatusCode> {
    answers.lock().get(&path).cloned().map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn registry() -> (SocketAddr, Answers) {
    let (address, answers, _) = stoppable_registry().await;
    (address, answers)
}

async fn stoppable_registry() -> (SocketAddr, Answers, tokio::task::JoinHandle<()>) {
    let answers = Answers::default();
    let routes = Router::new().route("/{*path}", get(answer)).with_state(Arc::clone(&answers));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let task = tokio::spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
    (address, answers, task)
}

const FIRST: &str = r#"{"type":"record","name":"R","fields":[{"name":"meter","type":"string"},
  {"name":"value","type":{"type":"bytes","logicalType":"decimal","precision":18,"scale":3}}]}"#;
const SECOND: &str = r#"{"type":"record","name":"R","fields":[{"name":"version","type":"long","default":1},
  {"name":"meter","type":"string"},
  {"name":"value","type":["null",{"type":"bytes","logicalType":"decimal","precision":18,"scale":6}]}]}"#;

fn register(answers: &Answers, id: u32, schema: &str) {
    let mut answers = answers.lock();
    answers.insert(format!("schemas/ids/{id}"), json!({ "schema": schema }));
    answers.insert(
        "subjects/readings-value/versions/latest".into(),
        json!({ "subject": "readings-value", "version": id, "id": id, "schema": schema }),
    );
}

struct World {
    raw: Arc<dyn Log>,
    address: SocketAddr,
}

impl World {
    async fn new(address: SocketAddr) -> Self {
        let raw: Arc<dyn Log> = Arc::new(MemoryLog::new());
        raw.ensure_topic(&TopicSpec::new("readings", 1)).await.expect("a topic");
        Self { raw, address }
    }

    /// A wrapper that knows no schema yet, as after a restart.
    fn log(&self, refused_schemas: &[u32]) -> TranscodingLog {
        let config = RegistryConfig {
            url: format!("http://{}", self.address),
            login: None,
            latest_max: Duration::ZERO,
        };
        let topic = TopicFormat {
            registry: Registry::new(config, Format::Avro),
            subject: "readings-value".into(),
            columns: vec!["meter".into(), "value".into(), "version".into()],
            refused_schemas: BTreeSet::from_iter(refused_schemas.iter().copied()),
        };
        TranscodingLog::new(Arc::clone(&self.raw), BTreeMap::from([("readings".to_owned(), topic)]))
    }

    async fn put(&self, bytes: &[u8]) {
        self.raw.append("readings", 0, vec![Append::unkeyed(bytes.to_vec())]).await.expect("append");
    }
}

async fn append(log: &TranscodingLog, lines: &[&str]) -> Result<Vec<u64>, LogError> {
    let records = lines.iter().map(|line| Append::keyed("M1", line.as_bytes().to_vec())).collect();
    log.append("readings", 0, records).await
}

async fn read(log: &TranscodingLog, from: u64) -> Result<(Vec<String>, u64), LogError> {
    let batch = log.read("readings", 0, from, 100, 1 << 20).await?;
    let text = |payload: &[u8]| String::from_utf8(payload.to_vec()).expect("text");
    Ok((batch.records.iter().map(|record| text(&record.payload)).collect(), batch.next))
}

#[tokio::test]
async fn records_of_two_schemas_in_one_topic_read_back() {
    let (address, answers) = registry().await;
    let world = World::new(address).await;
    register(&answers, 1, FIRST);
    append(&world.log(&[]), &[r#"{"meter":"M1","value":1.5}"#]).await.expect("append");
    register(&answers, 2, SECOND);
    append(&world.log(&[]), &[r#"{"meter":"M1","value":null,"version":2}"#, r#"{"meter":"M1","value":2}"#])
        .await
        .expect("append");
    let stored = world.raw.read("readings", 0, 0, 10, 1 << 20).await.expect("read").records;
    assert_eq!(&stored[0].payload[..7], [0, 0, 0, 0, 1, 4, b'M']);
    assert_eq!(&stored[1].payload[..5], [0, 0, 0, 0, 2]);
    let (lines, next) = read(&world.log(&[]), 0).await.expect("read");
    assert_eq!(next, 3);
    assert_eq!(
        lines,
        [
            r#"{"meter":"M1","value":1.500}"#,
            r#"{"version":2,"meter":"M1","value":null}"#,
            r#"{"version":1,"meter":"M1","value":2.000000}"#,
        ]
    );
}

#[tokio::test]
async fn what_can_never_be_read_is_handed_on_with_its_reason_and_bytes() {
    let (address, answers) = registry().await;
    let world = World::new(address).await;
    register(&answers, 1, FIRST);
    answers.lock().insert("schemas/ids/9".into(), json!({ "schema": "{}", "schemaType": "JSON" }));
    world.put(b"{\"meter\":\"M1\"}").await;
    world.put(&[0, 0, 0, 0, 1, 4, b'M']).await;
    world.put(&[0, 0, 0, 0, 9, 1]).await;
    world.put(&[0, 0, 0, 0, 8, 1]).await;
    world.put(b"").await;
    let (lines, next) = read(&world.log(&[8]), 0).await.expect("read");
    assert_eq!((lines.len(), next), (5, 5));
    let check = |at: usize, bytes: &str, reason: &str| {
        let found: Value = serde_json::from_str(&lines[at]).expect("JSON");
        let found = &found["$undecodable"];
        assert_eq!(found["bytes"], bytes);
        assert!(found["reason"].as_str().expect("a reason").contains(reason), "{found}");
    };
    check(0, "eyJtZXRlciI6Ik0xIn0=", "begins with byte 0x7b");
    check(1, "AAAAAAEETQ==", "schema 1: field meter: 2 bytes are claimed, 1 are left");
    check(2, "AAAAAAkB", "schema 9: it is of type JSON");
    check(3, "AAAAAAgB", "schema 8 is declared refused");
    check(4, "", "the record is empty");
}

#[tokio::test]
async fn an_unknown_schema_is_waited_for_and_nothing_is_skipped() {
    let (address, answers) = registry().await;
    let world = World::new(address).await;
    register(&answers, 1, FIRST);
    let log = world.log(&[]);
    append(&log, &[r#"{"meter":"M1","value":1}"#]).await.expect("append");
    world.put(&[0, 0, 0, 0, 2, 6, 4, b'M', b'2', 0]).await;
    append(&log, &[r#"{"meter":"M3","value":3}"#]).await.expect("append");
    let (lines, next) = read(&log, 0).await.expect("what comes before");
    assert_eq!((lines.len(), next), (1, 1));
    let error = read(&log, 1).await.expect_err("unknown schema");
    assert_eq!(error.retry(), Retry::Later);
    assert!(error.to_string().contains("record readings/0/1 waits"), "{error}");
    assert!(error.to_string().contains("schemas/ids/2"), "{error}");
    register(&answers, 2, SECOND);
    let (lines, next) = read(&log, 1).await.expect("read");
    assert_eq!((lines[0].as_str(), next), (r#"{"version":3,"meter":"M2","value":null}"#, 3));
}

#[tokio::test]
async fn a_registry_out_of_reach_holds_appends_and_says_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let world = World::new(listener.local_addr().expect("an address")).await;
    drop(listener);
    let error = append(&world.log(&[]), &[r#"{"meter":"M1","value":1}"#]).await.expect_err("no registry");
    assert_eq!(error.retry(), Retry::Later);
    assert!(error.to_string().contains("out of reach"), "{error}");
    assert_eq!(world.raw.end_offset("readings", 0).await.expect("end"), 0);
}

#[tokio::test]
async fn a_registry_that_went_away_stops_no_writer_who_asked_before() {
    let (address, answers, task) = stoppable_registry().await;
    let world = World::new(address).await;
    register(&answers, 1, FIRST);
    let log = world.log(&[]);
    append(&log, &[r#"{"meter":"M1","value":1}"#]).await.expect("append");
    task.abort();
    assert!(task.await.expect_err("it was aborted").is_cancelled());
    append(&log, &[r#"{"meter":"M1","value":2}"#]).await.expect("append");
    assert_eq!(read(&log, 0).await.expect("read").0.len(), 2);
    append(&world.log(&[]), &[r#"{"meter":"M1","value":3}"#]).await.expect_err("this one never asked");
}

#[tokio::test]
async fn lines_that_do_not_fit_are_named_and_none_is_appended() {
    let (address, answers) = registry().await;
    let world = World::new(address).await;
    register(&answers, 1, FIRST);
    let lines = [
        r#"{"meter":"M1","value":0.0001}"#,
        r#"{"meter":"M1","value":1,"other":"left out"}"#,
        r#"{"meter":"M1","value":1,"version":2}"#,
    ];
    let error = append(&world.log(&[]), &lines).await.expect_err("two do not fit");
    let LogError::Unwritable { refused } = error else { panic!("{error}") };
    assert_eq!(refused.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 2]);
    assert!(refused[0].1.contains("decimal(18, 3)"), "{}", refused[0].1);
    assert!(refused[1].1.contains("no field version"), "{}", refused[1].1);
    assert_eq!(world.raw.end_offset("readings", 0).await.expect("end"), 0);
}

#[tokio::test]
async fn references_are_fetched_each_once_named() {
    let (address, answers) = registry().await;
    let text = |name: &str, of: &str| {
        format!(r#"{{"type":"record","name":"{name}","fields":[{{"name":"x","type":{of}}}]}}"#)
    };
    let reference = |name: &str| json!({ "name": name, "subject": format!("of {name}"), "version": 1 });
    // D refers to B and C; C refers to B as well.
    let c = json!({ "schema": text("C", "\"B\""), "references": [reference("B")] });
    let d = json!({ "schema": text("D", "[\"B\",\"C\"]"), "references": [reference("B"), reference("C")] });
    let b = json!({ "schema": text("B", "\"int\"") });
    answers.lock().extend([
        ("subjects/of B/versions/1".to_owned(), b),
        ("subjects/of C/versions/1".to_owned(), c),
        ("schemas/ids/4".to_owned(), d),
    ]);
    let config =
        RegistryConfig { url: format!("http://{address}/"), login: None, latest_max: Duration::ZERO };
    let schema = Registry::new(config, Format::Avro).schema(4).await.expect("an answer");
    let schema = schema.as_ref().as_ref().expect("a good schema");
    assert_eq!(schema.decode(&[2, 6]).expect("a record"), r#"{"x":{"x":{"x":3}}}"#);
}
