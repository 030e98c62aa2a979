//! `AVG(x)`: finished from the state of `SUM(x)`, in decimal.
//!
//! The result has four digits after the input's last (at most 38 in all),
//! rounded half away from zero: one number on every machine, unlike a float.

use crate::aggregate::Sum;
use crate::value::{Value, ValueType};

/// See [`crate::AggregateKind::code_version`].
pub(crate) const CODE_VERSION: u32 = 1;

const EXTRA_DIGITS: u8 = 4;
const FACTOR: i128 = 10_000;

pub(crate) fn result_type((precision, scale): (u8, i8)) -> ValueType {
    ValueType::Decimal { precision: (precision + EXTRA_DIGITS).min(38), scale: scale + EXTRA_DIGITS as i8 }
}

pub(crate) fn finish(state: &Sum) -> Value {
    if state.count == 0 {
        return Value::Null;
    }
    let count = i128::from(state.count);
    // Whole part and remainder apart, so that a sum of 38 digits does not overflow.
    let whole = state.sum.wrapping_div(count);
    let rest = state.sum.wrapping_rem(count) * FACTOR;
    let (digits, rest) = (rest / count, rest % count);
    let up = if 2 * rest.abs() >= count.abs() { rest.signum() * count.signum() } else { 0 };
    Value::Decimal(whole.wrapping_mul(FACTOR).wrapping_add(digits + up))
}
