//! `GET /metrics`: the Prometheus text format.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use sanso_state::RefusalCounts;

use crate::metrics::{board_text, figures_text};
use crate::problem::Problem;
use crate::quarantine::live_views;
use crate::service::Shared;

pub(crate) async fn scrape(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let mut text = shared.metrics.get().map(|handle| handle.render()).unwrap_or_default();
    text.push_str(&board_text(&shared.context.board, &quarantined(&shared).await));
    if let Some(cluster) = &shared.context.cluster {
        text.push_str(&figures_text(&cluster.figures()));
    }
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

/// Counts the quarantine. In a cluster the node that drives the batch layer does, for all, so that each
/// record is counted once however many nodes are scraped.
async fn quarantined(shared: &Shared) -> Vec<(String, RefusalCounts)> {
    if !shared.nodes.counts_for_all() {
        return Vec::new();
    }
    let (whole, catalog) = (shared.nodes.whole().await, shared.context.catalog.current());
    let mut counted = Vec::new();
    for source in catalog.sources.values() {
        let counts = shared.nodes.counts(source, &whole, &live_views(&catalog, &source.name)).await;
        counted.extend(counts.map(|counts| (source.name.clone(), counts)));
    }
    counted
}
