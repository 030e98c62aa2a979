//! The state of one aggregate: a closed set of groups, and their dispatch.

use crate::aggregate::kind::{AggregateFunction, AggregateKind};
use crate::aggregate::{Count, Moments, Multiset, Quantiles, Rows, Sum};
use crate::codec::{DecodeError, Reader};
use crate::value::Value;

/// A commutative group whose elements are built from values.
///
/// Laws: `combine` is associative and commutative with [`Default`] as neutral
/// element and `negate` as inverse; `update` is `combine` with the element of
/// one value, or with its inverse; equal elements are equal bytes.
pub(crate) trait Mergeable: Default + Eq {
    /// Adds (`sign` = 1) or retracts (`sign` = -1) one value.
    fn update(&mut self, value: &Value, sign: i64);
    /// Adds another element.
    fn combine(&mut self, other: &Self);
    /// Turns this element into its inverse.
    fn negate(&mut self);
    /// Says whether this is the neutral element.
    fn is_zero(&self) -> bool {
        *self == Self::default()
    }
    /// Appends the canonical encoding.
    fn write(&self, out: &mut Vec<u8>);
    /// Reads what [`Mergeable::write`] wrote; refuses any other bytes.
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// A state of a fixed number of words; the neutral element is zeros.
///
/// While a group's number of rows tells the rest of it, fewer words do: the
/// narrow form.
pub(crate) trait Words: Mergeable {
    /// How many words.
    const WORDS: usize;
    /// How many words the narrow form has.
    const NARROW: usize = Self::WORDS;
    /// Reads it from the first of these.
    fn load(words: &[u64]) -> Self;
    /// Writes it to the first of these.
    fn store(&self, words: &mut [u64]);
    /// Reads the narrow form of a group of so many rows.
    fn load_narrow(_rows: i64, words: &[u64]) -> Self {
        Self::load(words)
    }
    /// Returns the only number of the narrow form, or 0 where it has none; None
    /// where so many rows don't tell the rest.
    fn narrowed(&self, _rows: i64) -> Option<i128> {
        None
    }
}

/// The state of one aggregate over one group of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AggregateState {
    /// Of `COUNT(*)`.
    Rows(Rows),
    /// Of `COUNT(x)`.
    Count(Count),
    /// Of `SUM` and `AVG`.
    Sum(Sum),
    /// Of variance and standard deviation.
    Moments(Box<Moments>),
    /// Of the aggregates that keep their values.
    Values(Multiset<Value>),
    /// Of quantiles.
    Quantiles(Quantiles),
}

macro_rules! dispatch {
    ($state:expr, $inner:ident => $body:expr) => {
        match $state {
            AggregateState::Rows($inner) => $body,
            AggregateState::Count($inner) => $body,
            AggregateState::Sum($inner) => $body,
            AggregateState::Moments($inner) => $body,
            AggregateState::Values($inner) => $body,
            AggregateState::Quantiles($inner) => $body,
        }
    };
}

impl AggregateState {
    /// Creates the neutral element that a function's states start from.
    pub(crate) fn zero(function: AggregateFunction) -> Self {
        use AggregateFunction as F;
        match function {
            F::CountRows => Self::Rows(Rows::default()),
            F::Count => Self::Count(Count::default()),
            F::Sum | F::Average => Self::Sum(Sum::default()),
            F::Variance { .. } | F::StandardDeviation { .. } => Self::Moments(Box::default()),
            F::Min | F::Max | F::First | F::Last | F::CountDistinct => Self::Values(Multiset::default()),
            F::Quantile { .. } => Self::Quantiles(Quantiles::default()),
        }
    }

    /// Adds (`sign` = 1) or retracts (`sign` = -1) one input value. A null
    /// changes nothing, except in `COUNT(*)`.
    ///
    /// # Panics
    /// When the value is not of the type the aggregate was typed with.
    pub fn update(&mut self, value: &Value, sign: i64) {
        dispatch!(self, state => state.update(value, sign));
    }

    /// Adds another state of the same aggregate.
    ///
    /// # Panics
    /// When `other` is the state of an aggregate of another kind.
    pub fn combine(&mut self, other: &AggregateState) {
        match (self, other) {
            (Self::Rows(a), Self::Rows(b)) => a.combine(b),
            (Self::Count(a), Self::Count(b)) => a.combine(b),
            (Self::Sum(a), Self::Sum(b)) => a.combine(b),
            (Self::Moments(a), Self::Moments(b)) => a.combine(b),
            (Self::Values(a), Self::Values(b)) => a.combine(b),
            (Self::Quantiles(a), Self::Quantiles(b)) => a.combine(b),
            (a, b) => panic!("cannot combine {a:?} with {b:?}: different aggregates"),
        }
    }

    /// Turns this state into its inverse.
    pub fn negate(&mut self) {
        dispatch!(self, state => state.negate());
    }

    /// Returns the inverse element.
    #[must_use]
    pub fn negated(&self) -> Self {
        let mut state = self.clone();
        state.negate();
        state
    }

    /// Says whether this is the neutral element.
    pub fn is_zero(&self) -> bool {
        dispatch!(self, state => state.is_zero())
    }

    /// Returns the byte that tells the states' encodings apart.
    pub(crate) fn tag(&self) -> u8 {
        match self {
            Self::Rows(_) => 1,
            Self::Count(_) => 2,
            Self::Sum(_) => 3,
            Self::Moments(_) => 4,
            Self::Values(_) => 5,
            Self::Quantiles(_) => 6,
        }
    }

    /// Appends the canonical encoding, without the tag.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        dispatch!(self, state => state.write(out));
    }

    /// Reads a state of an aggregate of this kind.
    pub(crate) fn read(kind: &AggregateKind, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        kind.zero().read_like(reader)
    }

    /// Reads a state of the same aggregate as this.
    pub(crate) fn read_like(&self, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match self {
            Self::Rows(_) => Self::Rows(Mergeable::read(reader)?),
            Self::Count(_) => Self::Count(Mergeable::read(reader)?),
            Self::Sum(_) => Self::Sum(Mergeable::read(reader)?),
            Self::Moments(_) => Self::Moments(Box::new(Mergeable::read(reader)?)),
            Self::Values(_) => Self::Values(Mergeable::read(reader)?),
            Self::Quantiles(_) => Self::Quantiles(Mergeable::read(reader)?),
        })
    }
}
