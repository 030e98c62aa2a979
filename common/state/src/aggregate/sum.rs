//! `SUM(x)`: a scaled integer modulo 2^128, and how many values it is of.
//!
//! Wrapping addition is a group, so an order of updates that overflows on the
//! way still ends at the true sum whenever that fits.

use crate::aggregate::{Mergeable, Words};
use crate::codec::{DecodeError, Reader, write_i64, write_i128};
use crate::value::{Value, ValueType};

/// See [`crate::AggregateKind::code_version`].
pub(crate) const CODE_VERSION: u32 = 1;

/// A sum and the number of values in it; also the state of `AVG`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// The sum of the mantissas, wrapping.
    pub sum: i128,
    /// The number of values that are not null.
    pub count: i64,
}

impl Sum {
    /// Adds (`sign` = 1) or retracts (`sign` = -1) a value's mantissa.
    pub(crate) fn add(&mut self, mantissa: i128, sign: i64) {
        self.sum = self.sum.wrapping_add(mantissa.wrapping_mul(sign.into()));
        self.count = self.count.wrapping_add(sign);
    }
}

impl Mergeable for Sum {
    fn update(&mut self, value: &Value, sign: i64) {
        if let Some(mantissa) = value.mantissa() {
            self.add(mantissa, sign);
        }
    }

    fn combine(&mut self, other: &Self) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.count = self.count.wrapping_add(other.count);
    }

    fn negate(&mut self) {
        self.sum = self.sum.wrapping_neg();
        self.count = self.count.wrapping_neg();
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_i64(out, self.count);
        write_i128(out, self.sum);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { count: reader.i64()?, sum: reader.i128()? })
    }
}

impl Words for Sum {
    const WORDS: usize = 3;
    const NARROW: usize = 1;

    fn load(words: &[u64]) -> Self {
        let sum = u128::from(words[1]) << 64 | u128::from(words[0]);
        Self { sum: sum.cast_signed(), count: words[2].cast_signed() }
    }

    fn store(&self, words: &mut [u64]) {
        words[0] = self.sum as u64;
        words[1] = (self.sum >> 64) as u64;
        words[2] = self.count.cast_unsigned();
    }

    fn load_narrow(rows: i64, words: &[u64]) -> Self {
        Self { sum: words[0].cast_signed().into(), count: rows }
    }

    fn narrowed(&self, rows: i64) -> Option<i128> {
        (self.count == rows).then_some(self.sum)
    }
}

/// All 38 digits, so that no sum of an admitted input overflows its column.
pub(crate) fn result_type((_, scale): (u8, i8)) -> ValueType {
    ValueType::Decimal { precision: 38, scale }
}

pub(crate) fn finish(state: &Sum) -> Value {
    if state.count == 0 { Value::Null } else { Value::Decimal(state.sum) }
}
