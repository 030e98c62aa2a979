//! The status board: what each layer says of itself, for answers, the console and metrics.

use std::collections::BTreeMap;
use std::ops::{AddAssign, ControlFlow, Range};
use std::sync::Arc;

use parking_lot::RwLock;
use sanso_state::{Cut, Division, Fingerprint, LogPartition, Offset, Quarantined, RefusalCounts};
use serde::{Deserialize, Serialize};

use crate::jobs::{BatchJob, EndedJob, JobOutcome, Jobs};
use crate::limits::Limits;

/// How the records of a log partition were judged, since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordCounts {
    /// Records read, of any kind.
    pub records: u64,
    /// First versions of a reading.
    pub new: u64,
    /// Higher versions: the older one was retracted.
    pub corrections: u64,
    /// Equal version and content: no effect.
    pub duplicates: u64,
    /// Equal version, other content: quarantined.
    pub conflicts: u64,
    /// Lower versions: kept in the dataset only.
    pub stale: u64,
    /// Records that could not be decoded: quarantined.
    pub undecodable: u64,
    /// Records whose key belongs to another log partition: quarantined.
    pub misplaced: u64,
    /// Readings whose window had closed when they came.
    pub late: u64,
}

/// The speed layer's progress on one log partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionProgress {
    /// The first offset not yet appended when last looked.
    pub end: Offset,
    /// The first offset not yet judged.
    pub position: Offset,
    /// The watermark in microseconds.
    pub watermark_us: Option<i64>,
    /// Whether the log partition is quiet and does not hold watermarks back.
    pub idle: bool,
    /// How its records were judged.
    pub counts: RecordCounts,
}

/// The audit's counters since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditCounts {
    /// (segment, view partition) pairs compared.
    pub compared: u64,
    /// Pairs that speed no longer (or not yet) held complete.
    pub skipped: u64,
    /// Pairs that differed.
    pub differing: u64,
}

impl AddAssign for AuditCounts {
    fn add_assign(&mut self, more: Self) {
        self.compared += more.compared;
        self.skipped += more.skipped;
        self.differing += more.differing;
    }
}

/// The batch layer's progress on one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchProgress {
    /// The number of the newest published version.
    pub version: u64,
    /// Its cut.
    pub cut: Cut,
    /// When it was published, in microseconds since 1970.
    pub published_us: i64,
    /// How long the last run took, in milliseconds.
    pub run_ms: u64,
    /// Rows in the newest-version table.
    pub newest_rows: u64,
    /// The audit's counters.
    pub audit: AuditCounts,
    /// What it keeps of the quarantine; none until the dataset has been read.
    pub quarantine: Option<BatchQuarantine>,
    /// The error of the last run, if it failed.
    pub error: Option<String>,
}

/// What the batch layer knows of a source's quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchQuarantine {
    /// Which offsets it keeps.
    pub division: Division,
    /// What it keeps of them, by kind.
    pub counts: RefusalCounts,
    /// Segments whose counts were held against the speed layer's since the process started.
    pub audit: AuditCounts,
}

/// The part of the quarantine that the speed layer keeps: whole from the batch cut on.
/// Calls may block on the local disk.
pub trait QuarantineStore: Send + Sync {
    /// Visits the records that the source refused in one log partition at offsets within `range`, in order of
    /// offset, or against it, until told to stop.
    fn visit(
        &self,
        source: &str,
        partition: u32,
        range: Range<Offset>,
        order: Order,
        visit: &mut dyn FnMut(Quarantined) -> ControlFlow<()>,
    ) -> Result<(), String>;

    /// Visits, likewise, the records that expressions of views failed on; of view versions that were
    /// retired there may still be some.
    fn visit_expressions(
        &self,
        source: &str,
        partition: u32,
        range: Range<Offset>,
        order: Order,
        visit: &mut dyn FnMut(Quarantined) -> ControlFlow<()>,
    ) -> Result<(), String>;

    /// Counts what the source refused at offsets within `range`, whose ends are segment boundaries
    /// (or the end of all offsets). Does not count what views' expressions failed on.
    fn counts(&self, source: &str, partition: u32, range: Range<Offset>) -> Result<RefusalCounts, String>;

    /// Counts the records of a log partition that expressions of these view versions failed on.
    fn expressions(&self, source: &str, partition: u32, views: &[Fingerprint]) -> Result<u64, String>;
}

/// An order of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The lowest first.
    Rising,
    /// The highest first.
    Falling,
}

