//! `sanso quarantine replay`: mended records back into the log.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::{Filter, PAGE, Place, clean, exit_code, partial, place_of, print, text_of};
use crate::http::Client;

/// Append records to the log anew, once their cause is mended.
///
/// A misplaced record goes where its key belongs. A conflict needs --version,
/// an undecodable record a mended payload (--mended) or another source that can
/// read it (--into). Each record is replayed once, however often this is run;
/// it stays listed, marked with where it went.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  sanso quarantine export --kind undecodable --out refused.jsonl\n  \
                        (mend the payloads)\n  sanso quarantine replay --mended refused.jsonl")]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    filter: Filter,
    /// Only the record at this log partition and offset; repeat it for several.
    #[arg(long, value_name = "P:OFFSET", conflicts_with = "mended")]
    at: Vec<String>,
    /// The records of an export whose payloads were mended.
    #[arg(long, value_name = "FILE")]
    mended: Option<PathBuf>,
    /// Give every record this version: one that is higher than what it conflicts with.
    #[arg(long, value_name = "N")]
    version: Option<i64>,
    /// Append to another source, by default the same.
    #[arg(long, value_name = "NAME")]
    into: Option<String>,
    /// For a source without versions: let what is replayed be the newest of its
    /// identity, whatever came since.
    #[arg(long)]
    as_newest: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What became of the records.
#[derive(Default)]
struct Outcome {
    replayed: Vec<Value>,
    refused: Vec<Value>,
    /// What could not be looked at, if anything.
    lacks: Option<String>,
}

/// Replays records, a thousand at a time.
pub(super) async fn run(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.place.to)?;
    let mut outcome = Outcome::default();
    let named = match &args.mended {
        Some(path) => mended(path)?,
        None => args.at.iter().map(|at| json!({ "at": at })).collect(),
    };
    let options = json!({ "version": args.version, "into": args.into, "as_newest": args.as_newest });
    let selection = args.filter.parameters();
    ensure!(
        named.is_empty() || selection.is_empty(),
        "name records, or select them by --kind, --partition, --since and --until, not both"
    );
    ensure!(
        !named.is_empty() || !selection.is_empty(),
        "say which records: --kind misplaced, --at 0:17, or --mended FILE"
    );
    for records in named.chunks(PAGE) {
        let mut body = options.clone();
        body["records"] = records.into();
        outcome.take(replay(&client, &args.place.source, body).await?);
    }
    let mut after = Value::Null;
    while !selection.is_empty() {
        let mut body = options.clone();
        for (name, value) in &selection {
            body[*name] =
                if *name == "partition" { value.parse::<u32>()?.into() } else { value.as_str().into() };
        }
        body["after"] = after;
        let mut answer = replay(&client, &args.place.source, body).await?;
        after = answer["next"].take();
        outcome.take(answer);
        if after.is_null() {
            break;
        }
    }
    print(&if args.json { outcome.json() } else { outcome.text() })?;
    let lacks = exit_code(outcome.lacks.as_deref());
    Ok(if outcome.refused.is_empty() { lacks } else { ExitCode::FAILURE })
}

async fn replay(client: &Client, source: &str, body: Value) -> anyhow::Result<Value> {
    client.replay(source, &body).await.context("replay records")
}

/// Reads an export: the places, and the payloads that are objects.
fn mended(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut records = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("{}:{}", path.display(), number + 1);
        let record: Value = serde_json::from_str(line).with_context(place)?;
        let Some(at) = record["at"].as_str() else {
            bail!("{}: no `at`: give a file that `sanso quarantine export` wrote", place())
        };
        // What is still no object can't be a record; the node says so.
        let payload = Some(record["payload"].clone()).filter(Value::is_object);
        records.push(json!({ "at": at, "payload": payload }));
    }
    Ok(records)
}

impl Outcome {
    fn take(&mut self, mut answer: Value) {
        self.lacks = partial(&answer).or(self.lacks.take());
        for (list, name) in [(&mut self.replayed, "replayed"), (&mut self.refused, "refused")] {
            if let Value::Array(records) = answer[name].take() {
                list.extend(records);
            }
        }
    }

    fn json(&self) -> String {
        format!("{}\n", json!({ "replayed": self.replayed, "refused": self.refused }))
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for record in &self.refused {
            let (kind, reason) = (text_of(&record["kind"]), clean(&text_of(&record["reason"])));
            text.push_str(&format!("{} {kind}: {reason}\n", place_of(record)));
        }
        let (replayed, refused) = (self.replayed.len(), self.refused.len());
        let plural = if replayed == 1 { "" } else { "s" };
        text.push_str(&format!("{replayed} record{plural} replayed"));
        if refused > 0 {
            text.push_str(&format!(", {refused} not"));
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mended_export_is_read_with_its_places() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("refused.jsonl");
        std::fs::write(
            &path,
            "{\"at\":\"0:7\",\"payload\":{\"a\":1}}\n\n{\"at\":\"0:8\",\"payload\":\"{\"}\n",
        )
        .expect("written");
        let expected =
            [json!({ "at": "0:7", "payload": { "a": 1 } }), json!({ "at": "0:8", "payload": null })];
        assert_eq!(mended(&path).expect("read"), expected);
        std::fs::write(&path, "{}\n").expect("written");
        let error = format!("{:#}", mended(&path).expect_err("no place"));
        assert!(error.contains("refused.jsonl:1"), "{error}");
    }

    #[test]
    fn the_outcome_says_what_is_left() {
        let mut outcome = Outcome::default();
        outcome.take(json!({
            "replayed": [{ "partition": 0, "offset": 1 }],
            "refused": [{ "partition": 0, "offset": 2, "kind": "conflict", "reason": "give it a version" }],
        }));
        assert_eq!(outcome.text(), "0:2 conflict: give it a version\n1 record replayed, 1 not\n");
    }
}
