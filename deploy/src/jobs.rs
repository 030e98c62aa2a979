//! `sanso jobs`: what the batch layer works on, and what it worked on last.

mod watch;

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::Value;

use crate::http::Client;
use crate::table::{self, Align, span, table};

/// Show what the batch layer of a running node or cluster works on, and what it worked on last.
///
/// A job makes a new version of a source, or computes views that are new. It is made of tasks: in a cluster one for
/// each log partition, done by all nodes that have the batch layer.
///
/// There is nothing to cancel: a job follows from what is in the log and from what is declared, so the next look would
/// begin it again. A view that is no longer wanted is taken out of the files that declare it; a cluster then computes it no
/// further.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit code: 0 shown, 1 a node of the cluster does not answer, 2 no answer, 130 watching was interrupted."
)]
pub(crate) struct JobsArgs {
    /// The node to ask; any node of a cluster knows of all.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7070", env = "SANSO_URL")]
    to: String,
    /// How to show them.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Go on until interrupted: bars on a terminal, else a line for each change; with --format json the node's answer,
    /// a line for each look.
    #[arg(long)]
    watch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables.
    Table,
    /// The node's answer.
    Json,
}

/// The part of the answer that is shown.
#[derive(Deserialize)]
struct Answer {
    running: Vec<Job>,
    ended: Vec<Job>,
    driver: Option<u16>,
    unanswered: Vec<Unanswered>,
}

#[derive(Deserialize)]
struct Unanswered {
    node: u16,
    error: String,
}

#[derive(Clone, Deserialize)]
struct Job {
    source: String,
    driver: Option<u16>,
    kind: String,
    version: u64,
    views: Vec<String>,
    tasks: u64,
    done: u64,
    found: u64,
    running: u64,
    waiting: u64,
    twins: u64,
    lost: u64,
    failed: u64,
    refused: u64,
    elapsed_ms: u64,
    remaining_ms: Option<u64>,
    nodes: Vec<Node>,
    runs: Vec<Run>,
    #[serde(default)]
    outcome: String,
    error: Option<String>,
    ended: Option<String>,
}

#[derive(Clone, Deserialize)]
struct Node {
    node: u16,
    done: u64,
    running: u64,
    waiting: u64,
}

#[derive(Clone, Deserialize)]
struct Run {
    task: String,
    node: u16,
    elapsed_ms: u64,
}

/// Asks the node and shows what it says.
pub(crate) async fn run(args: JobsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.to)?;
    if args.watch {
        return watch::run(&client, args.format).await;
    }
    let answer = client.get(&["v1", "jobs"]).await?;
    let is_whole = answer["unanswered"].as_array().is_none_or(Vec::is_empty);
    let text = match args.format {
        Format::Json => format!("{answer}\n"),
        Format::Table => shown(&read(answer)?),
    };
    table::print(&text)?;
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(answer: Value) -> anyhow::Result<Answer> {
    serde_json::from_value(answer).context("the answer is not one of this version of the program")
}

impl Job {
    /// Names it to people.
    fn name(&self) -> String {
        let (source, version) = (&self.source, self.version);
        match self.kind.as_str() {
            "views" => format!("{} from {source}, version {version}", self.views.join(", ")),
            _ => format!("{source}, version {version}"),
        }
    }

    fn driver(&self) -> String {
        self.driver.map_or_else(|| "–".to_owned(), |node| format!("node {node}"))
    }

    /// Says what was out of the ordinary.
    fn troubles(&self) -> String {
        let all = [
            (self.found, "done before"),
            (self.twins, "twins"),
            (self.lost, "lost"),
            (self.failed, "failed"),
            (self.refused, "refused"),
        ];
        let told = all.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        told.collect::<Vec<_>>().join(", ")
    }
}

fn shown(answer: &Answer) -> String {
    use Align::{Left, Right};
    let mut out = String::new();
    for Unanswered { node, error } in &answer.unanswered {
        // Writing to a string does not fail.
        let _ = writeln!(out, "node {node} does not answer: {error}");
    }
    match (answer.running.is_empty(), answer.driver) {
        (false, _) => running(answer, &mut out),
        (true, Some(driver)) => {
            _ = writeln!(out, "the batch layer, driven by node {driver}, has nothing to do")
        }
        (true, None) => out.push_str("the batch layer has nothing to do\n"),
    }
    if !answer.ended.is_empty() {
        let head = [
            ("LAST", Left),
            ("DRIVER", Left),
            ("OUTCOME", Left),
            ("TASKS", Right),
            ("TOOK", Right),
            ("ENDED", Left),
            ("", Left),
        ];
        let row = |job: &Job| {
            let what = job.error.clone().unwrap_or_else(|| job.troubles());
            let (took, ended) = (span(job.elapsed_ms), job.ended.clone().unwrap_or_default());
            [job.name(), job.driver(), job.outcome.clone(), job.tasks.to_string(), took, ended, what]
        };
        let _ = write!(out, "\n{}", table(head, answer.ended.iter().map(row).collect()));
    }
    out
}

