//! The newest records of a partition, in memory, so that a reader at the tail touches no disk.

use std::collections::VecDeque;

use crate::take::{Limit, Take};
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

    /// Returns the memory of what it holds.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn cost(record: &Record) -> usize {
        record.bytes() + RECORD_OVERHEAD_BYTES
    }
}
