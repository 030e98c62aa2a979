//! Errors of the dataset: each names the file and says what to do.

use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use sanso_state::DecodeError;

/// Result of a dataset operation.
pub type Result<T, E = DatasetError> = std::result::Result<T, E>;

/// Why the dataset refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// A file's bytes are not the bytes that were written.
    #[error("{path} is damaged: {what}; {remedy}")]
    Damaged {
        /// The file.
        path: String,
        /// What was found.
        what: String,
        /// What a person can do.
        remedy: &'static str,
    },
    /// A file that a manifest lists is not there.
    #[error("{path} is missing, but the manifest lists it: restore it from a copy of the dataset")]
    Missing {
        /// The file.
        path: String,
    },
    /// Somebody else has committed this version.
    #[error(
        "version {version} of source {source_name} exists: another process writes this dataset; stop one"
    )]
    VersionTaken {
        /// The source.
        source_name: String,
        /// The version that was to be committed.
        version: u64,
    },
    /// A file was written by a newer program.
    #[error(
        "{path} has format {found}, this program knows {known}: use the program that wrote it, or a newer one"
    )]
    Format {
        /// The file.
        path: String,
        /// The format found.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// Rows that don't have the columns of an archived file.
    #[error("rows for {path}: {what}")]
    Rows {
        /// The file that was to be written or was read.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// The system gave no random number.
    #[error("draw a random number")]
    Randomness {
        /// The cause.
        #[source]
        source: rand::rngs::SysError,
    },
    /// The settings of the dataset say nothing that can be opened.
    #[error("dataset {url}: {what}")]
    Address {
        /// The dataset's address.
        url: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// A bucket can't be used.
    #[error("{place} can't be used: {what}")]
    Bucket {
        /// The bucket's name and the address of the object store.
        place: String,
        /// What is wrong and what to do.
        what: &'static str,
        /// The cause.
        #[source]
        source: object_store::Error,
    },
    /// A bucket ignores the condition of a write, so two processes would overwrite each other's versions.
    #[error(
        "{place} can't be used: it ignores conditional writes (If-None-Match), which keep two processes from taking one version; use an object store that honours them"
    )]
    Unconditional {
        /// The bucket's name and the address of the object store.
        place: String,
    },
    /// The object store failed.
    #[error("{action} {path}")]
    Store {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: String,
        /// The cause.
        #[source]
        source: object_store::Error,
    },
    /// The local disk failed.
    #[error("{action} {path}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Rows could not be written as Parquet.
    #[error("encode {path} as Parquet")]
    Encode {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: ParquetError,
    },
    /// Columns could not be put together.
    #[error("assemble the columns of {path}")]
    Columns {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: ArrowError,
    },
}

/// What to do about damage, by kind of file.
pub(crate) const RESTORE: &str = "restore it from a copy of the dataset";
pub(crate) const RECOMPUTE: &str = "it can be recomputed from the newest-version table";
pub(crate) const ROLL_BACK: &str = "restore it from a copy, or delete it to fall back to the version before (later segments are archived again from the log)";

impl DatasetError {
    pub(crate) fn damaged(path: impl ToString, what: impl ToString, remedy: &'static str) -> Self {
        Self::Damaged { path: path.to_string(), what: what.to_string(), remedy }
    }

    pub(crate) fn store(action: &'static str, path: impl ToString, source: object_store::Error) -> Self {
        Self::Store { action, path: path.to_string(), source }
    }

    pub(crate) fn undecodable(path: impl ToString, error: &DecodeError) -> Self {
        Self::damaged(path, error, RECOMPUTE)
    }

    /// Writes the error with its causes on one line.
    pub fn with_causes(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |error| error.source());
        causes.fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }

    /// Says whether the operation may succeed when tried again without anyone acting.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store { .. } | Self::Disk { .. })
    }
}