fn running(answer: &Answer, out: &mut String) {
    use Align::{Left, Right};
    let head = [
        ("JOB", Left),
        ("DRIVER", Left),
        ("DONE", Right),
        ("RUNNING", Right),
        ("WAITING", Right),
        ("ELAPSED", Right),
        ("REMAINS", Right),
        ("", Left),
    ];
    let row = |job: &Job| {
        let done = format!("{} of {}", job.done, job.tasks);
        let remains = job.remaining_ms.map_or_else(|| "–".to_owned(), |ms| format!("about {}", span(ms)));
        let (running, waiting) = (job.running.to_string(), job.waiting.to_string());
        [job.name(), job.driver(), done, running, waiting, span(job.elapsed_ms), remains, job.troubles()]
    };
    out.push_str(&table(head, answer.running.iter().map(row).collect()));
    for job in &answer.running {
        if job.driver.is_some() {
            let head = [("NODE", Left), ("DONE", Right), ("RUNNING", Right), ("WAITING", Right)];
            let row = |node: &Node| {
                let counts = [node.done, node.running, node.waiting].map(|count| count.to_string());
                let [done, running, waiting] = counts;
                [format!("node {}", node.node), done, running, waiting]
            };
            let _ = write!(out, "\n{}", table(head, job.nodes.iter().map(row).collect()));
        }
        if !job.runs.is_empty() {
            let head = [("RUNNING TASK", Left), ("AT", Left), ("FOR", Right)];
            let at =
                |run: &Run| job.driver.map_or_else(|| "here".to_owned(), |_| format!("node {}", run.node));
            let row = |run: &Run| [run.task.clone(), at(run), span(run.elapsed_ms)];
            let _ = write!(out, "\n{}", table(head, job.runs.iter().map(row).collect()));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn job(version: u64) -> Value {
        json!({
            "source": "readings", "driver": 2, "kind": "advance", "version": version, "views": ["load"], "tasks": 6, "done": 3,
            "found": 1, "running": 2, "waiting": 1, "twins": 0, "lost": 1, "failed": 0, "refused": 0, "elapsed_ms": 90_500,
            "remaining_ms": 1_200, "nodes": [{ "node": 1, "done": 2, "running": 1, "waiting": 0 }],
            "runs": [{ "task": "advance of readings/4 to version 9", "node": 1, "elapsed_ms": 400 }],
        })
    }

    pub(crate) fn ended(version: u64, outcome: &str, error: Option<&str>) -> Value {
        let mut job = job(version);
        job["outcome"] = outcome.into();
        job["error"] = error.into();
        job["ended"] = format!("2026-01-01T00:00:0{version}Z").into();
        job
    }

    pub(crate) fn answer(running: &[Value], ended: &[Value]) -> Value {
        json!({ "running": running, "ended": ended, "driver": 2, "unanswered": [{ "node": 3, "error": "lost" }] })
    }

    #[test]
    fn tables_tell_what_runs_where_and_what_was_out_of_the_ordinary() {
        let failed = ended(8, "failed", Some("the store is full"));
        let text = shown(&read(answer(&[job(9)], &[failed])).expect("an answer"));
        for expected in [
            "node 3 does not answer: lost",
            "readings, version 9  node 2  3 of 6        2        1  1 min 30 s  about 1.2 s  1 done before, 1 lost",
            "node 1     2        1        0",
            "advance of readings/4 to version 9  node 1  400 ms",
            "readings, version 8  node 2  failed       6  1 min 30 s  2026-01-01T00:00:08Z  the store is full",
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected}\nis not in\n{text}");
        }
    }

    #[test]
    fn nothing_to_do_is_said() {
        let text = shown(&read(answer(&[], &[])).expect("an answer"));
        assert!(text.contains("driven by node 2, has nothing to do"), "{text}");
    }
}
