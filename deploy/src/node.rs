//! One node: log, dataset and the three layers assembled in one process.
//!
//! ```text
//!   application ──▶ view versions ──▶ batch: published blocks ──▶ view partitions
//!                                                                   ▲        │
//!                               log ──▶ speed: deltas ──────────────┘        ▼
//!                                                                     serving: HTTP
//! ```
//!
//! A changed application file or reference table makes new view versions; they
//! are backfilled and catch up while the old ones serve, then take over.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use sanso_batch::{BatchConfig, BatchLayer};
use sanso_catalog::{Catalog, CatalogHandle, Registered, StatusBoard};
use sanso_core::{PartitionId, PartitionStore, ReadRequest};
use sanso_dataset::{Credentials, Dataset, DatasetConfig};
use sanso_log::{Log, TopicSpec};
use sanso_schema::{Format, Registry, RegistryConfig, TopicFormat, TranscodingLog};
use sanso_serving::{ServingConfig, ServingContext, ServingLayer};
use sanso_speed::{EmitterHandle, SpeedConfig, SpeedHandle, SpeedLayer};
use sanso_state::{Fingerprint, Offset, ViewPartition};
use sanso_view::{RecordFormat, Source, View};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::application::{self, Declared};
use crate::background::Background;
use crate::versions::{caught_up, furthest, transition};
use crate::{blocks, bounds};

/// The environment's names of the schema registries' login.
const REGISTRY_USER: &str = "SANSO_REGISTRY_USER";
const REGISTRY_PASSWORD: &str = "SANSO_REGISTRY_PASSWORD";
/// How long a subject's latest schema is taken for the latest.
const LATEST_SCHEMA_MAX: Duration = Duration::from_secs(10);
/// How often the application's files are looked at for changes.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// How often a view version that catches up is looked at.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(100);

/// What a node needs to know to start.
#[derive(Clone)]
pub(crate) struct NodeConfig {
    /// The application file.
    pub(crate) app: PathBuf,
    /// The folder that holds everything durable.
    pub(crate) data: PathBuf,
    /// Where HTTP is served.
    pub(crate) listen: SocketAddr,
    /// The log's address; the embedded log in the data folder when absent.
    pub(crate) log: Option<String>,
    /// Where the master dataset is; in the data folder when it says nothing.
    pub(crate) dataset: DatasetConfig,
    /// The batch layer's settings.
    pub(crate) batch: BatchConfig,
    /// The speed layer's settings.
    pub(crate) speed: SpeedConfig,
    /// The serving layer's settings.
    pub(crate) serving: ServingConfig,
    /// Properties of librdkafka, for a log in Kafka.
    pub(crate) kafka: BTreeMap<String, String>,
}

/// A running node.
pub(crate) struct Node {
    /// The address HTTP is served at.
    pub(crate) address: SocketAddr,
    /// What the layers say of themselves.
    pub(crate) board: StatusBoard,
    stop: watch::Sender<bool>,
    speed: SpeedHandle,
    emitter: EmitterHandle,
    tasks: Vec<JoinHandle<()>>,
    _background: Background,
    _limits: Vec<Registered>,
}

/// The parts that view versions are brought up on.
#[derive(Clone)]
struct Parts {
    catalog: CatalogHandle,
    store: PartitionStore,
    batch: Arc<BatchLayer>,
}

