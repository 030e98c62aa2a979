//! Tasks: the parts of the work on a version, each of which any node can do alone.
//!
//! ```text
//!   manifest k-1 + planned segments of l ─▶ Advance l ─▶ files of l, contributions to each view
//!   manifest k, new views                ─▶ Lift l    ─▶ groups of each view
//!   the same, on several nodes           ─▶ Split l   ─▶ pieces for each view partition
//!   the pieces of all of them            ─▶ Combine v ─▶ the block of view partition v
//! ```
//!
//! What a task gives is a function of what its fingerprint covers. So it may be done twice, at two
//! places at once or by a node that nobody waits for any longer, and any of its results is as good.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sanso_block::BlockNode;
use sanso_block::recovery::Taken;
use sanso_catalog::JobKind;
use sanso_dataset::{
    BlockFile, Dataset, DatasetError, Manifest, NewestFile, QuarantineFile, SegmentFile, TaskGroups,
    TaskRecord,
};
use sanso_lineage::{Held, WorkerId};
use sanso_log::Log;
use sanso_state::{Fingerprint, Groups, LogPartition, SegmentId, decode_groups, encode_groups};
use sanso_view::{Source, View};
use serde::{Deserialize, Serialize};

use crate::archive::blocking;
use crate::call::TaskCall;
use crate::error::{BatchError, Result};
use crate::exchange::{combined, handed_out};
use crate::lineage::{advance_fingerprint, combine_fingerprint, lift_fingerprint, slice_fingerprint};
use crate::publish::lift;
use crate::version::{advance_partition, rebuild_damaged};

/// What computing needs of the world.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) log: &'a dyn Log,
    pub(crate) dataset: &'a Dataset,
    pub(crate) source: &'a Arc<Source>,
    pub(crate) read_bytes_max: usize,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Archive segments of one log partition, advance its part of the newest-version table over them,
    /// and compute what they contribute to the views.
    Advance {
        /// The log partition.
        partition: LogPartition,
        /// Its segments, in order, from its cut on.
        segments: Vec<SegmentId>,
    },
    /// Lift the newest rows of log partitions into views that are new.
    Lift {
        /// The log partitions, in order.
        partitions: Vec<LogPartition>,
    },
    /// The same, and keep what each view partition gets of it as a piece, for whoever combines it.
    Split {
        /// The log partitions, in order.
        partitions: Vec<LogPartition>,
    },
    /// The same with some of the files of a log partition that has many rows.
    Slice {
        /// The log partition.
        partition: LogPartition,
        /// The first of its files, in the manifest's order, from 0.
        from: u32,
        /// The first file that is no longer of it.
        to: u32,
    },
    /// Combine the pieces of one partition of one view, and write its block.
    Combine {
        /// The view partition.
        index: u32,
        /// The tasks that gave the pieces.
        of: Vec<Fingerprint>,
    },
}

impl Work {
    /// Returns the files of the newest-version table that it lifts.
    fn files<'a>(&self, manifest: &'a Manifest) -> Vec<&'a NewestFile> {
        let of = |partitions: &[LogPartition]| {
            manifest.newest.iter().filter(|file| partitions.contains(&file.partition)).collect::<Vec<_>>()
        };
        match self {
            Self::Lift { partitions } | Self::Split { partitions } => of(partitions),
            Self::Slice { partition, from, to } => {
                let files = of(&[*partition]).into_iter().take(*to as usize);
                files.skip(*from as usize).collect()
            }
            Self::Advance { .. } | Self::Combine { .. } => Vec::new(),
        }
    }
}

/// A part of the work on a version, with all that it takes.
#[derive(Clone)]
pub struct Task {
    source: Arc<Source>,
    /// In order of fingerprint.
    views: Vec<Arc<View>>,
    stands_on: Arc<Manifest>,
    work: Work,
    fingerprint: Fingerprint,
    /// Where the pieces are that it combines, in the order of their tasks: at this worker, or in the dataset.
    held: Vec<Option<WorkerId>>,
    /// Whether its result was lost before.
    again: bool,
}

impl Task {
    /// Makes a task. `stands_on`: the version before for what advances, the version itself for a lift.
    pub(crate) fn new(
        source: &Arc<Source>,
        mut views: Vec<Arc<View>>,
        stands_on: &Arc<Manifest>,
        work: Work,
    ) -> Self {
        views.sort_by_key(|view| view.fingerprint);
        let ids: Vec<Fingerprint> = views.iter().map(|view| view.fingerprint).collect();
        let fingerprint = match &work {
            Work::Advance { partition, segments } => {
                advance_fingerprint(source, stands_on, *partition, segments, &ids)
            }
            Work::Lift { partitions } => lift_fingerprint("lift", source, stands_on, partitions, &ids),
            Work::Split { partitions } => lift_fingerprint("split", source, stands_on, partitions, &ids),
            Work::Slice { .. } => slice_fingerprint(source, &work.files(stands_on), &ids),
            Work::Combine { index, of } => combine_fingerprint(source, *index, of, &ids),
        };
        let (source, stands_on) = (Arc::clone(source), Arc::clone(stands_on));
        Self { source, views, stands_on, work, fingerprint, held: Vec::new(), again: false }
    }

