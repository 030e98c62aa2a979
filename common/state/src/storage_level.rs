//! Storage levels: where the blocks of a dataset are kept, in Spark's words.

use std::fmt;
use std::str::FromStr;

/// Where a node keeps the blocks of a dataset. They can always be had again from elsewhere, so a
/// level is a matter of speed only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StorageLevel {
    /// In memory; what does not fit is dropped.
    Memory,
    /// On local disk only.
    Disk,
    /// In memory; what does not fit goes to local disk, and comes back when it is used.
    MemoryDisk,
    /// Nowhere.
    None,
}

impl StorageLevel {
    /// All levels.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Disk, Self::MemoryDisk, Self::None];

    /// Returns the word in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::MemoryDisk => "memory,disk",
            Self::None => "none",
        }
    }

    /// Says whether blocks are kept in memory.
    pub fn in_memory(self) -> bool {
        matches!(self, Self::Memory | Self::MemoryDisk)
    }

    /// Says whether blocks are kept on local disk.
    pub fn on_disk(self) -> bool {
        matches!(self, Self::Disk | Self::MemoryDisk)
    }
}

impl fmt::Display for StorageLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that is no storage level.
#[derive(Debug, thiserror::Error)]
#[error("not a storage level: expected 'memory', 'disk', 'memory,disk' or 'none'")]
pub struct ParseStorageLevelError;

impl FromStr for StorageLevel {
    type Err = ParseStorageLevelError;

    /// Reads the words in any order and case, with or without spaces around them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words: Vec<String> = text.split(',').map(|word| word.trim().to_ascii_lowercase()).collect();
        // In order of the alphabet there is one spelling of each.
        words.sort();
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["memory"] => Ok(Self::Memory),
            ["disk"] => Ok(Self::Disk),
            ["disk", "memory"] => Ok(Self::MemoryDisk),
            ["none"] => Ok(Self::None),
            _ => Err(ParseStorageLevelError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_read_from_its_words_in_any_order() {
        for level in StorageLevel::ALL {
            assert_eq!(level.name().parse::<StorageLevel>().ok(), Some(level));
        }
        assert_eq!(" Disk , memory".parse::<StorageLevel>().ok(), Some(StorageLevel::MemoryDisk));
        for wrong in ["", "memory,", "memory,memory", "none,disk", "ssd", "memory disk"] {
            assert!(wrong.parse::<StorageLevel>().is_err(), "{wrong:?}");
        }
    }
}
