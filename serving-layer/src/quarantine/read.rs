//! Reads the quarantine: page by page in the order of the log, or the newest.

use std::cmp::Reverse;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use sanso_catalog::{Order, QuarantineStore};
use sanso_dataset::{Dataset, DatasetError, Manifest};
use sanso_state::{Division, Fingerprint, LogPartition, Offset, Quarantined, Refusal, RefusalCounts};
use sanso_view::Source;

use crate::problem::Problem;
use crate::quarantine::marks::Marks;
use crate::quarantine::{add_speed, live_views};
use crate::service::Shared;

/// How often a read begins again because the batch layer published a version meanwhile.
const ATTEMPTS: usize = 4;
/// Bytes of payloads after which a page ends.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// Which records are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// The kinds; none for all.
    pub(crate) kinds: Vec<Refusal>,
    /// The log partition; none for all.
    pub(crate) partition: Option<u32>,
    /// When the log took them, in microseconds: from, and no longer at.
    pub(crate) appended_us: (Option<i64>, Option<i64>),
    /// Whether they were replayed; none for both.
    pub(crate) replayed: Option<bool>,
    /// Exactly these positions, in order; empty for no such limit.
    pub(crate) positions: Vec<(u32, Offset)>,
}

impl Wanted {
    fn kind(&self, kind: Refusal) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    fn takes(&self, record: &Quarantined, marks: &Marks) -> bool {
        let at = (record.partition, record.offset);
        let (from, to) = self.appended_us;
        self.kind(record.kind)
            && from.is_none_or(|from| record.append_time_us >= from)
            && to.is_none_or(|to| record.append_time_us < to)
            && self.replayed.is_none_or(|replayed| marks.contains_key(&at) == replayed)
            && (self.positions.is_empty() || self.positions.binary_search(&at).is_ok())
    }

    /// Returns the offsets of a log partition that follow a position; none where there are none.
    fn within(&self, partition: u32, after: Option<(u32, Offset)>) -> Option<Range<Offset>> {
        let mut range = match after {
            Some((last, _)) if partition < last => return None,
            Some((last, offset)) if partition == last => offset.saturating_add(1)..Offset::MAX,
            _ => 0..Offset::MAX,
        };
        if !self.positions.is_empty() {
            let mut offsets = self.positions.iter().filter(|at| at.0 == partition).map(|at| at.1);
            let first = offsets.next()?;
            range = range.start.max(first)..offsets.next_back().unwrap_or(first).saturating_add(1);
        }
        (!range.is_empty()).then_some(range)
    }

    fn partitions(&self, source: &Source) -> Vec<u32> {
        (0..source.partitions).filter(|partition| self.partition.is_none_or(|p| p == *partition)).collect()
    }
}

/// Some records, and how much there is in all.
#[derive(Debug)]
pub(crate) struct Page {
    /// The records.
    pub(crate) records: Vec<Quarantined>,
    /// Whether more follow.
    pub(crate) more: bool,
    /// The whole quarantine of the source, by kind.
    pub(crate) counts: RefusalCounts,
    /// Whether each record was replayed.
    pub(crate) marks: Arc<Marks>,
}

/// What is asked of a source's quarantine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    /// What follows a position, in order of (log partition, offset).
    After(Option<(u32, Offset)>),
    /// What the log took last, the newest first.
    Newest,
}

/// Reads at one version of the dataset; begins again when it changed meanwhile.
pub(crate) async fn read(
    shared: &Shared,
    source: &Arc<Source>,
    wanted: &Wanted,
    ask: Ask,
    limit: usize,
) -> Result<Page, Problem> {
    let dataset = &shared.context.dataset;
    let Some(store) = shared.context.board.quarantine() else { return Err(not_connected()) };
    for _ in 0..ATTEMPTS {
        let manifest = dataset.manifest(&source.name).await.map_err(failed)?;
        let marks = shared.replays.look(dataset, &source.name).await.map_err(failed)?.marks;
        let views = live_views(&shared.context.catalog.current(), &source.name);
        let division =
            manifest.as_ref().map_or_else(|| Division::beginning(source.partitions), |m| m.division());
        let version = manifest.as_ref().map(|manifest| manifest.version);
        let kept = manifest.as_ref().map(|manifest| manifest.refusals()).unwrap_or_default();
        let counts = add_speed(store.as_ref(), &source.name, &division, &views, kept);
        let counts = counts.map_err(|error| Problem::internal("count the quarantine", error))?;
        let snapshot = Snapshot {
            dataset: dataset.clone(),
            store: Arc::clone(&store),
            source: Arc::clone(source),
            manifest,
            division,
            views,
            wanted: Arc::new(wanted.clone()),
            marks: Arc::clone(&marks),
        };
        let (records, more) = match ask {
            Ask::After(after) => snapshot.page(after, limit).await?,
            Ask::Newest => snapshot.newest(limit).await?,
        };
        let now = dataset.manifest(&source.name).await.map_err(failed)?;
        if now.map(|manifest| manifest.version) == version {
            return Ok(Page { records, more, counts, marks });
        }
    }
    Err(Problem::busy("publications of batch versions"))
}

