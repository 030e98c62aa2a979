//! The states of one aggregate over many groups, side by side.

use crate::aggregate::kind::AggregateKind;
use crate::aggregate::{AggregateState, Count, Mergeable, Moments, Multiset, Quantiles, Rows, Sum};
use crate::codec::{DecodeError, Reader};
use crate::rows::Inputs;
use crate::value::Value;

/// One state for each slot.
#[derive(Clone, Debug)]
pub(crate) enum Column {
    Rows(Vec<Rows>),
    Count(Vec<Count>),
    Sum(Vec<Sum>),
    Moments(Vec<Moments>),
    Values(Vec<Multiset<Value>>),
    Quantiles(Vec<Quantiles>),
}

/// Runs an expression with the vector of states, whatever they are of.
macro_rules! dispatch {
    ($column:expr, $states:ident => $body:expr) => {
        match $column {
            Column::Rows($states) => $body,
            Column::Count($states) => $body,
            Column::Sum($states) => $body,
            Column::Moments($states) => $body,
            Column::Values($states) => $body,
            Column::Quantiles($states) => $body,
        }
    };
}

/// Runs an expression with two vectors of states of the same aggregate.
macro_rules! dispatch_two {
    ($mine:expr, $theirs:expr, $a:ident, $b:ident => $body:expr) => {
        match ($mine, $theirs) {
            (Column::Rows($a), Column::Rows($b)) => $body,
            (Column::Count($a), Column::Count($b)) => $body,
            (Column::Sum($a), Column::Sum($b)) => $body,
            (Column::Moments($a), Column::Moments($b)) => $body,
            (Column::Values($a), Column::Values($b)) => $body,
            (Column::Quantiles($a), Column::Quantiles($b)) => $body,
            _ => panic!("{OTHER}"),
        }
    };
}

const OTHER: &str = "states of different aggregates";

impl Column {
    /// Creates a column without slots.
    pub(crate) fn of(kind: &AggregateKind) -> Self {
        Self::like(&kind.zero())
    }

    /// Creates a column without slots for states of this aggregate.
    pub(crate) fn like(state: &AggregateState) -> Self {
        match state {
            AggregateState::Rows(_) => Self::Rows(Vec::new()),
            AggregateState::Count(_) => Self::Count(Vec::new()),
            AggregateState::Sum(_) => Self::Sum(Vec::new()),
            AggregateState::Moments(_) => Self::Moments(Vec::new()),
            AggregateState::Values(_) => Self::Values(Vec::new()),
            AggregateState::Quantiles(_) => Self::Quantiles(Vec::new()),
        }
    }

    /// Creates a column without slots for what the other is of.
    pub(crate) fn like_column(other: &Self) -> Self {
        match other {
            Self::Rows(_) => Self::Rows(Vec::new()),
            Self::Count(_) => Self::Count(Vec::new()),
            Self::Sum(_) => Self::Sum(Vec::new()),
            Self::Moments(_) => Self::Moments(Vec::new()),
            Self::Values(_) => Self::Values(Vec::new()),
            Self::Quantiles(_) => Self::Quantiles(Vec::new()),
        }
    }

    /// Adds slots with the neutral state until there are `slots`.
    pub(crate) fn grow(&mut self, slots: usize) {
        dispatch!(self, states => states.resize_with(slots, Default::default));
    }

    /// Returns the state in a slot.
    pub(crate) fn get(&self, slot: u32) -> AggregateState {
        let slot = slot as usize;
        match self {
            Self::Rows(states) => AggregateState::Rows(states[slot]),
            Self::Count(states) => AggregateState::Count(states[slot]),
            Self::Sum(states) => AggregateState::Sum(states[slot]),
            Self::Moments(states) => AggregateState::Moments(Box::new(states[slot])),
            Self::Values(states) => AggregateState::Values(states[slot].clone()),
            Self::Quantiles(states) => AggregateState::Quantiles(states[slot].clone()),
        }
    }

