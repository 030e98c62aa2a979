//! Drives the worker of one log partition, on a thread of its own: RocksDB
//! blocks, and a log partition is read by exactly one thread.
//!
//! ```text
//!   ┌─▶ targets from the catalog ─▶ read ─▶ feed ─▶ flush? ─▶ send ─▶ heartbeats ─▶ post ─┐
//!   └──────────────── wait for records, a change of the catalog, a deadline ◀───────────┘
//! ```
//!
//! A failed call ends the session; the next one starts from the index and the
//! view partitions' progress, as after a crash.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use sanso_catalog::{Catalog, CatalogHandle, PartitionProgress, StatusBoard};
use sanso_core::{PartitionId, PartitionStore, ReadRequest, StoreError};
use sanso_log::LogError;
use sanso_state::{Delta, Entry, Fingerprint, LogPartition, Offset, Outcome};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::SpeedConfig;
use crate::error::{Error, Remedy, Result};
use crate::late_merge::Answer;
use crate::limits::WorkerLimits;
use crate::metrics::WorkerMetrics;
use crate::newest::NewestIndex;
use crate::open_index::IndexPlace;
use crate::quarantine::SourceQuarantine;
use crate::rocks::RocksIndex;
use crate::turn::Turn;
use crate::worker::{Chunk, TargetStart, Worker};

/// How far a worker has come, for those who wait for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WorkerStatus {
    /// Below it everything is applied by every target.
    pub(crate) acknowledged: Offset,
    /// The view versions fed, each with all its view partitions.
    pub(crate) views: BTreeSet<Fingerprint>,
    /// Whether the index was held against the log.
    pub(crate) checked: bool,
    /// Why the worker stopped for good.
    pub(crate) stopped: Option<String>,
}

/// What one worker thread needs.
pub(crate) struct WorkerTask {
    pub(crate) config: SpeedConfig,
    pub(crate) place: IndexPlace,
    pub(crate) catalog: CatalogHandle,
    pub(crate) store: PartitionStore,
    pub(crate) board: StatusBoard,
    pub(crate) quarantine: SourceQuarantine,
    pub(crate) status: watch::Sender<WorkerStatus>,
    pub(crate) stop: CancellationToken,
    pub(crate) runtime: Handle,
}

impl WorkerTask {
    /// Runs until stopped, or until the log partition is no longer this process's and another feeds it;
    /// blocks the thread.
    pub(crate) fn run(self) {
        let span = tracing::info_span!("worker", source = self.source(), partition = self.partition().0);
        let _entered = span.enter();
        let mut rebuild = false;
        while !self.stop.is_cancelled() {
            let Err(error) = self.session(rebuild) else { return };
            rebuild = false;
            if error.remedy() != Remedy::Stop {
                // What it waits for may take long, or the index is made again from the log itself.
                self.checked();
            }
            self.board.post_trouble(self.source(), self.partition(), error.chain());
            match error.remedy() {
                Remedy::Retry => tracing::warn!(error = error.chain(), "try again"),
                Remedy::Rebuild => {
                    tracing::warn!(error = error.chain(), "rebuild the index");
                    rebuild = true;
                }
                Remedy::Stop => {
                    tracing::error!(error = error.chain(), "stopped: a person must act");
                    self.board.post_stopped(self.source(), self.partition(), error.chain());
                    self.status.send_modify(|status| status.stopped = Some(error.chain()));
                    return;
                }
            }
            let pause = Duration::from_millis(self.config.retry_ms);
            self.runtime.block_on(async {
                let _ = tokio::time::timeout(pause, self.stop.cancelled()).await;
            });
        }
    }

    fn source(&self) -> &str {
        &self.place.source.name
    }

    fn partition(&self) -> LogPartition {
        self.place.partition
    }

    /// Tells those who wait for it that the index fits the log.
    fn checked(&self) {
        self.status.send_if_modified(|status| !std::mem::replace(&mut status.checked, true));
    }

