//! A source's archived readings as a table: Parquet files of one manifest.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectMeta;
use object_store::path::Path;
use sanso_dataset::{Dataset, Manifest, archived_schema};
use sanso_state::Fingerprint;
use sanso_view::Source;

use crate::answer::Evidence;
use crate::problem::Problem;
use crate::sql::failure::carry;
use crate::sql::statement::Reading;

/// The address under which the dataset's object store is known to DataFusion.
pub(crate) const STORE_URL: &str = "sanso://dataset";

/// Which of a source's files a table reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The newest version of each reading.
    Newest,
    /// Every archived reading.
    History,
}

/// One source's archived readings within one statement.
pub(crate) struct DatasetTable {
    name: String,
    source: Arc<Source>,
    content: Content,
    schema: SchemaRef,
    reading: Arc<Reading>,
}

impl DatasetTable {
    pub(crate) fn new(source: Arc<Source>, content: Content, reading: Arc<Reading>) -> Self {
        let name = match content {
            Content::Newest => source.name.clone(),
            Content::History => format!("{}_history", source.name),
        };
        let schema = archived_schema(&source.schema());
        Self { name, source, content, schema, reading }
    }

    /// The table's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn evidence(&self, manifest: Option<&Manifest>) -> Evidence {
        let zero = || vec![0; self.source.partitions as usize];
        let cut = manifest.map_or_else(zero, |manifest| manifest.cut.offsets().to_vec());
        Evidence {
            name: self.name.clone(),
            kind: "dataset",
            version: String::new(),
            source: self.source.name.clone(),
            batch_version: manifest.map_or(0, |manifest| manifest.version),
            applied: cut.clone(),
            applied_most: cut.clone(),
            cut,
            watermark_us: manifest.and_then(|manifest| self.watermark_us(manifest)),
            answered: 1,
            total: 1,
        }
    }

    /// The least watermark at the cut.
    fn watermark_us(&self, manifest: &Manifest) -> Option<i64> {
        let watermark = |newest: i64| newest.saturating_sub(self.source.lateness_us);
        manifest.watermarks.iter().map(|newest| newest.map(watermark)).min().flatten()
    }

    /// The files with the fingerprints of their bytes.
    fn contents(&self, dataset: &Dataset, manifest: &Manifest) -> Vec<(Path, Fingerprint)> {
        match self.content {
            Content::Newest => {
                let contents = manifest.newest.iter().map(|file| file.content);
                dataset.newest_files(manifest).into_iter().zip(contents).collect()
            }
            Content::History => {
                let contents = manifest.segments.iter().map(|file| file.content);
                dataset.segment_files(manifest).into_iter().zip(contents).collect()
            }
        }
    }

    fn files(&self, dataset: &Dataset, manifest: &Manifest) -> Vec<PartitionedFile> {
        let (paths, sizes): (_, Vec<u64>) = match self.content {
            Content::Newest => {
                (dataset.newest_files(manifest), manifest.newest.iter().map(|file| file.bytes).collect())
            }
            Content::History => {
                (dataset.segment_files(manifest), manifest.segments.iter().map(|file| file.bytes).collect())
            }
        };
        let file = |(location, size)| {
            let last_modified = chrono::DateTime::UNIX_EPOCH;
            PartitionedFile::new_from_meta(ObjectMeta {
                location,
                last_modified,
                size,
                e_tag: None,
                version: None,
            })
        };
        paths.into_iter().zip(sizes).map(file).collect()
    }
}

impl fmt::Debug for DatasetTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatasetTable").field(&self.name).finish()
    }
}

#[async_trait]
impl TableProvider for DatasetTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let manifest = self.reading.manifest(&self.source.name).await;
        let manifest =
            manifest.map_err(|error| carry(Problem::dataset("read the dataset's manifest", &error)))?;
        self.reading.evidence.lock().push(self.evidence(manifest.as_deref()));
        let dataset = &self.reading.shared.context.dataset;
        let files = match &manifest {
            Some(manifest) => {
                let verified = dataset.verify(&self.name, self.contents(dataset, manifest)).await;
                verified.map_err(|error| carry(Problem::dataset("verify the archived files", &error)))?;
                self.files(dataset, manifest)
            }
            None => Vec::new(),
        };
        if files.is_empty() {
            let plan = MemorySourceConfig::try_new_exec(&[vec![]], self.schema(), projection.cloned())?;
            return Ok(plan);
        }
        let groups = state.config().target_partitions().max(1);
        let files: Vec<FileGroup> =
            files.chunks(files.len().div_ceil(groups)).map(|files| FileGroup::new(files.to_vec())).collect();
        let source = Arc::new(ParquetSource::new(TableSchema::from(self.schema())));
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE_URL)?, source)
            .with_file_groups(files)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
