//! Joins usage points, meter readings and reading types into series.

use std::collections::BTreeMap;

use crate::event::quote;
use crate::unit::Scaling;

use super::scout::{Entry, ReadingType};

/// What all readings of a `MeterReading` share.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) usage_point: String,
    pub(super) channel: String,
    pub(super) scaling: Scaling,
    /// Length of an interval where a reading states none.
    pub(super) interval_s: Option<u32>,
}

/// The small resources of a feed.
#[derive(Default)]
pub(super) struct Index {
    /// Usage points: href and service kind.
    usage_points: Vec<(String, String)>,
    /// Usage point of each href that it has or is related to.
    usage_point_by_link: BTreeMap<String, usize>,
    meter_readings: Vec<MeterReading>,
    /// Meter reading of each href that it has or is related to.
    meter_reading_by_link: BTreeMap<String, usize>,
    reading_types: BTreeMap<String, ReadingType>,
}

struct MeterReading {
    href: String,
    up: String,
    related: Vec<String>,
}

/// The series of a feed, found by an interval block's links.
pub(super) struct Joined {
    series: Vec<Result<Series, String>>,
    by_link: BTreeMap<String, usize>,
}

impl Index {
    /// Takes in an entry; an error says why the feed contradicts itself.
    pub(super) fn add(&mut self, entry: Entry) -> Result<(), String> {
        if let Some(kind) = entry.usage_point {
            let at = self.usage_points.len();
            // A usage point's own href is stronger than another's relation to it.
            self.usage_point_by_link.insert(entry.href.clone(), at);
            for link in &entry.related {
                self.usage_point_by_link.entry(link.clone()).or_insert(at);
            }
            self.usage_points.push((entry.href.clone(), kind));
        }
        if let Some(reading_type) = entry.reading_type {
            let known = self.reading_types.entry(entry.href.clone()).or_insert_with(|| reading_type.clone());
            if *known != reading_type {
                return Err(format!("two different ReadingTypes have the href '{}'", quote(&entry.href)));
            }
        }
        if entry.is_meter_reading {
            let at = self.meter_readings.len();
            self.meter_reading_by_link.insert(entry.href.clone(), at);
            for link in &entry.related {
                self.meter_reading_by_link.entry(link.clone()).or_insert(at);
            }
            self.meter_readings.push(MeterReading { href: entry.href, up: entry.up, related: entry.related });
        }
        Ok(())
    }

    /// Joins what was taken in.
    pub(super) fn join(self) -> Joined {
        let series = self.meter_readings.iter().map(|meter_reading| self.series(meter_reading)).collect();
        Joined { series, by_link: self.meter_reading_by_link }
    }

    fn series(&self, meter_reading: &MeterReading) -> Result<Series, String> {
        let named = quote(&meter_reading.href);
        let usage_point = [&meter_reading.href, &meter_reading.up]
            .into_iter()
            .find_map(|link| self.usage_point_by_link.get(link).filter(|_| !link.is_empty()));
        let (href, kind) = usage_point
            .map(|&at| &self.usage_points[at])
            .ok_or_else(|| format!("the MeterReading '{named}' belongs to no UsagePoint of the feed"))?;
        if href.is_empty() {
            return Err(format!("the UsagePoint of the MeterReading '{named}' has no self link"));
        }
        let mut types = meter_reading.related.iter().filter_map(|link| self.reading_types.get(link));
        let reading_type = types
            .next()
            .ok_or_else(|| format!("the MeterReading '{named}' is related to no ReadingType of the feed"))?;
        if types.any(|other| other != reading_type) {
            return Err(format!("the MeterReading '{named}' is related to several ReadingTypes"));
        }
        let scaling = scaling_of(reading_type)?;
        Ok(Series {
            usage_point: href.clone(),
            channel: channel_of(kind, reading_type, &scaling.unit),
            scaling,
            interval_s: reading_type.interval_length.parse().ok(),
        })
    }
}

impl Joined {
    /// Finds the series of an entry's interval blocks by its own href or its parent's.
    pub(super) fn series_of(&self, entry: &Entry) -> Result<&Series, String> {
        let links = [&entry.href, &entry.up].into_iter().chain(&entry.related);
        let found = links.filter(|link| !link.is_empty()).find_map(|link| self.by_link.get(link));
        match found {
            Some(&at) => self.series[at].as_ref().map_err(Clone::clone),
            None => Err(format!(
                "the IntervalBlock '{}' belongs to no MeterReading of the feed",
                quote(&entry.href)
            )),
        }
    }
}

fn scaling_of(reading_type: &ReadingType) -> Result<Scaling, String> {
    let unit = match reading_type.unit.as_str() {
        "5" => "A",
        "29" => "V",
        "31" => "J",
        "33" => "Hz",
        "38" => "W",
        "42" => "m3",
        "61" => "VA",
        "63" => "var",
        "65" => "pf",
        "71" => "VAh",
        "72" => "Wh",
        "73" => "varh",
        "119" => "ft3",
        "132" => "Btu",
        "169" => "therm",
        "" => "",
        code => &format!("uom_{}", quote(code)),
    };
    let mut scaling = Scaling::of(unit);
    let power = reading_type.power_of_ten.as_str();
    if !power.is_empty() {
        let power = power.parse::<i32>().ok().filter(|power| (-30..=30).contains(power));
        let power = power.ok_or_else(|| {
            format!("powerOfTenMultiplier '{}' is unusable", quote(&reading_type.power_of_ten))
        })?;
        scaling.power += power;
    }
    Ok(scaling)
}

/// Names the channel by the reading type alone, so that it is the same in every
/// feed: service, direction, then what sets it apart from plain energy.
///
/// - Service: `electricity`, `gas`, `water`, `heat`, else `service_N`.
/// - `flowDirection` 1 forward is `_delivered` (to the customer), 19 reverse is
///   `_received` (from the customer), 4 `_net`, 20 `_total`, none or 0 nothing,
///   else `_flow_N`.
/// - For electricity a unit other than kWh, e.g. `_kvarh`.
/// - `_cumulative` for register readings (`accumulationBehaviour` 1, 2, 3).
/// - `_daily` for intervals of a day, `_Ns` for longer ones, because they would
///   count the same energy a second time.
pub(super) fn channel_of(kind: &str, reading_type: &ReadingType, unit: &str) -> String {
    let mut channel = match (kind, reading_type.commodity.as_str()) {
        ("0", _) | ("", "1" | "2") => "electricity".to_owned(),
        ("1", _) | ("", "7") => "gas".to_owned(),
        ("2", _) | ("", "9") => "water".to_owned(),
        ("5", _) => "heat".to_owned(),
        (kind, _) => format!("service_{}", if kind.is_empty() { "unknown" } else { quote(kind) }),
    };
    match reading_type.flow_direction.as_str() {
        "" | "0" => {}
        "1" => channel.push_str("_delivered"),
        "19" => channel.push_str("_received"),
        "4" => channel.push_str("_net"),
        "20" => channel.push_str("_total"),
        other => {
            channel.push_str("_flow_");
            channel.push_str(quote(other));
        }
    }
    if channel.starts_with("electricity") && !matches!(unit, "kWh" | "") {
        channel.push('_');
        channel.push_str(&unit.to_ascii_lowercase());
    }
    if matches!(reading_type.accumulation.as_str(), "1" | "2" | "3") {
        channel.push_str("_cumulative");
    }
    match reading_type.interval_length.parse() {
        Ok(86_400_u32) => channel.push_str("_daily"),
        Ok(seconds) if seconds > 86_400 => channel.push_str(&format!("_{seconds}s")),
        _ => {}
    }
    channel
}
