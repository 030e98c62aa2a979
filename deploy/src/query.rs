//! `sanso query`: SQL over the views and the master dataset of a running node.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use crate::http::{Client, HttpError};

/// Ask a running node in SQL.
///
/// Every view is a table; a source's name is the table of its newest readings
/// up to the batch cut, and NAME_history holds all archived versions. The
/// table is for reading; --json and --csv are for programs, with all digits.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  sanso query --to http://127.0.0.1:7070 \\\n    \
                        'SELECT substation, SUM(kwh_import) AS kwh FROM substation_load GROUP BY substation'\n\n\
                        Exit code: 0 answered, 1 the query is refused, 2 no answer.")]
pub(crate) struct QueryArgs {
    /// The node to ask.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7070", env = "SANSO_URL")]
    to: String,
    /// The query; `-` reads it from standard input.
    sql: String,
    /// Print the answer as one JSON object, with its freshness.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print the rows as CSV with a header.
    #[arg(long)]
    csv: bool,
}

/// Runs the query and prints the answer.
pub(crate) async fn run(args: QueryArgs) -> anyhow::Result<ExitCode> {
    let sql = if args.sql == "-" {
        io::read_to_string(io::stdin()).context("read the query from standard input")?
    } else {
        args.sql
    };
    let client = Client::new(&args.to)?;
    let answer = match client.query(&sql).await {
        Ok(answer) => answer,
        Err(HttpError::Refused { status, problem }) if status.is_client_error() => {
            writeln!(io::stderr().lock(), "{}", refusal(&sql, &problem))?;
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    };
    let text = if args.json {
        format!("{answer}\n")
    } else {
        let table = Table::read(&answer)?;
        if args.csv { table.csv() } else { table.text() }
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // A pager or `head` that has seen enough is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        written => written.context("print the answer")?,
    }
    if !args.json {
        writeln!(io::stderr().lock(), "{}", freshness_line(&answer))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a refused query for people, with the place marked where it is known.
fn refusal(sql: &str, problem: &crate::http::Problem) -> String {
    let mut text = format!("sanso: {problem}");
    if let (Some(line), Some(column)) = (problem.line, problem.column)
        && let Some(shown) = sql.lines().nth(line.saturating_sub(1) as usize)
    {
        let indent = " ".repeat(column.saturating_sub(1) as usize);
        text.push_str(&format!("\n\n  {shown}\n  {indent}^"));
    }
    text
}

/// Says how fresh and complete an answer is, in one line.
fn freshness_line(answer: &Value) -> String {
    let freshness = &answer["freshness"];
    let mut parts = Vec::new();
    if let Some(version) = freshness["batch_version"].as_u64() {
        parts.push(format!("batch version {version}"));
    }
    if let Some(lag) = freshness["lag_records"].as_u64() {
        parts.push(if lag == 0 {
            "up to the end of the log".into()
        } else {
            format!("{lag} records behind")
        });
    }
    if let Some(watermark) = freshness["watermark"].as_str() {
        parts.push(format!("watermark {watermark}"));
    }
    parts.push(if answer["complete"] == Value::Bool(true) { "complete".into() } else { "PARTIAL".into() });
    if answer["truncated"] == Value::Bool(true) {
        parts.push("TRUNCATED at the row limit".into());
    }
    parts.join(" · ")
}

/// A tabular answer as text cells.
struct Table {
    columns: Vec<(String, bool)>,
    rows: Vec<Vec<Option<String>>>,
}

impl Table {
    fn read(answer: &Value) -> anyhow::Result<Self> {
        let columns = answer["columns"].as_array().context("the answer has no columns")?;
        let columns = columns.iter().map(|column| {
            let text = |field: &str| column[field].as_str().unwrap_or_default().to_owned();
            (text("name"), is_number(&text("type")))
        });
        let rows = answer["rows"].as_array().context("the answer has no rows")?;
        let rows = rows.iter().map(|row| row.as_array().into_iter().flatten().map(cell).collect());
        Ok(Self { columns: columns.collect(), rows: rows.collect() })
    }

    fn text(&self) -> String {
        let shown: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|cell| printable(cell.as_deref())).collect()).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|index| {
                let cells = shown.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
                cells.chain([self.columns[index].0.chars().count()]).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let aligned = cells.zip(&self.columns).zip(&widths).map(|((cell, (_, number)), width)| {
                if *number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            let joined = aligned.collect::<Vec<_>>().join("  ");
            format!("{}\n", joined.trim_end())
        };
        let mut text = line(&mut self.columns.iter().map(|(name, _)| name.as_str()));
        let rules: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
        text.push_str(&format!("{}\n", rules.join("  ")));
        shown.iter().for_each(|row| text.push_str(&line(&mut row.iter().map(String::as_str))));
        let plural = if shown.len() == 1 { "" } else { "s" };
        text.push_str(&format!("({} row{plural})\n", shown.len()));
        text
    }

    fn csv(&self) -> String {
        let header = self.columns.iter().map(|(name, _)| quoted(name)).collect::<Vec<_>>().join(",");
        let rows = self.rows.iter().map(|row| {
            let cells = row.iter().map(|cell| cell.as_deref().map(quoted).unwrap_or_default());
            cells.collect::<Vec<_>>().join(",")
        });
        std::iter::once(header).chain(rows).map(|line| format!("{line}\r\n")).collect()
    }
}

fn is_number(column_type: &str) -> bool {
    let name = column_type.to_ascii_lowercase();
    ["decimal", "bigint", "int", "double", "float", "uint"].iter().any(|kind| name.starts_with(kind))
}

/// Returns a value's text; `None` for null. Numbers keep all their digits.
fn cell(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Makes text safe for a terminal: control characters would move its cursor.
fn printable(cell: Option<&str>) -> String {
    let text = cell.unwrap_or("–");
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

fn quoted(text: &str) -> String {
    if text.is_empty() || text.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Value {
        let text = r#"{"columns":[{"name":"feeder","type":"text"},{"name":"kwh","type":"decimal(38,6)"}],
            "rows":[["F1",12345678901234567890.125000],["a,\"b\"",-1.000000],["",null]],
            "freshness":{"batch_version":3,"lag_records":0,"watermark":"2024-01-01T00:00:00Z"},"complete":true}"#;
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn tables_align_numbers_and_keep_every_digit() {
        let text = Table::read(&answer()).expect("a table").text();
        let expected = "feeder                          kwh\n\
                        ──────  ───────────────────────────\n\
                        F1      12345678901234567890.125000\n\
                        a,\"b\"                     -1.000000\n\
                        \u{20}                                 –\n\
                        (3 rows)\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn csv_quotes_what_needs_it_and_tells_null_from_empty() {
        let text = Table::read(&answer()).expect("a table").csv();
        assert_eq!(
            text,
            "feeder,kwh\r\nF1,12345678901234567890.125000\r\n\"a,\"\"b\"\"\",-1.000000\r\n\"\",\r\n"
        );
    }

    #[test]
    fn freshness_is_one_line() {
        assert_eq!(
            freshness_line(&answer()),
            "batch version 3 · up to the end of the log · watermark 2024-01-01T00:00:00Z · complete"
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable(Some("a\x1b[2Jb")), "a·[2Jb");
    }
}
