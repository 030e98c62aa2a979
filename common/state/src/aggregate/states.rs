//! The states of many groups.
//!
//! ```text
//!   words    slot 0: rows │ sum │ count ║ slot 1: rows │ sum │ count ║ …
//!   columns  of what has no fixed size, by slot
//! ```
//!
//! Most states are a few wrapping numbers. Those of one group lie side by side,
//! so that updating a group reads one place in memory, whatever its aggregates.

use crate::aggregate::kind::AggregateKind;
use crate::aggregate::{AggregateState, Count, Mergeable, Moments, Multiset, Quantiles, Rows, Sum, Words};
use crate::codec::{DecodeError, Reader, write_i64};
use crate::group::GroupState;
use crate::rows::Inputs;
use crate::value::Value;

/// A group's states, one for each slot. The number of rows is a group's first word.
#[derive(Clone, Debug, Default)]
pub(crate) struct States {
    words: Vec<u64>,
    /// Words of one slot; 0 until the aggregates are known.
    stride: usize,
    columns: Vec<Column>,
}

/// Where the states of one aggregate are: from which word of a slot on, or here.
#[derive(Clone, Debug)]
enum Column {
    Rows(usize),
    Count(usize),
    Sum(usize),
    Moments(usize),
    Values(Vec<Multiset<Value>>),
    Quantiles(Vec<Quantiles>),
}

const OTHER: &str = "states of different aggregates";

impl States {
    /// Creates states of these aggregates, without slots.
    pub(crate) fn of(kinds: &[AggregateKind]) -> Self {
        let zeros: Vec<_> = kinds.iter().map(AggregateKind::zero).collect();
        Self::like(&zeros)
    }

    /// Creates states of the same aggregates as these, without slots.
    pub(crate) fn like(states: &[AggregateState]) -> Self {
        let mut stride = 1;
        let mut place = |words| {
            stride += words;
            stride - words
        };
        let columns = states.iter().map(|state| match state {
            AggregateState::Rows(_) => Column::Rows(place(Rows::WORDS)),
            AggregateState::Count(_) => Column::Count(place(Count::WORDS)),
            AggregateState::Sum(_) => Column::Sum(place(Sum::WORDS)),
            AggregateState::Moments(_) => Column::Moments(place(Moments::WORDS)),
            AggregateState::Values(_) => Column::Values(Vec::new()),
            AggregateState::Quantiles(_) => Column::Quantiles(Vec::new()),
        });
        let columns = columns.collect();
        Self { words: Vec::new(), stride, columns }
    }

    /// Creates states of the other's aggregates, without slots.
    pub(crate) fn like_states(other: &Self) -> Self {
        let columns = other.columns.iter().map(|column| match column {
            Column::Values(_) => Column::Values(Vec::new()),
            Column::Quantiles(_) => Column::Quantiles(Vec::new()),
            fixed => fixed.clone(),
        });
        Self { words: Vec::new(), stride: other.stride, columns: columns.collect() }
    }

    /// Adds slots with the neutral state until there are `slots`.
    pub(crate) fn grow(&mut self, slots: usize) {
        self.words.resize(slots * self.stride, 0);
        for column in &mut self.columns {
            match column {
                Column::Values(states) => states.resize_with(slots, Default::default),
                Column::Quantiles(states) => states.resize_with(slots, Default::default),
                _ => {}
            }
        }
    }

    fn slot(&self, slot: u32) -> &[u64] {
        &self.words[slot as usize * self.stride..][..self.stride]
    }

    /// Returns how many rows a slot's group has.
    pub(crate) fn rows(&self, slot: u32) -> i64 {
        self.slot(slot)[0].cast_signed()
    }

    /// Returns a slot's group.
    pub(crate) fn get(&self, slot: u32) -> GroupState {
        let words = self.slot(slot);
        let state = |column: &Column| match column {
            Column::Rows(at) => AggregateState::Rows(Rows::load(&words[*at..])),
            Column::Count(at) => AggregateState::Count(Count::load(&words[*at..])),
            Column::Sum(at) => AggregateState::Sum(Sum::load(&words[*at..])),
            Column::Moments(at) => AggregateState::Moments(Box::new(Moments::load(&words[*at..]))),
            Column::Values(states) => AggregateState::Values(states[slot as usize].clone()),
            Column::Quantiles(states) => AggregateState::Quantiles(states[slot as usize].clone()),
        };
        GroupState { rows: self.rows(slot), aggregates: self.columns.iter().map(state).collect() }
    }