    /// Says where the pieces are that it combines, in the order of their tasks, and whether its own result was
    /// lost before: then it is computed again, and its pieces go to the dataset. Its fingerprint stays.
    #[must_use]
    pub(crate) fn with(self, held: Vec<Option<WorkerId>>, again: bool) -> Self {
        Self { held, again, ..self }
    }

    /// Returns the tasks whose pieces it combines, each with where those are.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = (Fingerprint, Option<WorkerId>)> + '_ {
        let of: &[Fingerprint] = match &self.work {
            Work::Combine { of, .. } => of,
            _ => &[],
        };
        let held = |at: usize| self.held.get(at).copied().flatten();
        of.iter().enumerate().map(move |(at, task)| (*task, held(at)))
    }

    /// Says whether its result was lost, so that one that is found is not to be used.
    pub(crate) fn is_again(&self) -> bool {
        self.again
    }

    /// Returns the fingerprint of all that it is made of.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Returns the number of the version that it is a part of.
    pub fn version(&self) -> u64 {
        match self.work {
            Work::Advance { .. } => self.stands_on.version + 1,
            Work::Lift { .. } | Work::Split { .. } | Work::Slice { .. } | Work::Combine { .. } => {
                self.stands_on.version
            }
        }
    }

    /// Returns the log partition that it is about, or the first of several; none where it is about all.
    pub fn partition(&self) -> Option<LogPartition> {
        match &self.work {
            Work::Advance { partition, .. } | Work::Slice { partition, .. } => Some(*partition),
            Work::Lift { partitions } | Work::Split { partitions } => partitions.first().copied(),
            Work::Combine { .. } => None,
        }
    }

    /// Names it to people.
    pub fn name(&self) -> String {
        let (source, version) = (&self.source.name, self.version());
        match &self.work {
            Work::Advance { partition, .. } => {
                format!("advance of {source}/{} to version {version}", partition.0)
            }
            Work::Combine { index, .. } => {
                let view = self.views.first().map_or("", |view| &view.name);
                format!("combine of {source}, {view}/{index} at version {version}")
            }
            Work::Lift { partitions } | Work::Split { partitions } => {
                let partitions: Vec<_> = partitions.iter().map(|partition| partition.0.to_string()).collect();
                format!("lift of {source}/{} at version {version}", partitions.join(","))
            }
            Work::Slice { partition, from, to } => {
                format!("lift of {source}/{} at version {version}, files {from} to {to}", partition.0)
            }
        }
    }

    /// Says what it is a part of.
    pub(crate) fn kind(&self) -> JobKind {
        match self.work {
            Work::Advance { .. } => JobKind::Advance,
            Work::Lift { .. } | Work::Split { .. } | Work::Slice { .. } | Work::Combine { .. } => {
                JobKind::Views
            }
        }
    }

    /// Names the views that it is for, in order.
    pub(crate) fn view_names(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.views.iter().map(|view| &view.name).collect();
        names.into_iter().cloned().collect()
    }

    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Computes it.
    pub(crate) async fn compute(&self, means: Means<'_>) -> Result<TaskResult> {
        let started = Instant::now();
        let mut result = match &self.work {
            Work::Advance { partition, segments } => {
                advance_partition(means, &self.stands_on, *partition, segments, &self.views).await?
            }
            Work::Lift { .. } => {
                let lifted = self.lift(means).await?.into_iter();
                let given =
                    lifted.map(|(view, parts)| Given { view: view.fingerprint, segment: None, parts });
                TaskResult { given: given.collect(), ..TaskResult::default() }
            }
            Work::Split { .. } | Work::Slice { .. } => {
                let lifted = self.lift(means).await?;
                let held_by = handed_out(self, means.dataset, lifted, self.again).await?;
                TaskResult { held_by, ..TaskResult::default() }
            }
            Work::Combine { index, .. } => {
                let block = combined(self, means.dataset, *index).await?;
                TaskResult { block: Some(block), ..TaskResult::default() }
            }
        };
        result.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(result)
    }

    /// Lifts; damaged files of the newest-version table are made again first. Returns the groups of each view, by
    /// view partition.
    async fn lift(&self, means: Means<'_>) -> Result<Vec<(Arc<View>, Vec<Groups>)>> {
        let (source, files) = (&self.source.name, self.work.files(&self.stands_on));
        let lifted = match lift(means.dataset, &self.views, source, &files).await {
            Err(BatchError::Dataset(DatasetError::Damaged { .. } | DatasetError::Missing { .. })) => {
                rebuild_damaged(means, &self.stands_on, &files).await?;
                lift(means.dataset, &self.views, source, &files).await?
            }
            lifted => lifted?,
        };
        Ok(self.views.iter().map(Arc::clone).zip(lifted).collect())
    }

    /// Writes its result to the dataset, for whoever asks for it.
    pub(crate) async fn store(&self, dataset: &Dataset, result: &Arc<TaskResult>) -> Result<()> {
        let (task, held) = (self.clone(), Arc::clone(result));
        let (groups, bytes) = blocking(move || task.encode(&held.given)).await;
        let record = TaskRecord {
            task: self.fingerprint,
            archived: result.archived.clone(),
            quarantine: result.quarantine.clone(),
            carried: result.carried.clone(),
            rewritten: result.rewritten.clone(),
            max_event_us: result.max_event_us,
            groups,
            content: Fingerprint::of(&bytes),
            held_by: result.held_by.map(|worker| BlockNode(worker.0)),
            block: result.block.clone(),
            read: result.read.clone(),
            took_ms: result.took_ms,
        };
        Ok(dataset.put_task(&self.source.name, self.version(), &record, bytes.into()).await?)
    }

    /// Finds its result in the dataset.
    pub(crate) async fn find(&self, dataset: &Dataset) -> Result<Option<TaskResult>> {
        let found = dataset.task(&self.source.name, self.version(), self.fingerprint).await?;
        let Some((record, bytes)) = found else { return Ok(None) };
        let task = self.clone();
        let result = blocking(move || task.decode(record, &bytes)).await;
        if result.is_none() {
            tracing::warn!(task = self.name(), "what was written of a task is not its result");
        }
        Ok(result)
    }

    fn encode(&self, given: &[Given]) -> (Vec<TaskGroups>, Vec<u8>) {
        let (mut groups, mut bytes) = (Vec::new(), Vec::new());
        for Given { view, segment, parts } in given {
            let of = self.view(*view).expect("groups are given for the task's views");
            for (index, part) in (0..).zip(parts) {
                let encoded = encode_groups(&of.kinds, part);
                let (segment, length) = (*segment, encoded.len() as u64);
                groups.push(TaskGroups { view: *view, segment, index, bytes: length });
                bytes.extend(encoded);
            }
        }
        (groups, bytes)
    }

    fn decode(&self, record: TaskRecord, bytes: &Bytes) -> Option<TaskResult> {
        let mut given: Vec<Given> = Vec::new();
        let mut left = bytes.as_ref();
        for TaskGroups { view, segment, index, bytes } in record.groups {
            let (mine, others) = left.split_at_checked(usize::try_from(bytes).ok()?)?;
            left = others;
            let groups = decode_groups(&self.view(view)?.kinds, mine).ok()?;
            match given.last_mut().filter(|last| (last.view, last.segment) == (view, segment)) {
                Some(last) if last.parts.len() == index as usize => last.parts.push(groups),
                None if index == 0 => given.push(Given { view, segment, parts: vec![groups] }),
                _ => return None,
            }
        }
        let is_whole = |given: &Given| {
            self.view(given.view).is_some_and(|of| given.parts.len() == of.partitions as usize)
        };
        let is_whole = left.is_empty() && given.iter().all(is_whole);
        is_whole.then_some(TaskResult {
            archived: record.archived,
            quarantine: record.quarantine,
            carried: record.carried,
            rewritten: record.rewritten,
            max_event_us: record.max_event_us,
            given,
            held_by: record.held_by.map(|node| WorkerId(node.0)),
            block: record.block,
            read: record.read,
            took_ms: record.took_ms,
        })
    }

    pub(crate) fn views(&self) -> &[Arc<View>] {
        &self.views
    }

    pub(crate) fn stands_on(&self) -> &Arc<Manifest> {
        &self.stands_on
    }

    /// Returns what another process is told, which knows the same sources, views and dataset.
    pub fn call(&self) -> TaskCall {
        TaskCall {
            task: self.fingerprint,
            source: self.source.name.clone(),
            stands_on: self.stands_on.version,
            work: self.work.clone(),
            views: self.views.iter().map(|view| view.fingerprint).collect(),
            held: self.held.clone(),
            again: self.again,
        }
    }
    fn view(&self, fingerprint: Fingerprint) -> Option<&Arc<View>> {
        self.views.iter().find(|view| view.fingerprint == fingerprint)
    }
}

