//! MSCONS: EDIFACT D.04B as used by the German market (BDEW MIG 2.2e to 2.4b).
//!
//! The first pass checks the envelope ([`envelope`]): every counter and every
//! reference must agree, or the file was cut or altered. It also finds each
//! series' usual interval. The second pass reads the quantities.
//!
//! - Usage point: the location `LOC+172`. Channel: the OBIS code or other
//!   product number of `PIA+5`. Both as in the file, unescaped.
//! - Start and end are explicit (`DTM+163`, `DTM+164`) with their offset from
//!   UTC. An interval that divides no hour, isn't a number of hours, or differs
//!   from its series' usual interval of less than an hour, is refused.
//! - A quantity without a unit is in kWh for OBIS active energy (C = 1, 2), in
//!   kvarh for reactive energy (C = 3 to 8), in kVAh for C = 9, 10.
//! - `source_version` is the message's `DTM+137` as the number
//!   `CCYYMMDDhhmmss`, in UTC where it states an offset.

mod envelope;
mod segment;
#[cfg(test)]
mod tests;

use chrono::{DateTime, NaiveDateTime, Utc};

use crate::decimal::Decimal;
use crate::event::{FileError, Outlet, Place, quote};
use crate::input::Input;
use crate::quality::Quality;
use crate::reading::Reading;
use crate::unit::Scaling;
use crate::{ReadOptions, clock};
use segment::{Segment, Segments};

/// Reads an MSCONS interchange.
pub(crate) fn read(
    input: &Input<'_>,
    options: &ReadOptions,
    outlet: &mut Outlet<'_>,
) -> Result<(), FileError> {
    let usual = envelope::check(input)?;
    let mut reader = Quantities {
        outlet,
        usual,
        series: 0,
        in_message: Message::None,
        location: None,
        product: None,
        quantity: None,
        reading: Reading::blank(options.received_at),
    };
    let mut segments = Segments::new(input)?;
    let mut segment = Segment::default();
    while segments.next(&mut segment)? {
        reader.step(&segment)?;
    }
    Ok(())
}

#[derive(PartialEq)]
enum Message {
    None,
    Mscons,
    Other,
}

/// A quantity that waits for its times.
struct Quantity {
    place: Place,
    text: String,
    qualifier: String,
    value: String,
    unit: String,
    start: Option<String>,
    end: Option<String>,
}

struct Quantities<'o, 's> {
    outlet: &'o mut Outlet<'s>,
    /// Usual interval in seconds of each series in file order; 0 for none.
    usual: Vec<u32>,
    /// How many series have begun.
    series: usize,
    in_message: Message,
    /// The location, or why there is none.
    location: Option<Result<String, String>>,
    product: Option<String>,
    quantity: Option<Quantity>,
    reading: Reading,
}

impl Quantities<'_, '_> {
    fn step(&mut self, segment: &Segment) -> Result<(), FileError> {
        if segment.tag() != "DTM" {
            self.flush()?;
        }
        if segment.tag() == "LIN" {
            self.series += 1;
            self.product = None;
        }
        match segment.tag() {
            "UNH" => self.start_message(segment),
            _ if self.in_message != Message::Mscons => {}
            "DTM" => self.time(segment),
            "NAD" => self.location = None,
            "LOC" => {
                self.product = None;
                self.location = Some(match (segment.get(1, 0), segment.get(2, 0)) {
                    ("172", id) if !id.is_empty() => Ok(id.to_owned()),
                    (qualifier, _) => Err(format!(
                        "location '{}' with qualifier '{}' is no metering or market location (172)",
                        quote(segment.get(2, 0)),
                        quote(qualifier)
                    )),
                });
            }
            "PIA" if segment.get(1, 0) == "5" => self.product = Some(segment.get(2, 0).to_owned()),
            "QTY" => {
                self.quantity = Some(Quantity {
                    place: Place::Segment(segment.number),
                    text: segment.raw().to_owned(),
                    qualifier: segment.get(1, 0).to_owned(),
                    value: segment.get(1, 1).to_owned(),
                    unit: segment.get(1, 2).to_owned(),
                    start: None,
                    end: None,
                });
            }
            "UNT" => self.in_message = Message::None,
            _ => {}
        }
        Ok(())
    }

    fn start_message(&mut self, segment: &Segment) {
        self.location = None;
        self.product = None;
        self.reading.source_version = 0;
        self.in_message = if segment.get(2, 0) == "MSCONS" { Message::Mscons } else { Message::Other };
        if self.in_message == Message::Other {
            self.outlet.summary.ignored += 1;
            self.outlet.warn(format!("messages of type '{}' were left out", quote(segment.get(2, 0))));
        }
    }

    fn time(&mut self, segment: &Segment) {
        let (qualifier, value, format) = (segment.get(1, 0), segment.get(1, 1), segment.get(1, 2));
        match (qualifier, &mut self.quantity) {
            ("137", None) => {
                let time = utc_of(value, format).map(|time| time.naive_utc()).or_else(|_| {
                    clock::date_time(value).filter(|_| matches!(format, "203" | "204")).ok_or(String::new())
                });
                self.reading.source_version = time.map_or(0, clock::version_of);
            }
            ("163", Some(quantity)) => {
                quantity.start = Some(format!("{value}:{format}"));
                quantity.text.push('\'');
                quantity.text.push_str(segment.raw());
            }
            ("164", Some(quantity)) => {
                quantity.end = Some(format!("{value}:{format}"));
                quantity.text.push('\'');
                quantity.text.push_str(segment.raw());
            }
            _ => {}
        }
    }

