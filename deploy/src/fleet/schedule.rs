//! In which order, how late and how often readings come in; pure.
//!
//! ```text
//!   half-hour k:  most readings at once
//!                 some withheld ──────────────▶ k + 3 … 24   late
//!                 some estimated ─────────────▶ k + 4 … 96   corrected, higher version
//!                 some sent again ────────────▶ k + 0 … 8    duplicate
//!                 a broken or conflicting record now and then: for quarantine
//! ```

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::model::{Channel, INTERVAL_S, Model};
use super::network::Network;
use super::oracle::{Kwh, Oracle};
use super::{FleetConfig, mix};

/// Half-hours in a day of history.
const INTERVALS_PER_DAY: u64 = 48;
const LATE_SHARE: f64 = 0.012;
const ESTIMATED_SHARE: f64 = 0.02;
const RESENT_SHARE: f64 = 0.005;
/// How often a half-hour has a broken record.
const BROKEN_SHARE: f64 = 0.12;

/// What happened so far, in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Records of any kind.
    pub(crate) records: u64,
    /// Readings withheld for hours.
    pub(crate) late: u64,
    /// Readings sent again unchanged.
    pub(crate) duplicates: u64,
    /// Estimates replaced by what was measured.
    pub(crate) corrections: u64,
    /// Records that are broken or contradict an earlier one.
    pub(crate) broken: u64,
}

/// The records of one half-hour, in the order they are sent.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// Whether history is behind, so that the batch waits for its moment.
    pub(crate) live: bool,
    /// The records, one JSON object each, without line ends.
    pub(crate) lines: Vec<String>,
}

/// One version of a reading.
#[derive(Clone, Copy, Debug)]
struct Version {
    meter: usize,
    channel: Channel,
    interval: u64,
    /// In thousandths of a kWh; absent when the meter could not be read.
    value: Option<i64>,
    quality: Quality,
    version: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quality {
    Actual,
    Estimated,
    Missing,
}

/// What waits for its half-hour.
#[derive(Clone, Debug)]
enum Pending {
    Late(Version),
    Corrected { old: Version, new: Version },
    Resent(Version),
}

/// The fleet and its clock.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    config: FleetConfig,
    model: Model,
    network: Network,
    oracle: Oracle,
    pending: BTreeMap<u64, Vec<Pending>>,
    /// A reading of this half-hour that was given out and is never corrected.
    settled: Option<Version>,
    next: u64,
    /// The first interval that waits for its moment.
    live_from: u64,
    counts: Counts,
}

impl Fleet {
    /// Creates a fleet that stands before its first half-hour.
    pub(crate) fn new(config: FleetConfig) -> Self {
        let network = Network::new(&config);
        Self {
            model: Model::new(&config),
            oracle: Oracle::new(network.transformers.clone()),
            network,
            live_from: u64::from(config.history_days) * INTERVALS_PER_DAY,
            config,
            pending: BTreeMap::new(),
            settled: None,
            next: 0,
            counts: Counts::default(),
        }
    }

    /// Returns the reference table of the application as CSV.
    pub(crate) fn network_csv(&self) -> String {
        let usage_points: Vec<String> =
            self.model.meters.iter().map(|meter| meter.usage_point.clone()).collect();
        self.network.csv(&usage_points)
    }

    /// Returns the totals of everything that [`Fleet::next_batch`] has given out.
    pub(crate) fn oracle(&self) -> &Oracle {
        &self.oracle
    }

