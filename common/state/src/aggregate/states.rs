//! The states of many groups, a line each.
//!
//! ```text
//!   words    line 0: head │ rows │ sum │ count ║ line 1: head │ rows │ sum │ count ║ …
//!   columns  of what has no fixed size, by line
//! ```
//!
//! Most states are a few wrapping numbers. Those of one group lie behind what
//! names it (the head, which is its owner's), so that finding a group and
//! updating it reads one place in memory, whatever its aggregates.
//!
//! Counts begin narrow: without a word, as what they count is all rows. So do
//! sums: as one word, of as many values as there are rows. The first null,
//! filtered row, or sum that might not fit widens its column, of all lines and
//! for good. What is held is the same in both forms.

use std::hint::black_box;

use crate::aggregate::column::{At, Column, HEAD, ROWS, add, change};
use crate::aggregate::kind::AggregateKind;
use crate::aggregate::{AggregateState, Count, Mergeable, Moments, Multiset, Quantiles, Rows, Sum, Words};
use crate::codec::{DecodeError, Reader, write_i64};
use crate::group::GroupState;
use crate::rows::{Inputs, Numbers};

/// A group's states, one for each line.
#[derive(Clone, Debug, Default)]
pub(crate) struct States {
    words: Vec<u64>,
    /// Words of one line; 0 until the aggregates are known.
    stride: usize,
    columns: Vec<Column>,
}

const OTHER: &str = "states of different aggregates";

impl States {
    /// Creates states of these aggregates, without lines.
    pub(crate) fn of(kinds: &[AggregateKind]) -> Self {
        let zeros: Vec<_> = kinds.iter().map(AggregateKind::zero).collect();
        Self::like(&zeros)
    }

    /// Creates states of the same aggregates as these, without lines.
    pub(crate) fn like(states: &[AggregateState]) -> Self {
        let columns = states.iter().map(|state| match state {
            AggregateState::Rows(_) => Column::Rows(At::new(true)),
            AggregateState::Count(_) => Column::Count(At::new(true)),
            AggregateState::Sum(_) => Column::Sum(At::new(true)),
            AggregateState::Moments(_) => Column::Moments(At::new(false)),
            AggregateState::Values(_) => Column::Values(Vec::new()),
            AggregateState::Quantiles(_) => Column::Quantiles(Vec::new()),
        });
        let mut this = Self { words: Vec::new(), stride: 0, columns: columns.collect() };
        this.place_columns();
        this
    }

    /// Creates states of the other's aggregates, without lines.
    pub(crate) fn like_states(other: &Self) -> Self {
        let columns = other.columns.iter().map(|column| match column {
            Column::Values(_) => Column::Values(Vec::new()),
            Column::Quantiles(_) => Column::Quantiles(Vec::new()),
            fixed => fixed.clone(),
        });
        Self { words: Vec::new(), stride: other.stride, columns: columns.collect() }
    }

    fn place_columns(&mut self) {
        self.stride = ROWS + 1;
        for column in &mut self.columns {
            let words = column.words();
            if let Some(at) = column.at_mut() {
                at.word = self.stride;
            }
            self.stride += words;
        }
    }

    /// Gives a column its full width in every line.
    fn widen(&mut self, column: usize) {
        let (before, stride) = (std::mem::take(&mut self.words), self.stride);
        let places: Vec<Option<At>> = self.columns.iter().map(Column::at).collect();
        self.columns[column].at_mut().expect("a column in words").narrow = None;
        self.place_columns();
        self.words.resize(before.len() / stride * self.stride, 0);
        let lines = before.chunks_exact(stride).zip(self.words.chunks_exact_mut(self.stride));
        for (before, line) in lines {
            line[..=ROWS].copy_from_slice(&before[..=ROWS]);
            for (column, from) in self.columns.iter().zip(&places) {
                match (column, *from) {
                    (Column::Rows(at), Some(from)) => at.take::<Rows>(from, before, line),
                    (Column::Count(at), Some(from)) => at.take::<Count>(from, before, line),
                    (Column::Sum(at), Some(from)) => at.take::<Sum>(from, before, line),
                    (Column::Moments(at), Some(from)) => at.take::<Moments>(from, before, line),
                    _ => {}
                }
            }
        }
    }

