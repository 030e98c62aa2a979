//! Grouping keys in a form that is quick to compare, and where each is found.
//!
//! ```text
//!   hash ──▶ place: hash, line ──▶ line: key, window, numbers
//! ```
//!
//! Keys are never removed.

use std::cmp::Ordering;
use std::hash::BuildHasher;
use std::hint::{black_box, select_unpredictable};
use std::ops::Deref;
use std::sync::LazyLock;

use hashbrown::DefaultHashBuilder;

/// One hasher for the whole process, so that a key is hashed once for all maps.
/// Seeded at random: keys come from outside. No result depends on it.
static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

/// Hashes a key for the [`Places`] of this process.
pub(crate) fn hash_of(key: &[u8]) -> u32 {
    (HASHER.hash_one(key) >> 32) as u32
}

/// A key in three words.
///
/// ```text
///   short   up to 23 bytes, zeros         │ length │ mark
///   long    where among others │ length │ 0 │   24 │ mark
/// ```
///
/// So two short keys are told apart without a call, and without a look elsewhere.
/// The three bits of the mark are the line's that holds the key; nothing else
/// about the key depends on them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key(pub(crate) [u64; Key::WORDS]);

/// Word by word: as wider words than were just written, the processor would wait for them.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let ([a, b, c], [d, e, f]) = (self.0, other.0);
        (a ^ d) | (b ^ e) | (c ^ f) == 0
    }
}

impl Eq for Key {}

/// What the line that holds a key is: see [`crate::groups::Groups`].
pub(crate) type Mark = u64;

/// The mark of a long key that is looked for. No line has it, so no line is
/// taken for its key's before their bytes are compared.
const LONG_WANTED: Mark = 7;

/// Bytes of three words, less the last.
const SHORT_MAX: usize = 23;
const LONG: u8 = SHORT_MAX as u8 + 1;
const MARK_SHIFT: u32 = 61;

impl Key {
    pub(crate) const WORDS: usize = 3;

    /// Makes the form of a key that is looked for; a long one's lies at 0.
    ///
    /// # Panics
    /// On a key of 2^32 bytes.
    pub(crate) fn of(key: &[u8]) -> Self {
        let mut bytes = [0; SHORT_MAX + 1];
        match bytes[..SHORT_MAX].get_mut(..key.len()) {
            Some(short) => {
                short.copy_from_slice(key);
                bytes[SHORT_MAX] = key.len() as u8;
                let (words, _) = bytes.as_chunks();
                Self([words[0], words[1], words[2]].map(u64::from_le_bytes))
            }
            None => {
                let length = u32::try_from(key.len()).expect("a key of less than 2^32 bytes");
                Self([0, length.into(), u64::from(LONG) << 56]).marked(LONG_WANTED)
            }
        }
    }

    /// Returns the same key, with its bytes, if it is long, at another place.
    pub(crate) fn at(self, start: usize) -> Self {
        if self.is_long() { Self([start as u64, self.0[1], self.0[2]]) } else { self }
    }

    /// Returns the form in which this key is looked for elsewhere.
    pub(crate) fn wanted(self) -> Self {
        self.marked(if self.is_long() { LONG_WANTED } else { 0 })
    }

    pub(crate) fn mark(self) -> Mark {
        self.0[2] >> MARK_SHIFT
    }

    #[must_use]
    pub(crate) fn marked(self, mark: Mark) -> Self {
        Self([self.0[0], self.0[1], self.0[2] << 3 >> 3 | mark << MARK_SHIFT])
    }

    pub(crate) fn is_long(self) -> bool {
        (self.0[2] >> 56) as u8 & 0x1f == LONG
    }

    /// Returns the key's bytes; those of a long one are among `long`.
    pub(crate) fn bytes(self, long: &[u8]) -> KeyBytes<'_> {
        if self.is_long() {
            return KeyBytes::Long(&long[self.0[0] as usize..][..self.0[1] as usize]);
        }
        let mut bytes = [0; SHORT_MAX + 1];
        bytes
            .as_chunks_mut()
            .0
            .iter_mut()
            .zip(self.marked(0).0)
            .for_each(|(to, word)| *to = word.to_le_bytes());
        KeyBytes::Short(bytes)
    }

    /// Says whether two forms are of the same key; each with where its bytes are if it is long.
    pub(crate) fn is(self, long: &[u8], other: Self, other_long: &[u8]) -> bool {
        match self.is_long() {
            false => self.marked(0) == other.marked(0),
            true => other.is_long() && *self.bytes(long) == *other.bytes(other_long),
        }
    }
}

/// The bytes of a key.
#[derive(Clone, Copy)]
pub(crate) enum KeyBytes<'a> {
    Short([u8; SHORT_MAX + 1]),
    Long(&'a [u8]),
}