    /// Hands out the waiting quantity, or refuses it.
    fn flush(&mut self) -> Result<(), FileError> {
        let Some(quantity) = self.quantity.take() else { return Ok(()) };
        match self.fill(&quantity) {
            Ok(()) => self.outlet.reading(&self.reading),
            Err(reason) => {
                let remedy = "ask the sender for a corrected message";
                self.outlet.refuse(quantity.place, &quantity.text, reason, remedy)
            }
        }
    }

    fn fill(&mut self, quantity: &Quantity) -> Result<(), String> {
        let location = match &self.location {
            Some(Ok(location)) => location,
            Some(Err(reason)) => return Err(reason.clone()),
            None => return Err("no LOC segment names its location".into()),
        };
        let product = self.product.as_deref().filter(|product| !product.is_empty());
        let product = product.ok_or("no PIA+5 segment names its product")?;
        let (start, end) =
            (time_of("163", quantity.start.as_deref())?, time_of("164", quantity.end.as_deref())?);
        let usual = self.usual.get(self.series.wrapping_sub(1)).copied().unwrap_or(0);
        let duration = regular((end - start).num_seconds(), usual)?;
        let scaling = scaling_of(&quantity.unit, product);
        let value = if quantity.value.is_empty() {
            None
        } else {
            let value =
                Decimal::parse_marked(&quantity.value, b'.', b',').and_then(|value| scaling.apply(value));
            Some(value.map_err(|error| format!("quantity '{}' {error}", quote(&quantity.value)))?)
        };
        self.reading.usage_point.clone_from(location);
        product.clone_into(&mut self.reading.channel);
        self.reading.start_utc = start;
        self.reading.duration_s = duration;
        self.reading.unit = scaling.unit;
        self.reading.set_value(value, Quality::of_mscons(&quantity.qualifier));
        self.reading.source_quality = Some(quantity.qualifier.clone());
        Ok(())
    }
}

fn time_of(qualifier: &str, text: Option<&str>) -> Result<DateTime<Utc>, String> {
    let text = text.ok_or_else(|| format!("no DTM+{qualifier} follows it"))?;
    // The format never holds a colon; the value never does unless escaped.
    let (value, format) = text.rsplit_once(':').unwrap_or((text, ""));
    utc_of(value, format).map_err(|reason| format!("DTM+{qualifier}: {reason}"))
}

/// Parses formats 303 (`CCYYMMDDHHMMZZZ`) and 304 (with seconds); `ZZZ` is the
/// offset from UTC in hours.
pub(super) fn utc_of(value: &str, format: &str) -> Result<DateTime<Utc>, String> {
    let digits = match format {
        "303" => 12,
        "304" => 14,
        _ => return Err(format!("'{}' in format '{}' has no offset from UTC", quote(value), quote(format))),
    };
    let wrong = || format!("'{}' is not a time in format {format}", quote(value));
    let (local, zone) = value.split_at_checked(digits).ok_or_else(wrong)?;
    let local: NaiveDateTime = clock::date_time(local).ok_or_else(wrong)?;
    let hours = match zone.as_bytes() {
        [b'+', digits @ ..] if is_two_digits(digits) => hours(digits),
        [b'-', digits @ ..] if is_two_digits(digits) => -hours(digits),
        _ => return Err(wrong()),
    };
    clock::utc(local, hours * 3600).filter(|_| hours.abs() <= 14).ok_or_else(wrong)
}

fn is_two_digits(digits: &[u8]) -> bool {
    digits.len() == 2 && digits.iter().all(u8::is_ascii_digit)
}

fn hours(digits: &[u8]) -> i32 {
    digits.iter().fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0'))
}

/// Returns the interval if it is one that a meter keeps.
fn regular(seconds: i64, usual: u32) -> Result<u32, String> {
    let minutes = seconds / 60;
    let duration = u32::try_from(seconds).ok().filter(|seconds| *seconds > 0);
    let duration = duration.ok_or("the end is not later than the start")?;
    let divides = if duration < 3600 { 3600 % duration == 0 } else { duration % 3600 == 0 };
    if !divides {
        return Err(format!(
            "irregular interval of {minutes} minutes: neither a part of an hour nor whole hours"
        ));
    }
    if usual != 0 && usual < 3600 && duration != usual {
        return Err(format!("irregular interval of {minutes} minutes in a series of {} minutes", usual / 60));
    }
    Ok(duration)
}

/// Finds the base unit; an empty one follows from an electricity OBIS code.
fn scaling_of(unit: &str, product: &str) -> Scaling {
    match unit {
        "" => Scaling::of(implied_unit(product).unwrap_or("")),
        "KWT" => Scaling::of("kW"),
        "K3" => Scaling::of("kvarh"),
        "KVR" => Scaling::of("kvar"),
        "MTQ" => Scaling::of("m3"),
        _ => Scaling::of(unit),
    }
}

/// Reads C of an OBIS code A-B:C.D.E with A = 1, electricity.
fn implied_unit(product: &str) -> Option<&'static str> {
    let quantity = product.strip_prefix("1-")?.split_once(':')?.1.split('.').next()?;
    match quantity {
        "1" | "2" => Some("kWh"),
        "3" | "4" | "5" | "6" | "7" | "8" => Some("kvarh"),
        "9" | "10" => Some("kVAh"),
        _ => None,
    }
}
