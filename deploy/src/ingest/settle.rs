//! Waits until what was acknowledged is judged and in every view.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::http::{Client, HttpError};

/// How often progress is asked for.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// For each log partition the first offset after what was acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Positions(BTreeMap<String, u64>);

impl Positions {
    /// Takes in the `positions` of an ingest answer.
    pub(crate) fn advance(&mut self, positions: &Value) {
        for (partition, position) in positions.as_object().into_iter().flatten() {
            let mine = self.0.entry(partition.clone()).or_default();
            *mine = (*mine).max(position.as_u64().unwrap_or(0));
        }
    }

    /// Says whether the node's status shows that the source's records up to
    /// these positions are judged, and applied by every view partition.
    fn reached_by(&self, status: &Value, source: &str) -> bool {
        let of_source = |field: &str| {
            let all = status[field].as_array().map(Vec::as_slice).unwrap_or_default();
            let name = if field == "views" { "source" } else { "name" };
            all.iter().filter(move |one| one[name] == source)
        };
        let judged: BTreeMap<String, u64> = of_source("sources")
            .flat_map(partitions)
            .map(|progress| (progress["partition"].to_string(), progress["position"].as_u64().unwrap_or(0)))
            .collect();
        let mut views = of_source("views").filter(|view| view["serving"] == true).flat_map(partitions);
        let reached = |at: Option<u64>, wanted: &u64| at.is_some_and(|at| at >= *wanted);
        self.0.iter().all(|(partition, wanted)| reached(judged.get(partition).copied(), wanted))
            && views.all(|view| {
                let applied = |partition: &String| view["applied"][partition.parse::<usize>().ok()?].as_u64();
                self.0.iter().all(|(partition, wanted)| reached(applied(partition), wanted))
            })
    }
}

/// Iterates the log partitions in a source's status, or a view's partitions.
pub(crate) fn partitions(source: &Value) -> impl Iterator<Item = &Value> {
    source["partitions"].as_array().into_iter().flatten()
}

/// Waits until a source's records up to `positions` are judged and in every
/// view that serves. Returns false when they are not within `timeout`.
pub(crate) async fn wait(
    client: &Client,
    source: &str,
    positions: &Positions,
    timeout: Duration,
) -> Result<bool, HttpError> {
    let deadline = Instant::now() + timeout;
    loop {
        match client.get(&["v1", "status"]).await {
            Ok(status) if positions.reached_by(&status, source) => return Ok(true),
            Err(error) if !error.is_transient() => return Err(error),
            Ok(_) | Err(_) if Instant::now() >= deadline => return Ok(false),
            Ok(_) | Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn positions_are_reached_when_judged_and_in_every_view() {
        let mut positions = Positions::default();
        positions.advance(&json!({ "0": 5, "2": 9 }));
        positions.advance(&json!({ "0": 3, "2": 10 }));
        let status = |judged: [u64; 2], applied: [u64; 2]| {
            let partitions =
                json!([{ "partition": 0, "position": judged[0] }, { "partition": 2, "position": judged[1] }]);
            let done = json!({ "partition": 0, "applied": [99, 0, 99] });
            let view = json!({ "partition": 1, "applied": [applied[0], 0, applied[1]] });
            json!({
                "sources": [{ "name": "readings", "partitions": partitions }, { "name": "other", "partitions": [] }],
                "views": [{ "source": "readings", "serving": true, "partitions": [done, view] },
                          { "source": "readings", "serving": false, "partitions": [{ "applied": [0, 0, 0] }] }],
            })
        };
        for (judged, applied, reached) in [
            ([5, 10], [5, 10], true),
            ([6, 11], [7, 12], true),
            ([4, 10], [5, 10], false),
            ([5, 9], [5, 10], false),
            ([5, 10], [4, 10], false),
            ([5, 10], [5, 9], false),
        ] {
            let answer = positions.reached_by(&status(judged, applied), "readings");
            assert_eq!(answer, reached, "{judged:?} {applied:?}");
        }
        assert!(!positions.reached_by(&json!({}), "readings"));
        assert!(Positions::default().reached_by(&json!({}), "readings"));
    }
}