/// The quarantine of a source at one version of the dataset.
struct Snapshot {
    dataset: Dataset,
    store: Arc<dyn QuarantineStore>,
    source: Arc<Source>,
    manifest: Option<Arc<Manifest>>,
    division: Division,
    views: Vec<Fingerprint>,
    wanted: Arc<Wanted>,
    marks: Arc<Marks>,
}

impl Snapshot {
    async fn page(
        &self,
        after: Option<(u32, Offset)>,
        limit: usize,
    ) -> Result<(Vec<Quarantined>, bool), Problem> {
        let mut records: Vec<Quarantined> = Vec::new();
        for partition in self.wanted.partitions(&self.source) {
            let Some(range) = self.wanted.within(partition, after) else { continue };
            let bytes = records.iter().map(|record| record.payload.len()).sum();
            let taking = Taking::new(limit - records.len(), bytes);
            if self.gather(partition, range, Order::Rising, taking, &mut records).await? {
                return Ok((records, true));
            }
        }
        Ok((records, false))
    }

    async fn newest(&self, limit: usize) -> Result<(Vec<Quarantined>, bool), Problem> {
        let (mut records, mut more) = (Vec::new(), false);
        for partition in self.wanted.partitions(&self.source) {
            let taking = Taking::new(limit, 0);
            more |= self.gather(partition, 0..Offset::MAX, Order::Falling, taking, &mut records).await?;
        }
        records.sort_by_key(|record| Reverse((record.append_time_us, record.partition, record.offset)));
        more |= records.len() > limit;
        records.truncate(limit);
        Ok((records, more))
    }

    /// Adds the wanted records of one log partition within a range; says whether some were left out.
    async fn gather(
        &self,
        partition: u32,
        range: Range<Offset>,
        order: Order,
        taking: Taking,
        records: &mut Vec<Quarantined>,
    ) -> Result<bool, Problem> {
        let mut refused = taking.clone();
        let [below, above] = self.division.speed(LogPartition(partition));
        let (first, last) = if order == Order::Rising { (below, above) } else { (above, below) };
        self.visit(Family::Refused, partition, meet(&first, &range), order, &mut refused).await?;
        self.batch(partition, &range, order, &mut refused).await?;
        self.visit(Family::Refused, partition, meet(&last, &range), order, &mut refused).await?;
        let mut failed = taking;
        if self.wanted.kind(Refusal::Expression) {
            self.visit(Family::Expressions, partition, range, order, &mut failed).await?;
        }
        let full = refused.full || failed.full;
        let limit = refused.limit;
        // Beyond the last record of a list that was cut short, the other one must end too.
        let ends = [&refused, &failed].map(|one| one.taken.last().filter(|_| one.full).map(|r| r.offset));
        let within = |offset: Offset| {
            ends.iter()
                .flatten()
                .all(|end| if order == Order::Rising { offset <= *end } else { offset >= *end })
        };
        let mut both: Vec<Quarantined> = refused.taken.into_iter().chain(failed.taken).collect();
        both.retain(|record| within(record.offset));
        both.sort_by_key(|record| record.offset);
        if order == Order::Falling {
            both.reverse();
        }
        let more = full || both.len() > limit;
        both.truncate(limit);
        records.extend(both);
        Ok(more)
    }

