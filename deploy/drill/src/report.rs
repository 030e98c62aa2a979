//! A drill's outcome as text.

use std::fmt::Write;

use crate::drill::Outcome;
use crate::history::{Class, History, Request};
use crate::judge::{Judgement, Phase, Rule, Stall};

/// From this on the instrument says that it was late itself.
const LATE_MS: f64 = 50.0;

/// How the batch layer begins to say that a task of a lost node is done.
const RECOVERED: &str = " INFO recovered ";
/// Those that are told of each node.
const RECOVERIES_MAX: usize = 8;

/// Writes the verdict of a drill for the terminal.
pub fn verdict(outcome: &Outcome) -> String {
    let judgement = &outcome.judgement;
    let mut text = format!("\n  {}: {}\n", outcome.target, outcome.fault);
    for mark in &outcome.marks {
        let (from, to) = (seconds(mark.from_us), seconds(mark.to_us));
        let _ = writeln!(text, "    {} at {from:.2} s, all well at {to:.2} s", mark.what);
    }
    text.push_str(&stalls(judgement));
    text.push_str(&latencies(judgement));
    let count = |rule| judgement.findings.iter().filter(|finding| finding.rule == rule).count();
    let rules: Vec<String> =
        Rule::ALL.iter().map(|rule| format!("{} {}", rule.name(), count(*rule))).collect();
    let _ = writeln!(
        text,
        "    {} operations, {} readings acknowledged; {} attempts failed, {} operations were given up\n    {}",
        judgement.operations,
        judgement.acknowledged,
        judgement.errors,
        judgement.given_up,
        rules.join(", ")
    );
    let _ = writeln!(
        text,
        "    an answer lacked what had been acknowledged {:.0} ms before; the instrument was late by up to {:.1} ms",
        judgement.staleness_ms, judgement.instrument_late_ms
    );
    if judgement.instrument_late_ms >= LATE_MS {
        text.push_str("    NOTE    this machine was too busy: waits are partly the instrument's own\n");
    }
    text.push_str(&recoveries(&outcome.logs));
    for broken in &outcome.broken {
        let _ = writeln!(text, "    BROKEN  {broken}");
    }
    if outcome.broken.is_empty() {
        text.push_str("    every promise was kept\n");
    }
    text
}

/// Returns what nodes said of the batch layer's tasks that they recovered.
fn recoveries(logs: &[(String, String)]) -> String {
    let mut text = String::new();
    for (node, said) in logs {
        let recovered = said.lines().filter_map(|line| line.split_once(RECOVERED));
        let lines: Vec<&str> = recovered.map(|(_, what)| what).collect();
        for what in lines.iter().take(RECOVERIES_MAX) {
            let _ = writeln!(text, "    {node} recovered {what}");
        }
        if lines.len() > RECOVERIES_MAX {
            let _ = writeln!(text, "    {node} recovered {} more", lines.len() - RECOVERIES_MAX);
        }
    }
    text
}

fn stalls(judgement: &Judgement) -> String {
    let mut text = String::from("    worst stall           of all   at a node in trouble\n");
    for class in Class::ALL {
        let worst = |stall: Option<&Stall>| match stall {
            Some(stall) => {
                format!("{} {:.1} ms", if stall.unended { "over" } else { "" }, stall.ms).trim().to_owned()
            }
            None => "–".to_owned(),
        };
        let (all, stranded) = (judgement.stalls.worst(class), judgement.stalls.stranded.get(&class));
        if all.is_some() {
            let _ = writeln!(
                text,
                "      {:<10} {:>16} {:>22}",
                class.name(),
                worst(all.as_ref()),
                worst(stranded)
            );
        }
    }
    text
}

fn latencies(judgement: &Judgement) -> String {
    let mut text = String::from("    latency, ms              p50      p99    p99.9      max   answers\n");
    for class in Class::ALL {
        for phase in Phase::ALL {
            let latencies = judgement.latencies.iter();
            let mut same = latencies.filter(|latency| latency.class == class && latency.phase == phase);
            if let Some(latency) = same.next() {
                let _ = writeln!(
                    text,
                    "      {:<8} {:<8} {:>9.2} {:>8.2} {:>8.2} {:>8.1} {:>9}",
                    class.name(),
                    phase.name(),
                    latency.p50_ms,
                    latency.p99_ms,
                    latency.p999_ms,
                    latency.max_ms,
                    latency.answers
                );
            }
        }
    }
    text
}

/// Writes one line for each drill: what a table in the README needs.
pub fn comparison(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "\n  {:<44} {:<8} {:>12} {:>12} {:>12} {:>6} {:>8}\n",
        "cluster", "fault", "read stall", "write stall", "visible", "lost", "failed"
    );
    for outcome in outcomes {
        let judgement = &outcome.judgement;
        let stall = |class| {
            judgement.stalls.worst(class).map_or("–".to_owned(), |stall| {
                format!("{}{:.0} ms", if stall.unended { ">" } else { "" }, stall.ms)
            })
        };
        let lost = judgement.findings.iter().filter(|finding| finding.rule == Rule::Lost).count();
        let _ = writeln!(
            text,
            "  {:<44} {:<8} {:>12} {:>12} {:>12} {lost:>6} {:>8}",
            outcome.target,
            outcome.fault,
            stall(Class::Read),
            stall(Class::Write),
            stall(Class::Visible),
            judgement.given_up
        );
    }
    text
}

/// Writes all operations as CSV, in order of when they were due. Times are in microseconds.
pub fn operations(history: &History) -> String {
    let mut operations: Vec<_> = history.operations.iter().collect();
    operations.sort_by_key(|operation| (operation.due_us, operation.client));
    let mut text =
        String::from("client,request,key,sequence,due_us,ended_us,good,readings,attempts,nodes,last_error\n");
    for operation in operations {
        let (name, sequence) = match operation.request {
            Request::Write { sequence, .. } => ("write", sequence.to_string()),
            Request::Visible { .. } => ("visible", String::new()),
            Request::Point { .. } => ("point", String::new()),
            Request::Range { .. } => ("range", String::new()),
            Request::Total => ("total", String::new()),
        };
        let nodes: Vec<String> =
            operation.attempts.iter().filter_map(|attempt| Some(attempt.node?.to_string())).collect();
        let error = operation.attempts.iter().rev().find_map(|attempt| attempt.error.as_deref());
        let _ = writeln!(
            text,
            "{},{name},{},{sequence},{},{},{},{},{},{},\"{}\"",
            operation.client,
            operation.request.key().map(|key| key.to_string()).unwrap_or_default(),
            operation.due_us,
            operation.ended_us(),
            operation.good().is_some(),
            operation.seen.map(|seen| seen.readings.to_string()).unwrap_or_default(),
            operation.attempts.len(),
            nodes.join(" "),
            error.unwrap_or_default().replace('"', "'")
        );
    }
    text
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recovered_is_told_by_node_and_not_without_end() {
        let line = "2026-11-22T13:26:57.236325Z  INFO recovered task=\"lift\" of=node 2 by=node 1\n";
        let logs =
            [("node 1".to_owned(), line.repeat(10)), ("node 2".to_owned(), "INFO all is well\n".to_owned())];
        let told = recoveries(&logs);
        assert_eq!(told.lines().count(), 9);
        assert_eq!(told.lines().next(), Some("    node 1 recovered task=\"lift\" of=node 2 by=node 1"));
        assert_eq!(told.lines().last(), Some("    node 1 recovered 2 more"));
    }
}