#[derive(Default)]
struct Board {
    speed: BTreeMap<String, BTreeMap<u32, PartitionProgress>>,
    troubles: BTreeMap<String, BTreeMap<u32, String>>,
    stopped: BTreeMap<(String, u32), String>,
    batch: BTreeMap<String, BatchProgress>,
    /// What audits counted when this process drove the batch layer before.
    audited: BTreeMap<String, AuditCounts>,
    /// What of the quarantine the batch layer is known to keep, whoever drives it.
    published: BTreeMap<String, Division>,
    jobs: BTreeMap<String, Jobs>,
    quarantine: Option<Arc<dyn QuarantineStore>>,
    not_ready: Option<Vec<String>>,
    limits: Limits,
}

impl Board {
    fn publish(&mut self, source: &str, division: Division) {
        let upto = |division: &Division| division.cut.offsets().iter().sum::<Offset>();
        let known = self.published.entry(source.to_owned()).or_insert_with(|| division.clone());
        if upto(&division) > upto(known) {
            *known = division;
        }
    }
}

/// The shared board. Clones share it.
#[derive(Clone, Default)]
pub struct StatusBoard(Arc<RwLock<Board>>);

impl StatusBoard {
    /// Creates an empty board.
    pub fn new() -> Self {
        Self::default()
    }

    /// Posts the speed layer's progress on one log partition. What held it is over once it is further
    /// than before, or has nothing left to do.
    pub fn post_speed(&self, source: &str, partition: LogPartition, progress: PartitionProgress) {
        let mut board = self.0.write();
        let (position, end) = (progress.position, progress.end);
        let before = board.speed.entry(source.to_owned()).or_default().insert(partition.0, progress);
        let is_held = position < end && before.is_some_and(|before| before.position >= position);
        if let Some(troubles) = board.troubles.get_mut(source).filter(|_| !is_held) {
            troubles.remove(&partition.0);
        }
    }

    /// Takes back what was posted of a log partition that this process works on no longer.
    pub fn forget_speed(&self, source: &str, partition: LogPartition) {
        let mut board = self.0.write();
        if let Some(posted) = board.speed.get_mut(source) {
            posted.remove(&partition.0);
        }
        if let Some(troubles) = board.troubles.get_mut(source) {
            troubles.remove(&partition.0);
        }
        board.stopped.remove(&(source.to_owned(), partition.0));
    }

    /// Posts what holds the speed layer on one log partition, until it makes progress again.
    pub fn post_trouble(&self, source: &str, partition: LogPartition, trouble: String) {
        let mut board = self.0.write();
        board.troubles.entry(source.to_owned()).or_default().insert(partition.0, trouble);
    }

    /// Posts why the speed layer's worker of one log partition stopped for good.
    pub fn post_stopped(&self, source: &str, partition: LogPartition, reason: String) {
        self.0.write().stopped.insert((source.to_owned(), partition.0), reason);
    }

    /// Posts the batch layer's progress on one source.
    pub fn post_batch(&self, source: &str, progress: BatchProgress) {
        let mut board = self.0.write();
        if let Some(quarantine) = &progress.quarantine {
            board.publish(source, quarantine.division.clone());
        }
        board.batch.insert(source.to_owned(), progress);
    }

    /// Posts what of a source's quarantine the batch layer keeps, as one learns who does not drive it; never less than
    /// before.
    pub fn post_published(&self, source: &str, division: Division) {
        self.0.write().publish(source, division);
    }

    /// Takes back what was posted of the batch layer, which this process drives no longer. What its audits
    /// counted, and what it published, stays.
    pub fn forget_batch(&self) {
        let mut board = self.0.write();
        for (source, progress) in std::mem::take(&mut board.batch) {
            *board.audited.entry(source).or_default() += progress.audit;
        }
    }

    /// Posts how far the batch layer's job on one source is.
    pub fn post_job(&self, source: &str, job: BatchJob) {
        self.0.write().jobs.entry(source.to_owned()).or_default().post(job);
    }

    /// Posts that the batch layer's job on one source has ended, if there was one.
    pub fn end_job(&self, source: &str, outcome: JobOutcome, ended_us: i64) {
        if let Some(jobs) = self.0.write().jobs.get_mut(source) {
            jobs.end(outcome, ended_us);
        }
    }

    /// Posts what this process lacks to be ready; nothing means ready.
    pub fn post_not_ready(&self, missing: Vec<String>) {
        self.0.write().not_ready = Some(missing);
    }

    /// Connects the store of quarantined records.
    pub fn connect_quarantine(&self, store: Arc<dyn QuarantineStore>) {
        self.0.write().quarantine = Some(store);
    }

    /// Returns the bounds of this process, to register one and to read them all.
    pub fn limits(&self) -> Limits {
        self.0.read().limits.clone()
    }

    /// Returns the speed layer's progress by source and log partition.
    pub fn speed(&self) -> BTreeMap<String, BTreeMap<u32, PartitionProgress>> {
        self.0.read().speed.clone()
    }