    fn session(&self, rebuild: bool) -> Result<()> {
        if self.catalog.current().share(self.source(), self.partition()).is_none() {
            return Ok(());
        }
        let rebuild = rebuild || !self.quarantine.has_begun(self.partition())?;
        let known = if rebuild { None } else { self.runtime.block_on(self.place.open())? };
        self.checked();
        let (index, built) = match known {
            Some(index) => (index, false),
            None => {
                let base = self.base_cut()?.unwrap_or(Offset::MAX);
                (self.runtime.block_on(self.place.build(base))?, true)
            }
        };
        if built {
            self.quarantine.begin(self.partition())?;
        }
        let metrics = WorkerMetrics::new(self.source(), self.partition(), index.counts());
        if built && index.position() > 0 {
            tracing::info!(floor = index.floor(), "built the index of newest versions");
            metrics.rebuilt.increment(1);
        }
        let source = Arc::clone(&self.place.source);
        let worker = Worker::new(source, self.partition(), index, self.config.queue_max);
        let now = Instant::now();
        Session {
            task: self,
            sink: self.quarantine.clone(),
            catalog: self.catalog.subscribe(),
            metrics,
            limits: WorkerLimits::new(&self.board.limits(), &self.config),
            worker,
            live: Vec::new(),
            turn: Turn::default(),
            unresolved: true,
            unflushed: 0,
            first_unflushed: now,
            end: 0,
            last_flush: now,
            last_record: now,
            last_heartbeat: now,
            last_collapse: now,
            collapse_to: None,
            published: 0..0,
        }
        .run()
    }

    /// Returns the lowest base cut of the live view partitions of the source, none where there are none.
    fn base_cut(&self) -> Result<Option<Offset>, StoreError> {
        let views = self.catalog.current().live_of(self.source());
        let mut least = None;
        for id in views.iter().flat_map(|view| partitions_of(view.fingerprint, view.partitions)) {
            let cut = match self.progress(id) {
                Ok(progress) => progress.cut.at(self.partition()),
                Err(StoreError::NotLive(_)) => continue,
                Err(unreachable) => return Err(unreachable),
            };
            least = Some(least.map_or(cut, |least: Offset| least.min(cut)));
        }
        Ok(least)
    }

    fn progress(&self, id: PartitionId) -> Result<sanso_core::Progress, StoreError> {
        let reply = self.runtime.block_on(self.store.read(id, &ReadRequest::Progress))?;
        Ok(reply.progress)
    }
}

fn partitions_of(view: Fingerprint, partitions: u32) -> impl Iterator<Item = PartitionId> {
    (0..partitions).map(move |index| PartitionId { view, index })
}

/// One run of a worker from an opened index.
struct Session<'a> {
    task: &'a WorkerTask,
    worker: Worker<RocksIndex>,
    sink: SourceQuarantine,
    catalog: watch::Receiver<Arc<Catalog>>,
    metrics: WorkerMetrics,
    limits: WorkerLimits,
    live: Vec<TargetStart>,
    turn: Turn,
    /// Whether some live view partition could not be reached yet.
    unresolved: bool,
    /// Offsets fed since the last flush.
    unflushed: u64,
    /// When the first of them came.
    first_unflushed: Instant,
    /// The log's end when last read.
    end: Offset,
    last_flush: Instant,
    last_record: Instant,
    last_heartbeat: Instant,
    last_collapse: Instant,
    /// The floor found at the last collapse; used at the next, so that a view
    /// partition that starts from the base before finds it still readable.
    collapse_to: Option<Offset>,
    /// The offsets whose quarantine was dropped here, since the batch layer has published it.
    published: Range<Offset>,
}

