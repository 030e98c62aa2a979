//! The routes: one file for each endpoint, and what all of them go through.

mod afar;
mod body;
mod cluster;
mod console;
mod datasets;
mod health;
pub(crate) mod ingest;
mod ingest_lines;
mod jobs;
mod limits;
mod metrics;
mod observe;
mod openapi;
pub(crate) mod options;
mod quarantine;
mod query;
mod reply;
mod sources;
mod status;
mod stream;
pub(crate) mod view;
mod views;

use std::sync::Arc;

use axum::Router;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde::Serialize;
use tower_http::compression::CompressionLayer;

use crate::problem::Problem;
use crate::service::Shared;

/// One method of one path.
struct Endpoint {
    method: Method,
    path: &'static str,
    route: MethodRouter<Arc<Shared>>,
}

impl Endpoint {
    fn get(path: &'static str, route: MethodRouter<Arc<Shared>>) -> Self {
        Self { method: Method::GET, path, route }
    }

    fn post(path: &'static str, route: MethodRouter<Arc<Shared>>) -> Self {
        Self { method: Method::POST, path, route }
    }
}

/// All endpoints. The router and the test of the OpenAPI document are made of this list.
fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/", get(console::index)),
        Endpoint::get("/v1/views", get(views::list)),
        Endpoint::get("/v1/views/{view}", get(view::read)),
        Endpoint::get("/v1/views/{view}/stream", get(stream::open)),
        Endpoint::post("/v1/query", post(query::run)),
        Endpoint::post("/v1/ingest/{source}", post(ingest::append)),
        Endpoint::get("/v1/sources", get(sources::list)),
        Endpoint::get("/v1/sources/{source}", get(sources::one)),
        Endpoint::get("/v1/datasets", get(datasets::list)),
        Endpoint::get("/v1/jobs", get(jobs::list)),
        Endpoint::get("/v1/status", get(status::read)),
        Endpoint::get("/v1/limits", get(limits::read)),
        Endpoint::get("/v1/cluster", get(cluster::read)),
        Endpoint::post("/v1/cluster/nodes/{node}/drain", post(cluster::drain)),
        Endpoint::post("/v1/cluster/nodes/{node}/fill", post(cluster::fill)),
        Endpoint::get("/v1/cluster/voters", get(cluster::voters)),
        Endpoint::post("/v1/cluster/voters", post(cluster::change_voters)),
        Endpoint::post("/v1/drill/links", post(cluster::links)),
        Endpoint::get("/v1/quarantine/{source}", get(quarantine::list)),
        Endpoint::post("/v1/quarantine/{source}/replay", post(quarantine::append)),
        Endpoint::get("/healthz", get(health::alive)),
        Endpoint::get("/readyz", get(health::ready)),
        Endpoint::get("/metrics", get(metrics::scrape)),
        Endpoint::get("/openapi.json", get(openapi::document)),
    ]
}

/// Returns the method and path of every endpoint.
pub fn paths() -> Vec<(String, &'static str)> {
    endpoints().iter().map(|endpoint| (endpoint.method.to_string(), endpoint.path)).collect()
}

/// Builds the router.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let observed = endpoints().into_iter().map(|endpoint| (endpoint.path, endpoint.method));
    let observer = observe::Observer::new(Arc::clone(&shared), observed);
    let router = endpoints()
        .into_iter()
        .fold(Router::new(), |router, endpoint| router.route(endpoint.path, endpoint.route));
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::middleware::from_fn_with_state(observer, observe::observe))
        .layer(CompressionLayer::new())
        .with_state(shared)
}

async fn no_such_path(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no-such-path", "There is nothing here")
        .detail(format!("there is no '{}'", crate::params::shown(uri.path())))
        .hint("GET /openapi.json lists what there is")
}

async fn wrong_method(
    State(_): State<Arc<Shared>>,
    method: Method,
    OriginalUri(uri): OriginalUri,
) -> Problem {
    let path = crate::params::shown(uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", "Another method is needed here")
        .detail(format!("'{path}' does not take {method}"))
        .hint("GET /openapi.json lists what there is")
}

/// Answers with a JSON document.
fn json(value: &impl Serialize) -> Result<Response, Problem> {
    json_with_status(StatusCode::OK, value)
}

fn json_with_status(status: StatusCode, value: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value).map_err(|error| Problem::internal("write the answer", error))?;
    let content_type = HeaderValue::from_static("application/json");
    let mut response = (status, [(header::CONTENT_TYPE, content_type)], body).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
