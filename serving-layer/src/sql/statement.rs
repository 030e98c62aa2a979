//! Runs one statement: tables of this moment, a memory limit, a row limit.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use axum::http::StatusCode;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DataFusionError, TableReference};
use datafusion::dataframe::DataFrame;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionStateBuilder, TaskContext};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use futures::StreamExt;
use parking_lot::Mutex;
use sanso_dataset::{DatasetError, Manifest};
use tokio::time::Instant;

use crate::answer::Evidence;
use crate::config::ServingConfig;
use crate::fetch::Need;
use crate::problem::Problem;
use crate::service::Shared;
use crate::sql::dataset_table::{Content, DatasetTable, STORE_URL};
use crate::sql::failure;
use crate::sql::memory::QueryMemory;
use crate::sql::shape;
use crate::sql::view_table::ViewTable;

/// Functions that make text of any length from a number, in memory that no
/// budget sees.
const UNBOUNDED: [&str; 3] = ["repeat", "lpad", "rpad"];

/// The answer of a statement.
pub(crate) struct Answer {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) truncated: bool,
    pub(crate) evidence: Vec<Evidence>,
}

/// What the tables of one statement share.
pub(crate) struct Reading {
    pub(crate) shared: Arc<Shared>,
    pub(crate) need: Need,
    pub(crate) until: Instant,
    pub(crate) evidence: Mutex<Vec<Evidence>>,
    pub(crate) memory: Arc<QueryMemory>,
    pub(crate) reservations: Mutex<Vec<MemoryReservation>>,
    manifests: tokio::sync::Mutex<BTreeMap<String, Option<Arc<Manifest>>>>,
}

impl Reading {
    /// Returns the newest manifest of a source, the same throughout the statement.
    pub(crate) async fn manifest(&self, source: &str) -> Result<Option<Arc<Manifest>>, DatasetError> {
        let mut manifests = self.manifests.lock().await;
        if let Some(manifest) = manifests.get(source) {
            return Ok(manifest.clone());
        }
        let context = &self.shared.context;
        // Looked at first: what is listed afterwards can only be newer.
        let posted = context.board.batch().get(source).map_or(0, |progress| progress.version);
        let manifest = context.dataset.manifest(source).await?;
        if manifest.as_ref().map_or(0, |manifest| manifest.version) < posted {
            return Err(DatasetError::Damaged {
                path: context.dataset.layout().manifest(source, posted).to_string(),
                what: "it was published, and is gone".to_owned(),
                remedy: "the next version brings all of it back; a restart archives again what is missing",
            });
        }
        manifests.insert(source.to_owned(), manifest.clone());
        Ok(manifest)
    }

    /// Starts to count memory for something that is not DataFusion's.
    pub(crate) fn reserve(&self, what: String) -> MemoryReservation {
        let pool: Arc<dyn MemoryPool> = Arc::clone(&self.memory) as _;
        MemoryConsumer::new(what).register(&pool)
    }
}

/// Runs a statement on the query threads; dropping the future stops it at the next
/// batch of rows.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    sql: String,
    need: Need,
    rows_max: usize,
    until: Instant,
) -> Result<Answer, Problem> {
    let memory = QueryMemory::new(shared.config.query_memory_bytes_max, Arc::clone(&shared.query_memory));
    let reading = Arc::new(Reading {
        memory: Arc::new(memory),
        shared: Arc::clone(shared),
        need,
        until,
        evidence: Mutex::default(),
        reservations: Mutex::default(),
        manifests: tokio::sync::Mutex::default(),
    });
    let work = async move { execute(&reading, &sql, rows_max).await };
    shared.query_threads.run(work).await?
}

async fn execute(reading: &Arc<Reading>, sql: &str, rows_max: usize) -> Result<Answer, Problem> {
    let (context, tables) =
        prepared(reading).map_err(|error| Problem::internal("prepare the query", error))?;
    let problem = |error: DataFusionError| failure::problem(&error, &tables, reading.memory.exhausted());
    let (plan, context) = planned(&context, sql, problem).await?;
    let mut stream = execute_stream(plan, context).map_err(problem)?;
    let schema = stream.schema();
    let mut batches = Vec::new();
    let mut rows = 0;
    let mut bytes = 0;
    let held = reading.reserve("the rows of the answer".to_owned());
    let bytes_max = reading.shared.config.answer_bytes_max;
    let mut truncated = false;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(problem)?;
        let room = rows_max - rows;
        let size = size_of(&batch.slice(0, batch.num_rows().min(room))).map_err(problem)?;
        bytes += size;
        if bytes > bytes_max {
            return Err(answer_too_large(bytes_max));
        }
        held.try_grow(size).map_err(problem)?;
        if batch.num_rows() > room {
            truncated = true;
            batches.push(batch.slice(0, room));
            break;
        }
        rows += batch.num_rows();
        batches.push(batch);
    }
    let evidence = std::mem::take(&mut *reading.evidence.lock());
    Ok(Answer { schema, batches, truncated, evidence })
}

