//! Options that reads have in common: rows, shape, progress required, deadline.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use tokio::time::Instant;

use crate::config::ServingConfig;
use crate::fetch::Need;
use crate::params::Params;
use crate::problem::Problem;
use crate::render::Shape;
use crate::session::Session;

/// The names of the options every read takes.
pub(crate) const READ_OPTIONS: [&str; 6] = ["limit", "format", "partial", "staleness", "session", "deadline"];

/// The media type of an Arrow IPC stream.
pub(crate) const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// JSON, with rows of this shape.
    Json(Shape),
    /// An Arrow IPC stream; freshness is in its schema's metadata.
    Arrow,
}

/// The options of one read.
#[derive(Clone, Debug)]
pub(crate) struct ReadOptions {
    pub(crate) rows_max: usize,
    pub(crate) format: Format,
    pub(crate) need: Need,
    pub(crate) deadline: Duration,
    pub(crate) until: Instant,
}

impl ReadOptions {
    /// Reads the options; the deadline counts from now.
    pub(crate) fn read(
        config: &ServingConfig,
        params: &Params<'_>,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        let deadline = params.deadline(config.deadline(), config.deadline_ms_max)?;
        let limit = params.number("limit", 1, config.rows_max as u64)?;
        let session = params.one("session")?.map(Session::parse).transpose()?;
        Ok(Self {
            rows_max: limit.map_or(config.rows_default, |limit| limit as usize),
            format: format(params, headers)?,
            need: Need::new(
                session.unwrap_or_default(),
                params.number("staleness", 0, config.staleness_memory_ms)?.map(Duration::from_millis),
                params.word("partial", &[("allow", true), ("deny", false)])?.unwrap_or(false),
            ),
            deadline,
            until: Instant::now() + deadline,
        })
    }

    /// Returns the problem of a passed deadline: what a read was waiting for, where one was.
    pub(crate) fn passed(&self) -> Problem {
        self.need.awaited().unwrap_or_else(|| Problem::deadline(self.deadline.as_millis() as u64))
    }
}

fn format(params: &Params<'_>, headers: &HeaderMap) -> Result<Format, Problem> {
    let words = [
        ("arrays", Format::Json(Shape::Arrays)),
        ("objects", Format::Json(Shape::Objects)),
        ("arrow", Format::Arrow),
    ];
    if let Some(format) = params.word("format", &words)? {
        return Ok(format);
    }
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let arrow = accepts.flat_map(|value| value.split(',')).any(|kind| {
        kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(ARROW_STREAM))
    });
    Ok(if arrow { Format::Arrow } else { Format::Json(Shape::Arrays) })
}
