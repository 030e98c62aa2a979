//! Many groups.
//!
//! ```text
//!   key ──▶ line: key │ window │ rows, then each aggregate's
//!             └─ of several windows: (start, line), (start, line), …
//! ```
//!
//! A key with one window is one line: what it is found by and its numbers lie
//! side by side. Where a key has several windows, a range of time is found
//! without touching another key. Rows are taken some at a time, an aggregate at
//! a time, and nothing is sorted before somebody asks for an order.

mod coarser;
mod parts;

use std::cmp::Ordering;
use std::fmt;
use std::ops::Bound;

use crate::aggregate::{AggregateKind, HEAD, States};
use crate::codec::{DecodeError, Reader, write_i64, write_u64};
use crate::group::{GroupId, GroupState};
use crate::keys::{Key, KeyBytes, Places};
use crate::line::{AT_ONCE, FREE, MANY, NONE, ONE, Sought, WINDOW, head, key, window_start};
use crate::rows::{GroupedRows, Wanted};
use crate::run::Part;
use crate::series::{Series, Windows};
use crate::value::Value;

pub use self::coarser::Coarser;
pub use self::parts::Parts;

/// A map of groups in normal form: none is the neutral element. Equal when
/// they hold equal groups, in whatever order these came.
#[derive(Clone, Default)]
pub struct Groups {
    places: Places,
    /// The lines: a key in three words, the start of a window, and the state,
    /// which is neutral where the line is no group's.
    states: States,
    /// For each line, the hash of its key.
    hashes: Vec<u32>,
    /// The bytes of the keys that are too long for their lines.
    long: Vec<u8>,
    /// The windows of keys that have, or had, several.
    many: Vec<Many>,
    /// Lines of nothing.
    free: Vec<u32>,
    /// The number of groups.
    len: usize,
}

/// The windows of a key.
#[derive(Clone)]
struct Many {
    windows: Windows,
    /// The window whose line is the key's; none when that is gone.
    own: Option<i64>,
}

