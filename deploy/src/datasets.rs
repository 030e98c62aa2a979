//! `sanso datasets`: what there is, what it is made of, and where its parts are.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::http::Client;
use crate::table::{self, Align, bytes, table};
use crate::telemetry;

/// Show all datasets of a running node or cluster: what each is made of, how many parts it has, and
/// which nodes have them at hand.
///
/// As a graph: sanso datasets --format dot | dot -Tsvg > lineage.svg
#[derive(Args, Debug)]
#[command(after_help = "Exit code: 0 shown, 2 no answer.")]
pub(crate) struct DatasetsArgs {
    /// The node to ask; any node of a cluster knows of all.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7070", env = "SANSO_URL")]
    to: String,
    /// How to show them.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Show each part of the newest-version tables too, with the nodes that have it at hand.
    #[arg(long)]
    parts: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table.
    Table,
    /// A graph in the language of Graphviz.
    Dot,
    /// The node's answer.
    Json,
}

/// The part of the answer that is shown.
#[derive(Deserialize)]
struct Answer {
    datasets: Vec<Dataset>,
    silent: Vec<Silent>,
}

#[derive(Deserialize)]
struct Silent {
    node: u16,
    error: String,
}

#[derive(Deserialize)]
struct Dataset {
    name: String,
    kind: String,
    made_of: Vec<String>,
    by: String,
    version: Option<u64>,
    parts: u64,
    rows: Option<u64>,
    bytes: Option<u64>,
    storage: String,
    replicas: String,
    parts_at_hand: Option<u64>,
    parts_copied: Option<u64>,
    #[serde(default)]
    part_list: Option<Vec<Part>>,
}

#[derive(Deserialize)]
struct Part {
    partition: u32,
    date: Option<String>,
    rows: u64,
    bytes: u64,
    places: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
    node: u16,
    #[serde(rename = "in")]
    kept_in: String,
}

