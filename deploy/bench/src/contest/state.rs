//! The product's own state for the contest's tuples: what a view lifts of them, and their totals.

use std::sync::Arc;

use sanso_state::{AggregateFunction, AggregateKind, GroupState, GroupedRows, Inputs, Value, ValueType};

use super::tuples::{Total, Tuple};

const VALUE: ValueType = ValueType::Decimal { precision: 18, scale: 6 };
/// The rows that a worker takes at a time.
pub(crate) const SPAN: usize = 8_192;

/// The view's aggregates: the sum and the number of rows.
pub(crate) fn kinds() -> anyhow::Result<Arc<[AggregateKind]>> {
    let kind = |function, input| AggregateKind::typed(function, input).map_err(anyhow::Error::msg);
    Ok([kind(AggregateFunction::Sum, Some(VALUE))?, kind(AggregateFunction::CountRows, None)?].into())
}

/// The keys as a view encodes them.
pub(crate) fn names(keys: u32) -> Vec<Box<[u8]>> {
    (0..keys).map(|key| Value::encode_key(&[Value::text(format!("meter-{key:08}"))])).collect()
}

/// Makes of tuples what a view lifts of readings.
pub(crate) fn lifted(span: &[Tuple], names: &[Box<[u8]>]) -> GroupedRows {
    let mut rows = GroupedRows { windows: vec![0; span.len()], ..GroupedRows::default() };
    span.iter().for_each(|tuple| rows.keys.push(&names[tuple.key as usize]));
    let values = span.iter().map(|tuple| Some(tuple.value.into())).collect();
    rows.inputs = vec![Inputs::Numbers(values), Inputs::Rows(None)];
    rows
}

/// Returns, for each of so many partitions, the rows whose keys are its own.
pub(crate) fn chosen(rows: &GroupedRows, partitions: u32) -> Vec<Vec<u32>> {
    let mut chosen = vec![Vec::with_capacity(rows.windows.len()); partitions as usize];
    rows.keys.homes(partitions).for_each(|(rows, home)| chosen[home as usize].extend(rows));
    chosen
}

/// Reads what a group has come to; none where it has no rows.
pub(crate) fn total(kinds: &[AggregateKind], state: Option<&GroupState>) -> anyhow::Result<Total> {
    let Some(state) = state else { return Ok(Total::default()) };
    match kinds[0].finish(&state.aggregates[0]) {
        Value::Decimal(sum) => Ok(Total { sum, count: state.rows }),
        other => anyhow::bail!("a sum is {other:?}"),
    }
}
