//! The windows of one grouping key.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

/// Slots by start of window. Many keys have one window ever, which is kept
/// without a tree; others have years of them, which come in any order.
#[derive(Clone, Debug, Default)]
pub(crate) enum Series {
    #[default]
    Empty,
    One(i64, u32),
    Many(BTreeMap<i64, u32>),
}

impl Series {
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(..) => 1,
            Self::Many(slots) => slots.len(),
        }
    }

    /// Returns the slot of a window; one not met before gets a `new` one.
    pub(crate) fn slot(&mut self, start: i64, new: impl FnOnce() -> u32) -> u32 {
        match self {
            Self::Empty => {
                let slot = new();
                *self = Self::One(start, slot);
                slot
            }
            Self::One(held, slot) if *held == start => *slot,
            Self::One(held, held_slot) => {
                let slot = new();
                *self = Self::Many(BTreeMap::from([(*held, *held_slot), (start, slot)]));
                slot
            }
            Self::Many(slots) => *slots.entry(start).or_insert_with(new),
        }
    }

    pub(crate) fn get(&self, start: i64) -> Option<u32> {
        match self {
            Self::Empty => None,
            Self::One(held, slot) => (*held == start).then_some(*slot),
            Self::Many(slots) => slots.get(&start).copied(),
        }
    }

    pub(crate) fn remove(&mut self, start: i64) -> Option<u32> {
        match self {
            Self::Many(slots) => slots.remove(&start),
            _ => {
                let slot = self.get(start)?;
                *self = Self::Empty;
                Some(slot)
            }
        }
    }

    /// Iterates starts and slots, ascending.
    ///
    /// # Panics
    /// When the range ends before it starts.
    pub(crate) fn range(&self, range: impl RangeBounds<i64>) -> impl Iterator<Item = (i64, u32)> {
        let (one, many) = match self {
            Self::Empty => (None, None),
            Self::One(start, slot) => (range.contains(start).then_some((*start, *slot)), None),
            Self::Many(slots) => (None, Some(slots.range(range))),
        };
        one.into_iter().chain(many.into_iter().flatten().map(|(start, slot)| (*start, *slot)))
    }
}
