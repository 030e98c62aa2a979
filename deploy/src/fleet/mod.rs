//! A simulated fleet of meters: the demo's data, its network and its oracle.
//!
//! ```text
//!   model ──▶ schedule ──────────────▶ client ──▶ POST /v1/ingest/{source}
//!   (pure)    late, resent, corrected,    │
//!             broken; pure                └─▶ oracle: what the views must say
//! ```
//!
//! Everything but the client is a pure function of the seed: the same
//! configuration gives the same lines in the same order, so a fleet that
//! starts again sends nothing but duplicates until it is back where it was.

mod client;
mod model;
mod network;
mod oracle;
mod schedule;

use std::time::Duration;

use chrono::{DateTime, Utc};

pub(crate) use client::{Check, Report, run};
pub(crate) use schedule::Fleet;

/// What a fleet is made of, and how fast its time runs.
#[derive(Clone, Debug)]
pub(crate) struct FleetConfig {
    /// Decides everything that looks random.
    pub(crate) seed: u64,
    /// The number of meters.
    pub(crate) meters: usize,
    /// The start of the first half-hour; a local midnight makes whole days.
    pub(crate) start: DateTime<Utc>,
    /// How many days are sent as fast as they are taken, before time runs at
    /// its own pace.
    pub(crate) history_days: u32,
    /// How long a simulated half-hour lasts once history is sent.
    pub(crate) half_hour: Duration,
    /// The source the readings go to.
    pub(crate) source: String,
}

impl Default for FleetConfig {
    /// Makes 300 meters and two weeks of history around Sydney, over the
    /// night the clocks go forward (2024-10-06), then a half-hour a second.
    fn default() -> Self {
        let start = DateTime::from_timestamp(1_727_013_600, 0).expect("2024-09-22T14:00:00Z is an instant");
        Self {
            seed: 3,
            meters: 300,
            start,
            history_days: 14,
            half_hour: Duration::from_secs(1),
            source: "readings".into(),
        }
    }
}

/// Mixes numbers into a seed (SplitMix64), so that each part of the model has
/// its own random numbers whatever the order it is asked in.
fn mix(seed: u64, parts: &[u64]) -> u64 {
    parts.iter().fold(seed, |state, part| {
        let mut z = (state ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests;
