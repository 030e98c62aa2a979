//! Behaviour of whole applications.

mod fingerprints;
mod options;
mod oracle;
mod refusals;
mod rollup;
mod stages;
mod views;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use sanso_state::{GroupId, GroupState, Groups, Value};

use crate::scalar::{arrow_type, parse_timestamp, value_at};
use crate::{Application, View};

/// The example of the design.
pub(crate) const EXAMPLE: &str = "\
CREATE SOURCE readings (usage_point TEXT, channel TEXT, start_utc TIMESTAMP, duration_s BIGINT,
                        value DECIMAL(18,6), unit TEXT, quality TEXT, source_version BIGINT)
  WITH (topic = 'readings', format = 'json', key = 'usage_point',
        identity = 'usage_point, channel, start_utc', version = 'source_version');
CREATE TABLE network (usage_point TEXT, transformer TEXT, feeder TEXT, substation TEXT,
                      valid_from TIMESTAMP, valid_to TIMESTAMP) WITH (path = 'network.csv');
CREATE VIEW feeder_load AS
  SELECT n.feeder, TUMBLE(r.start_utc, INTERVAL '30 minutes') AS window, SUM(r.value) AS kwh, COUNT(*) AS readings
  FROM readings r JOIN network n ON r.usage_point = n.usage_point AND r.start_utc >= n.valid_from AND r.start_utc < n.valid_to
  GROUP BY n.feeder, window;
";

/// A network in which meter m1 moves from feeder f1 to f2 at noon.
pub(crate) const NETWORK: &str = "\
usage_point,transformer,feeder,substation,valid_from,valid_to
m1,t1,f1,s1,2024-01-01T00:00:00Z,2024-07-01T12:00:00Z
m1,t2,f2,s1,2024-07-01T12:00:00Z,2030-01-01T00:00:00Z
m2,t1,f1,s1,2024-01-01T00:00:00Z,2030-01-01T00:00:00Z
";

/// Declares the example's source and table, then a view of this SELECT.
pub(crate) fn with_view(select: &str) -> String {
    let head = EXAMPLE.split("CREATE VIEW").next().expect("the example has a view");
    format!("{head}CREATE VIEW v AS {select}")
}

/// Binds an application whose reference table is `network`.
pub(crate) fn bind_with(sql: &str, network: &str) -> Vec<Arc<View>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("network.csv"), network).expect("write network.csv");
    bind_in(sql, folder.path())
}

fn bind_in(sql: &str, folder: &Path) -> Vec<Arc<View>> {
    let application = Application::parse(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    application.bind(folder).unwrap_or_else(|error| panic!("{error}"))
}

/// Binds one view over the example's network.
pub(crate) fn view(select: &str) -> Arc<View> {
    bind_with(&with_view(select), NETWORK).remove(0)
}

pub(crate) fn us(text: &str) -> i64 {
    parse_timestamp(text).expect("a test writes valid timestamps")
}

/// Writes a reading as JSON.
pub(crate) fn reading(meter: &str, start: &str, value: &str) -> String {
    format!(
        r#"{{"usage_point":"{meter}","channel":"E1","start_utc":"{start}","duration_s":1800,"value":{value},"unit":"kWh","quality":"valid"}}"#
    )
}

pub(crate) fn rows(view: &View, records: &[String]) -> RecordBatch {
    let decoded = view.source.decode(records.iter().map(|record| record.as_bytes()));
    assert_eq!(decoded.rejected, [], "a test writes valid records");
    decoded.rows
}

/// Lifts rows and folds them into groups.
pub(crate) fn fold(view: &View, records: &[String]) -> Vec<(GroupId, GroupState)> {
    let lifted = view.lift(&rows(view, records));
    assert_eq!(lifted.errors, []);
    let mut groups = Groups::new();
    let chosen: Vec<u32> = lifted.rows().map(|row| row.at).collect();
    groups.update(&view.kinds, &lifted.grouped, &chosen, 1);
    groups.iter().collect()
}

/// Finishes a view over records into lines of text, one for each row.
pub(crate) fn finished(view: &View, records: &[String]) -> Vec<String> {
    let groups = fold(view, records);
    let batch = view.finish(&groups).unwrap_or_else(|error| panic!("{error}"));
    assert_rows(view, &groups, (i64::MIN, i64::MAX), &batch);
    lines(&batch)
}

/// Holds finished columns against the same rows one after the other, where the view has these.
pub(crate) fn assert_rows(
    view: &View,
    groups: &[(GroupId, GroupState)],
    (from, to): (i64, i64),
    columns: &RecordBatch,
) {
    let Some(mut finisher) = view.row_finisher(from, to) else { return };
    let types: Vec<_> = finisher.types().map(arrow_type).collect();
    assert!(columns.schema().fields().iter().map(|field| field.data_type()).eq(&types));
    let mut rows = Vec::new();
    for (id, state) in groups {
        rows.extend(finisher.finish(id, state).expect("valid groups").map(<[Value]>::to_vec));
    }
    let row = |row| columns.columns().iter().map(|column| value_at(column, row)).collect();
    let expected: Vec<Vec<Value>> = (0..columns.num_rows()).map(row).collect();
    assert_eq!(rows, expected);
}

/// Writes each row of a batch as its values, `|` between them.
pub(crate) fn lines(batch: &RecordBatch) -> Vec<String> {
    let cell = |column: usize, row: usize| {
        let array = batch.column(column);
        match (value_at(array, row), array.data_type()) {
            (Value::Decimal(v), arrow::datatypes::DataType::Decimal128(_, scale)) => {
                crate::scalar::format_decimal(v, *scale)
            }
            (Value::Timestamp(v), _) => crate::scalar::format_timestamp(v),
            (Value::Date(v), _) => crate::scalar::format_date(v),
            (value, _) => value.to_string(),
        }
    };
    (0..batch.num_rows())
        .map(|row| (0..batch.num_columns()).map(|c| cell(c, row)).collect::<Vec<_>>().join("|"))
        .collect()
}
