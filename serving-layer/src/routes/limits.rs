//! `GET /v1/limits`: every bound of this process with its current use, and of the other nodes' of its cluster.

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
    let own = shared.context.board.limits().read();
    if !shared.nodes.are_many() {
        return super::json(&json!({ "limits": own }));
    }
    let nodes = shared.nodes.limits().await.into_iter().map(|(node, limits)| match limits {
        Ok(limits) => json!({ "node": node, "answers": true, "limits": limits }),
        Err(error) => json!({ "node": node, "answers": false, "error": error }),
    });
    super::json(&json!({ "limits": own, "node": shared.nodes.me(), "nodes": nodes.collect::<Vec<_>>() }))
}
