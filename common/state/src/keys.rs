//! A map from grouping keys: entries in the order met, each key's bytes kept once.
//!
//! ```text
//!   hash ──▶ place: hash, number ──▶ entry: hash, bytes, value
//! ```
//!
//! A key that is there costs two reads of memory, of a place and of an entry,
//! which holds the bytes too unless they are many. Keys are never removed.

use std::hash::BuildHasher;
use std::hint::black_box;
use std::sync::LazyLock;

use hashbrown::DefaultHashBuilder;

/// One hasher for the whole process, so that a key is hashed once for all maps.
/// Seeded at random: keys come from outside. No result depends on it.
static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

/// Hashes a key for every [`KeyMap`] of this process.
pub(crate) fn hash_of(key: &[u8]) -> u32 {
    (HASHER.hash_one(key) >> 32) as u32
}

/// Values by key, numbered from 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyMap<T> {
    /// A power of two of them, or none; at most three quarters are taken. A
    /// key's place is the first free one from where its hash points.
    places: Vec<Place>,
    entries: Vec<Entry<T>>,
    /// The bytes of the keys that are too long for their entries.
    long: Vec<u8>,
}

/// Says which key's place it is, if any.
#[derive(Clone, Copy, Debug)]
struct Place {
    hash: u32,
    number: u32,
}

const FREE: Place = Place { hash: 0, number: u32::MAX };
const PLACES_MIN: usize = 8;

/// Keys of more bytes do not lie in their entries.
const SHORT_MAX: usize = 40;

/// What a look-up needs, with a [`crate::series::Series`] one line of cache.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Entry<T> {
    hash: u32,
    length: u32,
    /// The key's bytes, or in the first eight where they lie among the long ones.
    bytes: [u8; SHORT_MAX],
    value: T,
}

impl<T> Entry<T> {
    fn key<'a>(&'a self, long: &'a [u8]) -> &'a [u8] {
        let length = self.length as usize;
        match self.bytes.get(..length) {
            Some(key) => key,
            None => {
                let (start, _) = self.bytes.split_first_chunk().expect("room for a number");
                &long[usize::from_le_bytes(*start)..][..length]
            }
        }
    }
}

impl<T: Default> KeyMap<T> {
    /// Returns the number of a key; one not met before gets the next number and
    /// a default value. `hash` is [`hash_of`] it.
    ///
    /// # Panics
    /// When there are 2^32 - 1 keys, or a key of 2^32 bytes.
    pub(crate) fn number(&mut self, hash: u32, key: &[u8]) -> u32 {
        match self.place(hash, key) {
            Ok(number) => number,
            Err(free) => self.add(free, hash, key),
        }
    }

    /// Returns the numbers of many keys, as [`KeyMap::number`] each.
    ///
    /// In steps, each of which reads what the one before has found for all
    /// keys: so the processor waits for the memory of many keys at a time.
    pub(crate) fn numbers(&mut self, keys: &[(u32, &[u8])]) -> Vec<u32> {
        if !self.places.is_empty() {
            let place = |(hash, _): &(u32, &[u8])| self.places[first(*hash, self.places.len())].hash;
            black_box(keys.iter().map(place).fold(0, |all, hash| all ^ hash));
        }
        let mut numbers: Vec<u32> = keys.iter().map(|(hash, _)| self.candidate(*hash)).collect();
        let length = |number: &u32| self.entries.get(*number as usize).map_or(0, |entry| entry.length);
        black_box(numbers.iter().map(length).fold(0, |all, length| all ^ length));
        for (number, (hash, key)) in numbers.iter_mut().zip(keys) {
            if self.entries.get(*number as usize).is_none_or(|entry| entry.key(&self.long) != *key) {
                *number = self.number(*hash, key);
            }
        }
        numbers
    }

