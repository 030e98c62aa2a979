//! Finishes groups into the rows of an answer, away from the threads that answer requests when there are many.
//!
//! ```text
//!   groups ──┬─ each a row as it is ───────────▶ JSON
//!            └─ columns ─▶ ordered ─▶ bounded ─▶ written later, as JSON or Arrow
//! ```
//!
//! Both ways write the same bytes. Columns are for what takes all rows at once: an order, what is
//! computed from other columns, windows of several panes, and Arrow.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take_record_batch};
use arrow::error::ArrowError;
use axum::http::StatusCode;
use sanso_state::{GroupId, GroupState, ValueType};
use sanso_view::{ColumnOrigin, FinishError, RowFinisher, View};

use crate::json::push_value;
use crate::problem::Problem;
use crate::render::{RowWriter, Shape, names};
use crate::routes::options::Format;
use crate::sql::{answer_too_large, size_of};

/// More groups than this are finished on a blocking thread.
const GROUPS_INLINE_MAX: usize = 1_000;
/// About the bytes of a cell in JSON, and the most that are asked for before they are needed.
const CELL_BYTES: usize = 16;
const BYTES_AHEAD_MAX: usize = 1 << 20;

/// Which rows are asked for, and how.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The first window start, in microseconds, and the first no longer asked for.
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// Another order than that of key and window.
    pub(crate) order: Option<Order>,
    /// The most rows, and the most bytes that they may take.
    pub(crate) rows_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) format: Format,
}

/// How rows are ordered and how many are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) column: usize,
    pub(crate) descending: bool,
    pub(crate) top: Option<usize>,
}

/// The rows of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Rows {
    /// As one JSON array.
    Written(Vec<u8>),
    /// As columns, to be written like this.
    Columns(Vec<RecordBatch>, Format),
}

/// The rows that were asked for.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) rows: Rows,
    /// Whether rows beyond the most were left out.
    pub(crate) truncated: bool,
}

/// Finishes groups, which are in order of key and window.
pub(crate) async fn finish(
    view: &Arc<View>,
    groups: Vec<(GroupId, GroupState)>,
    asked: Asked,
) -> Result<Finished, Problem> {
    if groups.len() <= GROUPS_INLINE_MAX {
        return finish_here(view, &groups, &asked);
    }
    let view = Arc::clone(view);
    elsewhere(move || finish_here(&view, &groups, &asked)).await
}

/// Finishes the windows with `from <= start < to` into columns, in order of key and window.
pub(crate) async fn columns(
    view: &Arc<View>,
    groups: Vec<(GroupId, GroupState)>,
    from: i64,
    to: i64,
) -> Result<RecordBatch, Problem> {
    if groups.len() <= GROUPS_INLINE_MAX {
        return view.finish_range(&groups, from, to).map_err(|error| problem(&error));
    }
    let view = Arc::clone(view);
    elsewhere(move || view.finish_range(&groups, from, to).map_err(|error| problem(&error))).await
}

async fn elsewhere<T: Send + 'static>(
    finish: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let finished = tokio::task::spawn_blocking(finish).await;
    finished.map_err(|error| Problem::internal("finish the groups", error))?
}

fn finish_here(view: &View, groups: &[(GroupId, GroupState)], asked: &Asked) -> Result<Finished, Problem> {
    if let (Format::Json(shape), None) = (asked.format, &asked.order)
        && let Some(finisher) = view.row_finisher(asked.from, asked.to)
    {
        return written(view, finisher, groups, shape, asked);
    }
    let rows = view.finish_range(groups, asked.from, asked.to).map_err(|error| problem(&error))?;
    let rows = match &asked.order {
        Some(order) => ordered(&rows, order).map_err(|error| Problem::internal("order the rows", error))?,
        None => rows,
    };
    let truncated = rows.num_rows() > asked.rows_max;
    let rows = rows.slice(0, rows.num_rows().min(asked.rows_max));
    if size_of(&rows).is_ok_and(|bytes| bytes > asked.bytes_max) {
        return Err(answer_too_large(asked.bytes_max));
    }
    Ok(Finished { rows: Rows::Columns(vec![rows], asked.format), truncated })
}

/// Writes each group's row as it is.
fn written(
    view: &View,
    mut finisher: RowFinisher<'_>,
    groups: &[(GroupId, GroupState)],
    shape: Shape,
    asked: &Asked,
) -> Result<Finished, Problem> {
    let types: Vec<ValueType> = finisher.types().collect();
    let names = names(shape, view.output_schema().fields());
    let bytes = groups.len().min(asked.rows_max) * types.len() * CELL_BYTES;
    let mut writer = RowWriter::with_capacity(bytes.min(asked.bytes_max).min(BYTES_AHEAD_MAX));
    let mut truncated = false;
    for (id, state) in groups {
        let Some(row) = finisher.finish(id, state).map_err(|error| problem(&error))? else { continue };
        truncated = writer.rows() == asked.rows_max;
        if truncated {
            break;
        }
        writer.row(names.as_deref(), row.len(), |column, out| {
            push_value(&row[column], types[column], out);
        });
        if writer.bytes() > asked.bytes_max {
            return Err(answer_too_large(asked.bytes_max));
        }
    }
    Ok(Finished { rows: Rows::Written(writer.end()), truncated })
}

