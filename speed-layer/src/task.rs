//! Runs the worker of one log partition, on a thread of its own: RocksDB
//! blocks, and a log partition is read by exactly one thread.
//!
//! A failed call ends the session; the next one starts from the index and the
//! view partitions' progress, as after a crash.

use std::collections::BTreeSet;
use std::time::Duration;

use sanso_catalog::{CatalogHandle, StatusBoard};
use sanso_core::{PartitionId, PartitionStore, ReadRequest, StoreError};
use sanso_state::{Fingerprint, LogPartition, Offset};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::SpeedConfig;
use crate::error::{Remedy, Result};
use crate::metrics::WorkerMetrics;
use crate::newest::NewestIndex;
use crate::open_index::IndexPlace;
use crate::quarantine::SourceQuarantine;
use crate::session::Session;

/// How far a worker has come, for those who wait for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WorkerStatus {
    /// Below it everything is applied by every target.
    pub(crate) acknowledged: Offset,
    /// The view versions fed, each with all its view partitions.
    pub(crate) views: BTreeSet<Fingerprint>,
    /// Whether the index was held against the log.
    pub(crate) checked: bool,
    /// Why the worker stopped for good.
    pub(crate) stopped: Option<String>,
}

/// What one worker thread needs.
pub(crate) struct WorkerTask {
    pub(crate) config: SpeedConfig,
    pub(crate) place: IndexPlace,
    pub(crate) catalog: CatalogHandle,
    pub(crate) store: PartitionStore,
    pub(crate) board: StatusBoard,
    pub(crate) quarantine: SourceQuarantine,
    pub(crate) status: watch::Sender<WorkerStatus>,
    pub(crate) stop: CancellationToken,
    pub(crate) runtime: Handle,
}

impl WorkerTask {
    /// Runs until stopped, or until the log partition is no longer this process's and another feeds it;
    /// blocks the thread.
    pub(crate) fn run(self) {
        let span = tracing::info_span!("worker", source = self.source(), partition = self.partition().0);
        let _entered = span.enter();
        let mut rebuild = false;
        while !self.stop.is_cancelled() {
            let Err(error) = self.session(rebuild) else { return };
            rebuild = false;
            if error.remedy() != Remedy::Stop {
                // What it waits for may take long, or the index is made again from the log itself.
                self.checked();
            }
            self.board.post_trouble(self.source(), self.partition(), error.chain());
            match error.remedy() {
                Remedy::Retry => tracing::warn!(error = error.chain(), "try again"),
                Remedy::Rebuild => {
                    tracing::warn!(error = error.chain(), "rebuild the index");
                    rebuild = true;
                }
                Remedy::Stop => {
                    tracing::error!(error = error.chain(), "stopped: a person must act");
                    self.board.post_stopped(self.source(), self.partition(), error.chain());
                    self.status.send_modify(|status| status.stopped = Some(error.chain()));
                    return;
                }
            }
            let pause = Duration::from_millis(self.config.retry_ms);
            self.runtime.block_on(async {
                let _ = tokio::time::timeout(pause, self.stop.cancelled()).await;
            });
        }
    }

    pub(crate) fn source(&self) -> &str {
        &self.place.source.name
    }

    pub(crate) fn partition(&self) -> LogPartition {
        self.place.partition
    }

    /// Tells those who wait for it that the index fits the log.
    fn checked(&self) {
        self.status.send_if_modified(|status| !std::mem::replace(&mut status.checked, true));
    }

    fn session(&self, rebuild: bool) -> Result<()> {
        if self.catalog.current().share(self.source(), self.partition()).is_none() {
            return Ok(());
        }
        let rebuild = rebuild || !self.quarantine.has_begun(self.partition())?;
        let known = if rebuild { None } else { self.runtime.block_on(self.place.open())? };
        self.checked();
        let (index, built) = match known {
            Some(index) => (index, false),
            None => {
                let base = self.base_cut()?.unwrap_or(Offset::MAX);
                (self.runtime.block_on(self.place.build(base))?, true)
            }
        };
        if built {
            self.quarantine.begin(self.partition())?;
        }
        let metrics = WorkerMetrics::new(self.source(), self.partition(), index.counts());
        if built && index.position() > 0 {
            tracing::info!(floor = index.floor(), "built the index of newest versions");
            metrics.rebuilt.increment(1);
        }
        Session::new(self, index, metrics).run()
    }

    /// Returns the lowest base cut of the live view partitions of the source, none where there are none.
    pub(crate) fn base_cut(&self) -> Result<Option<Offset>, StoreError> {
        let views = self.catalog.current().live_of(self.source());
        let mut least = None;
        for id in views.iter().flat_map(|view| partitions_of(view.fingerprint, view.partitions)) {
            let cut = match self.progress(id) {
                Ok(progress) => progress.cut.at(self.partition()),
                Err(StoreError::NotLive(_)) => continue,
                Err(unreachable) => return Err(unreachable),
            };
            least = Some(least.map_or(cut, |least: Offset| least.min(cut)));
        }
        Ok(least)
    }

    pub(crate) fn progress(&self, id: PartitionId) -> Result<sanso_core::Progress, StoreError> {
        let reply = self.runtime.block_on(self.store.read(id, &ReadRequest::Progress))?;
        Ok(reply.progress)
    }
}

pub(crate) fn partitions_of(view: Fingerprint, partitions: u32) -> impl Iterator<Item = PartitionId> {
    (0..partitions).map(move |index| PartitionId { view, index })
}
