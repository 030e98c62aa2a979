//! GROUP BY: keys and at most one window of event time.

use datafusion::common::DFSchema;
use datafusion::sql::sqlparser::ast::{
    DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr,
    Interval as SqlInterval, Select, Value as SqlValue,
};
use sanso_state::ValueType;

use super::aggregates::is_window_function;
use super::relations::From;
use super::shape::Item;
use super::{Key, Planner};
use crate::error::{Place, SqlError};
use crate::expression::Expression;
use crate::interval::Interval;
use crate::scalar::sql_type;
use crate::scope::Scope;
use crate::syntax::{normal, place_of};
use crate::window::{CalendarUnit, Window};

/// Most windows that one reading may be in: each is counted by itself when it is asked for.
const OVERLAP_MAX: i64 = 10_000;

/// A planned GROUP BY.
pub(super) struct Grouping {
    pub(super) keys: Vec<Key>,
    pub(super) window: Window,
    pub(super) window_time: Option<Expression>,
    /// The window's expression in canonical form.
    pub(super) window_canonical: Option<String>,
    pub(super) window_name: String,
    window_time_canonical: Option<Expr>,
    window_place: Place,
}

impl Planner<'_> {
    pub(super) fn grouping(
        &self,
        select: &Select,
        items: &[Item],
        scope: &Scope,
        schema: &DFSchema,
    ) -> Result<Grouping, SqlError> {
        let mut grouping = Grouping {
            keys: Vec::new(),
            window: Window::None,
            window_time: None,
            window_canonical: None,
            window_name: "window".into(),
            window_time_canonical: None,
            window_place: self.clause("GROUP"),
        };
        let GroupByExpr::Expressions(expressions, _) = &select.group_by else {
            return Ok(grouping);
        };
        for expression in expressions {
            let (written, place) = self.meant(expression, items, scope)?;
            let canonical = unnested(scope.canonical(written, place)?);
            match &canonical {
                Expr::Function(call) if is_window_function(&call.name.to_string()) => {
                    self.add_window(&mut grouping, call, schema, place)?;
                    let text = canonical.to_string();
                    grouping.window_name = name_of(items, scope, &text).unwrap_or_else(|| "window".into());
                    grouping.window_canonical = Some(text);
                }
                _ => {
                    let key = self.key(&canonical, (written, place), items, scope, schema)?;
                    if !grouping.keys.iter().any(|other| other.canonical == key.canonical) {
                        grouping.keys.push(key);
                    }
                }
            }
        }
        Ok(grouping)
    }

    /// Resolves a GROUP BY item that is an ordinal or the name of an item of
    /// the SELECT list; a column of that name comes first, as in PostgreSQL.
    fn meant<'i>(
        &self,
        expression: &'i Expr,
        items: &'i [Item],
        scope: &Scope,
    ) -> Result<(&'i Expr, Place), SqlError> {
        let place = self.place(expression, "GROUP");
        let sets = match expression {
            Expr::Rollup(_) => Some("ROLLUP"),
            Expr::Cube(_) => Some("CUBE"),
            Expr::GroupingSets(_) => Some("GROUPING"),
            _ => None,
        };
        if let Some(word) = sets {
            return Err(SqlError::new(
                self.clause(word),
                "ROLLUP, CUBE and GROUPING SETS are not supported",
                "make a view for each grouping",
            ));
        }
        match expression {
            Expr::Value(value) if matches!(value.value, SqlValue::Number(_, _)) => {
                let ordinal = value.value.to_string().parse::<usize>().ok();
                let item = ordinal.and_then(|n| n.checked_sub(1)).and_then(|n| items.get(n));
                match item {
                    Some(item) => Ok((&item.expression, item.place)),
                    None => Err(SqlError::new(
                        place,
                        format!("the SELECT list has no item {}", value.value),
                        format!("it has {}", items.len()),
                    )),
                }
            }
            Expr::Identifier(name) if !scope.has_column(&normal(name)) => {
                let name = normal(name);
                match items.iter().find(|item| item.alias.as_ref() == Some(&name)) {
                    Some(item) => Ok((&item.expression, item.place)),
                    None => Ok((expression, place)),
                }
            }
            _ => Ok((expression, place)),
        }
    }

    fn key(
        &self,
        canonical: &Expr,
        (written, place): (&Expr, Place),
        items: &[Item],
        scope: &Scope,
        schema: &DFSchema,
    ) -> Result<Key, SqlError> {
        self.refuse_aggregates(canonical, "GROUP BY")?;
        let expression = self.expression(canonical, written, schema, place)?;
        if expression.value_type == ValueType::Float {
            return Err(SqlError::new(
                place,
                format!(
                    "{} can't be a key: equal floats may differ in their last digits",
                    sql_type(expression.value_type)
                ),
                "CAST it AS DECIMAL(p,s) or BIGINT",
            ));
        }
        let text = canonical.to_string();
        let name = name_of(items, scope, &text).unwrap_or_else(|| default_name(written));
        Ok(Key { name, expression, canonical: text })
    }

    fn add_window(
        &self,
        grouping: &mut Grouping,
        call: &Function,
        schema: &DFSchema,
        place: Place,
    ) -> Result<(), SqlError> {
        if grouping.window.is_some() {
            return Err(SqlError::new(
                place,
                "a view has one window",
                "make another view for the other window",
            ));
        }
        let (window, time) = self.window(call, place)?;
        let planned = self.expression(time, time, schema, place)?;
        if planned.value_type != ValueType::Timestamp {
            return Err(SqlError::new(
                place,
                format!("the window's time is {}, expected TIMESTAMP", sql_type(planned.value_type)),
                "use the reading's start, or CAST it AS TIMESTAMP",
            ));
        }
        grouping.window = window;
        grouping.window_time = Some(planned);
        grouping.window_time_canonical = Some(time.clone());
        grouping.window_place = place;
        Ok(())
    }

    /// Reads `TUMBLE(ts, size[, zone])` or `HOP(ts, slide, size)`.
    fn window<'c>(&self, call: &'c Function, place: Place) -> Result<(Window, &'c Expr), SqlError> {
        const FORMS: &str = "write TUMBLE(ts, INTERVAL '30 minutes'), TUMBLE(ts, INTERVAL '1 day', \
                             'Europe/Berlin') or HOP(ts, INTERVAL '10 minutes', INTERVAL '1 hour')";
        let refuse = |why: String, hint: &str| Err(SqlError::new(place, why, hint));
        let name = call.name.to_string().to_uppercase();
        let arguments = plain_arguments(call);
        match (name.as_str(), arguments.as_slice()) {
            ("TUMBLE", [time, size]) => {
                let length = self.interval(size, place)?;
                match length.fixed_us().and_then(|size| Window::fixed(size, size)) {
                    Some(window) => Ok((window, *time)),
                    None if length.months != 0 => refuse(
                        "months and years differ in length, so they need a time zone".into(),
                        "write TUMBLE(ts, INTERVAL '1 month', 'Europe/Berlin')",
                    ),
                    None => refuse("the window has no length".into(), FORMS),
                }
            }
            ("TUMBLE", [time, size, zone]) => {
                let unit = calendar_unit(self.interval(size, place)?);
                let Some(unit) = unit else {
                    return refuse(
                        format!("a window in a time zone is one day, week, month or year, not {size}"),
                        "leave the time zone out: windows of fixed length are the same in every zone of whole hours",
                    );
                };
                Ok((Window::Calendar { unit, zone: self.zone(zone, place)? }, *time))
            }
            ("HOP", [time, slide, size]) => {
                let slide_us = self.interval(slide, place)?.fixed_us();
                let size_us = self.interval(size, place)?.fixed_us();
                let (Some(slide_us), Some(size_us)) = (slide_us, size_us) else {
                    return refuse("months and years have no fixed length to slide by".into(), FORMS);
                };
                match Window::fixed(size_us, slide_us) {
                    Some(_) if size_us / slide_us > OVERLAP_MAX => refuse(
                        format!("every reading would be in {} windows", size_us / slide_us),
                        "HOP(ts, slide, size): choose a slide of at least a ten-thousandth of the size",
                    ),
                    Some(window) => Ok((window, *time)),
                    None => refuse(
                        format!("the size {size} is no multiple of the slide {slide}"),
                        "HOP(ts, slide, size): choose a slide that divides the size",
                    ),
                }
            }
            ("TUMBLE" | "HOP", _) => refuse(format!("{name} with {} arguments", arguments.len()), FORMS),
            _ => refuse(format!("{name} windows are not supported"), FORMS),
        }
    }

    fn interval(&self, expression: &Expr, place: Place) -> Result<Interval, SqlError> {
        let place = place_of(expression).unwrap_or(place);
        let text = match expression {
            Expr::Interval(interval) => interval_text(interval),
            _ => None,
        };
        let Some(text) = text else {
            return Err(SqlError::new(
                place,
                format!("found {expression}, expected an interval"),
                "such as INTERVAL '30 minutes'",
            ));
        };
        Interval::parse(&text).map_err(|error| SqlError::new(place, error.to_string(), ""))
    }

    fn zone(&self, expression: &Expr, place: Place) -> Result<chrono_tz::Tz, SqlError> {
        let place = place_of(expression).unwrap_or(place);
        let name = string(expression).unwrap_or_default();
        name.parse().map_err(|_| {
            SqlError::new(
                place,
                format!("{expression} is no time zone"),
                "use a name of the IANA database, such as 'Australia/Sydney' or 'UTC'",
            )
        })
    }

    /// Checks that closing windows can be told from the watermark: it follows
    /// the source's event time, so the window must too.
    pub(super) fn check_emission(&self, grouping: &Grouping, from: &From) -> Result<(), SqlError> {
        let column = &from.source.columns[from.source.event_time_column].name;
        let alias = &from.scope.relations[0].alias;
        let expected = crate::scope::column_reference(alias, column).to_string();
        let place = grouping.window_place;
        match &grouping.window_time_canonical {
            None => Err(SqlError::new(
                place,
                "a view with an output_topic writes closed windows, and this one has no window",
                "group by TUMBLE(…) or HOP(…), or leave output_topic out",
            )),
            Some(time) if time.to_string() != expected => Err(SqlError::new(
                place,
                format!("windows close by the event time {column}, but this one is over {time}")
                    .replace('"', ""),
                format!("use {alias}.{column}, or leave output_topic out"),
            )),
            Some(_) => Ok(()),
        }
    }
}

