//! `make experiments`: the experiments of the papers that this project started from, on this machine. Each makes
//! tables, plots and a sentence on what the paper found and what is found here: NAME.md and its SVGs.

mod failover;
mod growth;
mod history;
mod interval;
mod shuffle;
mod storage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use crate::peers::processors;
use crate::plot::Plot;
use crate::table::Table;

/// What `sanso-bench experiments` is told.
#[derive(Args)]
pub(crate) struct ExperimentsArgs {
    /// Which to run; all when none is named.
    names: Vec<String>,
    /// Small sizes: some minutes for all. Its figures say that it runs, not how fast.
    #[arg(long)]
    quick: bool,
    /// Where tables and plots are kept.
    #[arg(long, default_value = "experiments", value_name = "DIR")]
    results: PathBuf,
}

/// An experiment.
struct Experiment {
    name: &'static str,
    title: &'static str,
    /// What the paper says.
    paper: &'static str,
    /// Runs it, in the small size if told so.
    run: fn(quick: bool) -> anyhow::Result<Found>,
}

const EXPERIMENTS: &[Experiment] = &[
    Experiment {
        name: "shuffle",
        title: "Shuffle against late merge",
        paper: "The paper on late merge (Nagoya University; Apache Flink, RocksDB, 100 M tuples, 100,000 keys) found \
                it slower than a shuffle where keys are uniform, faster where they are skewed, and slower \
                the more keys there are.",
        run: shuffle::run,
    },
    Experiment {
        name: "recompute",
        title: "Recomputing against failover",
        paper: "The paper on fault tolerance by a key-value store in memory (tasks of Fibonacci numbers, 20 ms to 5 s) \
                found failover flat and recomputing growing with the task; from tasks of 600 ms on failover was faster, \
                below that its 67 ms for each task cost more than they saved.",
        run: failover::recompute,
    },
    Experiment {
        name: "reload",
        title: "Reloading against failover",
        paper: "The same paper found that reading a lost node's cached file again grows with its size, \
                and failover to be faster from 400 MB a node on.",
        run: failover::reload,
    },
    Experiment {
        name: "interval",
        title: "The interval and the delay",
        paper: "Discretized streams (EECS-2012-259) compute in intervals, with 50 to 200 ms for a task's interval; \
                whatever comes waits for the end of one.",
        run: interval::run,
    },
    Experiment {
        name: "history",
        title: "A day, four weeks, a year",
        paper: "The paper on distribution loads by Spark (10 M meters, up to a year, 1.3 TB) found that a year ended \
                only once what is exchanged was spread over eight more disks, 3.6 times faster.",
        run: history::run,
    },
    Experiment {
        name: "storage",
        title: "A view as large as its readings",
        paper: "The RDD paper keeps what fits in memory, and lets the rest go to disk: what is computed gets slower then, \
                and does not fail.",
        run: storage::run,
    },
    Experiment {
        name: "growth",
        title: "More and more keys",
        paper: "The paper on late merge found that its throughput falls as the keys grow, since every worker has a \
                state for each key that it meets.",
        run: growth::run,
    },
];

/// What an experiment has found.
#[derive(Default)]
struct Found {
    /// In a sentence, after the paper's.
    here: String,
    /// With what stands above each.
    tables: Vec<(String, Table)>,
    /// With a word for each file's name.
    plots: Vec<(&'static str, Plot)>,
}

/// Runs, prints and keeps; one that fails is told, and the others run all the same.
#[expect(clippy::print_stdout, reason = "the tables are what the command is for")]
pub(crate) fn run(args: &ExperimentsArgs) -> anyhow::Result<ExitCode> {
    let wanted: Vec<&Experiment> = match args.names.is_empty() {
        true => EXPERIMENTS.iter().collect(),
        false => args.names.iter().map(|name| find(name)).collect::<Result<_, _>>()?,
    };
    let mut failed = false;
    for experiment in wanted {
        let kept = (experiment.run)(args.quick)
            .and_then(|found| keep(&args.results, experiment, args.quick, &found));
        match kept {
            Ok(text) => println!("\n{text}"),
            Err(error) => {
                println!("\n{} failed: {error:#}", experiment.name);
                failed = true;
            }
        }
    }
    println!("\ntables and plots: {}", args.results.display());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn find(name: &str) -> anyhow::Result<&'static Experiment> {
    let known = || EXPERIMENTS.iter().map(|experiment| experiment.name).collect::<Vec<_>>().join(", ");
    let experiment = EXPERIMENTS.iter().find(|experiment| experiment.name == name);
    experiment.with_context(|| format!("there is no experiment '{name}': use {}", known()))
}

/// Writes what was found; returns it as text.
fn keep(folder: &Path, experiment: &Experiment, quick: bool, found: &Found) -> anyhow::Result<String> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let size = if quick { " Small sizes: no measurement, a trial of the experiment." } else { "" };
    let (title, paper, here) = (experiment.title, experiment.paper, &found.here);
    let mut text = format!("# {title}\n\n{paper} {here}\n\nOn {} processors.{size}\n", processors());
    for (word, plot) in &found.plots {
        let name = format!("{}-{word}.svg", experiment.name);
        write(&name, &plot.svg())?;
        text += &format!("\n![{}]({name})\n", plot.title);
    }
    for (what, table) in &found.tables {
        text += &format!("\n{what}\n\n{table}");
    }
    write(&format!("{}.md", experiment.name), &text)?;
    Ok(text)
}
