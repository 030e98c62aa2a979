//! Views that follow from others of the same readings.
//!
//! ```text
//!   readings ──▶ load of transformers ──▶ load of feeders ──▶ load of substations
//!                                         rolled up: sums of sums
//! ```
//!
//! Where each group of a view consists of groups of another, it need not be lifted from the readings, which
//! are many times as many. Whether that is so is read off both definitions and the content of the reference
//! tables, which is part of a view's version: a transformer that hangs on two feeders is found, and then
//! both views are lifted. The order of views by what follows from what is that of V. Harinarayan,
//! A. Rajaraman and J. D. Ullman, "Implementing data cubes efficiently", SIGMOD 1996. What is merged is
//! exact, so the result is the same, byte for byte.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::Field;
use sanso_state::{AggregateKind, Coarser, Fingerprint, Groups, Value};

use crate::expression::{Expression, Failures};
use crate::join::blank;
use crate::plan::{Aggregate, Input};
use crate::rows::{encode_key, runs};
use crate::scalar::value_at;
use crate::view::{View, batch};
use crate::window::{CalendarUnit, Window};

/// How a view follows from a finer one.
#[derive(Debug)]
pub struct RollUp {
    keys: Vec<KeyPart>,
    by_table: ByTable,
    window: Window,
    kinds: Arc<[AggregateKind]>,
    /// For each aggregate, which of the finer view's it is.
    picked: Vec<usize>,
}

/// Where a column of the coarser key comes from.
#[derive(Clone, Copy, Debug)]
enum KeyPart {
    /// A column of the finer key.
    Same(usize),
    /// A column that a reference table gives.
    OfTable(usize),
}

/// What a reference table says of the columns of the finer key that are its own.
#[derive(Debug, Default)]
struct ByTable {
    /// Columns of the finer key.
    finer: Vec<usize>,
    /// For their encoded values, the columns that it gives.
    values: HashMap<Box<[u8]>, Vec<Value>>,
}

impl RollUp {
    /// Says how one view follows from another; none where it does not, or it is not seen that it does.
    pub fn of(coarser: &View, finer: &View) -> Option<Self> {
        let (plan, from) = (&coarser.plan, &finer.plan);
        let same_rows = coarser.source.definition() == finer.source.definition()
            && coarser.joins_as(finer)
            && plan.filter == from.filter;
        if !same_rows || !follows(&coarser.window, &finer.window) {
            return None;
        }
        if coarser.window.is_some() && plan.window_time != from.window_time {
            return None;
        }
        let picked =
            plan.aggregates.iter().map(|wanted| from.aggregates.iter().position(|a| same(a, wanted)));
        let picked = picked.collect::<Option<_>>()?;
        let (mut keys, mut given) = (Vec::new(), Vec::new());
        for key in &plan.keys {
            let held = from.keys.iter().position(|other| other.expression == key.expression);
            keys.push(held.map_or(KeyPart::OfTable(given.len()), KeyPart::Same));
            if held.is_none() {
                given.push(&key.expression);
            }
        }
        let by_table = ByTable::of(finer, &given)?;
        Some(Self {
            keys,
            by_table,
            window: coarser.window.clone(),
            kinds: Arc::clone(&coarser.kinds),
            picked,
        })
    }

    /// Adds the finer view's groups to the coarser view's, both by view partition.
    pub fn add(&self, finer: &[Groups], coarser: &mut [Groups]) {
        finer.iter().for_each(|groups| groups.roll_up(coarser, self));
    }
}

impl Coarser for RollUp {
    fn kinds(&self) -> &[AggregateKind] {
        &self.kinds
    }

    fn picked(&self) -> &[usize] {
        &self.picked
    }