    /// Returns the number of lines; 0 as long as the aggregates are not known.
    pub(crate) fn lines(&self) -> usize {
        self.words.len().checked_div(self.stride).unwrap_or(0)
    }

    /// Adds a line with the neutral state.
    pub(crate) fn push(&mut self, head: [u64; HEAD]) {
        let start = self.words.len();
        self.words.resize(start + self.stride, 0);
        self.words[start..][..HEAD].copy_from_slice(&head);
        for column in &mut self.columns {
            match column {
                Column::Values(states) => states.push(Multiset::default()),
                Column::Quantiles(states) => states.push(Quantiles::default()),
                _ => {}
            }
        }
    }

    fn line(&self, line: u32) -> &[u64] {
        &self.words[line as usize * self.stride..][..self.stride]
    }

    fn line_mut(&mut self, line: u32) -> &mut [u64] {
        &mut self.words[line as usize * self.stride..][..self.stride]
    }

    /// Reads some lines, and nothing that depends on them: so the processor
    /// waits for all of them at once. Those that are not there are passed over.
    pub(crate) fn touch(&self, lines: &[u32]) {
        let Some(last) = self.words.len().checked_sub(self.stride) else { return };
        let ends = |&line: &u32| {
            let start = last.min(line as usize * self.stride);
            self.words[start] ^ self.words[start + self.stride - 1]
        };
        black_box(lines.iter().map(ends).fold(0, |all, words| all ^ words));
    }

    /// Returns the head of a line.
    pub(crate) fn head(&self, line: u32) -> &[u64; HEAD] {
        self.line(line).first_chunk().expect("a line is longer than its head")
    }

    /// Says whether there is such a line, with this head.
    pub(crate) fn has_head(&self, line: u32, head: &[u64; HEAD]) -> bool {
        let held = self.words.get(line as usize * self.stride..).and_then(|rest| rest.first_chunk());
        // Word by word: arrays would be compared by a call, or as wider words than were just written.
        held.is_some_and(|[a, b, c, d]| (a ^ head[0]) | (b ^ head[1]) | (c ^ head[2]) | (d ^ head[3]) == 0)
    }

    /// Returns the head of a line, to change.
    pub(crate) fn head_mut(&mut self, line: u32) -> &mut [u64; HEAD] {
        self.line_mut(line).first_chunk_mut().expect("a line is longer than its head")
    }

    /// Returns how many rows a line's group has.
    pub(crate) fn rows(&self, line: u32) -> i64 {
        self.line(line)[ROWS].cast_signed()
    }

    /// Returns a line's group.
    pub(crate) fn get(&self, line: u32) -> GroupState {
        let words = self.line(line);
        let state = |column: &Column| match column {
            Column::Rows(at) => AggregateState::Rows(at.load(words)),
            Column::Count(at) => AggregateState::Count(at.load(words)),
            Column::Sum(at) => AggregateState::Sum(at.load(words)),
            Column::Moments(at) => AggregateState::Moments(Box::new(at.load(words))),
            Column::Values(states) => AggregateState::Values(states[line as usize].clone()),
            Column::Quantiles(states) => AggregateState::Quantiles(states[line as usize].clone()),
        };
        GroupState { rows: self.rows(line), aggregates: self.columns.iter().map(state).collect() }
    }

    /// Says whether a line's group is the neutral element.
    pub(crate) fn is_zero(&self, line: u32) -> bool {
        self.line(line)[HEAD..].iter().all(|word| *word == 0)
            && self.columns.iter().all(|column| match column {
                Column::Values(states) => states[line as usize].is_zero(),
                Column::Quantiles(states) => states[line as usize].is_zero(),
                _ => true,
            })
    }

