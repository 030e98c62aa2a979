//! Many groups.
//!
//! ```text
//!   key ──▶ windows, ascending: (start, slot), (start, slot), …
//!                                       │
//!                  states by slot: rows, then each aggregate's
//! ```
//!
//! A key's bytes are kept once, whatever the number of its windows, and a range
//! of time of one key is found without touching another. Rows are taken some at
//! a time, an aggregate at a time, and nothing is sorted before somebody asks
//! for an order.

use std::fmt;
use std::ops::RangeBounds;

use crate::aggregate::{AggregateKind, States};
use crate::codec::{DecodeError, Reader, write_i64, write_u64};
use crate::group::{GroupId, GroupState};
use crate::keys::{KeyMap, hash_of};
use crate::rows::GroupedRows;
use crate::series::Series;
use crate::value::Value;

/// Groups that are found first and changed after: what was found is still near
/// when it is changed, and the processor waits for many of them at a time.
const AT_ONCE: usize = 1024;

/// A map of groups in normal form: none is the neutral element. Equal when
/// they hold equal groups, in whatever order these came.
#[derive(Clone, Default)]
pub struct Groups {
    /// The windows of each key; none where all groups of a key are gone.
    keys: KeyMap<Series>,
    /// By slot; a free slot holds the neutral element.
    states: States,
    /// The number of slots, and those of them that are free.
    slots: u32,
    free: Vec<u32>,
}

/// Some groups to find.
#[derive(Default)]
struct Wanted<'a> {
    /// Keys with their hashes; once where several groups one after the other have one.
    keys: Vec<(u32, &'a [u8])>,
    /// For each group, which of the keys, and the start of its window.
    groups: Vec<(u32, i64)>,
    latest: Option<u32>,
}

impl<'a> Wanted<'a> {
    /// Adds a group. Where `run` is that of the group before, so is the key.
    fn push(&mut self, run: u32, window_start: i64, key: impl FnOnce() -> (u32, &'a [u8])) {
        if self.latest.replace(run) != Some(run) {
            self.keys.push(key());
        }
        self.groups.push((self.keys.len() as u32 - 1, window_start));
    }
}

impl Groups {
    /// Creates an empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of groups.
    pub fn len(&self) -> usize {
        self.slots as usize - self.free.len()
    }

    /// Says whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds (1) or retracts (-1) the chosen rows: index and sign of each.
    pub fn update(&mut self, kinds: &[AggregateKind], rows: &GroupedRows, chosen: &[(u32, i64)]) {
        if self.slots == 0 {
            self.states = States::of(kinds);
        }
        for chosen in chosen.chunks(AT_ONCE) {
            let mut wanted = Wanted::default();
            for &(row, _) in chosen {
                let row = row as usize;
                let key = || (rows.keys.hash(row), rows.keys.get(row));
                wanted.push(rows.keys.run(row), rows.windows[row], key);
            }
            let (numbers, slots) = self.slots(&wanted);
            self.states.update(&slots, chosen, &rows.inputs);
            self.remove_zeros(&wanted, &numbers, &slots);
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
        if self.slots == 0 {
            self.states = States::like(&state.aggregates);
        }
        let number = self.keys.number(hash_of(&id.key), &id.key);
        let slot = self.slot(number, id.window_start);
        self.states.grow(self.slots as usize);
        self.states.combine_one(slot, state);
        if self.states.is_zero(slot) {
            self.remove(number, id.window_start);
        }
    }

    /// Adds all groups of `other`.
    pub fn combine(&mut self, other: &Groups) {
        if self.slots == 0 {
            self.clone_from(other);
        } else {
            self.merge(other, false);
        }
    }

    /// Takes all groups of `other` away.
    pub fn retract(&mut self, other: &Groups) {
        self.merge(other, true);
    }

    fn merge(&mut self, other: &Groups, away: bool) {
        if self.slots == 0 {
            self.states = States::like_states(&other.states);
        }
        let mut all = other.each().peekable();
        while all.peek().is_some() {
            let (mut wanted, mut theirs) = (Wanted::default(), Vec::with_capacity(AT_ONCE));
            for (number, window_start, slot) in all.by_ref().take(AT_ONCE) {
                wanted.push(number, window_start, || (other.keys.hash(number), other.keys.key(number)));
                theirs.push(slot);
            }
            let (numbers, slots) = self.slots(&wanted);
            self.states.merge(&slots, &other.states, &theirs, away);
            self.remove_zeros(&wanted, &numbers, &slots);
        }
    }

    /// Returns the numbers of the keys and the slots of the groups; new ones
    /// hold the neutral element.
    fn slots(&mut self, wanted: &Wanted<'_>) -> (Vec<u32>, Vec<u32>) {
        let numbers = self.keys.numbers(&wanted.keys);
        let slot = |&(key, window_start): &(u32, i64)| self.slot(numbers[key as usize], window_start);
        let slots = wanted.groups.iter().map(slot).collect();
        self.states.grow(self.slots as usize);
        (numbers, slots)
    }

    /// Removes those of some groups that became neutral.
    fn remove_zeros(&mut self, wanted: &Wanted<'_>, numbers: &[u32], slots: &[u32]) {
        for (&(key, window_start), &slot) in wanted.groups.iter().zip(slots) {
            if self.states.is_zero(slot) {
                self.remove(numbers[key as usize], window_start);
            }
        }
    }

    /// Returns the slot of a key's window; a new one holds the neutral element,
    /// once the states have grown to it.
    fn slot(&mut self, number: u32, window_start: i64) -> u32 {
        let Self { keys, slots, free, .. } = self;
        keys.value_mut(number).slot(window_start, || {
            free.pop().unwrap_or_else(|| {
                *slots = slots.checked_add(1).expect("fewer than 2^32 groups");
                *slots - 1
            })
        })
    }

    /// Removes a group that became neutral; one that is gone already stays so.
    fn remove(&mut self, number: u32, window_start: i64) {
        if let Some(slot) = self.keys.value_mut(number).remove(window_start) {
            self.states.clear_slot(slot);
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

    /// Returns one group's state.
    pub fn get(&self, id: &GroupId) -> Option<GroupState> {
        self.series(&id.key).get(id.window_start).map(|slot| self.states.get(slot))
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
                (GroupId { key: key.into(), window_start }, self.states.get(slot))
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
                self.states.write(slot, out);
            }
        }
    }

    /// Reads what [`Groups::write`] wrote, and refuses any other bytes.
    pub(crate) fn read(kinds: &[AggregateKind], reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut groups = Self { states: States::of(kinds), ..Self::default() };
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
            let number = groups.keys.number(hash_of(key), key);
            let slot = groups.slot(number, window_start);
            groups.states.push_read(reader)?;
            if groups.states.is_zero(slot) {
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
        let mine = left.next_if(|window| window.0 == window_start).map(|(_, slot)| base.states.get(slot));
        let theirs = right.next_if(|window| window.0 == window_start).map(|(_, slot)| speed.states.get(slot));
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
        let same = |mine: u32, theirs: u32| self.states.equal(mine, &other.states, theirs);
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