    fn key(&self, key: &[u8]) -> Box<[u8]> {
        let finer = Value::decode_key(key).expect("a key that a view has made");
        let mut known = Vec::new();
        self.by_table.finer.iter().for_each(|&column| finer[column].encode_ordered(&mut known));
        let given = self.by_table.values.get(known.as_slice());
        let part = |part: &KeyPart| match part {
            KeyPart::Same(column) => finer[*column].clone(),
            KeyPart::OfTable(column) => given.expect("a row of the table was joined")[*column].clone(),
        };
        Value::encode_key(&self.keys.iter().map(part).collect::<Vec<_>>())
    }

    fn pane(&self, start: i64) -> i64 {
        self.window.pane_of(start)
    }
}

impl ByTable {
    /// Says how a table gives these expressions for what the finer view's key has of it; none where
    /// they are not all of one table, or it gives several values for the same.
    fn of(finer: &View, given: &[&Expression]) -> Option<Self> {
        let Some(first) = given.first() else { return Some(Self::default()) };
        let column = first.columns().next()?;
        let join = (0..finer.lookups.len()).find(|join| finer.columns_of(*join).contains(&column))?;
        let own = finer.columns_of(join);
        if !given.iter().all(|expression| is_of(expression, &own)) {
            return None;
        }
        let keys = finer.plan.keys.iter().enumerate().filter(|(_, key)| is_of(&key.expression, &own));
        let (known, held): (Vec<usize>, Vec<_>) = keys.map(|(at, key)| (at, &key.expression)).unzip();
        let (rows, table) = finer.table_alone(join);
        let mut failures = Failures::new();
        let mut evaluate = |expressions: &[&Expression]| -> Vec<ArrayRef> {
            expressions.iter().map(|expression| expression.evaluate(&table, &mut failures)).collect()
        };
        let (held, given) = (evaluate(&held), evaluate(given));
        if !failures.is_empty() {
            return None;
        }
        let all: Vec<ArrayRef> = held.iter().chain(&given).map(Arc::clone).collect();
        let mut values: HashMap<Box<[u8]>, Vec<Value>> = HashMap::new();
        let mut key = Vec::new();
        for row in runs(&all, rows).into_iter().map(|run| run.start) {
            encode_key(&held, row, &mut key);
            let gives = || given.iter().map(|column| value_at(column, row));
            match values.get(key.as_slice()) {
                Some(known) if !gives().eq(known.iter().cloned()) => return None,
                Some(_) => {}
                None => _ = values.insert(key.as_slice().into(), gives().collect()),
            }
        }
        Some(Self { finer: known, values })
    }
}

impl View {
    /// Says whether both join the same tables in the same way.
    fn joins_as(&self, other: &Self) -> bool {
        let tables = |view: &Self| -> Vec<Fingerprint> {
            view.lookups.iter().map(|lookup| lookup.table().fingerprint).collect()
        };
        self.plan.joins == other.plan.joins && tables(self) == tables(other)
    }

    /// Returns the columns of the joined row that a join adds.
    fn columns_of(&self, join: usize) -> Range<usize> {
        let joins = &self.plan.joins;
        let before = join.checked_sub(1).map(|before| joins[before].schema.fields().len());
        before.unwrap_or(self.source.columns.len())..joins[join].schema.fields().len()
    }

    /// Returns joined rows of which only a join's own columns are filled: each row of its table, and that
    /// without one, where a reading is kept that matches none.
    fn table_alone(&self, join: usize) -> (usize, RecordBatch) {
        let (own, table) = (self.columns_of(join), self.lookups[join].table());
        let unmatched = usize::from(self.plan.joins[join].outer);
        let rows = table.rows.num_rows() + unmatched;
        let schema = &self.plan.joins[join].schema;
        let column = |(at, field): (usize, &Arc<Field>)| match own.contains(&at) {
            true if unmatched == 0 => Arc::clone(table.rows.column(at - own.start)),
            true => {
                let column = table.rows.column(at - own.start);
                concat(&[column, &new_null_array(column.data_type(), unmatched)]).expect("of one type")
            }
            false => blank(field.data_type(), rows),
        };
        let columns = schema.fields().iter().enumerate().map(column).collect();
        (rows, batch(Arc::clone(schema), columns, rows))
    }
}

