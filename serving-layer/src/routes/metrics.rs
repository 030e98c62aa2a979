//! `GET /metrics`: the Prometheus text format.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use crate::metrics::board_text;
use crate::problem::Problem;
use crate::service::Shared;

pub(crate) async fn scrape(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let mut text = shared.metrics.get().map(|handle| handle.render()).unwrap_or_default();
    let (board, catalog) = (shared.context.board.clone(), shared.context.catalog.current());
    // Counting the quarantine may wait for the disk.
    let rendered = tokio::task::spawn_blocking(move || board_text(&board, &catalog)).await;
    text.push_str(&rendered.map_err(|error| Problem::internal("read the status board", error))?);
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}
