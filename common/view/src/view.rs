//! A view: the one definition both layers run.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{filter_record_batch, take};
use arrow::datatypes::{DataType, Decimal128Type, Field, Int64Type, SchemaRef, TimestampMicrosecondType};
use sanso_state::{
    AggregateKind, Fingerprint, GroupId, GroupState, GroupedRows, Inputs, KeyColumn, Numbers, StorageLevel,
    Takes, Value, ValueType, ViewPartitionConfig, Windows, partition_of,
};

use crate::definition::ViewDefinition;
use crate::error::{FinishError, KeyError};
use crate::expression::Failures;
use crate::join::{Lookup, Rows, blank};
use crate::plan::{Aggregate, Input, OutputExpression, Plan};
use crate::rows::{encode_key, runs};
use crate::scalar::{ColumnBuilder, parse_text, value_at};
use crate::source::Source;
use crate::table::{Table, overlaps};
use crate::window::Window;

/// The version of the code that turns rows into groups and inputs. It enters
/// every view's fingerprint: whoever changes what [`View::lift`] returns, by
/// a change here or in an upgraded DataFusion, or which view partition holds a
/// key, increments it.
const LIFT_VERSION: u32 = 2;

/// A view ready to run.
#[derive(Debug)]
pub struct View {
    /// The name in SQL.
    pub name: String,
    /// The version: of its SQL, source, reference tables, time-zone data,
    /// aggregates and our own code.
    pub fingerprint: Fingerprint,
    /// The source.
    pub source: Arc<Source>,
    /// The aggregates.
    pub kinds: Arc<[AggregateKind]>,
    /// The grouping key's columns, without the window.
    pub key_columns: Vec<(String, ValueType)>,
    /// The window.
    pub window: Window,
    /// The topic closed windows are written to.
    pub output_topic: Option<String>,
    /// The number of view partitions.
    pub partitions: u32,
    /// Where nodes keep the view's groups: any level but none. No part of the version, as it changes no answer.
    pub storage: StorageLevel,
    /// What the reference tables' content makes doubtful, for people.
    pub warnings: Vec<String>,
    pub(crate) plan: Arc<Plan>,
    /// The SELECT, as parsed.
    pub sql: String,
    pub(crate) lookups: Vec<Lookup>,
    /// Which columns of the joined row are read.
    columns_read: Vec<bool>,
}

/// What a batch of rows adds to a view.
#[derive(Clone, Debug, Default)]
pub struct Lifted {
    /// The rows with their groups and inputs, in the order of the batch's rows.
    /// A row that matches several rows of a reference table is there several
    /// times; one that failed is there, and is not to be taken.
    pub grouped: GroupedRows,
    /// For each of them, the index of the batch's row.
    origin: Vec<usize>,
    /// The rows an expression failed on (overflow, division by zero), in
    /// order, with the reason. They contribute nothing.
    pub errors: Vec<(usize, String)>,
}

/// A row that contributes to a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiftedRow {
    /// Its index in [`Lifted::grouped`].
    pub at: u32,
    /// The index of the row of the batch that it comes of.
    pub row: usize,
}

impl Lifted {
    /// Iterates the rows that contribute, in order.
    pub fn rows(&self) -> impl Iterator<Item = LiftedRow> {
        let all = (0_u32..).zip(&self.origin).map(|(at, &row)| LiftedRow { at, row });
        all.filter(move |lifted| self.errors.is_empty() || !self.has_failed(lifted.row))
    }

    /// Returns the rows that contribute, as indexes in [`Lifted::grouped`], by the view partition that holds their group.
    pub fn by_view_partition(&self, partitions: u32) -> Vec<Vec<u32>> {
        let mut all = vec![Vec::new(); partitions as usize];
        for (rows, home) in self.grouped.keys.homes(partitions) {
            let all = &mut all[home as usize];
            match self.errors.is_empty() {
                true => all.extend(rows),
                false => all.extend(rows.filter(|&at| !self.has_failed(self.row(at)))),
            }
        }
        all
    }

    /// Returns the index of the row of the batch that a row of [`Lifted::grouped`] comes of.
    pub fn row(&self, at: u32) -> usize {
        self.origin[at as usize]
    }

    fn has_failed(&self, row: usize) -> bool {
        self.errors.binary_search_by_key(&row, |(row, _)| *row).is_ok()
    }
}

