//! Decides whether this process is ready: in touch with its cluster, all serving
//! views live, every speed worker caught up once with where the log ended when
//! first seen, and none stopped for good since.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use parking_lot::Mutex;
use sanso_catalog::{Catalog, PartitionProgress};
use sanso_core::{PartitionId, PartitionStore, ReadRequest};
use sanso_state::{LogPartition, Offset};

use crate::service::ServingContext;

/// Remembers which workers have caught up.
#[derive(Debug, Default)]
pub(crate) struct Readiness(Mutex<BTreeMap<(String, u32), Goal>>);

#[derive(Clone, Copy, Debug)]
enum Goal {
    Reach(Offset),
    Reached,
}

impl Readiness {
    /// Returns what is still missing; nothing means ready.
    pub(crate) async fn check(&self, context: &ServingContext) -> Vec<String> {
        let catalog = context.catalog.current();
        let mut missing = views_missing(&catalog, &context.store).await;
        if !context.store.is_in_touch() {
            missing.push("this node does not hear from most of its cluster".to_owned());
        }
        for ((source, partition), reason) in context.board.stopped() {
            if catalog.sources.contains_key(&source) {
                missing.push(format!("the speed worker of {source}/{partition} stopped for good: {reason}"));
            }
        }
        let board = context.board.speed();
        let troubles = context.board.troubles();
        let mut goals = self.0.lock();
        for source in catalog.sources.values() {
            if catalog.live_of(&source.name).is_empty() {
                continue;
            }
            let posted = board.get(&source.name);
            let mine =
                (0..source.partitions).filter(|l| catalog.share(&source.name, LogPartition(*l)).is_some());
            for partition in mine {
                let progress = posted.and_then(|partitions| partitions.get(&partition));
                let goal = goals.entry((source.name.clone(), partition));
                if !caught_up(goal, progress) {
                    let trouble = troubles.get(&source.name).and_then(|held| held.get(&partition));
                    let trouble = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
                    missing.push(format!(
                        "the speed worker of {}/{partition} has not caught up with the log{trouble}",
                        source.name
                    ));
                }
            }
        }
        missing
    }
}

async fn views_missing(catalog: &Catalog, store: &PartitionStore) -> Vec<String> {
    let mut missing = Vec::new();
    for (name, fingerprint) in &catalog.serving {
        let Some(view) = catalog.live.get(fingerprint) else {
            missing.push(format!("view {name} has no live version"));
            continue;
        };
        let mut held = 0;
        for index in 0..view.partitions {
            let id = PartitionId { view: *fingerprint, index };
            held += u32::from(store.read(id, &ReadRequest::Progress).await.is_ok());
        }
        if held < view.partitions {
            missing.push(format!("view {name} has {held} of {} partitions live", view.partitions));
        }
    }
    missing
}

fn caught_up(goal: Entry<'_, (String, u32), Goal>, progress: Option<&PartitionProgress>) -> bool {
    // A worker that has not posted yet has not looked at the log either.
    let Some(progress) = progress else { return false };
    let goal = goal.or_insert(Goal::Reach(progress.end));
    if let Goal::Reach(offset) = *goal
        && progress.position >= offset
    {
        *goal = Goal::Reached;
    }
    matches!(goal, Goal::Reached)
}
