//! One run of a log partition's worker, from an opened index: the driver of [`Worker`].
//!
//! ```text
//!   ┌─▶ targets from the catalog ─▶ read ─▶ feed ─▶ flush? ─▶ send ─▶ heartbeats ─▶ post ─┐
//!   └──────── wait for records, an answer, a change of the catalog, a deadline ◀───────────┘
//! ```
//!
//! A view partition that takes long is not waited for: the others go on, and it is sent the more at a time.

mod targets;
mod under_way;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sanso_catalog::{Catalog, PartitionProgress};
use sanso_core::PartitionId;
use sanso_log::{Batch, LogError};
use sanso_state::{Fingerprint, Offset};
use sanso_view::View;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Notify, oneshot, watch};

use self::under_way::UnderWay;
use crate::error::{Error, Result};
use crate::limits::WorkerLimits;
use crate::metrics::WorkerMetrics;
use crate::newest::NewestIndex;
use crate::quarantine::SourceQuarantine;
use crate::rocks::RocksIndex;
use crate::task::{WorkerStatus, WorkerTask, partitions_of};
use crate::turn::Turn;
use crate::worker::{Chunk, TargetStart, Worker};

/// How many records are read at once for targets that lag, so that the others wait little.
const CATCH_UP_RECORDS: usize = 2_048;

/// How long a view partition is waited for before the others go on without it.
const PATIENCE: Duration = Duration::from_millis(100);

/// What is being read for targets that lag.
struct Lagging {
    from: Offset,
    batch: oneshot::Receiver<Result<Batch, LogError>>,
    /// Told once it is there.
    arrived: Arc<Notify>,
}

/// One run of a worker from an opened index.
pub(crate) struct Session<'a> {
    task: &'a WorkerTask,
    worker: Worker<RocksIndex>,
    sink: SourceQuarantine,
    catalog: watch::Receiver<Arc<Catalog>>,
    metrics: WorkerMetrics,
    limits: WorkerLimits,
    /// The view partitions to feed.
    wanted: BTreeMap<PartitionId, Arc<View>>,
    /// Those of which it is known where they stand.
    live: BTreeMap<PartitionId, TargetStart>,
    under_way: UnderWay,
    /// When those that are not live were asked last.
    last_asked: Option<Instant>,
    turn: Turn,
    /// Offsets fed since the last flush.
    unflushed: u64,
    /// When the first of them came.
    first_unflushed: Instant,
    lagging: Option<Lagging>,
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

impl<'a> Session<'a> {
    /// Begins where the index ends.
    pub(crate) fn new(task: &'a WorkerTask, index: RocksIndex, metrics: WorkerMetrics) -> Self {
        let source = Arc::clone(&task.place.source);
        let worker = Worker::new(source, task.partition(), index, task.config.queue_max);
        let now = Instant::now();
        Self {
            task,
            sink: task.quarantine.clone(),
            catalog: task.catalog.subscribe(),
            metrics,
            limits: WorkerLimits::new(&task.board.limits(), &task.config),
            worker,
            wanted: BTreeMap::new(),
            live: BTreeMap::new(),
            under_way: UnderWay::new(task.store.clone(), task.runtime.clone()),
            last_asked: None,
            turn: Turn::default(),
            unflushed: 0,
            first_unflushed: now,
            lagging: None,
            end: 0,
            last_flush: now,
            last_record: now,
            last_heartbeat: now,
            last_collapse: now,
            collapse_to: None,
            published: 0..0,
        }
    }

    /// Works until stopped, or until there is nothing left to do.
    pub(crate) fn run(mut self) -> Result<()> {
        self.catalog.mark_changed();
        while !self.task.stop.is_cancelled() {
            if self.catalog.has_changed().unwrap_or(false) {
                let catalog = self.catalog.borrow_and_update().clone();
                if !catalog.sources.contains_key(self.task.source()) {
                    return Ok(());
                }
                if !self.follow(&catalog)? {
                    return Ok(());
                }
            }
            self.ask();
            let began = Instant::now();
            let read = self.read_and_feed()? + self.catch_up()?;
            let flushed = self.flush_if_due(read);
            self.send(PATIENCE);
            if flushed {
                self.metrics.flush_seconds.record(began.elapsed().as_secs_f64());
            }
            self.heartbeat();
            self.post();
            self.discard_published()?;
            self.collapse()?;
            if self.worker.next_read_offset() >= self.end && read == 0 {
                self.wait()?;
            }
        }
        self.send_all();
        self.post();
        Ok(())
    }

