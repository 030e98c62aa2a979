//! The speed layer's service: one worker thread for each log partition of each
//! source in the catalog that is this node's share.
//!
//! In a cluster a log partition is fed by one node, and followed by another,
//! which only keeps its index warm so as to go on at once. Two that both feed,
//! because one has not heard yet that it does so no longer, are harmless: view
//! partitions compare and apply.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{JoinHandle, ThreadId};

use parking_lot::Mutex;
use sanso_catalog::{CatalogHandle, Registered, StatusBoard};
use sanso_core::PartitionStore;
use sanso_dataset::Dataset;
use sanso_log::{Log, TopicSpec};
use sanso_state::LogPartition;
use sanso_view::Source;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::SpeedConfig;
use crate::error::{Error, Result};
use crate::limits;
use crate::open_index::IndexPlace;
use crate::quarantine::Quarantine;
use crate::rocks::RocksShare;
use crate::task::{WorkerStatus, WorkerTask};

/// A source's name, and one of its log partitions.
type Place = (String, LogPartition);

type Workers = BTreeMap<Place, watch::Receiver<WorkerStatus>>;

/// The threads of the workers.
type Hands = BTreeMap<Place, JoinHandle<()>>;

/// The speed layer.
pub struct SpeedLayer {
    config: SpeedConfig,
    log: Arc<dyn Log>,
    dataset: Dataset,
    catalog: CatalogHandle,
    store: PartitionStore,
    board: StatusBoard,
    quarantine: Quarantine,
    share: RocksShare,
    stop: CancellationToken,
    runtime: Handle,
    workers: watch::Sender<Workers>,
    hands: Arc<Mutex<Hands>>,
    /// Is told of each worker that ends.
    ended: mpsc::UnboundedSender<(Place, ThreadId)>,
}

impl SpeedLayer {
    /// Starts the layer: opens the quarantine, makes the sources' topics, and starts a worker for each log partition.
    /// Returns once every index is held against the log; a log that ends before what was read of it
    /// is refused. It then follows the catalog until [`SpeedHandle::shutdown`]. Call within
    /// a tokio runtime.
    pub async fn start(
        config: SpeedConfig,
        log: Arc<dyn Log>,
        dataset: Dataset,
        catalog: CatalogHandle,
        store: PartitionStore,
        board: StatusBoard,
    ) -> Result<SpeedHandle> {
        crate::metrics::describe();
        let runtime = Handle::current();
        let dir = config.dir.clone();
        let quarantine = blocking(move || Quarantine::open(&dir.join("quarantine"))).await?;
        board.connect_quarantine(Arc::new(quarantine.clone()));
        let share = RocksShare::new(config.index_cache_bytes_max, config.index_write_bytes_max);
        let limits = limits::register(&board.limits(), &config, &share);
        let (ended, ends) = mpsc::unbounded_channel();
        let layer = Self {
            ended,
            share: share.clone(),
            stop: CancellationToken::new(),
            workers: watch::Sender::new(Workers::new()),
            hands: Arc::default(),
            config,
            log: Arc::clone(&log),
            dataset,
            catalog: catalog.clone(),
            store,
            board,
            quarantine,
            runtime,
        };
        let handle = SpeedHandle {
            log,
            catalog,
            stop: layer.stop.clone(),
            supervisor: Mutex::new(None),
            workers: layer.workers.subscribe(),
            hands: Arc::clone(&layer.hands),
            _limits: limits,
        };
        let started = async {
            layer.follow_catalog().await?;
            layer.checked().await
        };
        if let Err(error) = started.await {
            // The threads must not outlive the runtime.
            handle.shutdown().await;
            return Err(error);
        }
        *handle.supervisor.lock() = Some(tokio::spawn(layer.supervise(ends)));
        Ok(handle)
    }

    /// Starts the workers that are missing. One that is no longer this process's to run ends by itself.
    async fn follow_catalog(&self) -> Result<()> {
        let catalog = self.catalog.current();
        for source in catalog.sources.values() {
            let mut missing: Vec<LogPartition> = (0..source.partitions).map(LogPartition).collect();
            missing.retain(|partition| catalog.share(&source.name, *partition).is_some());
            missing.retain(|partition| {
                let hands = self.hands.lock();
                hands.get(&(source.name.clone(), *partition)).is_none_or(JoinHandle::is_finished)
            });
            if missing.is_empty() {
                continue;
            }
            self.log.ensure_topic(&TopicSpec::new(&source.topic, source.partitions)).await?;
            for partition in missing {
                self.start_worker(source, partition)?;
            }
        }
        Ok(())
    }

