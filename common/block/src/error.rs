//! Errors of the block store: only of opening it. Once open, what fails is done without.

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// A spill directory can't be used.
    #[error("{action} spill directory {path}: name another in batch.spill_dirs, or mend this one")]
    Folder {
        /// What was tried.
        action: &'static str,
        /// The directory.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another process, or this one under another name of it, uses the spill directory.
    #[error("spill directory {path} is in use by another store: each node needs its own in batch.spill_dirs")]
    InUse {
        /// The directory.
        path: String,
    },
}
