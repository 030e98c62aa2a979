//! `sanso plan`: what each layer will do for an application; needs no server.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use sanso_view::{Application, BindError, PlanDescription, SqlError};
use serde_json::{Value, json};

/// Check an application and print what each layer will do for it.
///
/// Reads the file and its reference tables, types every view, and shows its
/// window, key, aggregates and joins. A view that can't be merged is refused
/// with the place in the SQL and the reason.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  sanso plan deploy/apps/demo/app.sql\n\n\
                        Exit code: 0 the application is fine, 1 it is refused, 2 it can't be read.")]
pub(crate) struct PlanArgs {
    /// The application: sources, reference tables and views in SQL.
    app: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Prints the plan, or why there is none.
pub(crate) async fn run(args: PlanArgs) -> anyhow::Result<ExitCode> {
    let sql = std::fs::read_to_string(&args.app)
        .with_context(|| format!("read application {}", args.app.display()))?;
    let base = args.app.parent().unwrap_or(Path::new("."));
    let plan = Application::parse(&sql)
        .map_err(BindError::from)
        .and_then(|application| Ok((PlanDescription::of(&application.bind(base)?), application)));
    let mut out = io::stdout().lock();
    let (views, application) = match plan {
        Ok(plan) => plan,
        Err(error) => {
            if args.json {
                writeln!(out, "{}", json!({ "error": refusal_json(&error) }))?;
            } else {
                write!(io::stderr().lock(), "{}", refusal_text(&args.app, &sql, error))?;
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    if args.json {
        let views = serde_json::to_value(views).context("describe the views")?;
        let sources: Vec<_> = application.sources.iter().map(|source| source_json(source)).collect();
        writeln!(out, "{}", json!({ "sources": sources, "views": views }))?;
    } else {
        for source in &application.sources {
            writeln!(
                out,
                "source {}: topic {} of {}, {} log partitions, segments of {} offsets, storage {}",
                source.name,
                source.topic,
                source.format,
                source.partitions,
                source.segment_size,
                source.storage,
            )?;
        }
        for view in &views {
            writeln!(out, "\n{}", view.to_string().trim_end())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn source_json(source: &sanso_view::Source) -> Value {
    json!({
        "name": source.name,
        "topic": source.topic,
        "format": source.format.name(),
        "registry": source.format.registered().map(|r| &r.registry),
        "subject": source.format.registered().map(|r| &r.subject),
        "partitions": source.partitions,
        "segment_size": source.segment_size,
        "storage": source.storage.level.name(),
        "replicas": source.storage.replicas.to_string(),
        "key": source.columns[source.key_column].name,
        "columns": source.columns.iter().map(|column| &column.name).collect::<Vec<_>>(),
    })
}

fn refusal_json(error: &BindError) -> Value {
    match error {
        BindError::Sql(SqlError { line, column, message, hint }) => {
            json!({ "line": line, "column": column, "message": message, "hint": hint })
        }
        BindError::Table { table, path, line, message } => {
            json!({ "table": table, "file": path, "line": line, "message": message })
        }
        BindError::Read { table, path, source } => {
            json!({ "table": table, "file": path, "message": source.to_string() })
        }
    }
}

/// Writes a refusal for people; one of SQL shows the line and points at the place.
fn refusal_text(app: &Path, sql: &str, error: BindError) -> String {
    match error {
        BindError::Sql(error) => {
            let text = sql.lines().nth(error.line.saturating_sub(1) as usize).unwrap_or_default();
            let before = text.chars().take(error.column.saturating_sub(1) as usize);
            // Tabs stay tabs, so that the mark stands below what it points at.
            let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let hint =
                if error.hint.is_empty() { String::new() } else { format!("\n  hint: {}", error.hint) };
            let (line, column, message) = (error.line, error.column, &error.message);
            format!("{}:{line}:{column}: {message}\n\n  {text}\n  {indent}^{hint}\n", app.display())
        }
        other => format!("sanso: {:#}\n", anyhow::Error::from(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_points_at_the_place() {
        let sql = "CREATE SOURCE a (\n  x TEXT,\n  y FLOAT)";
        let error = Application::parse(sql).expect_err("FLOAT is not exact");
        let text = refusal_text(Path::new("app.sql"), sql, error.into());
        assert!(text.starts_with("app.sql:3:5: "), "{text}");
        assert!(text.contains("\n    y FLOAT)\n      ^"), "{text}");
    }
}
