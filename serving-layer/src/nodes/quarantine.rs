//! The speed layer's part of the quarantine, page by page, from whichever node has it.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use sanso_catalog::{Order, QuarantineStore};
use sanso_state::{Fingerprint, Offset, Quarantined, Refusal};
use serde::{Deserialize, Serialize};

/// Most records of one page.
const RECORDS_MAX: usize = 1_000;
/// Bytes of payloads after which a page ends.
const BYTES_MAX: usize = 1 << 20;

/// Who has which part of a source's quarantine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holders {
    /// Who has what the source refused, by log partition.
    pub(crate) refused: BTreeMap<u32, u16>,
    /// The nodes that answer: of what views' expressions failed on, each has what it met.
    pub(crate) answering: Vec<u16>,
    /// Log partitions of which no node that answers has all.
    pub(crate) missing: Vec<u32>,
}

/// Asks for records of one log partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PageAsked {
    pub(crate) source: String,
    pub(crate) partition: u32,
    /// The offsets wanted.
    pub(crate) range: Range<Offset>,
    /// Whether the highest offsets come first.
    pub(crate) falling: bool,
    /// Whether what views' expressions failed on is wanted, rather than what the source refused.
    pub(crate) expressions: bool,
    /// The kinds; none for all.
    pub(crate) kinds: Vec<Refusal>,
    /// When the log took them, in microseconds: from, and no longer at.
    pub(crate) appended_us: (Option<i64>, Option<i64>),
    /// The view versions whose failures are wanted.
    pub(crate) views: Vec<Fingerprint>,
    /// Most records.
    pub(crate) records_max: usize,
}

/// Some records, in the order asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Page {
    records: Vec<Entry>,
    /// The offsets that are left to ask for.
    pub(crate) rest: Option<Range<Offset>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    offset: Offset,
    append_time_us: i64,
    kind: Refusal,
    reason: String,
    view: Option<Fingerprint>,
    #[serde(with = "serde_bytes")]
    payload: Vec<u8>,
}

impl Page {
    /// Returns the records, which are of this log partition.
    pub(crate) fn records(self, partition: u32) -> impl Iterator<Item = Quarantined> {
        self.records.into_iter().map(move |entry| Quarantined {
            partition,
            offset: entry.offset,
            append_time_us: entry.append_time_us,
            kind: entry.kind,
            reason: entry.reason,
            view: entry.view,
            payload: entry.payload,
        })
    }
}

impl PageAsked {
    fn wants(&self, record: &Quarantined) -> bool {
        let (from, to) = self.appended_us;
        record.view.is_none_or(|view| self.views.contains(&view))
            && (self.kinds.is_empty() || self.kinds.contains(&record.kind))
            && from.is_none_or(|from| record.append_time_us >= from)
            && to.is_none_or(|to| record.append_time_us < to)
    }
}

/// Reads a page from a node's store. All records of one offset are in one page.
pub(super) fn page(store: &dyn QuarantineStore, asked: &PageAsked) -> Result<Page, String> {
    let mut page = Page::default();
    let mut bytes = 0;
    let mut take = |record: Quarantined| {
        if !asked.wants(&record) {
            return ControlFlow::Continue(());
        }
        let is_full = page.records.len() >= asked.records_max.clamp(1, RECORDS_MAX) || bytes > BYTES_MAX;
        if is_full && page.records.last().is_some_and(|last| last.offset != record.offset) {
            page.rest = Some(match asked.falling {
                false => record.offset..asked.range.end,
                true => asked.range.start..record.offset.saturating_add(1),
            });
            return ControlFlow::Break(());
        }
        bytes += record.payload.len();
        page.records.push(Entry {
            offset: record.offset,
            append_time_us: record.append_time_us,
            kind: record.kind,
            reason: record.reason,
            view: record.view,
            payload: record.payload,
        });
        ControlFlow::Continue(())
    };
    let order = if asked.falling { Order::Falling } else { Order::Rising };
    let (source, range) = (asked.source.as_str(), asked.range.clone());
    match asked.expressions {
        false => store.visit(source, asked.partition, range, order, &mut take)?,
        true => store.visit_expressions(source, asked.partition, range, order, &mut take)?,
    }
    Ok(page)
}