    /// Says whether two lines hold equal groups.
    pub(crate) fn equal(&self, line: u32, other: &Self, other_line: u32) -> bool {
        let (mine, theirs) = (self.line(line), other.line(other_line));
        mine[ROWS] == theirs[ROWS]
            && self.columns.iter().zip(&other.columns).all(|columns| match columns {
                (Column::Rows(a), Column::Rows(b)) => a.load::<Rows>(mine) == b.load(theirs),
                (Column::Count(a), Column::Count(b)) => a.load::<Count>(mine) == b.load(theirs),
                (Column::Sum(a), Column::Sum(b)) => a.load::<Sum>(mine) == b.load(theirs),
                (Column::Moments(a), Column::Moments(b)) => a.load::<Moments>(mine) == b.load(theirs),
                (Column::Values(a), Column::Values(b)) => a[line as usize] == b[other_line as usize],
                (Column::Quantiles(a), Column::Quantiles(b)) => a[line as usize] == b[other_line as usize],
                _ => false,
            })
    }

    /// Appends the canonical encoding of a line's group.
    pub(crate) fn write(&self, line: u32, out: &mut Vec<u8>) {
        let words = self.line(line);
        write_i64(out, self.rows(line));
        for column in &self.columns {
            match column {
                Column::Rows(at) => at.load::<Rows>(words).write(out),
                Column::Count(at) => at.load::<Count>(words).write(out),
                Column::Sum(at) => at.load::<Sum>(words).write(out),
                Column::Moments(at) => at.load::<Moments>(words).write(out),
                Column::Values(states) => states[line as usize].write(out),
                Column::Quantiles(states) => states[line as usize].write(out),
            }
        }
    }

    /// Reads what [`States::write`] wrote into a line with the neutral state.
    pub(crate) fn read(&mut self, line: u32, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let zero = self.get(line).aggregates;
        let rows = reader.i64()?;
        let read = zero.iter().map(|zero| zero.read_like(reader));
        let aggregates = read.collect::<Result<_, _>>()?;
        self.combine_one(line, &GroupState { rows, aggregates });
        Ok(())
    }

    /// Adds a group to the one of a line.
    pub(crate) fn combine_one(&mut self, line: u32, group: &GroupState) {
        for (column, state) in group.aggregates.iter().enumerate() {
            let words = &self.words[line as usize * self.stride..][..self.stride];
            let admitted = match (&mut self.columns[column], state) {
                (Column::Rows(at), AggregateState::Rows(state)) => at.admits_state(words, state, group.rows),
                (Column::Count(at), AggregateState::Count(state)) => {
                    at.admits_state(words, state, group.rows)
                }
                (Column::Sum(at), AggregateState::Sum(state)) => at.admits_state(words, state, group.rows),
                _ => true,
            };
            if !admitted {
                self.widen(column);
            }
        }
        let words = &mut self.words[line as usize * self.stride..][..self.stride];
        for (column, state) in self.columns.iter_mut().zip(&group.aggregates) {
            match (column, state) {
                (Column::Rows(at), AggregateState::Rows(state)) => at.add(words, state, group.rows),
                (Column::Count(at), AggregateState::Count(state)) => at.add(words, state, group.rows),
                (Column::Sum(at), AggregateState::Sum(state)) => at.add(words, state, group.rows),
                (Column::Moments(at), AggregateState::Moments(state)) => {
                    at.add(words, &**state, group.rows);
                }
                (Column::Values(states), AggregateState::Values(state)) => {
                    states[line as usize].combine(state);
                }
                (Column::Quantiles(states), AggregateState::Quantiles(state)) => {
                    states[line as usize].combine(state);
                }
                _ => panic!("{OTHER}"),
            }
        }
        words[ROWS] = words[ROWS].wrapping_add(group.rows.cast_unsigned());
    }