    /// Visits the speed layer's entries, on the blocking pool.
    async fn visit(
        &self,
        family: Family,
        partition: u32,
        range: Range<Offset>,
        order: Order,
        taking: &mut Taking,
    ) -> Result<(), Problem> {
        if taking.full || range.is_empty() {
            return Ok(());
        }
        let (store, source) = (Arc::clone(&self.store), Arc::clone(&self.source));
        let (wanted, marks, views) = (Arc::clone(&self.wanted), Arc::clone(&self.marks), self.views.clone());
        let mut taken = std::mem::take(taking);
        let visited = tokio::task::spawn_blocking(move || {
            let mut visit = |record: Quarantined| {
                let live = record.view.is_none_or(|view| views.contains(&view));
                if live && wanted.takes(&record, &marks) {
                    taken.take(record)
                } else {
                    ControlFlow::Continue(())
                }
            };
            let visited = match family {
                Family::Refused => store.visit(&source.name, partition, range, order, &mut visit),
                Family::Expressions => {
                    store.visit_expressions(&source.name, partition, range, order, &mut visit)
                }
            };
            visited.map(|()| taken)
        });
        let visited = visited.await.map_err(|error| Problem::internal("read the quarantine", error))?;
        *taking = visited.map_err(|error| Problem::internal("read the quarantine", error))?;
        Ok(())
    }

    /// Takes the batch layer's records.
    async fn batch(
        &self,
        partition: u32,
        range: &Range<Offset>,
        order: Order,
        taking: &mut Taking,
    ) -> Result<(), Problem> {
        let Some(manifest) = &self.manifest else { return Ok(()) };
        let range = meet(&self.division.batch(LogPartition(partition)), range);
        let size = manifest.segment_size;
        let wanted = |file: &&sanso_dataset::QuarantineFile| {
            let (from, to) = (file.segment.index * size, (file.segment.index + 1) * size);
            let kinds = Refusal::ALL.into_iter().filter(|kind| file.counts.at(*kind) > 0);
            file.segment.partition.0 == partition
                && from < range.end
                && range.start < to
                && kinds.into_iter().any(|kind| self.wanted.kind(kind))
        };
        let mut files: Vec<_> = manifest.quarantine.iter().filter(wanted).collect();
        if order == Order::Falling {
            files.reverse();
        }
        for file in files {
            if taking.full {
                break;
            }
            let mut records = self.dataset.read_quarantine(&manifest.source, file).await.map_err(failed)?;
            if order == Order::Falling {
                records.reverse();
            }
            let mine = records.into_iter().filter(|record| range.contains(&record.offset));
            let mut mine = mine.filter(|record| self.wanted.takes(record, &self.marks));
            // The flow says only what `full` says.
            let _ = mine.try_for_each(|record| taking.take(record));
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Family {
    Refused,
    Expressions,
}

fn meet(a: &Range<Offset>, b: &Range<Offset>) -> Range<Offset> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// Takes records until there are enough.
#[derive(Clone, Debug, Default)]
struct Taking {
    limit: usize,
    bytes: usize,
    taken: Vec<Quarantined>,
    /// Whether a record was left out.
    full: bool,
}

impl Taking {
    /// `bytes`: of the payloads that the page has already.
    fn new(limit: usize, bytes: usize) -> Self {
        Self { limit, bytes, taken: Vec::new(), full: false }
    }

    fn take(&mut self, record: Quarantined) -> ControlFlow<()> {
        // Several views that fail on one record are one entry with several reasons.
        if let Some(last) = self.taken.last_mut()
            && (last.partition, last.offset) == (record.partition, record.offset)
        {
            last.reason = format!("{}\n{}", last.reason, record.reason);
            return ControlFlow::Continue(());
        }
        let enough =
            self.taken.len() >= self.limit || (self.bytes > PAGE_BYTES_MAX && !self.taken.is_empty());
        if enough {
            self.full = true;
            return ControlFlow::Break(());
        }
        self.bytes += record.payload.len();
        self.taken.push(record);
        ControlFlow::Continue(())
    }
}

/// Says what an error of the dataset means for the caller.
pub(super) fn failed(error: DatasetError) -> Problem {
    Problem::dataset("read the quarantine", &error)
}

fn not_connected() -> Problem {
    Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready yet")
        .detail("the store of quarantined records is not open yet")
        .hint("try again shortly")
        .retry_after_s(1)
}
