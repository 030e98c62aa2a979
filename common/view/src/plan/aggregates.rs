//! Aggregate calls: which there are, and what each takes from a row.

use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Value as SqlValue,
};
use sanso_state::aggregate::AggregateFunction;
use sanso_state::{AggregateKind, ValueType};

use super::{Aggregate, Input, Planner};
use crate::error::{Place, SqlError};
use crate::expression::Expression;
use crate::scalar::{parse_decimal, sql_type};
use crate::scope::Scope;

/// The most digits of a decimal that sums, averages and variances take.
const SUMMED_DIGITS_MAX: u8 = 28;

const KNOWN: &str = "aggregates that can be merged: COUNT, COUNT(DISTINCT), SUM, AVG, MIN, MAX, \
                     VAR_POP, VAR_SAMP, STDDEV_POP, STDDEV_SAMP, FIRST, LAST, APPROX_PERCENTILE_CONT";

/// Says whether a name is an aggregate's, whether or not it can be merged.
pub(super) fn is_aggregate(session: &SessionState, name: &str) -> bool {
    let name = name.to_lowercase();
    function(&name).is_some()
        || session.aggregate_functions().contains_key(&name)
        || matches!(name.as_str(), "listagg" | "group_concat" | "any_value" | "mode" | "percentile_disc")
}

/// Says whether a name is a window of time.
pub(super) fn is_window_function(name: &str) -> bool {
    matches!(name.to_lowercase().as_str(), "tumble" | "hop" | "session" | "cumulate")
}

/// Returns the aggregate of a name. `COUNT` is decided by its argument, and a
/// quantile by its second one.
fn function(name: &str) -> Option<AggregateFunction> {
    use AggregateFunction as F;
    Some(match name {
        "count" => F::Count,
        "sum" => F::Sum,
        "avg" | "mean" => F::Average,
        "min" => F::Min,
        "max" => F::Max,
        "var_pop" => F::Variance { population: true },
        "var_samp" | "variance" | "var" => F::Variance { population: false },
        "stddev_pop" => F::StandardDeviation { population: true },
        "stddev_samp" | "stddev" => F::StandardDeviation { population: false },
        "first" | "first_value" => F::First,
        "last" | "last_value" => F::Last,
        "approx_percentile_cont" | "approx_quantile" | "approx_median" => F::Quantile { per_million: 0 },
        _ => return None,
    })
}

impl Planner<'_> {
    /// Plans one aggregate call, given in canonical form and as written.
    pub(super) fn aggregate(
        &self,
        call: &Function,
        scope: &Scope,
        schema: &DFSchema,
        place: Place,
    ) -> Result<Aggregate, SqlError> {
        let name = call.name.to_string().to_lowercase();
        let refuse = |why: String, hint: String| Err(SqlError::new(place, why, hint));
        let Some(function) = function(&name) else {
            let (why, hint) = not_mergeable(&name);
            return refuse(why, hint);
        };
        if call.null_treatment.is_some() || !call.within_group.is_empty() {
            return refuse(
                format!("{name} with WITHIN GROUP, IGNORE NULLS or RESPECT NULLS is not supported"),
                "nulls are left out; quantiles are written APPROX_PERCENTILE_CONT(x, 0.95)".into(),
            );
        }
        let list = arguments(call, &name, place)?;
        let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
        let (function, argument) = self.typed_call(function, &name, distinct, list, place)?;
        let input = match argument {
            None => Input::Row,
            Some(argument) => {
                self.refuse_aggregates(argument, &format!("the argument of {name}"))?;
                let planned = self.expression(argument, argument, schema, place)?;
                Input::Value(narrowed(planned, function, place)?)
            }
        };
        let filter = match &call.filter {
            None => None,
            Some(filter) => {
                self.refuse_aggregates(filter, "FILTER")?;
                let at = crate::syntax::place_of(filter.as_ref()).unwrap_or(place);
                let canonical = scope.canonical(filter, at)?;
                Some(self.predicate(&canonical, filter, schema, at)?)
            }
        };
        let input_type = match &input {
            Input::Row => None,
            Input::Value(value) => Some(value.value_type),
        };
        let kind = AggregateKind::typed(function, input_type).map_err(|why| {
            let hint = match input_type {
                Some(ValueType::Float) => "write CAST(… AS DECIMAL(18,6)) around the argument",
                _ => "",
            };
            SqlError::new(place, why, hint)
        })?;
        let text = call.to_string();
        Ok(Aggregate {
            kind,
            input,
            filter,
            value_type: kind.result_type(),
            canonical: text.clone(),
            text: text.replace('"', ""),
        })
    }

    /// Settles which aggregate a call is by its arguments, and which argument
    /// is the aggregated one.
    fn typed_call<'c>(
        &self,
        function: AggregateFunction,
        name: &str,
        distinct: bool,
        list: &'c FunctionArgumentList,
        place: Place,
    ) -> Result<(AggregateFunction, Option<&'c Expr>), SqlError> {
        use AggregateFunction as F;
        let refuse = |why: String, hint: &str| Err(SqlError::new(place, why, hint));
        if let Some(clause) = list.clauses.first() {
            return refuse(
                format!("{name}(… {clause}) is not supported"),
                "FIRST and LAST go by event time; nulls are left out",
            );
        }
        let arguments: Vec<&FunctionArgExpr> = list
            .args
            .iter()
            .filter_map(|arg| match arg {
                FunctionArg::Unnamed(arg) => Some(arg),
                _ => None,
            })
            .collect();
        if arguments.len() != list.args.len() {
            return refuse(format!("{name} takes no named arguments"), "");
        }
        match (function, distinct, arguments.as_slice()) {
            (F::Count, false, [FunctionArgExpr::Wildcard]) => Ok((F::CountRows, None)),
            (F::Count, true, [FunctionArgExpr::Expr(x)]) => Ok((F::CountDistinct, Some(x))),
            // Duplicates change neither the least nor the greatest.
            (F::Min | F::Max, _, [FunctionArgExpr::Expr(x)]) => Ok((function, Some(x))),
            (_, true, _) => refuse(
                format!("{name}(DISTINCT …) is not supported"),
                "DISTINCT goes with COUNT, MIN and MAX",
            ),
            (F::Quantile { .. }, false, [FunctionArgExpr::Expr(x)]) if name == "approx_median" => {
                Ok((F::Quantile { per_million: 500_000 }, Some(x)))
            }
            (F::Quantile { .. }, false, [FunctionArgExpr::Expr(x), FunctionArgExpr::Expr(q)])
                if name != "approx_median" =>
            {
                match quantile(q) {
                    Some(per_million) => Ok((F::Quantile { per_million }, Some(x))),
                    None => refuse(
                        format!(
                            "found the quantile {q}, expected a number from 0 to 1 with at most 6 digits"
                        ),
                        "such as APPROX_PERCENTILE_CONT(x, 0.95)",
                    ),
                }
            }
            (F::Quantile { .. }, _, _) if name != "approx_median" => refuse(
                format!("{name} takes a value and a quantile"),
                "such as APPROX_PERCENTILE_CONT(x, 0.95)",
            ),
            (_, false, [FunctionArgExpr::Expr(x)]) => Ok((function, Some(x))),
            _ => refuse(format!("{name} takes one argument"), ""),
        }
    }
}

