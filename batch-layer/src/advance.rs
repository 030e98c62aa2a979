//! Advances one part of the newest-version table over new segments. Pure.
//!
//! The part holds every identity it ever saw, so what is newest before a row is known without asking
//! anyone: rows are judged in (segment, offset) order against the part, and what the judgement
//! changes (a row added, the row it replaces taken away) are the segment's effects.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, interleave_record_batch, take_record_batch};
use arrow::error::ArrowError;
use bytes::Bytes;
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
/// All rows have the archived columns; those before are in order of identity, segments come in order,
/// their rows in offset order. Of the rows before only those that a segment speaks of again are judged:
/// the others are no more than copied.
pub fn advance(
    source: &Source,
    previous: Vec<RecordBatch>,
    segments: Vec<(SegmentId, RecordBatch)>,
) -> Result<Advanced, ArrowError> {
    let mut part = Part::new(source, previous);
    let identities: Vec<Vec<Identity>> = segments.iter().map(|(_, rows)| source.identities(rows)).collect();
    part.recall(identities.iter().flatten())?;
    let mut changes = BTreeMap::new();
    let mut conflicts = BTreeMap::new();
    for ((segment, rows), identities) in segments.into_iter().zip(identities) {
        let (changed, refused) = part.apply(rows, identities);
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
    Ok(Advanced { rows: gather(&part.places())?, effects, conflicts })
}

/// A row's batch and its row there.
type Place = (usize, usize);

/// The ordered encoding of a row's identity.
type Identity = Bytes;

struct Entry {
    place: Place,
    offset: Offset,
    version: i64,
    content: Fingerprint,
}

struct Part<'a> {
    source: &'a Source,
    batches: Vec<RecordBatch>,
    /// The rows before, in order of identity.
    before: Vec<(Identity, Place)>,
    /// The newest row of each identity that a segment speaks of.
    newest: BTreeMap<Identity, Entry>,
}

impl<'a> Part<'a> {
    /// Takes rows that are newest already.
    ///
    /// # Panics
    /// When they are not in order of identity, as every part is written.
    fn new(source: &'a Source, batches: Vec<RecordBatch>) -> Self {
        let mut before = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
        for (index, batch) in batches.iter().enumerate() {
            let identities = source.identities(batch).into_iter().enumerate();
            before.extend(identities.map(|(row, identity)| (identity, (index, row))));
        }
        assert!(before.is_sorted_by(|a, b| a.0 < b.0), "a part is in order of identity");
        Self { source, batches, before, newest: BTreeMap::new() }
    }

    /// Brings to mind what is known of these identities.
    fn recall<'i>(&mut self, identities: impl Iterator<Item = &'i Identity>) -> Result<(), ArrowError> {
        let wanted: BTreeSet<&Identity> = identities.collect();
        let mut known: BTreeMap<usize, Vec<(&Identity, usize)>> = BTreeMap::new();
        for identity in wanted {
            if let Ok(at) = self.before.binary_search_by(|(before, _)| before.cmp(identity)) {
                let (batch, row) = self.before[at].1;
                known.entry(batch).or_default().push((identity, row));
            }
        }
        for (batch, known) in known {
            let rows: UInt32Array = known.iter().map(|(_, row)| *row as u32).collect();
            let rows = take_record_batch(&self.batches[batch], &rows)?;
            for ((identity, row), entry) in known.into_iter().zip(self.entries(&rows)) {
                self.newest.insert(identity.clone(), Entry { place: (batch, row), ..entry });
            }
        }
        Ok(())
    }

    /// Returns what is to be known of rows, in their order; their places are counted from the first.
    fn entries(&self, rows: &RecordBatch) -> Vec<Entry> {
        let (versions, contents) = (self.source.versions(rows), self.source.contents(rows));
        let positions = offsets(rows);
        debug_assert_eq!(positions.null_count(), 0);
        let entry = |(row, content)| {
            let offset = positions.value(row);
            // Without versions the offset is the version.
            let version = versions[row].unwrap_or(offset as i64);
            Entry { place: (self.batches.len(), row), offset, version, content }
        };
        contents.into_iter().enumerate().map(entry).collect()
    }

    /// Judges rows in order; returns what they change, and those that conflict.
    fn apply(&mut self, rows: RecordBatch, identities: Vec<Identity>) -> (Vec<(Place, i64)>, Vec<Conflict>) {
        let (mut changed, mut conflicts) = (Vec::new(), Vec::new());
        for (identity, entry) in identities.into_iter().zip(self.entries(&rows)) {
            let known = self.newest.get(&identity);
            let verdict = judge(
                known.map(|known| Known { version: known.version, content: known.content.as_bytes() }),
                entry.version,
                entry.content.as_bytes(),
            );
            match verdict {
                Verdict::Duplicate | Verdict::Stale => continue,
                Verdict::Conflict => {
                    let known = known.expect("a conflict conflicts with something known");
                    let (offset, version) = (entry.offset, entry.version);
                    conflicts.push(Conflict { offset, version, known: known.offset });
                    continue;
                }
                Verdict::New => {}
                Verdict::Correction => changed.extend(known.map(|known| (known.place, -1))),
            }
            changed.push((entry.place, 1));
            self.newest.insert(identity, entry);
        }
        self.batches.push(rows);
        (changed, conflicts)
    }

    /// Returns the places of all newest rows, in order of identity.
    fn places(&self) -> Vec<Place> {
        let mut places = Vec::with_capacity(self.before.len() + self.newest.len());
        let mut newest = self.newest.iter().peekable();
        for (identity, place) in &self.before {
            while let Some((_, entry)) = newest.next_if(|(other, _)| *other < identity) {
                places.push(entry.place);
            }
            let again = newest.next_if(|(other, _)| *other == identity);
            places.push(again.map_or(*place, |(_, entry)| entry.place));
        }
        places.extend(newest.map(|(_, entry)| entry.place));
        places
    }
}
