//! A small table with compare-and-set, for what a cluster agrees on beyond its map. Pure.
//!
//! For pointers, not for data: it is in the memory of every voter and is sent whole to one
//! that is far behind, so its sizes are bounded.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

/// Most bytes of a key.
pub const KEY_BYTES_MAX: usize = 256;
/// Most bytes of a value.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// Most bytes of all keys and values.
pub const TABLE_BYTES_MAX: usize = 2 << 20;

/// Values by key, each with the version that it was put at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Grows with each change of the table, so no version ever comes twice, also not
    /// when a key is removed and put again.
    revision: u64,
    items: BTreeMap<String, Item>,
}

/// A value and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The table's revision at which it was put; from 1.
    pub version: u64,
    /// The value.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
}

/// Why a value was not put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum PutRefused {
    /// Somebody else has changed it.
    #[error("the key is at version {found}, not at the one expected")]
    Version {
        /// Its version now; 0: it is not there.
        found: u64,
    },
    /// The key or the value is too long.
    #[error("a key has at most {KEY_BYTES_MAX} bytes and a value at most {VALUE_BYTES_MAX}")]
    TooLong,
    /// The table would be too large.
    #[error("all keys and values together have at most {TABLE_BYTES_MAX} bytes")]
    Full,
}

impl Table {
    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&Item> {
        self.items.get(key)
    }

    /// Iterates all keys that begin with `prefix`, in order.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Item)> {
        let from = self.items.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.take_while(move |(key, _)| key.starts_with(prefix)).map(|(key, item)| (key.as_str(), item))
    }

    /// Returns the number of changes so far.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Counts the bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.items.iter().map(|(key, item)| key.len() + item.value.len()).sum()
    }

    /// Says whether a value may be put, or removed (none), if its key shall be at version
    /// `expect` (0: not there).
    pub(crate) fn admits(&self, key: &str, expect: u64, value: Option<&[u8]>) -> Result<(), PutRefused> {
        let (found, held) = self.items.get(key).map_or((0, 0), |item| (item.version, item.value.len()));
        if found != expect {
            return Err(PutRefused::Version { found });
        }
        let Some(value) = value else { return Ok(()) };
        if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return Err(PutRefused::TooLong);
        }
        let new_key = if found == 0 { key.len() } else { 0 };
        let bytes = self.bytes() - held + new_key + value.len();
        if bytes > TABLE_BYTES_MAX { Err(PutRefused::Full) } else { Ok(()) }
    }

    /// Puts a value that is admitted, or removes it (none). Returns the new revision, which is the
    /// value's version.
    pub(crate) fn put(&mut self, key: String, value: Option<Vec<u8>>) -> u64 {
        self.revision += 1;
        match value {
            Some(value) => drop(self.items.insert(key, Item { version: self.revision, value })),
            None => drop(self.items.remove(&key)),
        }
        self.revision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Table {
        fn try_put(&mut self, key: &str, expect: u64, value: Option<&[u8]>) -> Result<u64, PutRefused> {
            self.admits(key, expect, value)?;
            Ok(self.put(key.to_owned(), value.map(<[u8]>::to_vec)))
        }
    }

    #[test]
    fn a_value_is_put_only_at_the_version_expected() {
        let mut table = Table::default();
        assert_eq!(table.try_put("a", 1, Some(b"x")), Err(PutRefused::Version { found: 0 }));
        assert_eq!(table.try_put("a", 0, Some(b"x")), Ok(1));
        assert_eq!(table.try_put("a", 0, Some(b"y")), Err(PutRefused::Version { found: 1 }));
        assert_eq!(table.try_put("a", 1, Some(b"y")), Ok(2));
        assert_eq!(table.get("a").map(|item| item.value.as_slice()), Some(b"y".as_slice()));
    }

    #[test]
    fn a_version_never_comes_twice() {
        let mut table = Table::default();
        table.try_put("a", 0, Some(b"x")).unwrap();
        table.try_put("a", 1, None).unwrap();
        assert_eq!(table.get("a"), None);
        assert_eq!(table.try_put("a", 1, Some(b"x")), Err(PutRefused::Version { found: 0 }));
        assert_eq!(table.try_put("a", 0, Some(b"x")), Ok(3));
    }

    #[test]
    fn sizes_are_bounded_and_what_is_replaced_makes_room() {
        let mut table = Table::default();
        let large = vec![0; VALUE_BYTES_MAX];
        assert_eq!(table.try_put("a", 0, Some(&[&large[..], &[0]].concat())), Err(PutRefused::TooLong));
        assert_eq!(table.try_put(&"k".repeat(KEY_BYTES_MAX + 1), 0, Some(b"")), Err(PutRefused::TooLong));
        let mut full = 0;
        while table.try_put(&format!("{full}"), 0, Some(&large)).is_ok() {
            full += 1;
        }
        assert_eq!(full, TABLE_BYTES_MAX / VALUE_BYTES_MAX - 1);
        assert_eq!(table.try_put("more", 0, Some(&large)), Err(PutRefused::Full));
        assert!(table.try_put("0", 1, Some(&large)).is_ok());
        assert!(table.bytes() <= TABLE_BYTES_MAX);
    }

    #[test]
    fn keys_with_a_prefix_come_in_order() {
        let mut table = Table::default();
        for key in ["view/b", "view/a", "viewer", "cut"] {
            table.try_put(key, 0, Some(b"")).unwrap();
        }
        let keys: Vec<&str> = table.with_prefix("view/").map(|(key, _)| key).collect();
        assert_eq!(keys, ["view/a", "view/b"]);
    }
}
