//! `make bench`: how fast, against whom, with how much memory.
//!
//! ```text
//!   sanso-bench ──▶ one process a section ──▶ figures as JSON ──▶ table, file, last run
//! ```
//!
//! A figure that can be, is a ratio: another program does the same work in the
//! same run. Machines differ and are noisy; the ratio is what carries over.

mod batch;
mod contest;
mod experiments;
mod figure;
mod freshness;
mod http;
mod ingest;
mod load;
mod merge;
mod peers;
mod plot;
mod replication;
mod restart;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};

use contest::{Contender, Work};
use experiments::ExperimentsArgs;
use figure::Figure;
use peers::PeersArgs;

/// Measure Sanso against named alternatives.
#[derive(Parser)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  make bench\n  make bench SECTIONS='http freshness'\n  make bench-peers\n  make experiments QUICK=1\n\nThe binary measured is the one that SANSO_BIN names."
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Which sections to run; all when none is named.
    sections: Vec<String>,
    /// Where results are kept: one file a run, and `last.json` to compare with.
    #[arg(long, default_value = "bench-results", value_name = "DIR")]
    results: PathBuf,
    /// Run one section in this process and print its figures as JSON.
    #[arg(long, hide = true)]
    section: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Compare with programs that others would use: DuckDB, Polars, Spark, Flink.
    Peers(PeersArgs),
    /// Run the papers' experiments, with tables and plots.
    Experiments(ExperimentsArgs),
    /// Let one contender do one piece of work in this process, and print its outcome as JSON.
    #[command(hide = true)]
    Contest {
        contender: Contender,
        #[command(flatten)]
        work: Work,
    },
}

/// A section: its name, what it measures, and the measuring.
struct Section {
    name: &'static str,
    about: &'static str,
    run: fn() -> anyhow::Result<Vec<Figure>>,
}

const SECTIONS: &[Section] = &[
    Section {
        name: "merge",
        about: "rows into deltas into view partitions, in one thread, against a plain hash loop",
        run: merge::run,
    },
    Section {
        name: "ingest",
        about: "readings over HTTP into the log, and from the log into views",
        run: ingest::embedded,
    },
    Section { name: "kafka", about: "the same with Apache Kafka as the log", run: ingest::kafka },
    Section {
        name: "batch",
        about: "new views over all that is archived, against DuckDB over the same files",
        run: batch::run,
    },
    Section {
        name: "http",
        about: "view queries over HTTP, against nginx serving the same bytes",
        run: http::run,
    },
    Section {
        name: "freshness",
        about: "from the acknowledgement of a reading to its answer",
        run: freshness::run,
    },
    Section {
        name: "replication",
        about: "deltas, blocks and results of tasks on one, two and three nodes",
        run: replication::run,
    },
    Section { name: "restart", about: "from start to the first exact answer, with state", run: restart::run },
];

type Run = BTreeMap<String, Vec<Figure>>;

#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    match &args.command {
        Some(Command::Peers(args)) => return peers::run(args),
        Some(Command::Experiments(args)) => return experiments::run(args),
        Some(Command::Contest { contender, work }) => {
            println!("{}", serde_json::to_string(&contest::run(*contender, work)?)?);
            return Ok(ExitCode::SUCCESS);
        }
        None => {}
    }
    if let Some(name) = &args.section {
        let figures = (find(name)?.run)()?;
        println!("{}", serde_json::to_string(&figures)?);
        return Ok(ExitCode::SUCCESS);
    }
    let wanted: Vec<&Section> = if args.sections.is_empty() {
        SECTIONS.iter().collect()
    } else {
        args.sections.iter().map(|name| find(name)).collect::<Result<_, _>>()?
    };
    let last = last_run(&args.results)?;
    let mut run = last.clone();
    let mut failed = false;
    for section in wanted {
        println!("\n{}: {}", section.name, section.about);
        match in_own_process(section.name) {
            Ok(figures) => {
                println!("{}", table::of(&figures, last.get(section.name).map(Vec::as_slice)));
                run.insert(section.name.to_owned(), figures);
            }
            Err(error) => {
                println!("  failed: {error:#}");
                failed = true;
            }
        }
    }
    keep(&args.results, &run)?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn find(name: &str) -> anyhow::Result<&'static Section> {
    let known = || SECTIONS.iter().map(|section| section.name).collect::<Vec<_>>().join(", ");
    let section = SECTIONS.iter().find(|section| section.name == name);
    section.with_context(|| format!("there is no section '{name}': use {}", known()))
}

/// Runs a section in a process of its own, so that peak memory is its own.
fn in_own_process(name: &str) -> anyhow::Result<Vec<Figure>> {
    let program = std::env::current_exe().context("find this program")?;
    let output = std::process::Command::new(program)
        .args(["--section", name])
        .stderr(Stdio::inherit())
        .output()
        .context("start the section")?;
    if !output.status.success() {
        bail!("the section ended with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("read the section's figures")
}

fn last_run(results: &Path) -> anyhow::Result<Run> {
    let path = results.join("last.json");
    if !path.is_file() {
        return Ok(Run::new());
    }
    let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("parse {}: remove it to start anew", path.display()))
}

fn keep(results: &Path, run: &Run) -> anyhow::Result<()> {
    std::fs::create_dir_all(results).with_context(|| format!("create {}", results.display()))?;
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let text = serde_json::to_vec_pretty(run)?;
    for name in [format!("{seconds}.json"), "last.json".to_owned()] {
        let path = results.join(name);
        std::fs::write(&path, &text).with_context(|| format!("write {}", path.display()))?;
    }
    ensure!(results.join("last.json").is_file(), "the results were not kept");
    Ok(())
}