    /// Adds a group to the one in a slot.
    pub(crate) fn combine_one(&mut self, slot: u32, group: &GroupState) {
        let words = &mut self.words[slot as usize * self.stride..][..self.stride];
        words[0] = words[0].wrapping_add(group.rows.cast_unsigned());
        for (column, state) in self.columns.iter_mut().zip(&group.aggregates) {
            match (column, state) {
                (Column::Rows(at), AggregateState::Rows(state)) => add(&mut words[*at..], state),
                (Column::Count(at), AggregateState::Count(state)) => add(&mut words[*at..], state),
                (Column::Sum(at), AggregateState::Sum(state)) => add(&mut words[*at..], state),
                (Column::Moments(at), AggregateState::Moments(state)) => add(&mut words[*at..], &**state),
                (Column::Values(states), AggregateState::Values(state)) => {
                    states[slot as usize].combine(state);
                }
                (Column::Quantiles(states), AggregateState::Quantiles(state)) => {
                    states[slot as usize].combine(state);
                }
                _ => panic!("{OTHER}"),
            }
        }
    }

    /// Adds the groups in some of the other's slots to those in `slots`, or takes them away.
    pub(crate) fn merge(&mut self, slots: &[u32], other: &Self, other_slots: &[u32], away: bool) {
        let (mine, stride) = (&mut self.words[..], self.stride);
        let pairs = slots.iter().zip(other_slots).map(|(&mine, &theirs)| (mine as usize, theirs as usize));
        let mut places = Pairs { mine, theirs: &other.words, stride, pairs: pairs.clone(), away };
        places.each::<Rows>(0);
        for (column, theirs) in self.columns.iter_mut().zip(&other.columns) {
            match (column, theirs) {
                (Column::Rows(at), Column::Rows(_)) => places.each::<Rows>(*at),
                (Column::Count(at), Column::Count(_)) => places.each::<Count>(*at),
                (Column::Sum(at), Column::Sum(_)) => places.each::<Sum>(*at),
                (Column::Moments(at), Column::Moments(_)) => places.each::<Moments>(*at),
                (Column::Values(mine), Column::Values(theirs)) => {
                    merge_each(mine, theirs, pairs.clone(), away)
                }
                (Column::Quantiles(mine), Column::Quantiles(theirs)) => {
                    merge_each(mine, theirs, pairs.clone(), away)
                }
                _ => panic!("{OTHER}"),
            }
        }
    }

    /// Puts the neutral states into a slot.
    pub(crate) fn clear_slot(&mut self, slot: u32) {
        let slot = slot as usize;
        self.words[slot * self.stride..][..self.stride].fill(0);
        for column in &mut self.columns {
            match column {
                Column::Values(states) => states[slot] = Multiset::default(),
                Column::Quantiles(states) => states[slot] = Quantiles::default(),
                _ => {}
            }
        }
    }

    /// Says whether a slot's group is the neutral element.
    pub(crate) fn is_zero(&self, slot: u32) -> bool {
        self.slot(slot).iter().all(|word| *word == 0)
            && self.columns.iter().all(|column| match column {
                Column::Values(states) => states[slot as usize].is_zero(),
                Column::Quantiles(states) => states[slot as usize].is_zero(),
                _ => true,
            })
    }

