//! Many groups, by column.
//!
//! ```text
//!   key ──▶ windows, ascending: (start, slot), (start, slot), …
//!                                       │
//!            rows │ aggregate │ aggregate … , each by slot
//! ```
//!
//! A key's bytes are kept once, whatever the number of its windows, and a range
//! of time of one key is found without touching another. Rows are taken a batch
//! at a time, a column at a time, and nothing is sorted before somebody asks
//! for an order.

use std::fmt;
use std::ops::RangeBounds;

use crate::aggregate::{AggregateKind, Column};
use crate::codec::{DecodeError, Reader, write_i64, write_u64};
use crate::group::{GroupId, GroupState};
use crate::keys::{KeyMap, hash_of};
use crate::rows::GroupedRows;
use crate::series::Series;
use crate::value::Value;

/// A map of groups in normal form: none is the neutral element. Equal when
/// they hold equal groups, in whatever order these came.
#[derive(Clone, Default)]
pub struct Groups {
    /// The windows of each key; none where all groups of a key are gone.
    keys: KeyMap<Series>,
    /// By slot; a free slot holds the neutral element.
    rows: Vec<i64>,
    columns: Vec<Column>,
    free: Vec<u32>,
}

impl Groups {
    /// Creates an empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of groups.
    pub fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    /// Says whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds (1) or retracts (-1) the chosen rows: index and sign of each.
    pub fn update(&mut self, kinds: &[AggregateKind], rows: &GroupedRows, chosen: &[(u32, i64)]) {
        if self.rows.is_empty() {
            self.columns = kinds.iter().map(Column::of).collect();
        }
        let mut slots = Vec::with_capacity(chosen.len());
        for &(row, _) in chosen {
            let row = row as usize;
            slots.push(self.slot(rows.keys.hash(row), rows.keys.get(row), rows.windows[row]));
        }
        for (&slot, &(_, sign)) in slots.iter().zip(chosen) {
            self.rows[slot as usize] = self.rows[slot as usize].wrapping_add(sign);
        }
        for (column, inputs) in self.columns.iter_mut().zip(&rows.inputs) {
            column.grow(self.rows.len());
            column.update(&slots, chosen, inputs);
        }
        for (&slot, &(row, _)) in slots.iter().zip(chosen) {
            let row = row as usize;
            if self.is_zero(slot) {
                self.remove(rows.keys.hash(row), rows.keys.get(row), rows.windows[row]);
            }
        }
    }

    /// Adds or retracts one row; see [`GroupState::update`].
    pub fn update_one(&mut self, kinds: &[AggregateKind], id: &GroupId, inputs: &[Option<Value>], sign: i64) {
        let mut state = GroupState::zero(kinds);
        state.update(inputs, sign);
        self.combine_one(id, &state);
    }

    /// Adds one group's state.
    pub fn combine_one(&mut self, id: &GroupId, state: &GroupState) {
        if self.rows.is_empty() {
            self.columns = state.aggregates.iter().map(Column::like).collect();
        }
        let hash = hash_of(&id.key);
        let slot = self.slot(hash, &id.key, id.window_start);
        self.rows[slot as usize] = self.rows[slot as usize].wrapping_add(state.rows);
        for (column, state) in self.columns.iter_mut().zip(&state.aggregates) {
            column.grow(self.rows.len());
            column.combine_one(slot, state);
        }
        if self.is_zero(slot) {
            self.remove(hash, &id.key, id.window_start);
        }
    }

    /// Adds all groups of `other`.
    pub fn combine(&mut self, other: &Groups) {
        if self.rows.is_empty() {
            self.clone_from(other);
        } else {
            self.merge(other, i64::wrapping_add, Column::combine);
        }
    }

    /// Takes all groups of `other` away.
    pub fn retract(&mut self, other: &Groups) {
        self.merge(other, i64::wrapping_sub, Column::retract);
    }

