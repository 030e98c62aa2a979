//! Joins with reference tables: a hash index over the table, probed by batches.

use std::iter::repeat_n;
use std::sync::{Arc, LazyLock, Mutex};

use arrow::array::{
    Array, ArrayData, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, make_array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use hashbrown::HashMap;

use crate::expression::{Expression, Failures};
use crate::rows::{key_of, runs};
use crate::table::{ByKey, Table};

/// A join with one reference table.
#[derive(Clone, Debug)]
pub(crate) struct JoinPlan {
    /// The table's name.
    pub(crate) table: String,
    /// Whether readings without a match are kept.
    pub(crate) outer: bool,
    /// Pairs of an expression over what comes before and a column of the table.
    pub(crate) keys: Vec<(Expression, usize)>,
    /// What else the ON clause demands, over the joined row.
    pub(crate) residual: Option<Expression>,
    /// The joined row's columns.
    pub(crate) schema: SchemaRef,
    /// The ON clause as written.
    pub(crate) text: String,
}

/// Equal when they join the same, however they are written.
impl PartialEq for JoinPlan {
    fn eq(&self, other: &Self) -> bool {
        let Self { table, outer, keys, residual, schema: _, text: _ } = self;
        (table, outer, keys, residual) == (&other.table, &other.outer, &other.keys, &other.residual)
    }
}

/// Rows on their way through a view, each knowing the reading it came from.
pub(crate) struct Rows {
    pub(crate) batch: RecordBatch,
    pub(crate) origin: Vec<usize>,
}

/// A table's rows by the columns a join compares.
#[derive(Debug)]
pub(crate) struct Lookup {
    table: Arc<Table>,
    by_key: Arc<ByKey>,
}

impl Lookup {
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn new(plan: &JoinPlan, table: Arc<Table>) -> Self {
        let columns: Vec<usize> = plan.keys.iter().map(|(_, column)| *column).collect();
        let by_key = table.by_key(&columns);
        Self { table, by_key }
    }

    /// Joins rows with the table. A row that matches several table rows
    /// becomes several, in the order of the table's file.
    ///
    /// Failures name readings (origins), not joined rows.
    ///
    /// `read` says which columns are read later; the others are left blank.
    pub(crate) fn join(&self, plan: &JoinPlan, rows: Rows, read: &[bool], failures: &mut Failures) -> Rows {
        let mut failed = Failures::new();
        let keys: Vec<ArrayRef> =
            plan.keys.iter().map(|(key, _)| key.evaluate(&rows.batch, &mut failed)).collect();
        let rows_count = rows.batch.num_rows();
        let (mut left, mut right) = (Vec::with_capacity(rows_count), Vec::with_capacity(rows_count));
        let mut buffer = Vec::new();
        for run in runs(&keys, rows_count) {
            let key = key_of(&keys, run.start, &mut buffer);
            let matches = key.and_then(|key| self.by_key.get(key)).map_or(&[][..], Vec::as_slice);
            if let [one] = matches {
                left.extend(run.start as u32..run.end as u32);
                right.extend(repeat_n(*one, run.len()));
                continue;
            }
            for row in run {
                left.extend(matches.iter().map(|_| row as u32));
                right.extend_from_slice(matches);
            }
        }
        failures.extend(failed.drain(..).map(|(row, why)| (rows.origin[row], why)));
        if let Some(residual) = &plan.residual {
            let joined = self.combine(plan, &rows.batch, &left, &right.clone().into(), read);
            let keep = residual.holds(&joined, &mut failed);
            failures.extend(failed.drain(..).map(|(row, why)| (rows.origin[left[row] as usize], why)));
            retain(&mut left, &keep);
            retain(&mut right, &keep);
        }
        let right = match plan.outer {
            true => with_unmatched(rows_count, &mut left, &right),
            false => right.into(),
        };
        let batch = self.combine(plan, &rows.batch, &left, &right, read);
        let origin = match each_once(&left, rows_count) {
            true => rows.origin,
            false => left.iter().map(|row| rows.origin[*row as usize]).collect(),
        };
        Rows { batch, origin }
    }

    fn combine(
        &self,
        plan: &JoinPlan,
        rows: &RecordBatch,
        left: &[u32],
        right: &UInt32Array,
        read: &[bool],
    ) -> RecordBatch {
        let pick = |columns: &[ArrayRef], indexes: &UInt32Array, read: &[bool]| -> Vec<ArrayRef> {
            let picked = columns.iter().zip(read).map(|(column, read)| match read {
                true => take(column, indexes, None).expect("indexes lie within the batch"),
                false => blank(column.data_type(), indexes.len()),
            });
            picked.collect()
        };
        let (read_left, read_right) = read.split_at(rows.num_columns());
        let mut columns = match each_once(left, rows.num_rows()) {
            true => rows.columns().to_vec(),
            false => pick(rows.columns(), &UInt32Array::from(left.to_vec()), read_left),
        };
        columns.extend(pick(self.table.rows.columns(), right, read_right));
        let options = RecordBatchOptions::new().with_row_count(Some(left.len()));
        RecordBatch::try_new_with_options(Arc::clone(&plan.schema), columns, &options)
            .expect("the plan's schema is the columns of both sides")
    }
}

/// Says whether these are all rows, in order: mostly each has one match, and its columns stay as they are.
fn each_once(left: &[u32], rows: usize) -> bool {
    left.len() == rows && (0..).zip(left).all(|(row, left)| row == *left)
}

/// Rows of blank columns that are kept.
const BLANKS_MAX: usize = 1 << 16;

/// Makes a column that nobody reads: zeros, or empty text, and no null, which
/// its schema might not admit. Of each type one is kept for all.
pub(crate) fn blank(data_type: &DataType, rows: usize) -> ArrayRef {
    static KEPT: LazyLock<Mutex<HashMap<DataType, ArrayRef>>> = LazyLock::new(Mutex::default);
    let make = |rows| {
        let nulls = ArrayData::new_null(data_type, rows);
        make_array(nulls.into_builder().nulls(None).build().expect("zeros are of every type"))
    };
    if rows > BLANKS_MAX {
        return make(rows);
    }
    let mut kept = KEPT.lock().expect("no panic while it is held");
    match kept.get(data_type) {
        Some(blank) => blank.slice(0, rows),
        None => kept.entry(data_type.clone()).insert(make(BLANKS_MAX)).get().slice(0, rows),
    }
}

fn retain<T: Copy>(items: &mut Vec<T>, keep: &BooleanArray) {
    let mut row = 0;
    items.retain(|_| {
        row += 1;
        keep.value(row - 1)
    });
}

/// Adds each row that matched nothing, without a table row, in its place.
fn with_unmatched(rows: usize, left: &mut Vec<u32>, right: &[u32]) -> UInt32Array {
    let matched = std::mem::take(left);
    let mut pairs = matched.iter().zip(right).peekable();
    let (mut all_left, mut all_right) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    for row in 0..rows as u32 {
        let mut matched = false;
        while let Some((_, table_row)) = pairs.next_if(|(left, _)| **left == row) {
            all_left.push(row);
            all_right.push(Some(*table_row));
            matched = true;
        }
        if !matched {
            all_left.push(row);
            all_right.push(None);
        }
    }
    *left = all_left;
    all_right.into()
}
