//! Answers what other nodes ask of this one.

use std::ops::Range;

use sanso_catalog::{CatalogHandle, StatusBoard};
use sanso_state::{Fingerprint, LogPartition, Offset, RefusalCounts};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::quarantine::{Page, PageAsked, page};
use super::report::{LimitLine, NodeReport};

/// How a node is: a [`NodeReport`].
pub(super) const STATUS: &str = "serving.status";
/// Its bounds: [`LimitLine`]s.
pub(super) const LIMITS: &str = "serving.limits";
/// How many records its speed layer refused: [`CountsAsked`], then [`Counted`].
pub(super) const COUNTS: &str = "serving.quarantine.counts";
/// Which: [`PageAsked`], then [`Page`].
pub(super) const PAGE: &str = "serving.quarantine.page";

/// Answers the questions of other nodes' serving layers, on every node of a cluster.
#[derive(Clone)]
pub struct NodeQuestions {
    catalog: CatalogHandle,
    board: StatusBoard,
}

/// Asks how much of a source's quarantine a node's speed layer has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CountsAsked {
    pub(super) source: String,
    /// Of which log partitions, at which offsets: what the batch layer does not keep.
    pub(super) refused: Vec<(u32, Range<Offset>)>,
    /// The log partitions there are, and the view versions whose failed expressions count.
    pub(super) partitions: u32,
    pub(super) views: Vec<Fingerprint>,
}

/// The answer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Counted {
    /// So much.
    All(RefusalCounts),
    /// Some of it was taken off since the batch layer has published it: the question is out of date.
    Superseded,
}

impl NodeQuestions {
    /// The kinds of questions that are answered.
    pub const KINDS: [&'static str; 4] = [STATUS, LIMITS, COUNTS, PAGE];

    /// Answers from what the layers of this process say of themselves.
    pub fn new(catalog: CatalogHandle, board: StatusBoard) -> Self {
        Self { catalog, board }
    }

    /// Answers a question of a kind; an error says why not.
    pub async fn answer(&self, kind: &str, question: &[u8]) -> Result<Vec<u8>, String> {
        match kind {
            STATUS => encode(&self.report()),
            LIMITS => encode(&self.limits()),
            COUNTS => encode(&self.counts(decode(question)?).await?),
            PAGE => encode(&self.page(decode(question)?).await?),
            _ => Err(format!("{kind} is no question that this version knows")),
        }
    }

    pub(super) fn report(&self) -> NodeReport {
        NodeReport::of(&self.catalog, &self.board)
    }

    pub(super) fn limits(&self) -> Vec<LimitLine> {
        self.board.limits().read().into_iter().map(LimitLine::from).collect()
    }

    pub(super) async fn counts(&self, asked: CountsAsked) -> Result<Counted, String> {
        let board = self.board.clone();
        blocking(move || count(&board, &asked)).await
    }

    pub(super) async fn page(&self, asked: PageAsked) -> Result<Page, String> {
        let Some(store) = self.board.quarantine() else { return Ok(Page::default()) };
        blocking(move || page(store.as_ref(), &asked)).await
    }
}

fn count(board: &StatusBoard, asked: &CountsAsked) -> Result<Counted, String> {
    let mut counts = RefusalCounts::default();
    let Some(store) = board.quarantine() else { return Ok(Counted::All(counts)) };
    for (partition, range) in &asked.refused {
        counts.add(&store.counts(&asked.source, *partition, range.clone())?);
    }
    for partition in 0..asked.partitions {
        counts.expression += store.expressions(&asked.source, partition, &asked.views)?;
    }
    // Looked at after counting: what was taken off before is told.
    let published = board.published(&asked.source);
    let is_gone = |(partition, range): &(u32, Range<Offset>)| {
        published.as_ref().is_some_and(|published| {
            let published = published.batch(LogPartition(*partition));
            published.start < range.end && range.start < published.end
        })
    };
    Ok(if asked.refused.iter().any(is_gone) { Counted::Superseded } else { Counted::All(counts) })
}

/// Does what may wait for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

pub(super) fn encode<T: Serialize>(document: &T) -> Result<Vec<u8>, String> {
    rmp_serde::to_vec_named(document).map_err(|error| error.to_string())
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|error| format!("no document that this version knows: {error}"))
}