    /// Says whether two slots hold equal groups.
    pub(crate) fn equal(&self, slot: u32, other: &Self, other_slot: u32) -> bool {
        let (mine, theirs) = (slot as usize, other_slot as usize);
        self.slot(slot) == other.slot(other_slot)
            && self.columns.iter().zip(&other.columns).all(|columns| match columns {
                (Column::Values(a), Column::Values(b)) => a[mine] == b[theirs],
                (Column::Quantiles(a), Column::Quantiles(b)) => a[mine] == b[theirs],
                (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
            })
    }

    /// Appends the canonical encoding of a slot's group.
    pub(crate) fn write(&self, slot: u32, out: &mut Vec<u8>) {
        let words = self.slot(slot);
        write_i64(out, self.rows(slot));
        for column in &self.columns {
            match column {
                Column::Rows(at) => Rows::load(&words[*at..]).write(out),
                Column::Count(at) => Count::load(&words[*at..]).write(out),
                Column::Sum(at) => Sum::load(&words[*at..]).write(out),
                Column::Moments(at) => Moments::load(&words[*at..]).write(out),
                Column::Values(states) => states[slot as usize].write(out),
                Column::Quantiles(states) => states[slot as usize].write(out),
            }
        }
    }

    /// Adds a slot with what [`States::write`] wrote.
    pub(crate) fn push_read(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let start = self.words.len();
        self.words.resize(start + self.stride, 0);
        let words = &mut self.words[start..];
        words[0] = reader.i64()?.cast_unsigned();
        for column in &mut self.columns {
            match column {
                Column::Rows(at) => Rows::read(reader)?.store(&mut words[*at..]),
                Column::Count(at) => Count::read(reader)?.store(&mut words[*at..]),
                Column::Sum(at) => Sum::read(reader)?.store(&mut words[*at..]),
                Column::Moments(at) => Moments::read(reader)?.store(&mut words[*at..]),
                Column::Values(states) => states.push(Mergeable::read(reader)?),
                Column::Quantiles(states) => states.push(Mergeable::read(reader)?),
            }
        }
        Ok(())
    }

    /// Updates slots with rows: `slots[i]` with the row and sign of `chosen[i]`.
    ///
    /// # Panics
    /// When the inputs are not of these aggregates.
    pub(crate) fn update(&mut self, slots: &[u32], chosen: &[(u32, i64)], inputs: &[Inputs]) {
        let (words, stride) = (&mut self.words, self.stride);
        let all =
            || slots.iter().zip(chosen).map(|(&slot, &(row, sign))| (slot as usize, row as usize, sign));
        count(words, all().map(|(slot, _, sign)| (slot * stride, sign)));
        for (column, inputs) in self.columns.iter_mut().zip(inputs) {
            match (column, inputs) {
                (Column::Rows(at) | Column::Count(at), Inputs::Rows(None)) => {
                    count(words, all().map(|(slot, _, sign)| (slot * stride + *at, sign)));
                }
                (Column::Rows(at) | Column::Count(at), Inputs::Rows(Some(counted))) => {
                    let counted = all().filter(|(_, row, _)| counted[*row]);
                    count(words, counted.map(|(slot, _, sign)| (slot * stride + *at, sign)));
                }
                (Column::Sum(at), Inputs::Numbers(numbers)) => each(all(), numbers, |slot, number, sign| {
                    change::<Sum>(&mut words[slot * stride + *at..], |sum| sum.add(*number, sign));
                }),
                (Column::Moments(at), Inputs::Numbers(numbers)) => {
                    each(all(), numbers, |slot, number, sign| {
                        let words = &mut words[slot * stride + *at..];
                        change::<Moments>(words, |moments| moments.add(*number, sign));
                    });
                }
                (Column::Quantiles(states), Inputs::Numbers(numbers)) => {
                    each(all(), numbers, |slot, number, sign| states[slot].add(*number, sign));
                }
                (Column::Values(states), Inputs::Values(values)) => {
                    each(all(), values, |slot, value, sign| states[slot].update(value, sign));
                }
                (column, _) => panic!("inputs that are not of {column:?}"),
            }
        }
    }
}

/// The words of two sets of slots, on their way to be merged.
struct Pairs<'a, I> {
    mine: &'a mut [u64],
    theirs: &'a [u64],
    stride: usize,
    pairs: I,
    away: bool,
}

impl<I: Iterator<Item = (usize, usize)> + Clone> Pairs<'_, I> {
    /// Merges the states that begin at a word of each slot.
    fn each<S: Words>(&mut self, at: usize) {
        for (mine, theirs) in self.pairs.clone() {
            let mut change = S::load(&self.theirs[theirs * self.stride + at..]);
            if self.away {
                change.negate();
            }
            add(&mut self.mine[mine * self.stride + at..], &change);
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

fn change<S: Words>(words: &mut [u64], change: impl FnOnce(&mut S)) {
    let mut state = S::load(words);
    change(&mut state);
    state.store(words);
}

fn add<S: Words>(words: &mut [u64], state: &S) {
    change::<S>(words, |mine| mine.combine(state));
}

/// Adds each sign to the word that it is for.
fn count(words: &mut [u64], all: impl Iterator<Item = (usize, i64)>) {
    all.for_each(|(at, sign)| words[at] = words[at].wrapping_add(sign.cast_unsigned()));
}

fn each<T>(
    all: impl Iterator<Item = (usize, usize, i64)>,
    inputs: &[Option<T>],
    mut update: impl FnMut(usize, &T, i64),
) {
    for (slot, row, sign) in all {
        if let Some(input) = &inputs[row] {
            update(slot, input, sign);
        }
    }
}
