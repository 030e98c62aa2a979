//! `QUANTILE(x, q)`: a sketch of bucket counts, within one percent.
//!
//! The sketch is DDSketch (Masson, Rim, Lee: "DDSketch: A Fast and
//! Fully-Mergeable Quantile Sketch with Relative-Error Guarantees", PVLDB
//! 12(12), 2019) with its linearly interpolated mapping: each power of two is
//! cut into 50 buckets of equal width, so the widest bucket spans a ratio of
//! 51/50, and `2·low·high / (low + high)` is off by at most
//! `(high − low) / (high + low) ≤ 1/101` of the true value.
//!
//! ```text
//!   |x|    2^e ─┬──┬──┬─ … ─┬─ 2^(e+1)
//!   bucket     50e  +1  +2   +49
//! ```
//!
//! Buckets are found with integers on the mantissa, never by a logarithm, so
//! every machine finds the same. No bucket is ever collapsed (that would not
//! be a group); 38 digits have at most 12,801 buckets. Counts are integers, so
//! a value is retracted by the bucket that took it.

use crate::aggregate::wide::power_of_ten;
use crate::aggregate::{Mergeable, Multiset};
use crate::codec::{DecodeError, Reader, write_i64};
use crate::value::Value;

/// See [`crate::AggregateKind::code_version`].
pub(crate) const CODE_VERSION: u32 = 1;

const BUCKETS_PER_OCTAVE: u64 = 50;

/// Counts of values by bucket. Bucket 0 holds zero; `±(50e + i + 1)` holds the
/// positive or negative values of `[2^e·(1 + i/50), 2^e·(1 + (i+1)/50))`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quantiles(Multiset<i16>);

impl Quantiles {
    /// Adds (`sign` = 1) or retracts (`sign` = -1) a value's mantissa.
    pub(crate) fn add(&mut self, mantissa: i128, sign: i64) {
        self.0.add(&bucket_of(mantissa), sign);
    }
}

impl Mergeable for Quantiles {
    fn update(&mut self, value: &Value, sign: i64) {
        if let Some(mantissa) = value.mantissa() {
            self.add(mantissa, sign);
        }
    }

    fn combine(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    fn negate(&mut self) {
        self.0.negate_counts();
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.0.write_with(out, |out, bucket| write_i64(out, i64::from(*bucket)));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let buckets = Multiset::read_with(reader, |reader| {
            let bucket = reader.i64()?;
            if bucket.unsigned_abs() > 128 * BUCKETS_PER_OCTAVE {
                return Err(reader.broken("a quantile bucket is out of range"));
            }
            Ok(bucket as i16)
        })?;
        Ok(Self(buckets))
    }
}

/// Takes the value of rank `floor(q·(n - 1))`, counted from zero.
pub(crate) fn finish(state: &Quantiles, per_million: u32, scale: i8) -> Value {
    let present = || state.0.iter().filter(|(_, count)| **count > 0);
    let count: i128 = present().map(|(_, count)| i128::from(*count)).sum();
    let mut rank = (count - 1) * i128::from(per_million) / 1_000_000;
    for (bucket, count) in present() {
        rank -= i128::from(*count);
        if rank < 0 {
            let unit = power_of_ten(u32::from(scale.unsigned_abs()));
            let middle = middle_of(*bucket);
            return Value::Float(if scale < 0 { middle * unit } else { middle / unit });
        }
    }
    Value::Null
}

fn bucket_of(mantissa: i128) -> i16 {
    const FRACTION_BITS: u32 = 57;
    let magnitude = mantissa.unsigned_abs();
    if magnitude == 0 {
        return 0;
    }
    let exponent = magnitude.ilog2();
    // The leading bit and 57 more: what is cut off moves a boundary by 2^-57.
    let scaled = match exponent.checked_sub(FRACTION_BITS) {
        Some(excess) => magnitude >> excess,
        None => magnitude << (FRACTION_BITS - exponent),
    } as u64;
    let fraction = scaled & ((1 << FRACTION_BITS) - 1);
    let within = (fraction * BUCKETS_PER_OCTAVE) >> FRACTION_BITS;
    let bucket = (u64::from(exponent) * BUCKETS_PER_OCTAVE + within + 1) as i16;
    if mantissa < 0 { -bucket } else { bucket }
}

fn middle_of(bucket: i16) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    let index = u64::from(bucket.unsigned_abs()) - 1;
    let power = f64::from_bits((1023 + index / BUCKETS_PER_OCTAVE) << 52);
    let low = BUCKETS_PER_OCTAVE + index % BUCKETS_PER_OCTAVE;
    let numerator = (2 * low * (low + 1)) as f64;
    let denominator = (BUCKETS_PER_OCTAVE * (2 * low + 1)) as f64;
    let middle = power * (numerator / denominator);
    if bucket < 0 { -middle } else { middle }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(crate::aggregate::same_cases())]

        #[test]
        fn a_bucket_is_within_one_percent_of_its_values(raw in any::<i128>(), shift in 0_u32..127) {
            let mantissa = raw >> shift;
            let middle = middle_of(bucket_of(mantissa));
            prop_assert!((middle - mantissa as f64).abs() <= mantissa.unsigned_abs() as f64 * 0.01);
        }

        #[test]
        fn buckets_are_in_the_order_of_values(a in any::<i128>(), b in any::<i128>(), shift in 0_u32..127) {
            let (a, b) = (a >> shift, b >> shift);
            prop_assert!(a > b || bucket_of(a) <= bucket_of(b));
        }
    }

    #[test]
    fn the_bounds_of_the_input_have_buckets() {
        for mantissa in [i128::MIN, i128::MIN + 1, -1, 0, 1, 2, i128::MAX] {
            let middle = middle_of(bucket_of(mantissa));
            assert!((middle - mantissa as f64).abs() <= (mantissa as f64).abs() * 0.01);
        }
    }
}
