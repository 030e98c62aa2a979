//! Rows on their way into groups, column by column.

use crate::group::{GroupId, home_of, scaled};
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

/// Grouping keys, by [`Value::encode_key`]. A key that several rows have one
/// after the other is kept once.
#[derive(Clone, Debug, Default)]
pub struct KeyColumn {
    bytes: Vec<u8>,
    runs: Vec<Run>,
    /// For each row, the index of its run.
    of: Vec<u32>,
}

/// A key of one or several rows.
#[derive(Clone, Copy, Debug)]
struct Run {
    end: usize,
    home: u64,
    hash: u32,
}

impl KeyColumn {
    /// Adds a row's key.
    pub fn push(&mut self, key: &[u8]) {
        if self.of.last().is_none_or(|&run| self.key(run as usize) != key) {
            self.bytes.extend_from_slice(key);
            self.runs.push(Run { end: self.bytes.len(), home: home_of(key), hash: hash_of(key) });
        }
        self.push_again();
    }

    /// Adds a row with the key of the row before.
    ///
    /// # Panics
    /// When there is none.
    pub fn push_again(&mut self) {
        let runs = u32::try_from(self.runs.len()).expect("fewer than 2^32 rows");
        self.of.push(runs.checked_sub(1).expect("a row before"));
    }

    fn key(&self, run: usize) -> &[u8] {
        let start = run.checked_sub(1).map_or(0, |before| self.runs[before].end);
        &self.bytes[start..self.runs[run].end]
    }

    /// Returns a row's key.
    pub fn get(&self, row: usize) -> &[u8] {
        self.key(self.of[row] as usize)
    }

    /// Returns which of `partitions` view partitions holds a row's key, as [`crate::partition_of`] it.
    pub fn partition(&self, row: usize, partitions: u32) -> u32 {
        scaled(self.runs[self.of[row] as usize].home, partitions)
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Says whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Returns a row's run: equal for rows one after the other that have one key.
    pub(crate) fn run(&self, row: usize) -> u32 {
        self.of[row]
    }

    pub(crate) fn hash(&self, row: usize) -> u32 {
        self.runs[self.of[row] as usize].hash
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
