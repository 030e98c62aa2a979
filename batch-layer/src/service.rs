//! The batch layer as the rest of the process sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sanso_catalog::{CatalogHandle, StatusBoard};
use sanso_core::PartitionStore;
use sanso_dataset::Dataset;
use sanso_log::Log;
use sanso_state::{Block, Fingerprint};
use sanso_view::{Source, View};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::config::BatchConfig;
use crate::error::{Result, chain};
use crate::executor::{Executor, InProcess};
use crate::metrics;
use crate::report::{RunReport, SourceReport};
use crate::source_run::{SourceState, World};
use crate::worker::TaskWorker;

/// The batch layer of one process. Clones share it.
#[derive(Clone)]
pub struct BatchLayer(Arc<Inner>);

struct Inner {
    config: BatchConfig,
    log: Arc<dyn Log>,
    dataset: Dataset,
    catalog: CatalogHandle,
    store: PartitionStore,
    board: StatusBoard,
    executor: Arc<dyn Executor>,
    sources: Mutex<BTreeMap<String, Arc<Mutex<SourceState>>>>,
}

impl BatchLayer {
    /// Creates the batch layer; it does nothing until it is run. Its tasks run in this process.
    pub fn new(
        config: BatchConfig,
        log: Arc<dyn Log>,
        dataset: Dataset,
        catalog: CatalogHandle,
        store: PartitionStore,
        board: StatusBoard,
    ) -> Self {
        metrics::describe();
        let worker = TaskWorker::new(config.clone(), Arc::clone(&log), dataset.clone(), catalog.clone());
        let executor = Arc::new(InProcess::new(worker));
        let sources = Mutex::default();
        Self(Arc::new(Inner { config, log, dataset, catalog, store, board, executor, sources }))
    }

    /// Lets its tasks run elsewhere.
    ///
    /// # Panics
    /// When it has been cloned.
    pub fn with_executor(self, executor: Arc<dyn Executor>) -> Self {
        let inner = Arc::into_inner(self.0).expect("its executor is set before it is shared");
        Self(Arc::new(Inner { executor, ..inner }))
    }

    /// Returns a view's blocks, one for each view partition in order, at the version in force: loaded
    /// when published, else computed from the newest-version table and published. Empty blocks of
    /// version 0 where nothing is archived yet.
    ///
    /// From then on every version extends the view. To be called before the view's partitions are
    /// created; waits for a run of the view's source to end.
    pub async fn ensure_published(&self, view: &Arc<View>) -> Result<Vec<Arc<Block>>> {
        let state = self.state(&view.source.name).await;
        let mut state = state.lock().await;
        self.ensure_in(&mut state, &view.source, std::slice::from_ref(view)).await?;
        let all: Vec<u32> = (0..view.partitions).collect();
        self.blocks_in(&mut state, view, &all).await
    }

    /// Sees to it that views are published at the version in force, so that
    /// [`BatchLayer::ensure_published`] of each has no more to do than to load it: those of one source that
    /// must be computed are computed in one pass over its rows.
    pub async fn ensure_all_published(&self, views: &[Arc<View>]) -> Result<()> {
        for views in by_source(views).values() {
            let state = self.state(&views[0].source.name).await;
            self.ensure_in(&mut *state.lock().await, &views[0].source, views).await?;
        }
        Ok(())
    }

    /// Sees to it that live views are published, as [`BatchLayer::ensure_all_published`] does, but for those that are
    /// live no longer once a run of their source has ended: these are neither computed, not even to their end, nor
    /// extended. What is returned keeps further runs of their sources waiting, so that its blocks are of one version.
    pub async fn live_views(&self, views: &[Arc<View>]) -> Result<LiveViews> {
        let mut sources = BTreeMap::new();
        for (name, views) in by_source(views) {
            let mut state = self.state(name).await.lock_owned().await;
            let live = self.0.catalog.current();
            let is_live = |view: &&Arc<View>| live.live.contains_key(&view.fingerprint);
            let views: Vec<Arc<View>> = views.iter().filter(is_live).cloned().collect();
            let Some(first) = views.first() else { continue };
            self.ensure_in(&mut state, &first.source, &views).await?;
            state.note_live(&views);
            let known = views.iter().filter(|view| state.knows(view)).map(|view| view.fingerprint);
            sources.insert(name.to_owned(), (known.collect(), state));
        }
        Ok(LiveViews { batch: self.clone(), sources })
    }

    async fn blocks_in(
        &self,
        state: &mut SourceState,
        view: &Arc<View>,
        indexes: &[u32],
    ) -> Result<Vec<Arc<Block>>> {
        let blocks = state.blocks(&self.0.world(&view.source), view, indexes).await;
        if blocks.is_err() {
            state.forget();
        }
        blocks
    }

    /// Sees to views of one source; after an error the next call begins from what is in the dataset.
    async fn ensure_in(
        &self,
        state: &mut SourceState,
        source: &Arc<Source>,
        views: &[Arc<View>],
    ) -> Result<()> {
        let ensured = state.ensure(&self.0.world(source), views, &mut SourceReport::default()).await;
        if ensured.is_err() {
            state.forget();
        }
        ensured
    }

