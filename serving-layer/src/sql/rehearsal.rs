//! Plans a statement over views that hold nothing, and does not run it.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, TableReference};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::{ExecutionPlan, displayable};
use sanso_view::View;

use crate::config::ServingConfig;
use crate::plan::plan;
use crate::problem::Problem;
use crate::sql::memory::{Budget, QueryMemory};
use crate::sql::{condition, failure, statement};

/// Plans a statement like [`statement::run`] does, and describes the plan.
pub(crate) async fn rehearse(
    config: &ServingConfig,
    views: &[Arc<View>],
    sql: &str,
) -> Result<String, Problem> {
    let shared = Arc::new(Budget::new(config.queries_memory_bytes_max));
    let memory = Arc::new(QueryMemory::new(config.query_memory_bytes_max, shared));
    let internal = |error: DataFusionError| Problem::internal("prepare the query", error);
    let context = statement::session(config, Arc::clone(&memory) as _).map_err(internal)?;
    let mut tables = Vec::new();
    for view in views {
        tables.push(view.name.clone());
        let table = Arc::new(Empty(Arc::clone(view)));
        context.register_table(TableReference::bare(view.name.as_str()), table).map_err(internal)?;
    }
    let problem = |error: DataFusionError| failure::problem(&error, &tables, memory.exhausted());
    let (plan, _) = statement::planned(&context, sql, problem).await?;
    Ok(displayable(plan.as_ref()).indent(false).to_string())
}

/// A view without groups.
#[derive(Debug)]
struct Empty(Arc<View>);

#[async_trait]
impl TableProvider for Empty {
    fn schema(&self) -> SchemaRef {
        self.0.output_schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(condition::pushed_down(&self.0, filters))
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        plan(&self.0, &condition::wanted(&self.0, filters));
        let plan = MemorySourceConfig::try_new_exec(&[vec![]], self.schema(), projection.cloned())?;
        Ok(plan)
    }
}
