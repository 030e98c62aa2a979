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
        quantity: Quantity::default(),
        scaling: scaling_of("", ""),
        scaled: (String::new(), String::new()),
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

/// A quantity that waits for its times, or the memory of the one before.
#[derive(Default)]
struct Quantity {
    is_waiting: bool,
    segment: u64,
    text: String,
    qualifier: String,
    value: String,
    unit: String,
    start: Option<Result<DateTime<Utc>, String>>,
    end: Option<Result<DateTime<Utc>, String>>,
}

impl Quantity {
    fn begin(&mut self, segment: &Segment) {
        self.is_waiting = true;
        self.segment = segment.number;
        segment.raw().clone_into(&mut self.text);
        segment.get(1, 0).clone_into(&mut self.qualifier);
        segment.get(1, 1).clone_into(&mut self.value);
        segment.get(1, 2).clone_into(&mut self.unit);
        (self.start, self.end) = (None, None);
    }

    /// Takes in the segment of a time that was found.
    fn quote(&mut self, segment: &Segment) {
        self.text.push('\'');
        self.text.push_str(segment.raw());
    }
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
    quantity: Quantity,
    /// The scaling used last, and the unit and product that it is of.
    scaling: Scaling,
    scaled: (String, String),
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
            "QTY" => self.quantity.begin(segment),
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
        let quantity = &mut self.quantity;
        match (qualifier, quantity.is_waiting) {
            ("137", false) => {
                let time = utc_of(value, format).map(|time| time.naive_utc()).or_else(|_| {
                    clock::date_time(value).filter(|_| matches!(format, "203" | "204")).ok_or(String::new())
                });
                self.reading.source_version = time.map_or(0, clock::version_of);
            }
            ("163", true) => {
                quantity.start = Some(utc_of(value, format));
                quantity.quote(segment);
            }
            ("164", true) => {
                quantity.end = Some(utc_of(value, format));
                quantity.quote(segment);
            }
            _ => {}
        }
    }

    /// Hands out the waiting quantity, or refuses it.
    fn flush(&mut self) -> Result<(), FileError> {
        if !std::mem::take(&mut self.quantity.is_waiting) {
            return Ok(());
        }
        match self.fill() {
            Ok(()) => self.outlet.reading(&self.reading),
            Err(reason) => {
                let remedy = "ask the sender for a corrected message";
                let quantity = &self.quantity;
                self.outlet.refuse(Place::Segment(quantity.segment), &quantity.text, reason, remedy)
            }
        }
    }

    fn fill(&mut self) -> Result<(), String> {
        let quantity = &mut self.quantity;
        let location = match &self.location {
            Some(Ok(location)) => location,
            Some(Err(reason)) => return Err(reason.clone()),
            None => return Err("no LOC segment names its location".into()),
        };
        let product = self.product.as_deref().filter(|product| !product.is_empty());
        let product = product.ok_or("no PIA+5 segment names its product")?;
        let (start, end) = (time_of("163", quantity.start.take())?, time_of("164", quantity.end.take())?);
        let usual = self.usual.get(self.series.wrapping_sub(1)).copied().unwrap_or(0);
        let duration = regular((end - start).num_seconds(), usual)?;
        if (self.scaled.0.as_str(), self.scaled.1.as_str()) != (quantity.unit.as_str(), product) {
            self.scaling = scaling_of(&quantity.unit, product);
            self.scaled = (quantity.unit.clone(), product.to_owned());
        }
        let value = if quantity.value.is_empty() {
            None
        } else {
            let value = Decimal::parse_marked(&quantity.value, b'.', b',');
            let value = value.and_then(|value| self.scaling.apply(value));
            Some(value.map_err(|error| format!("quantity '{}' {error}", quote(&quantity.value)))?)
        };
        self.reading.usage_point.clone_from(location);
        product.clone_into(&mut self.reading.channel);
        self.reading.start_utc = start;
        self.reading.duration_s = duration;
        self.reading.unit.clone_from(&self.scaling.unit);
        self.reading.set_value(value, Quality::of_mscons(&quantity.qualifier));
        quantity.qualifier.clone_into(self.reading.source_quality.get_or_insert_default());
        Ok(())
    }
}

fn time_of(qualifier: &str, time: Option<Result<DateTime<Utc>, String>>) -> Result<DateTime<Utc>, String> {
    let time = time.ok_or_else(|| format!("no DTM+{qualifier} follows it"))?;
    time.map_err(|reason| format!("DTM+{qualifier}: {reason}"))
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
