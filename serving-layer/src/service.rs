//! The serving layer: configuration and context in, a router and a server out.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use sanso_catalog::{CatalogHandle, Registered, StatusBoard};
use sanso_core::PartitionStore;
use sanso_dataset::Dataset;
use sanso_log::Log;
use sanso_view::Source;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::cluster::Cluster;
use crate::config::ServingConfig;
use crate::connection;
use crate::ends::LogEnds;
use crate::error::Error;
use crate::limits::{self, VIEWS_GROUPS};
use crate::looks::Looks;
use crate::nodes::{NodeQuestions, Nodes};
use crate::problem::Problem;
use crate::quarantine::{Hold, ReplayMarks};
use crate::readiness::Readiness;
use crate::routes;
use crate::sql::{Budget, QueryThreads};

/// How often the other nodes are asked whether their views hold as much as they may.
const LOOK_AT_ROOM: Duration = Duration::from_secs(1);
/// How often histograms are summed up.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// What the serving layer reads from and appends to.
#[derive(Clone)]
pub struct ServingContext {
    /// Which views and sources there are.
    pub catalog: CatalogHandle,
    /// The view partitions.
    pub store: PartitionStore,
    /// The master dataset.
    pub dataset: Dataset,
    /// The log.
    pub log: Arc<dyn Log>,
    /// What the layers say of themselves.
    pub board: StatusBoard,
    /// The cluster that this node is in, if any.
    pub cluster: Option<Arc<dyn Cluster>>,
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) config: ServingConfig,
    pub(crate) context: ServingContext,
    pub(crate) ends: LogEnds,
    pub(crate) looks: Looks,
    pub(crate) nodes: Nodes,
    /// Another node whose views hold as much as they may: how many groups, and its bound.
    pub(crate) full_elsewhere: Mutex<Option<(u16, u64, u64)>>,
    pub(crate) readiness: Readiness,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) requests: Arc<Semaphore>,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) queries: Arc<Semaphore>,
    pub(crate) queries_waiting: Arc<Semaphore>,
    pub(crate) scans: Arc<Semaphore>,
    pub(crate) query_memory: Arc<Budget>,
    pub(crate) query_threads: QueryThreads,
    pub(crate) closing: watch::Sender<bool>,
    /// Which quarantined records were replayed.
    pub(crate) replays: ReplayMarks,
    /// Held by the one replay that is done at a time: the last that this process planned or claimed, by source.
    pub(crate) replaying: tokio::sync::Mutex<BTreeMap<String, Hold>>,
    /// Renders the metrics of this process.
    pub(crate) metrics: OnceLock<PrometheusHandle>,
}

impl Shared {
    /// Looks at the end of a source's log.
    pub(crate) async fn look_at_end(&self, source: &Source) -> Result<(), Problem> {
        let looked = self.ends.look(self.context.log.as_ref(), source).await;
        looked.map_err(|error| routes::ingest::log_problem(&error))
    }
}

/// The serving layer.
pub struct ServingLayer {
    shared: Arc<Shared>,
    _limits: Vec<Registered>,
}

impl ServingLayer {
    /// Creates the layer; nothing runs yet.
    pub fn new(config: ServingConfig, context: ServingContext) -> Self {
        let shared = Shared {
            ends: LogEnds::new(Duration::from_millis(config.staleness_memory_ms)),
            readiness: Readiness::default(),
            connections: Arc::new(Semaphore::new(config.connections_max)),
            requests: Arc::new(Semaphore::new(config.requests_max)),
            streams: Arc::new(Semaphore::new(config.streams_max)),
            queries: Arc::new(Semaphore::new(config.queries_max)),
            queries_waiting: Arc::new(Semaphore::new(config.queries_waiting_max)),
            looks: Looks::default(),
            full_elsewhere: Mutex::default(),
            nodes: Nodes::new(
                NodeQuestions::new(context.catalog.clone(), context.board.clone()),
                context.cluster.clone(),
            ),
            scans: Arc::new(Semaphore::new(config.scans_max)),
            query_memory: Arc::new(Budget::new(config.queries_memory_bytes_max)),
            query_threads: QueryThreads::new(config.query_threads),
            metrics: OnceLock::new(),
            closing: watch::Sender::new(false),
            replays: ReplayMarks::default(),
            replaying: tokio::sync::Mutex::default(),
            config,
            context,
        };
        let _limits = limits::register(&shared.context.board.limits(), &shared);
        Self { shared: Arc::new(shared), _limits }
    }

