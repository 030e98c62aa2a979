//! Why a record is refused, and why the registry gave no schema.

use std::fmt;

/// Why bytes, a JSON object or a schema are not what they should be. Decided by them alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch(String);

impl Mismatch {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// Says in which field it was found.
    pub(crate) fn within(self, field: &str) -> Self {
        Self(format!("field {field}: {}", self.0))
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mismatch {}

/// Why the registry gave no schema. All of these may pass without the record changing: a registry
/// that lags, was restored from an old copy, or that a person has to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// It can't be reached, or broke off.
    #[error("the schema registry at {url} is out of reach: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What the client library said.
        reason: String,
    },
    /// It knows no such schema or subject.
    #[error("the schema registry knows nothing at {url}: register the schema")]
    Unknown {
        /// What was asked for.
        url: String,
    },
    /// It refused, or answered something else than the protocol says.
    #[error("the schema registry answered {status} at {url}: {reason}")]
    Refused {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What it said, shortened.
        reason: String,
    },
}
