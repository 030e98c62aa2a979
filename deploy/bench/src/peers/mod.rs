//! `make bench-peers`: the batch layer and late merge against programs that others would use for the same work,
//! in one run on one machine. What a peer has found is held against ours before its time counts; one that is
//! not installed is named and left out.

pub(crate) mod engine;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::runtime::Runtime;

use self::engine::{DUCKDB, How, POLARS, SPARK};
use crate::batch::{Archive, Size};
use crate::contest::{self, Contender, Rounds, Work};
use crate::table::{Table, number, short};

/// What `sanso-bench peers` is told.
#[derive(Args)]
pub(crate) struct PeersArgs {
    /// What to compare; both when none is named.
    parts: Vec<Part>,
    /// Meters of the distribution load.
    #[arg(long, default_value_t = 100_000)]
    meters: u32,
    /// Days of half-hourly readings of each meter.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=336))]
    days: u32,
    /// Tuples of the late merge.
    #[arg(long, default_value_t = 20_000_000)]
    tuples: u64,
    /// Where the tables are kept.
    #[arg(long, default_value = "bench-results", value_name = "DIR")]
    results: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Distribution load: the batch layer, DuckDB, Polars, Spark.
    Load,
    /// Sums by key: late merge, shuffle, a loop by hand, Flink.
    Merge,
}

/// A table, and the peers that failed.
#[derive(Default)]
struct Comparison {
    text: String,
    failed: bool,
}

/// Compares, prints and keeps; a peer that failed or whose results differ is a failure.
#[expect(clippy::print_stdout, reason = "the tables are what the command is for")]
pub(crate) fn run(args: &PeersArgs) -> anyhow::Result<ExitCode> {
    let mut failed = false;
    for part in [Part::Load, Part::Merge] {
        if !args.parts.is_empty() && !args.parts.contains(&part) {
            continue;
        }
        let (file, found) = match part {
            Part::Load => {
                let size = Size { meters: args.meters, days: args.days };
                ("peers-load.md", Runtime::new()?.block_on(load(size))?)
            }
            Part::Merge => ("peers-merge.md", merge(args.tuples)?),
        };
        println!("\n{}", found.text);
        failed |= found.failed;
        std::fs::create_dir_all(&args.results)?;
        let path = args.results.join(file);
        std::fs::write(&path, &found.text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn load(size: Size) -> anyhow::Result<Comparison> {
    let archive = Archive::of(size).await?;
    let (answers, seconds, peak_mb) = archive.ours().await?;
    let mut table =
        Table::new(["", "seconds", "once more", "of Sanso's time", "readings/s", "peak memory, MB"]);
    table.row([
        "Sanso, from its start to the answers".to_owned(),
        format!("{seconds:.2}"),
        String::new(),
        "1".to_owned(),
        number(size.readings() / seconds),
        format!("{peak_mb:.0}"),
    ]);
    let (mut notes, mut failed) = (String::new(), false);
    for engine in [DUCKDB, POLARS, SPARK] {
        if let Some(why) = engine.absent() {
            notes += &format!("\nLEFT OUT, not installed: {} ({why}).\n", engine.name);
            continue;
        }
        for (how, what) in [(How::Each, "each level of the readings"), (How::Up, "rolled up")] {
            let run = engine.run(&archive, how).and_then(|run| run.compared(&answers).map(|()| run));
            match run {
                Ok(run) => table.row([
                    format!("{} {}, {what}", engine.name, run.version),
                    format!("{:.2}", run.first_s),
                    format!("{:.2}", run.again_s),
                    format!("{:.2} ×", run.first_s / seconds),
                    number(size.readings() / run.first_s),
                    format!("{:.0}", run.peak_mb),
                ]),
                Err(error) => {
                    notes += &format!("\nFAILED: {}, {what}: {error:#}\n", engine.name);
                    failed = true;
                }
            }
        }
    }
    let title = format!(
        "Loads of transformers, feeders and substations and the feeders' daily peaks, of {} readings \
         ({} meters, {} days) in Parquet, on {} processors. All answers are equal.",
        short(size.readings()),
        size.meters,
        size.days,
        processors()
    );
    Ok(Comparison { text: format!("{title}\n\n{table}{notes}"), failed })
}

fn merge(tuples: u64) -> anyhow::Result<Comparison> {
    let mut contenders = vec![Contender::LateMerge, Contender::Shuffle, Contender::HashLoop];
    let mut notes = String::new();
    match contest::flink_absent() {
        None => contenders.extend([Contender::Flink, Contender::FlinkSql]),
        Some(why) => notes = format!("\nLEFT OUT, not installed: Apache Flink ({why}).\n"),
    }
    let mut table = Table::new(["", "on one key", "tuples/s", "of late merge", "seconds", "peak memory, MB"]);
    let mut rounds = Rounds::new(3);
    for hot_percent in [0, 10, 90] {
        let work = Work { tuples, hot_percent, threads: processors(), ..Work::default() };
        let ours_s = rounds.of(Contender::LateMerge, work)?.cost.seconds;
        for &contender in &contenders {
            let outcome = rounds.of(contender, work)?;
            let version = outcome.version.as_ref().map_or_else(String::new, |version| format!(" {version}"));
            table.row([
                format!("{}{version}", contender.name()),
                if hot_percent == 0 { "–".to_owned() } else { format!("{hot_percent} %") },
                number(work.rate(&outcome)),
                format!("{:.3} ×", ours_s / outcome.cost.seconds),
                format!("{:.2}", outcome.cost.seconds),
                format!("{:.0}", outcome.peak_mb),
            ]);
        }
    }
    let title = format!(
        "Sum and number of rows of 100,000 keys over {} tuples, on {} processors, each with as many threads; the \
         median of three for those in this program, Flink once, with its start but not Java's. Ours and the loop \
         have the tuples in memory, which counts as theirs. All results are equal.",
        short(tuples as f64),
        processors()
    );
    Ok(Comparison { text: format!("{title}\n\n{table}{notes}"), failed: false })
}

/// The processors that this process may use.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
