//! Questions between nodes of which this package knows nothing but the kind: those of the layers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use sanso_core::cluster::NodeId;
use sanso_peer::{CallError, Refusal};

use crate::hub::Hub;
use crate::start::ClusterNode;

/// Answers other nodes' questions of one kind.
#[async_trait]
pub trait Answers: Send + Sync {
    /// Answers, or says why not. Dropped unfinished when its deadline passes, or who asked is gone.
    async fn answer(&self, from: NodeId, question: Bytes) -> Result<Bytes, String>;
}

/// Who answers which kind of question.
pub(crate) type Answering = RwLock<BTreeMap<&'static str, Arc<dyn Answers>>>;

impl Hub {
    /// Answers a question of a kind that is none of the cluster's own.
    pub(crate) async fn answered(&self, from: NodeId, kind: &str, body: Bytes) -> Result<Bytes, Refusal> {
        let answers = self.answering.read().get(kind).cloned();
        let answers = answers.ok_or(Refusal::UnknownKind)?;
        answers.answer(from, body).await.map_err(Refusal::Failed)
    }
}

impl ClusterNode {
    /// Answers questions of a kind from now on. Kinds have the name of their layer before them.
    pub fn answer(&self, kind: &'static str, answers: Arc<dyn Answers>) {
        self.hub.answering.write().insert(kind, answers);
    }

    /// Asks another node, which may be of another version: it says so if it does not know the kind.
    /// Whether a question that has no answer was worked on is not known. Dropped, nobody works on it.
    pub async fn ask(
        &self,
        to: NodeId,
        kind: &'static str,
        question: Vec<u8>,
        within: Duration,
    ) -> Result<Bytes, CallError> {
        self.hub.ask(to, kind, question, within).await
    }
}
