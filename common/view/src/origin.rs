//! Where the columns of a view's result come from, so that conditions on them
//! can become reads of keys and ranges of time.

use crate::plan::OutputExpression;
use crate::view::View;

/// Where a column of [`View::output_schema`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnOrigin {
    /// A key column as it is: an index into [`View::key_columns`].
    Key(usize),
    /// The window's start as it is.
    WindowStart,
    /// The window's end.
    WindowEnd,
    /// An aggregate, or computed from other columns.
    Computed,
}

impl View {
    /// Returns the origin of each column of [`View::output_schema`], in order.
    pub fn column_origins(&self) -> Vec<ColumnOrigin> {
        let keys = self.key_columns.len();
        let origin = |expression: &OutputExpression| match expression {
            OutputExpression::Finished(index) if *index < keys => ColumnOrigin::Key(*index),
            OutputExpression::Finished(index) if *index == keys && self.window.is_some() => {
                ColumnOrigin::WindowStart
            }
            OutputExpression::WindowEnd => ColumnOrigin::WindowEnd,
            OutputExpression::Finished(_) | OutputExpression::Computed(_) => ColumnOrigin::Computed,
        };
        self.plan.outputs.iter().map(|output| origin(&output.expression)).collect()
    }
}
