//! Closed windows to output topics: the thread that drives [`Emission`].
//!
//! ```text
//!   ┌─▶ whose primary is this process? ─▶ read topics ─▶ begin, offer ─▶ take ─▶ append ─┐
//!   └───────────── wait for emissions, or for a second ◀──────────────────────────────┘
//! ```
//!
//! Promised: each content of a closed window is written, and the newest is written last and with the
//! highest revision; as long as one process emits, no content is written twice, whatever is killed.
//!
//! Only the version of a view that serves is emitted, in a cluster the one that most nodes serve. An append of unknown outcome is followed by reading
//! the topic, like a crash. A consumer that reads a Kafka topic sees each record once under
//! the log's own promises (idempotent producer).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sanso_catalog::CatalogHandle;
use sanso_core::{PartitionId, PartitionStore, ReadRequest, Readable};
use sanso_log::{Append, Log, LogError, TopicSpec, partition_for_key};
use sanso_state::{Fingerprint, GroupId, Offset};
use sanso_view::View;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::emission::Emission;
use crate::emitted::EmittedWindow;
use crate::emitted_record::{EmittedRecord, KeepOnDisk};
use crate::error::{Error, Remedy, Result};
use crate::metrics as names;
use crate::service::{blocking, spawn_thread};

/// Windows appended and recorded at once.
const BATCH_WINDOWS: usize = 1_000;
/// Groups, or windows in a topic, that are looked at at once by who begins to emit.
const OFFERED: usize = 2_000;
/// Records read at once while the record catches up with a topic.
const READ_RECORDS: usize = 4_096;
const READ_BYTES: usize = 4 << 20;
/// How often topics are read for what others have written, how often the emitter looks without being
/// told, and how long it rests after an error.
const ROUND: Duration = Duration::from_millis(1_000);
/// How long after another version of a view was written all windows are held against the topic: by then all
/// nodes write the same one.
const CONTESTED: Duration = Duration::from_secs(5);

/// What is to be held against the topic still, since a view partition began to emit.
struct Offering {
    groups: Vec<GroupId>,
    /// The window in the topic to go on after, once all groups are offered.
    after: String,
}

/// Writes the closed windows of the views with an output topic that this process is to emit.
pub(crate) struct Emitter {
    log: Arc<dyn Log>,
    catalog: CatalogHandle,
    store: PartitionStore,
    path: PathBuf,
    emission: Emission<KeepOnDisk>,
    /// The view partitions that emit; what is left to offer.
    emitting: BTreeMap<PartitionId, (Readable, Option<Offering>)>,
    /// The partition counts of topics that were read to their ends, and when.
    synced: BTreeMap<String, (u32, Instant)>,
    /// Views of which another version was written too, and when this is looked at.
    contested: BTreeMap<String, Instant>,
    waits: Arc<Notify>,
}

impl Emitter {
    pub(crate) fn open(
        path: &Path,
        log: Arc<dyn Log>,
        catalog: CatalogHandle,
        store: PartitionStore,
    ) -> Result<Self> {
        let emission = Emission::new(EmittedRecord::of(KeepOnDisk::open(path)?));
        Ok(Self {
            log,
            catalog,
            store,
            path: path.to_owned(),
            emission,
            emitting: BTreeMap::new(),
            synced: BTreeMap::new(),
            contested: BTreeMap::new(),
            waits: Arc::default(),
        })
    }

    /// Emits until stopped, then once more; blocks the thread.
    fn run(mut self, runtime: &Handle, stop: &CancellationToken) {
        loop {
            let last = stop.is_cancelled();
            let more = match runtime.block_on(self.round()) {
                Ok(more) => more,
                Err(error) => {
                    self.recover(&error);
                    runtime.block_on(async {
                        let _ = tokio::time::timeout(ROUND, stop.cancelled()).await;
                    });
                    false
                }
            };
            if last {
                return;
            }
            let waits = Arc::clone(&self.waits);
            runtime.block_on(async {
                tokio::select! {
                    () = std::future::ready(()), if more => {}
                    () = waits.notified() => {}
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(ROUND) => {}
                }
            });
        }
    }

    /// Prepares another try after an error.
    fn recover(&mut self, error: &Error) {
        // What was appended is not known; the topic says.
        self.synced.clear();
        // A topic that lost its end lacks windows that the record knows; made again, it knows what
        // the topic has, and the rest is emitted once more.
        let beyond = matches!(error, Error::Log(LogError::BeyondEnd { .. }));
        if beyond || error.remedy() == Remedy::Rebuild {
            for (id, (readable, _)) in std::mem::take(&mut self.emitting) {
                readable.stop_emitting(id);
                self.emission.forget(id);
            }
            if let Err(error) = self.emission.record_mut().make_again(&self.path, error) {
                tracing::error!(error = error.chain(), "make the record of emissions again");
            }
        } else {
            tracing::warn!(error = error.chain(), "emit closed windows: tried again");
        }
    }

