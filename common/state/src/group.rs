//! One group: its name and its state.

use crate::aggregate::{AggregateKind, AggregateState};
use crate::value::Value;

/// Names a group: the encoded grouping key (without the window) and the start
/// of its window in microseconds (0 for a view without windows).
///
/// Ordered by key and then window, so a range of time of one key is one range.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId {
    /// The grouping key, by [`Value::encode_key`].
    pub key: Box<[u8]>,
    /// The start of the window (for sliding windows: of the pane).
    pub window_start: i64,
}

/// Returns which of `partitions` view partitions holds a grouping key.
///
/// FNV-1a over words of 64 bits and the bytes after them, finished by the mixer
/// of SplitMix64 and scaled to the number of partitions: quick on short keys,
/// and fixed for ever, because published blocks are split by it.
///
/// # Panics
/// When `partitions` is zero.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    scaled(home_of(key), partitions)
}

/// Hashes a key for [`partition_of`].
pub(crate) fn home_of(key: &[u8]) -> u64 {
    let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    let (words, rest) = key.as_chunks::<8>();
    let hash = words.iter().fold(0xcbf2_9ce4_8422_2325, |hash, word| step(hash, u64::from_le_bytes(*word)));
    let mut hash = rest.iter().fold(hash, |hash, &byte| step(hash, byte.into()));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Scales a hash to the number of partitions.
#[inline]
pub(crate) fn scaled(home: u64, partitions: u32) -> u32 {
    assert!(partitions > 0, "a view has at least one partition");
    ((u128::from(home) * u128::from(partitions)) >> 64) as u32
}

/// The state of one group: a hidden row count and one state per aggregate.
///
/// A commutative group: [`GroupState::combine`] with [`GroupState::negated`]
/// as inverse. The row count may be negative until speed is combined with
/// batch; a window exists while the combination's row count is above zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// Rows added less rows retracted.
    pub rows: i64,
    /// One state for each aggregate of the view, in order.
    pub aggregates: Box<[AggregateState]>,
}

impl GroupState {
    /// Creates the neutral element for a list of aggregates.
    pub fn zero(kinds: &[AggregateKind]) -> Self {
        Self { rows: 0, aggregates: kinds.iter().map(AggregateKind::zero).collect() }
    }

    /// Adds (`sign` = 1) or retracts (`sign` = -1) one row, whose input to
    /// aggregate `i` is `inputs[i]`; `None` where its filter left the row out.
    pub fn update(&mut self, inputs: &[Option<Value>], sign: i64) {
        debug_assert_eq!(inputs.len(), self.aggregates.len());
        self.rows = self.rows.wrapping_add(sign);
        for (state, input) in self.aggregates.iter_mut().zip(inputs) {
            if let Some(value) = input {
                state.update(value, sign);
            }
        }
    }

    /// Adds another state of the same view.
    pub fn combine(&mut self, other: &GroupState) {
        debug_assert_eq!(self.aggregates.len(), other.aggregates.len());
        self.rows = self.rows.wrapping_add(other.rows);
        for (state, other) in self.aggregates.iter_mut().zip(&other.aggregates) {
            state.combine(other);
        }
    }

    /// Returns the inverse element.
    #[must_use]
    pub fn negated(&self) -> Self {
        Self {
            rows: self.rows.wrapping_neg(),
            aggregates: self.aggregates.iter().map(AggregateState::negated).collect(),
        }
    }

    /// Says whether this is the neutral element: rows, sums and multisets all zero.
    pub fn is_zero(&self) -> bool {
        self.rows == 0 && self.aggregates.iter().all(AggregateState::is_zero)
    }
}
