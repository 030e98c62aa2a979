//! `sanso quarantine export`: every record, for mending and for other tools.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::{Filter, PAGE, Place, ask, exit_code, partial, place_of, text_of};
use crate::http::Client;

/// Export records as JSON lines, or CSV.
///
/// Each line has `at` (log partition and offset), kind, reason, when the log
/// took it, and the payload: as JSON where it is one object, else as text.
/// Mend the payloads and give the file to `replay --mended`.
#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    filter: Filter,
    /// Leave out records that were replayed.
    #[arg(long)]
    open: bool,
    /// Write CSV with a header.
    #[arg(long)]
    csv: bool,
    /// The file to write; standard output when absent.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Writes all records, page by page.
pub(super) async fn run(args: ExportArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.place.to)?;
    let mut out: Box<dyn Write> = match &args.out {
        Some(path) => Box::new(File::create(path).with_context(|| format!("create {}", path.display()))?),
        None => Box::new(io::stdout()),
    };
    match write(&client, &args, &mut BufWriter::new(&mut out)).await {
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(is_closed) => Ok(ExitCode::SUCCESS),
        written => Ok(exit_code(written?.as_deref())),
    }
}

/// A pager or `head` that has seen enough is no failure.
fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Writes the pages; returns what they lack.
async fn write(client: &Client, args: &ExportArgs, out: &mut impl Write) -> anyhow::Result<Option<String>> {
    if args.csv {
        out.write_all(b"at,appended,kind,reason,replayed,payload\r\n")?;
    }
    let (mut after, mut lacks): (Option<String>, _) = (None, None);
    loop {
        let mut parameters = args.filter.parameters();
        parameters.push(("limit", PAGE.to_string()));
        parameters.extend(after.map(|after| ("after", after)));
        if args.open {
            parameters.push(("replayed", "no".into()));
        }
        let answer = ask(client, &args.place.source, &parameters).await?;
        for record in answer["records"].as_array().into_iter().flatten() {
            let line = if args.csv { csv(record) } else { format!("{}\n", line(record)) };
            out.write_all(line.as_bytes())?;
        }
        lacks = partial(&answer).or(lacks);
        after = answer["next"].as_str().map(str::to_owned);
        if after.is_none() {
            out.flush()?;
            return Ok(lacks);
        }
    }
}

/// Writes one record as it is exported.
fn line(record: &Value) -> Value {
    let text = record["payload"].as_str().unwrap_or_default();
    let payload = serde_json::from_str(text).ok().filter(Value::is_object);
    let mut line = json!({
        "at": place_of(record),
        "appended": record["appended"],
        "kind": record["kind"],
        "reason": record["reason"],
        "replayed": record["replayed"],
        "payload": payload.unwrap_or_else(|| text.into()),
    });
    for more in ["payload_hex", "view"] {
        if !record[more].is_null() {
            line[more] = record[more].clone();
        }
    }
    line
}

fn csv(record: &Value) -> String {
    let replayed = match &record["replayed"] {
        Value::Null => String::new(),
        mark => place_of(mark),
    };
    let cells = [
        place_of(record),
        text_of(&record["appended"]),
        text_of(&record["kind"]),
        text_of(&record["reason"]),
        replayed,
        text_of(&record["payload"]),
    ];
    format!("{}\r\n", cells.map(|cell| quoted(&cell)).join(","))
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(payload: &str) -> Value {
        json!({ "partition": 0, "offset": 7, "appended": "T", "kind": "conflict", "reason": "a, b",
                "payload": payload, "replayed": null })
    }

    #[test]
    fn a_payload_is_an_object_where_it_is_one_with_every_digit() {
        let text = line(&record(r#"{"value":0.100000000000000000001}"#)).to_string();
        assert!(text.contains(r#""payload":{"value":0.100000000000000000001}"#), "{text}");
        assert_eq!(line(&record("{"))["payload"], "{");
        assert_eq!(line(&record("7"))["payload"], "7");
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        assert_eq!(csv(&record(r#"{"a":1}"#)), "0:7,T,conflict,\"a, b\",,\"{\"\"a\"\":1}\"\r\n");
    }
}