    /// Forgets a worker that has ended. Waits for its thread, since only then another may open its index.
    async fn forget(&self, place: Place, ended: ThreadId) {
        let status = self.workers.borrow().get(&place).map(|status| status.borrow().stopped.is_some());
        if status == Some(true) && self.catalog.current().share(&place.0, place.1).is_some() {
            // It goes on telling that a person must act.
            return;
        }
        let thread = match self.hands.lock().entry(place.clone()) {
            Entry::Occupied(hand) if hand.get().thread().id() == ended => hand.remove(),
            // Another one works there already.
            _ => return,
        };
        self.workers.send_modify(|workers| _ = workers.remove(&place));
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!(source = place.0, partition = place.1.0, "a worker's thread panicked");
        }
        self.board.forget_speed(&place.0, place.1);
    }

    /// Waits until every worker has held its index against the log. Before that nothing may be
    /// appended: new records would take the offsets of those that a damaged log has lost.
    async fn checked(&self) -> Result<()> {
        let workers = self.workers.borrow().clone();
        for ((source_name, partition), mut status) in workers {
            let checked = status.wait_for(|status| status.checked || status.stopped.is_some()).await;
            // A worker that has ended before is asked to stop.
            let Ok(status) = checked else { continue };
            // One that stopped after that, however soon, is told by `/readyz`: what there is, is served.
            if !status.checked
                && let Some(reason) = status.stopped.clone()
            {
                return Err(Error::Stopped { source_name, partition: partition.0, reason });
            }
        }
        Ok(())
    }

    fn start_worker(&self, source: &Arc<Source>, partition: LogPartition) -> Result<()> {
        let status = watch::Sender::new(WorkerStatus::default());
        let receiver = status.subscribe();
        let task = WorkerTask {
            config: self.config.clone(),
            place: IndexPlace {
                dir: self.config.dir.clone(),
                share: self.share.clone(),
                log: Arc::clone(&self.log),
                dataset: self.dataset.clone(),
                source: Arc::clone(source),
                partition,
            },
            catalog: self.catalog.clone(),
            store: self.store.clone(),
            board: self.board.clone(),
            quarantine: self.quarantine.of(source)?,
            status,
            stop: self.stop.clone(),
            runtime: self.runtime.clone(),
        };
        let place = (source.name.clone(), partition);
        let (ended, ends) = (self.ended.clone(), place.clone());
        self.workers.send_modify(|workers| _ = workers.insert(place.clone(), receiver));
        let thread = spawn_thread(&format!("sanso-{}-{partition}", source.name), move || {
            task.run();
            // An error only says that nobody listens any longer.
            let _ = ended.send((ends, std::thread::current().id()));
        })?;
        self.hands.lock().insert(place, thread);
        Ok(())
    }

    async fn supervise(self, mut ends: mpsc::UnboundedReceiver<(Place, ThreadId)>) {
        let mut changes = self.catalog.subscribe();
        loop {
            // First of all: what changed before this subscribed would else be missed.
            if let Err(error) = self.follow_catalog().await {
                tracing::error!(error = error.chain(), "start workers of a new source");
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
                // Never none: this holds a sender.
                Some((place, thread)) = ends.recv() => self.forget(place, thread).await,
            }
        }
    }
}

/// The running speed layer. Dropping it stops the layer without waiting.
pub struct SpeedHandle {
    log: Arc<dyn Log>,
    catalog: CatalogHandle,
    stop: CancellationToken,
    supervisor: Mutex<Option<tokio::task::JoinHandle<()>>>,
    workers: watch::Receiver<Workers>,
    hands: Arc<Mutex<Hands>>,
    _limits: Vec<Registered>,
}

impl SpeedHandle {
    /// Resolves when every view partition live now has applied everything that
    /// was in the log when this was called. An error says which worker stopped.
    pub async fn caught_up(&self) -> Result<()> {
        let catalog = self.catalog.current();
        for source in catalog.sources.values() {
            let views: Vec<_> = catalog.live_of(&source.name).iter().map(|view| view.fingerprint).collect();
            for partition in (0..source.partitions).map(LogPartition) {
                let key = (source.name.clone(), partition);
                let stopped = |reason: &str| Error::Stopped {
                    source_name: source.name.clone(),
                    partition: partition.0,
                    reason: reason.to_owned(),
                };
                let mut workers = self.workers.clone();
                let started = workers.wait_for(|workers| workers.contains_key(&key)).await;
                let mut status = started.map_err(|_| stopped("the layer is shut down"))?[&key].clone();
                let end = self.log.end_offset(&source.topic, partition.0).await?;
                let reached = status.wait_for(|status| {
                    let fed = views.iter().all(|view| status.views.contains(view));
                    status.stopped.is_some() || (fed && status.acknowledged >= end)
                });
                let reached = reached.await.map_err(|_| stopped("the layer is shut down"))?;
                if let Some(reason) = &reached.stopped {
                    return Err(stopped(reason));
                }
            }
        }
        Ok(())
    }

    /// Stops the workers; returns when all threads have ended. Everything is where a restart finds it.
    pub async fn shutdown(self) {
        self.stop.cancel();
        let supervisor = self.supervisor.lock().take();
        if let Some(supervisor) = supervisor
            && supervisor.await.is_err()
        {
            tracing::error!("the supervisor panicked");
        }
        let hands = std::mem::take(&mut *self.hands.lock());
        let joined = tokio::task::spawn_blocking(move || {
            for thread in hands.into_values() {
                if thread.join().is_err() {
                    tracing::error!("a worker's thread panicked");
                }
            }
        });
        if joined.await.is_err() {
            tracing::error!("the threads could not be joined");
        }
    }
}

impl Drop for SpeedHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn spawn_thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let io = |source| Error::Io { action: "start the thread", path: PathBuf::from(name), source };
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(io)
}

pub(crate) async fn blocking<T: Send + 'static>(
    open: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(open).await {
        Ok(result) => result,
        Err(join) => std::panic::resume_unwind(join.into_panic()),
    }
}
