//! Judges the records of a span of offsets: decoded, placed, and held against
//! the newest version known as of each offset. Pure but for the index's lookups.
//!
//! ```text
//!   records ─decode─▶ rows ─placed?─▶ newest rule ─▶ +1 row (new), -1 row (superseded)
//!              │            │             │
//!              └────────────┴─────────────┴──▶ quarantine
//! ```

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use bytes::Bytes;
use hashbrown::HashMap;
use sanso_catalog::RecordCounts;
use sanso_log::{Record, partition_for_key};
use sanso_state::{LogPartition, Offset, Quarantined, Refusal, Watermark, conflict_reason, misplaced_reason};
use sanso_view::Source;
use sanso_view::newest::{Known, Verdict, judge};

use crate::error::Result;
use crate::newest::{Accepted, NewestIndex, Version};

/// Rows with the offset that each takes effect at.
#[derive(Clone, Debug)]
pub(crate) struct Effects {
    pub(crate) rows: RecordBatch,
    pub(crate) offsets: Vec<Offset>,
}

/// What a span of records means.
pub(crate) struct Judged {
    /// The rows to add.
    pub(crate) added: Effects,
    /// The rows to retract.
    pub(crate) retracted: Effects,
    /// The versions that became the newest.
    pub(crate) accepted: Vec<Accepted>,
    /// How the span's records were judged.
    pub(crate) counts: RecordCounts,
    /// The records refused, in offset order.
    pub(crate) quarantined: Vec<Quarantined>,
    /// The watermark after the span.
    pub(crate) watermark: Watermark,
}

/// Adds the judgements of another span.
pub(crate) fn add_counts(to: &mut RecordCounts, other: &RecordCounts) {
    to.records += other.records;
    to.new += other.new;
    to.corrections += other.corrections;
    to.duplicates += other.duplicates;
    to.conflicts += other.conflicts;
    to.stale += other.stale;
    to.undecodable += other.undecodable;
    to.misplaced += other.misplaced;
    to.late += other.late;
}

/// Makes the quarantine's entry for a record.
pub(crate) fn quarantined(
    partition: LogPartition,
    record: &Record,
    kind: Refusal,
    reason: String,
) -> Quarantined {
    Quarantined {
        partition: partition.0,
        offset: record.offset,
        append_time_us: record.append_time_us,
        kind,
        reason,
        view: None,
        payload: record.payload.to_vec(),
    }
}

/// Judges records in offset order. `watermark`: as of the first of them.
pub(crate) fn judge_span(
    source: &Source,
    partition: LogPartition,
    index: &impl NewestIndex,
    records: &[Record],
    watermark: Watermark,
) -> Result<Judged> {
    let decoded = source.decode(records.iter().map(|record| record.payload.as_ref()));
    let mut judging = Judging::new(partition, watermark);
    judging.counts.records = records.len() as u64;
    for (at, reason) in decoded.rejected {
        judging.counts.undecodable += 1;
        judging.refuse(&records[at], Refusal::Undecodable, reason);
    }
    let rows = decoded.rows;
    let keys = source.keys(&rows);
    let mut placed = Vec::with_capacity(rows.num_rows());
    for (row, &at) in decoded.index.iter().enumerate() {
        let key = keys.value(row);
        let home = partition_for_key(key.as_bytes(), source.partitions);
        if home == partition.0 {
            placed.push((row, &records[at]));
        } else {
            judging.counts.misplaced += 1;
            judging.refuse(&records[at], Refusal::Misplaced, misplaced_reason(key, home, partition));
        }
    }
    judging.newest_rule(source, index, &rows, &placed)?;
    judging.finish(source, &rows)
}

/// The state of judging one span.
struct Judging {
    partition: LogPartition,
    watermark: Watermark,
    counts: RecordCounts,
    quarantined: Vec<Quarantined>,
    accepted: Vec<Accepted>,
    /// Rows of the span that are added.
    rows: Vec<u32>,
    retracted: Vec<(Offset, Bytes)>,
}