/// Groups that a task gives for one view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    /// The view's version.
    pub(crate) view: Fingerprint,
    /// The segment that contributes them; none for a lift.
    pub(crate) segment: Option<SegmentId>,
    /// By view partition.
    pub(crate) parts: Vec<Groups>,
}

/// What a task gives.
#[derive(Clone, Debug, Default)]
pub struct TaskResult {
    pub(crate) archived: Vec<SegmentFile>,
    pub(crate) quarantine: Vec<QuarantineFile>,
    pub(crate) carried: Vec<NewestFile>,
    pub(crate) rewritten: Vec<NewestFile>,
    pub(crate) max_event_us: Option<i64>,
    pub(crate) given: Vec<Given>,
    /// The worker that keeps the pieces; none where they are in the dataset, or there are none.
    pub(crate) held_by: Option<WorkerId>,
    /// The view partition's block, where it was combined.
    pub(crate) block: Option<BlockFile>,
    /// The ways to the files of the newest-version table that it took, for people.
    pub(crate) read: Taken,
    /// How long it took, in milliseconds, for people.
    pub(crate) took_ms: u64,
}

impl TaskResult {
    /// Says with whom it could be lost.
    pub(crate) fn held(&self) -> Held {
        self.held_by.map_or(Held::Safely, Held::At)
    }
}
