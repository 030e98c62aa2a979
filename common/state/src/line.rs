//! The head of a group's line: what the line is found by; and groups to find.

use crate::aggregate::HEAD;
use crate::keys::{Key, Mark};
use crate::rows::Wanted;

/// Groups that are found first and changed after: what was found is still near
/// when it is changed, and the processor waits for many of them at a time.
pub(crate) const AT_ONCE: usize = 256;

/// A line of a key and its only window.
pub(crate) const ONE: Mark = 0;
/// A line of a key without windows: they are gone.
pub(crate) const NONE: Mark = 1;
/// A line of a key that has, or had, several windows; in place of a window's start the index of them.
pub(crate) const MANY: Mark = 2;
/// A line of a window, in place of the key the line of it.
pub(crate) const WINDOW: Mark = 3;
/// A line of nothing.
pub(crate) const FREE: Mark = 4;

/// Groups to find together, and what was found.
pub(crate) struct Sought<'a> {
    pub(crate) count: usize,
    pub(crate) hashes: [u32; AT_ONCE],
    /// The heads of their lines, if their keys are short and have one window.
    pub(crate) heads: [[u64; HEAD]; AT_ONCE],
    /// Where the bytes of long keys are.
    pub(crate) long: &'a [u8],
    pub(crate) lines: [u32; AT_ONCE],
}

impl<'a> Sought<'a> {
    pub(crate) fn among(long: &'a [u8]) -> Self {
        let (hashes, heads, lines) = ([0; AT_ONCE], [[0; HEAD]; AT_ONCE], [0; AT_ONCE]);
        Self { count: 0, hashes, heads, long, lines }
    }

    pub(crate) fn fill(&mut self, wanted: impl ExactSizeIterator<Item = Wanted<'a>>) {
        self.count = wanted.len();
        for ((hash, sought), wanted) in self.hashes.iter_mut().zip(&mut self.heads).zip(wanted) {
            (*hash, *sought) = (wanted.hash, head(wanted.key, wanted.window_start));
        }
    }

    pub(crate) fn lines(&self) -> &[u32] {
        &self.lines[..self.count]
    }
}

pub(crate) fn head(key: Key, window_start: i64) -> [u64; HEAD] {
    let [a, b, c] = key.0;
    [a, b, c, window_start.cast_unsigned()]
}

pub(crate) fn key(&[a, b, c, _]: &[u64; HEAD]) -> Key {
    Key([a, b, c])
}

pub(crate) fn window_start(head: &[u64; HEAD]) -> i64 {
    head[HEAD - 1].cast_signed()
}