impl Node {
    /// Starts all layers; returns once HTTP is served.
    pub(crate) async fn start(config: NodeConfig) -> anyhow::Result<Node> {
        let declared = application::read(&config.app)?;
        std::fs::create_dir_all(&config.data)
            .with_context(|| format!("create data folder {}", config.data.display()))?;
        let address =
            config.log.clone().unwrap_or_else(|| format!("embedded:{}", config.data.join("log").display()));
        let log = open_log(&address, config.kafka.clone(), &declared).await?;
        let dataset = Dataset::open(&config.dataset, &config.data.join("dataset"), Credentials::Standard)
            .await
            .context("open master dataset")?;
        let blocks = blocks::open(&config.batch, &config.data)?;
        let dataset = blocks::keep(dataset, &blocks, &declared.application);
        let metrics = sanso_serving::metrics::install().context("install the metrics recorder")?;
        let board = StatusBoard::new();
        let mut _limits = bounds::register(&board.limits(), &log);
        _limits.extend(blocks::register(&board.limits(), &config.batch, &blocks));
        let store = PartitionStore::new();
        let sources = declared.application.sources.iter();
        let catalog = CatalogHandle::new(Catalog {
            sources: sources.map(|source| (source.name.clone(), Arc::clone(source))).collect(),
            ..Catalog::default()
        });
        let batch = Arc::new(BatchLayer::new(
            config.batch.clone(),
            Arc::clone(&log),
            dataset.clone(),
            catalog.clone(),
            store.clone(),
            board.clone(),
        ));
        let parts = Parts { catalog: catalog.clone(), store: store.clone(), batch: Arc::clone(&batch) };
        batch.ensure_all_published(&declared.views).await.context("load or compute the views")?;
        for view in &declared.views {
            parts.bring_up(view).await?;
            parts.promote(view);
        }
        let speed_dir = config.data.join("speed");
        let emitter =
            EmitterHandle::start(&speed_dir, Arc::clone(&log), catalog.clone(), store.clone()).await;
        let emitter = emitter.context("start to write closed windows")?;
        let speed = SpeedLayer::start(
            SpeedConfig { dir: speed_dir, ..config.speed },
            Arc::clone(&log),
            dataset.clone(),
            catalog.clone(),
            store.clone(),
            board.clone(),
        )
        .await
        .context("start speed layer")?;
        let serving = ServingLayer::new(
            config.serving.clone(),
            ServingContext { catalog, store, dataset, log, board: board.clone(), cluster: None },
        )
        .with_metrics(metrics);
        let listener =
            TcpListener::bind(config.listen).await.with_context(|| format!("listen on {}", config.listen))?;
        let address = listener.local_addr().context("read listen address")?;
        let (stop, stopped) = watch::channel(false);
        let background = Background::start()?;
        let tasks = vec![
            background.spawn(run_batch(batch, stopped.clone())),
            tokio::spawn(run_serving(serving, listener, stopped.clone())),
            tokio::spawn(run_alarm(board.clone(), stopped.clone())),
            tokio::spawn(run_reload(config.app, declared, parts, stopped)),
        ];
        Ok(Node { address, board, stop, speed, emitter, tasks, _background: background, _limits })
    }

    /// Stops all layers; what was acknowledged is durable already.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the node ended badly");
            }
        }
        self.speed.shutdown().await;
        self.emitter.shutdown().await;
    }
}

/// Opens the log at an address, and makes the sources' topics; `kafka` are properties of its client.
pub(crate) async fn open_log(
    address: &str,
    kafka: BTreeMap<String, String>,
    declared: &Declared,
) -> anyhow::Result<Arc<dyn Log>> {
    let (address, shown) = (address.to_owned(), sanso_log::without_secrets(address));
    let log = tokio::task::spawn_blocking(move || sanso_log::open_with(&address, &kafka))
        .await
        .context("open the log")?
        .with_context(|| format!("open log {shown}"))?;
    for source in &declared.application.sources {
        let topic = TopicSpec::new(&source.topic, source.partitions);
        log.ensure_topic(&topic).await.with_context(|| format!("prepare topic {}", source.topic))?;
    }
    let formats: BTreeMap<_, _> = declared.application.sources.iter().filter_map(topic_format).collect();
    if formats.is_empty() {
        return Ok(log);
    }
    Ok(Arc::new(TranscodingLog::new(log, formats)))
}

/// Says how a source's topic is read and written, if not as JSON.
fn topic_format(source: &Arc<Source>) -> Option<(String, TopicFormat)> {
    let (format, registered) = match &source.format {
        RecordFormat::Json | RecordFormat::Windows { .. } => return None,
        RecordFormat::Avro(registered) => (Format::Avro, registered),
        RecordFormat::Protobuf(registered) => (Format::Protobuf, registered),
    };
    let login = std::env::var(REGISTRY_USER).ok().zip(std::env::var(REGISTRY_PASSWORD).ok());
    let config = RegistryConfig { url: registered.registry.clone(), login, latest_max: LATEST_SCHEMA_MAX };
    let topic = TopicFormat {
        registry: Registry::new(config, format),
        subject: registered.subject.clone(),
        columns: source.columns.iter().map(|column| column.name.clone()).collect(),
        refused_schemas: registered.refused_schemas.clone(),
    };
    Some((source.topic.clone(), topic))
}

