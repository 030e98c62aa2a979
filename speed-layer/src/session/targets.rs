//! What a session and the view partitions that it feeds tell each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sanso_core::{PartitionId, StoreError};
use sanso_state::{Offset, Outcome};

use super::Session;
use super::under_way::Said;
use crate::late_merge::Answer;
use crate::worker::TargetStart;

/// How long a view partition that was asked where it stands is waited for before the others go on without it: what is
/// read meanwhile has to be read again for it.
const ASKED_PATIENCE: Duration = Duration::from_millis(500);

impl Session<'_> {
    /// Asks the view partitions of which it is not known where they stand, and takes them as targets.
    pub(super) fn ask(&mut self) {
        let every = Duration::from_millis(self.task.config.flush_ms);
        if self.all_live() || self.last_asked.is_some_and(|asked| asked.elapsed() < every) {
            return;
        }
        self.last_asked = Some(Instant::now());
        for id in self.wanted.keys().filter(|id| !self.live.contains_key(id)) {
            if !self.under_way.has(*id) {
                self.under_way.ask(*id, self.task.partition());
            }
        }
        self.hear(ASKED_PATIENCE);
    }

    /// Says whether it is known of all view partitions to feed where they stand.
    pub(super) fn all_live(&self) -> bool {
        self.live.len() == self.wanted.len()
    }

    /// Sends all there is, and waits until it has been answered.
    pub(super) fn send_all(&mut self) {
        self.worker.flush();
        self.unflushed = 0;
        self.send(Duration::MAX);
    }

    /// Sends the closed deltas: each target's one after the other, those of all targets at once.
    pub(super) fn send(&mut self, patience: Duration) {
        let rewound = self.worker.rewound();
        self.worker.targets().into_iter().for_each(|id| self.send_next(id));
        self.hear(patience);
        self.metrics.rewound.increment(self.worker.rewound() - rewound);
    }

    /// Sends a target the delta that it waits for.
    fn send_next(&mut self, id: PartitionId) {
        if !self.under_way.has(id)
            && let Some(delta) = self.worker.outgoing(id).next()
        {
            self.under_way.submit(id, delta.clone());
        }
    }

    /// Takes the answers that there are, and waits for those that come in time.
    fn hear(&mut self, patience: Duration) {
        loop {
            // Reading on for nobody would fill all queues.
            let patience = if self.all_busy() { Duration::MAX } else { patience };
            let Some((id, said)) = self.under_way.next(patience) else { return };
            match said {
                Said::Applied(applied) => self.stands_at(id, applied),
                Said::Outcome(outcome) => self.answered(id, outcome),
            }
            self.send_next(id);
        }
    }

    fn all_busy(&self) -> bool {
        !self.live.is_empty() && self.live.keys().all(|id| self.under_way.has(*id))
    }

    /// Takes a view partition as a target, if it is to be one still.
    fn stands_at(&mut self, id: PartitionId, applied: Result<Offset, StoreError>) {
        // One that can't tell is asked again.
        let (Some(view), Ok(applied)) = (self.wanted.get(&id), applied) else { return };
        self.live.insert(id, TargetStart { view: Arc::clone(view), index: id.index, applied });
        self.worker.targets_changed(self.live.values().cloned().collect());
    }

    /// Takes the answer of a target.
    fn answered(&mut self, id: PartitionId, outcome: Result<Outcome, StoreError>) {
        let Ok(outcome) = outcome else { return self.drop_target(id) };
        match self.worker.on_outcome(id, &outcome) {
            Answer::Advanced => self.metrics.deltas.increment(1),
            Answer::Resumed(applied) => {
                tracing::debug!(target = %id, applied, "resumed");
                self.metrics.refused.increment(1);
                if self.turn.refused() != self.turn {
                    tracing::info!("another node feeds the log partition now");
                    self.turn = self.turn.refused();
                    // Whether there is anything left to do is seen there.
                    self.catalog.mark_changed();
                }
            }
            Answer::Ignored => {}
            Answer::Invalid(reason) => {
                tracing::error!(target = %id, reason, "a view partition will not take this worker's deltas");
                self.drop_target(id);
            }
        }
    }

    /// Drops a target until it has been asked where it stands.
    fn drop_target(&mut self, id: PartitionId) {
        self.live.remove(&id);
        self.worker.targets_changed(self.live.values().cloned().collect());
    }

    pub(super) fn heartbeat(&mut self) {
        let config = &self.task.config;
        let quiet = self.last_record.elapsed() >= Duration::from_millis(config.idle_after_ms);
        self.worker.set_idle(quiet);
        if self.last_heartbeat.elapsed() < Duration::from_millis(config.heartbeat_ms) {
            return;
        }
        self.last_heartbeat = Instant::now();
        for id in self.worker.targets() {
            if !self.under_way.has(id)
                && let Some(delta) = self.worker.heartbeat(id)
            {
                self.under_way.submit(id, delta);
            }
        }
    }
}
