//! Reads the quarantine: page by page in the order of the log, or the newest.

use std::cmp::Reverse;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use futures::future::try_join_all;
use sanso_catalog::{Catalog, Order};
use sanso_dataset::{DatasetError, Manifest};
use sanso_state::{Division, Fingerprint, LogPartition, Offset, Quarantined, Refusal, RefusalCounts};
use sanso_view::Source;

use crate::nodes::{Holders, PageAsked};
use crate::problem::Problem;
use crate::quarantine::marks::Marks;
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
    /// Log partitions of which records may be missing, as no node that answers has all of them.
    pub(crate) missing: Vec<u32>,
    /// The nodes that don't answer, and why.
    pub(crate) unanswered: Vec<serde_json::Value>,
}

/// What is asked of a source's quarantine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    /// What follows a position, in order of (log partition, offset).
    After(Option<(u32, Offset)>),
    /// What the log took last, the newest first.
    Newest,
}

/// Returns the live view versions of a source.
pub(crate) fn live_views(catalog: &Catalog, source: &str) -> Vec<Fingerprint> {
    catalog.live_of(source).iter().map(|view| view.fingerprint).collect()
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
    if !shared.nodes.are_many() && shared.context.board.quarantine().is_none() {
        return Err(not_connected());
    }
    for _ in 0..ATTEMPTS {
        let whole = shared.nodes.whole().await;
        let manifest = dataset.manifest(&source.name).await.map_err(failed)?;
        let marks = shared.replays.look(dataset, &source.name).await.map_err(failed)?.marks;
        let views = live_views(&shared.context.catalog.current(), &source.name);
        let division =
            manifest.as_ref().map_or_else(|| Division::beginning(source.partitions), |m| m.division());
        let version = manifest.as_ref().map(|manifest| manifest.version);
        let kept = manifest.as_ref().map(|manifest| manifest.refusals()).unwrap_or_default();
        let counts = shared.nodes.counts_beside(source, &whole, &division, &views, kept).await;
        let counts = counts.map_err(|error| Problem::internal("count the quarantine", error))?;
        let Some(counts) = counts else { continue };
        let snapshot = Snapshot {
            shared,
            source,
            manifest,
            division,
            views,
            wanted,
            marks: Arc::clone(&marks),
            holders: whole.holders(source),
        };
        let (records, more) = match ask {
            Ask::After(after) => snapshot.page(after, limit).await?,
            Ask::Newest => snapshot.newest(limit).await?,
        };
        let now = dataset.manifest(&source.name).await.map_err(failed)?;
        if now.map(|manifest| manifest.version) == version {
            let missing = snapshot.holders.missing;
            return Ok(Page {
                records,
                more,
                counts,
                marks,
                missing,
                unanswered: whole.describe_unanswered(),
            });
        }
    }
    Err(Problem::busy("publications of batch versions"))
}

/// The quarantine of a source at one version of the dataset.
struct Snapshot<'a> {
    shared: &'a Shared,
    source: &'a Arc<Source>,
    manifest: Option<Arc<Manifest>>,
    division: Division,
    views: Vec<Fingerprint>,
    wanted: &'a Wanted,
    marks: Arc<Marks>,
    holders: Holders,
}

impl Snapshot<'_> {
    async fn page(
        &self,
        after: Option<(u32, Offset)>,
        limit: usize,
    ) -> Result<(Vec<Quarantined>, bool), Problem> {
        let mut records: Vec<Quarantined> = Vec::new();
        for partition in self.wanted.partitions(self.source) {
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
        for partition in self.wanted.partitions(self.source) {
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
        if let Some(holder) = self.holders.refused.get(&partition) {
            self.visit((*holder, Family::Refused), partition, meet(&first, &range), order, &mut refused)
                .await?;
        }
        self.batch(partition, &range, order, &mut refused).await?;
        if let Some(holder) = self.holders.refused.get(&partition) {
            self.visit((*holder, Family::Refused), partition, meet(&last, &range), order, &mut refused)
                .await?;
        }
        let limit = refused.limit;
        let mut lists = vec![refused];
        if self.wanted.kind(Refusal::Expression) {
            let met = self.holders.answering.iter().map(|node| {
                let (mut met, range) = (taking.clone(), range.clone());
                async move {
                    let family = (*node, Family::Expressions);
                    self.visit(family, partition, range, order, &mut met).await.map(|()| met)
                }
            });
            lists.extend(try_join_all(met).await?);
        }
        let full = lists.iter().any(|list| list.full);
        // Beyond the last record of a list that was cut short, the others must end too.
        let ends: Vec<Offset> = lists
            .iter()
            .filter(|list| list.full)
            .filter_map(|list| Some(list.taken.last()?.offset))
            .collect();
        let within = |offset: Offset| {
            ends.iter().all(|end| if order == Order::Rising { offset <= *end } else { offset >= *end })
        };
        let mut all: Vec<Quarantined> = lists.into_iter().flat_map(|list| list.taken).collect();
        all.retain(|record| within(record.offset));
        all.sort_by_key(|record| record.offset);
        let mut both: Vec<Quarantined> = Vec::with_capacity(all.len());
        for record in all {
            match both.last_mut().filter(|last| last.offset == record.offset) {
                // Nodes that both fed the log partition have both met it.
                Some(last) => add_reasons(last, &record),
                None => both.push(record),
            }
        }
        if order == Order::Falling {
            both.reverse();
        }
        let more = full || both.len() > limit;
        both.truncate(limit);
        records.extend(both);
        Ok(more)
    }

    /// Visits the entries of a node's speed layer.
    async fn visit(
        &self,
        (node, family): (u16, Family),
        partition: u32,
        range: Range<Offset>,
        order: Order,
        taking: &mut Taking,
    ) -> Result<(), Problem> {
        let mut asked = PageAsked {
            source: self.source.name.clone(),
            partition,
            range,
            falling: order == Order::Falling,
            expressions: matches!(family, Family::Expressions),
            kinds: self.wanted.kinds.clone(),
            appended_us: self.wanted.appended_us,
            views: self.views.clone(),
            records_max: taking.limit.saturating_add(1),
        };
        while !taking.full && !asked.range.is_empty() {
            let page = self.shared.nodes.page(node, &asked).await;
            let mut page = page.map_err(|error| self.unreadable(node, error))?;
            let rest = page.rest.take();
            let mut wanted = page.records(partition).filter(|record| self.wanted.takes(record, &self.marks));
            // The flow says only what `full` says.
            let _ = wanted.try_for_each(|record| taking.take(record));
            let Some(rest) = rest else { break };
            asked.range = rest;
        }
        Ok(())
    }

    fn unreadable(&self, node: u16, error: String) -> Problem {
        if node == self.shared.nodes.me() {
            return Problem::internal("read the quarantine", error);
        }
        // It did answer a moment ago.
        Problem::silent_node(node, error)
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
            let dataset = &self.shared.context.dataset;
            let mut records = dataset.read_quarantine(&manifest.source, file).await.map_err(failed)?;
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
            add_reasons(last, &record);
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

/// Adds the reasons that one entry of a record has and another one of it has not.
fn add_reasons(entry: &mut Quarantined, other: &Quarantined) {
    for reason in other.reason.lines() {
        if !entry.reason.lines().any(|known| known == reason) {
            entry.reason = format!("{}\n{reason}", entry.reason);
        }
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