    fn add(&mut self, free: usize, hash: u32, key: &[u8]) -> u32 {
        let number = u32::try_from(self.entries.len()).ok().filter(|&number| number != FREE.number);
        let number = number.expect("fewer than 2^32 - 1 keys");
        let length = u32::try_from(key.len()).expect("a key of less than 2^32 bytes");
        let mut bytes = [0; SHORT_MAX];
        match bytes.get_mut(..key.len()) {
            Some(bytes) => bytes.copy_from_slice(key),
            None => {
                bytes[..size_of::<usize>()].copy_from_slice(&self.long.len().to_le_bytes());
                self.long.extend_from_slice(key);
            }
        }
        self.entries.push(Entry { hash, length, bytes, value: T::default() });
        if self.entries.len() * 4 > self.places.len() * 3 {
            self.grow();
        } else {
            self.places[free] = Place { hash, number };
        }
        number
    }

    /// Doubles the places and finds each key's anew.
    fn grow(&mut self) {
        let doubled = (self.places.len() * 2).max(PLACES_MIN);
        self.places.clear();
        self.places.resize(doubled, FREE);
        for (number, entry) in (0..).zip(&self.entries) {
            let mut at = first(entry.hash, doubled);
            while self.places[at].number != FREE.number {
                at = (at + 1) & (doubled - 1);
            }
            self.places[at] = Place { hash: entry.hash, number };
        }
    }
}

/// Returns where a hash points among so many places, a power of two.
fn first(hash: u32, places: usize) -> usize {
    ((u64::from(hash) * places as u64) >> 32) as usize
}

impl<T> KeyMap<T> {
    /// Returns the number of a key, or the free place that would be its.
    fn place(&self, hash: u32, key: &[u8]) -> Result<u32, usize> {
        if self.places.is_empty() {
            return Err(0);
        }
        let mask = self.places.len() - 1;
        let mut at = first(hash, self.places.len());
        loop {
            let place = self.places[at & mask];
            if place.number == FREE.number {
                return Err(at & mask);
            }
            if place.hash == hash && self.entries[place.number as usize].key(&self.long) == key {
                return Ok(place.number);
            }
            at += 1;
        }
    }

    /// Returns the first number whose key has this hash, or [`FREE`]'s.
    fn candidate(&self, hash: u32) -> u32 {
        let Some(mask) = self.places.len().checked_sub(1) else { return FREE.number };
        let mut at = first(hash, self.places.len());
        while self.places[at & mask].hash != hash && self.places[at & mask].number != FREE.number {
            at += 1;
        }
        self.places[at & mask].number
    }

    /// Returns the value of a key that was met. `hash` is [`hash_of`] it.
    pub(crate) fn find(&self, hash: u32, key: &[u8]) -> Option<&T> {
        self.place(hash, key).ok().map(|number| self.value(number))
    }

    /// Returns the key of a number.
    pub(crate) fn key(&self, number: u32) -> &[u8] {
        self.entries[number as usize].key(&self.long)
    }

    /// Returns the hash of a number's key.
    pub(crate) fn hash(&self, number: u32) -> u32 {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_whose_hashes_collide_are_told_apart() {
        let mut map = KeyMap::<u8>::default();
        assert_eq!(map.find(7, b"a"), None);
        // Every tenth key is too long for its entry.
        let tail = |key: usize| if key % 10 == 9 { "-".repeat(SHORT_MAX) } else { String::new() };
        let keys: Vec<String> = (0..100).map(|key| format!("key {key}{}", tail(key))).collect();
        // Three hashes for all keys, one of them at the last place, so that probing goes round.
        let hash = |at: usize| [0, 7, u32::MAX][at % 3];
        for (at, key) in keys.iter().enumerate() {
            assert_eq!(map.number(hash(at), key.as_bytes()), at as u32);
        }
        for (at, key) in keys.iter().enumerate() {
            assert_eq!(map.number(hash(at), key.as_bytes()), at as u32);
            assert_eq!(map.key(at as u32), key.as_bytes());
            assert!(map.find(hash(at + 1), key.as_bytes()).is_none());
        }
        let all: Vec<_> = (0..).map(hash).zip(keys.iter().map(String::as_bytes)).collect();
        assert_eq!(map.numbers(&all), (0..100).collect::<Vec<u32>>());
        assert_eq!(KeyMap::<u8>::default().numbers(&all), (0..100).collect::<Vec<u32>>());
    }
}
