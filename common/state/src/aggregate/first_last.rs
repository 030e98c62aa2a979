//! `FIRST(x)` and `LAST(x)` by event time: the ends of a multiset of
//! [`Value::At`], whose order is time and then value. That also breaks ties:
//! of equal times, first takes the least value and last the greatest, whatever
//! the order of arrival. Nulls are not candidates.

use crate::aggregate::Multiset;
use crate::aggregate::extremes::{max, min};
use crate::value::Value;

/// See [`crate::AggregateKind::code_version`].
pub(crate) const CODE_VERSION: u32 = 1;

pub(crate) fn first(values: &Multiset<Value>) -> Value {
    without_time(min(values))
}

pub(crate) fn last(values: &Multiset<Value>) -> Value {
    without_time(max(values))
}

fn without_time(value: Value) -> Value {
    match value {
        Value::At(_, value) => *value,
        other => other,
    }
}