impl Deref for KeyBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => &bytes[..bytes[SHORT_MAX].into()],
            Self::Long(bytes) => bytes,
        }
    }
}

impl PartialEq for KeyBytes<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for KeyBytes<'_> {}

impl PartialOrd for KeyBytes<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyBytes<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

/// Where the lines of keys are: open addressing by hash, linear probing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// A power of two of them, or none; at most half are taken. A
    /// key's place is the first free one from where its hash points.
    places: Vec<Place>,
    taken: usize,
}

/// Says which key's place it is, if any.
#[derive(Clone, Copy, Debug)]
struct Place {
    hash: u32,
    line: u32,
}

const FREE: Place = Place { hash: 0, line: u32::MAX };
const PLACES_MIN: usize = 8;

/// Returns where a hash points among so many places, a power of two.
fn first(hash: u32, places: usize) -> usize {
    ((u64::from(hash) * places as u64) >> 32) as usize
}

impl Places {
    /// Reads the places that some hashes point to, and nothing that depends on
    /// them: so the processor waits for all of them at once.
    pub(crate) fn touch(&self, hashes: &[u32]) {
        if let Some(mask) = self.places.len().checked_sub(1) {
            let place = |&hash| self.places[first(hash, self.places.len()) & mask].hash;
            black_box(hashes.iter().map(place).fold(0, |all, hash| all ^ hash));
        }
    }

    /// Returns the line that a hash is mostly of: without a branch that the
    /// processor could only guess. It may be another key's, or no line's number.
    pub(crate) fn candidate(&self, hash: u32) -> u32 {
        let Some(mask) = self.places.len().checked_sub(1) else { return FREE.line };
        let at = first(hash, self.places.len());
        let (one, next) = (self.places[at & mask], self.places[(at + 1) & mask]);
        select_unpredictable(one.hash == hash, one.line, next.line)
    }

    /// Returns the line with this hash that is the one looked for, or the free
    /// place that would be its, for [`Places::add`].
    pub(crate) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Result<u32, usize> {
        let Some(mask) = self.places.len().checked_sub(1) else { return Err(0) };
        let mut at = first(hash, self.places.len());
        loop {
            let place = self.places[at & mask];
            if place.line == FREE.line {
                return Err(at & mask);
            }
            if place.hash == hash && is_it(place.line) {
                return Ok(place.line);
            }
            at += 1;
        }
    }

    /// Adds the line of a key that has none, at its free place.
    pub(crate) fn add(&mut self, hash: u32, line: u32, free: usize) {
        self.taken += 1;
        if self.taken * 2 > self.places.len() {
            let places = vec![FREE; (self.places.len() * 2).max(PLACES_MIN)];
            let before = std::mem::replace(&mut self.places, places);
            before.into_iter().filter(|place| place.line != FREE.line).for_each(|place| self.put(place));
            self.put(Place { hash, line });
        } else {
            self.places[free] = Place { hash, line };
        }
    }

    fn put(&mut self, place: Place) {
        let mask = self.places.len() - 1;
        let mut at = first(place.hash, self.places.len());
        while self.places[at & mask].line != FREE.line {
            at += 1;
        }
        self.places[at & mask] = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_their_bytes_are() {
        let lengths = [0, 1, 7, 8, 22, 23, 24, 100];
        let keys: Vec<Vec<u8>> =
            lengths.iter().flat_map(|&n| [vec![0; n], vec![1; n], vec![255; n]]).collect();
        let mut long = b"others before".to_vec();
        for (at, key) in keys.iter().enumerate() {
            let held = Key::of(key).at(long.len()).marked(3);
            long.extend_from_slice(key);
            assert_eq!((&*held.bytes(&long), held.mark()), (&**key, 3));
            assert_eq!(held.wanted(), Key::of(key).at(held.0[0] as usize));
            for (other_at, other) in keys.iter().enumerate() {
                // Of no bytes there is one key, however it was made.
                let same = at == other_at || key.is_empty() && other.is_empty();
                assert_eq!(held.is(&long, Key::of(other), other), same, "{key:?} {other:?}");
                assert!(!Key::of(other).is_long() || held.marked(0) != Key::of(other));
            }
        }
    }

    #[test]
    fn lines_whose_hashes_collide_are_told_apart() {
        let mut places = Places::default();
        assert_eq!((places.find(7, |_| true), places.candidate(7)), (Err(0), u32::MAX));
        // Three hashes for all lines, one of them at the last place, so that probing goes round.
        let hash = |line: u32| [0, 7, u32::MAX][line as usize % 3];
        for line in 0..100 {
            let free = places.find(hash(line), |found| found == line).expect_err("not there yet");
            places.add(hash(line), line, free);
        }
        for line in 0..100 {
            assert_eq!(places.find(hash(line), |found| found == line), Ok(line));
            assert!(places.find(hash(line + 1), |found| found == line).is_err());
        }
    }
}