    /// Returns the aggregates, as [`States::merge`] is told of them where both have the same.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.columns.len()).collect()
    }

    /// Makes room for what [`States::merge`] will add of the other's states.
    pub(crate) fn admit_states(&mut self, other: &Self) {
        for (column, theirs) in other.columns.iter().enumerate() {
            let admitted = match (self.columns[column].at_mut(), theirs.at()) {
                (Some(mine), Some(At { narrow: Some(magnitude), .. })) => mine.admits(magnitude),
                (Some(mine), Some(At { narrow: None, .. })) => mine.narrow.is_none(),
                _ => true,
            };
            if !admitted {
                self.widen(column);
            }
        }
    }

    /// Makes room for all of the other's states, any number of which [`States::merge`] may add to one line.
    pub(crate) fn admit_sums(&mut self, other: &Self, picked: &[usize]) {
        for (column, theirs) in picked.iter().enumerate() {
            let magnitude = match &other.columns[*theirs] {
                Column::Sum(At { narrow: Some(_), word }) => {
                    let sums = other.words.chunks_exact(other.stride).map(|line| line[*word].cast_signed());
                    Some(sums.map(|sum| u128::from(sum.unsigned_abs())).sum())
                }
                fixed => fixed.at().and_then(|at| at.narrow),
            };
            let admitted = self.columns[column].at_mut().is_none_or(|mine| match magnitude {
                Some(magnitude) => mine.admits(magnitude),
                None => mine.narrow.is_none(),
            });
            if !admitted {
                self.widen(column);
            }
        }
    }

    /// Adds the groups in some of the other's lines to those in `lines`, or
    /// takes them away. `picked` says for each of my aggregates which of the other's it is.
    /// Says whether any may be the neutral element now. The other's states are admitted already.
    pub(crate) fn merge(
        &mut self,
        lines: &[u32],
        other: &Self,
        picked: &[usize],
        other_lines: impl Iterator<Item = u32> + Clone,
        away: bool,
    ) -> bool {
        let stride = (self.stride, other.stride);
        let pairs = lines.iter().zip(other_lines).map(|(&mine, theirs)| (mine as usize, theirs as usize));
        let (mine, theirs) = (&mut self.words[..], &other.words[..]);
        let mut merging = Merging { mine, theirs, stride, pairs: pairs.clone(), away };
        let zero = merging.words(ROWS, ROWS);
        for (column, theirs) in self.columns.iter_mut().zip(picked) {
            match (column, &other.columns[*theirs]) {
                (Column::Rows(at), Column::Rows(from)) => merging.states::<Rows>(*at, *from),
                (Column::Count(at), Column::Count(from)) => merging.states::<Count>(*at, *from),
                (Column::Sum(at), Column::Sum(from)) => merging.states::<Sum>(*at, *from),
                (Column::Moments(at), Column::Moments(from)) => merging.states::<Moments>(*at, *from),
                (Column::Values(mine), Column::Values(theirs)) => {
                    merge_each(mine, theirs, pairs.clone(), away);
                }
                (Column::Quantiles(mine), Column::Quantiles(theirs)) => {
                    merge_each(mine, theirs, pairs.clone(), away);
                }
                _ => panic!("{OTHER}"),
            }
        }
        zero
    }

    /// Makes room for what [`States::update`] will add of a batch.
    pub(crate) fn admit(&mut self, inputs: &[Inputs], rows: usize, sign: i64) {
        for (column, inputs) in inputs.iter().enumerate() {
            if !self.columns[column].admits(inputs, rows, sign) {
                self.widen(column);
            }
        }
    }

    /// Updates lines with rows of a batch that is admitted already: `lines[i]`
    /// with the row `chosen[i]`. Says whether any may be the neutral element now.
    ///
    /// # Panics
    /// When the inputs are not of these aggregates.
    pub(crate) fn update(&mut self, lines: &[u32], chosen: &[u32], sign: i64, inputs: &[Inputs]) -> bool {
        let (words, stride) = (&mut self.words[..], self.stride);
        let all = || lines.iter().zip(chosen).map(|(&line, &row)| (line as usize, row as usize));
        let zero = count(words, all().map(|(line, _)| line * stride + ROWS), sign);
        for (column, inputs) in self.columns.iter_mut().zip(inputs) {
            match (column, inputs) {
                (
                    Column::Rows(At { narrow: Some(_), .. }) | Column::Count(At { narrow: Some(_), .. }),
                    Inputs::Rows(_),
                ) => {}
                (Column::Rows(at) | Column::Count(at), Inputs::Rows(counted)) => {
                    let counted =
                        all().filter(|(_, row)| counted.as_ref().is_none_or(|counted| counted[*row]));
                    count(words, counted.map(|(line, _)| line * stride + at.word), sign);
                }
                (Column::Sum(At { narrow: Some(_), word }), Inputs::Numbers(numbers)) => {
                    let numbers = numbers.narrow().expect("admitted numbers are narrow");
                    for (line, row) in all() {
                        let sum = &mut words[line * stride + *word];
                        *sum = sum.wrapping_add(numbers[row].wrapping_mul(sign).cast_unsigned());
                    }
                }
                (Column::Sum(at), Inputs::Numbers(numbers)) => each(all(), numbers, |line, number| {
                    change::<Sum>(&mut words[line * stride + at.word..], |sum| sum.add(number, sign));
                }),
                (Column::Moments(at), Inputs::Numbers(numbers)) => each(all(), numbers, |line, number| {
                    let words = &mut words[line * stride + at.word..];
                    change::<Moments>(words, |moments| moments.add(number, sign));
                }),
                (Column::Quantiles(states), Inputs::Numbers(numbers)) => {
                    each(all(), numbers, |line, number| states[line].add(number, sign));
                }
                (Column::Values(states), Inputs::Values(values)) => {
                    for (line, row) in all() {
                        if let Some(value) = &values[row] {
                            states[line].update(value, sign);
                        }
                    }
                }
                (column, _) => panic!("inputs that are not of {column:?}"),
            }
        }
        zero
    }
}