    /// Runs one step of every source: at most one new version each. A source that fails does not
    /// keep the others from their step; the first failure is returned.
    ///
    /// May be dropped at any point; the next run begins from what is committed.
    pub async fn run_once(&self) -> Result<RunReport> {
        let catalog = self.0.catalog.current();
        let mut report = RunReport::default();
        let mut failure = None;
        for (name, source) in &catalog.sources {
            match self.run_source(source).await {
                Ok(done) => {
                    report.sources.insert(name.clone(), done);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(report), Err)
    }

    /// Runs until `shutdown` resolves. Failures are logged, posted to the board and tried again.
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send) {
        let config = &self.0.config;
        let mut shutdown = std::pin::pin!(shutdown);
        let mut logged = None;
        loop {
            let outcome = tokio::select! {
                () = &mut shutdown => return,
                outcome = self.run_once() => outcome,
            };
            let pause_ms = match &outcome {
                Ok(report) if report.is_waiting() => config.adoption_poll_ms,
                Ok(report) if report.has_backlog() => 0,
                _ => config.interval_ms,
            };
            let error = outcome.err().map(|error| (error.is_transient(), chain(&error)));
            if error != logged {
                match &error {
                    Some((true, error)) => tracing::warn!(error, "a batch run failed and is tried again"),
                    Some((false, error)) => tracing::error!(error, "a batch run failed"),
                    None => tracing::info!("batch runs succeed again"),
                }
                logged = error;
            }
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
            }
        }
    }

    async fn run_source(&self, source: &Arc<Source>) -> Result<SourceReport> {
        let inner = &self.0;
        let state = self.state(&source.name).await;
        let mut state = state.lock().await;
        let started = Instant::now();
        let mut report = SourceReport::default();
        let world = inner.world(source);
        // What a driver before this one published is told at once: a first step may take long. Whatever keeps it from
        // being loaded keeps the step from it too.
        if state.progress.is_none() && state.load_manifest(&world).await.is_ok() {
            inner.board.post_batch(&source.name, state.progress(source, &report));
        }
        // Looked at now: while another call held the source, views may have come and gone.
        let live = inner.catalog.current().live_of(&source.name);
        let outcome = state.step(&world, &live, &mut report).await;
        let run_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        metrics::record(&source.name, &report, run_ms);
        inner.dataset.block_counts().iter().for_each(metrics::record_blocks);
        let mut progress = state.progress(source, &report);
        if report.version.is_some() {
            progress.published_us = now_us();
            progress.run_ms = run_ms;
        }
        progress.error = outcome.as_ref().err().map(|error| chain(error));
        inner.board.post_batch(&source.name, progress.clone());
        state.progress = Some(progress);
        if let Err(error) = outcome {
            metrics::record_error(&source.name);
            state.forget();
            return Err(error);
        }
        if let Some(version) = report.version {
            let (segments, rows) = (report.segments.len(), report.rows_archived);
            tracing::info!(
                source = source.name,
                version,
                segments,
                rows,
                run_ms,
                "published a batch version"
            );
        }
        Ok(report)
    }

    async fn state(&self, source: &str) -> Arc<Mutex<SourceState>> {
        Arc::clone(self.0.sources.lock().await.entry(source.to_owned()).or_default())
    }
}

/// Live views that are published, of which blocks are to be had.
pub struct LiveViews {
    batch: BatchLayer,
    /// By source: the views, and what is known of it.
    sources: BTreeMap<String, (BTreeSet<Fingerprint>, OwnedMutexGuard<SourceState>)>,
}

impl LiveViews {
    /// Reads the blocks of some of a view's partitions at the version in force, all at once; none where the view is
    /// not live.
    pub async fn blocks(&mut self, view: &Arc<View>, indexes: &[u32]) -> Result<Option<Vec<Arc<Block>>>> {
        match self.sources.get_mut(&view.source.name) {
            Some((live, state)) if live.contains(&view.fingerprint) => {
                self.batch.blocks_in(state, view, indexes).await.map(Some)
            }
            _ => Ok(None),
        }
    }
}

impl Inner {
    fn world<'a>(&'a self, source: &'a Arc<Source>) -> World<'a> {
        World {
            config: &self.config,
            log: self.log.as_ref(),
            dataset: &self.dataset,
            store: &self.store,
            board: &self.board,
            catalog: &self.catalog,
            source,
            executor: self.executor.as_ref(),
        }
    }
}

fn by_source(views: &[Arc<View>]) -> BTreeMap<&str, Vec<Arc<View>>> {
    let mut by_source: BTreeMap<&str, Vec<Arc<View>>> = BTreeMap::new();
    for view in views {
        by_source.entry(&view.source.name).or_default().push(Arc::clone(view));
    }
    by_source
}

/// Returns the time in microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
