//! AEMO Meter Data File Format: NEM12 (interval) and NEM13 (accumulation).
//!
//! Two passes. The first trusts nothing and looks at the shape only
//! ([`structure`]); the second reads records. What follows a record that can't
//! be read is refused too where it would otherwise be attributed wrongly: the
//! days (300) of a refused series (200), the quality (400) of a refused day.
//!
//! ```text
//! 100 header?  ( 200 series ( 300 day 400 quality* )* 500* | 250 read 550* )*  900 end
//! ```
//!
//! - Times are UTC+10 all year. The value at position n of a day ends n
//!   interval lengths after that day's midnight.
//! - `source_version` is `UpdateDateTime` as the number `CCYYMMDDhhmmss`; where
//!   unusable `MSATSLoadDateTime`, then the creation time of the 100 record,
//!   then 0.
//! - A series is (NMI, suffix); the suffix is the channel: `E1` is energy to the
//!   customer, `B1` from the customer, `Q1` and `K1` are reactive.
//! - An empty unit means kWh for E, B and the NEM13 registers, kvarh for Q and K.
//! - A blank value and quality `N` are null.

mod accumulation;
mod interval;
mod structure;
#[cfg(test)]
mod tests;

use crate::event::{FileError, Outlet, Place, quote};
use crate::input::{Fields, Input};
use crate::reading::Reading;
use crate::unit::Scaling;
use crate::{ReadOptions, clock};
use interval::{Day, Series};

/// Seconds by which NEM time is east of Greenwich.
const NEM_EAST_S: i32 = 10 * 3600;

/// Reads a NEM12 or NEM13 file.
pub(crate) fn read(
    input: &Input<'_>,
    options: &ReadOptions,
    outlet: &mut Outlet<'_>,
) -> Result<(), FileError> {
    structure::check(input, outlet)?;
    let mut reader = Records {
        outlet,
        header_version: 0,
        series: None,
        day: None,
        reading: Reading::blank(options.received_at),
    };
    let mut lines = input.lines()?;
    let mut fields = Fields::default();
    while let Some(line) = lines.next()? {
        if line.is_blank() {
            continue;
        }
        let place = Place::Line(line.number);
        let split = line.text().and_then(|text| fields.split(text, ',').map(|()| text));
        match split {
            Ok(text) => reader.record(place, text, &fields)?,
            Err(reason) => reader.no_text(place, line.bytes, reason)?,
        }
    }
    reader.flush()
}

/// The second pass: what has been read so far of the current block.
struct Records<'o, 's> {
    outlet: &'o mut Outlet<'s>,
    header_version: i64,
    /// The series that days belong to; `Err` holds the place of the record
    /// that made it unknown.
    series: Option<Result<Series, Place>>,
    /// The last day, until it is certain that no more quality records follow.
    day: Option<Day>,
    reading: Reading,
}

impl Records<'_, '_> {
    fn record(&mut self, place: Place, text: &str, fields: &Fields) -> Result<(), FileError> {
        match fields.get(0) {
            "100" => {
                self.flush()?;
                self.series = None;
                self.header_version = clock::version(fields.get(2)).unwrap_or(0);
            }
            "200" => {
                self.flush()?;
                match Series::parse(fields) {
                    Ok(series) => self.series = Some(Ok(series)),
                    Err(reason) => self.unreadable(place, text, reason)?,
                }
            }
            "300" => self.start_day(place, text, fields)?,
            "400" => self.qualify(place, text, fields)?,
            "250" => {
                self.flush()?;
                let read = accumulation::read(fields, self.header_version, &mut self.reading);
                match read {
                    Ok(()) => self.outlet.reading(&self.reading)?,
                    Err(reason) => self.refuse(place, text, reason)?,
                }
            }
            "500" | "550" => self.outlet.summary.ignored += 1,
            "900" => {
                self.flush()?;
                self.series = None;
                self.header_version = 0;
            }
            kind => self.unreadable(place, text, format!("unknown record type '{}'", quote(kind)))?,
        }
        Ok(())
    }

    /// Refuses a line that can't be split into fields.
    fn no_text(&mut self, place: Place, bytes: &[u8], reason: &str) -> Result<(), FileError> {
        let text = String::from_utf8_lossy(bytes);
        match (bytes.get(..4), &mut self.day) {
            (Some(b"300,"), _) => {
                self.flush()?;
                self.refuse(place, &text, reason.into())
            }
            (Some(b"400,"), Some(day)) => {
                day.fault.get_or_insert_with(|| format!("its 400 record at {place} is unusable: {reason}"));
                Ok(())
            }
            _ => self.unreadable(place, &text, reason.into()),
        }
    }

    /// Refuses a record that may have named the series of what follows.
    fn unreadable(&mut self, place: Place, text: &str, reason: String) -> Result<(), FileError> {
        self.flush()?;
        self.series = Some(Err(place));
        self.refuse(place, text, reason)
    }

    fn refuse(&mut self, place: Place, text: &str, reason: String) -> Result<(), FileError> {
        self.outlet.refuse(place, text, reason, "correct the record, or ask its sender for it again")
    }

    fn start_day(&mut self, place: Place, text: &str, fields: &Fields) -> Result<(), FileError> {
        self.flush()?;
        match &self.series {
            Some(Ok(series)) => {
                self.day = Some(Day::parse(series, fields, self.header_version, place, text));
                Ok(())
            }
            Some(Err(cause)) => {
                let reason = format!("its series is unknown, because the record at {cause} was refused");
                self.refuse(place, text, reason)
            }
            None => self.refuse(place, text, "no 200 record names its series".into()),
        }
    }

    fn qualify(&mut self, place: Place, text: &str, fields: &Fields) -> Result<(), FileError> {
        match &mut self.day {
            Some(day) => {
                day.qualify(fields, place);
                Ok(())
            }
            // It was lost together with its day, and counted there.
            None if matches!(self.series, Some(Err(_))) => Ok(()),
            None => {
                self.refuse(place, text, "a 400 record must follow the 300 record that it qualifies".into())
            }
        }
    }

    /// Hands out the last day, whole or not at all.
    fn flush(&mut self) -> Result<(), FileError> {
        let (Some(day), Some(Ok(series))) = (self.day.take(), &self.series) else { return Ok(()) };
        if let Some(reason) = day.fault {
            return self.refuse(day.place, &day.text, format!("{reason}; the whole day is refused"));
        }
        series.emit(&day, &mut self.reading, self.outlet)
    }
}

/// Returns the reason code and description of a record as one text.
fn reason_of(code: &str, description: &str) -> Option<String> {
    let reason =
        [code, description].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    (!reason.is_empty()).then_some(reason)
}

/// Finds the base unit; an empty one follows from the suffix.
fn scaling_of(unit: &str, suffix: &str) -> Scaling {
    match suffix.as_bytes().first() {
        Some(b'E' | b'B' | b'0'..=b'9') if unit.is_empty() => Scaling::of("kWh"),
        Some(b'Q' | b'K') if unit.is_empty() => Scaling::of("kvarh"),
        _ => Scaling::of(unit),
    }
}

/// Picks the version of a record from its two times and the file's.
fn version_of(update: &str, load: &str, header_version: i64) -> i64 {
    clock::version(update).or_else(|| clock::version(load)).unwrap_or(header_version)
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