/// Asks the node and shows what it says.
pub(crate) async fn run(args: DatasetsArgs) -> anyhow::Result<ExitCode> {
    let parts = if args.parts { "true" } else { "false" };
    let answer = Client::new(&args.to)?.get_with(&["v1", "datasets"], &[("parts", parts)]).await?;
    let text = match args.format {
        Format::Json => format!("{answer}\n"),
        Format::Dot => dot(&read(answer)?),
        Format::Table => {
            let answer = read(answer)?;
            for Silent { node, error } in &answer.silent {
                telemetry::say(&format!("node {node} does not say what it has: {error}"));
            }
            shown(&answer)
        }
    };
    table::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn read(answer: serde_json::Value) -> anyhow::Result<Answer> {
    serde_json::from_value(answer).context("the answer is not one of this version of the program")
}

fn shown(answer: &Answer) -> String {
    use Align::{Left, Right};
    let number = |number: Option<u64>| number.map_or_else(|| "–".to_owned(), |number| number.to_string());
    let row = |dataset: &Dataset| {
        let at_hand = match (dataset.parts_at_hand, dataset.parts_copied) {
            (Some(at_hand), Some(copied)) if copied > 0 => format!("{at_hand} ({copied} twice or more)"),
            (at_hand, _) => number(at_hand),
        };
        [
            dataset.name.clone(),
            dataset.kind.clone(),
            dataset.made_of.join(", "),
            number(dataset.version),
            dataset.parts.to_string(),
            number(dataset.rows),
            dataset.bytes.map_or_else(|| "–".to_owned(), bytes),
            at_hand,
            dataset.storage.clone(),
            dataset.replicas.clone(),
        ]
    };
    let head = [
        ("DATASET", Left),
        ("KIND", Left),
        ("MADE OF", Left),
        ("VERSION", Right),
        ("PARTS", Right),
        ("ROWS", Right),
        ("BYTES", Right),
        ("AT HAND", Right),
        ("STORAGE", Left),
        ("REPLICAS", Left),
    ];
    let mut out = table(head, answer.datasets.iter().map(row).collect());
    for dataset in &answer.datasets {
        if let Some(parts) = &dataset.part_list {
            let head = [
                ("LOG PARTITION", Right),
                ("DATE", Left),
                ("ROWS", Right),
                ("BYTES", Right),
                ("AT HAND ON", Left),
            ];
            // Writing to a string does not fail.
            let _ =
                write!(out, "\nparts of {}\n{}", dataset.name, table(head, parts.iter().map(part).collect()));
        }
    }
    out
}

fn part(part: &Part) -> [String; 5] {
    let place = |place: &Place| format!("node {} ({})", place.node, place.kept_in);
    let places: Vec<String> = part.places.iter().map(place).collect();
    [
        part.partition.to_string(),
        part.date.clone().unwrap_or_else(|| "–".to_owned()),
        part.rows.to_string(),
        bytes(part.bytes),
        if places.is_empty() { "–".to_owned() } else { places.join(", ") },
    ]
}

/// Draws the lineage: from what is made of nothing to the views.
fn dot(answer: &Answer) -> String {
    let mut out = String::from(
        "digraph lineage {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\", fontsize=11];\n",
    );
    for dataset in &answer.datasets {
        let size = match (dataset.rows, dataset.bytes) {
            (Some(rows), Some(size)) => format!("{} parts, {rows} rows, {}", dataset.parts, bytes(size)),
            (None, Some(size)) => format!("{} parts, {}", dataset.parts, bytes(size)),
            _ => format!("{} parts", dataset.parts),
        };
        let label = format!("{}\n{}: {}", dataset.name, dataset.kind, size);
        let (name, label, by) = (quoted(&dataset.name), quoted(&label), quoted(&dataset.by));
        let _ = writeln!(out, "  {name} [label={label}, tooltip={by}];");
        for from in &dataset.made_of {
            let _ = writeln!(out, "  {} -> {name};", quoted(from));
        }
    }
    out.push_str("}\n");
    out
}

/// Writes a string as Graphviz reads it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Answer {
        let newest = json!({
            "name": "readings.newest", "kind": "newest-version table", "source": "readings",
            "made_of": ["readings.segments"], "by": "newest", "version": 3, "parts": 2, "rows": 20, "bytes": 2048,
            "storage": "object store; at hand: memory", "replicas": "auto", "parts_at_hand": 2, "parts_copied": 1,
            "part_list": [
                { "partition": 0, "date": "2024-07-01", "rows": 12, "bytes": 1024,
                  "places": [{ "node": 1, "in": "memory", "bytes": 9 }, { "node": 3, "in": "disk", "bytes": 4 }] },
                { "partition": 1, "date": null, "rows": 8, "bytes": 1024, "places": [] },
            ],
        });
        let view = json!({
            "name": "load", "kind": "view", "source": "readings", "made_of": ["readings.newest", "table network"],
            "by": "SELECT \"a\"", "version": null, "parts": 4, "rows": null, "bytes": null,
            "storage": "memory", "replicas": "as view partitions",
        });
        read(json!({ "datasets": [newest, view], "nodes": [1, 3], "silent": [] })).expect("an answer")
    }

    #[test]
    fn a_table_tells_where_parts_are() {
        let text = shown(&answer());
        assert!(text.contains("2 (1 twice or more)"), "{text}");
        assert!(text.contains("node 1 (memory), node 3 (disk)"), "{text}");
        assert!(text.contains("readings.newest, table network"), "{text}");
    }

    #[test]
    fn a_graph_has_every_dataset_and_what_it_is_made_of() {
        let text = dot(&answer());
        assert!(text.contains("\"readings.newest\" -> \"load\";"), "{text}");
        assert!(text.contains("\"table network\" -> \"load\";"), "{text}");
        assert!(text.contains(r#"tooltip="SELECT \"a\"""#), "{text}");
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
