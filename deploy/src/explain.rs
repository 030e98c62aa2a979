//! `sanso explain recovery`: what it would cost to have the blocks of a lost node again.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde::Deserialize;

use crate::http::Client;
use crate::table::{self, Align, bytes, table};
use crate::telemetry;

/// Explain what the platform decides by measurement.
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Recovery(RecoveryArgs),
}

/// Show for a dataset how a lost node's share of it is had again, and how many nodes keep each block.
///
/// Each node decides by what it has measured itself. A way that was never taken is assumed.
#[derive(Args, Debug)]
#[command(after_help = "Exit code: 0 shown, 2 no answer.")]
struct RecoveryArgs {
    /// The dataset, such as readings.newest; `sanso datasets` lists them.
    dataset: String,
    /// The node to ask; any node of a cluster knows of all.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7070", env = "SANSO_URL")]
    to: String,
    /// Print what was measured as JSON.
    #[arg(long)]
    json: bool,
}

/// What one node has measured, and decides by it.
#[derive(Deserialize)]
struct OfNode {
    node: u16,
    figures: Figures,
}

#[derive(Deserialize)]
struct Figures {
    storage: String,
    replicas_declared: String,
    replicas: u8,
    reason: String,
    share: Share,
    cheapest_without: String,
    without_ms: f64,
    with_ms: f64,
    ways: Vec<Way>,
}

#[derive(Deserialize)]
struct Share {
    blocks: u64,
    file_bytes: u64,
    memory_bytes: u64,
    input_bytes: u64,
}

#[derive(Deserialize)]
struct Way {
    way: String,
    block_ms: f64,
    measured: u64,
}

/// Asks the node and shows what it says.
pub(crate) async fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let What::Recovery(args) = args.what;
    let answer = Client::new(&args.to)?.get(&["v1", "datasets"]).await?;
    let all = answer["datasets"].as_array().context("the answer has no datasets")?;
    let of = |name: &str| all.iter().find(|dataset| dataset["name"].as_str() == Some(name));
    let Some(dataset) = of(&args.dataset).or_else(|| of(&format!("{}.newest", args.dataset))) else {
        let names: Vec<&str> = all.iter().filter_map(|dataset| dataset["name"].as_str()).collect();
        bail!("there is no dataset '{}'; there are: {}", args.dataset, names.join(", "));
    };
    if args.json {
        table::print(&format!("{}\n", dataset["recovery"]))?;
        return Ok(ExitCode::SUCCESS);
    }
    let name = dataset["name"].as_str().unwrap_or_default();
    for silent in answer["silent"].as_array().into_iter().flatten() {
        let (node, error) = (&silent["node"], &silent["error"]);
        telemetry::say(&format!("node {node} does not say what it has: {error}"));
    }
    let Some(recovery) = dataset.get("recovery") else {
        table::print(&format!(
            "{name} ({}): {}\n",
            dataset["kind"].as_str().unwrap_or_default(),
            other(dataset)
        ))?;
        return Ok(ExitCode::SUCCESS);
    };
    let nodes: Vec<OfNode> =
        serde_json::from_value(recovery.clone()).context("the answer is not one of this version")?;
    table::print(&shown(name, &nodes))?;
    Ok(ExitCode::SUCCESS)
}

/// Says how a dataset is had again of which nodes keep no blocks.
fn other(dataset: &serde_json::Value) -> &'static str {
    match dataset["kind"].as_str() {
        Some("view") => {
            "its partitions are replicated by the cluster; one that loses all replicas is filled again from \
             its newest version in the dataset and the log after that"
        }
        Some("segments") => {
            "its files are in the object store; a damaged one is archived again while the log has it"
        }
        _ => "the log keeps it",
    }
}

fn shown(name: &str, nodes: &[OfNode]) -> String {
    use Align::{Left, Right};
    let mut out = String::new();
    if nodes.is_empty() {
        return format!("{name}: no node says that it keeps blocks of it\n");
    }
    for OfNode { node, figures } in nodes {
        let Figures { storage, replicas_declared, replicas, reason, share, .. } = figures;
        let Share { blocks, file_bytes, memory_bytes, input_bytes } = share;
        let (files, memory, inputs) = (bytes(*file_bytes), bytes(*memory_bytes), bytes(*input_bytes));
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "{name} on node {node}: storage {storage}, replicas {replicas_declared}\n\
             \x20 has {blocks} blocks: {files} as files, {memory} in memory, made of {inputs}\n\
             \x20 if it were lost: {:.0} ms from {}, {:.0} ms with a copy\n\
             \x20 so {replicas} {} each block: {reason}\n\n",
            figures.without_ms,
            figures.cheapest_without,
            figures.with_ms,
            if *replicas == 1 { "node keeps" } else { "nodes keep" },
        );
        let row = |way: &Way| {
            let measured = if way.measured == 0 { "assumed".to_owned() } else { way.measured.to_string() };
            [format!("  {}", way.way), format!("{:.2}", way.block_ms), measured]
        };
        let head = [("  WAY", Left), ("MS A BLOCK", Right), ("MEASURED", Right)];
        let _ = writeln!(out, "{}", table(head, figures.ways.iter().map(row).collect()));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_figures_of_a_decision_are_told() {
        let figures = json!({
            "storage": "memory", "replicas_declared": "auto", "replicas": 2, "reason": "a copy brings it back sooner",
            "share": { "blocks": 40, "file_bytes": 41_943_040, "memory_bytes": 838_860_800, "input_bytes": 125_829_120 },
            "cheapest_without": "dataset", "without_ms": 400.2, "with_ms": 0.0,
            "ways": [{ "way": "memory", "block_ms": 0.0, "measured": 0 }, { "way": "dataset", "block_ms": 80.04, "measured": 9 }],
            "computed_ms": { "0": 12 },
        });
        let nodes: Vec<OfNode> =
            serde_json::from_value(json!([{ "node": 3, "figures": figures }])).expect("an answer");
        let text = shown("readings.newest", &nodes);
        assert!(text.contains("if it were lost: 400 ms from dataset, 0 ms with a copy"), "{text}");
        assert!(text.contains("so 2 nodes keep each block: a copy brings it back sooner"), "{text}");
        assert!(text.contains("dataset       80.04         9"), "{text}");
        assert!(text.contains("assumed"), "{text}");
    }
}