impl Session<'_> {
    fn run(mut self) -> Result<()> {
        self.catalog.mark_changed();
        while !self.task.stop.is_cancelled() {
            if self.catalog.has_changed().unwrap_or(false) || self.unresolved {
                let catalog = self.catalog.borrow_and_update().clone();
                if !catalog.sources.contains_key(self.task.source()) {
                    return Ok(());
                }
                if !self.follow(&catalog)? {
                    return Ok(());
                }
            }
            let began = Instant::now();
            let read = self.read_and_feed()?;
            if self.flush_if_due(read) {
                self.send();
                self.metrics.flush_seconds.record(began.elapsed().as_secs_f64());
            } else {
                self.send();
            }
            self.heartbeat();
            self.post();
            self.discard_published()?;
            self.collapse()?;
            if self.worker.next_read_offset() >= self.end && read == 0 {
                self.wait()?;
            }
        }
        self.worker.flush();
        self.send();
        self.post();
        Ok(())
    }

    /// Takes the live view partitions from the catalog as targets, if this worker feeds them; says whether
    /// there is anything left for it to do.
    fn follow(&mut self, catalog: &Catalog) -> Result<bool> {
        let mut live = Vec::new();
        self.unresolved = false;
        let share = catalog.share(self.task.source(), self.task.partition());
        self.turn = self.turn.with(share);
        if share.is_none() && !self.turn.feeds() {
            return Ok(false);
        }
        let feeds = self.turn.feeds();
        for view in catalog.live_of(self.task.source()).into_iter().filter(|_| feeds) {
            for id in partitions_of(view.fingerprint, view.partitions) {
                match self.task.progress(id) {
                    Ok(progress) => live.push(TargetStart {
                        view: Arc::clone(&view),
                        index: id.index,
                        applied: progress.applied[self.task.partition().index()],
                    }),
                    Err(StoreError::NotLive(_) | StoreError::Unreachable { .. }) => self.unresolved = true,
                }
            }
        }
        self.live = live;
        self.worker.targets_changed(self.live.clone());
        let live: Vec<Fingerprint> =
            catalog.live_of(self.task.source()).iter().map(|view| view.fingerprint).collect();
        self.sink.retain_views(self.task.partition(), &live)?;
        Ok(true)
    }

    /// Drops the quarantine of offsets that the batch layer has published by now: it is read from there.
    fn discard_published(&mut self) -> Result<()> {
        let task = self.task;
        let Some(division) = task.board.published(task.source()) else { return Ok(()) };
        let published = division.batch(task.partition());
        if published != self.published {
            self.sink.discard(task.partition(), published.clone())?;
            self.published = published;
        }
        Ok(())
    }

    /// Reads what follows and feeds it; returns how many offsets that were.
    fn read_and_feed(&mut self) -> Result<u64> {
        let task = self.task;
        let from = self.worker.next_read_offset();
        let (topic, partition) = (&task.place.source.topic, task.partition().0);
        let (records, bytes) = (task.config.chunk_records_max, task.config.chunk_bytes_max);
        let read = task.place.log.read(topic, partition, from, records, bytes);
        let batch = match task.runtime.block_on(read) {
            Ok(batch) => batch,
            Err(LogError::Truncated { start, .. }) => {
                let position = self.worker.index().position();
                if start > position {
                    return Err(Error::Behind { position, start });
                }
                tracing::warn!(from, start, "view partitions below the log's start wait for a newer base");
                self.worker.log_starts_at(start);
                return Ok(0);
            }
            Err(error) => {
                self.hand_over();
                return Err(error.into());
            }
        };
        self.end = batch.end;
        let offsets = batch.next - from;
        if offsets > 0 {
            self.worker.set_idle(false);
            self.worker.feed(&Chunk::of(from, batch), &mut self.sink)?;
            self.last_record = Instant::now();
            if self.unflushed == 0 {
                self.first_unflushed = self.last_record;
            }
            self.unflushed += offsets;
        }
        Ok(offsets)
    }

    /// Sends all that was read, since nothing may follow for long: the log may withhold a record until
    /// its schema is registered, and what lies before it must not wait.
    fn hand_over(&mut self) {
        self.worker.flush();
        self.unflushed = 0;
        self.send();
        // Before the first read it is not known how much there is to do.
        if self.end > 0 {
            self.post();
        }
    }

    fn gathers_since(&self) -> Instant {
        self.turn.gathers_since(self.last_flush, self.first_unflushed)
    }

    fn flush_if_due(&mut self, read: u64) -> bool {
        let config = &self.task.config;
        let rested = self.gathers_since().elapsed() >= Duration::from_millis(config.flush_ms);
        let caught_up = self.worker.next_read_offset() >= self.end;
        let many = self.unflushed >= config.flush_rows && self.turn != Turn::Lingers;
        let due = many || (rested && (caught_up || read > 0));
        if self.unflushed == 0 || !due {
            return false;
        }
        self.worker.flush();
        self.unflushed = 0;
        self.last_flush = Instant::now();
        true
    }

    /// Sends the closed deltas: each target's one after the other, those of all targets at once.
    fn send(&mut self) {
        let rewound = self.worker.rewound();
        let heads = self.worker.targets().into_iter().filter_map(|id| Some((id, self.head(id)?)));
        self.submit(heads.collect(), Self::head);
        self.metrics.rewound.increment(self.worker.rewound() - rewound);
    }

    /// Returns the closed delta that a target waits for.
    fn head(&self, id: PartitionId) -> Option<Delta> {
        self.worker.outgoing(id).next().cloned()
    }

    /// Submits deltas to their targets at once, and to each that moved on what is `then` to be sent.
    fn submit(
        &mut self,
        deltas: Vec<(PartitionId, Delta)>,
        then: impl Fn(&Self, PartitionId) -> Option<Delta>,
    ) {
        let task = self.task;
        let submit = |(id, delta)| async move { (id, task.store.submit(id, Entry::Delta(delta)).await) };
        task.runtime.block_on(async {
            let mut submitted: FuturesUnordered<_> = deltas.into_iter().map(submit).collect();
            while let Some((id, outcome)) = submitted.next().await {
                if self.answered(id, outcome) {
                    submitted.extend(then(self, id).map(|delta| submit((id, delta))));
                }
            }
        });
    }

    /// Takes the answer of a target; says whether it moved on.
    fn answered(&mut self, id: PartitionId, outcome: Result<Outcome, StoreError>) -> bool {
        let Ok(outcome) = outcome else {
            self.drop_target(id);
            return false;
        };
        match self.worker.on_outcome(id, &outcome) {
            Answer::Advanced => {
                self.metrics.deltas.increment(1);
                true
            }
            Answer::Resumed(applied) => {
                tracing::debug!(target = %id, applied, "resumed");
                self.metrics.refused.increment(1);
                if self.turn.refused() != self.turn {
                    tracing::info!("another node feeds the log partition now");
                    self.turn = self.turn.refused();
                    self.drop_target(id);
                }
                false
            }
            Answer::Ignored => false,
            Answer::Invalid(reason) => {
                tracing::error!(target = %id, reason, "a view partition will not take this worker's deltas");
                self.drop_target(id);
                false
            }
        }
    }

    /// Drops a target until the catalog's view partitions are looked at again.
    fn drop_target(&mut self, id: PartitionId) {
        self.live.retain(|target| target.id() != id);
        self.worker.targets_changed(self.live.clone());
        self.unresolved = true;
    }

    fn heartbeat(&mut self) {
        let config = &self.task.config;
        let quiet = self.last_record.elapsed() >= Duration::from_millis(config.idle_after_ms);
        self.worker.set_idle(quiet);
        if self.last_heartbeat.elapsed() < Duration::from_millis(config.heartbeat_ms) {
            return;
        }
        self.last_heartbeat = Instant::now();
        let deltas =
            self.worker.targets().into_iter().filter_map(|id| Some((id, self.worker.heartbeat(id)?)));
        self.submit(deltas.collect(), |_, _| None);
    }

    fn post(&mut self) {
        let task = self.task;
        let position = self.worker.index().position();
        let counts = self.worker.counts();
        self.metrics.count(&counts);
        self.limits.tell(&self.worker);
        self.metrics.position.set(position as f64);
        self.metrics.lag.set(self.end.saturating_sub(position) as f64);
        let progress = PartitionProgress {
            end: self.end.max(position),
            position,
            watermark_us: self.worker.watermark_us(),
            idle: self.last_record.elapsed() >= Duration::from_millis(task.config.idle_after_ms),
            counts,
        };
        task.board.post_speed(task.source(), task.partition(), progress);
        let held = |view: &Fingerprint| {
            let wanted = self.live.iter().find(|target| target.view.fingerprint == *view);
            let count = self.live.iter().filter(|target| target.view.fingerprint == *view).count();
            wanted.is_some_and(|target| target.view.partitions as usize == count)
        };
        let views: BTreeSet<_> = self.live.iter().map(|t| t.view.fingerprint).filter(held).collect();
        let status =
            WorkerStatus { acknowledged: self.worker.acknowledged(), views, checked: true, stopped: None };
        task.status.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }

    fn collapse(&mut self) -> Result<()> {
        let every = Duration::from_millis(self.task.config.collapse_every_ms);
        if self.last_collapse.elapsed() < every || self.unresolved {
            return Ok(());
        }
        self.last_collapse = Instant::now();
        if let Some(floor) = self.collapse_to {
            self.worker.collapse(floor)?;
        }
        // One that can't be reached may need what lies before the others' cuts.
        self.collapse_to = self.task.base_cut().unwrap_or(None);
        Ok(())
    }

    /// Waits for records, a change of the catalog, or the next deadline.
    fn wait(&mut self) -> Result<()> {
        let task = self.task;
        let position = self.worker.next_read_offset();
        let until = |since: Instant, ms: u64| Duration::from_millis(ms).saturating_sub(since.elapsed());
        let mut pause = until(self.last_heartbeat, task.config.heartbeat_ms);
        if self.unflushed > 0 {
            pause = pause.min(until(self.gathers_since(), task.config.flush_ms));
        }
        if self.unresolved {
            pause = pause.min(Duration::from_millis(task.config.flush_ms));
        }
        let (topic, partition) = (&task.place.source.topic, task.partition().0);
        let Self { catalog, end, .. } = self;
        task.runtime.block_on(async {
            tokio::select! {
                beyond = task.place.log.wait_beyond(topic, partition, position) => {
                    *end = beyond?;
                    Ok(())
                }
                changed = catalog.changed() => {
                    // Seen here, but followed at the start of the next round.
                    if changed.is_ok() {
                        catalog.mark_changed();
                    }
                    Ok(())
                }
                () = task.stop.cancelled() => Ok(()),
                () = tokio::time::sleep(pause) => Ok(()),
            }
        })
    }
}
