//! A small world: one source of two log partitions, its views, and a plain
//! stand-in for the speed worker that lifts what is in the log.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use parking_lot::Mutex;
use sanso_catalog::{Catalog, CatalogHandle, PartitionProgress, StatusBoard};
use sanso_core::{Change, PartitionId, PartitionStore, Partitions, ReadReply, ReadRequest, StoreError};
use sanso_dataset::Dataset;
use sanso_log::{Log, MemoryLog, TopicSpec};
use sanso_serving::{Cluster, ServingConfig, ServingContext, ServingLayer};
use sanso_state::{Block, Delta, Entry, Groups, LogPartition, Outcome, SegmentId, ViewPartition};
use sanso_view::{Application, Source, View};
use serde_json::Value;
use tokio::sync::broadcast;
use tower::ServiceExt;

pub(crate) const APPLICATION: &str = "
CREATE SOURCE readings (usage_point TEXT, channel TEXT, start_utc TIMESTAMP, value DECIMAL(18,6),
                        source_version BIGINT, received_at TIMESTAMP)
  WITH (topic = 'meter-readings', format = 'json', key = 'usage_point',
        identity = 'usage_point, channel, start_utc', version = 'source_version',
        segment = '8', partitions = '2');
CREATE VIEW hourly AS
  SELECT usage_point, channel, TUMBLE(start_utc, INTERVAL '1 hour') AS hour, SUM(value) AS kwh, COUNT(*) AS readings
  FROM readings GROUP BY usage_point, channel, hour;
CREATE VIEW meter AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 hour') AS hour, SUM(value) AS kwh
  FROM readings GROUP BY usage_point, hour;
CREATE VIEW rolling AS
  SELECT usage_point, HOP(start_utc, INTERVAL '1 hour', INTERVAL '2 hours') AS span, SUM(value) AS kwh
  FROM readings GROUP BY usage_point, span;
CREATE VIEW everything AS SELECT channel, SUM(value) AS kwh, AVG(value) AS mean FROM readings GROUP BY channel;
";

/// The partitions of a node that has no replica of any: others are asked.
struct Elsewhere(PartitionStore);

#[async_trait]
impl Partitions for Elsewhere {
    async fn submit(&self, id: PartitionId, entry: Entry) -> Result<Outcome, StoreError> {
        self.0.submit(id, entry).await
    }

    async fn read(
        &self,
        id: PartitionId,
        request: &ReadRequest,
        _seen: &[u64],
    ) -> Result<ReadReply, StoreError> {
        self.0.read(id, request).await
    }

    fn is_in_touch(&self) -> bool {
        true
    }

    async fn segment(&self, _id: PartitionId, _segment: SegmentId) -> Result<Option<Groups>, StoreError> {
        Ok(None)
    }

    fn changes(&self, id: PartitionId) -> Result<broadcast::Receiver<Arc<Change>>, StoreError> {
        Err(StoreError::Unreachable { id, reason: "this node has no replica of it".to_owned() })
    }

    fn emits_here(&self) -> Vec<(PartitionId, sanso_core::Readable)> {
        Vec::new()
    }

    fn groups(&self) -> u64 {
        0
    }
}

/// The partitions of a node that is cut off from its cluster.
struct CutOff(PartitionStore);

#[async_trait]
impl Partitions for CutOff {
    async fn submit(&self, id: PartitionId, _entry: Entry) -> Result<Outcome, StoreError> {
        Err(StoreError::Unreachable { id, reason: "its primary does not answer".to_owned() })
    }

    async fn read(
        &self,
        id: PartitionId,
        request: &ReadRequest,
        _seen: &[u64],
    ) -> Result<ReadReply, StoreError> {
        self.0.read(id, request).await
    }

    fn is_in_touch(&self) -> bool {
        false
    }

    async fn segment(&self, _id: PartitionId, _segment: SegmentId) -> Result<Option<Groups>, StoreError> {
        Ok(None)
    }