/// Plans a statement; refuses one that is too complex to plan, or no query.
pub(crate) async fn planned(
    context: &SessionContext,
    sql: &str,
    problem: impl Fn(DataFusionError) -> Problem + Copy,
) -> Result<(Arc<dyn ExecutionPlan>, Arc<TaskContext>), Problem> {
    shape::check_text(sql)?;
    let state = context.state();
    let plan = state.create_logical_plan(sql).await.map_err(problem)?;
    read_only().verify_plan(&plan).map_err(|error| not_a_query(&error))?;
    let frame = DataFrame::new(state, plan);
    let context = Arc::new(frame.task_ctx());
    let plan = frame.create_physical_plan().await.and_then(interruptible).map_err(problem)?;
    Ok((plan, context))
}

/// Lets every operator that makes many rows of few give way now and then, as
/// DataFusion's own do where they read: else a join that is under way could
/// not be stopped, and would keep its thread beyond every deadline.
fn interruptible(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let wrap = |node: Arc<dyn ExecutionPlan>| {
        if node.children().len() < 2 {
            return Ok(Transformed::no(node));
        }
        let giving_way: Arc<dyn ExecutionPlan> = Arc::new(CooperativeExec::new(node));
        Ok(Transformed::yes(giving_way))
    };
    plan.transform_up(wrap).data()
}

/// Returns the bytes of the rows themselves: a slice is not counted with all that it was cut from.
pub(crate) fn size_of(batch: &RecordBatch) -> Result<usize, DataFusionError> {
    let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size());
    Ok(sizes.sum::<Result<usize, _>>()?)
}

/// The rows of an answer take too much memory.
pub(crate) fn answer_too_large(bytes_max: usize) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "answer-too-large", "The answer is too large")
        .detail(format!("the rows of one answer may take {bytes_max} bytes of memory"))
        .hint("ask for fewer rows (limit, a key, a range of time) or fewer columns, or aggregate; an operator raises serving.answer_bytes_max")
        .with("budget", "serving.answer_bytes_max")
        .with("budget_bytes", bytes_max)
}

fn read_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

fn not_a_query(error: &DataFusionError) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "not-a-query", "Only queries are answered here")
        .detail(error.strip_backtrace())
        .hint("send SELECT, WITH … SELECT, VALUES, SHOW TABLES, DESCRIBE or EXPLAIN; views are declared in the application's SQL file")
}

/// Creates a session with the tables of this moment and memory of its own.
fn prepared(reading: &Arc<Reading>) -> Result<(SessionContext, Vec<String>), DataFusionError> {
    let context = session(&reading.shared.config, Arc::clone(&reading.memory) as _)?;
    let store = reading.shared.context.dataset.object_store();
    context.register_object_store(ObjectStoreUrl::parse(STORE_URL)?.as_ref(), store);
    let tables = register(&context, reading)?;
    Ok((context, tables))
}

/// Creates a session without tables.
pub(crate) fn session(
    config: &ServingConfig,
    memory: Arc<dyn MemoryPool>,
) -> Result<SessionContext, DataFusionError> {
    let config = SessionConfig::new()
        .with_target_partitions(config.query_threads.max(1))
        .with_information_schema(true)
        .set_bool("datafusion.sql_parser.collect_spans", true)
        // 0.1 is a decimal: sums and comparisons with decimals stay exact.
        .set_bool("datafusion.sql_parser.parse_float_as_decimal", true)
        .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false)
        .set_str("datafusion.execution.time_zone", "UTC");
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(memory)
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()?;
    let state = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_runtime_env(runtime)
        .build();
    let context = SessionContext::new_with_state(state);
    UNBOUNDED.iter().for_each(|name| context.deregister_udf(name));
    Ok(context)
}

fn register(context: &SessionContext, reading: &Arc<Reading>) -> Result<Vec<String>, DataFusionError> {
    let catalog = reading.shared.context.catalog.current();
    let mut tables = Vec::new();
    for view in catalog.serving_views() {
        let table = ViewTable::new(Arc::clone(view), Arc::clone(reading));
        context.register_table(TableReference::bare(view.name.as_str()), Arc::new(table))?;
        tables.push(view.name.clone());
    }
    for source in catalog.sources.values() {
        for content in [Content::Newest, Content::History] {
            let table = DatasetTable::new(Arc::clone(source), content, Arc::clone(reading));
            // A view of the same name was declared by the user and comes first.
            if tables.iter().any(|name| name == table.name()) {
                continue;
            }
            tables.push(table.name().to_owned());
            context.register_table(TableReference::bare(table.name().to_owned()), Arc::new(table))?;
        }
    }
    Ok(tables)
}
