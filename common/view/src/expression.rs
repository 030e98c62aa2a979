//! Scalar expressions: typed once by DataFusion, evaluated on batches, with
//! failures traced to the rows that cause them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat};
use arrow::datatypes::Schema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::execution::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, Operator, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::expressions::BinaryExpr;
use datafusion::sql::sqlparser::ast;
use sanso_state::ValueType;

use crate::scalar::{arrow_type, value_type};

/// An expression ready to be evaluated; its result is of a canonical type.
#[derive(Clone, Debug)]
pub(crate) struct Expression {
    physical: Arc<dyn PhysicalExpr>,
    pub(crate) value_type: ValueType,
    /// The expression as written, for people.
    pub(crate) text: String,
}

/// Equal when they compute the same and fail on the same rows, whatever relations are called in them.
impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        // Lists are equal to DataFusion in any order, but evaluated in theirs, up to what is found: so the text as well.
        self.physical.as_ref() == other.physical.as_ref()
            && self.physical.to_string() == other.physical.to_string()
            && self.value_type == other.value_type
    }
}

/// The rows an evaluation failed on, each with the reason.
pub(crate) type Failures = Vec<(usize, String)>;

impl Expression {
    /// Types and plans an expression over a schema. An error is a reason for
    /// people, without a place.
    pub(crate) fn plan(session: &SessionState, sql: &ast::Expr, schema: &DFSchema) -> Result<Self, String> {
        let with_alias = ast::ExprWithAlias { expr: sql.clone(), alias: None };
        let logical =
            session.create_logical_expr_from_sql_expr(with_alias, schema).map_err(|error| reason(&error))?;
        if let Some(name) = volatile_function(&logical).map_err(|error| reason(&error))? {
            return Err(format!(
                "{name} gives another result each time, so both layers could not agree on it"
            ));
        }
        let logical = simplified(session, logical, schema).map_err(|error| reason(&error))?;
        let physical = session.create_physical_expr(logical, schema).map_err(|error| reason(&error))?;
        let physical = checked(physical).map_err(|error| reason(&error))?;
        let arrow = physical.data_type(schema.as_arrow()).map_err(|error| reason(&error))?;
        let value_type =
            value_type(&arrow).ok_or_else(|| format!("its type {arrow} has no exact form here"))?;
        Ok(Self { physical, value_type, text: sql.to_string().replace('"', "") })
    }

    /// Returns the columns of the schema that it reads.
    pub(crate) fn columns(&self) -> impl Iterator<Item = usize> {
        collect_columns(&self.physical).into_iter().map(|column| column.index())
    }

    /// Evaluates on every row. Where it fails the result is null and the row
    /// is among the failures.
    pub(crate) fn evaluate(&self, batch: &RecordBatch, failures: &mut Failures) -> ArrayRef {
        if batch.num_rows() == 0 {
            return new_null_array(&arrow_type(self.value_type), 0);
        }
        match self.evaluate_all(batch) {
            Ok(array) => array,
            Err(error) => self.evaluate_halves(batch, 0, error, failures),
        }
    }

    /// Evaluates a predicate: the rows where it is true. Null is not true.
    pub(crate) fn holds(&self, batch: &RecordBatch, failures: &mut Failures) -> BooleanArray {
        let array = self.evaluate(batch, failures);
        match array.as_any().downcast_ref::<BooleanArray>() {
            Some(bools) if bools.null_count() == 0 => bools.clone(),
            Some(bools) => bools.iter().map(|b| Some(b == Some(true))).collect(),
            None => unreachable!("a predicate was checked to be boolean"),
        }
    }

    fn evaluate_all(&self, batch: &RecordBatch) -> Result<ArrayRef, DataFusionError> {
        let array = self.physical.evaluate(batch)?.into_array(batch.num_rows())?;
        let wanted = arrow_type(self.value_type);
        if *array.data_type() == wanted {
            return Ok(array);
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        Ok(cast_with_options(&array, &wanted, &options)?)
    }

    /// Finds the failing rows by halving, so that k of n cost k·log n.
    fn evaluate_halves(
        &self,
        batch: &RecordBatch,
        first_row: usize,
        error: DataFusionError,
        failures: &mut Failures,
    ) -> ArrayRef {
        let rows = batch.num_rows();
        if rows == 1 {
            failures.push((first_row, format!("{}: {}", self.text, reason(&error))));
            return new_null_array(&arrow_type(self.value_type), 1);
        }
        let middle = rows / 2;
        let mut half = |from: usize, length: usize| {
            let part = batch.slice(from, length);
            match self.evaluate_all(&part) {
                Ok(array) => array,
                Err(error) => self.evaluate_halves(&part, first_row + from, error, failures),
            }
        };
        let (left, right) = (half(0, middle), half(middle, rows - middle));
        concat(&[left.as_ref(), right.as_ref()]).expect("both halves are of the canonical type")
    }
}

/// Simplifies an expression: some functions (COALESCE, NVL2) are only defined
/// by what they are simplified to.
fn simplified(session: &SessionState, logical: Expr, schema: &DFSchema) -> Result<Expr, DataFusionError> {
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(Arc::clone(session.config_options()))
        .build();
    let simplifier = ExprSimplifier::new(context);
    simplifier.simplify(simplifier.coerce(logical, schema)?)
}

/// Makes integer arithmetic fail on overflow instead of wrapping around.
fn checked(expression: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    expression
        .transform_up(|node| {
            let Some(binary) = node.downcast_ref::<BinaryExpr>() else {
                return Ok(Transformed::no(node));
            };
            if !matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply) {
                return Ok(Transformed::no(node));
            }
            let rebuilt =
                BinaryExpr::new(Arc::clone(binary.left()), *binary.op(), Arc::clone(binary.right()))
                    .with_fail_on_overflow(true);
            Ok(Transformed::yes(Arc::new(rebuilt) as Arc<dyn PhysicalExpr>))
        })
        .data()
}

/// Returns the first function that is not a pure function of its arguments.
fn volatile_function(expression: &Expr) -> Result<Option<String>, DataFusionError> {
    let mut found = None;
    expression.apply(|node| {
        use datafusion::common::tree_node::TreeNodeRecursion;
        if let Expr::ScalarFunction(call) = node
            && call.func.signature().volatility != Volatility::Immutable
        {
            found = Some(format!("{}()", call.func.name()));
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Shortens a DataFusion error to what a person needs.
pub(crate) fn reason(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let text = text.split("\n\nbacktrace").next().unwrap_or_default();
    let mut text = text.trim();
    for prefix in [
        "Error during planning: ",
        "Schema error: ",
        "Arrow error: ",
        "Execution error: ",
        "This feature is not implemented: ",
        "SQL error: ",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    text.to_owned()
}

/// Returns a schema whose columns are qualified by a relation's alias.
pub(crate) fn qualified(alias: &str, schema: &Schema) -> Result<DFSchema, String> {
    DFSchema::try_from_qualified_schema(alias, schema).map_err(|error| reason(&error))
}
