//! Shows this layer's bounds on the board of limits.

use std::sync::Arc;

use sanso_catalog::{Limit, Limits, Registered};
use tokio::sync::Semaphore;

use crate::service::Shared;

/// Registers what the requests of this layer may take.
pub(crate) fn register(limits: &Limits, shared: &Shared) -> Vec<Registered> {
    let config = &shared.config;
    let permits = |name, unit, setting, then, max: usize, semaphore: &Arc<Semaphore>| {
        let semaphore = Arc::clone(semaphore);
        let limit = Limit { name, unit, max: max as u64, setting, then };
        limits.register(limit, move || max.saturating_sub(semaphore.available_permits()) as u64)
    };
    let memory = Arc::clone(&shared.query_memory);
    let store = shared.context.store.clone();
    vec![
        permits(
            "serving.connections",
            "connections",
            "serving.connections_max",
            "further ones wait to be accepted",
            config.connections_max,
            &shared.connections,
        ),
        permits(
            "serving.requests",
            "requests",
            "serving.requests_max",
            "503, Retry-After",
            config.requests_max,
            &shared.requests,
        ),
        permits(
            "serving.streams",
            "streams",
            "serving.streams_max",
            "503, Retry-After",
            config.streams_max,
            &shared.streams,
        ),
        permits(
            "serving.queries",
            "queries",
            "serving.queries_max",
            "further ones wait for their turn",
            config.queries_max,
            &shared.queries,
        ),
        permits(
            "serving.queries_waiting",
            "queries",
            "serving.queries_waiting_max",
            "503, Retry-After",
            config.queries_waiting_max,
            &shared.queries_waiting,
        ),
        permits(
            "serving.scans",
            "reads",
            "serving.scans_max",
            "further ones wait for their turn",
            config.scans_max,
            &shared.scans,
        ),
        limits.register(
            Limit {
                name: "serving.queries_memory",
                unit: "bytes",
                max: config.queries_memory_bytes_max as u64,
                setting: "serving.queries_memory_bytes_max",
                then: "the query that asks for more is refused: 503, Retry-After",
            },
            move || memory.used() as u64,
        ),
        limits.register(
            Limit {
                name: "views.groups",
                unit: "groups",
                max: config.view_groups_max,
                setting: "serving.view_groups_max",
                then: "ingestion is refused: 503, Retry-After",
            },
            move || store.groups(),
        ),
    ]
}
