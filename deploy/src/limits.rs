//! `sanso limits`: every bound of a running node, or of all nodes of a cluster, with its current use.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use crate::http::Client;
use crate::table::{self, Align::Left, Align::Right};

/// Show every limit of a running node and what is used of it now; of each node of a cluster.
///
/// What is over 90 percent is marked with an exclamation mark, except for
/// caches, which are meant to be full.
#[derive(Args, Debug)]
#[command(after_help = "Exit code: 0 shown, 1 a node of the cluster does not answer, 2 no answer.")]
pub(crate) struct LimitsArgs {
    /// The node to ask.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7070", env = "SANSO_URL")]
    to: String,
    /// Print the answer as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Asks the node and prints the table.
pub(crate) async fn run(args: LimitsArgs) -> anyhow::Result<ExitCode> {
    let answer = Client::new(&args.to)?.get(&["v1", "limits"]).await?;
    let text = if args.json { format!("{answer}\n") } else { tables(&answer)? };
    table::print(&text)?;
    let is_whole = nodes(&answer).iter().all(|node| node["answers"] == true);
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the nodes of a cluster in an answer; none of a single node.
fn nodes(answer: &Value) -> &[Value] {
    answer["nodes"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Writes one table, or one for each node of a cluster.
fn tables(answer: &Value) -> anyhow::Result<String> {
    if nodes(answer).is_empty() {
        return table(answer);
    }
    let mut out = String::new();
    for node in nodes(answer) {
        let text = match node["error"].as_str() {
            Some(error) => format!("does not answer: {error}\n"),
            None => table(node)?,
        };
        let gap = if out.is_empty() { "" } else { "\n" };
        out.push_str(&format!("{gap}node {}\n{text}", node["node"]));
    }
    Ok(out)
}

fn table(answer: &Value) -> anyhow::Result<String> {
    let limits = answer["limits"].as_array().context("the answer has no limits")?;
    let head = [
        ("LIMIT", Left),
        ("USED", Right),
        ("MAX", Right),
        ("%", Right),
        ("SETTING", Left),
        ("WHEN REACHED", Left),
    ];
    Ok(table::table(head, limits.iter().map(row).collect()))
}

fn row(limit: &Value) -> [String; 6] {
    let text = |name: &str| limit[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| limit[name].as_u64().unwrap_or(0);
    let unit = text("unit");
    let percent = number("fullest_percent");
    let mark = if percent >= 90 { "!" } else { "" };
    let setting = text("setting");
    [
        text("name"),
        amount(number("used"), &unit),
        amount(number("max"), &unit),
        format!("{mark}{percent}"),
        if setting.is_empty() { "–".to_owned() } else { setting },
        text("then"),
    ]
}

/// Writes an amount with its unit; bytes in mebibytes from one on.
fn amount(count: u64, unit: &str) -> String {
    const MEBIBYTE: u64 = 1 << 20;
    match unit {
        "bytes" if count >= MEBIBYTE => format!("{:.1} MiB", count as f64 / MEBIBYTE as f64),
        unit => format!("{count} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_are_a_table_that_marks_what_is_nearly_reached() {
        let answer = json!({ "limits": [
            { "name": "a.queue", "unit": "bytes", "used": 512, "max": 2_097_152, "parts": 2, "fullest_percent": 1,
              "setting": "a.queue_max", "then": "the append waits" },
            { "name": "b", "unit": "groups", "used": 19, "max": 20, "parts": 1, "fullest_percent": 95,
              "setting": "", "then": "503" },
        ] });
        let expected = "LIMIT         USED        MAX    %  SETTING      WHEN REACHED\n\
                        a.queue  512 bytes    2.0 MiB    1  a.queue_max  the append waits\n\
                        b        19 groups  20 groups  !95  –            503\n";
        assert_eq!(tables(&answer).expect("a table"), expected);
        let all = json!({ "limits": [], "node": 1, "nodes": [
            { "node": 1, "answers": true, "limits": answer["limits"] },
            { "node": 3, "answers": false, "error": "no answer within 500 ms" },
        ] });
        let all = tables(&all).expect("tables");
        assert_eq!(all, format!("node 1\n{expected}\nnode 3\ndoes not answer: no answer within 500 ms\n"));
    }
}
