//! The board of limits: every bound on memory in this process, with what is used of it now.
//!
//! Whoever enforces a bound registers it here in one line, with a closure that
//! tells its current use. `GET /v1/limits`, the metrics and `sanso limits` read it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use serde::Serialize;

/// One bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its name: layer, dot, what it bounds.
    pub name: &'static str,
    /// What is counted: `bytes`, `requests`, …
    pub unit: &'static str,
    /// The most there may be; of a bound that varies, at first.
    pub max: u64,
    /// The setting it comes from; empty where it is fixed or set elsewhere.
    pub setting: &'static str,
    /// What happens when it is reached.
    pub then: &'static str,
}

/// A bound and its use, as read at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LimitUse {
    /// The name.
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// The use, over all parts.
    pub used: u64,
    /// The bound, over all parts.
    pub max: u64,
    /// How many things have this bound each, such as log partitions.
    pub parts: u64,
    /// The use of the fullest part in percent of its bound, rounded up.
    pub fullest_percent: u64,
    /// The setting; empty where there is none.
    pub setting: &'static str,
    /// What happens when it is reached.
    pub then: &'static str,
}

type Read = Box<dyn Fn() -> (u64, u64) + Send + Sync>;

#[derive(Default)]
struct Board {
    next: u64,
    limits: BTreeMap<u64, (Limit, Read)>,
}

/// All bounds of this process. Clones share them.
#[derive(Clone, Default)]
pub struct Limits(Arc<RwLock<Board>>);

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.read()).finish()
    }
}

impl Limits {
    /// Registers a bound until what is returned is dropped. `used` tells the
    /// current use; it must be quick and must not register anything.
    #[must_use = "the limit is shown while this lives"]
    pub fn register(&self, limit: Limit, used: impl Fn() -> u64 + Send + Sync + 'static) -> Registered {
        self.register_varying(limit, move || (used(), limit.max))
    }

    /// Registers as [`Limits::register`] does a bound that grows with what it
    /// bounds; `read` tells the current use and the current bound.
    #[must_use = "the limit is shown while this lives"]
    pub fn register_varying(
        &self,
        limit: Limit,
        read: impl Fn() -> (u64, u64) + Send + Sync + 'static,
    ) -> Registered {
        let mut board = self.0.write();
        let id = board.next;
        board.next += 1;
        board.limits.insert(id, (limit, Box::new(read)));
        Registered { limits: self.clone(), id }
    }

    /// Registers a bound whose use is told through a gauge.
    pub fn gauge(&self, limit: Limit) -> LimitGauge {
        let used = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&used);
        LimitGauge { used, _registered: self.register(limit, move || read.load(Ordering::Relaxed)) }
    }

    /// Reads all bounds in order of name; those registered under one name are one entry.
    pub fn read(&self) -> Vec<LimitUse> {
        let mut out: BTreeMap<&str, LimitUse> = BTreeMap::new();
        for (limit, read) in self.0.read().limits.values() {
            let (used, max) = read();
            let percent = percent(used, max);
            let entry = out.entry(limit.name).or_insert(LimitUse {
                name: limit.name,
                unit: limit.unit,
                used: 0,
                max: 0,
                parts: 0,
                fullest_percent: 0,
                setting: limit.setting,
                then: limit.then,
            });
            entry.used = entry.used.saturating_add(used);
            entry.max = entry.max.saturating_add(max);
            entry.parts += 1;
            entry.fullest_percent = entry.fullest_percent.max(percent);
        }
        out.into_values().collect()
    }
}

/// Returns the share in percent, rounded up so that a full one never looks less.
fn percent(used: u64, max: u64) -> u64 {
    if max == 0 {
        return if used == 0 { 0 } else { 100 };
    }
    let percent = (u128::from(used) * 100).div_ceil(u128::from(max));
    u64::try_from(percent).unwrap_or(u64::MAX)
}

/// A registered bound; dropping it takes the bound off the board.
pub struct Registered {
    limits: Limits,
    id: u64,
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registered").field(&self.id).finish()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let removed = self.limits.0.write().limits.remove(&self.id);
        // Dropped only now: the closure may hold the last of something that registered itself.
        drop(removed);
    }
}

/// A registered bound with the use last told.
#[derive(Debug)]
pub struct LimitGauge {
    used: Arc<AtomicU64>,
    _registered: Registered,
}

impl LimitGauge {
    /// Tells the current use.
    pub fn set(&self, used: u64) {
        self.used.store(used, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(name: &'static str, max: u64) -> Limit {
        Limit { name, unit: "records", max, setting: "", then: "the producer waits" }
    }

    #[test]
    fn a_limit_is_shown_with_its_use_while_its_owner_lives() {
        let limits = Limits::default();
        let gauge = limits.gauge(limit("queue", 10));
        gauge.set(7);
        let read = limits.read();
        assert_eq!((read[0].name, read[0].used, read[0].max, read[0].parts), ("queue", 7, 10, 1));
        drop(gauge);
        assert_eq!(limits.read(), []);
    }

    #[test]
    fn parts_of_one_name_are_added_and_the_fullest_is_told() {
        let limits = Limits::default();
        let _parts = [limits.gauge(limit("queue", 10)), limits.gauge(limit("queue", 10))];
        _parts[1].set(9);
        let read = limits.read();
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].used, read[0].max, read[0].parts, read[0].fullest_percent), (9, 20, 2, 90));
    }

    #[test]
    fn a_share_is_rounded_up_and_never_overflows() {
        assert_eq!(percent(1, 1000), 1);
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(3, 0), 100);
        assert_eq!(percent(u64::MAX, 1), u64::MAX);
    }
}
