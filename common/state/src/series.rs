//! The windows of one grouping key.

use std::ops::{Bound, RangeBounds};

/// A key's lines by start of window. Many keys have one window ever; others
/// have years of them, which come in any order.
#[derive(Clone, Copy)]
pub(crate) enum Series<'a> {
    Empty,
    One(i64, u32),
    Many(&'a Windows),
}

/// So many windows lie side by side: one that comes out of order moves no more.
const CHUNK_MAX: usize = 128;

/// Starts and lines, ascending, in chunks; no chunk is empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Windows {
    chunks: Vec<Vec<(i64, u32)>>,
    len: usize,
    /// Chunk and index where a window was asked for last. The next is mostly
    /// the same or the one after it, because readings come in order of time.
    last: (usize, usize),
}

impl Windows {
    /// Returns the line of a window; one not met before gets a `new` one.
    pub(crate) fn line(&mut self, start: i64, new: impl FnOnce() -> u32) -> u32 {
        let (chunk, at) = self.last;
        let near = self.chunks.get(chunk).and_then(|chunk| chunk.get(at..)).unwrap_or_default();
        if let Some(after) = near.iter().take(2).position(|window| window.0 == start) {
            self.last.1 += after;
            return near[after].1;
        }
        match self.place(start) {
            Ok((chunk, at)) => {
                self.last = (chunk, at);
                self.chunks[chunk][at].1
            }
            Err((chunk, at)) => {
                let line = new();
                self.insert(chunk, at, (start, line));
                line
            }
        }
    }

    /// Returns chunk and index of a window, or where it would be.
    fn place(&self, start: i64) -> Result<(usize, usize), (usize, usize)> {
        let chunk = self.chunks.partition_point(|chunk| chunk[0].0 <= start).saturating_sub(1);
        let windows = self.chunks.get(chunk).map_or(&[][..], Vec::as_slice);
        let found = windows.binary_search_by_key(&start, |window| window.0);
        found.map(|at| (chunk, at)).map_err(|at| (chunk, at))
    }

    fn insert(&mut self, mut chunk: usize, mut at: usize, window: (i64, u32)) {
        self.len += 1;
        match self.chunks.get(chunk).map_or(CHUNK_MAX, Vec::len) {
            // Full. What comes at its end mostly goes on in order: leave it full.
            CHUNK_MAX if at == CHUNK_MAX || self.chunks.is_empty() => {
                chunk = (chunk + 1).min(self.chunks.len());
                at = 0;
                self.chunks.insert(chunk, Vec::new());
            }
            CHUNK_MAX => {
                let half = self.chunks[chunk].split_off(CHUNK_MAX / 2);
                self.chunks.insert(chunk + 1, half);
                if at > CHUNK_MAX / 2 {
                    (chunk, at) = (chunk + 1, at - CHUNK_MAX / 2);
                }
            }
            _ => {}
        }
        self.chunks[chunk].insert(at, window);
        self.last = (chunk, at);
    }

    fn get(&self, start: i64) -> Option<u32> {
        self.place(start).ok().map(|(chunk, at)| self.chunks[chunk][at].1)
    }

    pub(crate) fn remove(&mut self, start: i64) -> Option<u32> {
        let (chunk, at) = self.place(start).ok()?;
        let (_, line) = self.chunks[chunk].remove(at);
        if self.chunks[chunk].is_empty() {
            self.chunks.remove(chunk);
        }
        self.len -= 1;
        Some(line)
    }

    pub(crate) fn range<R: RangeBounds<i64>>(
        &self,
        range: R,
    ) -> impl Iterator<Item = (i64, u32)> + use<'_, R> {
        let start = range.start_bound().cloned();
        let before = move |window: &(i64, u32)| match start {
            Bound::Included(start) => window.0 < start,
            Bound::Excluded(start) => window.0 <= start,
            Bound::Unbounded => false,
        };
        let first = self.chunks.partition_point(|chunk| chunk.last().is_some_and(before));
        let windows = self.chunks[first..].iter().flatten().copied();
        windows.skip_while(before).take_while(move |window| range.contains(&window.0))
    }
}

impl<'a> Series<'a> {
    pub(crate) fn is_empty(self) -> bool {
        match self {
            Self::Empty => true,
            Self::One(..) => false,
            Self::Many(windows) => windows.len == 0,
        }
    }

    pub(crate) fn get(self, start: i64) -> Option<u32> {
        match self {
            Self::Empty => None,
            Self::One(held, line) => (held == start).then_some(line),
            Self::Many(windows) => windows.get(start),
        }
    }

    /// Iterates starts and lines, ascending.
    pub(crate) fn range<R: RangeBounds<i64>>(
        self,
        range: R,
    ) -> impl Iterator<Item = (i64, u32)> + use<'a, R> {
        let (one, many) = match self {
            Self::Empty => (None, None),
            Self::One(start, line) => (range.contains(&start).then_some((start, line)), None),
            Self::Many(windows) => (None, Some(windows.range(range))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Windows that come in order, from the middle, and at random, some of
    /// which go again: more than two chunks of them.
    fn changes() -> impl Strategy<Value = Vec<(i64, bool)>> {
        let run = (0_i64..400, 0_i64..200).prop_map(|(from, count)| (from..from + count).collect::<Vec<_>>());
        let runs = proptest::collection::vec(
            prop_oneof![3 => run, 1 => (0_i64..600).prop_map(|at| vec![at])],
            0..12,
        );
        let signs = proptest::collection::vec(any::<bool>(), 12);
        (runs, signs).prop_map(|(runs, signs)| {
            let signed = runs.into_iter().zip(signs);
            signed.flat_map(|(run, adds)| run.into_iter().map(move |start| (start, adds))).collect()
        })
    }

    proptest! {
        #![proptest_config(crate::aggregate::same_cases())]

        #[test]
        fn windows_are_a_sorted_map(changes in changes(), from in 0_i64..600, count in 0_i64..600) {
            let (mut windows, mut plain, mut next) = (Windows::default(), BTreeMap::new(), 0);
            for (start, adds) in changes {
                if adds {
                    let expected = *plain.entry(start).or_insert(next);
                    prop_assert_eq!(windows.line(start, || next), expected);
                    next += u32::from(expected == next);
                } else {
                    prop_assert_eq!(windows.remove(start), plain.remove(&start));
                }
                prop_assert_eq!(windows.get(start), plain.get(&start).copied());
            }
            prop_assert_eq!(windows.len, plain.len());
            prop_assert!(windows.range(..).eq(plain.iter().map(|(start, line)| (*start, *line))));
            let some = plain.range(from..from + count).map(|(start, line)| (*start, *line));
            prop_assert!(windows.range(from..from + count).eq(some));
        }
    }
}
