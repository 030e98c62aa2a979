//! The memory of SQL queries: a budget for each, and one for all of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};
use parking_lot::Mutex;

/// Bytes counted against a bound.
#[derive(Debug)]
pub(crate) struct Budget {
    max: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, used: AtomicUsize::new(0) }
    }

    /// Returns the bytes taken now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn take_anyway(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Which budget a query ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exhausted {
    /// Its own, of so many bytes.
    Own(usize),
    /// That of all queries together, of so many bytes.
    Shared(usize),
}

/// The memory of one query.
#[derive(Debug)]
pub(crate) struct QueryMemory {
    own: Budget,
    shared: Arc<Budget>,
    exhausted: Mutex<Option<Exhausted>>,
}

impl QueryMemory {
    /// Creates the memory of a query that may take `max` bytes, within what all may take.
    pub(crate) fn new(max: usize, shared: Arc<Budget>) -> Self {
        Self { own: Budget::new(max), shared, exhausted: Mutex::new(None) }
    }

    /// Returns the budget that was asked for too much, if one was.
    pub(crate) fn exhausted(&self) -> Option<Exhausted> {
        *self.exhausted.lock()
    }
}

impl fmt::Display for QueryMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.own.used(), self.own.max)
    }
}

impl MemoryPool for QueryMemory {
    fn name(&self) -> &str {
        "query"
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        self.own.take_anyway(additional);
        self.shared.take_anyway(additional);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        self.own.give_back(shrink);
        self.shared.give_back(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<(), DataFusionError> {
        let exhausted = if !self.own.take(additional) {
            Exhausted::Own(self.own.max)
        } else if !self.shared.take(additional) {
            self.own.give_back(additional);
            Exhausted::Shared(self.shared.max)
        } else {
            return Ok(());
        };
        *self.exhausted.lock() = Some(exhausted);
        let name = reservation.consumer().name();
        Err(DataFusionError::ResourcesExhausted(format!("{name} asked for {additional} bytes more")))
    }

    fn reserved(&self) -> usize {
        self.own.used()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.own.max)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    #[test]
    fn what_one_query_holds_another_can_not_have_and_all_is_given_back() {
        let shared = Arc::new(Budget::new(100));
        let memory = || Arc::new(QueryMemory::new(80, Arc::clone(&shared)));
        let (first, second) = (memory(), memory());
        let reserve = |memory: &Arc<QueryMemory>| {
            let pool: Arc<dyn MemoryPool> = Arc::clone(memory) as _;
            MemoryConsumer::new("test").register(&pool)
        };
        let (one, two) = (reserve(&first), reserve(&second));
        one.try_grow(81).expect_err("more than its own");
        assert_eq!(first.exhausted(), Some(Exhausted::Own(80)));
        one.try_grow(80).expect("its own");
        two.try_grow(21).expect_err("more than is left");
        assert_eq!(second.exhausted(), Some(Exhausted::Shared(100)));
        assert_eq!((second.reserved(), shared.used()), (0, 80));
        drop(one);
        two.try_grow(21).expect("it was given back");
        drop(two);
        assert_eq!(shared.used(), 0);
    }
}
