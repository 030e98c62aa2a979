//! All nodes' reports as one: each log partition once, by who knows most of it. Pure.

use std::collections::BTreeMap;

use sanso_catalog::{AuditCounts, BatchJob, BatchProgress, EndedJob, PartitionProgress, RecordCounts};
use sanso_state::Offset;
use sanso_view::Source;
use serde_json::{Value, json};

use super::gather::Answered;
use super::quarantine::Holders;
use super::report::{NodeReport, PartitionReport, SourceReport};

/// What all nodes say of themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Whole {
    /// The node that was asked; 0 on a single one.
    pub(crate) me: u16,
    /// What each node says, or why it does not.
    pub(crate) reports: Answered<NodeReport>,
    /// The node that drives the batch layer, by the map.
    pub(crate) driver: Option<u16>,
    /// Whether there is no cluster.
    pub(crate) is_alone: bool,
}

impl Whole {
    /// Iterates what the nodes that answer say of a source.
    fn of<'a>(&'a self, source: &str) -> impl Iterator<Item = (u16, &'a SourceReport)> {
        let answered = self.reports.iter().filter_map(|(node, report)| Some((*node, report.as_ref().ok()?)));
        answered.filter_map(move |(node, report)| Some((node, report.sources.get(source)?)))
    }

    /// Returns each log partition of a source with the node that knows most of it: who feeds it, else
    /// who follows it.
    pub(crate) fn partitions(&self, source: &str) -> BTreeMap<u32, (u16, &PartitionReport)> {
        self.best(source, |report| (report.feeds, position(report)))
    }

    /// Returns each log partition of a source with the node that ranks highest for it, of those that tell how far they are.
    fn best<R: Ord>(
        &self,
        source: &str,
        rank: impl Fn(&PartitionReport) -> R,
    ) -> BTreeMap<u32, (u16, &PartitionReport)> {
        let rank = |report: &PartitionReport| (report.progress.is_some(), rank(report));
        let mut best: BTreeMap<u32, (u16, &PartitionReport)> = BTreeMap::new();
        for (node, report) in self.of(source) {
            for (partition, report) in &report.partitions {
                let known = best.entry(*partition).or_insert((node, report));
                if rank(report) > rank(known.1) {
                    *known = (node, report);
                }
            }
        }
        best
    }

    /// Returns how far the speed layer is on each log partition of which a node tells.
    pub(crate) fn progress(&self, source: &str) -> Vec<(u32, u16, bool, &PartitionProgress)> {
        let all = self.partitions(source).into_iter();
        all.filter_map(|(l, (node, report))| Some((l, node, report.feeds, report.progress.as_ref()?)))
            .collect()
    }

    /// Returns the log partitions of which no node tells.
    pub(crate) fn missing(&self, source: &Source) -> Vec<u32> {
        let told = self.partitions(&source.name);
        let is_told = |l: &u32| told.get(l).is_some_and(|(_, report)| report.progress.is_some());
        (0..source.partitions).filter(|l| !is_told(l)).collect()
    }

    /// Returns what holds the speed layer, by log partition.
    pub(crate) fn troubles(&self, source: &str) -> BTreeMap<u32, &str> {
        let all = self.partitions(source).into_iter();
        all.filter_map(|(l, (_, report))| Some((l, report.trouble.as_deref()?))).collect()
    }

    /// Sums how the records of a source were judged.
    pub(crate) fn counts(&self, source: &str) -> RecordCounts {
        self.progress(source).iter().fold(RecordCounts::default(), |sum, (.., progress)| {
            let counts = progress.counts;
            RecordCounts {
                records: sum.records + counts.records,
                new: sum.new + counts.new,
                corrections: sum.corrections + counts.corrections,
                duplicates: sum.duplicates + counts.duplicates,
                conflicts: sum.conflicts + counts.conflicts,
                stale: sum.stale + counts.stale,
                undecodable: sum.undecodable + counts.undecodable,
                misplaced: sum.misplaced + counts.misplaced,
                late: sum.late + counts.late,
            }
        })
    }

    /// Returns what the batch layer says of a source: who drives it, else who knows the newest version;
    /// with the audits of all that ever drove it.
    pub(crate) fn batch(&self, source: &str) -> Option<BatchProgress> {
        let posted = || self.of(source).filter_map(|(node, report)| Some((node, report.batch.as_ref()?)));
        let newest = posted()
            .max_by_key(|(node, batch)| (Some(*node) == self.driver, batch.version, batch.published_us));
        let audit = sum_audits(self.of(source).map(|(_, report)| report.audit()));
        Some(BatchProgress { audit, ..newest?.1.clone() })
    }

    /// Returns the batch version being made of a source, and who makes it.
    pub(crate) fn job(&self, source: &str) -> Option<(u16, &BatchJob)> {
        let jobs = self.of(source).filter_map(|(node, report)| Some((node, report.job.as_ref()?)));
        jobs.max_by_key(|(node, job)| (Some(*node) == self.driver, job.version))
    }

    /// Iterates what batch layers work on, with the source and the node that drives it. Two nodes may drive one
    /// for a moment.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = (&str, u16, &BatchJob)> {
        self.all().filter_map(|(node, source, report)| Some((source, node, report.job.as_ref()?)))
    }

    /// Returns what they worked on last, the newest first.
    pub(crate) fn ended_jobs(&self) -> Vec<(&str, u16, &EndedJob)> {
        let ended = self
            .all()
            .flat_map(|(node, source, report)| report.ended.iter().map(move |ended| (source, node, ended)));
        let mut ended: Vec<_> = ended.collect();
        ended.sort_by_key(|(_, _, ended)| std::cmp::Reverse(ended.ended_us));
        ended
    }

    /// Iterates what the nodes that answer say of all sources.
    fn all(&self) -> impl Iterator<Item = (u16, &str, &SourceReport)> {
        let answered = self.reports.iter().filter_map(|(node, report)| Some((*node, report.as_ref().ok()?)));
        answered.flat_map(|(node, report)| {
            report.sources.iter().map(move |(source, report)| (node, source.as_str(), report))
        })
    }

    /// Sums the audits of all sources, by all nodes.
    pub(crate) fn audit(&self) -> AuditCounts {
        sum_audits(self.all().map(|(_, _, report)| report.audit()))
    }

    /// Returns who has which part of the speed layer's quarantine of a source.
    pub(crate) fn holders(&self, source: &Source) -> Holders {
        let answering = self.reports.iter().filter(|(_, report)| report.is_ok()).map(|(node, _)| *node);
        let mut holders = Holders { answering: answering.collect(), ..Holders::default() };
        // Who has just begun to feed one, from the cut on, has less than whoever was further.
        let told = self.best(&source.name, |report| (position(report), report.feeds));
        let fed = self.partitions(&source.name);
        let is_fed = |partition: &u32| fed.get(partition).is_some_and(|(_, report)| report.feeds);
        for partition in 0..source.partitions {
            let Some((node, report)) = told.get(&partition).filter(|_| !self.is_alone) else {
                // A single node has all there is.
                match self.is_alone {
                    true => _ = holders.refused.insert(partition, self.me),
                    false => holders.missing.push(partition),
                }
                continue;
            };
            holders.refused.insert(partition, *node);
            let is_whole =
                report.progress.as_ref().is_some_and(|p| is_fed(&partition) || p.position >= p.end);
            if !is_whole {
                holders.missing.push(partition);
            }
        }
        holders
    }

    /// Describes each node; nothing where there is no cluster.
    pub(crate) fn describe_nodes(&self) -> Option<Vec<Value>> {
        let describe = |(node, report): (&u16, &Result<NodeReport, String>)| match report {
            Err(error) => json!({ "node": node, "answers": false, "error": error }),
            Ok(report) => {
                let (feeds, follows) = report.works_on();
                json!({
                    "node": node,
                    "answers": true,
                    "version": report.version,
                    "ready": report.not_ready.as_ref().map(Vec::is_empty),
                    "not_ready": report.not_ready,
                    "feeds": feeds,
                    "follows": follows,
                    "drives_batch": self.driver == Some(*node),
                })
            }
        };
        (!self.is_alone).then(|| self.reports.iter().map(describe).collect())
    }

    /// Describes the nodes that don't answer.
    pub(crate) fn describe_unanswered(&self) -> Vec<Value> {
        let silent = self.reports.iter().filter_map(|(node, report)| Some((node, report.as_ref().err()?)));
        silent.map(|(node, error)| json!({ "node": node, "error": error })).collect()
    }
}

fn position(report: &PartitionReport) -> Option<Offset> {
    report.progress.as_ref().map(|progress| progress.position)
}

fn sum_audits(audits: impl Iterator<Item = AuditCounts>) -> AuditCounts {
    audits.fold(AuditCounts::default(), |mut sum, audit| {
        sum += audit;
        sum
    })
}
