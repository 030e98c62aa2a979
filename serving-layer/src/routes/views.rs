//! `GET /v1/views`: which views there are.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde_json::{Value, json};

use sanso_view::{View, Window};

use crate::finish::window_column;
use crate::params::Params;
use crate::problem::Problem;
use crate::render::columns;
use crate::service::Shared;

pub(crate) async fn list(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Problem> {
    Params::read(&uri, &[])?;
    let catalog = shared.context.catalog.current();
    let views: Vec<Value> = catalog.serving_views().map(|view| describe(view)).collect();
    super::json(&json!({ "views": views }))
}

fn describe(view: &View) -> Value {
    let key = |(name, value_type): &(String, sanso_state::ValueType)| json!({ "name": name, "type": value_type.to_string() });
    json!({
        "name": view.name,
        "version": view.fingerprint.to_string(),
        "source": view.source.name,
        "output_topic": view.output_topic,
        "columns": columns(&view.output_schema()),
        "key": view.key_columns.iter().map(key).collect::<Vec<_>>(),
        "window": window(view),
        "partitions": view.partitions,
    })
}

fn window(view: &View) -> Value {
    let (kind, size_us, slide_us, unit, zone) = match &view.window {
        Window::None => ("none", None, None, None, None),
        Window::Fixed { size_us, slide_us, .. } => {
            let kind = if size_us == slide_us { "tumbling" } else { "sliding" };
            (kind, Some(*size_us), Some(*slide_us), None, None)
        }
        Window::Calendar { unit, zone } => {
            ("calendar", None, None, Some(format!("{unit:?}").to_lowercase()), Some(zone.name()))
        }
    };
    json!({
        "kind": kind,
        "text": view.window.to_string(),
        "size_ms": size_us.map(|us| us / 1000),
        "slide_ms": slide_us.map(|us| us / 1000),
        "unit": unit,
        "zone": zone,
        "column": window_column(view),
    })
}
