//! Shuffle against late merge: threads, skew, keys, and how much late merge groups before it merges.

use anyhow::Context;

use super::Found;
use crate::contest::{Contender, Rounds, Work, flink_absent};
use crate::peers::processors;
use crate::plot::{Plot, Scale};
use crate::table::{Table, number, short};

const OURS: [Contender; 3] = [Contender::LateMerge, Contender::Shuffle, Contender::HashLoop];

/// A setting that is varied, with the name of each value.
struct Series {
    word: &'static str,
    title: String,
    across: &'static str,
    works: Vec<(String, Work)>,
    contenders: Vec<Contender>,
}

/// Measures; see the head of the file.
pub(crate) fn run(quick: bool) -> anyhow::Result<Found> {
    let base =
        Work { tuples: if quick { 2_000_000 } else { 20_000_000 }, threads: processors(), ..Work::default() };
    let mut rounds = Rounds::new(if quick { 1 } else { 3 });
    let mut found = Found::default();
    for series in series(base, quick) {
        let mut head = vec![series.across.to_owned()];
        head.extend(series.contenders.iter().map(|contender| contender.name().to_owned()));
        let mut table = Table::with_head(head);
        let mut lines: Vec<(String, Vec<Option<f64>>)> =
            series.contenders.iter().map(|contender| (contender.name().to_owned(), Vec::new())).collect();
        for (name, work) in &series.works {
            let mut row = vec![name.clone()];
            for (contender, (_, line)) in series.contenders.iter().zip(&mut lines) {
                let rate = work.rate(&rounds.of(*contender, *work)?);
                row.push(number(rate));
                line.push(Some(rate));
            }
            table.row(row);
        }
        let settings = series.works.into_iter().map(|(name, _)| name).collect();
        let up = "tuples a second".to_owned();
        let plot = Plot {
            title: series.title.clone(),
            across: series.across.to_owned(),
            up,
            settings,
            scale: Scale::Logarithmic,
            lines,
        };
        found.plots.push((series.word, plot));
        found.tables.push((format!("{}, tuples a second:", series.title), table));
    }
    found.here = here(&mut rounds, base)?;
    Ok(found)
}

fn series(base: Work, quick: bool) -> Vec<Series> {
    let threads = |hot_percent| {
        let all: &[usize] = if quick { &[1, 2] } else { &[1, 2, 4, 8] };
        let works = all.iter().map(|&threads| (threads.to_string(), Work { threads, hot_percent, ..base }));
        works.collect()
    };
    let skew: &[u64] = if quick { &[0, 90] } else { &[0, 10, 50, 90] };
    let skew = skew.iter().map(|&hot_percent| (format!("{hot_percent} %"), Work { hot_percent, ..base }));
    let keys: &[u32] =
        if quick { &[1_000, 100_000, 1_000_000] } else { &[1_000, 10_000, 100_000, 1_000_000, 10_000_000] };
    let keys = keys.iter().map(|&keys| (short(keys.into()), Work { keys, ..base }));
    let delta_rows = [1 << 14, 1 << 16, 1 << 18, 1 << 20]
        .map(|delta_rows| (delta_rows.to_string(), Work { delta_rows, ..base }));
    let mut with_flink = OURS.to_vec();
    if flink_absent().is_none() {
        with_flink.extend([Contender::Flink, Contender::FlinkSql]);
    }
    let (uniform, ours) = ("100,000 keys, uniform", OURS.to_vec());
    vec![
        Series {
            word: "threads",
            title: uniform.to_owned(),
            across: "threads",
            works: threads(0),
            contenders: ours.clone(),
        },
        Series {
            word: "threads-skewed",
            title: "100,000 keys, 90 % of the tuples on one".to_owned(),
            across: "threads",
            works: threads(90),
            contenders: ours.clone(),
        },
        Series {
            word: "skew",
            title: format!("100,000 keys, {} threads", base.threads),
            across: "tuples on one key",
            works: skew.collect(),
            contenders: with_flink,
        },
        Series {
            word: "keys",
            title: format!("uniform keys, {} threads", base.threads),
            across: "keys",
            works: keys.collect(),
            contenders: ours,
        },
        Series {
            word: "delta",
            title: format!("{uniform}, {} threads", base.threads),
            across: "rows that late merge groups before it merges",
            works: delta_rows.into(),
            contenders: vec![Contender::LateMerge],
        },
    ]
}

/// Says it in a sentence, from what was measured.
fn here(rounds: &mut Rounds, base: Work) -> anyhow::Result<String> {
    let mut ratio = |work: Work| {
        let mut seconds = |contender| anyhow::Ok(rounds.of(contender, work)?.cost.seconds);
        let ratio = seconds(Contender::Shuffle)? / seconds(Contender::LateMerge)?;
        anyhow::Ok(format!("{ratio:.2}"))
    };
    let uniform = ratio(base).context("uniform")?;
    let skewed = ratio(Work { hot_percent: 90, ..base }).context("skewed")?;
    let many = ratio(Work { keys: 1_000_000, ..base }).context("many keys")?;
    Ok(format!(
        "Here, both on the same state code, late merge has {uniform} times the throughput of the shuffle with uniform \
         keys, {skewed} times with 90 % of the tuples on one, {many} times with a million keys ({} threads; the \
         shuffle as many sources and as many owners, and its rows change threads without being copied).{}",
        base.threads,
        flink_absent().map_or_else(String::new, |why| format!(" Apache Flink was left out: {why}."))
    ))
}
