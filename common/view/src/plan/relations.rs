//! FROM and JOIN: one source and the reference tables joined to it.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Join, JoinConstraint, JoinOperator, Select, TableFactor,
};
use sanso_state::ValueType;

use super::{Planner, Validity};
use crate::error::{Place, SqlError};
use crate::expression::Expression;
use crate::join::JoinPlan;
use crate::scalar::sql_type;
use crate::scope::{Relation, Scope, column_reference};
use crate::source::Source;
use crate::syntax::{normal, place_of};
use crate::table::TableDefinition;

/// The relations of a view.
pub(super) struct From {
    pub(super) source: Arc<Source>,
    pub(super) scope: Scope,
    pub(super) joins: Vec<JoinPlan>,
    pub(super) validity: Vec<Validity>,
    pub(super) definitions: Vec<Arc<TableDefinition>>,
    pub(super) canonical: String,
}

/// A relation's name, alias and place.
struct Reference {
    name: String,
    alias: String,
    place: Place,
}

impl Planner<'_> {
    /// Plans FROM and its joins.
    pub(super) fn relations(&self, select: &Select) -> Result<From, SqlError> {
        let first = match select.from.as_slice() {
            [first] => first,
            [] => return Err(self.refuse_statement("the view has no FROM")),
            [_, second, ..] => {
                let place = self.reference(&second.relation)?.place;
                return Err(SqlError::new(place, "a comma joins without a condition", "write JOIN … ON …"));
            }
        };
        let reference = self.reference(&first.relation)?;
        let source = self.source(&reference)?;
        let mut from = From {
            scope: Scope {
                relations: vec![Relation { alias: reference.alias.clone(), columns: source.columns.clone() }],
            },
            joins: Vec::new(),
            validity: Vec::new(),
            definitions: Vec::new(),
            canonical: format!("{} AS {}", source.name, reference.alias),
            source,
        };
        for join in &first.joins {
            self.join(join, &mut from)?;
        }
        Ok(from)
    }

    fn reference(&self, factor: &TableFactor) -> Result<Reference, SqlError> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else {
            let place = place_of(factor).unwrap_or_else(|| self.clause("FROM"));
            return Err(SqlError::new(
                place,
                "subqueries and functions in FROM can't be kept up to date reading by reading",
                "name a source or a reference table, or make the inner query a view of its own",
            ));
        };
        let place = place_of(name).unwrap_or_else(|| self.clause("FROM"));
        let ident = match name.0.as_slice() {
            [part] => part.as_ident(),
            _ => None,
        };
        let Some(ident) = ident else {
            return Err(SqlError::new(place, format!("{name} is no relation"), "names here have one part"));
        };
        let name = normal(ident);
        let alias = alias.as_ref().map_or_else(|| name.clone(), |alias| normal(&alias.name));
        Ok(Reference { name, alias, place })
    }

    fn source(&self, reference: &Reference) -> Result<Arc<Source>, SqlError> {
        if let Some(source) = self.application.source(&reference.name) {
            return Ok(Arc::clone(source));
        }
        let name = &reference.name;
        let (why, hint) = if self.application.table(name).is_some() {
            (
                format!("{name} is a reference table, and a view counts the readings of a source"),
                "write FROM the source JOIN the table".to_owned(),
            )
        } else if self.application.view_definition(name).is_some() {
            (
                format!("{name} is a view, and a view counts the readings of a source"),
                format!("its closed windows are one: CREATE SOURCE … FROM VIEW {name}"),
            )
        } else {
            let known: Vec<_> = self.application.sources.iter().map(|s| s.name.as_str()).collect();
            (
                format!("no source {name} is declared before this view"),
                format!("sources: {}", known.join(", ")),
            )
        };
        Err(SqlError::new(reference.place, why, hint))
    }

    fn joined_table(&self, reference: &Reference) -> Result<Arc<TableDefinition>, SqlError> {
        if let Some(table) = self.application.table(&reference.name) {
            return Ok(Arc::clone(table));
        }
        let name = &reference.name;
        let (why, hint) = if self.application.source(name).is_some() {
            (
                format!("{name} is a second source; joins between sources are not supported"),
                "join a reference table (CREATE TABLE), or write a view for each source".to_owned(),
            )
        } else {
            let known: Vec<_> = self.application.tables.iter().map(|t| t.name.as_str()).collect();
            (
                format!("no reference table {name} is declared before this view"),
                format!("reference tables: {}", known.join(", ")),
            )
        };
        Err(SqlError::new(reference.place, why, hint))
    }

    fn join(&self, join: &Join, from: &mut From) -> Result<(), SqlError> {
        let reference = self.reference(&join.relation)?;
        let table = self.joined_table(&reference)?;
        let (outer, on) = join_condition(join, reference.place)?;
        if from.scope.relations.iter().any(|r| r.alias == reference.alias) {
            return Err(SqlError::new(
                reference.place,
                format!("the name {} stands for two relations", reference.alias),
                "give one of them an alias",
            ));
        }
        let before = from.scope.clone();
        let columns = table.columns.iter().cloned().map(|mut column| {
            // A LEFT JOIN leaves them null where nothing matches.
            column.nullable |= outer;
            column
        });
        from.scope.relations.push(Relation { alias: reference.alias.clone(), columns: columns.collect() });
        self.refuse_aggregates(on, "ON")?;
        let canonical = from.scope.canonical(on, self.place(on, "ON"))?;
        let mut condition = Condition::default();
        self.split(&canonical, &before, &reference.alias, &table, &mut condition)?;
        if condition.keys.is_empty() {
            return Err(SqlError::new(
                self.place(on, "ON"),
                format!("the join with {} compares no column of it for equality", table.name),
                "add a condition such as r.usage_point = n.usage_point; ranges may stand beside it",
            ));
        }
        let schema = from.scope.schema().map_err(|why| self.refuse_statement(why))?;
        let residual = condition
            .rest
            .iter()
            .cloned()
            .map(|part| or_open(part, &reference.alias, &table))
            .reduce(|left, right| Expr::BinaryOp {
                left: Box::new(left),
                op: BinaryOperator::And,
                right: Box::new(right),
            })
            .map(|rest| self.predicate(&rest, on, &schema, self.place(on, "ON")))
            .transpose()?;
        from.validity.push((
            condition.keys.iter().map(|(_, column)| *column).collect(),
            validity(&condition.rest, &reference.alias, &table),
        ));
        from.canonical.push_str(&format!(
            " {} {} AS {} ON {canonical}",
            if outer { "LEFT JOIN" } else { "JOIN" },
            table.name,
            reference.alias
        ));
        from.definitions.push(Arc::clone(&table));
        from.joins.push(JoinPlan {
            table: table.name.clone(),
            outer,
            keys: condition.keys,
            residual,
            schema: Arc::clone(schema.inner()),
            text: on.to_string(),
        });
        Ok(())
    }

    /// Splits a condition at its ANDs into compared columns and the rest.
    fn split(
        &self,
        condition: &Expr,
        before: &Scope,
        alias: &str,
        table: &TableDefinition,
        out: &mut Condition,
    ) -> Result<(), SqlError> {
        match condition {
            Expr::Nested(inner) => self.split(inner, before, alias, table, out),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                self.split(left, before, alias, table, out)?;
                self.split(right, before, alias, table, out)
            }
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                let column = |side: &Expr| column_of(side, alias, table);
                let pair = match (column(left), column(right)) {
                    (Some(column), None) if !names(right, alias) => Some((right, column)),
                    (None, Some(column)) if !names(left, alias) => Some((left, column)),
                    _ => None,
                };
                match pair {
                    Some((side, column)) => {
                        let key = self.compared(side, before, table, column)?;
                        out.keys.push((key, column));
                    }
                    None => out.rest.push(condition.clone()),
                }
                Ok(())
            }
            other => {
                out.rest.push(other.clone());
                Ok(())
            }
        }
    }

    /// Plans the side of an equality that comes before the table.
    fn compared(
        &self,
        side: &Expr,
        before: &Scope,
        table: &TableDefinition,
        column: usize,
    ) -> Result<Expression, SqlError> {
        let schema: DFSchema = before.schema().map_err(|why| self.refuse_statement(why))?;
        let place = self.place(side, "ON");
        let key = self.expression(side, side, &schema, place)?;
        let column = &table.columns[column];
        if key.value_type != column.value_type {
            let (left, right) = (sql_type(key.value_type), sql_type(column.value_type));
            return Err(SqlError::new(
                place,
                format!("{left} is compared with {}.{}, which is {right}", table.name, column.name),
                format!("declare both alike, or write CAST(… AS {right})"),
            ));
        }
        Ok(key)
    }
}

