//! Shuffle, for comparison: every row goes to the thread that owns its key, and only that one has the key's
//! group. The groups are those of late merge.
//!
//! ```text
//!   tuples ─▶ source ──rows, by the hash of the key──▶ owner: groups of its own keys
//! ```
//!
//! Rows change threads by reference, which is the least that an exchange can cost: none is copied, none
//! encoded. As many sources as owners, so twice the threads of late merge.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anyhow::Context;
use sanso_state::{AggregateKind, GroupId, GroupedRows, Groups, partition_of};

use super::state::{SPAN, chosen, kinds, lifted, names, total};
use super::tuples::{Digest, Tuple};
use super::{Cost, Work, measured};

/// Spans that may wait for an owner.
const WAITING: usize = 16;

/// Rows, and which of them are the owner's.
type Sent = (Arc<GroupedRows>, Vec<u32>);

/// Runs it. Lifting is not measured, as with late merge.
pub(super) fn run(work: &Work, tuples: &[Tuple]) -> anyhow::Result<(Cost, Digest)> {
    let (kinds, names) = (kinds()?, names(work.keys));
    let owners = work.threads as u32;
    let share = tuples.len().div_ceil(work.threads);
    let lift = |share: &[Tuple]| share.chunks(SPAN).map(|span| Arc::new(lifted(span, &names))).collect();
    let shares: Vec<Vec<Arc<GroupedRows>>> = tuples.chunks(share).map(lift).collect();
    let exchange = || {
        thread::scope(|scope| {
            let (senders, receivers): (Vec<_>, Vec<_>) = (0..owners).map(|_| sync_channel(WAITING)).unzip();
            let (mut threads, mut sources) = (Vec::new(), Vec::new());
            for received in receivers {
                let kinds = &kinds;
                threads.push(scope.spawn(move || own(kinds, received)));
            }
            for spans in &shares {
                let senders = senders.clone();
                sources.push(scope.spawn(move || send(spans, &senders)));
            }
            // An owner ends when the last sender is gone.
            drop(senders);
            sources.into_iter().try_for_each(|source| source.join().expect("a source does not panic"))?;
            Ok(threads.into_iter().map(|owner| owner.join().expect("an owner does not panic")).collect())
        })
    };
    let (owned, cost): (Vec<Groups>, _) = measured(exchange)?;
    let mut totals = Vec::with_capacity(names.len());
    for (key, name) in (0..).zip(&names) {
        let id = GroupId { key: name.clone(), window_start: 0 };
        let found = owned[partition_of(name, owners) as usize].get(&id);
        totals.push((key, total(&kinds, found.as_ref())?));
    }
    Ok((cost, Digest::of(totals.into_iter())))
}

fn send(spans: &[Arc<GroupedRows>], owners: &[SyncSender<Sent>]) -> anyhow::Result<()> {
    for rows in spans {
        for (owner, chosen) in owners.iter().zip(chosen(rows, owners.len() as u32)) {
            if !chosen.is_empty() {
                owner.send((Arc::clone(rows), chosen)).context("an owner has ended")?;
            }
        }
    }
    Ok(())
}

fn own(kinds: &[AggregateKind], received: Receiver<Sent>) -> Groups {
    let mut groups = Groups::new();
    received.iter().for_each(|(rows, chosen)| groups.update(kinds, &rows, &chosen, 1));
    groups
}
