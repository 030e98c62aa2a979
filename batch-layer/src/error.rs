//! Errors of the batch layer.

use arrow::error::ArrowError;
use sanso_dataset::DatasetError;
use sanso_lineage::WorkerId;
use sanso_log::LogError;
use sanso_state::Fingerprint;

/// Result of a batch operation.
pub type Result<T, E = BatchError> = std::result::Result<T, E>;

/// Why a run failed. The next run starts again from what is committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The log refused or failed.
    #[error("read the log of source {source_name}")]
    Log {
        /// The source.
        source_name: String,
        /// The cause.
        #[source]
        source: LogError,
    },
    /// What is to be archived next is no longer in the log.
    #[error(
        "the newest manifest of source {source_name} ends before its log begins: a manifest or files of the log were deleted; restore {source_name}/manifests in the dataset, or the log, from a copy"
    )]
    BehindLog {
        /// The source.
        source_name: String,
        /// The cause.
        #[source]
        source: LogError,
    },
    /// The dataset refused or failed.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The topic has another number of partitions than declared.
    #[error(
        "topic {topic} has {found} partitions, source {source_name} declares {declared}: a partition count never changes, since keys would move; readings in added partitions are used by nobody, declare a new source on a new topic"
    )]
    Partitions {
        /// The source.
        source_name: String,
        /// Its topic.
        topic: String,
        /// The partitions the topic has.
        found: u32,
        /// The partitions declared.
        declared: u32,
    },
    /// The source was archived under another declaration.
    #[error(
        "source {source_name} was archived as [{archived}] and is now declared as [{declared}]: declare it under another name, or use another data directory"
    )]
    Redeclared {
        /// The source.
        source_name: String,
        /// The declaration in the manifest.
        archived: String,
        /// The declaration now.
        declared: String,
    },
    /// A task failed at another process, or can't be done there.
    #[error("{task} at {worker}: {reason}")]
    Task {
        /// The task.
        task: String,
        /// Where.
        worker: WorkerId,
        /// Why, with its causes.
        reason: String,
        /// Whether it may succeed later.
        transient: bool,
    },
    /// Pieces that a task combines can't be had: the tasks that gave them are done again.
    #[error("{task}: pieces of {} tasks can't be had", of.len())]
    Lacks {
        /// The task.
        task: String,
        /// The tasks that gave the pieces.
        of: Vec<Fingerprint>,
    },
    /// Rows could not be put together.
    #[error("assemble rows of source {source_name}")]
    Rows {
        /// The source.
        source_name: String,
        /// The cause.
        #[source]
        source: ArrowError,
    },
}

impl BatchError {
    /// Says whether the next run may succeed without anyone acting.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Log { source, .. } => source.retry() == sanso_log::Retry::Later,
            Self::Dataset(error) => error.is_transient(),
            Self::Task { transient, .. } => *transient,
            Self::Lacks { .. } => true,
            _ => false,
        }
    }
}

/// Writes an error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
