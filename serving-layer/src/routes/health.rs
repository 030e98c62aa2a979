//! `GET /healthz` and `GET /readyz`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use crate::problem::Problem;
use crate::service::Shared;

/// The process is alive and answers.
pub(crate) async fn alive() -> Result<Response, Problem> {
    super::json(&json!({ "status": "alive" }))
}

/// All serving views are live, every speed worker has caught up once, and none stopped for good.
pub(crate) async fn ready(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    if *shared.closing.borrow() {
        return Err(not_ready(vec!["the server is stopping".to_owned()]));
    }
    let missing = shared.readiness.check(&shared.context).await;
    if missing.is_empty() { super::json(&json!({ "status": "ready" })) } else { Err(not_ready(missing)) }
}

fn not_ready(missing: Vec<String>) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready yet")
        .detail(missing.join("; "))
        .hint("wait: it becomes ready by itself, except for what stopped for good: that needs a person")
        .with("missing", missing)
        .retry_after_s(1)
}