/// The words of two sets of lines, on their way to be merged.
struct Merging<'a, I> {
    mine: &'a mut [u64],
    theirs: &'a [u64],
    /// Of mine, and of theirs.
    stride: (usize, usize),
    pairs: I,
    away: bool,
}

impl<I: Iterator<Item = (usize, usize)> + Clone> Merging<'_, I> {
    /// Merges one word of each line. Says whether any is 0 then.
    fn words(&mut self, at: usize, from: usize) -> bool {
        let mut zero = false;
        for (mine, theirs) in self.pairs.clone() {
            let theirs = self.theirs[theirs * self.stride.1 + from];
            let mine = &mut self.mine[mine * self.stride.0 + at];
            *mine = if self.away { mine.wrapping_sub(theirs) } else { mine.wrapping_add(theirs) };
            zero |= *mine == 0;
        }
        zero
    }

    /// Merges a state of each line; where mine is narrow, theirs is.
    fn states<S: Words>(&mut self, at: At, from: At) {
        match at.narrow {
            Some(_) if S::NARROW == 0 => {}
            Some(_) => _ = self.words(at.word, from.word),
            None => {
                for (mine, theirs) in self.pairs.clone() {
                    let mut change: S = from.load(&self.theirs[theirs * self.stride.1..][..self.stride.1]);
                    if self.away {
                        change.negate();
                    }
                    add(&mut self.mine[mine * self.stride.0 + at.word..], &change);
                }
            }
        }
    }
}

fn merge_each<S: Mergeable + Clone>(
    mine: &mut [S],
    theirs: &[S],
    pairs: impl Iterator<Item = (usize, usize)>,
    away: bool,
) {
    for (mine_at, theirs_at) in pairs {
        if away {
            let mut inverse = theirs[theirs_at].clone();
            inverse.negate();
            mine[mine_at].combine(&inverse);
        } else {
            mine[mine_at].combine(&theirs[theirs_at]);
        }
    }
}

/// Adds the sign to some words. Says whether any is 0 then.
fn count(words: &mut [u64], all: impl Iterator<Item = usize>, sign: i64) -> bool {
    all.fold(false, |zero, at| {
        words[at] = words[at].wrapping_add(sign.cast_unsigned());
        zero | (words[at] == 0)
    })
}

fn each(all: impl Iterator<Item = (usize, usize)>, numbers: &Numbers, mut update: impl FnMut(usize, i128)) {
    for (line, row) in all {
        if let Some(number) = numbers.get(row) {
            update(line, number);
        }
    }
}