impl Judging {
    fn new(partition: LogPartition, watermark: Watermark) -> Self {
        Self {
            partition,
            watermark,
            counts: RecordCounts::default(),
            quarantined: Vec::new(),
            accepted: Vec::new(),
            rows: Vec::new(),
            retracted: Vec::new(),
        }
    }

    fn refuse(&mut self, record: &Record, kind: Refusal, reason: String) {
        self.quarantined.push(quarantined(self.partition, record, kind, reason));
    }

    fn newest_rule(
        &mut self,
        source: &Source,
        index: &impl NewestIndex,
        rows: &RecordBatch,
        placed: &[(usize, &Record)],
    ) -> Result<()> {
        let identities = source.identities(rows);
        let versions = source.versions(rows);
        let contents = source.contents(rows);
        let event_times = source.event_times(rows);
        let mut encoded = source.encode_rows(rows);
        // Each identity is asked for once, as of its first offset in the span;
        // from there on the span's own accepted versions are the newest.
        let mut slots: HashMap<&[u8], usize> = HashMap::with_capacity(placed.len());
        let mut questions = Vec::with_capacity(placed.len());
        for &(row, record) in placed {
            let identity = identities[row].as_ref();
            slots.entry(identity).or_insert_with(|| {
                questions.push((identity, record.offset));
                questions.len() - 1
            });
        }
        let mut known = index.as_of(&questions)?;
        for &(row, record) in placed {
            let slot = slots[identities[row].as_ref()];
            let version = Version {
                offset: record.offset,
                version: versions[row].unwrap_or(record.offset as i64),
                content: *contents[row].as_bytes(),
                row: std::mem::take(&mut encoded[row]),
            };
            let late = self.watermark.value().is_some_and(|watermark| event_times[row] < watermark);
            self.watermark.observe(event_times[row], record.append_time_us);
            if let Some(superseded) = self.judge_one(record, &known[slot], &version, late) {
                self.rows.push(row as u32);
                known[slot] = Some(version.clone());
                let identity = identities[row].clone();
                self.accepted.push(Accepted { identity, version, superseded });
            }
        }
        Ok(())
    }

    /// Judges one record. When it is accepted, returns what it supersedes.
    fn judge_one(
        &mut self,
        record: &Record,
        known: &Option<Version>,
        version: &Version,
        late: bool,
    ) -> Option<Option<Version>> {
        let against = known.as_ref().map(|k| Known { version: k.version, content: &k.content });
        match judge(against, version.version, &version.content) {
            Verdict::New => self.counts.new += 1,
            Verdict::Correction => {
                self.counts.corrections += 1;
                let superseded = known.as_ref().expect("a correction corrects something known");
                self.retracted.push((record.offset, superseded.row.clone()));
            }
            Verdict::Duplicate => {
                self.counts.duplicates += 1;
                return None;
            }
            Verdict::Stale => {
                self.counts.stale += 1;
                return None;
            }
            Verdict::Conflict => {
                self.counts.conflicts += 1;
                let known = known.as_ref().expect("a conflict conflicts with something known");
                let reason = conflict_reason(known.version, known.offset);
                self.refuse(record, Refusal::Conflict, reason);
                return None;
            }
        }
        self.counts.late += u64::from(late);
        Some(known.clone())
    }

    fn finish(mut self, source: &Source, rows: &RecordBatch) -> Result<Judged> {
        let offsets = self.accepted.iter().map(|accepted| accepted.version.offset).collect();
        let rows = if self.rows.len() == rows.num_rows() {
            rows.clone()
        } else {
            take_record_batch(rows, &UInt32Array::from(self.rows))?
        };
        let added = Effects { rows, offsets };
        let rows = source.decode_rows(self.retracted.iter().map(|(_, row)| row.as_ref()))?;
        let offsets = self.retracted.iter().map(|(offset, _)| *offset).collect();
        let retracted = Effects { rows, offsets };
        self.quarantined.sort_by_key(|refused| refused.offset);
        Ok(Judged {
            added,
            retracted,
            accepted: self.accepted,
            counts: self.counts,
            quarantined: self.quarantined,
            watermark: self.watermark,
        })
    }
}
