//! Names in a view: relations, columns and their canonical form.
//!
//! The canonical form of an expression has every column qualified by its
//! relation's alias and quoted, and functions in lower case, so that two
//! expressions mean the same when their texts are equal.

use std::ops::ControlFlow;

use datafusion::common::DFSchema;
use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName, ObjectNamePart, Query, VisitMut, VisitorMut};

use crate::error::{Place, SqlError};
use crate::expression::qualified;
use crate::source::{Column, Source};
use crate::syntax::{normal, place_of};

/// A relation of the FROM clause.
#[derive(Clone, Debug)]
pub(crate) struct Relation {
    pub(crate) alias: String,
    pub(crate) columns: Vec<Column>,
}

/// The relations whose columns an expression may name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub(crate) relations: Vec<Relation>,
}

impl Scope {
    /// Returns the schema of the joined row.
    pub(crate) fn schema(&self) -> Result<DFSchema, String> {
        let mut joined = DFSchema::empty();
        for relation in &self.relations {
            let schema = qualified(&relation.alias, &Source::schema_of(&relation.columns))?;
            joined = joined.join(&schema).map_err(|error| crate::expression::reason(&error))?;
        }
        Ok(joined)
    }

    /// Finds a column by its name, and its relation's alias where one is given.
    fn find(&self, alias: Option<&str>, name: &str) -> Vec<(&Relation, &Column)> {
        self.relations
            .iter()
            .filter(|relation| alias.is_none_or(|alias| relation.alias == alias))
            .filter_map(|relation| {
                relation.columns.iter().find(|c| c.name == name).map(|column| (relation, column))
            })
            .collect()
    }

    /// Says whether a bare name is a column of some relation.
    pub(crate) fn has_column(&self, name: &str) -> bool {
        !self.find(None, name).is_empty()
    }

    /// Brings an expression into canonical form; refuses unknown and
    /// ambiguous columns and subqueries.
    pub(crate) fn canonical(&self, expression: &Expr, fallback: Place) -> Result<Expr, SqlError> {
        let mut expression = expression.clone();
        let mut visitor = Canonical { scope: self, fallback };
        match expression.visit(&mut visitor) {
            ControlFlow::Break(error) => Err(*error),
            ControlFlow::Continue(()) => Ok(expression),
        }
    }

    fn resolve(&self, parts: &[Ident], place: Place) -> Result<Expr, SqlError> {
        let (alias, name) = match parts {
            [name] => (None, normal(name)),
            [alias, name] => (Some(normal(alias)), normal(name)),
            _ => {
                let text: Vec<_> = parts.iter().map(|part| part.value.as_str()).collect();
                return Err(SqlError::new(
                    place,
                    format!("{} has too many parts", text.join(".")),
                    "write alias.column",
                ));
            }
        };
        let written = match &alias {
            Some(alias) => format!("{alias}.{name}"),
            None => name.clone(),
        };
        match self.find(alias.as_deref(), &name).as_slice() {
            [(relation, column)] => Ok(column_reference(&relation.alias, &column.name)),
            [] => Err(SqlError::new(place, format!("no column {written}"), self.known(alias.as_deref()))),
            many => {
                let choices: Vec<_> = many.iter().map(|(r, c)| format!("{}.{}", r.alias, c.name)).collect();
                Err(SqlError::new(
                    place,
                    format!("column {written} is ambiguous"),
                    format!("write {}", choices.join(" or ")),
                ))
            }
        }
    }

    fn known(&self, alias: Option<&str>) -> String {
        let mut relations = self
            .relations
            .iter()
            .filter(|relation| alias.is_none_or(|alias| relation.alias == alias))
            .peekable();
        if relations.peek().is_none() {
            let aliases: Vec<_> = self.relations.iter().map(|r| r.alias.as_str()).collect();
            return format!("relations here: {}", aliases.join(", "));
        }
        let columns: Vec<_> = relations
            .flat_map(|r| r.columns.iter().map(move |c| format!("{}.{}", r.alias, c.name)))
            .collect();
        format!("columns here: {}", columns.join(", "))
    }
}

/// Writes a reference to a column in canonical form.
pub(crate) fn column_reference(alias: &str, name: &str) -> Expr {
    Expr::CompoundIdentifier(vec![Ident::with_quote('"', alias), Ident::with_quote('"', name)])
}

struct Canonical<'s> {
    scope: &'s Scope,
    fallback: Place,
}

impl VisitorMut for Canonical<'_> {
    type Break = Box<SqlError>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        let place = place_of(query).unwrap_or(self.fallback);
        ControlFlow::Break(Box::new(SqlError::new(
            place,
            "subqueries can't be kept up to date reading by reading",
            "join a reference table, or make the inner query a view of its own",
        )))
    }

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<Self::Break> {
        let place = place_of(expression).unwrap_or(self.fallback);
        let resolved = match expression {
            Expr::Identifier(name) => self.scope.resolve(std::slice::from_ref(name), place),
            Expr::CompoundIdentifier(parts) => self.scope.resolve(parts, place),
            Expr::Function(call) => {
                call.name = lower(&call.name);
                return ControlFlow::Continue(());
            }
            _ => return ControlFlow::Continue(()),
        };
        match resolved {
            Ok(mut resolved) => {
                keep_place(expression, &mut resolved);
                *expression = resolved;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

/// Carries the place of a column over to its canonical form.
fn keep_place(from: &Expr, to: &mut Expr) {
    use datafusion::sql::sqlparser::ast::Spanned;
    let span = from.span();
    if let (Expr::Identifier(_) | Expr::CompoundIdentifier(_), Expr::CompoundIdentifier(parts)) = (from, to) {
        parts.iter_mut().for_each(|part| part.span = span);
    }
}

fn lower(name: &ObjectName) -> ObjectName {
    let part = |part: &ObjectNamePart| match part {
        ObjectNamePart::Identifier(ident) => {
            let mut lowered = Ident::new(normal(ident));
            lowered.span = ident.span;
            ObjectNamePart::Identifier(lowered)
        }
        other => other.clone(),
    };
    ObjectName(name.0.iter().map(part).collect())
}
