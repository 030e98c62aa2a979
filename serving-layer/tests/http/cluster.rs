//! What all nodes of a cluster say, asked of one that has nothing itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::StatusCode;
use sanso_catalog::{
    BatchJob, BatchProgress, BatchQuarantine, Catalog, CatalogHandle, JobOutcome, Limit, PartitionProgress,
    RecordCounts, Share, StatusBoard,
};
use sanso_dataset::{ReplayClaim, ReplayPlan, ReplayRecord};
use sanso_log::Log;
use sanso_serving::{Cluster, ClusterRefusal, Figure, NodeQuestions};
use sanso_state::{Cut, Division, LogPartition, Quarantined, Refusal, RefusalCounts};
use sanso_view::Application;
use serde_json::{Value, json};

use crate::quarantine::{SpeedQuarantine, refused};
use crate::world::{APPLICATION, World, line};

/// The other nodes: those that answer by what they are asked, and why the others don't.
struct Others(BTreeMap<u16, Result<NodeQuestions, &'static str>>);

#[async_trait]
impl Cluster for Others {
    fn node(&self) -> u16 {
        1
    }

    fn others(&self) -> BTreeMap<u16, Option<String>> {
        self.0.keys().map(|node| (*node, None)).collect()
    }

    fn batch_driver(&self) -> Option<u16> {
        Some(3)
    }

    async fn ask(
        &self,
        node: u16,
        kind: &'static str,
        question: Vec<u8>,
        _within: Duration,
    ) -> Result<Vec<u8>, String> {
        match &self.0[&node] {
            Ok(questions) => questions.answer(kind, &question).await,
            Err(silent) => Err((*silent).to_owned()),
        }
    }

    fn figures(&self) -> Vec<Figure> {
        let figure = |value: &str, count| Figure {
            name: "sanso_cluster_members",
            help: "Nodes",
            labels: vec![("standing", value.to_owned())],
            value: count,
        };
        vec![figure("up", 2.0), figure("suspected", 1.0)]
    }

    fn describe(&self) -> Value {
        Value::Null
    }

    async fn drain(&self, _node: u16, _draining: bool) -> Result<(), ClusterRefusal> {
        Ok(())
    }

    async fn voters(&self) -> Value {
        Value::Null
    }

    async fn change_voters(&self, _voters: &[u16], _force: bool) -> Result<Value, ClusterRefusal> {
        Ok(Value::Null)
    }

    fn break_links(&self, _links: &Value) -> Result<(), ClusterRefusal> {
        Ok(())
    }
}

/// A node that works on both log partitions: feeds one, follows the other.
fn node(feeds: u32, quarantined: &[Quarantined], also: impl FnOnce(&StatusBoard)) -> NodeQuestions {
    let application = Application::parse(APPLICATION).expect("the application is good");
    let (source, board) = (Arc::clone(&application.sources[0]), StatusBoard::new());
    let share = |l| if l == feeds { Share::Feeds } else { Share::Follows };
    let shares = (0..2).map(|l| ((source.name.clone(), LogPartition(l)), share(l))).collect();
    let views = application.bind(Path::new(".")).expect("no reference tables");
    let catalog = Catalog {
        sources: [(source.name.clone(), Arc::clone(&source))].into(),
        live: views.iter().map(|view| (view.fingerprint, Arc::clone(view))).collect(),
        shares: Some(shares),
        ..Catalog::default()
    };
    for l in 0..2 {
        // Who follows is behind.
        let position = if l == feeds { 10 } else { 7 };
        let counts = RecordCounts { records: position, new: position, ..RecordCounts::default() };
        let progress = PartitionProgress { end: 10, position, counts, ..PartitionProgress::default() };
        board.post_speed(&source.name, LogPartition(l), progress);
    }
    board.connect_quarantine(Arc::new(SpeedQuarantine::of(quarantined)));
    also(&board);
    NodeQuestions::new(CatalogHandle::new(catalog), board)
}

fn batch(version: u64, compared: u64) -> BatchProgress {
    BatchProgress {
        version,
        cut: Cut::zero(2),
        published_us: 0,
        run_ms: 1,
        newest_rows: 5,
        audit: sanso_catalog::AuditCounts { compared, ..Default::default() },
        quarantine: Some(BatchQuarantine {
            division: Division::beginning(2),
            counts: RefusalCounts::default(),
            audit: Default::default(),
        }),
        error: None,
    }
}

/// Node 2 feeds log partition 0, node 3 the other and drives the batch layer; or 2 does not answer.
async fn world(quarantined: &[Quarantined], second_answers: bool) -> World {
    let second = node(0, quarantined, |board| {
        board.post_batch("readings", batch(6, 40));
        board.post_job("readings", BatchJob { version: 6, tasks: 2, done: 2, ..BatchJob::default() });
        board.end_job("readings", JobOutcome::Done, 1);
        let limit = Limit { name: "views.groups", unit: "groups", max: 9, setting: "", then: "503" };
        std::mem::forget(board.limits().register(limit, || 4));
    });
    let third = node(1, quarantined, |board| {
        board.post_batch("readings", batch(7, 2));
        board.post_job("readings", BatchJob { version: 8, tasks: 2, done: 1, ..BatchJob::default() });
    });
    let second = if second_answers { Ok(second) } else { Err("no answer within 500 ms") };
    let world = World::in_cluster(Arc::new(Others([(2, second), (3, Ok(third))].into()))).await;
    world.catalog.update(|catalog| catalog.shares = Some(BTreeMap::new()));
    world
}

fn places(answer: &Value) -> Vec<(u64, u64)> {
    let records = answer["records"].as_array().expect("records").iter();
    records.map(|r| (r["partition"].as_u64().expect("a"), r["offset"].as_u64().expect("b"))).collect()
}

#[tokio::test]
async fn each_log_partition_is_counted_once_by_who_feeds_it() {
    let world = world(&[], true).await;
    let (_, status) = world.get("/v1/status").await;
    let source = &status["sources"][0];
    assert_eq!((&source["counts"]["records"], &source["lag_records"]), (&json!(20), &json!(0)));
    let who =
        |l: usize| (source["partitions"][l]["node"].as_u64(), source["partitions"][l]["feeds"].as_bool());
    assert_eq!((who(0), who(1)), ((Some(2), Some(true)), (Some(3), Some(true))));
    assert_eq!(source["partitions_missing"], json!([]));
    assert_eq!(source["batch"]["version"], 7, "who drives it now says so");
    assert_eq!(status["audit"]["compared"], 42, "whoever drove it");
    assert_eq!((&source["job"]["node"], &source["job"]["done"]), (&json!(3), &json!(1)));
    let (_, jobs) = world.get("/v1/jobs").await;
    let told = |job: &Value| (job["driver"].as_u64(), job["version"].as_u64());
    assert_eq!(
        (told(&jobs["running"][0]), told(&jobs["ended"][0])),
        ((Some(3), Some(8)), (Some(2), Some(6)))
    );
    assert_eq!(jobs["driver"], 3);
    let nodes = status["nodes"].as_array().expect("nodes");
    let drives: Vec<_> = nodes.iter().map(|node| node["drives_batch"].as_bool()).collect();
    assert_eq!(drives, [Some(false), Some(false), Some(true)]);
    assert_eq!((&nodes[1]["feeds"], &nodes[1]["follows"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_named_and_who_follows_tells_instead() {
    let world = world(&[], false).await;
    let (_, status) = world.get("/v1/status").await;
    let silent = json!({ "node": 2, "answers": false, "error": "no answer within 500 ms" });
    assert_eq!(status["nodes"][1], silent);
    let source = &status["sources"][0];
    let first = &source["partitions"][0];
    assert_eq!((&first["node"], &first["feeds"], &first["lag"]), (&json!(3), &json!(false), &json!(3)));
    assert_eq!(source["counts"]["records"], 17);
    let (_, sources) = world.get("/v1/sources/readings").await;
    assert_eq!(sources["unanswered"], json!([{ "node": 2, "error": "no answer within 500 ms" }]));
}

#[tokio::test]
async fn the_figures_of_the_cluster_are_gauges() {
    let (_, metrics) = world(&[], true).await.text("/metrics").await;
    let gauges = "# TYPE sanso_cluster_members gauge\n\
                  sanso_cluster_members{standing=\"up\"} 2\nsanso_cluster_members{standing=\"suspected\"} 1\n";
    assert!(metrics.contains(gauges), "{metrics}");
}

#[tokio::test]
async fn the_bounds_of_each_node_are_told() {
    let (_, limits) = world(&[], true).await.get("/v1/limits").await;
    let second = limits["nodes"][1]["limits"].as_array().expect("limits");
    let (name, used) = (&second[0]["name"], &second[0]["used"]);
    assert_eq!(
        (limits["nodes"][1]["node"].as_u64(), name, used),
        (Some(2), &json!("views.groups"), &json!(4))
    );
    let (_, limits) = world(&[], false).await.get("/v1/limits").await;
    assert_eq!(limits["nodes"][1]["error"], "no answer within 500 ms");
}

/// Records that both other nodes have, one of them refused by a view's expression.
fn kept(world: &World) -> Vec<Quarantined> {
    let view = Some(world.view("hourly").fingerprint);
    let expression = Quarantined { view, kind: Refusal::Expression, ..refused(0, 4) };
    vec![refused(0, 2), expression, refused(0, 8), refused(1, 5)]
}

#[tokio::test]
async fn the_quarantine_is_one_list_on_any_node_with_nothing_twice() {
    let kept = kept(&World::new().await);
    let world = world(&kept, true).await;
    for limit in 1..5 {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/quarantine/readings?limit={limit}{after}");
            let (status, answer) = world.get(&path).await;
            assert_eq!(status, StatusCode::OK, "{answer}");
            assert_eq!((&answer["partial"], &answer["unanswered"]), (&json!(false), &json!([])));
            found.extend(places(&answer));
            let Some(next) = answer["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(found, [(0, 2), (0, 4), (0, 8), (1, 5)], "{limit} at a time");
    }
    let (_, newest) = world.get("/v1/quarantine/readings?order=newest&limit=2").await;
    assert_eq!(places(&newest), [(0, 8), (1, 5)]);
    assert_eq!(newest["counts"]["undecodable"], 3, "each log partition's are counted once");
    let (_, source) = world.get("/v1/sources/readings").await;
    assert_eq!(source["quarantine"]["undecodable"], 3);
}

#[tokio::test]
async fn the_quarantine_says_which_log_partitions_it_lacks() {
    let kept = kept(&World::new().await);
    let (status, answer) = world(&kept, false).await.get("/v1/quarantine/readings").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(places(&answer), [(0, 2), (0, 4), (0, 8), (1, 5)], "who follows has it too");
    assert_eq!((&answer["partial"], &answer["partitions_missing"]), (&json!(true), &json!([0])));
    assert_eq!(answer["unanswered"][0]["node"], 2);
}

#[tokio::test]
async fn a_record_is_replayed_once_from_a_node_that_does_not_have_it() {
    let wrong = line("m1", "E1", "2024-07-01T00:00:00Z", "1");
    let record = Quarantined { kind: Refusal::Misplaced, payload: wrong.clone().into(), ..refused(0, 2) };
    let world = world(&[record], true).await;
    let body = json!({ "kind": "misplaced" }).to_string();
    let (status, answer) = world.post("/v1/quarantine/readings/replay", body.clone()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["replayed"].as_array().map(Vec::len), Some(1), "{answer}");
    let (_, again) = world.post("/v1/quarantine/readings/replay", body).await;
    assert_eq!(again["replayed"], json!([]));
    assert_eq!(appended(&world, &wrong).await, 1);
}

/// Counts the records of the log that hold just this.
async fn appended(world: &World, payload: &str) -> usize {
    let mut appended = 0;
    for l in 0..2 {
        let read = world.log.read(&world.source.topic, l, 0, usize::MAX, usize::MAX).await.expect("reads");
        appended += read.records.iter().filter(|record| record.payload == payload.as_bytes()).count();
    }
    appended
}

/// Plans the replay of one record, so many seconds ago, at another node.
async fn planned_elsewhere(world: &World, payload: &str, age_s: i64) {
    let (key, payload) = ("m1".to_owned(), payload.to_owned());
    let plan = ReplayPlan {
        number: 1,
        planned_us: us_ago(age_s),
        into: "readings".to_owned(),
        ends: vec![0, 0],
        records: vec![ReplayRecord { partition: 0, offset: 2, to: 0, key, payload }],
    };
    assert!(world.dataset.plan_replay("readings", &plan).await.expect("writes"));
}

fn us_ago(age_s: i64) -> i64 {
    chrono::Utc::now().timestamp_micros() - age_s * 1_000_000
}

#[tokio::test]
async fn what_another_node_replays_is_left_to_it_for_a_minute_then_finished() {
    let wrong = line("m1", "E1", "2024-07-01T00:00:00Z", "1");
    let record = Quarantined { kind: Refusal::Misplaced, payload: wrong.clone().into(), ..refused(0, 2) };
    let body = json!({ "kind": "misplaced" }).to_string();
    for (age_s, status, times) in [(0, StatusCode::SERVICE_UNAVAILABLE, 0), (61, StatusCode::OK, 1)] {
        let world = world(std::slice::from_ref(&record), true).await;
        planned_elsewhere(&world, &wrong, age_s).await;
        let (answered, answer) = world.post("/v1/quarantine/readings/replay", body.clone()).await;
        assert_eq!((answered, appended(&world, &wrong).await), (status, times), "{age_s} s: {answer}");
    }
}

#[tokio::test]
async fn of_nodes_that_would_finish_a_replay_the_one_that_claims_it_does() {
    let wrong = line("m1", "E1", "2024-07-01T00:00:00Z", "1");
    let record = Quarantined { kind: Refusal::Misplaced, payload: wrong.clone().into(), ..refused(0, 2) };
    let body = json!({ "kind": "misplaced" }).to_string();
    // Node 2 went on with it a moment ago, or before it was lost in its turn.
    for (age_s, status, times) in [(0, StatusCode::SERVICE_UNAVAILABLE, 0), (61, StatusCode::OK, 1)] {
        let world = world(std::slice::from_ref(&record), true).await;
        planned_elsewhere(&world, &wrong, 300).await;
        let claim = |claim, age_s| ReplayClaim { number: 1, claim, node: 2, claimed_us: us_ago(age_s) };
        assert!(world.dataset.claim_replay("readings", &claim(1, 200)).await.expect("writes"));
        assert!(world.dataset.claim_replay("readings", &claim(2, age_s)).await.expect("writes"));
        let (answered, answer) = world.post("/v1/quarantine/readings/replay", body.clone()).await;
        assert_eq!((answered, appended(&world, &wrong).await), (status, times), "{age_s} s: {answer}");
        let last = world.dataset.last_replay_claim("readings", 1).await.expect("reads").expect("claims");
        assert_eq!((last.claim, last.node), if times == 1 { (3, 1) } else { (2, 2) });
        // Whoever comes second at the same moment is refused the number.
        let late = world.dataset.claim_replay("readings", &claim(last.claim, 0)).await;
        assert!(!late.expect("asks"), "a claim is made once");
    }
}