    /// Takes what waits and writes it. Says whether there is more to do at once.
    pub(crate) async fn round(&mut self) -> Result<bool> {
        let catalog = self.catalog.current();
        let serving: BTreeMap<Fingerprint, Arc<View>> = catalog
            .emitting_views()
            .filter(|view| view.output_topic.is_some())
            .map(|view| (view.fingerprint, Arc::clone(view)))
            .collect();
        let mut here: BTreeMap<PartitionId, Readable> = self.store.emits_here().into_iter().collect();
        here.retain(|id, _| serving.contains_key(&id.view));
        self.let_go(&here);
        self.contest(&serving);
        let begins = here.keys().any(|id| !self.emitting.contains_key(id));
        for view in serving.values() {
            self.sync(view, &serving, begins).await?;
        }
        let mut more = false;
        for (id, readable) in here {
            let view = &serving[&id.view];
            match readable.take_emissions(id) {
                Some(emitted) if self.emitting.contains_key(&id) => self.emission.take(id, emitted),
                _ => {
                    more |= self.begin(view, id, &readable)?;
                    continue;
                }
            }
            self.offer(view, id)?;
            self.write(view, id).await?;
            more |= self.emitting.get(&id).is_some_and(|(_, offering)| offering.is_some());
        }
        Ok(more)
    }

    /// Ends emitting what others are to emit now, or what is not there any longer.
    fn let_go(&mut self, here: &BTreeMap<PartitionId, Readable>) {
        let gone: Vec<_> = self.emitting.extract_if(.., |id, _| !here.contains_key(id)).collect();
        for (id, (readable, _)) in gone {
            readable.stop_emitting(id);
            self.emission.forget(id);
            tracing::info!(partition = %id, "closed windows are emitted elsewhere");
        }
    }

    /// Begins to emit, if a view partition is as far as what was written of it.
    fn begin(&mut self, view: &View, id: PartitionId, readable: &Readable) -> Result<bool> {
        self.emitting.remove(&id);
        self.emission.forget(id);
        let Some(reply) = readable.read(id, &ReadRequest::Progress) else { return Ok(false) };
        if !self.emission.may_begin(view, id, &reply.progress.applied)? {
            return Ok(false);
        }
        let windows = Arc::new(view.window.clone());
        let Some(groups) = readable.emit(id, windows, &self.waits) else { return Ok(false) };
        tracing::debug!(partition = %id, groups = groups.len(), "emits closed windows");
        let offering = Offering { groups, after: String::new() };
        self.emitting.insert(id, (readable.clone(), Some(offering)));
        Ok(true)
    }

    /// Offers some of what was there when emitting began: the groups of the view partition, then windows
    /// that the topic has and the view partition not.
    fn offer(&mut self, view: &View, id: PartitionId) -> Result<()> {
        let Some((readable, offers)) = self.emitting.get_mut(&id) else { return Ok(()) };
        let Some(mut offering) = offers.take() else { return Ok(()) };
        if !offering.groups.is_empty() {
            let rest = offering.groups.len().saturating_sub(OFFERED);
            readable.offer(id, &offering.groups.split_off(rest));
            *offers = Some(offering);
        } else {
            let Some(reply) = readable.read(id, &ReadRequest::Progress) else { return Ok(()) };
            let listed =
                self.emission.with_values(view, id, &reply.progress.applied, &offering.after, OFFERED)?;
            let is_gone = |(group, end): &(GroupId, i64)| {
                let keys = vec![group.key.clone()];
                let panes = ReadRequest::Keys { keys, from: group.window_start, to: *end };
                readable.read(id, &panes).is_some_and(|reply| reply.groups.is_empty())
            };
            readable.offer_windows(id, listed.windows.into_iter().filter(is_gone).collect());
            *offers = listed.next.map(|after| Offering { groups: Vec::new(), after });
        }
        if let Some(emitted) = readable.take_emissions(id) {
            self.emission.take(id, emitted);
        }
        Ok(())
    }

    /// Appends the windows of a view partition whose content is new.
    async fn write(&mut self, view: &View, id: PartitionId) -> Result<()> {
        let Some(topic) = &view.output_topic else { return Ok(()) };
        let Some((partitions, _)) = self.synced.get(topic).copied() else { return Ok(()) };
        let mut batches: BTreeMap<u32, Vec<EmittedWindow>> = BTreeMap::new();
        let Some(due) = self.emission.due(view, id)? else { return Ok(()) };
        for window in due {
            let partition = partition_for_key(window.id.as_bytes(), partitions);
            batches.entry(partition).or_default().push(window);
        }
        let labels = [("view", view.name.clone())];
        for (partition, windows) in batches {
            for windows in windows.chunks(BATCH_WINDOWS) {
                let offsets = self.append(topic, partition, windows).await?;
                if !self.emission.appended(topic, partition, &offsets, windows)? {
                    self.synced.remove(topic);
                }
                metrics::counter!(names::EMITTED, &labels).increment(windows.len() as u64);
            }
        }
        self.emission.forget(id);
        Ok(())
    }

    /// Appends windows to one partition of a topic.
    async fn append(&self, topic: &str, partition: u32, windows: &[EmittedWindow]) -> Result<Vec<Offset>> {
        let records = windows.iter().map(|window| {
            let payload = serde_json::to_vec(window).expect("plain structs are always JSON");
            Append::keyed(window.id.clone().into_bytes(), payload)
        });
        Ok(self.log.append(topic, partition, records.collect()).await?)
    }

