//! A map of groups taken apart.

use std::ops::Range;

use super::Groups;

/// The groups of a map, some at a time, in no order.
#[derive(Debug)]
pub struct Parts<'a> {
    of: &'a Groups,
    /// The lines that are left.
    lines: Range<u32>,
}

impl Groups {
    /// Takes the map apart: the sum of its parts is the map, and no group is in two of them.
    pub fn parts(&self) -> Parts<'_> {
        Parts { of: self, lines: 0..self.states.lines() as u32 }
    }
}

impl Parts<'_> {
    /// Returns the next groups, at most so many; none when all were given.
    pub fn take(&mut self, most: usize) -> Option<Groups> {
        let mut part = Groups::new();
        let of = self.of;
        let lines = self.lines.by_ref().filter_map(|line| Some((line, of.window_start(line)?)));
        part.merge(of, lines.take(most), false);
        (!part.is_empty()).then_some(part)
    }
}
