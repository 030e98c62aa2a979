//! Shows this layer's bounds on the board of limits.

use std::sync::Arc;

use sanso_catalog::{Limit, Limits, Registered};

use crate::service::Shared;

/// The bound on the groups of all view partitions that a node holds.
pub(crate) const VIEWS_GROUPS: &str = "views.groups";

const REFUSED: &str = "503, Retry-After";
const WAITS: &str = "further ones wait for their turn";

/// Registers what the requests of this layer may take.
pub(crate) fn register(limits: &Limits, shared: &Shared) -> Vec<Registered> {
    let config = &shared.config;
    let of = |name, unit, max: usize, setting, then| Limit { name, unit, max: max as u64, setting, then };
    let permits = [
        (
            of(
                "serving.connections",
                "connections",
                config.connections_max,
                "serving.connections_max",
                "further ones wait to be accepted",
            ),
            &shared.connections,
        ),
        (
            of("serving.requests", "requests", config.requests_max, "serving.requests_max", REFUSED),
            &shared.requests,
        ),
        (
            of("serving.streams", "streams", config.streams_max, "serving.streams_max", REFUSED),
            &shared.streams,
        ),
        (of("serving.queries", "queries", config.queries_max, "serving.queries_max", WAITS), &shared.queries),
        (
            of(
                "serving.queries_waiting",
                "queries",
                config.queries_waiting_max,
                "serving.queries_waiting_max",
                REFUSED,
            ),
            &shared.queries_waiting,
        ),
        (of("serving.scans", "reads", config.scans_max, "serving.scans_max", WAITS), &shared.scans),
    ];
    let permits = permits.into_iter().map(|(limit, semaphore)| {
        let semaphore = Arc::clone(semaphore);
        limits.register(limit, move || limit.max.saturating_sub(semaphore.available_permits() as u64))
    });
    permits.chain(memory(limits, shared)).collect()
}

/// Registers what holds memory for longer than a request.
fn memory(limits: &Limits, shared: &Shared) -> [Registered; 2] {
    let (queries, store) = (Arc::clone(&shared.query_memory), shared.context.store.clone());
    let queries_memory = Limit {
        name: "serving.queries_memory",
        unit: "bytes",
        max: shared.config.queries_memory_bytes_max as u64,
        setting: "serving.queries_memory_bytes_max",
        then: "the query that asks for more is refused: 503, Retry-After",
    };
    let groups = Limit {
        name: VIEWS_GROUPS,
        unit: "groups",
        max: shared.config.view_groups_max,
        setting: "serving.view_groups_max",
        then: "ingestion is refused: 503, Retry-After",
    };
    [
        limits.register(queries_memory, move || queries.used() as u64),
        limits.register(groups, move || store.groups()),
    ]
}
