//! Where each meter hangs: substations, feeders, transformers, and the meters
//! that were moved from one transformer to another.

use std::fmt::Write as _;

use chrono::{DateTime, Days, SecondsFormat, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{FleetConfig, mix};

/// Substations by name and the code their feeders carry.
const SUBSTATIONS: [(&str, &str); 3] =
    [("Wattle Park", "WAT"), ("Banksia Hill", "BAN"), ("Kurrajong", "KUR")];
/// Feeders of a substation.
const FEEDERS: usize = 3;
/// How many meters hang on a transformer.
const METERS_PER_TRANSFORMER: usize = 8;
/// One meter in so many moves to another transformer.
const MOVED_ONE_IN: usize = 60;
/// The first validity begins long before any reading.
const ALWAYS_FROM: &str = "2000-01-01T00:00:00Z";
/// The last validity ends long after any reading.
const ALWAYS_TO: &str = "9999-12-31T00:00:00Z";

/// A transformer and what it hangs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transformer {
    pub(crate) name: String,
    pub(crate) feeder: String,
    pub(crate) substation: String,
}

/// Where one meter hangs: a transformer, and another one from a moment on.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) transformer: usize,
    pub(crate) moved: Option<(DateTime<Utc>, usize)>,
}

/// The network of a fleet.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) transformers: Vec<Transformer>,
    pub(crate) connections: Vec<Connection>,
}

impl Network {
    /// Lays out the network: meters fill transformers in order, transformers
    /// are dealt to the feeders in turn.
    pub(crate) fn new(config: &FleetConfig) -> Self {
        let count = config.meters.div_ceil(METERS_PER_TRANSFORMER).max(1);
        let transformers: Vec<Transformer> = (0..count).map(transformer).collect();
        let mut rng = StdRng::seed_from_u64(mix(config.seed, &[1]));
        let connections = (0..config.meters)
            .map(|meter| {
                let home = meter / METERS_PER_TRANSFORMER;
                let moves = count > 1 && meter % MOVED_ONE_IN == MOVED_ONE_IN / 2;
                let moved = moves.then(|| {
                    let days = rng.random_range(config.history_days / 2..=config.history_days + 1);
                    let step = rng.random_range(1..count);
                    (config.start + Days::new(u64::from(days)), (home + step) % count)
                });
                Connection { transformer: home, moved }
            })
            .collect();
        Self { transformers, connections }
    }

    /// Returns the transformer a meter hangs on at a moment.
    pub(crate) fn transformer_of(&self, meter: usize, at: DateTime<Utc>) -> usize {
        let connection = &self.connections[meter];
        match connection.moved {
            Some((from, transformer)) if at >= from => transformer,
            _ => connection.transformer,
        }
    }

    /// Writes the reference table: one row for each meter and time it hangs
    /// on one transformer, ranges `[valid_from, valid_to)`.
    pub(crate) fn csv(&self, usage_points: &[String]) -> String {
        let mut text = String::from("usage_point,transformer,feeder,substation,valid_from,valid_to\n");
        let mut row = |usage_point: &str, transformer: usize, from: &str, to: &str| {
            let Transformer { name, feeder, substation } = &self.transformers[transformer];
            // Writing to a String can't fail.
            let _ = writeln!(text, "{usage_point},{name},{feeder},{substation},{from},{to}");
        };
        for (usage_point, connection) in usage_points.iter().zip(&self.connections) {
            match connection.moved {
                None => row(usage_point, connection.transformer, ALWAYS_FROM, ALWAYS_TO),
                Some((at, next)) => {
                    let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
                    row(usage_point, connection.transformer, ALWAYS_FROM, &at);
                    row(usage_point, next, &at, ALWAYS_TO);
                }
            }
        }
        text
    }
}

fn transformer(index: usize) -> Transformer {
    let feeder = index % (SUBSTATIONS.len() * FEEDERS);
    let (substation, code) = SUBSTATIONS[feeder / FEEDERS];
    let feeder_name = format!("{code}-{}", 11 + feeder % FEEDERS);
    let number = index / (SUBSTATIONS.len() * FEEDERS) + 1;
    Transformer {
        name: format!("{feeder_name}-T{number:02}"),
        feeder: feeder_name,
        substation: substation.into(),
    }
}
