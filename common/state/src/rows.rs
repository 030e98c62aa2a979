//! Rows on their way into groups, column by column.

use crate::group::GroupId;
use crate::keys::hash_of;
use crate::value::Value;

/// Rows that know their groups and what each aggregate takes of them.
#[derive(Clone, Debug, Default)]
pub struct GroupedRows {
    /// For each row, its grouping key.
    pub keys: KeyColumn,
    /// For each row, the start of its window, in microseconds.
    pub windows: Vec<i64>,
    /// For each aggregate of the view, its inputs.
    pub inputs: Vec<Inputs>,
}

/// Grouping keys, by [`Value::encode_key`], one after the other.
#[derive(Clone, Debug, Default)]
pub struct KeyColumn {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    hashes: Vec<u64>,
}

impl KeyColumn {
    /// Adds a row's key.
    pub fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
        self.hashes.push(hash_of(key));
    }

    /// Returns a row's key.
    pub fn get(&self, row: usize) -> &[u8] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[row]]
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Says whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(crate) fn hash(&self, row: usize) -> u64 {
        self.hashes[row]
    }
}

/// What each row gives to one aggregate.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    /// To `COUNT`: whether it counts the row; absent, it counts all.
    Rows(Option<Vec<bool>>),
    /// To what computes with numbers: an integer, or a decimal's mantissa. None
    /// where it is null, or the aggregate's filter leaves the row out.
    Numbers(Vec<Option<i128>>),
    /// To what keeps its values; none as with numbers.
    Values(Vec<Option<Value>>),
}

impl GroupedRows {
    /// Returns one row's group and inputs, as [`crate::GroupState::update`] takes them.
    pub fn row(&self, at: usize) -> (GroupId, Box<[Option<Value>]>) {
        let key = self.keys.get(at).into();
        let input = |inputs: &Inputs| match inputs {
            Inputs::Rows(counted) => {
                counted.as_ref().is_none_or(|counted| counted[at]).then_some(Value::Int(1))
            }
            Inputs::Numbers(numbers) => numbers[at].map(Value::Decimal),
            Inputs::Values(values) => values[at].clone(),
        };
        (GroupId { key, window_start: self.windows[at] }, self.inputs.iter().map(input).collect())
    }
}
