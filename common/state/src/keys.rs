//! A map from grouping keys: entries in the order met, each key's bytes kept once.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use hashbrown::{DefaultHashBuilder, HashTable};

/// One hasher for the whole process, so that a key is hashed once for all maps.
/// Seeded at random: keys come from outside. No result depends on it.
static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

/// Hashes a key for every [`KeyMap`] of this process.
pub(crate) fn hash_of(key: &[u8]) -> u64 {
    HASHER.hash_one(key)
}

/// Values by key, numbered from 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyMap<T> {
    numbers: HashTable<u32>,
    entries: Vec<Entry<T>>,
    bytes: Vec<u8>,
}

/// What a look-up needs, side by side in memory.
#[derive(Clone, Debug)]
struct Entry<T> {
    hash: u64,
    start: usize,
    length: u32,
    value: T,
}

impl<T> Entry<T> {
    fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start..self.start + self.length as usize]
    }
}

impl<T: Default> KeyMap<T> {
    /// Returns the number of a key; one not met before gets the next number and
    /// a default value. `hash` is [`hash_of`] it.
    ///
    /// # Panics
    /// When there are 2^32 keys, or a key of 2^32 bytes.
    pub(crate) fn number(&mut self, hash: u64, key: &[u8]) -> u32 {
        let Self { numbers, entries, bytes } = self;
        let same = |&number: &u32| {
            let entry = &entries[number as usize];
            entry.hash == hash && entry.key(bytes) == key
        };
        if let Some(&number) = numbers.find(hash, same) {
            return number;
        }
        let number = u32::try_from(entries.len()).expect("fewer than 2^32 keys");
        numbers.insert_unique(hash, number, |&number| entries[number as usize].hash);
        let length = u32::try_from(key.len()).expect("a key of less than 2^32 bytes");
        entries.push(Entry { hash, start: bytes.len(), length, value: T::default() });
        bytes.extend_from_slice(key);
        number
    }
}

impl<T> KeyMap<T> {
    /// Returns the value of a key that was met. `hash` is [`hash_of`] it.
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<&T> {
        let same = |&number: &u32| {
            let entry = &self.entries[number as usize];
            entry.hash == hash && entry.key(&self.bytes) == key
        };
        self.numbers.find(hash, same).map(|&number| self.value(number))
    }

    /// Returns the key of a number.
    pub(crate) fn key(&self, number: u32) -> &[u8] {
        self.entries[number as usize].key(&self.bytes)
    }

    /// Returns the hash of a number's key.
    pub(crate) fn hash(&self, number: u32) -> u64 {
        self.entries[number as usize].hash
    }

    /// Returns the value of a number's key.
    pub(crate) fn value(&self, number: u32) -> &T {
        &self.entries[number as usize].value
    }

    /// Returns the value of a number's key, to change.
    pub(crate) fn value_mut(&mut self, number: u32) -> &mut T {
        &mut self.entries[number as usize].value
    }

    /// Iterates numbers and values, in the order met.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0_u32..).zip(self.entries.iter().map(|entry| &entry.value))
    }
}
