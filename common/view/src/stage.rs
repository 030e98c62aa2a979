//! A source made of a view's closed windows: `CREATE SOURCE hours FROM VIEW feeder_hours`.
//!
//! ```text
//!   view ─ closed windows ─▶ its output topic ─ records ─▶ source ─▶ other views
//! ```
//!
//! Every record of the topic is one content of a window. The window is the identity, its revision the
//! version, so one that is amended is a correction like any other; one that has lost all its readings
//! is a record with `present` = false, which no view counts.

use sanso_state::{Storage, ValueType};

use crate::definition::ViewDefinition;
use crate::error::SqlError;
use crate::plan::{Output, OutputExpression};
use crate::source::{Column, RecordFormat, Source};
use crate::syntax::Named;

/// The column that names a window; in a record the field `id`.
const ID: &str = "window_id";
/// The column that orders the contents of a window.
const REVISION: &str = "revision";
/// The column that says whether a window has readings.
pub(crate) const PRESENT: &str = "present";
/// The end of the window, which every view with windows has.
const WINDOW_END: &str = "window_end";

/// What may be said of such a source.
pub(crate) struct Shape {
    pub(crate) segment_size: u64,
    pub(crate) lateness_us: i64,
    pub(crate) ahead_us_max: i64,
    pub(crate) storage: Storage,
}

/// Makes the source of a view's closed windows.
pub(crate) fn source_of(
    name: Named,
    view: &ViewDefinition,
    view_name: &Named,
    shape: Shape,
) -> Result<Source, SqlError> {
    let Some(topic) = &view.output_topic else {
        return Err(SqlError::new(
            view_name.place,
            format!("view {} writes its closed windows nowhere", view.name),
            format!("declare it WITH (output_topic = '{}_closed')", view.name),
        ));
    };
    let plan = &view.plan;
    let column = |name: &str, value_type, nullable| Column { name: name.to_owned(), value_type, nullable };
    let is_start = |output: &&Output| matches!(output.expression, OutputExpression::Finished(at) if at == plan.keys.len());
    let start = plan.outputs.iter().find(is_start).map_or("window", |output| output.name.as_str());
    let mut columns = vec![
        column(ID, ValueType::Text, false),
        column(start, ValueType::Timestamp, false),
        column(WINDOW_END, ValueType::Timestamp, false),
        column(REVISION, ValueType::Int, false),
        column(PRESENT, ValueType::Bool, false),
    ];
    columns.extend(plan.keys.iter().map(|key| column(&key.name, key.expression.value_type, true)));
    let is_key = |name: &str| plan.keys.iter().any(|key| key.name == name);
    let values = plan.outputs.iter().filter(|output| {
        !is_key(&output.name)
            && output.name != start
            && output.name != WINDOW_END
            // Not exact, so nothing may be made of them.
            && output.value_type != ValueType::Float
    });
    columns.extend(values.map(|output| column(&output.name, output.value_type, true)));
    for (at, column) in columns.iter().enumerate() {
        if columns[..at].iter().any(|other| other.name == column.name) {
            return Err(SqlError::new(
                view_name.place,
                format!(
                    "the column {} would be there twice: closed windows have one of that name",
                    column.name
                ),
                format!("call it otherwise in view {}", view.name),
            ));
        }
    }
    Ok(Source {
        schema: Source::schema_of(&columns),
        name: name.text,
        topic: topic.clone(),
        format: RecordFormat::Windows { view: view.name.clone() },
        columns,
        segment_size: shape.segment_size,
        partitions: view.partitions,
        lateness_us: shape.lateness_us,
        ahead_us_max: shape.ahead_us_max,
        key_column: 0,
        identity_columns: vec![0],
        version_column: Some(3),
        event_time_column: 1,
        ignored_columns: Vec::new(),
        storage: shape.storage,
    })
}

/// How many of the columns are fields of a record; the others are in its objects `key` and `values`.
pub(crate) const FIELDS: usize = 5;

/// Returns the columns under the names that they have in a record.
pub(crate) fn fields(source: &Source) -> Vec<Column> {
    let mut fields = source.columns.clone();
    "id".clone_into(&mut fields[0].name);
    "window_start".clone_into(&mut fields[1].name);
    fields
}
