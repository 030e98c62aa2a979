//! Green Button: NAESB ESPI resources in an Atom feed.
//!
//! Entries come in any order and are joined by equality of their links, so
//! three readers go over the file:
//!
//! ```text
//! pass 1   scout over all entries ─► index of UsagePoint, MeterReading, ReadingType;
//!          checks on the way that the XML is whole
//! pass 2   a second scout, one entry ahead ─► links and `updated` of the entry
//!          readings of that entry          ─► sink
//! ```
//!
//! so that what is kept is the index, whatever the number of readings.
//!
//! - Usage point: the `self` href of the `UsagePoint`, as in the feed (titles
//!   are addresses and change).
//! - Channel: see [`series::channel_of`]; e.g. `electricity_delivered`,
//!   `electricity_received`, `gas`.
//! - `source_version`: `updated` of the entry, else of the feed, as the number
//!   `CCYYMMDDhhmmss` in UTC, else the caller's, else 0.
//! - Costs aren't read. A start that isn't a whole second is refused.

#[cfg(test)]
mod same_either_way;
mod scout;
mod series;
mod shape;
#[cfg(test)]
mod tests;
mod xml;

use chrono::{DateTime, NaiveDate, NaiveTime};

use crate::ReadOptions;
use crate::clock;
use crate::decimal::Decimal;
use crate::event::{FileError, Outlet, Place, quote};
use crate::input::Input;
use crate::quality::Quality;
use crate::reading::Reading;
use scout::Scout;
use series::{Index, Series};
use shape::{Field, SHAPES_MAX, Shaped, Shapes};
use xml::{Name, Token, Xml};

const REMEDY: &str = "ask the data custodian for a corrected feed";

/// Reads an ESPI feed.
pub(crate) fn read(
    input: &Input<'_>,
    options: &ReadOptions,
    outlet: &mut Outlet<'_>,
) -> Result<(), FileError> {
    read_with(SHAPES_MAX, input, options, outlet)
}

/// Reads with so many shapes known at a time; with none, all goes event by event.
fn read_with(
    shapes: usize,
    input: &Input<'_>,
    options: &ReadOptions,
    outlet: &mut Outlet<'_>,
) -> Result<(), FileError> {
    let shapes = || Shapes::with_room(shapes);
    let mut index = Index::default();
    let mut scout = Scout::new(input, shapes())?;
    while let Some(entry) = scout.next_entry()? {
        index.add(entry).map_err(|reason| input.broken(Place::Byte(scout.position()), reason))?;
    }
    let feed_version = scout.feed_updated().and_then(version_of);
    let fallback = feed_version.or(options.source_version).unwrap_or(0);
    let joined = index.join();

    let mut scout = Scout::new(input, shapes())?;
    let mut readings = Readings {
        xml: Xml::new(input, shapes())?,
        hatch: Hatch { found: Found::default(), reading: Reading::blank(options.received_at), outlet },
    };
    while let Some(entry) = scout.next_entry()? {
        let series = joined.series_of(&entry);
        readings.hatch.reading.source_version =
            entry.updated.as_deref().and_then(version_of).unwrap_or(fallback);
        readings.entry(series)?;
    }
    Ok(())
}

/// Parses `2012-10-24T07:00:00Z`, with any offset, or a date alone.
fn version_of(updated: &str) -> Option<i64> {
    let time = DateTime::parse_from_rfc3339(updated).ok().map(|time| time.naive_utc());
    let date =
        || NaiveDate::parse_from_str(updated, "%Y-%m-%d").ok().map(|date| date.and_time(NaiveTime::MIN));
    time.or_else(date).map(clock::version_of)
}

/// What an `IntervalReading` held, as text.
#[derive(Default)]
struct Found {
    at: u64,
    start: String,
    duration: String,
    value: String,
    qualities: String,
}

impl Found {
    /// Forgets the reading before, but keeps its memory for the next.
    fn restart(&mut self, at: u64) {
        self.at = at;
        for text in [&mut self.start, &mut self.duration, &mut self.value, &mut self.qualities] {
            text.clear();
        }
    }

