//! Decides what is written to output topics. Pure: it knows what the topics hold by its record, is handed
//! what view partitions emit, and says what is to be appended.
//!
//! ```text
//!   view partition ─take─▶ held ─due─▶ append ─appended─▶ record
//!                                  topic ──────read──────────▲
//! ```
//!
//! In a cluster the node that holds a view partition as its primary emits it. Nobody is fenced off:
//! - The content of a window is a function of the view's version and the offsets applied. Two that emit at
//!   once, since one does not know yet that it is no longer the one, write the same under the same
//!   revision, or the older content under the lower one.
//! - Whoever emits has applied what anything that it knows to be written stands for; else it waits.
//!   Whoever begins has read the topic to its end. Then all windows are held against the topic, also those that have gone since.
//! - What another has written is read, and its windows are looked at again. Where the last record, or the
//!   one with the highest revision, is not what the view holds, that is written once more, with a
//!   higher revision. So whichever way a consumer orders them, the newest it knows is right in the end.
//! - Contents are compared across versions of a view, so a new version repeats nothing; it retracts
//!   windows that it does not have.

use std::collections::BTreeMap;
use std::sync::Arc;

use sanso_core::{Emitted, PartitionId};
use sanso_state::{Emission as Closed, Fingerprint, GroupId, GroupState, Offset, Windows};
use sanso_view::View;
use serde_json::Value as Json;

use crate::emitted::{EmittedWindow, from_identity, identity, row_json, time_of, time_text, value_json};
use crate::emitted_record::{EmittedRecord, Keep, WithValues};
use crate::error::Result;

/// What a view partition has emitted and is not written yet: of each window the latest.
#[derive(Default)]
struct Held {
    windows: BTreeMap<GroupId, Closed>,
    /// Windows in the topic that the view's version does not have.
    gone: Vec<EmittedWindow>,
    applied: Vec<Offset>,
}

/// A window of a view partition and its end.
pub(crate) type Place = (PartitionId, GroupId, i64);

/// Some of the windows that the topic says have values.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Those of a view partition, with their ends.
    pub(crate) windows: Vec<(GroupId, i64)>,
    /// What to go on after; none at the end.
    pub(crate) next: Option<String>,
}

/// What is to be written to output topics, and what was.
pub(crate) struct Emission<K> {
    record: EmittedRecord<K>,
    held: BTreeMap<PartitionId, Held>,
}

impl<K: Keep> Emission<K> {
    /// Goes on with a record.
    pub(crate) fn new(record: EmittedRecord<K>) -> Self {
        Self { record, held: BTreeMap::new() }
    }

    /// Returns the record.
    pub(crate) fn record_mut(&mut self) -> &mut EmittedRecord<K> {
        &mut self.record
    }

    /// Returns the offset below which a topic's partition was read.
    pub(crate) fn synced(&self, topic: &str, partition: u32) -> Result<Offset> {
        self.record.synced(topic, partition)
    }

    /// Says whether a view partition that has applied this may begin to emit: what it holds is not older
    /// than anything it was written of. Only after its topic was read to the end.
    pub(crate) fn may_begin(&self, view: &View, id: PartitionId, applied: &[Offset]) -> Result<bool> {
        let written = self.record.applied(view, id)?;
        Ok(applied.len() >= written.len()
            && applied.iter().zip(&written).all(|(mine, theirs)| mine >= theirs))
    }

    /// Takes what a view partition emits.
    pub(crate) fn take(&mut self, id: PartitionId, emitted: Emitted) {
        let Emitted { emissions, applied } = emitted;
        let Some(held) = self.held.get_mut(&id) else {
            if !emissions.is_empty() {
                let windows = emissions.into_iter().map(|closed| (closed.group.clone(), closed)).collect();
                self.held.insert(id, Held { windows, gone: Vec::new(), applied });
            }
            return;
        };
        held.applied = applied;
        held.windows.extend(emissions.into_iter().map(|closed| (closed.group.clone(), closed)));
    }

    /// Forgets what a view partition has emitted: it is written, or another one is to write it.
    pub(crate) fn forget(&mut self, id: PartitionId) {
        self.held.remove(&id);
    }