    fn merge(
        &mut self,
        other: &Groups,
        rows: impl Fn(i64, i64) -> i64,
        states: impl Fn(&mut Column, &Column, &[(u32, u32)]),
    ) {
        if self.rows.is_empty() {
            self.columns = other.columns.iter().map(Column::like_column).collect();
        }
        let mut pairs = Vec::with_capacity(other.len());
        for (key, window_start, theirs) in other.each() {
            let mine = self.slot(other.keys.hash(key), other.keys.key(key), window_start);
            pairs.push((mine, theirs));
        }
        for &(mine, theirs) in &pairs {
            self.rows[mine as usize] = rows(self.rows[mine as usize], other.rows[theirs as usize]);
        }
        for (column, theirs) in self.columns.iter_mut().zip(&other.columns) {
            column.grow(self.rows.len());
            states(column, theirs, &pairs);
        }
        for ((key, window_start, _), &(mine, _)) in other.each().zip(&pairs) {
            if self.is_zero(mine) {
                self.remove(other.keys.hash(key), other.keys.key(key), window_start);
            }
        }
    }

    /// Returns the slot of a group; a new one holds the neutral element, once
    /// the columns have grown to it.
    fn slot(&mut self, hash: u64, key: &[u8], window_start: i64) -> u32 {
        let number = self.keys.number(hash, key);
        let Self { keys, rows, free, .. } = self;
        keys.value_mut(number).slot(window_start, || {
            free.pop().unwrap_or_else(|| {
                rows.push(0);
                u32::try_from(rows.len() - 1).expect("fewer than 2^32 groups")
            })
        })
    }

    fn is_zero(&self, slot: u32) -> bool {
        self.rows[slot as usize] == 0 && self.columns.iter().all(|column| column.is_zero(slot))
    }

    /// Removes a group that became neutral; one that is gone already stays so.
    fn remove(&mut self, hash: u64, key: &[u8], window_start: i64) {
        let number = self.keys.number(hash, key);
        if let Some(slot) = self.keys.value_mut(number).remove(window_start) {
            self.columns.iter_mut().for_each(|column| column.clear(slot));
            self.free.push(slot);
        }
    }

    /// Iterates number of key, start of window and slot, in no order.
    fn each(&self) -> impl Iterator<Item = (u32, i64, u32)> {
        self.keys
            .iter()
            .flat_map(|(key, series)| series.range(..).map(move |(start, slot)| (key, start, slot)))
    }

    /// Returns the windows of a key.
    fn series(&self, key: &[u8]) -> &Series {
        self.keys.find(hash_of(key), key).unwrap_or(&Series::Empty)
    }

    /// Returns the keys that have groups and are chosen, in order.
    fn ordered(&self, chosen: impl Fn(&[u8]) -> bool) -> Vec<u32> {
        let held = self.keys.iter().filter(|(_, series)| !series.is_empty());
        let mut keys: Vec<u32> = held.map(|(key, _)| key).filter(|&key| chosen(self.keys.key(key))).collect();
        keys.sort_unstable_by_key(|&key| self.keys.key(key));
        keys
    }

    fn state(&self, slot: u32) -> GroupState {
        let aggregates = self.columns.iter().map(|column| column.get(slot)).collect();
        GroupState { rows: self.rows[slot as usize], aggregates }
    }

    /// Returns one group's state.
    pub fn get(&self, id: &GroupId) -> Option<GroupState> {
        self.series(&id.key).get(id.window_start).map(|slot| self.state(slot))
    }

    /// Iterates the groups' names, in no order.
    pub fn ids(&self) -> impl Iterator<Item = GroupId> {
        self.each().map(|(key, window_start, _)| GroupId { key: self.keys.key(key).into(), window_start })
    }

    /// Iterates in order of key and window.
    pub fn iter(&self) -> impl Iterator<Item = (GroupId, GroupState)> {
        self.ordered(|_| true).into_iter().flat_map(move |number| {
            let key = self.keys.key(number);
            self.keys.value(number).range(..).map(move |(window_start, slot)| {
                (GroupId { key: key.into(), window_start }, self.state(slot))
            })
        })
    }

