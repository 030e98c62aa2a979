//! Writes the answer of a read: JSON, or an Arrow IPC stream.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;

use crate::answer::Freshness;
use crate::document::Document;
use crate::finish::Rows;
use crate::problem::Problem;
use crate::render::{columns, rows};
use crate::routes::options::{ARROW_STREAM, Format};

/// Answers with more rows in columns than this are written on a blocking thread.
const ROWS_INLINE_MAX: usize = 2_000;
/// About the bytes of an answer besides its rows: of one view, its columns and its freshness.
const BYTES_BESIDES: usize = 2 << 10;

/// A finished answer.
pub(crate) struct Reply {
    /// The view and its version, for an answer of one view.
    pub(crate) view: Option<(String, String)>,
    /// The columns.
    pub(crate) schema: SchemaRef,
    /// The rows, in order.
    pub(crate) rows: Rows,
    /// Whether rows beyond the limit were left out.
    pub(crate) truncated: bool,
    /// How fresh it is.
    pub(crate) freshness: Freshness,
}

impl Reply {
    /// Answers with it.
    pub(crate) async fn respond(self) -> Result<Response, Problem> {
        let (many, content_type) = match &self.rows {
            Rows::Written(_) => (false, "application/json"),
            Rows::Columns(batches, format) => {
                let many = batches.iter().map(RecordBatch::num_rows).sum::<usize>() > ROWS_INLINE_MAX;
                (many, if *format == Format::Arrow { ARROW_STREAM } else { "application/json" })
            }
        };
        let written = if many {
            let written = tokio::task::spawn_blocking(move || self.write()).await;
            written.map_err(|error| Problem::internal("write the answer", error))?
        } else {
            self.write()
        };
        let bytes = written.map_err(|error| Problem::internal("write the answer", error))?;
        let mut response = Response::new(Body::from(bytes));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
        Ok(response)
    }

    /// Writes it.
    pub(crate) fn write(&self) -> Result<Vec<u8>, ArrowError> {
        match &self.rows {
            Rows::Written(rows) => self.json(rows),
            Rows::Columns(batches, Format::Json(shape)) => self.json(&rows(batches, *shape)?),
            Rows::Columns(batches, Format::Arrow) => self.arrow(batches),
        }
    }

    /// Writes the JSON document around the rows.
    fn json(&self, rows: &[u8]) -> Result<Vec<u8>, ArrowError> {
        let document = || {
            let mut document = Document::with_capacity(rows.len() + BYTES_BESIDES);
            if let Some((view, version)) = &self.view {
                document.member("view", view)?;
                document.member("version", version)?;
            }
            document.member("columns", &columns(&self.schema))?;
            document.raw("rows").extend_from_slice(rows);
            document.member("truncated", &self.truncated)?;
            document.member("complete", &self.freshness.is_complete())?;
            document.member("freshness", &self.freshness)?;
            Ok(document.end())
        };
        document().map_err(|error: serde_json::Error| ArrowError::JsonError(error.to_string()))
    }

    /// Writes an Arrow IPC stream; what is not rows is in the schema's metadata.
    fn arrow(&self, batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
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
        for batch in batches {
            writer.write(batch)?;
        }
        writer.into_inner()
    }
}
