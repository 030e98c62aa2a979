//! The contest: sum and number of rows of each key, by late merge, by shuffle, by a loop written by hand,
//! and by Apache Flink; each in a process of its own, all with the same tuples and the same result.

mod flink;
pub(crate) mod hash_loop;
mod late_merge;
mod shuffle;
pub(crate) mod state;
pub(crate) mod tuples;

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use sanso_e2e::memory_of;
use serde::{Deserialize, Serialize};

use self::tuples::Digest;

pub(crate) use self::flink::absent as flink_absent;

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contender {
    /// A loop over a hash table, written by hand.
    HashLoop,
    /// The product's way.
    LateMerge,
    /// A keyed exchange before the product's groups.
    Shuffle,
    /// Apache Flink: keyBy, window, reduce.
    Flink,
    /// Apache Flink's SQL, aggregated before and after the exchange.
    FlinkSql,
}

impl Contender {
    fn is_flink(self) -> bool {
        matches!(self, Self::Flink | Self::FlinkSql)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HashLoop => "a loop by hand",
            Self::LateMerge => "late merge",
            Self::Shuffle => "shuffle",
            Self::Flink => "Flink",
            Self::FlinkSql => "Flink SQL, two-phase",
        }
    }
}

/// What is to be done.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    #[arg(long)]
    pub(crate) tuples: u64,
    #[arg(long)]
    pub(crate) keys: u32,
    /// How many percent of the tuples have key 0, whatever else falls on it.
    #[arg(long)]
    pub(crate) hot_percent: u64,
    /// Threads that aggregate.
    #[arg(long)]
    pub(crate) threads: usize,
    /// The rows that late merge groups before it merges.
    #[arg(long)]
    pub(crate) delta_rows: usize,
}

impl Work {
    /// Tuples in a second.
    pub(crate) fn rate(&self, outcome: &Outcome) -> f64 {
        self.tuples as f64 / outcome.cost.seconds
    }
}

impl Default for Work {
    fn default() -> Self {
        Self { tuples: 1 << 24, keys: 100_000, hot_percent: 0, threads: 1, delta_rows: 1 << 20 }
    }
}

/// What it took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    /// By how much the process has grown meanwhile; zero where nobody looked.
    #[serde(default)]
    pub(crate) state_mb: f64,
}

/// How it went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// What it took, from the first tuple to the last result.
    pub(crate) cost: Cost,
    /// The result.
    pub(crate) digest: Digest,
    /// The most memory of the whole process, tuples included.
    pub(crate) peak_mb: f64,
    /// The contender's version, if it is another program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
}

/// Lets one contender do the work, in this process but for Flink.
pub(crate) fn run(contender: Contender, work: &Work) -> anyhow::Result<Outcome> {
    ensure!(work.threads > 0 && work.delta_rows > 0 && work.keys > 0, "no threads, rows of a delta or keys");
    if contender.is_flink() {
        return flink::run(contender, work);
    }
    let tuples = tuples::generate(work);
    let (cost, digest) = match contender {
        Contender::LateMerge => late_merge::run(work, &tuples)?,
        Contender::Shuffle => shuffle::run(work, &tuples)?,
        _ => hash_loop::run(work, &tuples)?,
    };
    let peak_mb = crate::load::peak_mb(std::process::id())?;
    Ok(Outcome { cost, digest, peak_mb, version: None })
}

/// Lets one contender do the work several times, each in a process of its own; returns the one of median time.
fn apart(contender: Contender, work: &Work, times: usize) -> anyhow::Result<Outcome> {
    let mut outcomes = Vec::new();
    for _ in 0..times {
        outcomes.push(once(contender, work).with_context(|| format!("{}, {work:?}", contender.name()))?);
    }
    let digest = &outcomes.first().context("run at least once")?.digest;
    ensure!(
        outcomes.iter().all(|outcome| outcome.digest == *digest),
        "{} is not repeatable",
        contender.name()
    );
    outcomes.sort_by(|one, other| one.cost.seconds.total_cmp(&other.cost.seconds));
    Ok(outcomes.swap_remove((outcomes.len() - 1) / 2))
}

fn once(contender: Contender, work: &Work) -> anyhow::Result<Outcome> {
    if contender.is_flink() {
        return run(contender, work);
    }
    let name = contender.to_possible_value().context("a contender's name")?;
    let options = [
        ("--tuples", work.tuples.to_string()),
        ("--keys", work.keys.to_string()),
        ("--hot-percent", work.hot_percent.to_string()),
        ("--threads", work.threads.to_string()),
        ("--delta-rows", work.delta_rows.to_string()),
    ];
    let output = Command::new(std::env::current_exe().context("find this program")?)
        .args(["contest", name.get_name()])
        .args(options.iter().flat_map(|(name, value)| [*name, value]))
        .stderr(Stdio::inherit())
        .output()
        .context("start this program")?;
    ensure!(output.status.success(), "it ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("read the outcome")
}

/// All that was done, each piece of work once.
pub(crate) struct Rounds {
    /// How often those in this program do it; Flink, which takes long, does it once.
    times: usize,
    done: Vec<(Contender, Work, Outcome)>,
}

impl Rounds {
    pub(crate) fn new(times: usize) -> Self {
        Self { times, done: Vec::new() }
    }

    /// Lets a contender do the work, and holds the result against what others had of the same tuples.
    pub(crate) fn of(&mut self, contender: Contender, work: Work) -> anyhow::Result<Outcome> {
        let before = self.done.iter().find(|done| (done.0, done.1) == (contender, work));
        if let Some((_, _, outcome)) = before {
            return Ok(outcome.clone());
        }
        let outcome = apart(contender, &work, if contender.is_flink() { 1 } else { self.times })?;
        let tuples_of = |work: &Work| (work.tuples, work.keys, work.hot_percent);
        if let Some((other, _, same)) = self.done.iter().find(|done| tuples_of(&done.1) == tuples_of(&work)) {
            ensure!(
                outcome.digest == same.digest,
                "{work:?}: {} has {:?}, {} had {:?}",
                contender.name(),
                outcome.digest,
                other.name(),
                same.digest
            );
        }
        self.done.push((contender, work, outcome.clone()));
        Ok(outcome)
    }
}

/// Times work, and says by how many MB this process has grown in it.
fn measured<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Cost)> {
    let resident = || anyhow::Ok(memory_of(std::process::id())?.0 as f64 / 1e6);
    let (before_mb, began) = (resident()?, Instant::now());
    let done = work()?;
    let seconds = began.elapsed().as_secs_f64();
    Ok((done, Cost { seconds, state_mb: (resident()? - before_mb).max(0.0) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_merge_and_shuffle_have_the_totals_of_the_loop_whatever_the_threads_and_the_skew() {
        for (threads, hot_percent, keys) in [(1, 0, 10), (2, 90, 1_000), (3, 50, 40_000)] {
            let work = Work { tuples: 50_000, keys, hot_percent, threads, delta_rows: 9_000 };
            let expected = run(Contender::HashLoop, &work).expect("run").digest;
            assert_eq!(expected.rows, 50_000);
            for contender in [Contender::LateMerge, Contender::Shuffle] {
                assert_eq!(run(contender, &work).expect("run").digest, expected, "{contender:?} {work:?}");
            }
        }
    }
}
