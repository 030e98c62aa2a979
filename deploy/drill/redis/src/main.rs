//! The same drill on Redis Cluster: three masters, three replicas, and an ordinary client. What Sanso's
//! own stalls are held against.

mod cluster;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use sanso_drill::load::Load;
use sanso_drill::{Fault, Outcome, Settings, command, fault, report, run};

use crate::cluster::{Cluster, Tuning};

/// Run drills on a Redis Cluster of three masters and three replicas.
///
/// Each combination of timeouts and fault has a fresh cluster of its own. The keys, the load and the
/// client's patience are those of `sanso drill`.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:\n  make drill-redis\n  sanso-drill-redis --fault kill --tuning tuned")]
struct Args {
    /// The faults; kill and pause when none is named.
    #[arg(long, value_name = "NAME")]
    fault: Vec<String>,
    /// The clusters: `default`, `tuned` (node timeout 500 ms) or `replicas` (tuned, and reads go to
    /// replicas too); all when none is named.
    #[arg(long, value_name = "NAME")]
    tuning: Vec<String>,
    /// How long a fault holds; with the default timeouts never less than 25, so that it is Redis that
    /// ends it.
    #[arg(long, default_value_t = 10, value_name = "N")]
    hold_seconds: u64,
    /// How often each is done.
    #[arg(long, default_value_t = 1, value_name = "N")]
    repeat: u32,
    /// Requests of all clients together in a second, as of `sanso drill`.
    #[arg(long, default_value_t = 180, value_name = "N")]
    rate: u32,
    /// Where results and pictures are put.
    #[arg(long, default_value = "drill-results", value_name = "DIR")]
    out: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    ensure!(args.rate >= 18, "--rate is 18 at least: one request a second for each client");
    let faults = faults(&args.fault)?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    for tuning in tunings(&args.tuning)? {
        for fault in &faults {
            for repetition in 1..=args.repeat {
                let outcome = drill(tuning, fault, &args).await?;
                let name = format!("redis-{}-{}-{repetition}", tuning.name(), fault.name);
                let picture = outcome.write(&args.out, &name)?;
                say(&report::verdict(&outcome));
                say(&format!("    timeline: {}", picture.display()));
                outcomes.push(outcome);
            }
        }
    }
    say(&report::comparison(&outcomes));
    Ok(ExitCode::SUCCESS)
}

async fn drill(tuning: Tuning, fault: &Fault, args: &Args) -> anyhow::Result<Outcome> {
    let hold = if tuning == Tuning::Default { args.hold_seconds.max(25) } else { args.hold_seconds };
    let load = Load::of(args.rate);
    let settings = Settings { load, hold: Duration::from_secs(hold), ..Settings::default() };
    let mut cluster = Cluster::start(tuning).await.context("start Redis Cluster")?;
    // It promises nothing of how long a client waits.
    run(&mut cluster, &Fault { bounds: None, ..fault.clone() }, &settings).await
}

fn faults(names: &[String]) -> anyhow::Result<Vec<Fault>> {
    let default = ["kill".to_owned(), "pause".to_owned()];
    let names = if names.is_empty() { default.as_slice() } else { names };
    command::find(&fault::all(cluster::NODES), names)
}

fn tunings(names: &[String]) -> anyhow::Result<Vec<Tuning>> {
    if names.is_empty() {
        return Ok(Tuning::ALL.to_vec());
    }
    let find = |name: &String| {
        let found = Tuning::ALL.into_iter().find(|tuning| tuning.name() == name);
        found.with_context(|| format!("there is no tuning '{name}': use default, tuned or replicas"))
    };
    names.iter().map(find).collect()
}

#[expect(clippy::print_stdout, reason = "the verdict is what the command is for")]
fn say(text: &str) {
    println!("{text}");
}
