//! Writes the answer of a read: JSON, or an Arrow IPC stream.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::answer::Freshness;
use crate::problem::Problem;
use crate::render::{ColumnInfo, Shape, columns, rows};
use crate::routes::options::{ARROW_STREAM, Format};

/// Answers with more rows than this are written on a blocking thread.
const ROWS_INLINE_MAX: usize = 2_000;

/// A finished answer.
pub(crate) struct Reply {
    /// The view and its version, for an answer of one view.
    pub(crate) view: Option<(String, String)>,
    /// The columns.
    pub(crate) schema: SchemaRef,
    /// The rows, in order.
    pub(crate) batches: Vec<RecordBatch>,
    /// Whether rows beyond the limit were left out.
    pub(crate) truncated: bool,
    /// How fresh it is.
    pub(crate) freshness: Freshness,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    view: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    columns: Vec<ColumnInfo>,
    rows: Box<RawValue>,
    truncated: bool,
    complete: bool,
    freshness: &'a Freshness,
}

impl Reply {
    /// Writes the answer.
    pub(crate) async fn respond(self, format: Format) -> Result<Response, Problem> {
        let many = self.batches.iter().map(RecordBatch::num_rows).sum::<usize>() > ROWS_INLINE_MAX;
        let write = move || match format {
            Format::Json(shape) => self.json(shape),
            Format::Arrow => self.arrow(),
        };
        let written = if many {
            let written = tokio::task::spawn_blocking(write).await;
            written.map_err(|error| Problem::internal("write the answer", error))?
        } else {
            write()
        };
        let bytes = written.map_err(|error| Problem::internal("write the answer", error))?;
        let content_type = match format {
            Format::Json(_) => "application/json",
            Format::Arrow => ARROW_STREAM,
        };
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (header::VARY, HeaderValue::from_static("accept")),
        ];
        Ok((headers, bytes).into_response())
    }

    /// Writes the JSON document.
    pub(crate) fn json(&self, shape: Shape) -> Result<Vec<u8>, ArrowError> {
        let document = Document {
            view: self.view.as_ref().map(|(name, _)| name.as_str()),
            version: self.view.as_ref().map(|(_, version)| version.as_str()),
            columns: columns(&self.schema),
            rows: rows(&self.batches, shape)?,
            truncated: self.truncated,
            complete: self.freshness.is_complete(),
            freshness: &self.freshness,
        };
        serde_json::to_vec(&document).map_err(|error| ArrowError::JsonError(error.to_string()))
    }

    /// Writes an Arrow IPC stream; what is not rows is in the schema's metadata.
    fn arrow(&self) -> Result<Vec<u8>, ArrowError> {
        let freshness = serde_json::to_string(&self.freshness)
            .map_err(|error| ArrowError::JsonError(error.to_string()))?;
        let mut metadata = self.schema.metadata().clone();
        metadata.insert("sanso.freshness".to_owned(), freshness);
        metadata.insert("sanso.complete".to_owned(), self.freshness.is_complete().to_string());
        metadata.insert("sanso.truncated".to_owned(), self.truncated.to_string());
        if let Some((view, version)) = &self.view {
            metadata.insert("sanso.view".to_owned(), view.clone());
            metadata.insert("sanso.version".to_owned(), version.clone());
        }
        let schema = Schema::new_with_metadata(self.schema.fields().clone(), metadata);
        let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
        for batch in &self.batches {
            writer.write(batch)?;
        }
        writer.into_inner()
    }
}