    fn changes(&self, id: PartitionId) -> Result<broadcast::Receiver<Arc<Change>>, StoreError> {
        self.0.changes(id)
    }

    fn emits_here(&self) -> Vec<(PartitionId, sanso_core::Readable)> {
        Vec::new()
    }

    fn groups(&self) -> u64 {
        self.0.groups()
    }
}

/// A running serving layer and what it reads.
pub(crate) struct World {
    pub(crate) router: Router,
    pub(crate) source: Arc<Source>,
    pub(crate) views: Vec<Arc<View>>,
    pub(crate) catalog: CatalogHandle,
    pub(crate) store: PartitionStore,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) board: StatusBoard,
    pub(crate) dataset: Dataset,
    pub(crate) positions: Mutex<[u64; 2]>,
    pub(crate) layer: ServingLayer,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(ServingConfig { stream_interval_ms: 1, ..ServingConfig::default() }).await
    }

    pub(crate) async fn with(config: ServingConfig) -> Self {
        Self::on(config, |own| own, None).await
    }

    /// Makes a world whose node is in a cluster.
    pub(crate) async fn in_cluster(cluster: Arc<dyn Cluster>) -> Self {
        Self::on(ServingConfig::default(), |own| own, Some(cluster)).await
    }

    /// Makes a world whose node hears from nobody in its cluster, and has what it has.
    pub(crate) async fn cut_off() -> Self {
        Self::on(ServingConfig::default(), |own| PartitionStore::of_cluster(Arc::new(CutOff(own))), None)
            .await
    }

    /// Makes a world whose node has no replica of any view partition.
    pub(crate) async fn elsewhere() -> Self {
        let config = ServingConfig { stream_interval_ms: 1, ..ServingConfig::default() };
        Self::on(config, |own| PartitionStore::of_cluster(Arc::new(Elsewhere(own))), None).await
    }

    async fn on(
        config: ServingConfig,
        read: impl FnOnce(PartitionStore) -> PartitionStore,
        cluster: Option<Arc<dyn Cluster>>,
    ) -> Self {
        let application = Application::parse(APPLICATION).expect("the application is good");
        let views = application.bind(Path::new(".")).expect("no reference tables");
        let source = Arc::clone(&application.sources[0]);
        let mut catalog = Catalog::default();
        catalog.sources.insert(source.name.clone(), Arc::clone(&source));
        let store = PartitionStore::new();
        for view in &views {
            catalog.live.insert(view.fingerprint, Arc::clone(view));
            catalog.serving.insert(view.name.clone(), view.fingerprint);
            for index in 0..view.partitions {
                create(&store, view, index);
            }
        }
        let log = Arc::new(MemoryLog::new());
        log.ensure_topic(&TopicSpec::new(&source.topic, source.partitions)).await.expect("a new topic");
        let context = ServingContext {
            catalog: CatalogHandle::new(catalog),
            store: read(store.clone()),
            dataset: Dataset::in_memory(),
            log: Arc::clone(&log) as Arc<dyn Log>,
            board: StatusBoard::new(),
            cluster,
        };
        let (catalog, board, dataset) =
            (context.catalog.clone(), context.board.clone(), context.dataset.clone());
        let layer = ServingLayer::new(config, context);
        let router = layer.router();
        Self {
            router,
            source,
            views,
            catalog,
            store,
            log,
            board,
            dataset,
            positions: Mutex::default(),
            layer,
        }
    }

    pub(crate) fn view(&self, name: &str) -> &Arc<View> {
        self.views.iter().find(|view| view.name == name).expect("a declared view")
    }

    /// Appends records over HTTP.
    pub(crate) async fn ingest(&self, lines: &[String]) -> Value {
        let (status, answer) = self.post("/v1/ingest/readings", lines.join("\n")).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// Does the speed layer's work for everything in the log: each record is a delta.
    pub(crate) async fn apply(&self) {
        for partition in 0..self.source.partitions {
            let from = self.positions.lock()[partition as usize];
            let batch = self
                .log
                .read(&self.source.topic, partition, from, usize::MAX, usize::MAX)
                .await
                .expect("reads");
            for record in &batch.records {
                self.lift(partition, record.offset, &record.payload, 1).await;
            }
            self.positions.lock()[partition as usize] = batch.next;
            let progress =
                PartitionProgress { end: batch.end, position: batch.next, ..PartitionProgress::default() };
            self.board.post_speed(&self.source.name, LogPartition(partition), progress);
        }
    }

    /// Takes a record back at the next offset of its log partition, as a
    /// correction's retraction does.
    pub(crate) async fn retract(&self, partition: u32, line: &str) {
        let offset = self.positions.lock()[partition as usize];
        self.lift(partition, offset, line.as_bytes(), -1).await;
        self.positions.lock()[partition as usize] = offset + 1;
    }

    async fn lift(&self, partition: u32, offset: u64, payload: &[u8], sign: i64) {
        let decoded = self.source.decode([payload]);
        for view in &self.views {
            let mut groups = vec![Groups::new(); view.partitions as usize];
            let lifted = view.lift(&decoded.rows);
            for row in lifted.rows() {
                let (id, inputs) = lifted.grouped.row(row.at as usize);
                let index = view.partition_of(&id.key) as usize;
                groups[index].update_one(&view.kinds, &id, &inputs, sign);
            }
            for (index, groups) in groups.into_iter().enumerate() {
                let delta = Delta {
                    view: view.fingerprint,
                    partition: LogPartition(partition),
                    from: offset,
                    to: offset + 1,
                    groups,
                    watermark_us: decoded
                        .rows
                        .num_rows()
                        .checked_sub(1)
                        .map(|_| self.source.event_times(&decoded.rows)[0]),
                    idle: false,
                };
                let id = PartitionId { view: view.fingerprint, index: index as u32 };
                if let Ok(outcome) = self.store.submit(id, Entry::Delta(delta)).await {
                    assert_eq!(outcome, Outcome::Accepted { applied: offset + 1 });
                }
            }
        }
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, text) = self.text(path).await;
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    /// Returns the body as it came: numbers with every digit.
    pub(crate) async fn text(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        self.send(request).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let (status, text) = self.send(Request::post(path).body(body.into()).expect("a request")).await;
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> (StatusCode, String) {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let status = response.status();
        let kind =
            response.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().expect("ascii").to_owned());
        if !status.is_success() {
            assert_eq!(kind.as_deref(), Some("application/problem+json"));
        }
        let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("a whole body");
        (status, String::from_utf8(bytes.to_vec()).expect("text"))
    }

    /// Runs SQL and returns the body as it came.
    pub(crate) async fn sql(&self, sql: &str) -> (StatusCode, Value) {
        self.post("/v1/query", serde_json::json!({ "sql": sql }).to_string()).await
    }
}

/// Creates an empty view partition.
pub(crate) fn create(store: &PartitionStore, view: &View, index: u32) {
    let block = Block::empty(view.fingerprint, view.source.partitions);
    let id = PartitionId { view: view.fingerprint, index };
    store.create(id, ViewPartition::new(view.partition_config(), Arc::new(block)));
}

/// Writes a record.
pub(crate) fn line(point: &str, channel: &str, start: &str, value: &str) -> String {
    format!(
        r#"{{"usage_point":"{point}","channel":"{channel}","start_utc":"{start}","value":{value},"source_version":1}}"#
    )
}

/// Two meters, two channels, three hours.
pub(crate) fn sample() -> Vec<String> {
    vec![
        line("m1", "E1", "2024-07-01T00:00:00Z", "0.100001"),
        line("m1", "E1", "2024-07-01T00:30:00Z", "0.2"),
        line("m1", "E1", "2024-07-01T01:00:00Z", "1"),
        line("m1", "B1", "2024-07-01T02:00:00Z", "-3.5"),
        line("m2", "E1", "2024-07-01T00:00:00Z", "999999999999.999999"),
        line("m2", "E1", "2024-07-01T01:00:00Z", "7"),
    ]
}
