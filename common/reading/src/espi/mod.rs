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
//! so that what is kept is the index, whatever the number of readings. Most readings are
//! not tokenised but recognised by the markup that they repeat ([`shape`]).
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
mod texts;
mod xml;

use chrono::{DateTime, NaiveDate, NaiveTime};

use crate::ReadOptions;
use crate::clock;
use crate::event::{FileError, Outlet, Place};
use crate::input::Input;
use crate::reading::Reading;
use scout::Scout;
use series::{Index, Series};
use shape::{Field, SHAPES_MAX, Shapes};
use texts::{Found, Texts};
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

/// Reads an ESPI feed, no reading of it by its shape.
pub(crate) fn read_by_events(
    input: &Input<'_>,
    options: &ReadOptions,
    outlet: &mut Outlet<'_>,
) -> Result<(), FileError> {
    read_with(0, input, options, outlet)
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
        found: Found::default(),
        hatch: Hatch { reading: Reading::blank(options.received_at), outlet },
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

/// The reader that hands out readings, entry by entry.
struct Readings<'i, 'a, 'o, 's> {
    xml: Xml<'i, 'a>,
    /// What was found of the reading that is read event by event.
    found: Found,
    hatch: Hatch<'o, 's>,
}

impl Readings<'_, '_, '_, '_> {
    /// Goes on to the end of the next entry.
    fn entry(&mut self, series: Result<&Series, String>) -> Result<(), FileError> {
        let Self { xml, found, hatch } = self;
        if let Ok(series) = &series {
            hatch.reading.usage_point.clone_from(&series.usage_point);
            hatch.reading.channel.clone_from(&series.channel);
            hatch.reading.unit.clone_from(&series.scaling.unit);
        }
        loop {
            xml.take_readings(|shaped| hatch.hand_out(&Texts::of_shaped(&shaped), &series))?;
            match xml.next()? {
                Token::Open(Name::IntervalReading) => found.restart(xml.position()),
                Token::Close(Name::IntervalReading) if xml.is_inside(Name::IntervalBlock) => {
                    hatch.hand_out(&found.texts(), &series)?;
                }
                Token::Close(Name::Entry) | Token::End => return Ok(()),
                Token::Close(name) if xml.is_inside(Name::IntervalReading) => {
                    if let Some(field) = Field::of(xml.parent(), name) {
                        found.note(field, xml.text());
                    }
                }
                Token::Open(_) | Token::Close(_) => {}
            }
        }
    }
}

/// Where texts become a reading or a refusal.
struct Hatch<'o, 's> {
    reading: Reading,
    outlet: &'o mut Outlet<'s>,
}

impl Hatch<'_, '_> {
    fn hand_out(&mut self, texts: &Texts<'_>, series: &Result<&Series, String>) -> Result<(), FileError> {
        let filled = match series {
            Ok(series) => texts.fill(&mut self.reading, series),
            Err(reason) => Err(reason.clone()),
        };
        match filled {
            Ok(()) => self.outlet.reading(&self.reading),
            Err(reason) => self.outlet.refuse(Place::Byte(texts.at), &texts.to_string(), reason, REMEDY),
        }
    }
}
