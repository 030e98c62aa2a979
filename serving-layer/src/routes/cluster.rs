//! `/v1/cluster`: the members and partitions of the cluster that this node is in.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use crate::cluster::{Cluster, ClusterRefusal};
use crate::params::Params;
use crate::problem::Problem;
use crate::service::Shared;

pub(crate) async fn read(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Problem> {
    Params::read(&uri, &[])?;
    super::json(&cluster(&shared)?.describe())
}

/// Empties a node for maintenance.
pub(crate) async fn drain(
    State(shared): State<Arc<Shared>>,
    Path(node): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    set_draining(&shared, &node, &uri, true).await
}

/// Uses a node again.
pub(crate) async fn fill(
    State(shared): State<Arc<Shared>>,
    Path(node): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    set_draining(&shared, &node, &uri, false).await
}

/// Says who votes.
pub(crate) async fn voters(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Problem> {
    Params::read(&uri, &[])?;
    super::json(&cluster(&shared)?.voters().await)
}

/// The nodes that are to vote.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    voters: Vec<u16>,
    #[serde(default)]
    force: bool,
}

/// Changes who votes.
pub(crate) async fn change_voters(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    body: Bytes,
) -> Result<Response, Problem> {
    Params::read(&uri, &[])?;
    let cluster = cluster(&shared)?;
    let asked: Asked = serde_json::from_slice(&body).map_err(|error| impossible(error.to_string()))?;
    super::json(&cluster.change_voters(&asked.voters, asked.force).await.map_err(problem)?)
}

/// Breaks links for a drill.
pub(crate) async fn links(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    body: Bytes,
) -> Result<Response, Problem> {
    Params::read(&uri, &[])?;
    let links = serde_json::from_slice(&body).map_err(|error| impossible(error.to_string()))?;
    cluster(&shared)?.break_links(&links).map_err(problem)?;
    super::json(&json!({ "links": links }))
}

async fn set_draining(shared: &Shared, node: &str, uri: &Uri, draining: bool) -> Result<Response, Problem> {
    Params::read(uri, &[])?;
    let cluster = cluster(shared)?;
    let number = node.parse().map_err(|_| impossible(format!("'{node}' is no node's number")))?;
    cluster.drain(number, draining).await.map_err(problem)?;
    super::json(&json!({ "node": number, "draining": draining }))
}

fn cluster(shared: &Shared) -> Result<&Arc<dyn Cluster>, Problem> {
    shared.context.cluster.as_ref().ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "no-cluster", "This node is in no cluster")
            .detail("it runs alone, as sanso dev and sanso demo do")
            .hint("nodes of a cluster are started by sanso node")
    })
}

fn impossible(detail: String) -> Problem {
    problem(ClusterRefusal::Impossible(detail))
}

fn problem(refusal: ClusterRefusal) -> Problem {
    match refusal {
        ClusterRefusal::Impossible(detail) => {
            Problem::new(StatusCode::BAD_REQUEST, "cluster-refused", "The cluster does not do this")
                .detail(detail)
        }
        ClusterRefusal::Unavailable(detail) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "control-unavailable",
            "The cluster can't agree now",
        )
        .detail(detail)
        .hint("try again shortly")
        .retry_after_s(1),
        ClusterRefusal::NotHere(detail) => {
            Problem::new(StatusCode::NOT_FOUND, "no-drill", "This node takes part in no drill").detail(detail)
        }
    }
}
