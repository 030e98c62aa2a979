//! `GET /v1/quarantine/{source}` over both layers, and `POST …/replay`.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use axum::http::StatusCode;
use parking_lot::Mutex;
use sanso_catalog::{Order, QuarantineStore};
use sanso_dataset::Manifest;
use sanso_log::{Log, partition_for_key};
use sanso_state::{Cut, Fingerprint, LogPartition, Offset, Quarantined, Refusal, RefusalCounts, SegmentId};
use serde_json::{Value, json};

use crate::world::{World, line};

/// What the speed layer keeps, in memory.
#[derive(Default)]
pub(crate) struct SpeedQuarantine(Mutex<Vec<Quarantined>>);

impl SpeedQuarantine {
    pub(crate) fn of(records: &[Quarantined]) -> Self {
        Self(Mutex::new(records.to_vec()))
    }

    fn select(&self, partition: u32, range: &Range<Offset>, of_views: bool) -> Vec<Quarantined> {
        let records = self.0.lock();
        let mine = records.iter().filter(|r| r.partition == partition && range.contains(&r.offset));
        let mut mine: Vec<_> = mine.filter(|r| r.view.is_some() == of_views).cloned().collect();
        mine.sort_by_key(|record| record.offset);
        mine
    }
}

fn tell(
    mut records: Vec<Quarantined>,
    order: Order,
    visit: &mut dyn FnMut(Quarantined) -> ControlFlow<()>,
) -> Result<(), String> {
    if order == Order::Falling {
        records.reverse();
    }
    let _ = records.into_iter().try_for_each(visit);
    Ok(())
}

impl QuarantineStore for SpeedQuarantine {
    fn visit(
        &self,
        _: &str,
        partition: u32,
        range: Range<Offset>,
        order: Order,
        visit: &mut dyn FnMut(Quarantined) -> ControlFlow<()>,
    ) -> Result<(), String> {
        tell(self.select(partition, &range, false), order, visit)
    }

    fn visit_expressions(
        &self,
        _: &str,
        partition: u32,
        range: Range<Offset>,
        order: Order,
        visit: &mut dyn FnMut(Quarantined) -> ControlFlow<()>,
    ) -> Result<(), String> {
        tell(self.select(partition, &range, true), order, visit)
    }

    fn counts(&self, _: &str, partition: u32, range: Range<Offset>) -> Result<RefusalCounts, String> {
        Ok(RefusalCounts::of(&self.select(partition, &range, false)))
    }

    fn expressions(&self, _: &str, partition: u32, views: &[Fingerprint]) -> Result<u64, String> {
        let all = self.select(partition, &(0..Offset::MAX), true);
        Ok(all.iter().filter(|r| r.view.is_some_and(|view| views.contains(&view))).count() as u64)
    }
}

/// An undecodable record; each partition's clock runs apart.
pub(crate) fn refused(partition: u32, offset: Offset) -> Quarantined {
    Quarantined {
        partition,
        offset,
        append_time_us: 1_000_000 * (offset as i64 + 1) + i64::from(partition),
        kind: Refusal::Undecodable,
        reason: "not JSON".to_owned(),
        view: None,
        payload: b"x".to_vec(),
    }
}

fn record(partition: u32, offset: Offset, kind: Refusal, payload: &str) -> Quarantined {
    Quarantined { kind, payload: payload.into(), ..refused(partition, offset) }
}

/// Batch holds partition 0 below 8; speed holds something there too, which must not be seen twice.
async fn divided(world: &World) {
    let batch = [refused(0, 1), record(0, 6, Refusal::Conflict, "{}")];
    let segment = SegmentId { partition: LogPartition(0), index: 0 };
    let file = world.dataset.put_quarantine("readings", segment, &batch).await.expect("writes");
    let manifest = Manifest {
        version: 1,
        cut: Cut::new(vec![8, 0]),
        quarantine: file.into_iter().collect(),
        ..Manifest::beginning("readings", 2, 8)
    };
    world.dataset.commit(&manifest).await.expect("commits");
    let view = |name: &str, offset| Quarantined {
        view: Some(world.view(name).fingerprint),
        reason: name.to_owned(),
        ..record(0, offset, Refusal::Expression, "{}")
    };
    let retired = Quarantined { view: Some(Fingerprint::of(b"retired")), ..view("hourly", 4) };
    let speed = [refused(0, 1), refused(0, 9), refused(1, 0), view("hourly", 3), view("meter", 3), retired];
    world.board.connect_quarantine(Arc::new(SpeedQuarantine::of(&speed)));
}

fn places(answer: &Value) -> Vec<(u64, u64)> {
    let records = answer["records"].as_array().expect("records");
    records.iter().map(|r| (r["partition"].as_u64().expect("a"), r["offset"].as_u64().expect("b"))).collect()
}