/// Says whether each pane of the finer windows lies within one of the coarser.
fn follows(coarser: &Window, finer: &Window) -> bool {
    use CalendarUnit::{Day, Month, Year};
    match (coarser, finer) {
        (Window::None, _) => true,
        (
            Window::Fixed { pane_us, origin_us, .. },
            Window::Fixed { pane_us: finer_us, origin_us: finer_origin_us, .. },
        ) => pane_us % finer_us == 0 && (origin_us - finer_origin_us) % finer_us == 0,
        (Window::Calendar { unit, zone }, Window::Calendar { unit: finer, zone: other }) => {
            zone == other && (unit == finer || *finer == Day || (*unit, *finer) == (Year, Month))
        }
        _ => false,
    }
}

/// Says whether two aggregates are the same.
fn same(a: &Aggregate, b: &Aggregate) -> bool {
    let input = match (&a.input, &b.input) {
        (Input::Row, Input::Row) => true,
        (Input::Value(a), Input::Value(b)) => a == b,
        _ => false,
    };
    a.kind == b.kind && input && a.filter == b.filter
}

/// Which views follow from which.
#[derive(Debug)]
pub struct RollUps {
    /// The views by their indexes, each after the one that it follows from.
    order: Vec<usize>,
    from: Vec<Option<(usize, RollUp)>>,
}

impl RollUps {
    /// Finds for each view the coarsest that it follows from.
    pub fn among(views: &[Arc<View>]) -> Self {
        let mut order: Vec<usize> = (0..views.len()).collect();
        if views.len() > 1 {
            order.sort_by_cached_key(|&view| views[view].coarseness());
        }
        let mut from: Vec<Option<(usize, RollUp)>> = views.iter().map(|_| None).collect();
        for (place, &view) in order.iter().enumerate() {
            let finer = |&finer: &usize| Some((finer, RollUp::of(&views[view], &views[finer])?));
            from[view] = order[..place].iter().rev().find_map(finer);
        }
        Self { order, from }
    }

    /// Iterates the views by their indexes, each after the one that it follows from, with that one and how.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Option<(usize, &RollUp)>)> {
        let from = |view: usize| self.from[view].as_ref().map(|(finer, how)| (*finer, how));
        self.order.iter().map(move |&view| (view, from(view)))
    }
}

/// Compares views: one that follows from another does not come before it, but where each follows from the other.
type Coarseness = (Reverse<u128>, i64, Reverse<usize>, Reverse<usize>);

impl View {
    fn coarseness(&self) -> Coarseness {
        // What the tables give to keys: fewer values to those of a coarser view.
        let joins = 0..self.lookups.len();
        let values = joins.map(|join| self.values_of(join) as u128).fold(1, u128::saturating_mul);
        let (aggregates, keys) = (self.kinds.len(), self.plan.keys.len());
        (Reverse(values), self.window.pane_about_us(), Reverse(aggregates), Reverse(keys))
    }

    /// Returns how many values a table gives to the columns of the key that are its own, at least 1.
    fn values_of(&self, join: usize) -> usize {
        let own = self.columns_of(join);
        let mut keys = self.plan.keys.iter().filter(|key| is_of(&key.expression, &own)).peekable();
        if keys.peek().is_none() {
            return 1;
        }
        let (rows, table) = self.table_alone(join);
        let columns: Vec<ArrayRef> =
            keys.map(|key| key.expression.evaluate(&table, &mut Failures::new())).collect();
        let (mut values, mut key) = (HashSet::new(), Vec::new());
        for run in runs(&columns, rows) {
            encode_key(&columns, run.start, &mut key);
            if !values.contains(key.as_slice()) {
                values.insert(Box::from(key.as_slice()));
            }
        }
        values.len().max(1)
    }
}

/// Says whether an expression is one of these columns alone.
fn is_of(expression: &Expression, own: &Range<usize>) -> bool {
    let mut columns = expression.columns().peekable();
    columns.peek().is_some() && columns.all(|column| own.contains(&column))
}
