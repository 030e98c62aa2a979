//! Requests: parameters of a URL and queries in SQL are read and planned, or refused as the caller's
//! own; whatever they are, the server has not failed.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use sanso_serving::ServingConfig;
use sanso_serving::inspect::{QueryPlanner, parameters};
use sanso_serving::plan::plan;
use sanso_serving::problem::Problem;
use sanso_serving::session::Session;
use sanso_state::Value;
use sanso_view::{Application, View};

/// Views of each kind of window, by keys of each type.
const APPLICATION: &str = "
CREATE SOURCE readings (meter TEXT, day DATE, at TIMESTAMP, value DECIMAL(18,6), good BOOLEAN, number BIGINT)
  WITH (key = 'meter', identity = 'meter, at', event_time = 'at', partitions = '1');
CREATE VIEW daily AS
  SELECT meter, TUMBLE(at, INTERVAL '1 day') AS start, SUM(value) AS total, COUNT(*) AS readings
  FROM readings GROUP BY meter, start;
CREATE VIEW wide WITH (partitions = '7') AS
  SELECT meter, day, good, number, value, HOP(at, INTERVAL '7 minutes', INTERVAL '21 minutes') AS start,
         COUNT(*) AS readings
  FROM readings GROUP BY meter, day, good, number, value, start;
CREATE VIEW monthly AS
  SELECT TUMBLE(at, INTERVAL '1 month', 'Europe/Berlin') AS start, SUM(value) AS total
  FROM readings GROUP BY start;
CREATE VIEW whole AS SELECT at, COUNT(*) AS readings FROM readings GROUP BY at;
";

static VIEWS: LazyLock<Vec<Arc<View>>> = LazyLock::new(|| {
    let application = Application::parse(APPLICATION).expect("a good application");
    application.bind(Path::new(".")).expect("it has no tables")
});

static PLANNER: LazyLock<QueryPlanner> = LazyLock::new(|| QueryPlanner::new(VIEWS.clone()));

/// The query string of a URL, for each of the views.
pub(crate) fn url(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(uri) = format!("/v1/views/v?{text}").parse() else { return };
    let config = ServingConfig::default();
    for view in VIEWS.iter() {
        let read = match parameters(&config, view, &uri) {
            Ok(read) => read,
            Err(problem) => {
                check(&problem);
                continue;
            }
        };
        assert!((1..=config.rows_max).contains(&read.rows_max));
        assert!(read.wanted.from <= read.wanted.to);
        let session = Session::parse(&read.session.token());
        assert_eq!(session.expect("a token reads back"), read.session);
        let reads = plan(view, &read.wanted);
        assert!(reads.iter().all(|read| read.id.index < view.partitions));
        for key in read.wanted.keys.iter().flatten() {
            let values = Value::decode_key(key).expect("a key is decoded");
            assert_eq!(values.len(), view.key_columns.len());
        }
    }
}

/// A query in SQL.
pub(crate) fn query(bytes: &[u8]) {
    let Ok(sql) = std::str::from_utf8(bytes) else { return };
    if let Err(problem) = PLANNER.plan(sql) {
        check(&problem);
    }
}

/// A refusal says what is wrong and what to do.
fn check(problem: &Problem) {
    let document = problem.to_json();
    assert!(problem.status().is_client_error(), "{document}");
    for member in ["detail", "hint"] {
        assert!(document[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {document}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzzer_begins_with_queries_that_are_planned_and_one_that_is_none() {
        for (name, bytes) in crate::seeds("query") {
            let planned = PLANNER.plan(std::str::from_utf8(&bytes).expect("text"));
            assert_eq!(planned.is_ok(), name != "statement", "{name}: {planned:?}");
        }
    }

    #[test]
    fn the_fuzzer_begins_with_parameters_of_one_view_each() {
        for (name, bytes) in crate::seeds("url") {
            let text = std::str::from_utf8(&bytes).expect("text");
            let uri = format!("/v1/views/v?{text}").parse().expect("a URI");
            let read = |view: &Arc<View>| parameters(&ServingConfig::default(), view, &uri);
            let read: Vec<_> = VIEWS.iter().map(read).collect();
            assert!(read.iter().any(Result::is_ok), "{name}: {read:?}");
        }
    }
}
