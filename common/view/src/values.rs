//! The rows of a view one after the other, as values: for who writes each as it comes, and has no use
//! for columns. They say what [`View::finish_range`] says.

use sanso_state::{GroupId, GroupState, Value, ValueType};

use crate::error::FinishError;
use crate::plan::OutputExpression;
use crate::scalar::is_of_type;
use crate::view::View;

/// Finishes groups, each into a row.
#[derive(Debug)]
pub struct RowFinisher<'a> {
    view: &'a View,
    cells: Vec<Cell>,
    from: i64,
    to: i64,
    /// The encoded key of the last row; its values are still in the row.
    key: Option<Box<[u8]>>,
    row: Vec<Value>,
}

/// Where a column's values come from.
#[derive(Clone, Copy, Debug)]
enum Cell {
    Key(usize),
    WindowStart,
    WindowEnd,
    Aggregate(usize),
}

impl View {
    /// Returns what finishes the windows with `from <= start < to` one after the other. None where one
    /// group is not one row, as in sliding windows, or where a column is computed from others.
    pub fn row_finisher(&self, from: i64, to: i64) -> Option<RowFinisher<'_>> {
        if self.window.is_sliding() {
            return None;
        }
        let keys = self.key_columns.len();
        let aggregates = keys + usize::from(self.window.is_some());
        let cell = |expression: &OutputExpression| match expression {
            OutputExpression::Finished(index) if *index < keys => Some(Cell::Key(*index)),
            OutputExpression::Finished(index) if *index < aggregates => Some(Cell::WindowStart),
            OutputExpression::Finished(index) => Some(Cell::Aggregate(index - aggregates)),
            OutputExpression::WindowEnd => Some(Cell::WindowEnd),
            OutputExpression::Computed(_) => None,
        };
        let cells: Vec<_> =
            self.plan.outputs.iter().map(|output| cell(&output.expression)).collect::<Option<_>>()?;
        let row = vec![Value::Null; cells.len()];
        Some(RowFinisher { view: self, cells, from, to, key: None, row })
    }

    /// Says whether a window is one of those with `from <= start < to`; without windows, all are.
    pub(crate) fn is_inside(&self, start: i64, from: i64, to: i64) -> bool {
        !self.window.is_some() || from <= start && (start < to || to == i64::MAX)
    }
}

impl RowFinisher<'_> {
    /// Returns the types of the columns, those of [`View::output_schema`].
    pub fn types(&self) -> impl Iterator<Item = ValueType> {
        self.cells.iter().map(|cell| match *cell {
            Cell::Key(index) => self.view.key_columns[index].1,
            Cell::WindowStart | Cell::WindowEnd => ValueType::Timestamp,
            Cell::Aggregate(index) => self.view.kinds[index].result_type(),
        })
    }

    /// Finishes a group; none when it has no rows, or its window is not wanted.
    pub fn finish(&mut self, id: &GroupId, state: &GroupState) -> Result<Option<&[Value]>, FinishError> {
        if state.rows <= 0 || !self.view.is_inside(id.window_start, self.from, self.to) {
            return Ok(None);
        }
        // A range of time has many windows of few keys.
        if self.key.as_ref() != Some(&id.key) {
            self.begin_key(&id.key)?;
        }
        for (cell, value) in self.cells.iter().zip(&mut self.row) {
            match *cell {
                Cell::Key(_) => {}
                Cell::WindowStart => *value = Value::Timestamp(id.window_start),
                Cell::WindowEnd => *value = Value::Timestamp(self.view.window.end_of(id.window_start)),
                Cell::Aggregate(index) => *value = self.view.kinds[index].finish(&state.aggregates[index]),
            }
        }
        Ok(Some(&self.row))
    }

    fn begin_key(&mut self, key: &[u8]) -> Result<(), FinishError> {
        let foreign = |message: String| FinishError::Key { view: self.view.name.clone(), message };
        let values = Value::decode_key(key).map_err(|error| foreign(error.to_string()))?;
        let columns = &self.view.key_columns;
        let fits = values.len() == columns.len()
            && values.iter().zip(columns).all(|(value, (_, value_type))| is_of_type(value, *value_type));
        if !fits {
            return Err(foreign(format!("{} columns of other types", values.len())));
        }
        for (cell, value) in self.cells.iter().zip(&mut self.row) {
            if let Cell::Key(index) = *cell {
                value.clone_from(&values[index]);
            }
        }
        self.key = Some(key.into());
        Ok(())
    }
}
