//! The watermark of one log partition: a pure function of the log's prefix.

use serde::{Deserialize, Serialize};

/// How far event time has come in one log partition.
///
/// An event time beyond its append time plus `ahead_us_max` does not advance
/// it, so one reading from the far future poisons nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    max_event_us: Option<i64>,
    lateness_us: i64,
    ahead_us_max: i64,
}

impl Watermark {
    /// Creates a watermark that has seen nothing.
    ///
    /// `lateness_us`: how far behind the newest event others may follow.
    /// `ahead_us_max`: how far an event may lie after its append time.
    pub fn new(lateness_us: i64, ahead_us_max: i64) -> Self {
        Self { max_event_us: None, lateness_us, ahead_us_max }
    }

    /// Resumes a watermark from [`Watermark::max_event_us`] of an earlier one.
    #[must_use]
    pub fn resume(mut self, max_event_us: Option<i64>) -> Self {
        self.max_event_us = max_event_us;
        self
    }

    /// Observes one event. Times in microseconds since 1970 (UTC).
    pub fn observe(&mut self, event_us: i64, append_us: i64) {
        if event_us <= append_us.saturating_add(self.ahead_us_max) {
            self.max_event_us = self.max_event_us.max(Some(event_us));
        }
    }

    /// Returns the largest event time observed.
    pub fn max_event_us(&self) -> Option<i64> {
        self.max_event_us
    }

    /// Returns the watermark: no event before it is expected. None before the first event.
    pub fn value(&self) -> Option<i64> {
        self.max_event_us.map(|t| t.saturating_sub(self.lateness_us))
    }
}
