//! Which quarantined records were replayed, when, and where to: read from the dataset, remembered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use sanso_dataset::{Dataset, DatasetError, ReplayDone, ReplayPlan};
use sanso_state::Offset;

/// What became of a quarantined record that was replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The replay's number.
    pub(crate) number: u64,
    /// When it was asked for, in microseconds.
    pub(crate) planned_us: i64,
    /// The source it was appended to.
    pub(crate) into: String,
    /// The log partition it was appended to.
    pub(crate) partition: u32,
    /// Its new offset; none while the replay is under way, or broke off.
    pub(crate) offset: Option<Offset>,
}

/// The marks of one source, by (log partition, offset) of the quarantined record; the last replay counts.
pub(crate) type Marks = HashMap<(u32, Offset), Mark>;

/// What is known of one source's replays.
#[derive(Clone, Default)]
pub(crate) struct Known {
    /// The marks.
    pub(crate) marks: Arc<Marks>,
    /// The number of the newest replay.
    pub(crate) last: u64,
    /// Replays that are planned and not known to be done.
    pub(crate) open: Vec<ReplayPlan>,
    /// Up to here replays are done and need not be read again.
    settled: u64,
}

/// The marks of all sources.
#[derive(Default)]
pub(crate) struct ReplayMarks(Mutex<BTreeMap<String, Known>>);

impl ReplayMarks {
    /// Returns what is known of a source's replays, after looking for new ones.
    pub(crate) async fn look(&self, dataset: &Dataset, source: &str) -> Result<Known, DatasetError> {
        let mut known = self.0.lock().get(source).cloned().unwrap_or_default();
        let replays = dataset.replays(source, known.settled).await?;
        if replays.is_empty() {
            return Ok(known);
        }
        known.open.clear();
        let marks = Arc::make_mut(&mut known.marks);
        for (plan, done) in replays {
            known.last = plan.number;
            add(marks, &plan, done.as_ref());
            match done {
                None => known.open.push(plan),
                Some(done) if known.open.is_empty() => known.settled = done.number,
                Some(_) => {}
            }
        }
        self.0.lock().insert(source.to_owned(), known.clone());
        Ok(known)
    }
}

fn add(marks: &mut Marks, plan: &ReplayPlan, done: Option<&ReplayDone>) {
    for (at, record) in plan.records.iter().enumerate() {
        let mark = Mark {
            number: plan.number,
            planned_us: plan.planned_us,
            into: plan.into.clone(),
            partition: record.to,
            offset: done.and_then(|done| done.offsets.get(at).copied()),
        };
        marks.insert((record.partition, record.offset), mark);
    }
}