    /// Returns what is to be appended of what a view partition has emitted, with revisions. What was
    /// appended is told to [`Emission::appended`]; when all was, [`Emission::forget`] ends it. None where the
    /// topic stands for more than the view partition has applied: another one emits, and is ahead.
    pub(crate) fn due(&self, view: &View, id: PartitionId) -> Result<Option<Vec<EmittedWindow>>> {
        let Some(held) = self.held.get(&id) else { return Ok(Some(Vec::new())) };
        if !self.may_begin(view, id, &held.applied)? {
            return Ok(None);
        }
        let states: Vec<(GroupId, GroupState)> = held
            .windows
            .values()
            .filter_map(|closed| Some((closed.group.clone(), closed.state.clone()?)))
            .filter(|(_, state)| state.rows > 0)
            .collect();
        let mut values = finish(view, &states);
        let windows = held.windows.values().map(|closed| {
            let key = key_json(view, &closed.group.key);
            let window_start = time_text(closed.group.window_start);
            let values = values.remove(&closed.group);
            EmittedWindow {
                id: identity(&key, &window_start),
                view: view.name.clone(),
                source: view.source.name.clone(),
                version: id.view,
                partition: id.index,
                key,
                window_start,
                window_end: time_text(closed.window_end),
                revision: 0,
                late: closed.late,
                present: values.is_some(),
                values,
                applied: held.applied.clone(),
            }
        });
        let mut due = Vec::new();
        for mut window in windows.chain(held.gone.iter().cloned()) {
            let Some((revision, known)) = self.record.revision(&window)? else { continue };
            window.revision = revision;
            window.late |= known;
            due.push(window);
        }
        Ok(Some(due))
    }

    /// Takes note that windows have been appended. Says whether the topic's partition is read as far
    /// as them; else another has written between them, and it is to be read.
    pub(crate) fn appended(
        &mut self,
        topic: &str,
        partition: u32,
        offsets: &[Offset],
        windows: &[EmittedWindow],
    ) -> Result<bool> {
        let from = self.record.synced(topic, partition)?;
        let ours = offsets.iter().zip(from..).all(|(offset, next)| *offset == next);
        if ours {
            self.record.record(topic, partition, from + offsets.len() as Offset, windows)?;
        }
        Ok(ours)
    }

    /// Takes note of what was read of a topic's partition, up to an offset. Returns the windows of
    /// the versions given, which are to be offered again where they are emitted.
    pub(crate) fn read(
        &mut self,
        topic: &str,
        partition: u32,
        to: Offset,
        windows: &[EmittedWindow],
        views: &BTreeMap<Fingerprint, Arc<View>>,
    ) -> Result<Vec<Place>> {
        self.record.record(topic, partition, to, windows)?;
        let places = windows.iter().filter_map(|window| {
            let view = views.get(&window.version)?;
            let standing = stands(view, window.partition, &window.key, &window.window_start)?;
            match standing {
                Stands::As(group, end) => Some((window.origin(), group, end)),
                Stands::Nowhere => None,
            }
        });
        Ok(places.collect())
    }

    /// Lists windows of a view partition that the topic says have values, after an identity; at most so
    /// many are looked at. Those that the view's version does not have are held, to be retracted.
    pub(crate) fn with_values(
        &mut self,
        view: &View,
        id: PartitionId,
        applied: &[Offset],
        after: &str,
        most: usize,
    ) -> Result<Listed> {
        let WithValues { windows: named, next } = self.record.with_values(&view.name, after, most)?;
        let mut windows = Vec::new();
        for (name, window_end) in named {
            let Some((key, window_start)) = from_identity(&name) else { continue };
            match stands(view, id.index, &key, window_start) {
                Some(Stands::As(group, end)) => windows.push((group, end)),
                Some(Stands::Nowhere) => {
                    let gone = EmittedWindow {
                        id: name.clone(),
                        view: view.name.clone(),
                        source: view.source.name.clone(),
                        version: id.view,
                        partition: id.index,
                        window_start: window_start.to_owned(),
                        key,
                        window_end,
                        revision: 0,
                        late: true,
                        values: None,
                        present: false,
                        applied: applied.to_vec(),
                    };
                    let held = self.held.entry(id).or_default();
                    held.applied = applied.to_vec();
                    held.gone.push(gone);
                }
                None => {}
            }
        }
        Ok(Listed { windows, next })
    }
}

/// What a window in a topic is to a version of its view.
enum Stands {
    /// A window, with its end.
    As(GroupId, i64),
    /// None: windows or keys were others.
    Nowhere,
}

/// Says what a window in a topic is to a view partition; none where it is another one's.
fn stands(view: &View, index: u32, key: &BTreeMap<String, Json>, window_start: &str) -> Option<Stands> {
    let Some(key) = view.key_of_json(key) else {
        // Whose it was is not known; one has to retract it.
        return (index == 0).then_some(Stands::Nowhere);
    };
    if view.partition_of(&key) != index {
        return None;
    }
    let window_start = time_of(window_start)?;
    let windows = view.window.windows_of(view.window.pane_of(window_start));
    Some(match windows.into_iter().find(|(start, _)| *start == window_start) {
        Some((_, end)) => Stands::As(GroupId { key, window_start }, end),
        None => Stands::Nowhere,
    })
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
    columns.map(|((name, value_type), value)| (name.clone(), value_json(value, *value_type))).collect()
}
