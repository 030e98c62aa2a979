//! The SELECT list: aggregates, and expressions over keys and aggregates.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::sql::sqlparser::ast::{Expr, Ident, VisitMut, VisitorMut};
use sanso_state::ValueType;

use super::aggregates::{is_aggregate, is_window_function};
use super::grouping::{Grouping, default_name, unnested};
use super::relations::From;
use super::shape::Item;
use super::{Aggregate, Output, OutputExpression, Planner};
use crate::error::{Place, SqlError};
use crate::scalar::arrow_type;
use crate::scope::Scope;
use crate::syntax::place_of;

/// The name of the column that ends every result of a view with a window.
const WINDOW_END: &str = "window_end";

/// The planned SELECT list.
pub(super) struct Outputs {
    pub(super) aggregates: Vec<Aggregate>,
    pub(super) outputs: Vec<Output>,
    pub(super) finished_schema: SchemaRef,
    pub(super) output_schema: SchemaRef,
    pub(super) canonical: Vec<String>,
}

impl Planner<'_> {
    pub(super) fn outputs(
        &self,
        items: &[Item],
        grouping: &Grouping,
        from: &From,
        schema: &DFSchema,
    ) -> Result<Outputs, SqlError> {
        let mut extractor = Extractor {
            planner: self,
            grouping,
            scope: &from.scope,
            schema,
            aggregates: Vec::new(),
            fallback: Place::default(),
        };
        let mut extracted = Vec::new();
        for item in items {
            extractor.fallback = item.place;
            let mut expression = unnested(from.scope.canonical(&item.expression, item.place)?);
            if let ControlFlow::Break(error) = expression.visit(&mut extractor) {
                return Err(*error);
            }
            extracted.push(expression);
        }
        let aggregates = extractor.aggregates;
        let finished = finished_columns(grouping, &aggregates);
        let finished_schema = schema_of(&finished);
        let finished_df = DFSchema::try_from(finished_schema.as_ref().clone())
            .map_err(|error| self.refuse_statement(crate::expression::reason(&error)))?;
        let mut outputs: Vec<Output> = Vec::new();
        for (item, expression) in items.iter().zip(&extracted) {
            let name = item.alias.clone().unwrap_or_else(|| default_name(&item.expression));
            if outputs.iter().any(|other| other.name == name) {
                return Err(SqlError::new(
                    item.place,
                    format!("two columns are called {name}"),
                    "give one another name: … AS name",
                ));
            }
            let (expression, value_type) = match finished_index(expression, &finished) {
                Some(index) => (OutputExpression::Finished(index), finished[index].1),
                None => {
                    let planned = self.expression(expression, &item.expression, &finished_df, item.place)?;
                    let value_type = planned.value_type;
                    (OutputExpression::Computed(planned), value_type)
                }
            };
            outputs.push(Output { name, expression, value_type });
        }
        let canonical =
            outputs.iter().zip(&extracted).map(|(output, e)| format!("{} = {e}", output.name)).collect();
        self.add_window_columns(grouping, &mut outputs)?;
        let columns: Vec<_> = outputs.iter().map(|output| (output.name.clone(), output.value_type)).collect();
        let output_schema = schema_of(&columns);
        Ok(Outputs { aggregates, outputs, finished_schema, output_schema, canonical })
    }

    /// Appends the window's start where the SELECT list lacks it, and its end.
    fn add_window_columns(&self, grouping: &Grouping, outputs: &mut Vec<Output>) -> Result<(), SqlError> {
        if !grouping.window.is_some() {
            return Ok(());
        }
        let start = grouping.keys.len();
        let has_start = outputs
            .iter()
            .any(|output| matches!(output.expression, OutputExpression::Finished(i) if i == start));
        let mut added = Vec::new();
        if !has_start {
            added.push(("window", OutputExpression::Finished(start)));
        }
        added.push((WINDOW_END, OutputExpression::WindowEnd));
        for (name, expression) in added {
            if outputs.iter().any(|output| output.name == name) {
                return Err(SqlError::new(
                    self.clause(name),
                    format!("the column {name} is added to every view with a window"),
                    "give yours another name",
                ));
            }
            let name = name.to_owned();
            outputs.push(Output { name, expression, value_type: ValueType::Timestamp });
        }
        Ok(())
    }
}