impl View {
    pub(crate) fn new(definition: &ViewDefinition, tables: Vec<Arc<Table>>) -> Self {
        let plan = Arc::clone(&definition.plan);
        let kinds: Arc<[AggregateKind]> = plan.aggregates.iter().map(|a| a.kind).collect();
        let mut fingerprint = Fingerprint::builder()
            .part("view")
            .part(LIFT_VERSION.to_le_bytes())
            .part(&definition.name)
            .part(plan.source.definition())
            .part(&plan.canonical)
            .part(definition.partitions.to_le_bytes());
        if matches!(plan.window, Window::Calendar { .. }) {
            fingerprint = fingerprint.part(chrono_tz::IANA_TZDB_VERSION);
        }
        for table in &tables {
            fingerprint = fingerprint.part(table.fingerprint.as_bytes());
        }
        for kind in kinds.iter() {
            fingerprint = fingerprint.part(kind.code_version().to_le_bytes());
        }
        let key_columns = plan.keys.iter().map(|k| (k.name.clone(), k.expression.value_type));
        Self {
            name: definition.name.clone(),
            fingerprint: fingerprint.finish(),
            source: Arc::clone(&plan.source),
            kinds,
            key_columns: key_columns.collect(),
            window: plan.window.clone(),
            output_topic: definition.output_topic.clone(),
            partitions: definition.partitions,
            storage: definition.storage,
            warnings: definition.warnings(&tables),
            sql: definition.sql.clone(),
            columns_read: plan.columns_read(),
            lookups: plan.joins.iter().zip(tables).map(|(join, table)| Lookup::new(join, table)).collect(),
            plan,
        }
    }

    /// Computes what rows of the source add to the view. Pure, and each row
    /// by itself: lifting a batch is lifting its rows one after the other.
    pub fn lift(&self, rows: &RecordBatch) -> Lifted {
        let columns: Vec<ArrayRef> =
            self.source_columns().map(|column| Arc::clone(rows.column(column))).collect();
        self.lift_columns(&columns, rows.num_rows())
    }

    /// Returns which of the source's columns the view reads, ascending.
    pub fn source_columns(&self) -> impl Iterator<Item = usize> {
        (0..self.source.columns.len()).filter(|column| self.columns_read[*column])
    }

    /// Lifts rows of which only the columns of [`View::source_columns`] are there.
    ///
    /// # Panics
    /// When these are others.
    pub fn lift_columns(&self, columns: &[ArrayRef], rows: usize) -> Lifted {
        let mut failures = Failures::new();
        let mut joined = Rows { batch: self.widened(columns, rows), origin: (0..rows).collect() };
        for (join, lookup) in self.plan.joins.iter().zip(&self.lookups) {
            let width = join.schema.fields().len();
            joined = lookup.join(join, joined, &self.columns_read[..width], &mut failures);
        }
        if let Some(filter) = &self.plan.filter {
            let mut failed = Failures::new();
            let keep = filter.holds(&joined.batch, &mut failed);
            by_origin(failed, &joined.origin, &mut failures);
            joined = filtered(&joined, &keep);
        }
        let mut failed = Failures::new();
        let keys: Vec<ArrayRef> =
            self.plan.keys.iter().map(|key| key.expression.evaluate(&joined.batch, &mut failed)).collect();
        let panes = self.panes(&joined.batch, &mut failed);
        let inputs = self.plan.aggregates.iter();
        let inputs = inputs.map(|aggregate| self.inputs(aggregate, &joined.batch, &mut failed)).collect();
        by_origin(failed, &joined.origin, &mut failures);
        Lifted {
            grouped: GroupedRows { keys: key_column(&keys, joined.batch.num_rows()), windows: panes, inputs },
            origin: joined.origin,
            errors: first_of_each(failures),
        }
    }

    /// Puts columns into their places among the source's; the others are blank.
    fn widened(&self, columns: &[ArrayRef], rows: usize) -> RecordBatch {
        let schema = self.source.schema();
        let mut there = columns.iter();
        let place = |(at, field): (usize, &Arc<Field>)| match self.columns_read[at] {
            true => Arc::clone(there.next().expect("a column for each that is read")),
            false => blank(field.data_type(), rows),
        };
        let columns = schema.fields().iter().enumerate().map(place).collect();
        batch(schema, columns, rows)
    }

