//! Advances one part of the newest-version table over new segments. Pure.
//!
//! The part holds every identity it ever saw, so what is newest before a row is known without asking
//! anyone: rows are judged in (segment, offset) order against the part, and what the judgement
//! changes (a row added, the row it replaces taken away) are the segment's effects.

use std::collections::BTreeMap;

use arrow::array::{Array, RecordBatch};
use arrow::compute::{concat_batches, interleave_record_batch};
use arrow::error::ArrowError;
use sanso_dataset::{offsets, source_columns};
use sanso_state::{Fingerprint, Offset, SegmentId};
use sanso_view::Source;
use sanso_view::newest::{Known, Verdict, judge};

/// What a segment adds to (sign 1) and takes away from (sign -1) a source's newest rows.
#[derive(Clone, Debug)]
pub struct Effects {
    /// The rows, of the source's columns.
    pub rows: RecordBatch,
    /// For each row 1 or -1.
    pub signs: Vec<i64>,
}

impl Effects {
    /// Puts the effects of several parts of the table together; None for none.
    pub fn join(parts: &[Effects]) -> Result<Option<Effects>, ArrowError> {
        let Some(first) = parts.first() else { return Ok(None) };
        let rows = concat_batches(first.rows.schema_ref(), parts.iter().map(|part| &part.rows))?;
        let signs = parts.iter().flat_map(|part| part.signs.iter().copied()).collect();
        Ok(Some(Effects { rows, signs }))
    }
}

/// One part of the table, advanced.
#[derive(Clone, Debug)]
pub struct Advanced {
    /// The newest rows, archived columns, in order of identity.
    pub rows: RecordBatch,
    /// The effects of each segment that has any.
    pub effects: BTreeMap<SegmentId, Effects>,
    /// The records of each segment that conflict with what was known before them.
    pub conflicts: BTreeMap<SegmentId, Vec<Conflict>>,
}

/// A record that is refused because another of its identity and version came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its offset.
    pub offset: Offset,
    /// The version of both.
    pub version: i64,
    /// The offset of the one that came before.
    pub known: Offset,
}

/// Advances a part that holds `previous` over the rows that each segment has for it.
///
/// All rows have the archived columns; segments come in order, their rows in offset order.
pub fn advance(
    source: &Source,
    previous: Vec<RecordBatch>,
    segments: Vec<(SegmentId, RecordBatch)>,
) -> Result<Advanced, ArrowError> {
    let mut part = Part { source, batches: Vec::new(), newest: BTreeMap::new() };
    for batch in previous {
        part.load(batch);
    }
    let mut changes = BTreeMap::new();
    let mut conflicts = BTreeMap::new();
    for (segment, rows) in segments {
        let (changed, refused) = part.apply(rows);
        if !refused.is_empty() {
            conflicts.insert(segment, refused);
        }
        if !changed.is_empty() {
            changes.insert(segment, changed);
        }
    }
    let gather = |places: &[Place]| {
        let batches: Vec<&RecordBatch> = part.batches.iter().collect();
        interleave_record_batch(&batches, places)
    };
    let mut effects = BTreeMap::new();
    for (segment, changed) in changes {
        let (places, signs): (Vec<Place>, Vec<i64>) = changed.into_iter().unzip();
        effects.insert(segment, Effects { rows: source_columns(&gather(&places)?), signs });
    }
    let places: Vec<Place> = part.newest.values().map(|entry| entry.place).collect();
    Ok(Advanced { rows: gather(&places)?, effects, conflicts })
}

/// A row's batch and its row there.
type Place = (usize, usize);

struct Entry {
    place: Place,
    offset: Offset,
    version: i64,
    content: Fingerprint,
}

struct Part<'a> {
    source: &'a Source,
    batches: Vec<RecordBatch>,
    newest: BTreeMap<Box<[u8]>, Entry>,
}

impl Part<'_> {
    /// Takes rows that are newest already.
    fn load(&mut self, rows: RecordBatch) {
        self.each(rows, |newest, identity, entry| {
            newest.insert(identity, entry);
        });
    }

    /// Judges rows in order; returns what they change, and those that conflict.
    fn apply(&mut self, rows: RecordBatch) -> (Vec<(Place, i64)>, Vec<Conflict>) {
        let (mut changed, mut conflicts) = (Vec::new(), Vec::new());
        self.each(rows, |newest, identity, entry| {
            let known = newest.get(&identity);
            let verdict = judge(
                known.map(|known| Known { version: known.version, content: known.content.as_bytes() }),
                entry.version,
                entry.content.as_bytes(),
            );
            match verdict {
                Verdict::Duplicate | Verdict::Stale => return,
                Verdict::Conflict => {
                    let known = known.expect("a conflict conflicts with something known");
                    let (offset, version) = (entry.offset, entry.version);
                    conflicts.push(Conflict { offset, version, known: known.offset });
                    return;
                }
                Verdict::New => {}
                Verdict::Correction => changed.extend(known.map(|known| (known.place, -1))),
            }
            changed.push((entry.place, 1));
            newest.insert(identity, entry);
        });
        (changed, conflicts)
    }

    fn each(
        &mut self,
        rows: RecordBatch,
        mut take: impl FnMut(&mut BTreeMap<Box<[u8]>, Entry>, Box<[u8]>, Entry),
    ) {
        let batch = self.batches.len();
        let identities = self.source.identities(&rows);
        let versions = self.source.versions(&rows);
        let contents = self.source.contents(&rows);
        let positions = offsets(&rows);
        debug_assert_eq!(positions.null_count(), 0);
        for (row, identity) in identities.into_iter().enumerate() {
            // Without versions the offset is the version.
            let offset = positions.value(row);
            let version = versions[row].unwrap_or(offset as i64);
            let entry = Entry { place: (batch, row), offset, version, content: contents[row] };
            take(&mut self.newest, identity, entry);
        }
        self.batches.push(rows);
    }
}