/// Names and types the finished columns: keys, the window's start, aggregates.
fn finished_columns(grouping: &Grouping, aggregates: &[Aggregate]) -> Vec<(String, ValueType)> {
    let keys = grouping.keys.iter().enumerate().map(|(i, key)| (key_name(i), key.expression.value_type));
    let window = grouping.window.is_some().then(|| (WINDOW.to_owned(), ValueType::Timestamp));
    let aggregates = aggregates.iter().enumerate().map(|(i, a)| (aggregate_name(i), a.value_type));
    keys.chain(window).chain(aggregates).collect()
}

const WINDOW: &str = "__window";

fn key_name(index: usize) -> String {
    format!("__key_{index}")
}

fn aggregate_name(index: usize) -> String {
    format!("__aggregate_{index}")
}

fn schema_of(columns: &[(String, ValueType)]) -> SchemaRef {
    let fields: Vec<_> =
        columns.iter().map(|(name, value_type)| Field::new(name, arrow_type(*value_type), true)).collect();
    Arc::new(Schema::new(fields))
}

fn finished_index(expression: &Expr, finished: &[(String, ValueType)]) -> Option<usize> {
    match expression {
        Expr::Nested(inner) => finished_index(inner, finished),
        Expr::Identifier(name) => finished.iter().position(|(other, _)| *other == name.value),
        _ => None,
    }
}

/// Replaces keys, the window and aggregates by finished columns.
struct Extractor<'e, 'p> {
    planner: &'e Planner<'p>,
    grouping: &'e Grouping,
    scope: &'e Scope,
    schema: &'e DFSchema,
    aggregates: Vec<Aggregate>,
    fallback: Place,
}

impl Extractor<'_, '_> {
    fn finished(&mut self, expression: &Expr) -> Result<Option<String>, SqlError> {
        let text = expression.to_string();
        if let Some(index) = self.grouping.keys.iter().position(|key| key.canonical == text) {
            return Ok(Some(key_name(index)));
        }
        if self.grouping.window_canonical.as_ref() == Some(&text) {
            return Ok(Some(WINDOW.to_owned()));
        }
        let place = place_of(expression).unwrap_or(self.fallback);
        match expression {
            Expr::Function(call) if call.over.is_some() => Err(SqlError::new(
                place,
                format!("{}(…) OVER is a window function over rows, which can't be merged", call.name),
                "use TUMBLE or HOP for windows of time",
            )),
            Expr::Function(call) if is_window_function(&call.name.to_string()) => Err(SqlError::new(
                place,
                format!("the window {} is not in GROUP BY", call.name.to_string().to_uppercase()),
                "group by the window, by its name or by the same expression",
            )),
            Expr::Function(call) if is_aggregate(self.planner.session, &call.name.to_string()) => {
                if let Some(index) = self.aggregates.iter().position(|a| a.canonical == text) {
                    return Ok(Some(aggregate_name(index)));
                }
                let aggregate = self.planner.aggregate(call, self.scope, self.schema, place)?;
                self.aggregates.push(aggregate);
                Ok(Some(aggregate_name(self.aggregates.len() - 1)))
            }
            Expr::CompoundIdentifier(parts) => {
                let column = parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
                Err(SqlError::new(
                    place,
                    format!("column {column} is neither grouped nor inside an aggregate"),
                    format!("add {column} to GROUP BY, or aggregate it: MIN({column}), LAST({column})"),
                ))
            }
            _ => Ok(None),
        }
    }
}

impl VisitorMut for Extractor<'_, '_> {
    type Break = Box<SqlError>;

    fn pre_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<Self::Break> {
        match self.finished(expression) {
            Ok(Some(name)) => {
                *expression = Expr::Identifier(Ident::with_quote('"', name));
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}
