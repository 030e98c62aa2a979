//! Shows this layer's bounds on the board of limits.

use sanso_catalog::{Limit, LimitGauge, Limits, Registered};

use crate::config::SpeedConfig;
use crate::newest::NewestIndex;
use crate::rocks::RocksShare;
use crate::worker::Worker;

/// Registers what all workers share.
pub(crate) fn register(limits: &Limits, config: &SpeedConfig, share: &RocksShare) -> Vec<Registered> {
    let (cache, writes) = (share.clone(), share.clone());
    vec![
        limits.register(
            Limit {
                name: "speed.index_cache",
                unit: "bytes",
                max: config.index_cache_bytes_max as u64,
                setting: "speed.index_cache_bytes_max",
                then: "the oldest blocks make room",
            },
            move || cache.cached_bytes() as u64,
        ),
        limits.register(
            Limit {
                name: "speed.index_writes",
                unit: "bytes",
                max: config.index_write_bytes_max as u64,
                setting: "speed.index_write_bytes_max",
                then: "the oldest is flushed to disk",
            },
            move || writes.unflushed_bytes() as u64,
        ),
    ]
}

/// The bound of one worker.
#[derive(Debug)]
pub(crate) struct WorkerLimits {
    waiting: LimitGauge,
}

impl WorkerLimits {
    /// Registers it for as long as this lives.
    pub(crate) fn new(limits: &Limits, config: &SpeedConfig) -> Self {
        Self {
            waiting: limits.gauge(Limit {
                name: "speed.deltas_waiting",
                unit: "deltas",
                max: config.queue_max.max(1) as u64,
                setting: "speed.queue_max",
                then: "the view partition is caught up by reading the log again",
            }),
        }
    }

    /// Tells the current use: of the fullest queue.
    pub(crate) fn tell<I: NewestIndex>(&self, worker: &Worker<I>) {
        let waiting = worker.targets().into_iter().map(|id| worker.outgoing(id).count()).max();
        self.waiting.set(waiting.unwrap_or(0) as u64);
    }
}
