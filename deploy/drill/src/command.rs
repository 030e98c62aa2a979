//! The command line: which faults, on what, and where the results go.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::client::Patience;
use crate::drill::{Outcome, Settings, run as run_drill};
use crate::fault::{self, Act, Fault, Pick};
use crate::load::Load;
use crate::report;
use crate::sanso::{CONTAINERS, Cluster, Containers, Dev, Plan, Storage};

/// Inflict faults on a cluster under load, and judge what its clients saw.
///
/// Starts a cluster of its own for each fault, with its log in Kafka: processes on loopback ports, or
/// containers; loads it with readings and questions; inflicts the fault; compares everything with what
/// was sent. Exit code 1 when a promise was broken.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  sanso drill\n  sanso drill --fault pause --nodes 5 --repeat 5\n  sanso drill --compose --fault kill --fault cut\n  sanso drill --list"
)]
pub struct DrillArgs {
    /// Faults by name, or `all`; kill and pause when none is named.
    #[arg(long, value_name = "NAME")]
    fault: Vec<String>,
    /// The number of nodes, 3 or more; 1 drills `sanso dev`, where nothing is promised of waiting.
    #[arg(long, default_value_t = 3, value_name = "N")]
    nodes: usize,
    /// Drill the containers of a checkout's deploy/compose.yaml instead: real Kafka, a real object store,
    /// five nodes with mixed roles and mutual TLS. DIR is the checkout's folder deploy. Brought up anew
    /// for each drill, which takes a minute or two, on the ports that `make cluster` uses.
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "deploy", conflicts_with = "nodes")]
    compose: Option<PathBuf>,
    /// How long a fault holds; the load runs as long before it, and after it.
    #[arg(long, default_value_t = 5, value_name = "N")]
    seconds: u64,
    /// How long a client waits for a node before it asks the next, in milliseconds.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    client_timeout_ms: u64,
    /// Requests of all clients together in a second: a third are readings, the rest questions.
    #[arg(long, default_value_t = 180, value_name = "N")]
    rate: u32,
    /// Readings that the views hold already when the load begins; nobody asks for them.
    #[arg(long, default_value_t = 0, value_name = "N")]
    preload: u32,
    /// Where the groups of views are kept; on disk, only view partitions with thousands of groups are: see --preload.
    #[arg(long, value_enum, default_value_t, conflicts_with = "compose")]
    storage: Storage,
    /// How often each fault is inflicted, each time on another node.
    #[arg(long, default_value_t = 1, value_name = "N")]
    repeat: usize,
    /// Where results and pictures are put.
    #[arg(long, default_value = "drill-results", value_name = "DIR")]
    out: PathBuf,
    /// List the faults and stop.
    #[arg(long)]
    list: bool,
}

/// Runs the drills on a binary; fails the exit code when a promise was broken, or a drill failed.
pub async fn run(args: &DrillArgs, binary: &Path) -> anyhow::Result<ExitCode> {
    ensure!(args.nodes == 1 || args.nodes >= 3, "--nodes is 1, or 3 and more");
    ensure!(args.seconds > 0 && args.client_timeout_ms > 0, "times are greater than zero");
    ensure!(args.rate >= 18, "--rate is 18 at least: one request a second for each client");
    let nodes = if args.compose.is_some() { CONTAINERS } else { args.nodes };
    let mut all = fault::all(nodes);
    if args.compose.is_some() {
        all.retain(Containers::suffer);
    }
    if args.list {
        all.iter().for_each(|fault| say(&format!("{:<10} {}", fault.name, fault.about)));
        return Ok(ExitCode::SUCCESS);
    }
    tokio::select! {
        code = drills(args, binary, &all) => code,
        // What runs is dropped, and so ended and removed.
        stopped = asked_to_stop() => stopped.and_then(|()| bail!("stopped before the drills were over")),
    }
}

/// Resolves on Ctrl-C or SIGTERM.
async fn asked_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt.context("listen for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    }
}

async fn drills(args: &DrillArgs, binary: &Path, all: &[Fault]) -> anyhow::Result<ExitCode> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut failed = false;
    for fault in wanted(all, &args.fault)? {
        for repetition in 0..args.repeat {
            match drill(args, binary, &fault, repetition).await {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => {
                    failed = true;
                    say(&format!("\n  {}: the drill failed: {error:#}", fault.name));
                }
            }
        }
    }
    say(&report::comparison(&outcomes));
    let broken = outcomes.iter().filter(|outcome| !outcome.broken.is_empty()).count();
    say(&format!(
        "  {broken} of {} drills broke a promise; results are in {}\n",
        outcomes.len(),
        args.out.display()
    ));
    Ok(if broken == 0 && !failed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one drill on a cluster of its own and writes its results.
async fn drill(args: &DrillArgs, binary: &Path, fault: &Fault, repetition: usize) -> anyhow::Result<Outcome> {
    let each = Duration::from_secs(args.seconds);
    let attempt = Duration::from_millis(args.client_timeout_ms);
    let patience = Patience { attempt, ..Patience::default() };
    let load = Load::of(args.rate);
    let settings = Settings {
        load,
        patience,
        before: each,
        hold: each,
        after: each,
        preload: args.preload,
        ..Settings::default()
    };
    let (outcome, kind) = if let Some(deploy) = &args.compose {
        let mut target = Containers::start(deploy, &args.out.join("containers"), repetition, attempt)?;
        (run_drill(&mut target, fault, &settings).await?, "compose".to_owned())
    } else if args.nodes == 1 {
        let mut target = Dev::start(binary, attempt, args.storage)?;
        let fault = Fault { bounds: None, ..fault.clone() };
        (run_drill(&mut target, &fault, &settings).await?, "1".to_owned())
    } else {
        let plan = Plan {
            nodes: args.nodes,
            brokers: if fault.has(|_, pick| pick == Pick::Broker) { 3 } else { 1 },
            small_disks: fault.has(|act, _| act == Act::FillDisk),
            own_clocks: fault.has(|act, _| matches!(act, Act::JumpClock(_))),
            first: repetition,
            patience: attempt,
            storage: args.storage,
        };
        let mut target = Cluster::start(binary, &plan)?;
        (run_drill(&mut target, fault, &settings).await?, args.nodes.to_string())
    };
    let picture = outcome.write(&args.out, &format!("{}-{kind}-{}", fault.name, repetition + 1))?;
    say(&report::verdict(&outcome));
    say(&format!("    timeline: {}", picture.display()));
    Ok(outcome)
}

fn wanted(all: &[Fault], names: &[String]) -> anyhow::Result<Vec<Fault>> {
    if names.iter().any(|name| name == "all") {
        return Ok(all.to_vec());
    }
    let default = ["kill".to_owned(), "pause".to_owned()];
    let names = if names.is_empty() { default.as_slice() } else { names };
    find(all, names)
}

/// Finds faults by their names, in the order of the names.
pub fn find(all: &[Fault], names: &[String]) -> anyhow::Result<Vec<Fault>> {
    let known = || all.iter().map(|fault| fault.name).collect::<Vec<_>>().join(", ");
    let find = |name: &String| {
        let fault = all.iter().find(|fault| fault.name == *name).cloned();
        fault.with_context(|| format!("there is no fault '{name}': use {}", known()))
    };
    names.iter().map(find).collect()
}

#[expect(clippy::print_stdout, reason = "the verdict is what the command is for")]
fn say(text: &str) {
    println!("{text}");
}
