//! A day, four weeks and a year of the distribution load: loads of transformers, feeders and substations by the half
//! hour and the feeders' daily peaks, of all that is archived. The time and the memory of the batch layer, and of
//! programs that read the same files.

use anyhow::Context;
use tokio::runtime::Runtime;

use super::Found;
use crate::batch::{Archive, Size};
use crate::load::reading;
use crate::peers::engine::{DUCKDB, Engine, How, POLARS, SPARK};
use crate::plot::{Plot, Scale};
use crate::table::{Table, number, short};

const METERS: u32 = 2_000;
const OURS: &str = "Sanso";

/// Measures; see the head of the file.
pub(crate) fn run(quick: bool) -> anyhow::Result<Found> {
    let days: &[u32] = if quick { &[1, 7] } else { &[1, 28, 336] };
    let peers: Vec<Engine> =
        [DUCKDB, POLARS, SPARK].into_iter().filter(|engine| engine.absent().is_none()).collect();
    let mut head = vec!["days".to_owned(), "readings".to_owned(), "as JSON, MB".to_owned()];
    head.push("taken in with, MB".to_owned());
    let names: Vec<String> =
        std::iter::once(OURS).chain(peers.iter().map(|engine| engine.name)).map(str::to_owned).collect();
    head.extend(names.iter().flat_map(|name| [format!("{name}, s"), "MB".to_owned()]));
    let mut table = Table::with_head(head);
    let mut seconds: Vec<(String, Vec<Option<f64>>)> =
        names.iter().map(|name| (name.clone(), Vec::new())).collect();
    let mut memory = seconds.clone();
    let mut last = None;
    for &days in days {
        let size = Size { meters: METERS, days };
        let archive = Runtime::new()?.block_on(Archive::of(size)).with_context(|| format!("{days} days"))?;
        let (answers, ours_s, ours_mb) = Runtime::new()?.block_on(archive.ours())?;
        let mut costs = vec![(ours_s, ours_mb)];
        for engine in &peers {
            let run = engine.run(&archive, How::Each)?;
            run.compared(&answers).with_context(|| engine.name)?;
            costs.push((run.first_s, run.peak_mb));
        }
        let sent_mb = size.readings() * (reading(0, 0).len() + 1) as f64 / 1e6;
        let mut row = vec![days.to_string(), short(size.readings()), format!("{sent_mb:.0}")];
        row.push(format!("{:.0}", archive.intake_mb));
        row.extend(costs.iter().flat_map(|(s, mb)| [format!("{s:.2}"), format!("{mb:.0}")]));
        table.row(row);
        for ((seconds, memory), (s, mb)) in seconds.iter_mut().zip(&mut memory).zip(&costs) {
            seconds.1.push(Some(*s));
            memory.1.push(Some(*mb));
        }
        last = Some((size, sent_mb, archive.intake_mb, ours_s, ours_mb));
    }
    let (size, sent_mb, intake_mb, ours_s, ours_mb) = last.context("sizes")?;
    let here = format!(
        "Here {} days of {} meters, {} readings and {sent_mb:.0} MB of JSON, are in all views {ours_s:.1} s after the \
         node's start, {} readings a second, with {ours_mb:.0} MB of memory at most; it took them in with {intake_mb:.0} \
         MB. One process has nothing to exchange: what it adds up to is in memory.",
        size.days,
        METERS,
        short(size.readings()),
        number(size.readings() / ours_s),
    );
    let plot = |title: &str, up: &str, lines| Plot {
        title: title.to_owned(),
        across: "days".to_owned(),
        up: up.to_owned(),
        settings: days.iter().map(u32::to_string).collect(),
        scale: Scale::Logarithmic,
        lines,
    };
    let title = format!("Distribution load of {METERS} meters from Parquet");
    let plots = vec![
        ("seconds", plot(&title, "seconds", seconds)),
        ("memory", plot(&title, "MB of memory at most", memory)),
    ];
    let what = "Each view of the readings; Sanso from the start of the node to its answers, the others from their first \
                query on:";
    Ok(Found { here, tables: vec![(what.to_owned(), table)], plots })
}