impl Groups {
    /// Creates an empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of groups.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Says whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds (`sign` = 1) or retracts (`sign` = -1) the rows with these indexes.
    pub fn update(&mut self, kinds: &[AggregateKind], rows: &GroupedRows, chosen: &[u32], sign: i64) {
        if self.states.lines() == 0 {
            self.states = States::of(kinds);
        }
        self.states.admit(&rows.inputs, chosen.len(), sign);
        let mut sought = Sought::among(rows.keys.long());
        for chosen in chosen.chunks(AT_ONCE) {
            sought.fill(chosen.iter().map(|&row| rows.wanted(row as usize)));
            self.find_all(&mut sought);
            if self.states.update(sought.lines(), chosen, sign, &rows.inputs) {
                self.remove_zeros(sought.lines());
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
        if self.states.lines() == 0 {
            self.states = States::like(&state.aggregates);
        }
        let line = self.find_or_add(&Wanted::new(&id.key, id.window_start));
        self.states.combine_one(line, state);
        self.remove_zeros(&[line]);
    }

    /// Adds all groups of `other`.
    pub fn combine(&mut self, other: &Groups) {
        if self.states.lines() == 0 {
            self.clone_from(other);
        } else {
            self.merge(other, other.lines(), false);
        }
    }

    /// Takes all groups of `other` away.
    pub fn retract(&mut self, other: &Groups) {
        self.merge(other, other.lines(), true);
    }

    /// Adds some groups of `other`, by their lines and windows, or takes them away.
    fn merge(&mut self, other: &Groups, mut lines: impl Iterator<Item = (u32, i64)>, away: bool) {
        if self.states.lines() == 0 {
            self.states = States::like_states(&other.states);
        }
        if other.is_empty() {
            return;
        }
        let all = other.states.all();
        self.states.admit_states(&other.states);
        let (mut sought, mut theirs) = (Sought::among(&other.long), Vec::with_capacity(AT_ONCE));
        loop {
            theirs.clear();
            theirs.extend(lines.by_ref().take(AT_ONCE));
            if theirs.is_empty() {
                break;
            }
            sought.fill(theirs.iter().map(|&(line, window_start)| other.wanted(line, window_start)));
            self.find_all(&mut sought);
            let theirs = theirs.iter().map(|&(line, _)| line);
            if self.states.merge(sought.lines(), &other.states, &all, theirs, away) {
                self.remove_zeros(sought.lines());
            }
        }
    }

    /// Finds the lines of groups; new ones hold the neutral element.
    ///
    /// In steps, each of which reads what the one before has found for all of
    /// them: so the processor waits for the memory of many at a time.
    fn find_all(&mut self, sought: &mut Sought<'_>) {
        let Sought { count, hashes, heads, long, lines } = sought;
        let (hashes, heads, lines) = (&hashes[..*count], &heads[..*count], &mut lines[..*count]);
        self.places.touch(hashes);
        lines.iter_mut().zip(hashes).for_each(|(line, &hash)| *line = self.places.candidate(hash));
        self.states.touch(lines);
        // Neighbours often have one key, and other windows of it.
        let mut last: Option<(Key, u32)> = None;
        for ((line, head), &hash) in lines.iter_mut().zip(heads).zip(hashes) {
            if !self.states.has_head(*line, head) {
                let wanted = Wanted { hash, key: key(head), long, window_start: window_start(head) };
                let known = last.filter(|(last, _)| *last == wanted.key);
                let found = known.map_or_else(|| self.line_of_key(&wanted), |(_, line)| Ok(line));
                *line = match found {
                    Ok(key_line) => {
                        last = Some((wanted.key, key_line));
                        self.find_or_add_to(key_line, &wanted)
                    }
                    Err(free) => self.add_key(&wanted, free),
                };
            }
        }
    }

    /// Returns the line of a group; a new one holds the neutral element.
    fn find_or_add(&mut self, wanted: &Wanted<'_>) -> u32 {
        match self.line_of_key(wanted) {
            Ok(key_line) => self.find_or_add_to(key_line, wanted),
            Err(free) => self.add_key(wanted, free),
        }
    }

    /// Returns the line of a group of the key that has this line.
    fn find_or_add_to(&mut self, line: u32, wanted: &Wanted<'_>) -> u32 {
        let held = self.head(line);
        match key(held).mark() {
            ONE if window_start(held) == wanted.window_start => line,
            ONE => {
                self.become_many(line);
                self.find_or_add_window(line, wanted)
            }
            NONE => {
                self.len += 1;
                *self.states.head_mut(line) = head(key(self.head(line)).marked(ONE), wanted.window_start);
                line
            }
            _ => self.find_or_add_window(line, wanted),
        }
    }

    /// Returns the line of a key, or the place for it.
    fn line_of_key(&self, wanted: &Wanted<'_>) -> Result<u32, usize> {
        let is_it = |line| key(self.head(line)).is(&self.long, wanted.key, wanted.long);
        self.places.find(wanted.hash, is_it)
    }

    fn add_key(&mut self, wanted: &Wanted<'_>, free: usize) -> u32 {
        let key = wanted.key.at(self.long.len()).marked(ONE);
        if key.is_long() {
            self.long.extend_from_slice(&wanted.key.bytes(wanted.long));
        }
        let line = push(&mut self.states, &mut self.hashes, head(key, wanted.window_start), wanted.hash);
        self.places.add(wanted.hash, line, free);
        self.len += 1;
        line
    }

    /// Makes the line of a key with one window that of a key with several.
    fn become_many(&mut self, line: u32) {
        let held = *self.head(line);
        let mut windows = Windows::default();
        windows.line(window_start(&held), || line);
        *self.states.head_mut(line) = head(key(&held).marked(MANY), self.many.len() as i64);
        self.many.push(Many { windows, own: Some(window_start(&held)) });
    }

    /// Returns the line of a window of a key that has, or had, several.
    fn find_or_add_window(&mut self, key_line: u32, wanted: &Wanted<'_>) -> u32 {
        let windows = window_start(self.head(key_line)) as usize;
        let Self { many, states, hashes, free, len, .. } = self;
        many[windows].windows.line(wanted.window_start, || {
            *len += 1;
            let head = head(Key([key_line.into(), 0, 0]).marked(WINDOW), wanted.window_start);
            match free.pop() {
                Some(line) => {
                    (*states.head_mut(line), hashes[line as usize]) = (head, wanted.hash);
                    line
                }
                None => push(states, hashes, head, wanted.hash),
            }
        })
    }

    /// Removes those of some groups that became neutral; one that is gone already stays so.
    fn remove_zeros(&mut self, lines: &[u32]) {
        for &line in lines {
            if !self.states.is_zero(line) {
                continue;
            }
            let held = *self.head(line);
            match key(&held).mark() {
                ONE => *self.states.head_mut(line) = head(key(&held).marked(NONE), 0),
                MANY => {
                    let many = &mut self.many[window_start(&held) as usize];
                    let Some(own) = many.own.take() else { continue };
                    many.windows.remove(own);
                }
                WINDOW => {
                    let many = window_start(self.head(held[0] as u32)) as usize;
                    self.many[many].windows.remove(window_start(&held));
                    *self.states.head_mut(line) = head(Key([0; Key::WORDS]).marked(FREE), 0);
                    self.free.push(line);
                }
                _ => continue,
            }
            self.len -= 1;
        }
    }

    fn head(&self, line: u32) -> &[u64; HEAD] {
        self.states.head(line)
    }

    /// Returns the start of a line's window, if the line is a group's.
    fn window_start(&self, line: u32) -> Option<i64> {
        let held = self.head(line);
        match key(held).mark() {
            ONE | WINDOW => Some(window_start(held)),
            MANY => self.many[window_start(held) as usize].own,
            _ => None,
        }
    }

    /// Iterates the groups' lines and windows, in no order.
    fn lines(&self) -> impl Iterator<Item = (u32, i64)> {
        let all = 0..self.states.lines() as u32;
        all.filter_map(|line| self.window_start(line).map(|window_start| (line, window_start)))
    }

    /// Returns the line of a group's key.
    fn key_line(&self, line: u32) -> u32 {
        let held = key(self.head(line));
        if held.mark() == WINDOW { held.0[0] as u32 } else { line }
    }

    /// Returns the key of a group's line.
    fn key(&self, line: u32) -> Key {
        key(self.head(self.key_line(line)))
    }

    fn bytes(&self, line: u32) -> KeyBytes<'_> {
        self.key(line).bytes(&self.long)
    }

    /// Returns a line's group, to find it elsewhere.
    fn wanted(&self, line: u32, window_start: i64) -> Wanted<'_> {
        let (hash, key) = (self.hashes[line as usize], self.key(line).wanted());
        Wanted { hash, key, long: &self.long, window_start }
    }

