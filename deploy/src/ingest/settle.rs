//! Waits until the speed layer has processed what was acknowledged.

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

    /// Says whether a source's status shows progress up to these positions.
    fn reached_by(&self, source: &Value) -> bool {
        let progress: BTreeMap<String, u64> = partitions(source)
            .map(|status| (status["partition"].to_string(), status["position"].as_u64().unwrap_or(0)))
            .collect();
        self.0.iter().all(|(partition, wanted)| progress.get(partition).is_some_and(|at| at >= wanted))
    }
}

/// Iterates the log partitions in a source's status.
pub(crate) fn partitions(source: &Value) -> impl Iterator<Item = &Value> {
    source["partitions"].as_array().into_iter().flatten()
}

/// Waits until a source's records up to `positions` are processed. Returns
/// false when they are not within `timeout`.
pub(crate) async fn wait(
    client: &Client,
    source: &str,
    positions: &Positions,
    timeout: Duration,
) -> Result<bool, HttpError> {
    let deadline = Instant::now() + timeout;
    loop {
        match client.get(&["v1", "sources", source]).await {
            Ok(status) if positions.reached_by(&status) => return Ok(true),
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
    fn positions_are_reached_partition_by_partition() {
        let mut positions = Positions::default();
        positions.advance(&json!({ "0": 5, "2": 9 }));
        positions.advance(&json!({ "0": 3, "2": 10 }));
        let status = |zero: u64, two: u64| json!({ "partitions": [{ "partition": 0, "position": zero }, { "partition": 2, "position": two }] });
        assert!(!positions.reached_by(&status(5, 9)));
        assert!(!positions.reached_by(&status(4, 10)));
        assert!(positions.reached_by(&status(5, 10)));
        assert!(!positions.reached_by(&json!({})));
        assert!(Positions::default().reached_by(&json!({})));
    }
}
