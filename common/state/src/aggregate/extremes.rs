//! `MIN(x)` and `MAX(x)`: the ends of the multiset of values.
//!
//! All values are kept: the next extreme must be known when one is retracted.

use crate::aggregate::Multiset;
use crate::value::Value;

/// See [`crate::AggregateKind::code_version`].
pub(crate) const CODE_VERSION: u32 = 1;

pub(crate) fn min(values: &Multiset<Value>) -> Value {
    values.present().next().cloned().unwrap_or(Value::Null)
}

pub(crate) fn max(values: &Multiset<Value>) -> Value {
    values.present().next_back().cloned().unwrap_or(Value::Null)
}
