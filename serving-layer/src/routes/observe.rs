//! What every request goes through: a span, a metric, a bound on how many run
//! at once, and a deadline.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::metrics::REQUEST_SECONDS;
use crate::problem::Problem;
use crate::service::Shared;

/// Paths that must answer however busy the server is.
const ALWAYS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// Paths that keep their own time: a stream has no end, a body may be long,
/// and reads have their caller's deadline.
const OWN_DEADLINE: [&str; 4] =
    ["/v1/views/{view}", "/v1/views/{view}/stream", "/v1/query", "/v1/ingest/{source}"];

pub(crate) async fn observe(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let span = tracing::info_span!("request", %method, route);
    let start = Instant::now();
    let response = bounded(&shared, &route, request, next).instrument(span.clone()).await;
    let elapsed = start.elapsed();
    let status = response.status().as_u16();
    span.in_scope(|| tracing::debug!(status, elapsed_us = elapsed.as_micros() as u64, "answered"));
    metrics::histogram!(
        REQUEST_SECONDS,
        "route" => route,
        "method" => method.to_string(),
        "status" => status.to_string()
    )
    .record(elapsed.as_secs_f64());
    response
}

async fn bounded(shared: &Shared, route: &str, request: Request, next: Next) -> Response {
    let permit = if ALWAYS.contains(&route) { None } else { Some(shared.requests.try_acquire()) };
    if let Some(Err(_)) = permit {
        return Problem::busy("requests").into_response();
    }
    if OWN_DEADLINE.contains(&route) {
        return next.run(request).await;
    }
    let deadline: Duration = shared.config.deadline();
    match timeout(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::deadline(shared.config.deadline_ms).into_response(),
    }
}
