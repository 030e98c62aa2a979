//! Turns conditions of a query into reads of keys and ranges of time; pure.
//!
//! DataFusion applies every condition again to what is read, so this may read
//! too much but never too little.

use std::collections::BTreeSet;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
use sanso_state::{Value, ValueType};
use sanso_view::{ColumnOrigin, View};

use crate::plan::Wanted;

/// More keys than this are read by a scan.
const KEYS_MAX: usize = 1_000;

/// What a condition says of one column.
#[derive(Clone, Debug, PartialEq)]
enum Condition {
    /// The key column has one of these values.
    Key(usize, Vec<Value>),
    /// The window starts in `[from, to)`.
    Start(i64, i64),
}

/// Says of each condition whether it narrows what is read.
pub(crate) fn pushed_down(view: &View, filters: &[&Expr]) -> Vec<TableProviderFilterPushDown> {
    let support = |filter: &&Expr| match condition(view, filter) {
        Some(_) => TableProviderFilterPushDown::Inexact,
        None => TableProviderFilterPushDown::Unsupported,
    };
    filters.iter().map(support).collect()
}

/// Returns what conditions that all hold leave to be read.
pub(crate) fn wanted(view: &View, filters: &[Expr]) -> Wanted {
    let mut wanted = Wanted::all();
    let mut keys: Vec<Option<Vec<Value>>> = vec![None; view.key_columns.len()];
    for condition in filters.iter().filter_map(|filter| condition(view, filter)) {
        match condition {
            Condition::Start(from, to) => {
                wanted.from = wanted.from.max(from);
                wanted.to = wanted.to.min(to);
            }
            Condition::Key(column, values) => {
                let kept = match keys[column].take() {
                    None => values,
                    Some(known) => known.into_iter().filter(|value| values.contains(value)).collect(),
                };
                keys[column] = Some(kept);
            }
        }
    }
    wanted.keys = keys.into_iter().collect::<Option<Vec<_>>>().and_then(|columns| combinations(&columns));
    wanted
}

/// Encodes every combination of the columns' values; None when there are too many.
fn combinations(columns: &[Vec<Value>]) -> Option<BTreeSet<Box<[u8]>>> {
    let count = columns.iter().try_fold(1_usize, |count, values| count.checked_mul(values.len()))?;
    if columns.is_empty() || count > KEYS_MAX {
        return None;
    }
    let mut keys: Vec<Vec<Value>> = vec![Vec::new()];
    for values in columns {
        let extend = |key: &Vec<Value>| {
            values
                .iter()
                .map(|value| key.iter().chain([value]).cloned().collect())
                .collect::<Vec<Vec<Value>>>()
        };
        keys = keys.iter().flat_map(extend).collect();
    }
    Some(keys.iter().map(|key| Value::encode_key(key)).collect())
}

fn condition(view: &View, filter: &Expr) -> Option<Condition> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            match (condition(view, left)?, condition(view, right)?) {
                (Condition::Key(a, mut values), Condition::Key(b, others)) if a == b => {
                    values.extend(others);
                    Some(Condition::Key(a, values))
                }
                _ => None,
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
            (Expr::Column(column), Expr::Literal(value, _)) => compared(view, &column.name, *op, value),
            (Expr::Literal(value, _), Expr::Column(column)) => {
                compared(view, &column.name, op.swap()?, value)
            }
            _ => None,
        },
        Expr::InList(InList { expr, list, negated: false }) => {
            let Expr::Column(column) = expr.as_ref() else { return None };
            let (key, value_type) = key(view, &column.name)?;
            let values = list.iter().map(|item| match item {
                Expr::Literal(value, _) => scalar(value, value_type),
                _ => None,
            });
            Some(Condition::Key(key, values.collect::<Option<_>>()?))
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let (Expr::Column(column), Expr::Literal(low, _), Expr::Literal(high, _)) =
                (expr.as_ref(), low.as_ref(), high.as_ref())
            else {
                return None;
            };
            let low = compared(view, &column.name, Operator::GtEq, low)?;
            let high = compared(view, &column.name, Operator::LtEq, high)?;
            match (low, high) {
                (Condition::Start(from, _), Condition::Start(_, to)) => Some(Condition::Start(from, to)),
                _ => None,
            }
        }
        _ => None,
    }
}

fn compared(view: &View, column: &str, op: Operator, value: &ScalarValue) -> Option<Condition> {
    if let Some((key, value_type)) = key(view, column) {
        return match op {
            Operator::Eq => Some(Condition::Key(key, vec![scalar(value, value_type)?])),
            _ => None,
        };
    }
    if origin(view, column)? != ColumnOrigin::WindowStart {
        return None;
    }
    let at = micros(value)?;
    let after = at.checked_add(1)?;
    Some(match op {
        Operator::Eq => Condition::Start(at, after),
        Operator::GtEq => Condition::Start(at, i64::MAX),
        Operator::Gt => Condition::Start(after, i64::MAX),
        Operator::Lt => Condition::Start(i64::MIN, at),
        Operator::LtEq => Condition::Start(i64::MIN, after),
        _ => return None,
    })
}

fn origin(view: &View, column: &str) -> Option<ColumnOrigin> {
    let index = view.output_schema().index_of(column).ok()?;
    view.column_origins().get(index).copied()
}

fn key(view: &View, column: &str) -> Option<(usize, ValueType)> {
    match origin(view, column)? {
        ColumnOrigin::Key(index) => Some((index, view.key_columns[index].1)),
        _ => None,
    }
}

/// Reads a literal as a value of a key column; only of the very same type.
fn scalar(value: &ScalarValue, value_type: ValueType) -> Option<Value> {
    Some(match (value_type, value) {
        (
            ValueType::Text,
            ScalarValue::Utf8(Some(text))
            | ScalarValue::LargeUtf8(Some(text))
            | ScalarValue::Utf8View(Some(text)),
        ) => Value::text(text.as_str()),
        (ValueType::Int, ScalarValue::Int64(Some(number))) => Value::Int(*number),
        (ValueType::Bool, ScalarValue::Boolean(Some(truth))) => Value::Bool(*truth),
        (ValueType::Date, ScalarValue::Date32(Some(days))) => Value::Date(*days),
        (ValueType::Timestamp, value) => Value::Timestamp(micros(value)?),
        _ => return None,
    })
}

fn micros(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::TimestampSecond(Some(at), _) => at.checked_mul(1_000_000),
        ScalarValue::TimestampMillisecond(Some(at), _) => at.checked_mul(1_000),
        ScalarValue::TimestampMicrosecond(Some(at), _) => Some(*at),
        ScalarValue::TimestampNanosecond(Some(at), _) if at % 1_000 == 0 => Some(at / 1_000),
        _ => None,
    }
}