/// Resolves when the node is stopped.
pub(crate) async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error says that the node is gone, which is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn run_batch(batch: Arc<BatchLayer>, stop: watch::Receiver<bool>) {
    batch.run(stopped(stop)).await;
}

/// Watches the limits until the node is stopped.
pub(crate) async fn run_alarm(board: StatusBoard, stop: watch::Receiver<bool>) {
    tokio::select! {
        () = stopped(stop) => {}
        () = bounds::watch(board.limits()) => {}
    }
}

/// Serves HTTP until the node is stopped.
pub(crate) async fn run_serving(serving: ServingLayer, listener: TcpListener, stop: watch::Receiver<bool>) {
    serving.serve(listener, stopped(stop)).await;
}

impl Parts {
    /// Backfills a view version and makes it live.
    async fn bring_up(&self, view: &Arc<View>) -> anyhow::Result<()> {
        let blocks = self
            .batch
            .ensure_published(view)
            .await
            .with_context(|| format!("backfill view {}", view.name))?;
        ensure!(blocks.len() == view.partitions as usize, "view {}: a block is missing", view.name);
        for (index, block) in (0..).zip(blocks) {
            let partition = ViewPartition::new(view.partition_config(), block);
            self.store.create(PartitionId { view: view.fingerprint, index }, partition);
        }
        self.catalog.update(|catalog| {
            catalog.live.insert(view.fingerprint, Arc::clone(view));
        });
        tracing::info!(view = view.name, version = view.fingerprint.short(), "view version is live");
        Ok(())
    }

    /// Lets a live version serve.
    fn promote(&self, view: &Arc<View>) {
        self.catalog.update(|catalog| {
            catalog.serving.insert(view.name.clone(), view.fingerprint);
        });
        tracing::info!(view = view.name, version = view.fingerprint.short(), "view version serves");
    }

    fn retire(&self, versions: &[Fingerprint]) {
        self.catalog.update(|catalog| {
            catalog.live.retain(|fingerprint, _| !versions.contains(fingerprint));
            catalog.serving.retain(|_, serving| !versions.contains(serving));
        });
        for version in versions {
            self.store.remove(*version);
            tracing::info!(version = version.short(), "view version is retired");
        }
    }

    async fn applied(&self, view: &View) -> anyhow::Result<Vec<Vec<Offset>>> {
        let mut applied = Vec::new();
        for index in 0..view.partitions {
            let id = PartitionId { view: view.fingerprint, index };
            applied.push(self.store.read(id, &ReadRequest::Progress).await?.progress.applied);
        }
        Ok(applied)
    }

    /// Waits until a live version has applied what the serving one has, then lets it serve.
    async fn take_over(&self, view: &Arc<View>) -> anyhow::Result<()> {
        let catalog = self.catalog.current();
        if let Some(old) = catalog.serving(&view.name) {
            let target = furthest(&self.applied(old).await?);
            while !caught_up(&self.applied(view).await?, &target) {
                tokio::time::sleep(CATCH_UP_INTERVAL).await;
            }
        }
        self.promote(view);
        Ok(())
    }

    async fn adopt(&self, declared: &Declared) -> anyhow::Result<()> {
        let catalog = self.catalog.current();
        declared.check_sources(&catalog)?;
        let new = transition(&catalog, &declared.views).bring_up;
        self.batch.ensure_all_published(&new).await.context("compute the new views")?;
        for view in new {
            self.bring_up(&view).await?;
            self.take_over(&view).await?;
        }
        self.retire(&transition(&self.catalog.current(), &declared.views).retire);
        Ok(())
    }
}

/// Follows the application's files; a broken one changes nothing and is reported once.
async fn run_reload(app: PathBuf, mut declared: Declared, parts: Parts, stop: watch::Receiver<bool>) {
    let mut refused: Option<Fingerprint> = None;
    loop {
        tokio::select! {
            () = stopped(stop.clone()) => return,
            () = tokio::time::sleep(RELOAD_INTERVAL) => {}
        }
        let Ok(content) = application::content(&app, &declared.application) else { continue };
        if content == declared.content || refused == Some(content) {
            continue;
        }
        let change = async {
            let next = application::read(&app)?;
            parts.adopt(&next).await?;
            anyhow::Ok(next)
        };
        tokio::select! {
            () = stopped(stop.clone()) => return,
            next = change => match next {
                Ok(next) => declared = next,
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "the changed application is refused; the old one goes on");
                    refused = Some(content);
                }
            }
        }
    }
}
