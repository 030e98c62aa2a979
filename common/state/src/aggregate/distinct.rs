//! `COUNT(DISTINCT x)`: how many members the multiset of values has.

use crate::aggregate::Multiset;
use crate::value::Value;

/// See [`crate::AggregateKind::code_version`].
pub(crate) const CODE_VERSION: u32 = 1;

pub(crate) fn finish(values: &Multiset<Value>) -> Value {
    Value::Int(values.present().count() as i64)
}
