//! Answers what other nodes' serving layers ask, on every node, whatever its layers are.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sanso_cluster::{Answers, ClusterNode, NodeId};
use sanso_serving::NodeQuestions;

/// Answers the questions of one kind.
struct OfKind {
    kind: &'static str,
    questions: NodeQuestions,
}

#[async_trait]
impl Answers for OfKind {
    async fn answer(&self, _from: NodeId, question: Bytes) -> Result<Bytes, String> {
        self.questions.answer(self.kind, &question).await.map(Bytes::from)
    }
}

/// Answers from now on.
pub(crate) fn serve(cluster: &ClusterNode, questions: &NodeQuestions) {
    for kind in NodeQuestions::KINDS {
        cluster.answer(kind, Arc::new(OfKind { kind, questions: questions.clone() }));
    }
}