    /// Adds one state to the one in a slot.
    pub(crate) fn combine_one(&mut self, slot: u32, state: &AggregateState) {
        let slot = slot as usize;
        match (self, state) {
            (Self::Rows(states), AggregateState::Rows(state)) => states[slot].combine(state),
            (Self::Count(states), AggregateState::Count(state)) => states[slot].combine(state),
            (Self::Sum(states), AggregateState::Sum(state)) => states[slot].combine(state),
            (Self::Moments(states), AggregateState::Moments(state)) => states[slot].combine(state),
            (Self::Values(states), AggregateState::Values(state)) => states[slot].combine(state),
            (Self::Quantiles(states), AggregateState::Quantiles(state)) => states[slot].combine(state),
            _ => panic!("{OTHER}"),
        }
    }

    /// Adds the other column's states: for each pair, the second slot's to the first's.
    pub(crate) fn combine(&mut self, other: &Self, pairs: &[(u32, u32)]) {
        dispatch_two!(self, other, mine, theirs => {
            pairs.iter().for_each(|&(a, b)| mine[a as usize].combine(&theirs[b as usize]));
        });
    }

    /// Takes the other column's states away, by pairs as in [`Column::combine`].
    pub(crate) fn retract(&mut self, other: &Self, pairs: &[(u32, u32)]) {
        dispatch_two!(self, other, mine, theirs => {
            for &(a, b) in pairs {
                let mut inverse = theirs[b as usize].clone();
                inverse.negate();
                mine[a as usize].combine(&inverse);
            }
        });
    }

    /// Puts the neutral state into a slot.
    pub(crate) fn clear(&mut self, slot: u32) {
        dispatch!(self, states => states[slot as usize] = Default::default());
    }

    /// Says whether a slot holds the neutral state.
    pub(crate) fn is_zero(&self, slot: u32) -> bool {
        dispatch!(self, states => states[slot as usize].is_zero())
    }

    /// Says whether two slots hold equal states.
    pub(crate) fn equal(&self, slot: u32, other: &Self, other_slot: u32) -> bool {
        dispatch_two!(self, other, mine, theirs => mine[slot as usize] == theirs[other_slot as usize])
    }

    /// Appends the canonical encoding of a slot's state.
    pub(crate) fn write(&self, slot: u32, out: &mut Vec<u8>) {
        dispatch!(self, states => states[slot as usize].write(out));
    }

    /// Adds a slot with what [`Column::write`] wrote.
    pub(crate) fn push_read(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        dispatch!(self, states => states.push(Mergeable::read(reader)?));
        Ok(())
    }

    /// Updates slots with rows: `slots[i]` with the row and sign of `chosen[i]`.
    ///
    /// # Panics
    /// When the inputs are not of this aggregate.
    pub(crate) fn update(&mut self, slots: &[u32], chosen: &[(u32, i64)], inputs: &Inputs) {
        let all = slots.iter().zip(chosen).map(|(&slot, &(row, sign))| (slot as usize, row as usize, sign));
        match (self, inputs) {
            (Self::Rows(states), Inputs::Rows(None)) => {
                all.for_each(|(slot, _, sign)| states[slot].add(sign));
            }
            (Self::Rows(states), Inputs::Rows(Some(counted))) => {
                all.filter(|(_, row, _)| counted[*row]).for_each(|(slot, _, sign)| states[slot].add(sign));
            }
            (Self::Count(states), Inputs::Rows(counted)) => all
                .filter(|(_, row, _)| counted.as_ref().is_none_or(|counted| counted[*row]))
                .for_each(|(slot, _, sign)| states[slot].add(sign)),
            (Self::Sum(states), Inputs::Numbers(numbers)) => {
                each(all, numbers, |slot, number, sign| states[slot].add(*number, sign));
            }
            (Self::Moments(states), Inputs::Numbers(numbers)) => {
                each(all, numbers, |slot, number, sign| states[slot].add(*number, sign));
            }
            (Self::Quantiles(states), Inputs::Numbers(numbers)) => {
                each(all, numbers, |slot, number, sign| states[slot].add(*number, sign));
            }
            (Self::Values(states), Inputs::Values(values)) => {
                each(all, values, |slot, value, sign| states[slot].update(value, sign));
            }
            (column, _) => panic!("inputs that are not of {column:?}"),
        }
    }
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