    /// Returns the windows of a key.
    fn series(&self, wanted: &Wanted<'_>) -> Series<'_> {
        self.line_of_key(wanted).map_or(Series::Empty, |line| self.series_at(line))
    }

    /// Returns the windows of the key of a line.
    fn series_at(&self, line: u32) -> Series<'_> {
        let held = self.head(line);
        match key(held).mark() {
            ONE => Series::One(window_start(held), line),
            MANY => Series::Many(&self.many[window_start(held) as usize].windows),
            _ => Series::Empty,
        }
    }

    /// Returns the keys that have groups with their lines, in order.
    fn ordered(&self) -> Vec<(KeyBytes<'_>, u32)> {
        let held = (0..self.states.lines() as u32).filter(|&line| !self.series_at(line).is_empty());
        let mut keys: Vec<_> = held.map(|line| (self.bytes(line), line)).collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        keys
    }

    /// Returns one group's state.
    pub fn get(&self, id: &GroupId) -> Option<GroupState> {
        let wanted = Wanted::new(&id.key, id.window_start);
        self.series(&wanted).get(id.window_start).map(|line| self.states.get(line))
    }

    /// Iterates the groups' names, in no order.
    pub fn ids(&self) -> impl Iterator<Item = GroupId> {
        self.lines().map(|(line, window_start)| GroupId { key: (*self.bytes(line)).into(), window_start })
    }

    /// Iterates in order of key and window.
    pub fn iter(&self) -> impl Iterator<Item = (GroupId, GroupState)> {
        self.ordered().into_iter().flat_map(move |(key, line)| {
            self.series_at(line).range(..).map(move |(window_start, line)| {
                (GroupId { key: (*key).into(), window_start }, self.states.get(line))
            })
        })
    }

