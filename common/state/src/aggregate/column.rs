//! Where the states of one aggregate lie in the lines of many groups.

use crate::aggregate::{Count, Moments, Multiset, Quantiles, Rows, Sum, Words};
use crate::rows::Inputs;
use crate::value::Value;

/// Words at the beginning of a line that are the owner's.
pub(crate) const HEAD: usize = 4;
/// The word after them is the group's number of rows.
pub(super) const ROWS: usize = HEAD;

/// Where the states of one aggregate are.
#[derive(Clone, Debug)]
pub(super) enum Column {
    Rows(At),
    Count(At),
    Sum(At),
    Moments(At),
    Values(Vec<Multiset<Value>>),
    Quantiles(Vec<Quantiles>),
}

/// From which word of a line on.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) word: usize,
    /// No narrow number is further from zero than this, where they are narrow.
    pub(super) narrow: Option<u128>,
}

const NARROW_MAX: u128 = i64::MAX as u128;

impl At {
    pub(super) fn new(narrow: bool) -> Self {
        Self { word: 0, narrow: narrow.then_some(0) }
    }

    pub(super) fn words<S: Words>(self) -> usize {
        if self.narrow.is_some() { S::NARROW } else { S::WORDS }
    }

    pub(super) fn load<S: Words>(self, line: &[u64]) -> S {
        match self.narrow {
            Some(_) => S::load_narrow(line[ROWS].cast_signed(), &line[self.word..]),
            None => S::load(&line[self.word..]),
        }
    }

    /// Says whether numbers may come that are together so far from zero, and expects them then.
    pub(super) fn admits(&mut self, more: u128) -> bool {
        let Some(magnitude) = &mut self.narrow else { return true };
        *magnitude = magnitude.saturating_add(more);
        *magnitude <= NARROW_MAX
    }

    /// Says whether a state can be added to a line's in the form it has, and expects it then.
    pub(super) fn admits_state<S: Words>(&mut self, line: &[u64], state: &S, rows: i64) -> bool {
        let Some(magnitude) = &mut self.narrow else { return true };
        let Some(number) = state.narrowed(rows) else { return false };
        if S::NARROW > 0 {
            let sum = number.saturating_add(line[self.word].cast_signed().into());
            *magnitude = sum.unsigned_abs().max(*magnitude);
        }
        *magnitude <= NARROW_MAX
    }

    /// Adds a state, admitted, to that of a line which gets its rows elsewhere.
    pub(super) fn add<S: Words>(self, line: &mut [u64], state: &S, rows: i64) {
        match self.narrow {
            None => add(&mut line[self.word..], state),
            Some(_) if S::NARROW == 0 => {}
            Some(_) => {
                let number = state.narrowed(rows).expect("admitted") as u64;
                line[self.word] = line[self.word].wrapping_add(number);
            }
        }
    }

    /// Copies a state from where it was in another form of the line.
    pub(super) fn take<S: Words>(self, from: Self, before: &[u64], line: &mut [u64]) {
        if self.narrow.is_none() && from.narrow.is_some() {
            from.load::<S>(before).store(&mut line[self.word..]);
        } else {
            let words = self.words::<S>();
            line[self.word..][..words].copy_from_slice(&before[from.word..][..words]);
        }
    }
}

impl Column {
    pub(super) fn at(&self) -> Option<At> {
        match self {
            Self::Rows(at) | Self::Count(at) | Self::Sum(at) | Self::Moments(at) => Some(*at),
            Self::Values(_) | Self::Quantiles(_) => None,
        }
    }

    pub(super) fn at_mut(&mut self) -> Option<&mut At> {
        match self {
            Self::Rows(at) | Self::Count(at) | Self::Sum(at) | Self::Moments(at) => Some(at),
            Self::Values(_) | Self::Quantiles(_) => None,
        }
    }

    /// Returns how many words of a line it has.
    pub(super) fn words(&self) -> usize {
        match self {
            Self::Rows(at) => at.words::<Rows>(),
            Self::Count(at) => at.words::<Count>(),
            Self::Sum(at) => at.words::<Sum>(),
            Self::Moments(at) => at.words::<Moments>(),
            Self::Values(_) | Self::Quantiles(_) => 0,
        }
    }

    /// Says whether a batch's inputs can be added; see [`At::admits`].
    pub(super) fn admits(&mut self, inputs: &Inputs, rows: usize, sign: i64) -> bool {
        match (self, inputs) {
            (Self::Rows(at) | Self::Count(at), Inputs::Rows(Some(counted))) => {
                at.narrow.is_none() || !counted.contains(&false)
            }
            (Self::Sum(at), Inputs::Numbers(numbers)) => {
                let times = rows as u128 * u128::from(sign.unsigned_abs());
                at.narrow.is_none()
                    || numbers.narrow().is_some() && at.admits(numbers.magnitude_max().saturating_mul(times))
            }
            _ => true,
        }
    }
}

/// Changes the state that begins with these words.
pub(super) fn change<S: Words>(words: &mut [u64], change: impl FnOnce(&mut S)) {
    let mut state = S::load(words);
    change(&mut state);
    state.store(words);
}

/// Adds a state to the one that begins with these words.
pub(super) fn add<S: Words>(words: &mut [u64], state: &S) {
    change::<S>(words, |mine| mine.combine(state));
}
