//! Which aggregates there are, over which types, and what they result in.

use serde::{Deserialize, Serialize};

use crate::aggregate::{
    AggregateState, average, count, distinct, extremes, first_last, quantile, sum, variance,
};
use crate::value::{Value, ValueType};

/// The name and parameters of an aggregate, before it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AggregateFunction {
    /// `COUNT(*)`: all rows.
    CountRows,
    /// `COUNT(x)`: rows whose `x` is not null.
    Count,
    /// `SUM(x)`; null over no value.
    Sum,
    /// `AVG(x)`; null over no value.
    Average,
    /// `VAR_SAMP(x)` or `VAR_POP(x)`.
    Variance {
        /// Whether to divide by n and not by n - 1.
        population: bool,
    },
    /// `STDDEV_SAMP(x)` or `STDDEV_POP(x)`.
    StandardDeviation {
        /// Whether to divide by n and not by n - 1.
        population: bool,
    },
    /// `MIN(x)`.
    Min,
    /// `MAX(x)`.
    Max,
    /// `FIRST(x)`: the value that is not null with the least event time. Its
    /// inputs are [`Value::At`]; among equal times the least value wins.
    First,
    /// `LAST(x)`: as [`AggregateFunction::First`] with the greatest event
    /// time, and among equal times the greatest value.
    Last,
    /// `COUNT(DISTINCT x)`.
    CountDistinct,
    /// `QUANTILE(x, q)` to one percent.
    Quantile {
        /// The quantile in millionths, 0 to 1,000,000.
        per_million: u32,
    },
}

/// Which [`crate::Inputs`] an aggregate takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// [`crate::Inputs::Rows`].
    Rows,
    /// [`crate::Inputs::Numbers`].
    Numbers,
    /// [`crate::Inputs::Values`].
    Values,
}

/// An aggregate with the type of its input: all that is needed to build,
/// merge, encode and finish its states. Made only by [`AggregateKind::typed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Untyped", into = "Untyped")]
pub struct AggregateKind {
    function: AggregateFunction,
    input: Option<ValueType>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "AggregateKind", deny_unknown_fields)]
struct Untyped {
    function: AggregateFunction,
    input: Option<ValueType>,
}

impl TryFrom<Untyped> for AggregateKind {
    type Error = String;

    fn try_from(untyped: Untyped) -> Result<Self, String> {
        Self::typed(untyped.function, untyped.input)
    }
}

impl From<AggregateKind> for Untyped {
    fn from(kind: AggregateKind) -> Self {
        Self { function: kind.function, input: kind.input }
    }
}

/// The most digits of a decimal that may be summed: ten thousand million rows
/// of the largest value still fit the 38 digits of the sum.
pub(crate) const SUM_DIGITS_MAX: u8 = 28;

impl AggregateKind {
    /// Types an aggregate; `input` is absent for `COUNT(*)` only. For
    /// [`AggregateFunction::First`] and [`AggregateFunction::Last`] it is the
    /// type of the value without its time.
    ///
    /// # Errors
    /// The reason, for people, why this aggregate over this type is refused.
    pub fn typed(function: AggregateFunction, input: Option<ValueType>) -> Result<Self, String> {
        use AggregateFunction as F;
        let name = name(function);
        match (function, input) {
            (F::CountRows, None) | (F::Count, Some(_)) => {}
            (F::CountRows, Some(_)) => return Err(format!("{name} takes no argument")),
            (_, None) => return Err(format!("{name} needs an argument")),
            (_, Some(ValueType::Float)) => {
                return Err(format!("{name} over floats is not exact under retraction: cast to DECIMAL"));
            }
            (F::Min | F::Max | F::First | F::Last | F::CountDistinct, Some(_)) => {}
            (F::Quantile { per_million: 1_000_001.. }, _) => {
                return Err(format!("{name} needs a quantile between 0 and 1"));
            }
            (F::Quantile { .. }, Some(ValueType::Int | ValueType::Decimal { .. })) => {}
            (_, Some(ValueType::Int)) => {}
            (_, Some(ValueType::Decimal { precision, .. })) if precision <= SUM_DIGITS_MAX => {}
            (_, Some(ValueType::Decimal { precision, .. })) => {
                return Err(format!(
                    "{name} over a decimal of {precision} digits may overflow: \
                     cast to at most {SUM_DIGITS_MAX} digits"
                ));
            }
            (_, Some(other)) => return Err(format!("{name} over {other:?} is not defined")),
        }
        Ok(Self { function, input })
    }

    /// Returns the function.
    pub fn function(&self) -> AggregateFunction {
        self.function
    }

    /// Returns the type of the input; none for `COUNT(*)`.
    pub fn input(&self) -> Option<ValueType> {
        self.input
    }

