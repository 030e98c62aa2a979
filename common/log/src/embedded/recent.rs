//! The newest records of a partition, in memory, so that a reader at the tail touches no disk.

use std::collections::VecDeque;

use crate::{Batch, Record};

/// Memory that a kept record takes besides its bytes.
const RECORD_OVERHEAD_BYTES: usize = size_of::<Record>();

/// Holds consecutive records up to the partition's end, as many as fit.
#[derive(Debug)]
pub(super) struct Recent {
    records: VecDeque<Record>,
    bytes: usize,
    bytes_max: usize,
}

impl Recent {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { records: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Takes the records that follow those it has; the oldest make room.
    pub(super) fn extend(&mut self, records: Vec<Record>) {
        self.bytes += records.iter().map(Self::cost).sum::<usize>();
        self.records.extend(records);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.records.pop_front()
        {
            self.bytes -= Self::cost(&oldest);
        }
    }

    /// Reads from here where it holds `from`; `end` is the partition's.
    pub(super) fn read(&self, from: u64, end: u64, limit: &Limit) -> Option<Batch> {
        let skip = from.checked_sub(self.records.front()?.offset)?;
        let skip = usize::try_from(skip).ok().filter(|skip| *skip < self.records.len())?;
        let mut take = Take::new(from, *limit);
        for record in self.records.range(skip..) {
            if !take.fits(record.bytes()) {
                break;
            }
            take.push(record.clone());
        }
        Some(take.batch(end))
    }

    fn cost(record: &Record) -> usize {
        record.bytes() + RECORD_OVERHEAD_BYTES
    }
}

/// How much one read may give.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) records_max: usize,
    pub(super) bytes_max: usize,
}

/// Collects the records of one read, within its limit.
#[derive(Debug)]
pub(super) struct Take {
    records: Vec<Record>,
    next: u64,
    bytes: usize,
    limit: Limit,
}

impl Take {
    pub(super) fn new(from: u64, limit: Limit) -> Self {
        Self { records: Vec::new(), next: from, bytes: 0, limit }
    }

    /// Says whether a record of `bytes` may be added; the first always may.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.records.len() < self.limit.records_max
            && (self.records.is_empty() || self.bytes + bytes <= self.limit.bytes_max)
    }

    pub(super) fn push(&mut self, record: Record) {
        self.bytes += record.bytes();
        self.next = record.offset + 1;
        self.records.push(record);
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn batch(self, end: u64) -> Batch {
        Batch { records: self.records, next: self.next, end }
    }
}
