//! How the blocks of a dataset are kept: on what, and on how many nodes.

use std::fmt;
use std::str::FromStr;

use crate::storage_level::StorageLevel;

/// How many nodes keep each block of a dataset. Blocks can always be had again from elsewhere, so this
/// too is a matter of speed only: of how soon another node goes on with a lost node's share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Replicas {
    /// So many nodes, as far as there are.
    Count(u8),
    /// As many as what was measured says: see `sanso explain recovery`.
    Auto,
}

impl Replicas {
    /// The most that may be asked for.
    pub const MAX: u8 = 7;
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// A text that is no number of replicas.
#[derive(Debug, thiserror::Error)]
#[error("no number of replicas: expected 1 to {}, or 'auto'", Replicas::MAX)]
pub struct ParseReplicasError;

impl FromStr for Replicas {
    type Err = ParseReplicasError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        let count = text.parse().ok().filter(|count| (1..=Self::MAX).contains(count));
        count.map(Self::Count).ok_or(ParseReplicasError)
    }
}

/// How the blocks of a dataset are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Storage {
    /// Where a node keeps its blocks.
    pub level: StorageLevel,
    /// How many nodes keep each.
    pub replicas: Replicas,
}

impl Storage {
    /// On one node, in memory.
    pub const DEFAULT: Self = Self { level: StorageLevel::Memory, replicas: Replicas::Count(1) };
}

impl From<StorageLevel> for Storage {
    /// On one node.
    fn from(level: StorageLevel) -> Self {
        Self { level, replicas: Replicas::Count(1) }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.level.fmt(f)?;
        match self.replicas {
            Replicas::Count(1) => Ok(()),
            replicas => write!(f, ", replicas {replicas}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_replicas_is_read_as_it_is_shown() {
        let all = (1..=Replicas::MAX).map(Replicas::Count).chain([Replicas::Auto]);
        for replicas in all {
            assert_eq!(replicas.to_string().parse::<Replicas>().expect("read"), replicas);
        }
        for text in ["", "0", "8", "-1", "two", "1.5"] {
            assert!(text.parse::<Replicas>().is_err(), "{text}");
        }
        assert_eq!(" AUTO ".parse::<Replicas>().expect("read"), Replicas::Auto);
    }
}
