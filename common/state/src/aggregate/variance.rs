//! Variance and standard deviation: exact sums of the values and squares.
//!
//! With `n` values, `n·Σx² − (Σx)²` is computed exactly in 256 bits (values of
//! 28 digits and 10^10 rows fit) and only then turned into a float, by
//! correctly rounded operations alone; so nothing cancels, and the result does
//! not depend on the order of the rows or on the machine.

use crate::aggregate::wide::{Wide, power_of_ten};
use crate::aggregate::{Mergeable, Sum, Words};
use crate::codec::{DecodeError, Reader, write_i64, write_i128};
use crate::value::Value;

/// See [`crate::AggregateKind::code_version`].
pub(crate) const CODE_VERSION: u32 = 1;

/// The zeroth, first and second moments of a set of scaled integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    count: i64,
    sum: i128,
    squares: Wide,
}

impl Moments {
    /// Adds (`sign` = 1) or retracts (`sign` = -1) a value's mantissa.
    pub(crate) fn add(&mut self, mantissa: i128, sign: i64) {
        let square = Wide::square(mantissa).times(sign.unsigned_abs());
        self.count = self.count.wrapping_add(sign);
        self.sum = self.sum.wrapping_add(mantissa.wrapping_mul(sign.into()));
        self.squares = self.squares.add(if sign < 0 { square.negated() } else { square });
    }
}

impl Mergeable for Moments {
    fn update(&mut self, value: &Value, sign: i64) {
        if let Some(mantissa) = value.mantissa() {
            self.add(mantissa, sign);
        }
    }

    fn combine(&mut self, other: &Self) {
        self.count = self.count.wrapping_add(other.count);
        self.sum = self.sum.wrapping_add(other.sum);
        self.squares = self.squares.add(other.squares);
    }

    fn negate(&mut self) {
        self.count = self.count.wrapping_neg();
        self.sum = self.sum.wrapping_neg();
        self.squares = self.squares.negated();
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_i64(out, self.count);
        write_i128(out, self.sum);
        out.extend(self.squares.to_le_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { count: reader.i64()?, sum: reader.i128()?, squares: Wide::from_le_bytes(reader.array()?) })
    }
}

impl Words for Moments {
    const WORDS: usize = Sum::WORDS + Wide::WORDS;

    fn load(words: &[u64]) -> Self {
        let Sum { sum, count } = Sum::load(words);
        Self { count, sum, squares: Wide::from_words(&words[Sum::WORDS..]) }
    }

    fn store(&self, words: &mut [u64]) {
        Sum { sum: self.sum, count: self.count }.store(words);
        words[Sum::WORDS..Self::WORDS].copy_from_slice(&self.squares.to_words());
    }
}

/// Null over no value, and for the sample variance over a single one.
pub(crate) fn variance(state: &Moments, population: bool, scale: i8) -> Value {
    exact(state, population, scale).map_or(Value::Null, Value::Float)
}

/// The square root, correctly rounded, of [`variance`].
pub(crate) fn standard_deviation(state: &Moments, population: bool, scale: i8) -> Value {
    exact(state, population, scale).map_or(Value::Null, |v| Value::Float(v.sqrt()))
}

fn exact(state: &Moments, population: bool, scale: i8) -> Option<f64> {
    let count = u64::try_from(state.count).ok()?;
    let divisor = if population { count } else { count.saturating_sub(1) };
    if divisor == 0 {
        return None;
    }
    let spread = state.squares.times(count).add(Wide::square(state.sum).negated());
    let mantissas = spread.to_f64() / (u128::from(count) * u128::from(divisor)) as f64;
    let unit = power_of_ten(2 * u32::from(scale.unsigned_abs()));
    Some(if scale < 0 { mantissas * unit } else { mantissas / unit })
}
