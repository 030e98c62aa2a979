//! `GET /v1/limits`: every bound of this process with its current use.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde_json::json;

use crate::params::Params;
use crate::problem::Problem;
use crate::service::Shared;

pub(crate) async fn read(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Problem> {
    Params::read(&uri, &[])?;
    super::json(&json!({ "limits": shared.context.board.limits().read() }))
}