fn arguments<'c>(call: &'c Function, name: &str, place: Place) -> Result<&'c FunctionArgumentList, SqlError> {
    match &call.args {
        FunctionArguments::List(list) => Ok(list),
        _ => Err(SqlError::new(place, format!("{name} takes one argument"), "")),
    }
}

/// Reads a quantile in millionths.
fn quantile(expression: &Expr) -> Option<u32> {
    let Expr::Value(value) = expression else { return None };
    let SqlValue::Number(text, _) = &value.value else { return None };
    let millionths = parse_decimal(text, 38, 6).ok()?;
    u32::try_from(millionths).ok().filter(|q| *q <= 1_000_000)
}

/// Bounds the digits of what is summed, so that the sum of ten thousand
/// million rows can't overflow. No digit is lost: a row whose value does not
/// fit fails by itself.
fn narrowed(
    mut planned: Expression,
    function: AggregateFunction,
    place: Place,
) -> Result<Expression, SqlError> {
    use AggregateFunction as F;
    let summed = matches!(function, F::Sum | F::Average | F::Variance { .. } | F::StandardDeviation { .. });
    if let ValueType::Decimal { precision, scale } = planned.value_type
        && summed
        && precision > SUMMED_DIGITS_MAX
    {
        // Half of the digits at least stay before the point.
        if scale > 14 {
            return Err(SqlError::new(
                place,
                format!("{} is {}, whose sums could overflow", planned.text, sql_type(planned.value_type)),
                "say how many digits you want: CAST(… AS DECIMAL(18,6))",
            ));
        }
        planned.value_type = ValueType::Decimal { precision: SUMMED_DIGITS_MAX, scale };
    }
    Ok(planned)
}

fn not_mergeable(name: &str) -> (String, String) {
    let reason = match name {
        "median" | "percentile_cont" | "percentile_disc" | "quantile_cont" => {
            let hint = "use APPROX_PERCENTILE_CONT(x, 0.5), whose sketch can be merged and retracted";
            return (
                format!("an exact {name} needs every value at once, so it can't be merged"),
                hint.into(),
            );
        }
        "array_agg" | "string_agg" | "listagg" | "group_concat" => "depends on the order of readings",
        "approx_distinct" => "a sketch of distinct values can't take a value back",
        _ => "there is no exact way to merge it and to take a reading back",
    };
    let hint = if name == "approx_distinct" { "use COUNT(DISTINCT x)" } else { KNOWN };
    (format!("the aggregate {name} is not supported: {reason}"), hint.into())
}
