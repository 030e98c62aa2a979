//! What one node says of itself.

use std::collections::BTreeMap;

use sanso_catalog::{
    AuditCounts, BatchJob, BatchProgress, CatalogHandle, EndedJob, LimitUse, PartitionProgress, Share,
    StatusBoard,
};
use sanso_state::LogPartition;
use serde::{Deserialize, Serialize};

/// What a node says of itself. Fields may be added with a default, none removed: nodes of versions next to
/// each other ask each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeReport {
    /// The version of its program.
    pub(crate) version: String,
    /// What it lacks to be ready; none where it does not serve.
    pub(crate) not_ready: Option<Vec<String>>,
    /// What it does for each source.
    pub(crate) sources: BTreeMap<String, SourceReport>,
}

/// What a node does for a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceReport {
    /// The log partitions that its speed layer works on.
    pub(crate) partitions: BTreeMap<u32, PartitionReport>,
    /// What its batch layer posted last, while it drives it.
    pub(crate) batch: Option<BatchProgress>,
    /// What its audits counted whenever it drove; none of a version that says it with `batch` alone.
    #[serde(default)]
    pub(crate) audited: Option<AuditCounts>,
    /// What its batch layer works on.
    pub(crate) job: Option<BatchJob>,
    /// What it worked on last, the newest first.
    #[serde(default)]
    pub(crate) ended: Vec<EndedJob>,
}

/// How a node's worker on a log partition is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionReport {
    /// How far it is; none until it has opened its index.
    pub(crate) progress: Option<PartitionProgress>,
    /// Whether it feeds the view partitions, rather than follow.
    pub(crate) feeds: bool,
    /// What holds it.
    pub(crate) trouble: Option<String>,
}

impl SourceReport {
    /// Returns what the node's audits counted.
    pub(crate) fn audit(&self) -> AuditCounts {
        self.audited.or(self.batch.as_ref().map(|batch| batch.audit)).unwrap_or_default()
    }
}

impl NodeReport {
    /// Says how this process is.
    pub(crate) fn of(catalog: &CatalogHandle, board: &StatusBoard) -> Self {
        let catalog = catalog.current();
        let (mut speed, mut troubles) = (board.speed(), board.troubles());
        let (mut batch, stopped) = (board.batch(), board.stopped());
        let mut audited = board.audited();
        let (mut jobs, mut ended) = (board.jobs(), board.ended_jobs());
        let sources = catalog.sources.values().map(|source| {
            let name = source.name.as_str();
            let mut progress = speed.remove(name).unwrap_or_default();
            let mut held = troubles.remove(name).unwrap_or_default();
            let partition = |l: u32| {
                let share = catalog.share(name, LogPartition(l));
                let stopped = stopped.get(&(name.to_owned(), l)).cloned();
                let report = PartitionReport {
                    progress: progress.remove(&l),
                    feeds: share == Some(Share::Feeds),
                    trouble: stopped.or_else(|| held.remove(&l)),
                };
                (report.progress.is_some() || report.trouble.is_some()).then_some((l, report))
            };
            let partitions = (0..source.partitions).filter_map(partition).collect();
            let report = SourceReport {
                partitions,
                batch: batch.remove(name),
                audited: audited.remove(name),
                job: jobs.remove(name),
                ended: ended.remove(name).unwrap_or_default(),
            };
            (name.to_owned(), report)
        });
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sources: sources.collect(),
            not_ready: board.not_ready(),
        }
    }

    /// Counts the log partitions that it feeds, and those that it follows.
    pub(crate) fn works_on(&self) -> (usize, usize) {
        let all = || self.sources.values().flat_map(|source| source.partitions.values());
        let feeds = all().filter(|partition| partition.feeds).count();
        (feeds, all().count() - feeds)
    }
}

/// A bound of a node, with its use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LimitLine {
    name: String,
    unit: String,
    used: u64,
    max: u64,
    parts: u64,
    fullest_percent: u64,
    setting: String,
    then: String,
}

impl LimitLine {
    /// Says whether it is the bound of a name, and used up: its use and the bound.
    pub(crate) fn reached(&self, name: &str) -> Option<(u64, u64)> {
        (self.name == name && self.used >= self.max).then_some((self.used, self.max))
    }
}

impl From<LimitUse> for LimitLine {
    fn from(limit: LimitUse) -> Self {
        Self {
            name: limit.name.to_owned(),
            unit: limit.unit.to_owned(),
            used: limit.used,
            max: limit.max,
            parts: limit.parts,
            fullest_percent: limit.fullest_percent,
            setting: limit.setting.to_owned(),
            then: limit.then.to_owned(),
        }
    }
}
