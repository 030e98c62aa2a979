//! `COUNT(*)` and `COUNT(x)`: a number of rows.

use crate::aggregate::{Mergeable, Words};
use crate::codec::{DecodeError, Reader, write_i64};
use crate::value::Value;

/// See [`crate::AggregateKind::code_version`].
pub(crate) const CODE_VERSION: u32 = 1;

/// The number of rows that passed the aggregate's filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows(pub i64);

/// The number of rows whose value is not null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count(pub i64);

impl Rows {
    /// Adds (`sign` = 1) or retracts (`sign` = -1) a row.
    pub(crate) fn add(&mut self, sign: i64) {
        self.0 = self.0.wrapping_add(sign);
    }
}

impl Mergeable for Rows {
    fn update(&mut self, _: &Value, sign: i64) {
        self.add(sign);
    }

    fn combine(&mut self, other: &Self) {
        self.0 = self.0.wrapping_add(other.0);
    }

    fn negate(&mut self) {
        self.0 = self.0.wrapping_neg();
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_i64(out, self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(reader.i64()?))
    }
}

impl Words for Rows {
    const WORDS: usize = 1;
    const NARROW: usize = 0;

    fn load(words: &[u64]) -> Self {
        Self(words[0].cast_signed())
    }

    fn store(&self, words: &mut [u64]) {
        words[0] = self.0.cast_unsigned();
    }

    fn load_narrow(rows: i64, _: &[u64]) -> Self {
        Self(rows)
    }

    fn narrowed(&self, rows: i64) -> Option<i128> {
        (self.0 == rows).then_some(0)
    }
}

impl Count {
    /// Adds (`sign` = 1) or retracts (`sign` = -1) a row.
    pub(crate) fn add(&mut self, sign: i64) {
        self.0 = self.0.wrapping_add(sign);
    }
}

impl Mergeable for Count {
    fn update(&mut self, value: &Value, sign: i64) {
        if !value.is_null() {
            self.add(sign);
        }
    }

    fn combine(&mut self, other: &Self) {
        self.0 = self.0.wrapping_add(other.0);
    }

    fn negate(&mut self) {
        self.0 = self.0.wrapping_neg();
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_i64(out, self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(reader.i64()?))
    }
}

impl Words for Count {
    const WORDS: usize = 1;
    const NARROW: usize = 0;

    fn load(words: &[u64]) -> Self {
        Self(words[0].cast_signed())
    }

    fn store(&self, words: &mut [u64]) {
        words[0] = self.0.cast_unsigned();
    }

    fn load_narrow(rows: i64, _: &[u64]) -> Self {
        Self(rows)
    }

    fn narrowed(&self, rows: i64) -> Option<i128> {
        (self.0 == rows).then_some(0)
    }
}