    /// Returns the ends of a source's log partitions, as the speed layer saw them last.
    pub fn log_ends(&self, source: &str) -> Vec<(u32, Offset)> {
        let board = self.0.read();
        let posted = board.speed.get(source).into_iter().flatten();
        posted.map(|(partition, progress)| (*partition, progress.end)).collect()
    }

    /// Returns what holds the speed layer, by source and log partition.
    pub fn troubles(&self) -> BTreeMap<String, BTreeMap<u32, String>> {
        self.0.read().troubles.clone()
    }

    /// Returns why workers of the speed layer stopped for good, by source and log partition.
    pub fn stopped(&self) -> BTreeMap<(String, u32), String> {
        self.0.read().stopped.clone()
    }

    /// Returns the batch layer's progress by source.
    pub fn batch(&self) -> BTreeMap<String, BatchProgress> {
        self.0.read().batch.clone()
    }

    /// Returns what audits have counted by source since the process started, whenever it drove the batch layer.
    pub fn audited(&self) -> BTreeMap<String, AuditCounts> {
        let board = self.0.read();
        let mut audited = board.audited.clone();
        for (source, progress) in &board.batch {
            *audited.entry(source.clone()).or_default() += progress.audit;
        }
        audited
    }

    /// Returns what of a source's quarantine the batch layer is known to keep.
    pub fn published(&self, source: &str) -> Option<Division> {
        self.0.read().published.get(source).cloned()
    }

    /// Returns the batch layer's jobs under way by source, as they are now.
    pub fn jobs(&self) -> BTreeMap<String, BatchJob> {
        let board = self.0.read();
        board.jobs.iter().filter_map(|(source, jobs)| Some((source.clone(), jobs.current()?))).collect()
    }

    /// Returns the last jobs that ended by source, the newest first.
    pub fn ended_jobs(&self) -> BTreeMap<String, Vec<EndedJob>> {
        self.0.read().jobs.iter().map(|(source, jobs)| (source.clone(), jobs.ended())).collect()
    }

    /// Returns what this process lacks to be ready; none where nobody looks.
    pub fn not_ready(&self) -> Option<Vec<String>> {
        self.0.read().not_ready.clone()
    }

    /// Returns the store of quarantined records, once connected.
    pub fn quarantine(&self) -> Option<Arc<dyn QuarantineStore>> {
        self.0.read().quarantine.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_lasts_until_there_is_progress_or_nothing_left_to_do() {
        let board = StatusBoard::new();
        let post = |position, end| {
            let progress = PartitionProgress { position, end, ..PartitionProgress::default() };
            board.post_speed("readings", LogPartition(1), progress);
        };
        let held = || board.troubles().get("readings").is_some_and(|held| held.contains_key(&1));
        post(5, 9);
        board.post_trouble("readings", LogPartition(1), "the schema is unknown".into());
        post(5, 10);
        assert!(held(), "what comes after it changes nothing");
        post(6, 10);
        assert!(!held());
        board.post_trouble("readings", LogPartition(1), "the log is away".into());
        post(6, 6);
        assert!(!held(), "there is nothing to do");
    }

    fn progress(cut: Offset, audit: AuditCounts, error: Option<&str>) -> BatchProgress {
        let division = Division { from: Cut::zero(1), cut: Cut::new(vec![cut]) };
        BatchProgress {
            version: 1,
            cut: division.cut.clone(),
            published_us: 0,
            run_ms: 0,
            newest_rows: 0,
            audit,
            quarantine: Some(BatchQuarantine {
                division,
                counts: RefusalCounts::default(),
                audit: AuditCounts::default(),
            }),
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn who_ceases_to_drive_has_nothing_to_say_of_it_but_what_it_audited() {
        let board = StatusBoard::new();
        let audit = |compared| AuditCounts { compared, ..AuditCounts::default() };
        board.post_batch("readings", progress(8, audit(3), Some("the store is full")));
        board.post_batch("readings", progress(8, audit(4), Some("the store is full")));
        assert_eq!(board.audited()["readings"], audit(4));
        board.forget_batch();
        assert!(board.batch().is_empty(), "also of its last error");
        assert_eq!(board.audited()["readings"], audit(4));
        board.post_batch("readings", progress(8, audit(2), None));
        assert_eq!(board.audited()["readings"], audit(6), "it drives again, and begins to count anew");
    }

    #[test]
    fn what_is_published_never_becomes_less_whoever_says_so() {
        let board = StatusBoard::new();
        let known = || board.published("readings").map(|division| division.cut.at(LogPartition(0)));
        assert_eq!(known(), None);
        board.post_batch("readings", progress(8, AuditCounts::default(), None));
        board.forget_batch();
        let said = |cut| Division { from: Cut::zero(1), cut: Cut::new(vec![cut]) };
        board.post_published("readings", said(4));
        assert_eq!(known(), Some(8), "it dropped records up to there");
        board.post_published("readings", said(12));
        assert_eq!(known(), Some(12));
    }
}
