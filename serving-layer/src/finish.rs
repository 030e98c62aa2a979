//! Finishes groups into rows, away from the threads that answer requests when there are many.

use std::sync::Arc;

use arrow::array::RecordBatch;
use axum::http::StatusCode;
use sanso_state::{GroupId, GroupState};
use sanso_view::{ColumnOrigin, FinishError, View};

use crate::problem::Problem;

/// More groups than this are finished on a blocking thread.
const GROUPS_INLINE_MAX: usize = 1_000;

/// Finishes the windows with `from <= start < to` into rows, in order of key and window.
pub(crate) async fn finish(
    view: &Arc<View>,
    groups: Vec<(GroupId, GroupState)>,
    from: i64,
    to: i64,
) -> Result<RecordBatch, Problem> {
    if groups.len() <= GROUPS_INLINE_MAX {
        return view.finish_range(&groups, from, to).map_err(|error| problem(&error));
    }
    let view = Arc::clone(view);
    let finished = tokio::task::spawn_blocking(move || view.finish_range(&groups, from, to)).await;
    let finished = finished.map_err(|error| Problem::internal("finish the groups", error))?;
    finished.map_err(|error| problem(&error))
}

fn problem(error: &FinishError) -> Problem {
    match error {
        FinishError::Output { .. } => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "output-failed", "A column could not be computed")
                .detail(error.to_string())
                .hint("mend the view's SQL (NULLIF guards a division), or ask for a range without the row")
        }
        FinishError::Key { .. } => Problem::internal("finish the groups", error),
    }
}

/// Returns the name of the column with the window's start.
pub(crate) fn window_column(view: &View) -> Option<String> {
    let at = view.column_origins().iter().position(|origin| *origin == ColumnOrigin::WindowStart)?;
    Some(view.output_schema().field(at).name().clone())
}