    /// Appends the canonical encoding: groups in order.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write_u64(out, self.len() as u64);
        for number in self.ordered(|_| true) {
            let key = self.keys.key(number);
            for (window_start, slot) in self.keys.value(number).range(..) {
                write_u64(out, key.len() as u64);
                out.extend_from_slice(key);
                write_i64(out, window_start);
                write_i64(out, self.rows[slot as usize]);
                self.columns.iter().for_each(|column| column.write(slot, out));
            }
        }
    }

    /// Reads what [`Groups::write`] wrote, and refuses any other bytes.
    pub(crate) fn read(kinds: &[AggregateKind], reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut groups = Self { columns: kinds.iter().map(Column::of).collect(), ..Self::default() };
        let mut last: Option<(&[u8], i64)> = None;
        for _ in 0..reader.u64()? {
            let length = reader.u64()?;
            let key = reader.bytes(length)?;
            let window_start = reader.i64()?;
            if let Some((last_key, last_start)) = last
                && last_key.cmp(key).then(last_start.cmp(&window_start)).is_ge()
            {
                return Err(reader.broken("groups are not in order"));
            }
            last = Some((key, window_start));
            let slot = groups.slot(hash_of(key), key, window_start);
            groups.rows[slot as usize] = reader.i64()?;
            groups.columns.iter_mut().try_for_each(|column| column.push_read(reader))?;
            if groups.is_zero(slot) {
                return Err(reader.broken("a group holds nothing"));
            }
        }
        Ok(groups)
    }

    /// Returns base ⊕ speed of one key's groups with `from <= start < to`,
    /// those that have rows, in order.
    pub(crate) fn combined_range(
        base: &Self,
        speed: &Self,
        key: &[u8],
        from: i64,
        to: i64,
    ) -> Vec<(GroupId, GroupState)> {
        let mut out = Vec::new();
        combine_windows(base, speed, key, from..to.max(from), &mut out);
        out
    }

    /// Returns base ⊕ speed of the groups whose key lies in `[from, to)`, those
    /// that have rows, in order; an absent `to` is no bound.
    pub(crate) fn combined(
        base: &Self,
        speed: &Self,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Vec<(GroupId, GroupState)> {
        let inside = |key: &[u8]| from <= key && to.is_none_or(|to| key < to);
        let mut keys: Vec<&[u8]> =
            base.ordered(inside).into_iter().map(|number| base.keys.key(number)).collect();
        keys.extend(speed.ordered(inside).into_iter().map(|number| speed.keys.key(number)));
        // Two ascending runs: a stable sort merges them.
        keys.sort();
        keys.dedup();
        let mut out = Vec::with_capacity(keys.len());
        for key in keys {
            combine_windows(base, speed, key, .., &mut out);
        }
        out
    }
}

/// Combines one key's windows; keeps those that have rows.
fn combine_windows(
    base: &Groups,
    speed: &Groups,
    key: &[u8],
    range: impl RangeBounds<i64> + Clone,
    out: &mut Vec<(GroupId, GroupState)>,
) {
    let mut left = base.series(key).range(range.clone()).peekable();
    let mut right = speed.series(key).range(range).peekable();
    loop {
        let window_start = match (left.peek(), right.peek()) {
            (Some(a), Some(b)) => a.0.min(b.0),
            (Some(a), None) => a.0,
            (None, Some(b)) => b.0,
            (None, None) => return,
        };
        let mine = left.next_if(|window| window.0 == window_start).map(|(_, slot)| base.state(slot));
        let theirs = right.next_if(|window| window.0 == window_start).map(|(_, slot)| speed.state(slot));
        let state = match (mine, theirs) {
            (Some(mut mine), Some(theirs)) => {
                mine.combine(&theirs);
                mine
            }
            (one, other) => one.or(other).expect("one of them starts here"),
        };
        if state.rows > 0 {
            out.push((GroupId { key: key.into(), window_start }, state));
        }
    }
}

impl PartialEq for Groups {
    fn eq(&self, other: &Self) -> bool {
        let same = |mine: u32, theirs: u32| {
            self.rows[mine as usize] == other.rows[theirs as usize]
                && self.columns.iter().zip(&other.columns).all(|(a, b)| a.equal(mine, b, theirs))
        };
        let equal = |(key, series): (u32, &Series)| {
            let found = other.keys.find(self.keys.hash(key), self.keys.key(key));
            let theirs = found.unwrap_or(&Series::Empty);
            let mut windows = series.range(..).zip(theirs.range(..));
            series.len() == theirs.len() && windows.all(|(a, b)| a.0 == b.0 && same(a.1, b.1))
        };
        self.len() == other.len() && self.keys.iter().all(equal)
    }
}

impl Eq for Groups {}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl FromIterator<(GroupId, GroupState)> for Groups {
    fn from_iter<I: IntoIterator<Item = (GroupId, GroupState)>>(groups: I) -> Self {
        let mut all = Self::new();
        groups.into_iter().for_each(|(id, state)| all.combine_one(&id, &state));
        all
    }
}
