//! Errors of the speed layer; a variant is what the caller can do about it.

use std::path::PathBuf;

use rocksdb::ErrorKind;
use sanso_core::StoreError;
use sanso_dataset::DatasetError;
use sanso_log::{LogError, Retry};
use sanso_state::Offset;
use sanso_view::RowError;

/// Result of a speed layer operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is to be done after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Try again later; nobody needs to act.
    Retry,
    /// Rebuild the index of newest versions and go on.
    Rebuild,
    /// Stop this log partition; a person must act.
    Stop,
}

/// Why the speed layer refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log refused or failed.
    #[error("read or append to the log")]
    Log(#[from] LogError),
    /// The master dataset refused or failed.
    #[error("read the newest-version table")]
    Dataset(#[from] DatasetError),
    /// A view partition could not be reached.
    #[error("reach a view partition")]
    Store(#[from] StoreError),
    /// The local store failed.
    #[error("{action} in {}", .path.display())]
    Local {
        /// What was tried.
        action: &'static str,
        /// The directory of the local store.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rocksdb::Error,
    },
    /// The local store holds something that this program did not write.
    #[error("{what} in {}: the index is rebuilt", .path.display())]
    Broken {
        /// What was found.
        what: String,
        /// The directory of the local store.
        path: PathBuf,
    },
    /// A stored row does not fit its source.
    #[error("decode a row of the index")]
    Row(#[from] RowError),
    /// Arrow refused rows that belong together.
    #[error("assemble rows")]
    Rows(#[from] arrow::error::ArrowError),
    /// The operating system refused.
    #[error("{action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The index is behind what the log still holds.
    #[error("the index ends at {position}, but the log starts at {start}: it is rebuilt")]
    Behind {
        /// The first offset not indexed.
        position: Offset,
        /// The log's first offset.
        start: Offset,
    },
    /// Nothing can bring the index up to where the log starts.
    #[error(
        "the log of {topic}/{partition} starts at {start}, but the newest-version table ends at {floor}: restore the dataset or the log's older files"
    )]
    Gap {
        /// The topic.
        topic: String,
        /// The log partition.
        partition: u32,
        /// The log's first offset.
        start: Offset,
        /// Where the table ends.
        floor: Offset,
    },
    /// The log ends before what was read of it.
    #[error(
        "the log of {topic}/{partition} ends at {end}, but {by} has its readings up to {position}: the log lost its end, or the topic was recreated; restore the log from a copy, or, where only the index is ahead, delete {} and send the readings since then again", .index.display()
    )]
    Lost {
        /// The topic.
        topic: String,
        /// The log partition.
        partition: u32,
        /// Where the log ends.
        end: Offset,
        /// What is ahead of it.
        by: &'static str,
        /// How far that is.
        position: Offset,
        /// The directory of the index.
        index: PathBuf,
    },
    /// A worker stopped.
    #[error("worker of {source_name}/{partition} stopped: {reason}")]
    Stopped {
        /// The source.
        source_name: String,
        /// The log partition.
        partition: u32,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// Says what is to be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Log(error) => match error.retry() {
                Retry::Later => Remedy::Retry,
                Retry::Never => Remedy::Stop,
            },
            Self::Dataset(error) if error.is_transient() => Remedy::Retry,
            Self::Local { source, .. } if is_damage(source) => Remedy::Rebuild,
            Self::Store(_) | Self::Local { .. } | Self::Io { .. } => Remedy::Retry,
            Self::Broken { .. } | Self::Row(_) | Self::Behind { .. } => Remedy::Rebuild,
            Self::Dataset(_) | Self::Rows(_) => Remedy::Stop,
            Self::Gap { .. } | Self::Lost { .. } | Self::Stopped { .. } => Remedy::Stop,
        }
    }

    /// Describes the error with its causes, in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

/// Says whether files of a local store are broken or gone; a full disk or a
/// lock held by another process is no damage.
fn is_damage(error: &rocksdb::Error) -> bool {
    match error.kind() {
        ErrorKind::Corruption | ErrorKind::InvalidArgument => true,
        ErrorKind::IOError => error.as_ref().contains("No such file"),
        _ => false,
    }
}