    /// Returns what was given out so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the start of the next half-hour.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.model.start_of(self.next)
    }

    /// Sends everything up to a moment as fast as it is taken.
    pub(crate) fn hurry_beyond(&mut self, moment: DateTime<Utc>) {
        let passed = (moment - self.model.start_of(0)).num_seconds() / INTERVAL_S + 1;
        self.live_from = self.live_from.max(u64::try_from(passed).unwrap_or(0));
    }

    /// Returns the records of the next half-hour and moves the clock on.
    pub(crate) fn next_batch(&mut self) -> Batch {
        let interval = self.next;
        let mut rng = StdRng::seed_from_u64(mix(self.config.seed, &[6, interval]));
        let mut lines = Vec::with_capacity(self.model.meters.len() * 3 / 2);
        for pending in self.pending.remove(&interval).unwrap_or_default() {
            lines.push(self.deliver(pending));
        }
        for meter in 0..self.model.meters.len() {
            for channel in self.model.meters[meter].channels() {
                self.measure(&mut rng, meter, *channel, &mut lines);
            }
        }
        // Those that are to be sent again at once.
        for pending in self.pending.remove(&interval).unwrap_or_default() {
            lines.push(self.deliver(pending));
        }
        let settled = self.settled.take();
        if let Some(settled) = settled.filter(|_| rng.random_bool(BROKEN_SHARE)) {
            lines.push(self.broken(&settled, &mut rng));
            self.counts.broken += 1;
        }
        self.counts.records += lines.len() as u64;
        self.next += 1;
        Batch { live: interval >= self.live_from, lines }
    }

    fn measure(&mut self, rng: &mut StdRng, meter: usize, channel: Channel, lines: &mut Vec<String>) {
        let interval = self.next;
        let actual = Version {
            meter,
            channel,
            interval,
            value: Some(self.model.measured(meter, channel, interval)),
            quality: Quality::Actual,
            version: self.time(interval + 1),
        };
        let roll: f64 = rng.random();
        if roll < LATE_SHARE {
            self.later(interval + rng.random_range(3..=24), Pending::Late(actual));
            return;
        }
        let mut first = actual;
        if roll >= LATE_SHARE + ESTIMATED_SHARE {
            // Any of the fleet, not always the last one.
            if self.settled.is_none() || rng.random_bool(0.02) {
                self.settled = Some(actual);
            }
        } else {
            // One in ten could not be estimated either.
            (first.value, first.quality) = if rng.random_bool(0.1) {
                (None, Quality::Missing)
            } else {
                (Some(self.model.estimated(meter, channel, interval)), Quality::Estimated)
            };
            let due = interval + rng.random_range(4..=96);
            let new = Version { version: self.time(due), ..actual };
            self.later(due, Pending::Corrected { old: first, new });
        }
        lines.push(self.accept(None, first));
        if rng.random_bool(RESENT_SHARE) {
            self.later(interval + rng.random_range(0..=8), Pending::Resent(first));
        }
    }

    fn later(&mut self, due: u64, pending: Pending) {
        self.pending.entry(due).or_default().push(pending);
    }

    fn deliver(&mut self, pending: Pending) -> String {
        match pending {
            Pending::Late(version) => {
                self.counts.late += 1;
                self.accept(None, version)
            }
            Pending::Corrected { old, new } => {
                self.counts.corrections += 1;
                self.accept(Some(old.value), new)
            }
            // An old version sent again is a duplicate, or stale when it has
            // been corrected since: no total changes.
            Pending::Resent(version) => {
                self.counts.duplicates += 1;
                self.line(&version)
            }
        }
    }

    /// Accounts for a version that replaces `old` and writes it.
    fn accept(&mut self, old: Option<Option<i64>>, version: Version) -> String {
        let at = self.model.start_of(version.interval);
        let transformer = self.network.transformer_of(version.meter, at);
        self.oracle.put(transformer, version.channel, old, version.value);
        self.line(&version)
    }

    fn line(&self, version: &Version) -> String {
        let meter = &self.model.meters[version.meter];
        let (quality, source_quality, reason) = match version.quality {
            Quality::Actual => ("actual", "A", "null"),
            Quality::Estimated => ("estimated", "E52", "\"no contact with the meter\""),
            Quality::Missing => ("missing", "N", "\"no contact with the meter\""),
        };
        let value = version.value.map_or("null".to_owned(), |milli| Kwh(milli).to_string());
        format!(
            "{{\"usage_point\":\"{}\",\"channel\":\"{}\",\"start_utc\":\"{}\",\"duration_s\":{INTERVAL_S},\
             \"value\":{value},\"unit\":\"kWh\",\"quality\":\"{quality}\",\"source_quality\":\"{source_quality}\",\
             \"reason\":{reason},\"source_version\":{},\"meter\":\"{}\",\"received_at\":\"{}\"}}",
            meter.usage_point,
            version.channel.name(),
            rfc3339(self.model.start_of(version.interval)),
            version.version,
            meter.serial,
            rfc3339(self.now() + TimeDelta::seconds(INTERVAL_S)),
        )
    }

    /// Spoils a reading that was given out just now, so that it must end up in
    /// quarantine: the same version with another value, or not decodable.
    fn broken(&self, settled: &Version, rng: &mut StdRng) -> String {
        let spoilt = Version { value: settled.value.map(|milli| milli + 1000), ..*settled };
        let line = self.line(&spoilt);
        match rng.random_range(0..6) {
            0 => line.replace("\"value\":", "\"value\":\"about \",\"value_read\":"),
            1 => line.replace("\"start_utc\":\"", "\"start_utc\":\"approx. "),
            2 => line.replace("\"duration_s\":1800", "\"duration_s\":\"half an hour\""),
            _ => line,
        }
    }

    /// Returns the start of an interval in seconds since 1970, also the
    /// version of what is measured before it.
    fn time(&self, interval: u64) -> i64 {
        self.model.start_of(interval).timestamp()
    }
}

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