    /// Appends the canonical encoding: groups in order.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write_u64(out, self.len() as u64);
        for (key, line) in self.ordered() {
            for (window_start, line) in self.series_at(line).range(..) {
                write_u64(out, key.len() as u64);
                out.extend_from_slice(&key);
                write_i64(out, window_start);
                self.states.write(line, out);
            }
        }
    }

    /// Reads what [`Groups::write`] wrote, and refuses any other bytes.
    pub(crate) fn read(kinds: &[AggregateKind], reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut groups = Self { states: States::of(kinds), ..Self::default() };
        // With the line of its key, which most groups share with the one before.
        let mut last: Option<(&[u8], i64, u32)> = None;
        for _ in 0..reader.u64()? {
            let length = reader.u64()?;
            let key = reader.bytes(length)?;
            let window_start = reader.i64()?;
            let line = match last.map(|(last_key, start, line)| (last_key.cmp(key), start, line)) {
                Some((Ordering::Equal, start, key_line)) if start < window_start => {
                    let hash = groups.hashes[key_line as usize];
                    let wanted = Wanted { hash, key: Key::of(key), long: key, window_start };
                    groups.find_or_add_to(key_line, &wanted)
                }
                None | Some((Ordering::Less, ..)) => groups.find_or_add(&Wanted::new(key, window_start)),
                _ => return Err(reader.broken("groups are not in order")),
            };
            last = Some((key, window_start, groups.key_line(line)));
            groups.states.read(line, reader)?;
            if groups.states.is_zero(line) {
                return Err(reader.broken("a group holds nothing"));
            }
        }
        Ok(groups)
    }

    /// Returns base ⊕ speed of some groups, in order: those that have rows, or all that are not neutral.
    pub(crate) fn combined(
        base: &Self,
        speed: &Self,
        part: Part<'_>,
        also_without_rows: bool,
    ) -> Vec<(GroupId, GroupState)> {
        let keep = |state: &GroupState| state.rows > 0 || (also_without_rows && !state.is_zero());
        let mut out = Vec::new();
        if let Some(key) = part.key {
            combine_windows(base, speed, key, part.windows, keep, &mut out);
            return out;
        }
        let mut keys = base.ordered();
        keys.extend(speed.ordered());
        // Two ascending runs: a stable sort merges them.
        keys.sort_by_key(|(key, _)| *key);
        keys.dedup_by_key(|(key, _)| *key);
        for (key, _) in keys {
            combine_windows(base, speed, &key, part.windows, keep, &mut out);
        }
        out
    }
}

/// Combines some of one key's windows, of which some are kept.
fn combine_windows(
    base: &Groups,
    speed: &Groups,
    key: &[u8],
    range: (Bound<i64>, Bound<i64>),
    keep: impl Fn(&GroupState) -> bool,
    out: &mut Vec<(GroupId, GroupState)>,
) {
    let wanted = Wanted::new(key, 0);
    let mut left = base.series(&wanted).range(range).peekable();
    let mut right = speed.series(&wanted).range(range).peekable();
    loop {
        let window_start = match (left.peek(), right.peek()) {
            (Some(a), Some(b)) => a.0.min(b.0),
            (Some(a), None) => a.0,
            (None, Some(b)) => b.0,
            (None, None) => return,
        };
        let mine = left.next_if(|window| window.0 == window_start).map(|(_, line)| base.states.get(line));
        let theirs = right.next_if(|window| window.0 == window_start).map(|(_, line)| speed.states.get(line));
        let state = match (mine, theirs) {
            (Some(mut mine), Some(theirs)) => {
                mine.combine(&theirs);
                mine
            }
            (one, other) => one.or(other).expect("one of them starts here"),
        };
        if keep(&state) {
            out.push((GroupId { key: key.into(), window_start }, state));
        }
    }
}

/// Adds a line with the neutral state.
fn push(states: &mut States, hashes: &mut Vec<u32>, head: [u64; HEAD], hash: u32) -> u32 {
    let line = u32::try_from(hashes.len()).ok().filter(|&line| line != u32::MAX);
    hashes.push(hash);
    states.push(head);
    line.expect("fewer than 2^32 - 1 groups")
}

impl PartialEq for Groups {
    fn eq(&self, other: &Self) -> bool {
        let equal = |(line, window_start)| {
            let theirs = other.series(&self.wanted(line, window_start)).get(window_start);
            theirs.is_some_and(|theirs| self.states.equal(line, &other.states, theirs))
        };
        self.len() == other.len() && self.lines().all(equal)
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
