//! What of SQL a view may be: one SELECT, grouped.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Query, Select, SelectItem, SetExpr, SetOperator, Visit, Visitor,
};

use super::Planner;
use super::aggregates::{is_aggregate, is_window_function};
use crate::error::{Place, SqlError};
use crate::syntax::{normal, place_of};

/// An item of the SELECT list.
pub(super) struct Item {
    pub(super) expression: Expr,
    pub(super) alias: Option<String>,
    pub(super) place: Place,
}

impl Planner<'_> {
    /// Returns the view's one SELECT; refuses every clause that can't be kept
    /// up to date reading by reading.
    pub(super) fn select(&self) -> Result<&Select, SqlError> {
        let query: &Query = &self.statement.query;
        let refuse = |clause: &str, why: &str, hint: &str| Err(SqlError::new(self.clause(clause), why, hint));
        if query.with.is_some() {
            return refuse(
                "WITH",
                "WITH queries are not supported in a view",
                "make the inner query a view of its own",
            );
        }
        if query.order_by.is_some() {
            return refuse(
                "ORDER",
                "ORDER BY means nothing in a view, which is kept by key and window",
                "order when asking: sanso query 'SELECT … ORDER BY …'",
            );
        }
        if query.limit_clause.is_some() || query.fetch.is_some() {
            let clause = ["LIMIT", "OFFSET", "FETCH"].into_iter().find(|c| self.find_word(c).is_some());
            return refuse(
                clause.unwrap_or("LIMIT"),
                "LIMIT can't be merged: which rows are first changes with every reading",
                "limit when asking: sanso query 'SELECT … LIMIT …'",
            );
        }
        if !query.locks.is_empty()
            || query.for_clause.is_some()
            || !query.pipe_operators.is_empty()
            || query.settings.is_some()
            || query.format_clause.is_some()
        {
            return refuse(
                "FOR",
                "the clause after the SELECT is not supported in a view",
                "end the view after GROUP BY",
            );
        }
        match query.body.as_ref() {
            SetExpr::Select(select) => self.check_select(select),
            SetExpr::SetOperation { op, .. } => {
                let word = match op {
                    SetOperator::Union => "UNION",
                    SetOperator::Except => "EXCEPT",
                    SetOperator::Intersect => "INTERSECT",
                    SetOperator::Minus => "MINUS",
                };
                refuse(
                    word,
                    &format!("{word} of queries is not supported"),
                    "make each query a view of its own",
                )
            }
            _ => Err(self.refuse_statement("a view is one SELECT")),
        }
    }

    fn check_select<'s>(&self, select: &'s Select) -> Result<&'s Select, SqlError> {
        let refuse = |clause: &str, why: &str, hint: &str| Err(SqlError::new(self.clause(clause), why, hint));
        if select.distinct.is_some() {
            return refuse(
                "DISTINCT",
                "SELECT DISTINCT is not supported",
                "group by the columns instead: a view without aggregates keeps the distinct keys",
            );
        }
        if let Some(having) = &select.having {
            let place = self.find_word("HAVING").unwrap_or_else(|| self.place(having, "HAVING"));
            return Err(SqlError::new(
                place,
                "HAVING would hide groups that later readings bring back",
                "filter when asking: sanso query 'SELECT … WHERE …'",
            ));
        }
        if select.qualify.is_some() || !select.named_window.is_empty() {
            let clause = if select.qualify.is_some() { "QUALIFY" } else { "WINDOW" };
            return refuse(
                clause,
                "window functions over rows can't be merged",
                "use TUMBLE or HOP for windows of time",
            );
        }
        if select.top.is_some() {
            return refuse(
                "TOP",
                "TOP can't be merged: which rows are first changes with every reading",
                "limit when asking",
            );
        }
        if select.into.is_some() {
            return refuse("INTO", "SELECT INTO is not supported", "a view has a name already");
        }
        let others = [
            !select.lateral_views.is_empty(),
            select.prewhere.is_some(),
            !select.connect_by.is_empty(),
            !select.cluster_by.is_empty(),
            !select.distribute_by.is_empty(),
            !select.sort_by.is_empty(),
            select.value_table_mode.is_some(),
            select.exclude.is_some(),
        ];
        if others.contains(&true) {
            return Err(self.refuse_statement(
                "the SELECT has a clause that views do not support; they have FROM, JOIN, WHERE and GROUP BY",
            ));
        }
        match &select.group_by {
            GroupByExpr::All(_) => {
                refuse("GROUP", "GROUP BY ALL is not supported", "name the columns to group by")
            }
            GroupByExpr::Expressions(_, modifiers) if !modifiers.is_empty() => {
                refuse("GROUP", "ROLLUP, CUBE and TOTALS are not supported", "make a view for each grouping")
            }
            GroupByExpr::Expressions(_, _) => Ok(select),
        }
    }

    /// Returns the items of the SELECT list.
    pub(super) fn items(&self, select: &Select) -> Result<Vec<Item>, SqlError> {
        let star = || {
            SqlError::new(
                self.clause("*"),
                "SELECT * is not grouped",
                "name the keys and aggregates of the view",
            )
        };
        let mut items = Vec::new();
        for item in &select.projection {
            let (expression, alias) = match item {
                SelectItem::UnnamedExpr(expression) => (expression, None),
                SelectItem::ExprWithAlias { expr, alias } => (expr, Some(normal(alias))),
                SelectItem::ExprWithAliases { expr, .. } => {
                    let place = self.place(expr, "SELECT");
                    return Err(SqlError::new(
                        place,
                        "one expression with several names",
                        "give it one name",
                    ));
                }
                SelectItem::QualifiedWildcard(_, _) | SelectItem::Wildcard(_) => return Err(star()),
            };
            let place = self.place(expression, "SELECT");
            items.push(Item { expression: expression.clone(), alias, place });
        }
        Ok(items)
    }

    /// Refuses aggregates, windows of time and OVER where rows are meant.
    pub(super) fn refuse_aggregates(&self, expression: &Expr, clause: &str) -> Result<(), SqlError> {
        let mut visitor = NoAggregates { planner: self, clause };
        match expression.visit(&mut visitor) {
            ControlFlow::Break(error) => Err(*error),
            ControlFlow::Continue(()) => Ok(()),
        }
    }
}

struct NoAggregates<'v, 'p> {
    planner: &'v Planner<'p>,
    clause: &'v str,
}

impl Visitor for NoAggregates<'_, '_> {
    type Break = Box<SqlError>;

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<Self::Break> {
        let Expr::Function(call) = expression else {
            return ControlFlow::Continue(());
        };
        let place = place_of(expression).unwrap_or_else(|| self.planner.clause(self.clause));
        let name = call.name.to_string();
        let refuse = |why: String, hint: &str| ControlFlow::Break(Box::new(SqlError::new(place, why, hint)));
        if call.over.is_some() {
            return refuse(
                format!("{name}(…) OVER is a window function over rows, which can't be merged"),
                "use TUMBLE or HOP for windows of time",
            );
        }
        if is_aggregate(self.planner.session, &name) {
            let hint =
                if self.clause == "WHERE" { "use FILTER (WHERE …), or filter when asking" } else { "" };
            return refuse(format!("the aggregate {name} can't stand in {}", self.clause), hint);
        }
        if is_window_function(&name) {
            return refuse(
                format!("{name} can't stand in {}", self.clause),
                "a window of time stands in SELECT and GROUP BY",
            );
        }
        ControlFlow::Continue(())
    }
}
