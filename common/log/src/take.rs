//! Keeps one read within its limits.

use crate::{Batch, Record};

/// How much one read may give.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) records_max: usize,
    pub(crate) bytes_max: usize,
}

/// Collects the records of one read, within its limit.
#[derive(Debug)]
pub(crate) struct Take {
    records: Vec<Record>,
    next: u64,
    bytes: usize,
    limit: Limit,
}

impl Take {
    pub(crate) fn new(from: u64, limit: Limit) -> Self {
        Self { records: Vec::new(), next: from, bytes: 0, limit }
    }

    /// Says whether a record of `bytes` may be added; the first always may.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        self.records.len() < self.limit.records_max
            && (self.records.is_empty() || self.bytes + bytes <= self.limit.bytes_max)
    }

    pub(crate) fn push(&mut self, record: Record) {
        self.bytes += record.bytes();
        self.next = record.offset + 1;
        self.records.push(record);
    }

    /// Says whether nothing was taken yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Where to continue: after the last record, or where the read began.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn batch(self, end: u64) -> Batch {
        Batch { records: self.records, next: self.next, end }
    }
}
