//! Closed windows to output topics, each distinct content exactly once.
//!
//! ```text
//!   view partition ─take─▶ held ─applied reached?─▶ changed? ─▶ append ─▶ record
//! ```
//!
//! The conditions under which "exactly once" holds:
//! - Only the version that serves a view is emitted; contents of one window
//!   are compared across versions, so a new version repeats nothing.
//! - **Append first, record after.** A crash between the two leaves records in
//!   the topic that the record lacks; before anything is appended the topic is
//!   read from the synced offset, and the record catches up.
//! - **Nothing old comes back.** After a restart a view partition starts from
//!   its batch base and passes again through contents that were emitted long
//!   ago. What it emits is held until `applied` has reached the vector stored
//!   with its last emission; then only the latest content of each window counts.
//! - An append of unknown outcome is followed by reading the topic, like a crash.
//! - One emitter writes a topic. A consumer that reads a Kafka topic sees each
//!   record once under the log's own promises (idempotent producer).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sanso_catalog::CatalogHandle;
use sanso_core::{PartitionId, PartitionStore};
use sanso_log::{Append, Log, LogError, TopicSpec, partition_for_key};
use sanso_state::{Emission, GroupId, GroupState, Offset};
use sanso_view::View;
use serde_json::Value as Json;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::emitted::{EmittedRecord, EmittedWindow, row_json, time_text};
use crate::error::{Error, Remedy, Result};
use crate::metrics as names;

/// Windows appended and recorded at once.
const BATCH_WINDOWS: usize = 1_000;
/// Records read at once while the record catches up with a topic.
const READ_RECORDS: usize = 4_096;
const READ_BYTES: usize = 4 << 20;
/// How often the emitter looks without being told, and how long it rests after an error.
const ROUND: Duration = Duration::from_millis(1_000);

/// The latest emissions of one view partition, not yet written.
#[derive(Default)]
struct Held {
    windows: BTreeMap<GroupId, Emission>,
    applied: Vec<Offset>,
}

/// Writes the closed windows of all views with an output topic.
pub(crate) struct Emitter {
    log: Arc<dyn Log>,
    catalog: CatalogHandle,
    store: PartitionStore,
    record: EmittedRecord,
    held: BTreeMap<PartitionId, Held>,
    /// The topics whose records are all in the record, and their partition counts.
    synced: BTreeMap<String, u32>,
}

impl Emitter {
    pub(crate) fn open(
        path: &Path,
        log: Arc<dyn Log>,
        catalog: CatalogHandle,
        store: PartitionStore,
    ) -> Result<Self> {
        let record = EmittedRecord::open(path)?;
        Ok(Self { log, catalog, store, record, held: BTreeMap::new(), synced: BTreeMap::new() })
    }