    /// Returns the start of each row's pane; 0 without windows.
    fn panes(&self, batch: &RecordBatch, failures: &mut Failures) -> Vec<i64> {
        let Some(time) = &self.plan.window_time else {
            return vec![0; batch.num_rows()];
        };
        let times = time.evaluate(batch, failures);
        let times = times.as_primitive::<TimestampMicrosecondType>();
        // A local day may be left out.
        let follow = matches!(self.window, Window::Fixed { .. });
        let start = times.values().first().map_or(0, |&first| self.window.pane_of(first));
        let mut current: Range<i64> = start..self.window.pane_end(start);
        (0..batch.num_rows())
            .map(|row| {
                if times.is_null(row) {
                    failures.push((row, format!("the window's time {} is null", time.text)));
                    return 0;
                }
                let at = times.value(row);
                // Neighbours in time mostly share a pane or follow each other, and a pane is dear to find.
                if follow && !current.contains(&at) {
                    current = current.end..self.window.pane_end(current.end);
                }
                if !current.contains(&at) {
                    let start = self.window.pane_of(at);
                    current = start..self.window.pane_end(start);
                }
                current.start
            })
            .collect()
    }

    /// Evaluates an aggregate's argument on the rows its filter admits, so
    /// that the filter may keep rows away that would fail.
    fn inputs(&self, aggregate: &Aggregate, batch: &RecordBatch, failures: &mut Failures) -> Inputs {
        let admitted = aggregate.filter.as_ref().map(|filter| filter.holds(batch, failures));
        let Input::Value(value) = &aggregate.input else {
            return Inputs::Rows(admitted.map(|admitted| admitted.values().iter().collect()));
        };
        let values = match &admitted {
            None => value.evaluate(batch, failures),
            Some(admitted) => {
                let some = filter_record_batch(batch, admitted).expect("one flag for each row");
                let mut failed = Failures::new();
                let values = value.evaluate(&some, &mut failed);
                let rows: Vec<usize> = admitted.values().set_indices().collect();
                by_origin(failed, &rows, failures);
                spread(&values, admitted)
            }
        };
        match aggregate.kind.takes() {
            Takes::Rows => Inputs::Rows(Some((0..values.len()).map(|row| values.is_valid(row)).collect())),
            Takes::Numbers => Inputs::Numbers(numbers(&values)),
            Takes::Values if aggregate.kind.needs_event_time() => {
                let times = batch.column(self.source.event_time_column);
                let times = times.as_primitive::<TimestampMicrosecondType>();
                let at = |row| values.is_valid(row).then(|| Box::new(value_at(&values, row)));
                let timed = |row| at(row).map(|value| Value::At(times.value(row), value));
                Inputs::Values((0..values.len()).map(timed).collect())
            }
            Takes::Values => {
                let at = |row| values.is_valid(row).then(|| value_at(&values, row));
                Inputs::Values((0..values.len()).map(at).collect())
            }
        }
    }

    /// Returns the view partition that holds a grouping key.
    pub fn partition_of(&self, key: &[u8]) -> u32 {
        partition_of(key, self.partitions)
    }