    fn note(&mut self, field: Field, text: &str) {
        match field {
            Field::Start => text.clone_into(&mut self.start),
            Field::Duration => text.clone_into(&mut self.duration),
            Field::Value => text.clone_into(&mut self.value),
            Field::Quality => {
                if !self.qualities.is_empty() {
                    self.qualities.push(',');
                }
                self.qualities.push_str(text);
            }
        }
    }

    fn take(&mut self, shaped: &Shaped<'_>) {
        self.restart(shaped.at);
        for (field, text) in shaped.fields() {
            self.note(field, text);
        }
    }
}

/// The reader that hands out readings, entry by entry.
struct Readings<'i, 'a, 'o, 's> {
    xml: Xml<'i, 'a>,
    hatch: Hatch<'o, 's>,
}

impl Readings<'_, '_, '_, '_> {
    /// Goes on to the end of the next entry.
    fn entry(&mut self, series: Result<&Series, String>) -> Result<(), FileError> {
        let hatch = &mut self.hatch;
        if let Ok(series) = &series {
            hatch.reading.usage_point.clone_from(&series.usage_point);
            hatch.reading.channel.clone_from(&series.channel);
            hatch.reading.unit.clone_from(&series.scaling.unit);
        }
        loop {
            self.xml.take_readings(|shaped| {
                hatch.found.take(&shaped);
                hatch.hand_out(&series)
            })?;
            match self.xml.next()? {
                Token::Open(Name::IntervalReading) => {
                    hatch.found.restart(self.xml.position());
                }
                Token::Close(Name::IntervalReading) if self.xml.is_inside(Name::IntervalBlock) => {
                    hatch.hand_out(&series)?;
                }
                Token::Close(Name::Entry) | Token::End => return Ok(()),
                Token::Close(name) if self.xml.is_inside(Name::IntervalReading) => {
                    if let Some(field) = Field::of(self.xml.parent(), name) {
                        hatch.found.note(field, self.xml.text());
                    }
                }
                Token::Open(_) | Token::Close(_) => {}
            }
        }
    }
}

/// Where what was found becomes a reading or a refusal.
struct Hatch<'o, 's> {
    found: Found,
    reading: Reading,
    outlet: &'o mut Outlet<'s>,
}

impl Hatch<'_, '_> {
    fn hand_out(&mut self, series: &Result<&Series, String>) -> Result<(), FileError> {
        let filled = match series {
            Ok(series) => fill(&mut self.reading, &self.found, series),
            Err(reason) => Err(reason.clone()),
        };
        match filled {
            Ok(()) => self.outlet.reading(&self.reading),
            Err(reason) => {
                let found = &self.found;
                let record = format!(
                    "IntervalReading start={} duration={} value={} quality={}",
                    found.start, found.duration, found.value, found.qualities
                );
                self.outlet.refuse(Place::Byte(found.at), &record, reason, REMEDY)
            }
        }
    }
}

fn fill(reading: &mut Reading, found: &Found, series: &Series) -> Result<(), String> {
    let start = found.start.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    let start = start.and_then(clock::plausible);
    reading.start_utc = start.ok_or_else(|| {
        format!("start '{}' is not a time in whole seconds since 1970", quote(&found.start))
    })?;
    let stated = if found.duration.is_empty() { series.interval_s } else { found.duration.parse().ok() };
    let duration = stated.filter(|seconds| *seconds > 0);
    reading.duration_s = duration
        .ok_or_else(|| format!("duration '{}' is not a number of seconds", quote(&found.duration)))?;
    let value = if found.value.is_empty() {
        None
    } else {
        let value = Decimal::parse(&found.value).and_then(|value| series.scaling.apply(value));
        Some(value.map_err(|error| format!("value '{}' {error}", quote(&found.value)))?)
    };
    let codes = found.qualities.split(',').filter(|code| !code.is_empty());
    let quality = codes.map(Quality::of_espi).reduce(Quality::worse).unwrap_or(Quality::Unqualified);
    reading.set_value(value, quality);
    if found.qualities.is_empty() {
        reading.source_quality = None;
    } else {
        found.qualities.clone_into(reading.source_quality.get_or_insert_default());
    }
    Ok(())
}
