//! What is written, and what therefore must be there: a pure function of key and sequence.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::history::Key;

/// Returns the energy of a reading in millionths of a kWh. Neighbours differ.
pub fn value_micro(key: Key, sequence: u32) -> u64 {
    1_000_000 + (u64::from(key) * 7_919 + u64::from(sequence) * 104_729) % 1_000_000
}

/// A reading as it was found in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// How often it counts.
    pub count: u64,
    /// Its energy in millionths of a kWh, all occurrences together.
    pub value_micro: u64,
}

/// Everything that was found in the end, by key and sequence.
pub type Audit = BTreeMap<(Key, u32), Found>;
