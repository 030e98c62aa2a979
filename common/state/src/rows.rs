//! Rows on their way into groups, column by column.

use std::ops::Range;

use crate::group::{GroupId, home_of, scaled};
use crate::keys::{Key, KeyBytes, hash_of};
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
    /// For each run of rows with one key: the key, which view partition is its
    /// home, and its hash. They are read at different times.
    keys: Vec<Key>,
    homes: Vec<u64>,
    hashes: Vec<u32>,
    /// The bytes of long keys.
    long: Vec<u8>,
    /// For each row, the index of its run.
    of: Vec<u32>,
}

/// A group to find.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The key's [`hash_of`].
    pub(crate) hash: u32,
    /// The key, as [`Key::wanted`].
    pub(crate) key: Key,
    /// Where its bytes are if it is long.
    pub(crate) long: &'a [u8],
    /// The start of the window.
    pub(crate) window_start: i64,
}

impl<'a> Wanted<'a> {
    pub(crate) fn new(key: &'a [u8], window_start: i64) -> Self {
        Self { hash: hash_of(key), key: Key::of(key), long: key, window_start }
    }
}

impl KeyColumn {
    /// Adds the key of a row.
    pub fn push(&mut self, key: &[u8]) {
        self.push_times(key, 1);
    }

    /// Adds the key of so many rows, one after the other.
    ///
    /// # Panics
    /// When there are 2^32 keys.
    pub fn push_times(&mut self, key: &[u8], rows: usize) {
        let form = Key::of(key);
        if self.keys.last().is_none_or(|last| !last.is(&self.long, form, key)) {
            self.keys.push(form.at(self.long.len()));
            self.homes.push(home_of(key));
            self.hashes.push(hash_of(key));
            if form.is_long() {
                self.long.extend_from_slice(key);
            }
        }
        let run = u32::try_from(self.keys.len() - 1).expect("fewer than 2^32 rows");
        self.of.extend(std::iter::repeat_n(run, rows));
    }

    /// Returns a row's key.
    pub(crate) fn get(&self, row: usize) -> KeyBytes<'_> {
        self.keys[self.of[row] as usize].bytes(&self.long)
    }

    /// Returns a group of a row's key, to find it.
    pub(crate) fn wanted(&self, row: usize, window_start: i64) -> Wanted<'_> {
        let run = self.of[row] as usize;
        Wanted { hash: self.hashes[run], key: self.keys[run], long: &self.long, window_start }
    }

    /// Returns where the bytes of long keys are.
    pub(crate) fn long(&self) -> &[u8] {
        &self.long
    }

    /// Returns the ranges of rows with one key, each with which of `partitions` view partitions holds it, as
    /// [`crate::partition_of`] it.
    pub fn homes(&self, partitions: u32) -> impl Iterator<Item = (Range<u32>, u32)> + '_ {
        let mut start = 0;
        self.of.chunk_by(|a, b| a == b).map(move |run| {
            let rows = start..start + run.len() as u32;
            start = rows.end;
            (rows, scaled(self.homes[run[0] as usize], partitions))
        })
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Says whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}

/// What each row gives to one aggregate.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    /// To `COUNT`: whether it counts the row; absent, it counts all.
    Rows(Option<Vec<bool>>),
    /// To what computes with numbers: an integer, or a decimal's mantissa. None
    /// where it is null, or the aggregate's filter leaves the row out.
    Numbers(Numbers),
    /// To what keeps its values; none as with numbers.
    Values(Vec<Option<Value>>),
}

/// Numbers, any of which may be null. Collected from an iterator.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    values: Width,
    /// Which are not null; absent, none is.
    present: Option<Vec<bool>>,
    magnitude_max: u128,
}

/// The values, 0 where they are null. Those of readings fit 64 bits.
#[derive(Clone, Debug, PartialEq)]
enum Width {
    Narrow(Vec<i64>),
    Wide(Vec<i128>),
}

impl Numbers {
    /// Returns a row's number.
    pub fn get(&self, row: usize) -> Option<i128> {
        let value = match &self.values {
            Width::Narrow(values) => values[row].into(),
            Width::Wide(values) => values[row],
        };
        self.present.as_ref().is_none_or(|present| present[row]).then_some(value)
    }

    /// Takes numbers of which none is null.
    pub fn of(values: &[i128]) -> Self {
        let least = values.iter().copied().min().unwrap_or_default();
        let most = values.iter().copied().max().unwrap_or_default();
        let narrow = [least, most].iter().all(|number| i64::try_from(*number).is_ok());
        let magnitude_max = least.unsigned_abs().max(most.unsigned_abs());
        let values = match narrow {
            true => Width::Narrow(values.iter().map(|number| *number as i64).collect()),
            false => Width::Wide(values.to_vec()),
        };
        Self { values, present: None, magnitude_max }
    }

    /// Returns the numbers, if all have 64 bits and none is null.
    pub(crate) fn narrow(&self) -> Option<&[i64]> {
        match &self.values {
            Width::Narrow(values) if self.present.is_none() => Some(values),
            _ => None,
        }
    }

    /// Returns how far from zero the numbers are at most.
    pub(crate) fn magnitude_max(&self) -> u128 {
        self.magnitude_max
    }

    fn push(&mut self, number: Option<i128>) {
        let row = match &self.values {
            Width::Narrow(values) => values.len(),
            Width::Wide(values) => values.len(),
        };
        if number.is_none() {
            self.present.get_or_insert_with(|| vec![true; row]);
        }
        if let Some(present) = &mut self.present {
            present.push(number.is_some());
        }
        let number = number.unwrap_or_default();
        self.magnitude_max = self.magnitude_max.max(number.unsigned_abs());
        match (&mut self.values, i64::try_from(number)) {
            (Width::Narrow(values), Ok(number)) => values.push(number),
            (Width::Narrow(values), Err(_)) => {
                let wide = values.iter().copied().map(i128::from).chain([number]);
                self.values = Width::Wide(wide.collect());
            }
            (Width::Wide(values), _) => values.push(number),
        }
    }
}

impl FromIterator<Option<i128>> for Numbers {
    fn from_iter<I: IntoIterator<Item = Option<i128>>>(numbers: I) -> Self {
        let numbers = numbers.into_iter();
        let values = Width::Narrow(Vec::with_capacity(numbers.size_hint().0));
        let mut all = Self { values, present: None, magnitude_max: 0 };
        numbers.for_each(|number| all.push(number));
        all
    }
}

impl GroupedRows {
    /// Returns one row's group and inputs, as [`crate::GroupState::update`] takes them.
    pub fn row(&self, at: usize) -> (GroupId, Box<[Option<Value>]>) {
        let key = (*self.keys.get(at)).into();
        let input = |inputs: &Inputs| match inputs {
            Inputs::Rows(counted) => {
                counted.as_ref().is_none_or(|counted| counted[at]).then_some(Value::Int(1))
            }
            Inputs::Numbers(numbers) => numbers.get(at).map(Value::Decimal),
            Inputs::Values(values) => values[at].clone(),
        };
        (GroupId { key, window_start: self.windows[at] }, self.inputs.iter().map(input).collect())
    }

    /// Returns the group of a row, to find it.
    pub(crate) fn wanted(&self, row: usize) -> Wanted<'_> {
        self.keys.wanted(row, self.windows[row])
    }
}