    /// Renders the metrics of this process at `/metrics`, too; see [`crate::metrics::install`].
    /// The first handle given stays.
    #[must_use]
    pub fn with_metrics(self, handle: PrometheusHandle) -> Self {
        crate::metrics::describe();
        // A second handle would be of the same recorder.
        let _ = self.shared.metrics.set(handle);
        self
    }

    /// Returns the routes, for a server or for a test.
    pub fn router(&self) -> Router {
        routes::router(Arc::clone(&self.shared))
    }

    /// Listens on the configured address.
    pub async fn listen(&self) -> Result<TcpListener, Error> {
        let address = self.shared.config.listen;
        TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
    }

    /// Answers requests until `shutdown` resolves; then closes the live streams
    /// and gives open requests a bounded time to finish.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        let mut closed = self.shared.closing.subscribe();
        let drain = Duration::from_millis(self.shared.config.drain_ms_max);
        let stop = async move {
            shutdown.await;
            shared.closing.send_replace(true);
        };
        let server = async {
            tokio::join!(stop, connection::serve(&self.shared, listener, self.router()));
        };
        let drained = async {
            // The sender lives in `self`, so this waits for the value.
            let _ = closed.wait_for(|closing| *closing).await;
            tokio::time::sleep(drain).await;
        };
        tokio::select! {
            () = server => {}
            () = drained => {}
            () = self.watch_log_ends() => {}
            () = self.keep_metrics_small() => {}
            () = self.watch_room() => {}
        }
    }

    /// Sums up what histograms recorded, which otherwise grows until a scrape.
    async fn keep_metrics_small(&self) {
        let mut ticks = tokio::time::interval(METRICS_UPKEEP);
        loop {
            ticks.tick().await;
            if let Some(metrics) = self.shared.metrics.get() {
                metrics.run_upkeep();
            }
        }
    }

    /// Looks whether other nodes' views are full: what is taken here is lifted into theirs.
    async fn watch_room(&self) {
        let mut ticks = tokio::time::interval(LOOK_AT_ROOM);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let shared = &self.shared;
        while shared.nodes.are_many() {
            ticks.tick().await;
            let limits = shared.nodes.limits().await.into_iter();
            let others = limits.filter(|(node, _)| *node != shared.nodes.me());
            let full = others.filter_map(|(node, limits)| {
                let (used, max) = limits.ok()?.iter().find_map(|limit| limit.reached(VIEWS_GROUPS))?;
                Some((node, used, max))
            });
            *shared.full_elsewhere.lock() = full.min();
        }
        std::future::pending().await
    }

    /// Looks at the ends of all logs now and then, so that answers can say how old they are.
    async fn watch_log_ends(&self) {
        let mut ticks =
            tokio::time::interval(Duration::from_millis(self.shared.config.log_end_interval_ms.max(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            let mut failed = None;
            for source in self.shared.context.catalog.current().sources.values() {
                failed =
                    self.shared.ends.look(self.shared.context.log.as_ref(), source).await.err().or(failed);
            }
            match &failed {
                Some(error) if !failing => tracing::warn!(%error, "look at the end of the log"),
                _ => {}
            }
            failing = failed.is_some();
            let missing = self.shared.readiness.check(&self.shared.context).await;
            self.shared.context.board.post_not_ready(missing);
        }
    }
}