    /// Returns the reference tables that it joins.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.plan.joins.iter().map(|join| join.table.as_str())
    }

    /// Returns what the view's partitions need to know.
    pub fn partition_config(&self) -> ViewPartitionConfig {
        ViewPartitionConfig {
            view: self.fingerprint,
            kinds: Arc::clone(&self.kinds),
            segments: self.source.segments(),
        }
    }

    /// Encodes a grouping key given as text, one part for each key column.
    pub fn encode_key(&self, parts: &[&str]) -> Result<Box<[u8]>, KeyError> {
        if parts.len() != self.key_columns.len() {
            let columns: Vec<_> = self.key_columns.iter().map(|(name, _)| name.as_str()).collect();
            return Err(KeyError::Count {
                given: parts.len(),
                expected: self.key_columns.len(),
                columns: columns.join(", "),
            });
        }
        let mut values = Vec::with_capacity(parts.len());
        for (part, (name, value_type)) in parts.iter().zip(&self.key_columns) {
            let value = parse_text(part, *value_type)
                .map_err(|message| KeyError::Part { column: name.clone(), message })?;
            values.push(value);
        }
        Ok(Value::encode_key(&values))
    }

    /// Encodes a grouping key given as JSON by column, as closed windows have it; none when the view
    /// groups by other columns.
    pub fn key_of_json(&self, key: &BTreeMap<String, serde_json::Value>) -> Option<Box<[u8]>> {
        use serde_json::Value as Json;
        if key.len() != self.key_columns.len() {
            return None;
        }
        let part = |(name, value_type): &(String, ValueType)| match (key.get(name)?, value_type) {
            (Json::Null, _) => Some(Value::Null),
            (Json::Bool(value), ValueType::Bool) => Some(Value::Bool(*value)),
            (Json::Number(number), ValueType::Int | ValueType::Decimal { .. }) => {
                parse_text(&number.to_string(), *value_type).ok()
            }
            (Json::String(text), ValueType::Text | ValueType::Timestamp | ValueType::Date) => {
                parse_text(text, *value_type).ok()
            }
            _ => None,
        };
        let parts: Option<Vec<Value>> = self.key_columns.iter().map(part).collect();
        parts.map(|parts| Value::encode_key(&parts))
    }

    /// Returns the schema of [`View::finish`]: the columns of the SELECT list,
    /// then with windows the window's start, if it is not among them, and
    /// `window_end`.
    pub fn output_schema(&self) -> SchemaRef {
        Arc::clone(&self.plan.output_schema)
    }

    /// Returns which panes `[from, to)` windows with `from <= start < to` need.
    pub fn pane_range(&self, from: i64, to: i64) -> (i64, i64) {
        self.window.pane_range(from, to)
    }

    /// Finishes groups into rows, in order of key and window. Panes are
    /// combined into windows; every window that has a row is finished, also
    /// those at the ends whose other panes were not given: see
    /// [`View::finish_range`].
    pub fn finish(&self, groups: &[(GroupId, GroupState)]) -> Result<RecordBatch, FinishError> {
        self.finish_range(groups, i64::MIN, i64::MAX)
    }

    /// Finishes the windows with `from <= start < to`, out of the panes of
    /// [`View::pane_range`]. A view without windows is finished whole.
    pub fn finish_range(
        &self,
        groups: &[(GroupId, GroupState)],
        from: i64,
        to: i64,
    ) -> Result<RecordBatch, FinishError> {
        let inside = |start: i64| self.is_inside(start, from, to);
        if !self.window.is_sliding() {
            return self.finish_some(groups.iter().filter(|(id, _)| inside(id.window_start)));
        }
        let mut windows: BTreeMap<GroupId, GroupState> = Default::default();
        for (id, state) in groups {
            for (start, _) in self.window.windows_of(id.window_start) {
                if !inside(start) {
                    continue;
                }
                let window = GroupId { key: id.key.clone(), window_start: start };
                match windows.get_mut(&window) {
                    Some(combined) => combined.combine(state),
                    None => {
                        windows.insert(window, state.clone());
                    }
                }
            }
        }
        let windows: Vec<_> = windows.into_iter().collect();
        self.finish_windows(&windows)
    }

    /// Finishes states that are of whole windows already, as emissions of
    /// closed windows are. Groups without rows are left out.
    pub fn finish_windows(&self, windows: &[(GroupId, GroupState)]) -> Result<RecordBatch, FinishError> {
        self.finish_some(windows.iter())
    }

    fn finish_some<'a>(
        &self,
        windows: impl Iterator<Item = &'a (GroupId, GroupState)>,
    ) -> Result<RecordBatch, FinishError> {
        let mut windows: Vec<_> = windows.filter(|(_, state)| state.rows > 0).collect();
        windows.sort_by(|a, b| a.0.cmp(&b.0));
        let finished = self.finished(&windows)?;
        let mut columns = Vec::with_capacity(self.plan.outputs.len());
        for output in &self.plan.outputs {
            let column = match &output.expression {
                OutputExpression::Finished(index) => Arc::clone(finished.column(*index)),
                OutputExpression::Computed(expression) => {
                    let mut failures = Failures::new();
                    let column = expression.evaluate(&finished, &mut failures);
                    if let Some((_, message)) = failures.into_iter().next() {
                        return Err(FinishError::Output {
                            view: self.name.clone(),
                            column: output.name.clone(),
                            message,
                        });
                    }
                    column
                }
                OutputExpression::WindowEnd => {
                    let mut builder = ColumnBuilder::new(ValueType::Timestamp, windows.len());
                    for (id, _) in &windows {
                        builder.append(&Value::Timestamp(self.window.end_of(id.window_start)));
                    }
                    builder.finish()
                }
            };
            columns.push(column);
        }
        Ok(batch(self.output_schema(), columns, windows.len()))
    }

    /// Builds the finished columns: keys, the window's start, aggregates.
    fn finished(&self, windows: &[&(GroupId, GroupState)]) -> Result<RecordBatch, FinishError> {
        let foreign = |message: String| FinishError::Key { view: self.name.clone(), message };
        let types = self.key_columns.iter().map(|(_, value_type)| *value_type);
        let mut keys: Vec<_> = types.map(|t| ColumnBuilder::new(t, windows.len())).collect();
        let mut starts = ColumnBuilder::new(ValueType::Timestamp, windows.len());
        let mut aggregates: Vec<_> =
            self.kinds.iter().map(|kind| ColumnBuilder::new(kind.result_type(), windows.len())).collect();
        let (mut values, mut key) = (Vec::new(), None);
        for (id, state) in windows {
            // A range of time has many windows of few keys.
            if key.replace(&id.key) != Some(&id.key) {
                values = Value::decode_key(&id.key).map_err(|error| foreign(error.to_string()))?;
            }
            let fits = values.len() == keys.len()
                && keys.iter_mut().zip(&values).fold(true, |fits, (key, value)| key.append(value) && fits);
            if !fits {
                return Err(foreign(format!("{} columns of other types", values.len())));
            }
            starts.append(&Value::Timestamp(id.window_start));
            for ((column, kind), state) in aggregates.iter_mut().zip(self.kinds.iter()).zip(&state.aggregates)
            {
                let fits = column.append(&kind.finish(state));
                assert!(fits, "{kind:?} finishes as its result type");
            }
        }
        let mut columns: Vec<_> = keys.iter_mut().map(ColumnBuilder::finish).collect();
        if self.window.is_some() {
            columns.push(starts.finish());
        }
        columns.extend(aggregates.iter_mut().map(ColumnBuilder::finish));
        Ok(batch(Arc::clone(&self.plan.finished_schema), columns, windows.len()))
    }
}

