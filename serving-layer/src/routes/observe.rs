//! What every request goes through: a span, a metric, a bound on how many run
//! at once, and a deadline.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::Histogram;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span};

use crate::metrics::REQUEST_SECONDS;
use crate::problem::Problem;
use crate::service::Shared;

/// Paths that must answer however busy the server is.
const ALWAYS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// Paths that keep their own time: a stream has no end, a body may be long, reads have
/// their caller's deadline, and new voters catch up within a bound of control's.
const OWN_DEADLINE: [&str; 5] =
    ["/v1/views/{view}", "/v1/views/{view}/stream", "/v1/query", "/v1/ingest/{source}", "/v1/cluster/voters"];

/// What requests go through, and what those of one endpoint share.
#[derive(Clone)]
pub(crate) struct Observer {
    shared: Arc<Shared>,
    endpoints: Arc<BTreeMap<(&'static str, &'static str), Observed>>,
}

/// What the requests of one endpoint share: they all have the same fields.
struct Observed {
    span: Span,
    /// Of those that succeeded, once there is one.
    seconds: OnceLock<Histogram>,
}

impl Observer {
    /// Creates an observer of some endpoints, each a path and a method, and whatever else is asked for.
    pub(crate) fn new(shared: Arc<Shared>, endpoints: impl Iterator<Item = (&'static str, Method)>) -> Self {
        let observed = |(path, method): (&'static str, Method)| {
            let method = known(&method);
            ((path, method), Observed { span: span(path, method), seconds: OnceLock::new() })
        };
        Self { shared, endpoints: Arc::new(endpoints.map(observed).collect()) }
    }
}

fn span(route: &str, method: &'static str) -> Span {
    tracing::info_span!("request", method, route)
}

fn seconds(route: &str, method: &'static str, status: StatusCode) -> Histogram {
    metrics::histogram!(
        REQUEST_SECONDS,
        "route" => route.to_owned(),
        "method" => method,
        "status" => status.as_str().to_owned()
    )
}

pub(crate) async fn observe(State(observer): State<Observer>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let route = path.as_ref().map_or("other", MatchedPath::as_str);
    let method = known(request.method());
    let observed = observer.endpoints.get(&(route, method));
    let span = observed.map_or_else(|| span(route, method), |observed| observed.span.clone());
    let start = Instant::now();
    let response = bounded(&observer.shared, route, request, next).instrument(span.clone()).await;
    let elapsed = start.elapsed();
    let status = response.status();
    span.in_scope(|| {
        tracing::debug!(status = status.as_u16(), elapsed_us = elapsed.as_micros() as u64, "answered");
    });
    match observed.filter(|_| status == StatusCode::OK) {
        Some(observed) => {
            observed.seconds.get_or_init(|| seconds(route, method, status)).record(elapsed.as_secs_f64());
        }
        None => seconds(route, method, status).record(elapsed.as_secs_f64()),
    }
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
    if !path.contains('%') {
        return true;
    }
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
