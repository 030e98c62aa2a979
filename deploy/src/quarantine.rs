//! `sanso quarantine`: what was refused, why, and back into the log once the cause is mended.

mod export;
mod replay;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use crate::http::{Client, HttpError};

/// Records in one request.
const PAGE: usize = 1_000;

/// List, export and replay records that were refused.
///
/// A record in the log that can't be used stays in quarantine with its place,
/// the reason and its bytes: undecodable, misplaced (its key belongs to another
/// log partition), in conflict with another of its version, or left out of a
/// view whose expression fails on it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  sanso quarantine list --kind conflict\n  \
                        sanso quarantine export --kind undecodable > refused.jsonl\n  \
                        sanso quarantine replay --kind misplaced\n  \
                        sanso quarantine replay --kind conflict --version 3\n  \
                        sanso quarantine replay --mended refused.jsonl\n\n\
                        Exit code: 0 done, 1 some records can't be replayed as asked, or a node of the cluster\n\
                        does not answer and records may be missing, 2 no answer.")]
pub(crate) struct QuarantineArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    List(ListArgs),
    Export(export::ExportArgs),
    Replay(replay::ReplayArgs),
}

/// Where the node is, and which source.
#[derive(Args, Debug)]
struct Place {
    /// The node to ask.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7070", env = "SANSO_URL")]
    to: String,
    /// The source the records belong to.
    #[arg(long, value_name = "NAME", default_value = "readings")]
    source: String,
}

/// Which records.
#[derive(Args, Debug)]
struct Filter {
    /// Only this kind of refusal.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Only this log partition.
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Only what the log took at or after this time (RFC 3339, or a date).
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what the log took before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Undecodable,
    Misplaced,
    Conflict,
    Expression,
}

impl Filter {
    /// Returns the filters as the API names them.
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut parameters = Vec::new();
        if let Some(kind) = self.kind {
            parameters.push(("kind", format!("{kind:?}").to_lowercase()));
        }
        parameters.extend(self.partition.map(|partition| ("partition", partition.to_string())));
        parameters.extend(self.since.clone().map(|time| ("from", time)));
        parameters.extend(self.until.clone().map(|time| ("to", time)));
        parameters
    }
}

/// List the newest records in quarantine, or count them.
#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    filter: Filter,
    /// How many records to show.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Leave out records that were replayed.
    #[arg(long)]
    open: bool,
    /// Print the answer as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: QuarantineArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List(args) => list(args).await,
        Command::Export(args) => export::run(args).await,
        Command::Replay(args) => replay::run(args).await,
    }
}

async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.place.to)?;
    let mut parameters = args.filter.parameters();
    parameters.push(("order", "newest".into()));
    parameters.push(("limit", args.limit.to_string()));
    if args.open {
        parameters.push(("replayed", "no".into()));
    }
    let answer = ask(&client, &args.place.source, &parameters).await?;
    print(&if args.json { format!("{answer}\n") } else { listing(&answer) })?;
    Ok(exit_code(partial(&answer).as_deref()))
}

/// Says on standard error what an answer lacks, and by the exit code that it does.
fn exit_code(lacks: Option<&str>) -> ExitCode {
    let Some(lacks) = lacks else { return ExitCode::SUCCESS };
    // Where that can't be written, the code says it still.
    let _ = writeln!(io::stderr().lock(), "{lacks}");
    ExitCode::FAILURE
}

/// Says what an answer lacks, since nodes of the cluster don't answer; nothing where it is whole.
fn partial(answer: &Value) -> Option<String> {
    let list = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let (missing, silent) = (list("partitions_missing"), list("unanswered"));
    if missing.is_empty() && silent.is_empty() {
        return None;
    }
    let mut text = "partial: ".to_owned();
    if missing.is_empty() {
        text.push_str("records that only a view's expression failed on may be missing");
    } else {
        let missing: Vec<String> = missing.iter().map(Value::to_string).collect();
        text.push_str(&format!("records of log partition {} may be missing", missing.join(", ")));
    }
    for node in silent {
        text.push_str(&format!(
            "; node {} does not answer: {}",
            node["node"],
            clean(&text_of(&node["error"]))
        ));
    }
    Some(text)
}

/// Asks for records of the quarantine.
async fn ask(client: &Client, source: &str, parameters: &[(&str, String)]) -> Result<Value, HttpError> {
    let parameters: Vec<(&str, &str)> =
        parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
    client.get_with(&["v1", "quarantine", source], &parameters).await
}

/// Prints to standard output; a pager or `head` that has seen enough is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("print the answer"),
    }
}

/// Writes records for people: two lines each, and the counts.
fn listing(answer: &Value) -> String {
    let mut text = String::new();
    let records = answer["records"].as_array().map(Vec::as_slice).unwrap_or_default();
    for record in records {
        let field = |name: &str| clean(record[name].as_str().unwrap_or("–"));
        let replayed = match &record["replayed"] {
            Value::Null => String::new(),
            mark => format!("  replayed {} to {}", text_of(&mark["at"]), place_of(mark)),
        };
        text.push_str(&format!(
            "{:<12} {:<11} {}{replayed}\n    {}\n    {}\n",
            place_of(record),
            field("kind"),
            field("appended"),
            field("reason"),
            field("payload"),
        ));
    }
    let counts = answer["counts"].as_object().into_iter().flatten();
    let counts: Vec<String> = counts
        .filter(|(_, count)| count.as_u64() != Some(0))
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    let total = answer["count"].as_u64().unwrap_or(0);
    let source = clean(&text_of(&answer["source"]));
    match total {
        0 => text.push_str(&format!("Nothing of source {source} is in quarantine.\n")),
        _ => text.push_str(&format!(
            "Source {source}: {}; {} replayed\n",
            counts.join(", "),
            answer["replayed"]
        )),
    }
    text
}

/// Writes where a record is, as `--at` takes it.
fn place_of(record: &Value) -> String {
    format!("{}:{}", record["partition"], text_of(&record["offset"]))
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "?".into(),
        other => other.to_string(),
    }
}

/// Makes text from records safe for a terminal, and no longer than two hundred characters.
fn clean(text: &str) -> String {
    let mut chars = text.chars();
    let mut shown: String = chars.by_ref().take(200).map(|c| if c.is_control() { '·' } else { c }).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_listing_says_where_why_and_what_became_of_it() {
        let answer = json!({
            "source": "readings", "count": 2, "replayed": 1,
            "counts": { "undecodable": 0, "misplaced": 1, "conflict": 1 },
            "records": [
                { "partition": 0, "offset": 17, "kind": "conflict", "appended": "2026-01-01T00:00:00Z",
                  "reason": "version 1 came before", "payload": "{\u{1b}}", "replayed": null },
                { "partition": 1, "offset": 2, "kind": "misplaced", "appended": "2026-01-01T00:00:00Z",
                  "reason": "elsewhere", "payload": "{}",
                  "replayed": { "number": 1, "at": "2026-01-02T00:00:00Z", "partition": 0, "offset": 18 } },
            ],
        });
        let expected = "0:17         conflict    2026-01-01T00:00:00Z\n    version 1 came before\n    {·}\n\
            1:2          misplaced   2026-01-01T00:00:00Z  replayed 2026-01-02T00:00:00Z to 0:18\n    \
            elsewhere\n    {}\nSource readings: 1 conflict, 1 misplaced; 1 replayed\n";
        assert_eq!(listing(&answer), expected);
    }

    #[test]
    fn long_payloads_are_cut_for_people() {
        assert_eq!(clean(&"é".repeat(300)).chars().count(), 201);
    }
}