const ALL: [(u64, u64); 5] = [(0, 1), (0, 3), (0, 6), (0, 9), (1, 0)];

#[tokio::test]
async fn both_layers_parts_are_one_list_whatever_the_page_size() {
    let world = World::new().await;
    assert_eq!(world.get("/v1/quarantine/readings").await.0, StatusCode::SERVICE_UNAVAILABLE);
    divided(&world).await;
    for limit in 1..7 {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let (status, page) = world.get(&format!("/v1/quarantine/readings?limit={limit}{after}")).await;
            assert_eq!(status, StatusCode::OK, "{page}");
            let counts = json!({ "undecodable": 3, "misplaced": 0, "conflict": 1, "expression": 2 });
            assert_eq!((&page["count"], &page["counts"]), (&json!(6), &counts));
            found.extend(places(&page));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(found, ALL, "pages of {limit}");
    }
    let (_, page) = world.get("/v1/quarantine/readings?kind=expression").await;
    assert_eq!(page["records"][0]["reason"], "hourly\nmeter");
    assert_eq!(page["records"][0]["view"], "hourly");
}

#[tokio::test]
async fn the_newest_come_first_and_filters_leave_out_the_rest() {
    let world = World::new().await;
    divided(&world).await;
    for (query, expected) in [
        ("order=newest", vec![(0, 9), (0, 6), (0, 3), (0, 1), (1, 0)]),
        ("order=newest&limit=2", vec![(0, 9), (0, 6)]),
        ("kind=conflict", vec![(0, 6)]),
        ("kind=conflict&kind=expression", vec![(0, 3), (0, 6)]),
        ("kind=undecodable&partition=0", vec![(0, 1), (0, 9)]),
        ("from=1970-01-01T00:00:04Z&to=1970-01-01T00:00:10Z", vec![(0, 3), (0, 6)]),
        ("replayed=yes", vec![]),
        ("after=0:6", vec![(0, 9), (1, 0)]),
    ] {
        let (status, page) = world.get(&format!("/v1/quarantine/readings?{query}")).await;
        assert_eq!((status, places(&page)), (StatusCode::OK, expected), "{query}");
    }
    for query in ["after=x", "kind=other", "order=newest&after=0:1", "limit=0"] {
        let (status, _) = world.get(&format!("/v1/quarantine/readings?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
    }
}

/// The payloads in a log partition.
async fn payloads(world: &World, partition: u32) -> Vec<Value> {
    let batch = world.log.read("meter-readings", partition, 0, 100, usize::MAX).await.expect("reads");
    batch.records.iter().map(|record| serde_json::from_slice(&record.payload).expect("JSON")).collect()
}

async fn replay(world: &World, body: Value) -> Value {
    let (status, answer) = world.post("/v1/quarantine/readings/replay", body.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

fn lengths(answer: &Value) -> (usize, usize) {
    let length = |name: &str| answer[name].as_array().expect("a list").len();
    (length("replayed"), length("refused"))
}

#[tokio::test]
async fn a_misplaced_record_is_appended_where_it_belongs_once_and_marked() {
    let world = World::new().await;
    let home = partition_for_key(b"m1", 2);
    let payload = line("m1", "E1", "2024-07-01T00:00:00Z", "0.100001");
    let misplaced = record(1 - home, 5, Refusal::Misplaced, &payload);
    world.board.connect_quarantine(Arc::new(SpeedQuarantine::of(&[misplaced, refused(0, 7)])));
    let answer = replay(&world, json!({ "kind": "misplaced" })).await;
    assert_eq!(lengths(&answer), (1, 0), "{answer}");
    let to = json!({ "source": "readings", "partition": home, "offset": 0 });
    assert_eq!(answer["replayed"][0]["to"], to);
    assert_eq!(payloads(&world, home).await, [serde_json::from_str::<Value>(&payload).expect("JSON")]);
    // Again: nothing is left to do, by kind or by name.
    for body in [json!({ "kind": "misplaced" }), json!({ "records": [{ "at": format!("{}:5", 1 - home) }] })]
    {
        assert_eq!(lengths(&replay(&world, body).await), (0, 0));
    }
    assert_eq!(payloads(&world, home).await.len(), 1);
    let (_, page) = world.get("/v1/quarantine/readings?replayed=yes").await;
    assert_eq!(page["replayed"], 1);
    let mark = &page["records"][0]["replayed"];
    assert_eq!((&mark["number"], &mark["offset"], &mark["partition"]), (&json!(1), &json!(0), &json!(home)));
    let (_, page) = world.get("/v1/quarantine/readings?replayed=no").await;
    assert_eq!(places(&page), [(0, 7)]);
}

#[tokio::test]
async fn a_replay_that_broke_off_is_finished_and_appends_nothing_twice() {
    let world = World::new().await;
    let home = partition_for_key(b"m1", 2);
    let payload = |value: &str| line("m1", "E1", "2024-07-01T00:00:00Z", value);
    let quarantined: Vec<_> =
        (0..3).map(|at| record(1 - home, at, Refusal::Misplaced, &payload(&at.to_string()))).collect();
    world.board.connect_quarantine(Arc::new(SpeedQuarantine::of(&quarantined)));
    world.ingest(&[payload("7")]).await;
    let planned = |record: &Quarantined| sanso_dataset::ReplayRecord {
        partition: record.partition,
        offset: record.offset,
        to: home,
        key: "m1".to_owned(),
        payload: String::from_utf8(record.payload.clone()).expect("text"),
    };
    let plan = sanso_dataset::ReplayPlan {
        number: 1,
        planned_us: 0,
        into: "readings".to_owned(),
        ends: if home == 0 { vec![1, 0] } else { vec![0, 1] },
        records: quarantined[..2].iter().map(planned).collect(),
    };
    assert!(world.dataset.plan_replay("readings", &plan).await.expect("planned"));
    // The process died when one of two was in the log, and something else came after it.
    let append = sanso_log::Append::keyed("m1", quarantined[0].payload.clone());
    world.log.append("meter-readings", home, vec![append]).await.expect("appended");
    world.ingest(&[payload("8")]).await;
    let answer = replay(&world, json!({ "kind": "misplaced" })).await;
    assert_eq!((lengths(&answer), &answer["number"]), ((1, 0), &json!(2)), "the third is left");
    // Received times are added at ingestion, not to what is replayed.
    let values: Vec<String> = payloads(&world, home).await.iter().map(|p| p["value"].to_string()).collect();
    assert_eq!(values, ["7", "0", "8", "1", "2"]);
    let (_, page) = world.get("/v1/quarantine/readings").await;
    let offsets: Vec<_> =
        page["records"].as_array().expect("a list").iter().map(|r| &r["replayed"]["offset"]).collect();
    assert_eq!(offsets, [&json!(1), &json!(3), &json!(4)]);
}

#[tokio::test]
async fn a_replay_into_a_topic_with_schemas_is_refused_with_another_way() {
    let world = World::new().await;
    let with_schemas = crate::world::APPLICATION
        .replace("format = 'json'", "format = 'avro', registry = 'http://127.0.0.1:9'");
    let source = sanso_view::Application::parse(&with_schemas).expect("a good one").sources.remove(0);
    world.catalog.update(|catalog| {
        catalog.sources.insert(source.name.clone(), source);
    });
    let (status, answer) = world.post("/v1/quarantine/readings/replay", r#"{"kind":"misplaced"}"#).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    assert!(answer["detail"].as_str().is_some_and(|detail| detail.contains("avro")), "{answer}");
    assert!(answer["hint"].as_str().is_some_and(|hint| hint.contains("/v1/ingest/readings")), "{answer}");
}

#[tokio::test]
async fn what_can_not_be_replayed_as_it_is_says_what_is_needed() {
    let world = World::new().await;
    let conflict = record(0, 1, Refusal::Conflict, &line("m1", "E1", "2024-07-01T00:00:00Z", "5"));
    let broken = record(0, 2, Refusal::Undecodable, r#"{"usage_point":"m1","channel":"E1"}"#);
    world.board.connect_quarantine(Arc::new(SpeedQuarantine::of(&[conflict, broken])));
    let answer = replay(&world, json!({ "partition": 0 })).await;
    assert_eq!(lengths(&answer), (0, 2), "{answer}");
    let reasons: BTreeSet<_> = (0..2).map(|at| answer["refused"][at]["reason"].to_string()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("higher version")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("start_utc")), "{reasons:?}");
    let mended: Value = serde_json::from_str(&line("m1", "E1", "2024-07-01T01:00:00Z", "6")).expect("JSON");
    let records = json!([{ "at": "0:1" }, { "at": "0:2", "payload": mended }]);
    let answer = replay(&world, json!({ "records": records, "version": 9 })).await;
    assert_eq!(lengths(&answer), (2, 0), "{answer}");
    let appended = payloads(&world, partition_for_key(b"m1", 2)).await;
    assert_eq!(appended.iter().map(|p| &p["source_version"]).collect::<Vec<_>>(), [&json!(9), &json!(9)]);
    for body in
        ["{}", "[]", r#"{"kind":"misplaced","records":[{"at":"0:1"}]}"#, r#"{"records":[{"at":"x"}]}"#]
    {
        let (status, _) = world.post("/v1/quarantine/readings/replay", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    }
}
