//! A view as a table.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use sanso_view::View;

use crate::answer::merge;
use crate::fetch::{copied_bytes, evidence, fetch};
use crate::finish::columns;
use crate::plan::plan;
use crate::sql::condition;
use crate::sql::failure::carry;
use crate::sql::statement::Reading;

/// Rows in a batch, as DataFusion's operators like them.
const BATCH_ROWS: usize = 8_192;

/// One serving view within one statement.
pub(crate) struct ViewTable {
    view: Arc<View>,
    reading: Arc<Reading>,
}

impl ViewTable {
    pub(crate) fn new(view: Arc<View>, reading: Arc<Reading>) -> Self {
        Self { view, reading }
    }

    async fn read(&self, filters: &[Expr]) -> Result<RecordBatch, DataFusionError> {
        let wanted = condition::wanted(&self.view, filters);
        let reads = plan(&self.view, &wanted);
        let reading = &self.reading;
        // The groups are copied out of the view before they are rows.
        let copied = reading.reserve(format!("groups of view {}", self.view.name));
        copied.try_grow(copied_bytes(&reading.shared, &reads).await)?;
        let replies =
            fetch(&reading.shared, &self.view, &reads, &reading.need, reading.until).await.map_err(carry)?;
        reading.evidence.lock().push(evidence(&self.view, &replies));
        columns(&self.view, merge(replies), wanted.from, wanted.to).await.map_err(carry)
    }
}

impl fmt::Debug for ViewTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ViewTable").field(&self.view.name).finish()
    }
}

#[async_trait]
impl TableProvider for ViewTable {
    fn schema(&self) -> SchemaRef {
        self.view.output_schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(condition::pushed_down(&self.view, filters))
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let rows = self.read(filters).await?;
        let reservation = self.reading.reserve(format!("rows of view {}", self.view.name));
        reservation.try_grow(rows.get_array_memory_size())?;
        self.reading.reservations.lock().push(reservation);
        let batches = apart(&rows)?;
        let plan = MemorySourceConfig::try_new_exec(&[batches], self.schema(), projection.cloned())?;
        Ok(plan)
    }
}

/// Copies rows into batches of their own. Slices of one batch would each be
/// accounted with the memory of the whole by operators that hold them.
fn apart(rows: &RecordBatch) -> Result<Vec<RecordBatch>, DataFusionError> {
    let batch = |from: usize| {
        let to = rows.num_rows().min(from + BATCH_ROWS);
        let indices = UInt32Array::from_iter_values(from as u32..to as u32);
        Ok(take_record_batch(rows, &indices)?)
    };
    (0..rows.num_rows()).step_by(BATCH_ROWS).map(batch).collect()
}
