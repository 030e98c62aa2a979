//! From a view's SELECT to what both layers run.
//!
//! ```text
//!   FROM, JOIN ──▶ joined row ──▶ WHERE ──▶ keys, window ──▶ group
//!                                       └─▶ aggregates' inputs
//!   groups ──▶ finished columns ──▶ output expressions ──▶ SELECT's columns
//! ```

mod aggregates;
mod grouping;
mod outputs;
mod relations;
mod shape;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::DFSchema;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr};
use datafusion::sql::sqlparser::tokenizer::Token;
use sanso_state::{AggregateKind, ValueType};

use crate::application::Application;
use crate::error::{Place, SqlError};
use crate::expression::Expression;
use crate::join::JoinPlan;
use crate::scope::column_reference;
use crate::source::Source;
use crate::stage::PRESENT;
use crate::syntax::{ViewStatement, place_of};
use crate::table::TableDefinition;
use crate::window::Window;

/// The columns of a reference table that a join compares, and those that bound
/// a row's validity.
pub(crate) type Validity = (Vec<usize>, Option<(usize, usize)>);

/// A view, typed and planned; everything but its reference tables' content.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) source: Arc<Source>,
    pub(crate) joins: Vec<JoinPlan>,
    pub(crate) filter: Option<Expression>,
    pub(crate) keys: Vec<Key>,
    pub(crate) window: Window,
    pub(crate) window_time: Option<Expression>,
    pub(crate) aggregates: Vec<Aggregate>,
    pub(crate) outputs: Vec<Output>,
    /// The finished columns the outputs are computed from: keys, the window's
    /// start, aggregates.
    pub(crate) finished_schema: SchemaRef,
    pub(crate) output_schema: SchemaRef,
    /// The statement in canonical form.
    pub(crate) canonical: String,
    /// For each join the table's columns it compares, and its validity.
    pub(crate) validity: Vec<Validity>,
    /// For each join the table's definition.
    pub(crate) join_definitions: Vec<Arc<TableDefinition>>,
}

impl Plan {
    /// Returns which columns of the joined row are read: the source's, then
    /// those of each table. Of the source's, also the event time where an
    /// aggregate needs it.
    pub(crate) fn columns_read(&self) -> Vec<bool> {
        let source = self.source.columns.len();
        let width = self.joins.last().map_or(source, |join| join.schema.fields().len());
        let joins = self.joins.iter();
        let mut expressions: Vec<&Expression> =
            joins.flat_map(|join| join.keys.iter().map(|(key, _)| key).chain(&join.residual)).collect();
        expressions.extend(self.filter.iter().chain(&self.window_time));
        expressions.extend(self.keys.iter().map(|key| &key.expression));
        for aggregate in &self.aggregates {
            expressions.extend(&aggregate.filter);
            if let Input::Value(value) = &aggregate.input {
                expressions.push(value);
            }
        }
        let mut read = vec![false; width];
        expressions.into_iter().flat_map(Expression::columns).for_each(|column| read[column] = true);
        if self.aggregates.iter().any(|aggregate| aggregate.kind.needs_event_time()) {
            read[self.source.event_time_column] = true;
        }
        read
    }
}

/// A grouping key other than the window.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) expression: Expression,
    pub(crate) canonical: String,
}

/// What an aggregate takes from a row.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The row itself: `COUNT(*)`.
    Row,
    /// A value.
    Value(Expression),
}

/// An aggregate.
#[derive(Clone, Debug)]
pub(crate) struct Aggregate {
    pub(crate) kind: AggregateKind,
    pub(crate) input: Input,
    pub(crate) filter: Option<Expression>,
    pub(crate) value_type: ValueType,
    pub(crate) text: String,
    pub(crate) canonical: String,
}

/// A column of the result.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) expression: OutputExpression,
    pub(crate) value_type: ValueType,
}

/// Where a column of the result comes from.
#[derive(Clone, Debug)]
pub(crate) enum OutputExpression {
    /// A finished column as it is.
    Finished(usize),
    /// Computed from finished columns.
    Computed(Expression),
    /// The end of the window.
    WindowEnd,
}

/// Creates the DataFusion session that types and plans expressions. Number
/// literals with a point are decimals, so that nothing turns into a float.
pub(crate) fn session() -> SessionState {
    let config = SessionConfig::new()
        .set_bool("datafusion.sql_parser.parse_float_as_decimal", true)
        .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
    SessionStateBuilder::new_with_default_features().with_config(config).build()
}