    /// Emits until stopped, then once more; blocks the thread.
    pub(crate) fn run(mut self, runtime: &Handle, stop: &CancellationToken) {
        loop {
            let last = stop.is_cancelled();
            if let Err(error) = runtime.block_on(self.round()) {
                self.recover(&error);
                runtime.block_on(async {
                    let _ = tokio::time::timeout(ROUND, stop.cancelled()).await;
                });
            }
            if last {
                return;
            }
            let store = self.store.clone();
            runtime.block_on(async {
                tokio::select! {
                    () = store.emissions_waiting() => {}
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
            match self.record.make_again(error) {
                Ok(()) => {}
                Err(error) => tracing::error!(error = error.chain(), "make the record of emissions again"),
            }
        } else {
            tracing::warn!(error = error.chain(), "emit closed windows: tried again");
        }
    }

    /// Takes what waits and writes what may be written.
    pub(crate) async fn round(&mut self) -> Result<()> {
        let catalog = self.catalog.current();
        let serving: BTreeMap<_, _> = catalog
            .serving_views()
            .filter(|view| view.output_topic.is_some())
            .map(|view| (view.fingerprint, Arc::clone(view)))
            .collect();
        let listed: BTreeSet<_> = self.store.list().into_iter().collect();
        self.held.retain(|id, _| listed.contains(id) && serving.contains_key(&id.view));
        for id in listed {
            let Some(view) = serving.get(&id.view) else { continue };
            self.take(id);
            let Some(topic) = view.output_topic.as_ref().filter(|_| self.held.contains_key(&id)) else {
                continue;
            };
            // Only a record that knows the whole topic can tell how far emission has come.
            let partitions = self.sync(topic, view.partitions).await?;
            if self.may_emit(id)? {
                let windows = self.prepare(view, id);
                self.write(topic, partitions, windows).await?;
                self.held.remove(&id);
            }
        }
        Ok(())
    }

    fn take(&mut self, id: PartitionId) {
        // The partition may have been removed since it was listed.
        let Ok((emissions, applied)) = self.store.take_emissions(id) else { return };
        if emissions.is_empty() && !self.held.contains_key(&id) {
            return;
        }
        let held = self.held.entry(id).or_default();
        held.applied = applied;
        held.windows.extend(emissions.into_iter().map(|emission| (emission.group.clone(), emission)));
    }

    /// Says whether a view partition has come as far as its last emission.
    fn may_emit(&self, id: PartitionId) -> Result<bool> {
        let Some(held) = self.held.get(&id) else { return Ok(false) };
        let last = self.record.applied(id)?.unwrap_or_default();
        Ok(!held.windows.is_empty() && held.applied.iter().zip(&last).all(|(applied, last)| applied >= last))
    }

    /// Finishes the held windows of one view partition, without revisions yet.
    fn prepare(&self, view: &View, id: PartitionId) -> Vec<EmittedWindow> {
        let Some(held) = self.held.get(&id) else { return Vec::new() };
        let states: Vec<(GroupId, GroupState)> = held
            .windows
            .values()
            .filter_map(|emission| Some((emission.group.clone(), emission.state.clone()?)))
            .filter(|(_, state)| state.rows > 0)
            .collect();
        let mut values = finish(view, &states);
        let windows = held.windows.values().map(|emission| EmittedWindow {
            view: view.name.clone(),
            version: id.view,
            partition: id.index,
            key: key_json(view, &emission.group.key),
            window_start: time_text(emission.group.window_start),
            window_end: time_text(emission.window_end),
            revision: 0,
            late: emission.late,
            values: values.remove(&emission.group),
            applied: held.applied.clone(),
        });
        windows.collect()
    }

    /// Appends the windows whose content is new, then records them.
    async fn write(&self, topic: &str, partitions: u32, windows: Vec<EmittedWindow>) -> Result<()> {
        let mut batches: BTreeMap<u32, Vec<EmittedWindow>> = BTreeMap::new();
        for mut window in windows {
            let Some(revision) = self.record.revision(&window)? else { continue };
            window.revision = revision;
            let partition = partition_for_key(window.identity().as_bytes(), partitions);
            batches.entry(partition).or_default().push(window);
        }
        for (partition, windows) in batches {
            for windows in windows.chunks(BATCH_WINDOWS) {
                let to = self.append(topic, partition, windows).await?;
                self.record.record(topic, partition, to, windows)?;
                let labels = [("view", windows[0].view.clone())];
                metrics::counter!(names::EMITTED, &labels).increment(windows.len() as u64);
            }
        }
        Ok(())
    }

    /// Appends windows to one partition of a topic; returns the offset after them.
    async fn append(&self, topic: &str, partition: u32, windows: &[EmittedWindow]) -> Result<Offset> {
        let records = windows.iter().map(|window| {
            let payload = serde_json::to_vec(window).expect("plain structs are always JSON");
            Append::keyed(window.identity().into_bytes(), payload)
        });
        let offsets = self.log.append(topic, partition, records.collect()).await?;
        Ok(offsets.last().map_or(0, |last| last + 1))
    }

    /// Makes the topic, and brings the record up to the topic's end. Returns
    /// the number of the topic's partitions.
    async fn sync(&mut self, topic: &str, partitions: u32) -> Result<u32> {
        if let Some(&partitions) = self.synced.get(topic) {
            return Ok(partitions);
        }
        let partitions = match self.log.partitions(topic).await {
            Err(LogError::UnknownTopic { .. }) => {
                self.log.ensure_topic(&TopicSpec::new(topic, partitions)).await?;
                partitions
            }
            known => known?,
        };
        for partition in 0..partitions {
            let start = self.log.start_offset(topic, partition).await?;
            let mut from = self.record.synced(topic, partition)?.max(start);
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
                    self.record.record(topic, partition, batch.next, &windows)?;
                }
                from = batch.next;
                if from >= batch.end {
                    break;
                }
            }
        }
        self.synced.insert(topic.to_owned(), partitions);
        Ok(partitions)
    }
}

/// Finishes states of whole windows. A window whose output expression fails
/// is emitted with the reason in place of values, so that it is not missed.
fn finish(view: &View, states: &[(GroupId, GroupState)]) -> BTreeMap<GroupId, BTreeMap<String, Json>> {
    let values = |rows: &arrow::array::RecordBatch, row: usize| {
        let mut values = row_json(rows, row);
        values.retain(|name, _| name != "window_end" && !view.key_columns.iter().any(|(key, _)| key == name));
        values
    };
    if let Ok(rows) = view.finish_windows(states) {
        return states.iter().enumerate().map(|(row, (id, _))| (id.clone(), values(&rows, row))).collect();
    }
    let one = |state: &(GroupId, GroupState)| match view.finish_windows(std::slice::from_ref(state)) {
        Ok(rows) => values(&rows, 0),
        Err(error) => BTreeMap::from([("error".to_owned(), Json::String(error.to_string()))]),
    };
    states.iter().map(|state| (state.0.clone(), one(state))).collect()
}

/// Writes a grouping key by column name.
fn key_json(view: &View, key: &[u8]) -> BTreeMap<String, Json> {
    let values = sanso_state::Value::decode_key(key).unwrap_or_default();
    let columns = view.key_columns.iter().zip(&values);
    columns
        .map(|((name, value_type), value)| (name.clone(), crate::emitted::value_json(value, *value_type)))
        .collect()
}
