//! Groups whose sums are the groups of a coarser view.

use super::Groups;
use crate::aggregate::{AggregateKind, States};
use crate::line::{AT_ONCE, Sought};
use crate::rows::KeyColumn;

/// How a view's groups add up to those of a coarser one.
pub trait Coarser {
    /// The coarser view's aggregates.
    fn kinds(&self) -> &[AggregateKind];

    /// For each of them, which of the finer view's it is.
    fn picked(&self) -> &[usize];

    /// Returns the coarser key of which a key, by [`crate::Value::encode_key`], is a part.
    fn key(&self, key: &[u8]) -> Box<[u8]>;

    /// Returns the start of the coarser pane of which the pane that starts here is a part.
    fn pane(&self, start: i64) -> i64;
}

/// A group of the finer view: its line, the row of its coarser key, and the start of its coarser pane.
type Part = (u32, u32, i64);

impl Groups {
    /// Adds all groups to the coarser ones that they are parts of, which are in `totals` by view partition.
    pub fn roll_up(&self, totals: &mut [Groups], coarser: &impl Coarser) {
        if self.is_empty() {
            return;
        }
        for total in totals.iter_mut() {
            if total.states.lines() == 0 {
                total.states = States::of(coarser.kinds());
            }
            total.states.admit_sums(&self.states, coarser.picked());
        }
        let (keys, rows) = self.coarser_keys(coarser);
        let mut homes = vec![0; keys.len()];
        for (rows, home) in keys.homes(totals.len() as u32) {
            rows.for_each(|row| homes[row as usize] = home as usize);
        }
        let mut waiting: Vec<Vec<Part>> = totals.iter().map(|_| Vec::with_capacity(AT_ONCE)).collect();
        for (line, start) in self.lines() {
            let row = rows[self.key_line(line) as usize];
            let home = homes[row as usize];
            waiting[home].push((line, row, coarser.pane(start)));
            if waiting[home].len() == AT_ONCE {
                totals[home].add_parts(self, &keys, &waiting[home], coarser.picked());
                waiting[home].clear();
            }
        }
        for (total, parts) in totals.iter_mut().zip(&waiting) {
            total.add_parts(self, &keys, parts, coarser.picked());
        }
    }

    /// Returns the coarser keys, and for each line that is a key's the row of its own among them.
    fn coarser_keys(&self, coarser: &impl Coarser) -> (KeyColumn, Vec<u32>) {
        let (mut keys, mut rows) = (KeyColumn::default(), vec![0; self.states.lines()]);
        for (line, row) in (0..).zip(&mut rows) {
            if !self.series_at(line).is_empty() {
                *row = keys.len() as u32;
                keys.push(&coarser.key(&self.bytes(line)));
            }
        }
        (keys, rows)
    }

    fn add_parts(&mut self, finer: &Groups, keys: &KeyColumn, parts: &[Part], picked: &[usize]) {
        let mut sought = Sought::among(keys.long());
        sought.fill(parts.iter().map(|&(_, row, start)| keys.wanted(row as usize, start)));
        self.find_all(&mut sought);
        let lines = parts.iter().map(|&(line, ..)| line);
        if self.states.merge(sought.lines(), &finer.states, picked, lines, false) {
            self.remove_zeros(sought.lines());
        }
    }
}
