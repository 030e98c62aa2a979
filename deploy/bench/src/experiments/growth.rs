//! More and more keys: the late-merge engine and the loop by hand, one thread each, as long as all fits in memory.

use anyhow::Context;

use super::Found;
use crate::contest::{Contender, Rounds, Work};
use crate::plot::{Plot, Scale};
use crate::table::{Table, number, short};

/// Measures; see the head of the file.
pub(crate) fn run(quick: bool) -> anyhow::Result<Found> {
    let keys: &[u32] = if quick {
        &[1_000, 10_000, 100_000, 1_000_000]
    } else {
        &[1_000, 10_000, 100_000, 1_000_000, 10_000_000]
    };
    let tuples = if quick { 2_000_000 } else { 20_000_000 };
    let mut rounds = Rounds::new(if quick { 1 } else { 3 });
    let mut table = Table::new([
        "keys",
        "late merge, tuples/s",
        "a loop by hand, tuples/s",
        "ratio",
        "late merge, MB of state",
        "the loop, MB of state",
    ]);
    let mut lines =
        [Contender::LateMerge, Contender::HashLoop].map(|who| (who.name().to_owned(), Vec::new()));
    let mut ratios = Vec::new();
    for &keys in keys {
        let work = Work { tuples, keys, ..Work::default() };
        let (ours, theirs) = (rounds.of(Contender::LateMerge, work)?, rounds.of(Contender::HashLoop, work)?);
        let rates = [work.rate(&ours), work.rate(&theirs)];
        for ((_, line), rate) in lines.iter_mut().zip(rates) {
            line.push(Some(rate));
        }
        let ratio = rates[0] / rates[1];
        table.row([
            short(keys.into()),
            number(rates[0]),
            number(rates[1]),
            format!("{ratio:.3}"),
            format!("{:.0}", ours.cost.state_mb),
            format!("{:.0}", theirs.cost.state_mb),
        ]);
        ratios.push((keys, ratio, rates[0]));
    }
    let (first, last) = (ratios.first().context("keys")?, ratios.last().context("keys")?);
    let here = format!(
        "Here one thread takes {} tuples a second with {} keys and {} with {}, {:.2} and {:.2} of what a loop by hand \
         does in a table of numbers. The state is what the process grew by: the loop's is one total for each key, late \
         merge's that and each delta of a million rows, which view partitions keep until batch covers it.",
        number(first.2),
        short(first.0.into()),
        number(last.2),
        short(last.0.into()),
        first.1,
        last.1,
    );
    let plot = Plot {
        title: "Sum and number of rows of each key, one thread".to_owned(),
        across: "keys".to_owned(),
        up: "tuples a second".to_owned(),
        settings: keys.iter().map(|&keys| short(keys.into())).collect(),
        scale: Scale::Logarithmic,
        lines: lines.into(),
    };
    let what = format!("{} tuples, uniform:", short(tuples as f64));
    Ok(Found { here, tables: vec![(what, table)], plots: vec![("keys", plot)] })
}