/// The parts of an ON clause.
#[derive(Default)]
struct Condition {
    keys: Vec<(Expression, usize)>,
    rest: Vec<Expr>,
}

fn join_condition(join: &Join, place: Place) -> Result<(bool, &Expr), SqlError> {
    let (outer, constraint) = match &join.join_operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (false, constraint),
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (true, constraint),
        _ => {
            return Err(SqlError::new(
                place,
                "only JOIN and LEFT JOIN with a reference table are supported",
                "readings stand on the left: FROM the source LEFT JOIN the table ON …",
            ));
        }
    };
    match constraint {
        JoinConstraint::On(on) => Ok((outer, on)),
        _ => Err(SqlError::new(place, "the join has no ON condition", "write JOIN … ON r.column = n.column")),
    }
}

/// Returns the index of the table's column that an expression is.
fn column_of(expression: &Expr, alias: &str, table: &TableDefinition) -> Option<usize> {
    match expression {
        Expr::Nested(inner) => column_of(inner, alias, table),
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [relation, column] if relation.value == alias => {
                table.columns.iter().position(|c| c.name == column.value)
            }
            _ => None,
        },
        _ => None,
    }
}

/// Says whether an expression names a relation.
fn names(expression: &Expr, alias: &str) -> bool {
    use std::ops::ControlFlow;
    let names_it = |parts: &[Ident]| parts.len() == 2 && parts[0].value == alias;
    let found = datafusion::sql::sqlparser::ast::visit_expressions(expression, |part: &Expr| match part {
        Expr::CompoundIdentifier(parts) if names_it(parts) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// Which end of a table row's validity a condition compares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    From(usize),
    To(usize),
}

/// Recognises `x >= t.valid_from` and `x < t.valid_to`, either way round.
fn bound(condition: &Expr, alias: &str, table: &TableDefinition) -> Option<Bound> {
    let Expr::BinaryOp { left, op, right } = condition else { return None };
    let (column, reading_is_left) = match (column_of(left, alias, table), column_of(right, alias, table)) {
        (Some(column), None) => (column, false),
        (None, Some(column)) => (column, true),
        _ => return None,
    };
    if !matches!(table.columns[column].value_type, ValueType::Timestamp | ValueType::Date) {
        return None;
    }
    match (op, reading_is_left) {
        (BinaryOperator::GtEq | BinaryOperator::Gt, true)
        | (BinaryOperator::LtEq | BinaryOperator::Lt, false) => Some(Bound::From(column)),
        (BinaryOperator::Lt | BinaryOperator::LtEq, true)
        | (BinaryOperator::Gt | BinaryOperator::GtEq, false) => Some(Bound::To(column)),
        _ => None,
    }
}

/// Lets a null bound of a validity stand for an open one.
fn or_open(condition: Expr, alias: &str, table: &TableDefinition) -> Expr {
    let (Bound::From(column) | Bound::To(column)) = match bound(&condition, alias, table) {
        Some(bound) => bound,
        None => return Expr::Nested(Box::new(condition)),
    };
    let column = column_reference(alias, &table.columns[column].name);
    Expr::Nested(Box::new(Expr::BinaryOp {
        left: Box::new(Expr::IsNull(Box::new(column))),
        op: BinaryOperator::Or,
        right: Box::new(condition),
    }))
}

/// Returns the columns that bound a row's validity, to warn of overlaps.
fn validity(rest: &[Expr], alias: &str, table: &TableDefinition) -> Option<(usize, usize)> {
    let bounds: Vec<_> = rest.iter().filter_map(|part| bound(part, alias, table)).collect();
    let from = bounds.iter().find_map(|bound| match bound {
        Bound::From(column) => Some(*column),
        Bound::To(_) => None,
    });
    let to = bounds.iter().find_map(|bound| match bound {
        Bound::To(column) => Some(*column),
        Bound::From(_) => None,
    });
    from.zip(to)
}
