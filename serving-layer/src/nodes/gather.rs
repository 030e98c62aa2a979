//! Asks all nodes at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use sanso_state::{Division, Fingerprint, LogPartition, RefusalCounts};
use sanso_view::Source;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::quarantine::{Page, PageAsked};
use super::questions::{COUNTS, Counted, CountsAsked, LIMITS, NodeQuestions, PAGE, STATUS, decode, encode};
use super::report::LimitLine;
use super::whole::Whole;
use super::{ANSWER_MAX, PAGE_MAX};
use crate::cluster::Cluster;

/// How often records are counted again because the batch layer published a version meanwhile.
const ATTEMPTS: usize = 4;

/// What nodes answered, or why not, by their number.
pub(crate) type Answered<T> = BTreeMap<u16, Result<T, String>>;

/// The nodes of the cluster; this one alone where there is none.
pub(crate) struct Nodes {
    own: NodeQuestions,
    cluster: Option<Arc<dyn Cluster>>,
}

impl Nodes {
    /// Asks this node, and the others of its cluster.
    pub(crate) fn new(own: NodeQuestions, cluster: Option<Arc<dyn Cluster>>) -> Self {
        Self { own, cluster }
    }

    /// Returns this node's number; 0 on a single one.
    pub(crate) fn me(&self) -> u16 {
        self.cluster.as_ref().map_or(0, |cluster| cluster.node())
    }

    /// Says whether this node is in a cluster.
    pub(crate) fn are_many(&self) -> bool {
        self.cluster.is_some()
    }

    /// Says whether this node is the one that counts what all nodes have together.
    pub(crate) fn counts_for_all(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.batch_driver() == Some(cluster.node()))
    }

    /// Asks all nodes how they are.
    pub(crate) async fn whole(&self) -> Whole {
        let mut reports = self.others(STATUS, &()).await;
        reports.insert(self.me(), Ok(self.own.report()));
        let driver = match &self.cluster {
            Some(cluster) => cluster.batch_driver(),
            None => Some(0),
        };
        Whole { me: self.me(), reports, driver, is_alone: self.cluster.is_none() }
    }

    /// Asks all nodes for their bounds.
    pub(crate) async fn limits(&self) -> Answered<Vec<LimitLine>> {
        let mut limits = self.others(LIMITS, &()).await;
        limits.insert(self.me(), Ok(self.own.limits()));
        limits
    }

    /// Counts a source's quarantine, from what the layers posted; none while they have not, or while a new
    /// version is being posted again and again.
    pub(crate) async fn counts(
        &self,
        source: &Source,
        whole: &Whole,
        views: &[Fingerprint],
    ) -> Option<RefusalCounts> {
        let mut newer = None;
        for _ in 0..ATTEMPTS {
            let whole = newer.as_ref().unwrap_or(whole);
            let posted = whole.batch(&source.name)?.quarantine?;
            let counts = self.counts_beside(source, whole, &posted.division, views, posted.counts).await;
            if let Some(counts) = counts.ok()? {
                return Some(counts);
            }
            newer = Some(self.whole().await);
        }
        None
    }

    /// Adds what the speed layers have of a source's quarantine to what the batch layer keeps. None where
    /// more was published meanwhile, or another node does not answer any longer; an error is this node's own.
    pub(crate) async fn counts_beside(
        &self,
        source: &Source,
        whole: &Whole,
        division: &Division,
        views: &[Fingerprint],
        mut kept: RefusalCounts,
    ) -> Result<Option<RefusalCounts>, String> {
        let holders = whole.holders(source);
        let asked = holders.answering.iter().map(|node| {
            let mine = holders.refused.iter().filter(|(_, holder)| *holder == node);
            let ranges = mine.flat_map(|(l, _)| division.speed(LogPartition(*l)).map(|range| (*l, range)));
            let asked = CountsAsked {
                source: source.name.clone(),
                refused: ranges.filter(|(_, range)| !range.is_empty()).collect(),
                partitions: source.partitions,
                views: views.to_vec(),
            };
            self.count(*node, asked)
        });
        let counted = join_all(asked).await;
        for (node, counted) in holders.answering.iter().zip(counted) {
            match counted {
                Ok(Counted::All(counts)) => kept.add(&counts),
                Err(error) if *node == self.me() => return Err(error),
                Ok(Counted::Superseded) | Err(_) => return Ok(None),
            }
        }
        Ok(Some(kept))
    }

    async fn count(&self, node: u16, asked: CountsAsked) -> Result<Counted, String> {
        if node == self.me() {
            return self.own.counts(asked).await;
        }
        self.ask(node, COUNTS, &asked, ANSWER_MAX).await
    }

    /// Asks a node for some of its speed layer's quarantine.
    pub(crate) async fn page(&self, node: u16, asked: &PageAsked) -> Result<Page, String> {
        if node == self.me() {
            return self.own.page(asked.clone()).await;
        }
        self.ask(node, PAGE, asked, PAGE_MAX).await
    }

    /// Asks all other nodes the same at once; those that the cluster holds for lost are not waited for.
    async fn others<T: DeserializeOwned>(
        &self,
        kind: &'static str,
        question: &impl Serialize,
    ) -> Answered<T> {
        let Some(cluster) = &self.cluster else { return Answered::new() };
        let asked = cluster.others().into_iter().map(|(node, lost)| async move {
            let answer = match lost {
                Some(lost) => Err(lost),
                None => self.ask(node, kind, question, ANSWER_MAX).await,
            };
            (node, answer)
        });
        join_all(asked).await.into_iter().collect()
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        node: u16,
        kind: &'static str,
        question: &impl Serialize,
        within: Duration,
    ) -> Result<T, String> {
        let Some(cluster) = &self.cluster else { return Err("this node is in no cluster".to_owned()) };
        let question = encode(question)?;
        decode(&cluster.ask(node, kind, question, within).await?)
    }
}