/// Orders rows by a column, nulls last; equal ones stay in order of key and window.
fn ordered(rows: &RecordBatch, order: &Order) -> Result<RecordBatch, ArrowError> {
    let place: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..rows.num_rows() as u32));
    let by = SortColumn {
        values: Arc::clone(rows.column(order.column)),
        options: Some(SortOptions { descending: order.descending, nulls_first: false }),
    };
    let indices = lexsort_to_indices(&[by, SortColumn { values: place, options: None }], order.top)?;
    take_record_batch(rows, &indices)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sanso_state::Groups;
    use sanso_view::Application;

    use super::*;
    use crate::render;

    const APPLICATION: &str = "
CREATE SOURCE readings (usage_point TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), flag BOOLEAN, day DATE,
                        number BIGINT, source_version BIGINT)
  WITH (topic = 'readings', key = 'usage_point', identity = 'usage_point, start_utc', version = 'source_version');
CREATE VIEW keys AS
  SELECT COUNT(*) AS \"n \"\"quoted\"\"\", day, flag, number, value, usage_point,
         TUMBLE(start_utc, INTERVAL '1 hour') AS hour
  FROM readings GROUP BY usage_point, flag, day, number, value, hour;
CREATE VIEW results AS
  SELECT usage_point, SUM(value) AS s, AVG(value) AS a, MIN(day) AS d, MAX(flag) AS f, FIRST(usage_point) AS u,
         VAR_POP(value) AS v, STDDEV_SAMP(value) AS sd, COUNT(DISTINCT number) AS c, MAX(start_utc) AS t,
         APPROX_PERCENTILE_CONT(value, 0.5) AS p
  FROM readings GROUP BY usage_point;
";

    const RECORDS: [&str; 6] = [
        r#"{"usage_point":"m1","start_utc":"2024-07-01T00:00:00Z","value":0.1,"flag":true,"day":"2024-02-29","number":-1,"source_version":1}"#,
        r#"{"usage_point":"m1","start_utc":"2024-07-01T00:30:00.000001Z","value":-999999999999.999999,"flag":false,"day":"0001-01-01","number":9223372036854775807,"source_version":1}"#,
        r#"{"usage_point":"m1","start_utc":"2024-07-01T03:00:00.5Z","source_version":1}"#,
        r#"{"usage_point":"a\"b\u0001é","start_utc":"1969-12-31T23:59:59Z","value":7,"day":"9999-12-31","source_version":1}"#,
        r#"{"usage_point":"","start_utc":"2024-07-01T00:00:00Z","value":0,"flag":true,"number":0,"source_version":1}"#,
        r#"{"usage_point":"m2","start_utc":"2024-07-01T00:00:00Z","value":-0.000001,"source_version":1}"#,
    ];

    fn asked(format: Format) -> Asked {
        Asked { from: i64::MIN, to: i64::MAX, order: None, rows_max: 100, bytes_max: 1 << 20, format }
    }

    fn folded(view: &View) -> Vec<(GroupId, GroupState)> {
        let decoded = view.source.decode(RECORDS.iter().map(|record| record.as_bytes()));
        assert_eq!(decoded.rejected, []);
        let lifted = view.lift(&decoded.rows);
        let chosen: Vec<u32> = lifted.rows().map(|row| row.at).collect();
        let mut groups = Groups::new();
        groups.update(&view.kinds, &lifted.grouped, &chosen, 1);
        groups.iter().collect()
    }

    fn written(finished: Finished) -> Option<String> {
        match finished.rows {
            Rows::Written(bytes) => Some(String::from_utf8(bytes).expect("text")),
            Rows::Columns(..) => None,
        }
    }

    #[test]
    fn rows_as_they_are_and_in_columns_are_the_same_bytes() {
        let application = Application::parse(APPLICATION).expect("the application is good");
        for view in application.bind(Path::new(".")).expect("no reference tables") {
            let groups = folded(&view);
            let columns = view.finish(&groups).expect("valid groups");
            for shape in [Shape::Arrays, Shape::Objects] {
                let finished = finish_here(&view, &groups, &asked(Format::Json(shape))).expect("finishes");
                let expected = render::rows(std::slice::from_ref(&columns), shape).expect("writes");
                assert_eq!(written(finished).as_deref(), Some(&*String::from_utf8_lossy(&expected)));
            }
            let arrow = finish_here(&view, &groups, &asked(Format::Arrow)).expect("finishes");
            assert_eq!(written(arrow), None);
        }
    }

    #[test]
    fn rows_are_bounded_by_their_number_and_their_bytes() {
        let application = Application::parse(APPLICATION).expect("the application is good");
        let view = application.bind(Path::new(".")).expect("no reference tables").remove(0);
        let groups = folded(&view);
        let asked = asked(Format::Json(Shape::Arrays));
        let bounded = |rows_max, bytes_max| {
            finish_here(&view, &groups, &Asked { rows_max, bytes_max, ..asked.clone() })
        };
        let all = bounded(groups.len(), 1 << 20).expect("finishes");
        assert!(!all.truncated);
        let some = bounded(groups.len() - 1, 1 << 20).expect("finishes");
        assert!(some.truncated);
        let (all, some) = (written(all).expect("rows"), written(some).expect("rows"));
        assert!(all.starts_with(some.strip_suffix(']').expect("an array")));
        let problem = bounded(groups.len(), all.len() - 2).expect_err("too large").to_json();
        assert_eq!(problem["budget"], "serving.answer_bytes_max");
    }
}