    /// Takes the live view partitions from the catalog as targets, if this worker feeds them; says whether
    /// there is anything left for it to do.
    fn follow(&mut self, catalog: &Catalog) -> Result<bool> {
        let share = catalog.share(self.task.source(), self.task.partition());
        self.turn = self.turn.with(share);
        if share.is_none() && !self.turn.feeds() {
            return Ok(false);
        }
        let views = catalog.live_of(self.task.source());
        let fed = views.iter().filter(|_| self.turn.feeds()).flat_map(|view| {
            partitions_of(view.fingerprint, view.partitions).map(|id| (id, Arc::clone(view)))
        });
        self.wanted = fed.collect();
        self.live.retain(|id, _| self.wanted.contains_key(id));
        self.worker.targets_changed(self.live.values().cloned().collect());
        self.last_asked = None;
        let live: Vec<Fingerprint> = views.iter().map(|view| view.fingerprint).collect();
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
        let from = self.worker.next_read_offset();
        let batch = self.task.runtime.block_on(self.read(from, self.task.config.chunk_records_max));
        self.feed(from, batch)
    }

    /// Feeds what was read for targets that lag, and has more of it read meanwhile: to go back in the log may
    /// take seconds, and the others don't wait for that. Returns how many offsets were fed.
    fn catch_up(&mut self) -> Result<u64> {
        let mut fed = 0;
        if let Some(mut lagging) = self.lagging.take() {
            match lagging.batch.try_recv() {
                Ok(batch) if Some(lagging.from) == self.lags_from() => {
                    fed = self.feed(lagging.from, batch)?
                }
                Err(TryRecvError::Empty) => self.lagging = Some(lagging),
                // What lags has moved meanwhile, or the process ends.
                Ok(_) | Err(TryRecvError::Closed) => {}
            }
        }
        if self.lagging.is_none() {
            self.lagging = self.lags_from().map(|from| self.read_lagging(from));
        }
        Ok(fed)
    }

    /// Returns from where targets lag, if others don't.
    fn lags_from(&self) -> Option<Offset> {
        self.worker.behind().filter(|behind| *behind != self.worker.next_read_offset())
    }

    /// Reads from the log.
    fn read(&self, from: Offset, records: usize) -> impl Future<Output = Result<Batch, LogError>> + 'static {
        let (log, topic) = (Arc::clone(&self.task.place.log), self.task.place.source.topic.clone());
        let (partition, bytes) = (self.task.partition().0, self.task.config.chunk_bytes_max);
        async move { log.read(&topic, partition, from, records, bytes).await }
    }

    /// Begins to read a little for targets that lag.
    fn read_lagging(&self, from: Offset) -> Lagging {
        let read = self.read(from, self.task.config.chunk_records_max.min(CATCH_UP_RECORDS));
        let (sender, batch) = oneshot::channel();
        let arrived = Arc::new(Notify::new());
        let told = Arc::clone(&arrived);
        self.task.runtime.spawn(async move {
            // An error only says that nobody waits any longer.
            let _ = sender.send(read.await);
            told.notify_one();
        });
        Lagging { from, batch, arrived }
    }

    fn feed(&mut self, from: Offset, batch: Result<Batch, LogError>) -> Result<u64> {
        let batch = match batch {
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
        self.end = self.end.max(batch.end);
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
        self.send_all();
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
        let mut views: BTreeSet<Fingerprint> = self.wanted.keys().map(|id| id.view).collect();
        self.wanted.keys().filter(|id| !self.live.contains_key(id)).for_each(|id| _ = views.remove(&id.view));
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
        if self.last_collapse.elapsed() < every || !self.all_live() {
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
        if !self.all_live() {
            pause = pause.min(Duration::from_millis(task.config.flush_ms));
        }
        let (topic, partition) = (&task.place.source.topic, task.partition().0);
        let Self { catalog, end, lagging, under_way, .. } = self;
        let arrived = async {
            match lagging {
                Some(lagging) => lagging.arrived.notified().await,
                None => std::future::pending().await,
            }
        };
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
                () = arrived => Ok(()),
                () = under_way.arrives() => Ok(()),
                () = task.stop.cancelled() => Ok(()),
                () = tokio::time::sleep(pause) => Ok(()),
            }
        })
    }
}