    /// Says whether inputs must be [`Value::At`] their event time.
    pub fn needs_event_time(&self) -> bool {
        matches!(self.function, AggregateFunction::First | AggregateFunction::Last)
    }

    /// Returns the form of the inputs that a batch of rows gives this aggregate.
    pub fn takes(&self) -> Takes {
        use AggregateFunction as F;
        match self.function {
            F::CountRows | F::Count => Takes::Rows,
            F::Sum | F::Average | F::Variance { .. } | F::StandardDeviation { .. } | F::Quantile { .. } => {
                Takes::Numbers
            }
            F::Min | F::Max | F::First | F::Last | F::CountDistinct => Takes::Values,
        }
    }

    /// Returns the type of [`AggregateKind::finish`]'s values.
    pub fn result_type(&self) -> ValueType {
        use AggregateFunction as F;
        match self.function {
            F::CountRows | F::Count | F::CountDistinct => ValueType::Int,
            F::Sum => sum::result_type(self.digits()),
            F::Average => average::result_type(self.digits()),
            F::Variance { .. } | F::StandardDeviation { .. } | F::Quantile { .. } => ValueType::Float,
            F::Min | F::Max | F::First | F::Last => self.input.expect("typed with an input"),
        }
    }

    /// Returns the neutral state.
    pub fn zero(&self) -> AggregateState {
        AggregateState::zero(self.function)
    }

    /// Computes the result from a state. Only meaningful on the combination of
    /// batch and speed (rows above zero), where no count is negative.
    ///
    /// # Panics
    /// When the state is of another kind.
    pub fn finish(&self, state: &AggregateState) -> Value {
        use AggregateFunction as F;
        use AggregateState as S;
        match (self.function, state) {
            (F::CountRows, S::Rows(state)) => Value::Int(state.0),
            (F::Count, S::Count(state)) => Value::Int(state.0),
            (F::Sum, S::Sum(state)) => sum::finish(state),
            (F::Average, S::Sum(state)) => average::finish(state),
            (F::Variance { population }, S::Moments(state)) => {
                variance::variance(state, population, self.scale())
            }
            (F::StandardDeviation { population }, S::Moments(state)) => {
                variance::standard_deviation(state, population, self.scale())
            }
            (F::Min, S::Values(values)) => extremes::min(values),
            (F::Max, S::Values(values)) => extremes::max(values),
            (F::First, S::Values(values)) => first_last::first(values),
            (F::Last, S::Values(values)) => first_last::last(values),
            (F::CountDistinct, S::Values(values)) => distinct::finish(values),
            (F::Quantile { per_million }, S::Quantiles(state)) => {
                quantile::finish(state, per_million, self.scale())
            }
            (function, state) => panic!("cannot finish {function:?} from {state:?}"),
        }
    }

    /// Returns the version of the code behind this aggregate. It enters the
    /// fingerprint of every view that uses it: whoever changes what a state
    /// holds or what finishing it means increments the aggregate's constant.
    pub fn code_version(&self) -> u32 {
        use AggregateFunction as F;
        match self.function {
            F::CountRows | F::Count => count::CODE_VERSION,
            F::Sum => sum::CODE_VERSION,
            F::Average => average::CODE_VERSION,
            F::Variance { .. } | F::StandardDeviation { .. } => variance::CODE_VERSION,
            F::Min | F::Max => extremes::CODE_VERSION,
            F::First | F::Last => first_last::CODE_VERSION,
            F::CountDistinct => distinct::CODE_VERSION,
            F::Quantile { .. } => quantile::CODE_VERSION,
        }
    }

    /// Precision and scale of a numeric input.
    fn digits(&self) -> (u8, i8) {
        match self.input {
            Some(ValueType::Decimal { precision, scale }) => (precision, scale),
            _ => (19, 0),
        }
    }

    fn scale(&self) -> i8 {
        self.digits().1
    }
}

/// The name used in refusals.
fn name(function: AggregateFunction) -> &'static str {
    use AggregateFunction as F;
    match function {
        F::CountRows => "COUNT(*)",
        F::Count => "COUNT",
        F::Sum => "SUM",
        F::Average => "AVG",
        F::Variance { population: false } => "VAR_SAMP",
        F::Variance { population: true } => "VAR_POP",
        F::StandardDeviation { population: false } => "STDDEV_SAMP",
        F::StandardDeviation { population: true } => "STDDEV_POP",
        F::Min => "MIN",
        F::Max => "MAX",
        F::First => "FIRST",
        F::Last => "LAST",
        F::CountDistinct => "COUNT(DISTINCT)",
        F::Quantile { .. } => "QUANTILE",
    }
}
