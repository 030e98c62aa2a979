//! What every request goes through: a span, a metric, a bound on how many run
//! at once, and a deadline.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::metrics::REQUEST_SECONDS;
use crate::problem::Problem;
use crate::service::Shared;

/// Paths that must answer however busy the server is.
const ALWAYS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// Paths that keep their own time: a stream has no end, a body may be long, reads have
/// their caller's deadline, and new voters catch up within a bound of control's.
const OWN_DEADLINE: [&str; 5] =
    ["/v1/views/{view}", "/v1/views/{view}/stream", "/v1/query", "/v1/ingest/{source}", "/v1/cluster/voters"];

pub(crate) async fn observe(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let method = known(request.method());
    let span = tracing::info_span!("request", method, route);
    let start = Instant::now();
    let response = bounded(&shared, &route, request, next).instrument(span.clone()).await;
    let elapsed = start.elapsed();
    let status = response.status().as_u16();
    span.in_scope(|| tracing::debug!(status, elapsed_us = elapsed.as_micros() as u64, "answered"));
    metrics::histogram!(
        REQUEST_SECONDS,
        "route" => route,
        "method" => method,
        "status" => status.to_string()
    )
    .record(elapsed.as_secs_f64());
    response
}

/// Names a method in metrics, where each name takes memory for ever.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

async fn bounded(shared: &Shared, route: &str, request: Request, next: Next) -> Response {
    if !is_text(request.uri().path()) {
        return not_text().into_response();
    }
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

/// Says whether a path is UTF-8 once its percent-encoding is undone.
fn is_text(path: &str) -> bool {
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            // Not an encoded byte: the router takes the sign as it is.
            None => bytes.extend_from_slice(part.as_bytes()),
        }
    }
    std::str::from_utf8(&bytes).is_ok()
}

fn not_text() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-path", "The path is not text")
        .detail("the path is not UTF-8 once its percent-encoding is undone")
        .hint("write names in UTF-8, percent-encoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_text_however_they_are_encoded() {
        for path in ["/v1/views/load", "/%C3%A9", "/é", "/100%", "/%zz", "/%é", ""] {
            assert!(is_text(path), "{path}");
        }
        for path in ["/%FF", "/%C3", "/%c3x%A9"] {
            assert!(!is_text(path), "{path}");
        }
    }
}
