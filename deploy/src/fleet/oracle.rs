//! The fleet's own account of what it had acknowledged: exact totals by
//! transformer, kept without any of the platform's code.

use std::collections::BTreeMap;
use std::fmt;

use super::model::Channel;
use super::network::Transformer;

/// Totals of the newest versions. Energies in thousandths of a kWh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Readings, each counted once whatever its versions.
    pub(crate) readings: i64,
    /// Energy to the customers.
    pub(crate) import_milli: i64,
    /// Energy from the customers.
    pub(crate) export_milli: i64,
}

/// A substation for which the views say something else than the oracle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The substation.
    pub(crate) substation: String,
    /// What was sent and acknowledged.
    pub(crate) expected: Totals,
    /// What the view says; `None` when it does not know the substation.
    pub(crate) found: Option<Totals>,
}

/// The totals by transformer.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    transformers: Vec<Transformer>,
    totals: Vec<Totals>,
}

impl Oracle {
    pub(crate) fn new(transformers: Vec<Transformer>) -> Self {
        let totals = vec![Totals::default(); transformers.len()];
        Self { transformers, totals }
    }

    /// Takes a reading's first version (`old` absent) or replaces one by a newer.
    pub(crate) fn put(
        &mut self,
        transformer: usize,
        channel: Channel,
        old: Option<Option<i64>>,
        new: Option<i64>,
    ) {
        let totals = &mut self.totals[transformer];
        let change = new.unwrap_or(0) - old.flatten().unwrap_or(0);
        match channel {
            Channel::Import => totals.import_milli += change,
            Channel::Export => totals.export_milli += change,
        }
        if old.is_none() {
            totals.readings += 1;
        }
    }

    /// Returns the totals by substation.
    pub(crate) fn by_substation(&self) -> BTreeMap<String, Totals> {
        let mut sums: BTreeMap<String, Totals> = BTreeMap::new();
        for (transformer, totals) in self.transformers.iter().zip(&self.totals) {
            sums.entry(transformer.substation.clone()).or_default().add(totals);
        }
        sums.retain(|_, totals| totals.readings != 0);
        sums
    }

    /// Compares with what the views say, both ways.
    pub(crate) fn compare(&self, found: &BTreeMap<String, Totals>) -> Vec<Difference> {
        let expected = self.by_substation();
        let names = expected.keys().chain(found.keys().filter(|name| !expected.contains_key(*name)));
        names
            .map(|name| Difference {
                substation: name.clone(),
                expected: expected.get(name).copied().unwrap_or_default(),
                found: found.get(name).copied(),
            })
            .filter(|difference| difference.found != Some(difference.expected))
            .collect()
    }
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.readings += other.readings;
        self.import_milli += other.import_milli;
        self.export_milli += other.export_milli;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (import, export) = (Kwh(self.import_milli), Kwh(self.export_milli));
        write!(f, "{import} kWh in, {export} kWh out, {} readings", self.readings)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: sent {}, ", self.substation, self.expected)?;
        match &self.found {
            Some(found) => write!(f, "found {found}"),
            None => f.write_str("found nothing"),
        }
    }
}

/// Thousandths of a kWh, written as kWh.
pub(crate) struct Kwh(pub(crate) i64);

impl fmt::Display for Kwh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let milli = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:03}", milli / 1000, milli % 1000)
    }
}