/// Takes redundant parentheses off.
pub(super) fn unnested(expression: Expr) -> Expr {
    match expression {
        Expr::Nested(inner) => unnested(*inner),
        other => other,
    }
}

/// Names an expression after the SELECT item that is the same.
fn name_of(items: &[Item], scope: &Scope, canonical: &str) -> Option<String> {
    items.iter().find_map(|item| {
        let same = unnested(scope.canonical(&item.expression, item.place).ok()?).to_string() == canonical;
        same.then(|| item.alias.clone().unwrap_or_else(|| default_name(&item.expression)))
    })
}

/// Names an expression that has no alias: a column by its name, a window
/// `window`, anything else by its text.
pub(super) fn default_name(expression: &Expr) -> String {
    match expression {
        Expr::Nested(inner) => default_name(inner),
        Expr::Identifier(name) => normal(name),
        Expr::CompoundIdentifier(parts) => parts.last().map(normal).unwrap_or_default(),
        Expr::Function(call) if is_window_function(&call.name.to_string()) => "window".into(),
        other => other.to_string().to_lowercase().replace('"', ""),
    }
}

fn plain_arguments(call: &Function) -> Vec<&Expr> {
    let FunctionArguments::List(list) = &call.args else { return Vec::new() };
    list.args
        .iter()
        .filter_map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression),
            _ => None,
        })
        .collect()
}

/// Returns an interval's number and unit: `'30 minutes'` or `'30' MINUTE`.
fn interval_text(interval: &SqlInterval) -> Option<String> {
    let value = match interval.value.as_ref() {
        Expr::Value(value) => match &value.value {
            SqlValue::Number(text, _) => text.clone(),
            _ => string(&interval.value)?,
        },
        _ => return None,
    };
    if interval.last_field.is_some() {
        return None;
    }
    Some(match &interval.leading_field {
        None => value,
        Some(unit) => format!("{value} {}", unit_name(unit)),
    })
}

fn unit_name(unit: &DateTimeField) -> String {
    unit.to_string().to_lowercase()
}

fn string(expression: &Expr) -> Option<String> {
    let Expr::Value(value) = expression else { return None };
    value.value.clone().into_string()
}

fn calendar_unit(interval: Interval) -> Option<CalendarUnit> {
    match (interval.months, interval.days, interval.micros) {
        (0, 1, 0) => Some(CalendarUnit::Day),
        (0, 7, 0) => Some(CalendarUnit::Week),
        (1, 0, 0) => Some(CalendarUnit::Month),
        (12, 0, 0) => Some(CalendarUnit::Year),
        _ => None,
    }
}