    /// Takes note of views whose other versions somebody has written: a node that has not heard yet which
    /// version is emitted now. What that one wrote is held against this one in a while, all at once.
    fn notice_other_versions(
        &mut self,
        windows: &[EmittedWindow],
        serving: &BTreeMap<Fingerprint, Arc<View>>,
    ) {
        for window in windows.iter().filter(|window| !serving.contains_key(&window.version)) {
            let is_emitted =
                |id: &PartitionId| serving.get(&id.view).is_some_and(|view| view.name == window.view);
            if self.emitting.keys().any(is_emitted) && !self.contested.contains_key(&window.view) {
                tracing::info!(view = window.view, "another version's closed windows are written elsewhere");
                self.contested.insert(window.view.clone(), Instant::now() + CONTESTED);
            }
        }
    }

    /// Lets view partitions begin anew whose windows another version has written.
    fn contest(&mut self, serving: &BTreeMap<Fingerprint, Arc<View>>) {
        let now = Instant::now();
        for (name, _) in self.contested.extract_if(.., |_, due| *due <= now) {
            let is_of = |id: &PartitionId| serving.get(&id.view).is_some_and(|view| view.name == name);
            for (id, (readable, _)) in self.emitting.extract_if(.., |id, _| is_of(id)) {
                readable.stop_emitting(id);
                self.emission.forget(id);
            }
        }
    }

    /// Makes a view's topic, and brings the record up to the topic's end: `now`, or when it was long ago.
    async fn sync(
        &mut self,
        view: &View,
        serving: &BTreeMap<Fingerprint, Arc<View>>,
        now: bool,
    ) -> Result<()> {
        let Some(topic) = &view.output_topic else { return Ok(()) };
        let partitions = match self.synced.get(topic) {
            Some((_, at)) if !now && at.elapsed() < ROUND => return Ok(()),
            Some((partitions, _)) => *partitions,
            None => self.partitions(topic, view.partitions).await?,
        };
        for partition in 0..partitions {
            self.read(topic, partition, serving).await?;
        }
        self.synced.insert(topic.clone(), (partitions, Instant::now()));
        Ok(())
    }

    /// Returns the number of a topic's partitions; one that is not there is made.
    async fn partitions(&self, topic: &str, wanted: u32) -> Result<u32> {
        match self.log.partitions(topic).await {
            Err(LogError::UnknownTopic { .. }) => {
                self.log.ensure_topic(&TopicSpec::new(topic, wanted)).await?;
                Ok(wanted)
            }
            known => Ok(known?),
        }
    }

    /// Reads one partition of a topic from where it was read last.
    async fn read(
        &mut self,
        topic: &str,
        partition: u32,
        serving: &BTreeMap<Fingerprint, Arc<View>>,
    ) -> Result<()> {
        let start = self.log.start_offset(topic, partition).await?;
        let mut from = self.emission.synced(topic, partition)?.max(start);
        loop {
            let batch = self.log.read(topic, partition, from, READ_RECORDS, READ_BYTES).await?;
            let windows: Vec<EmittedWindow> = batch
                .records
                .iter()
                .filter_map(|record| serde_json::from_slice(&record.payload).ok())
                .collect();
            if windows.len() < batch.records.len() {
                let foreign = batch.records.len() - windows.len();
                tracing::warn!(topic, partition, foreign, "the output topic holds records of others");
            }
            if batch.next > from {
                let written = self.emission.read(topic, partition, batch.next, &windows, serving)?;
                for (id, group, end) in written {
                    if let Some((readable, _)) = self.emitting.get(&id) {
                        readable.offer_windows(id, vec![(group, end)]);
                    }
                }
                self.notice_other_versions(&windows, serving);
            }
            from = batch.next;
            if from >= batch.end {
                return Ok(());
            }
        }
    }
}

/// The thread that writes closed windows. In a cluster every node has one, whatever its layers are: the
/// primary of a view partition emits it. Dropping it ends the thread without waiting.
pub struct EmitterHandle {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl EmitterHandle {
    /// Opens the record below `dir`, which is the speed layer's, and starts the thread. Call within a
    /// tokio runtime.
    pub async fn start(
        dir: &Path,
        log: Arc<dyn Log>,
        catalog: CatalogHandle,
        store: PartitionStore,
    ) -> Result<Self> {
        let path = dir.join("emitted");
        let emitter = blocking(move || Emitter::open(&path, log, catalog, store)).await?;
        let stop = CancellationToken::new();
        let (stopped, runtime) = (stop.clone(), Handle::current());
        let thread = spawn_thread("sanso-emitter", move || emitter.run(&runtime, &stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Emits what waits a last time; returns when the thread has ended.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let Some(thread) = self.thread.take() else { return };
        if !matches!(tokio::task::spawn_blocking(move || thread.join()).await, Ok(Ok(()))) {
            tracing::error!("the emitter's thread panicked");
        }
    }
}

impl Drop for EmitterHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