impl ViewDefinition {
    fn warnings(&self, tables: &[Arc<Table>]) -> Vec<String> {
        let joins = tables.iter().zip(&self.plan.validity).zip(&self.plan.join_definitions);
        joins
            .flat_map(|((table, (key, validity)), definition)| overlaps(definition, table, key, *validity))
            .collect()
    }
}

/// Encodes the grouping keys of rows.
fn key_column(columns: &[ArrayRef], rows: usize) -> KeyColumn {
    let mut keys = KeyColumn::default();
    let mut key = Vec::with_capacity(64);
    for run in runs(columns, rows) {
        encode_key(columns, run.start, &mut key);
        keys.push_times(&key, run.len());
    }
    keys
}

/// Puts the values of the admitted rows back into their places; the others are null.
fn spread(values: &ArrayRef, admitted: &BooleanArray) -> ArrayRef {
    let mut next = 0_u32..;
    let place = |admitted| if admitted { next.next() } else { None };
    let places: UInt32Array = admitted.values().iter().map(place).collect();
    take(values, &places, None).expect("a place for each admitted row")
}

/// Reads numbers: integers, or the mantissas of decimals.
fn numbers(values: &ArrayRef) -> Numbers {
    match values.data_type() {
        DataType::Int64 => values.as_primitive::<Int64Type>().iter().map(|v| v.map(i128::from)).collect(),
        DataType::Decimal128(_, _) if values.null_count() == 0 => {
            Numbers::of(values.as_primitive::<Decimal128Type>().values())
        }
        DataType::Decimal128(_, _) => values.as_primitive::<Decimal128Type>().iter().collect(),
        other => unreachable!("an aggregate over numbers was typed, not over {other}"),
    }
}

/// Keeps the rows where a predicate holds.
fn filtered(rows: &Rows, keep: &BooleanArray) -> Rows {
    let batch = filter_record_batch(&rows.batch, keep).expect("one flag for each row");
    let origin = rows.origin.iter().zip(keep.values()).filter(|(_, keep)| *keep).map(|(row, _)| *row);
    Rows { batch, origin: origin.collect() }
}

/// Says of which readings the failing rows are.
fn by_origin(failed: Failures, origin: &[usize], failures: &mut Failures) {
    failures.extend(failed.into_iter().map(|(row, why)| (origin[row], why)));
}

/// Keeps the first reason of each row, in order of rows.
fn first_of_each(mut failures: Failures) -> Failures {
    failures.sort_by_key(|(row, _)| *row);
    failures.dedup_by_key(|(row, _)| *row);
    failures
}

pub(crate) fn batch(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options)
        .expect("the plan's schema is of the columns' types")
}
