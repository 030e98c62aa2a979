//! Failures of DataFusion as problem documents, with the place in the SQL where it is known.

use std::error::Error as _;
use std::fmt;

use axum::http::StatusCode;
use datafusion::common::{DataFusionError, SchemaError};

use crate::problem::Problem;
use crate::sql::memory::Exhausted;

/// A problem on its way through DataFusion.
#[derive(Debug)]
struct Carried(Problem);

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.detail_text())
    }
}

impl std::error::Error for Carried {}

/// Wraps a problem so that [`problem`] finds it again.
pub(crate) fn carry(problem: Problem) -> DataFusionError {
    DataFusionError::External(Box::new(Carried(problem)))
}

/// Says what a failure means for the caller. `tables` are the names that
/// exist; `exhausted` the budget that was asked for too much, if one was.
pub(crate) fn problem(error: &DataFusionError, tables: &[String], exhausted: Option<Exhausted>) -> Problem {
    if let Some(carried) = carried(error) {
        return carried;
    }
    let text = text(error);
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => too_much_memory(&text, exhausted),
        DataFusionError::ObjectStore(cause) if matches!(**cause, object_store::Error::NotFound { .. }) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "dataset-moved", "The dataset moved on")
                .detail("a file of the master dataset was replaced while the query read it")
                .hint("run the query again")
                .retry_after_s(1)
        }
        DataFusionError::ObjectStore(cause) => {
            Problem::unreachable_dataset(format!("read an archived file: {cause}"))
        }
        DataFusionError::Internal(_) | DataFusionError::IoError(_) | DataFusionError::ParquetError(_) => {
            Problem::internal("run the query", text)
        }
        _ => sql_problem(error, &text, tables),
    }
}

fn too_much_memory(text: &str, exhausted: Option<Exhausted>) -> Problem {
    match exhausted {
        Some(Exhausted::Shared(bytes)) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "queries-memory",
            "The queries need too much memory",
        )
        .detail(format!("all queries together may take {bytes} bytes, and others hold them: {text}"))
        .hint("try again after the time in Retry-After; an operator raises serving.queries_memory_bytes_max")
        .with("budget", "serving.queries_memory_bytes_max")
        .with("budget_bytes", bytes)
        .retry_after_s(1),
        own => {
            let problem =
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "query-memory", "The query needs too much memory")
                    .hint("read fewer rows (a key, a range of time), or aggregate before joining or sorting; an operator raises serving.query_memory_bytes_max");
            match own {
                Some(Exhausted::Own(bytes)) => problem
                    .detail(format!("one query may take {bytes} bytes of memory: {text}"))
                    .with("budget", "serving.query_memory_bytes_max")
                    .with("budget_bytes", bytes),
                _ => problem.detail(text),
            }
        }
    }
}

fn sql_problem(error: &DataFusionError, text: &str, tables: &[String]) -> Problem {
    let problem = Problem::new(StatusCode::BAD_REQUEST, "bad-sql", "The SQL is not usable");
    let (detail, place) = match place(error) {
        Some((line, column)) => (format!("line {line}, column {column}: {text}"), Some((line, column))),
        None => (text.to_owned(), None),
    };
    let problem = problem.detail(detail).hint(hint(error, text, tables));
    match place {
        Some((line, column)) => problem.with("line", line).with("column", column),
        None => problem,
    }
}

fn hint(error: &DataFusionError, text: &str, tables: &[String]) -> String {
    if let DataFusionError::SchemaError(cause, _) = error.find_root()
        && let SchemaError::FieldNotFound { valid_fields, .. } = cause.as_ref()
    {
        const NAMED_MAX: usize = 40;
        let fields: Vec<&str> =
            valid_fields.iter().take(NAMED_MAX).map(|field| field.name.as_str()).collect();
        return format!("columns here: {}", fields.join(", "));
    }
    if text.contains("not found") && text.contains("table") {
        return format!("tables: {}", tables.join(", "));
    }
    "mend the SQL; GET /v1/views lists the views and their columns".to_owned()
}

/// Writes an error for people: without backtrace, and without the parser's own tail.
fn text(error: &DataFusionError) -> String {
    let full = match error.diagnostic() {
        Some(diagnostic) => diagnostic.message.clone(),
        None => error.find_root().strip_backtrace(),
    };
    let text = full.trim_start_matches("SQL error: ParserError(\"").trim_end_matches("\")");
    let text = text.trim_start_matches("Error during planning: ").trim_start_matches("sql parser error: ");
    match text.find(" at Line: ") {
        Some(at) => text[..at].to_owned(),
        None => text.to_owned(),
    }
}

/// Finds the place an error is about; lines and columns from 1.
fn place(error: &DataFusionError) -> Option<(u64, u64)> {
    let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
    if let Some(span) = span
        && span.start.line > 0
    {
        return Some((span.start.line, span.start.column));
    }
    let full = error.to_string();
    let rest = &full[full.find("at Line: ")? + "at Line: ".len()..];
    let (line, rest) = number(rest)?;
    let (column, _) = number(rest.strip_prefix(", Column: ")?)?;
    Some((line, column))
}

fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

fn carried(error: &DataFusionError) -> Option<Problem> {
    if let DataFusionError::External(inner) = error.find_root()
        && let Some(Carried(problem)) = inner.downcast_ref::<Carried>()
    {
        return Some(problem.clone());
    }
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(Carried(problem)) = inner.downcast_ref::<Carried>() {
            return Some(problem.clone());
        }
        cause = inner.source();
    }
    None
}