/// Plans a view, or says where and why it can't be kept by both layers.
pub(crate) fn plan(
    application: &Application,
    session: &SessionState,
    statement: &ViewStatement,
    emits: bool,
) -> Result<Plan, SqlError> {
    let planner = Planner { application, session, statement };
    let select = planner.select()?;
    let from = planner.relations(select)?;
    let schema = from.scope.schema().map_err(|why| planner.refuse_statement(why))?;
    let filter = match &select.selection {
        Some(filter) => {
            let place = planner.place(filter, "WHERE");
            planner.refuse_aggregates(filter, "WHERE")?;
            let canonical = from.scope.canonical(filter, place)?;
            Some((planner.predicate(&canonical, filter, &schema, place)?, canonical))
        }
        None => None,
    };
    let filter = planner.only_present(filter, &from, &schema)?;
    let items = planner.items(select)?;
    let grouping = planner.grouping(select, &items, &from.scope, &schema)?;
    if emits {
        planner.check_emission(&grouping, &from)?;
    }
    let outputs = planner.outputs(&items, &grouping, &from, &schema)?;
    let canonical = canonical_statement(&from, filter.as_ref().map(|(_, c)| c), &grouping, &outputs);
    Ok(Plan {
        source: from.source,
        joins: from.joins,
        filter: filter.map(|(filter, _)| filter),
        keys: grouping.keys,
        window: grouping.window,
        window_time: grouping.window_time,
        aggregates: outputs.aggregates,
        outputs: outputs.outputs,
        finished_schema: outputs.finished_schema,
        output_schema: outputs.output_schema,
        canonical,
        validity: from.validity,
        join_definitions: from.definitions,
    })
}

/// Writes what the statement means, whatever its formatting.
fn canonical_statement(
    from: &relations::From,
    filter: Option<&Expr>,
    grouping: &grouping::Grouping,
    outputs: &outputs::Outputs,
) -> String {
    let mut text = format!("FROM {}", from.canonical);
    if let Some(filter) = filter {
        text.push_str(&format!(" WHERE {filter}"));
    }
    for key in &grouping.keys {
        text.push_str(&format!(" KEY {}", key.canonical));
    }
    if let Some(window) = &grouping.window_canonical {
        text.push_str(&format!(" WINDOW {window} {:?}", grouping.window));
    }
    for aggregate in &outputs.aggregates {
        text.push_str(&format!(" AGGREGATE {}", aggregate.canonical));
    }
    for output in &outputs.canonical {
        text.push_str(&format!(" OUTPUT {output}"));
    }
    text
}

/// Plans one view.
struct Planner<'p> {
    application: &'p Application,
    session: &'p SessionState,
    statement: &'p ViewStatement,
}

impl Planner<'_> {
    /// Of closed windows, lets only those count that have readings.
    fn only_present(
        &self,
        filter: Option<(Expression, Expr)>,
        from: &relations::From,
        schema: &DFSchema,
    ) -> Result<Option<(Expression, Expr)>, SqlError> {
        if from.source.format.view().is_none() {
            return Ok(filter);
        }
        let present = column_reference(&from.scope.relations[0].alias, PRESENT);
        let both = match filter {
            None => present,
            Some((_, filter)) => Expr::BinaryOp {
                left: Box::new(present),
                op: BinaryOperator::And,
                right: Box::new(Expr::Nested(Box::new(filter))),
            },
        };
        let planned = self.predicate(&both, &both, schema, self.clause("WHERE"))?;
        Ok(Some((planned, both)))
    }

    /// Returns where an expression begins, or where a clause does.
    fn place(&self, expression: &Expr, clause: &str) -> Place {
        place_of(expression).unwrap_or_else(|| self.clause(clause))
    }

    /// Returns where a keyword first stands in the statement.
    fn clause(&self, keyword: &str) -> Place {
        self.find_word(keyword).unwrap_or(self.statement.name.place)
    }

    fn find_word(&self, keyword: &str) -> Option<Place> {
        let is_it = |token: &Token| match token {
            Token::Word(word) => word.value.eq_ignore_ascii_case(keyword),
            other => other.to_string() == keyword,
        };
        let token = self.statement.tokens.iter().find(|token| is_it(&token.token))?;
        Some(token.span.start.into())
    }

    fn refuse_statement(&self, why: impl Into<String>) -> SqlError {
        SqlError::new(self.statement.name.place, why, "")
    }

    /// Types an expression; `written` is its text for people.
    fn expression(
        &self,
        canonical: &Expr,
        written: &Expr,
        schema: &DFSchema,
        place: Place,
    ) -> Result<Expression, SqlError> {
        let planned = Expression::plan(self.session, canonical, schema);
        let mut planned = planned.map_err(|why| {
            let hint = if why.contains("gives another result each time") {
                "use the reading's own times, such as its event time"
            } else {
                ""
            };
            SqlError::new(place, why, hint)
        })?;
        planned.text = written.to_string().replace('"', "");
        Ok(planned)
    }

    fn predicate(
        &self,
        canonical: &Expr,
        written: &Expr,
        schema: &DFSchema,
        place: Place,
    ) -> Result<Expression, SqlError> {
        let planned = self.expression(canonical, written, schema, place)?;
        if planned.value_type != ValueType::Bool {
            let found = crate::scalar::sql_type(planned.value_type);
            return Err(SqlError::new(place, format!("found {found}, expected a condition"), ""));
        }
        Ok(planned)
    }
}
