//! One row of a CSV file to its readings.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Timelike, Utc};

use crate::ReadOptions;
use crate::clock;
use crate::decimal::{Decimal, DecimalError};
use crate::event::{FileError, Outlet, quote};
use crate::input::Fields;
use crate::quality::Quality;
use crate::reading::Reading;

use super::columns::{Columns, ValueColumn};
use super::mapping::{Label, Mapping, TextRule, Zone};

/// Parses rows, and holds the last one until it is handed out.
pub(super) struct Rows<'m> {
    mapping: &'m Mapping,
    columns: &'m Columns,
    constant_version: i64,
    /// What all readings of the row share.
    reading: Reading,
    quality: Quality,
    /// The row's channel, where it names one.
    channel: String,
    /// Start, length and value for each value column.
    cells: Vec<(DateTime<Utc>, u32, Option<Decimal>)>,
}

impl<'m> Rows<'m> {
    pub(super) fn new(mapping: &'m Mapping, columns: &'m Columns, options: &ReadOptions) -> Self {
        let stated = mapping.version.as_ref().map_or(0, |rule| rule.constant);
        Self {
            mapping,
            columns,
            constant_version: options.source_version.unwrap_or(stated),
            reading: Reading::blank(options.received_at),
            quality: Quality::Unqualified,
            channel: String::new(),
            cells: Vec::with_capacity(columns.values.len()),
        }
    }

    /// Parses a row, all of it.
    pub(super) fn parse(&mut self, fields: &Fields) -> Result<(), String> {
        let (mapping, columns) = (self.mapping, self.columns);
        let surplus = (columns.width..fields.len()).any(|index| !fields.get(index).is_empty());
        if fields.len() < columns.width || surplus {
            return Err(format!("{} fields, but the header has {}", fields.len(), columns.width));
        }
        self.reading.usage_point.clear();
        self.reading.usage_point.push_str(text(&mapping.usage_point, columns.usage_point, fields));
        if self.reading.usage_point.is_empty() {
            return Err("the usage point is empty".into());
        }
        if let Some(rule) = &mapping.channel {
            text(rule, columns.channel, fields).clone_into(&mut self.channel);
            if self.channel.is_empty() {
                return Err("the channel is empty".into());
            }
        }
        let meter = mapping.meter.as_ref().map_or("", |rule| text(rule, columns.meter, fields));
        set(&mut self.reading.meter, meter);
        self.read_quality(fields)?;
        self.reading.source_version = self.version(fields)?;
        self.cells.clear();
        let local = self.local_time(fields.get(columns.time))?;
        // Most layouts name one interval in a row; it is found once.
        let whole_row = match mapping.time.interval_s {
            Some(interval_s) => Some((interval_start(mapping, local, interval_s)?, interval_s)),
            None => None,
        };
        for column in &columns.values {
            let (start, length) = match (whole_row, column.slot) {
                (Some(interval), _) => interval,
                (None, Some((from, length))) => (utc(mapping.time.zone, local + from)?, length),
                (None, None) => return Err("the mapping names no interval".into()),
            };
            self.cells.push((start, length, value(mapping, column, fields)?));
        }
        Ok(())
    }

    /// Hands out the readings of the row parsed last.
    pub(super) fn emit(&mut self, outlet: &mut Outlet<'_>) -> Result<(), FileError> {
        for (column, &(start, length, value)) in self.columns.values.iter().zip(&self.cells) {
            let channel = column.channel.as_ref().unwrap_or(&self.channel);
            self.reading.channel.clone_from(channel);
            self.reading.unit.clone_from(&column.scaling.unit);
            self.reading.start_utc = start;
            self.reading.duration_s = length;
            self.reading.set_value(value, self.quality);
            outlet.reading(&self.reading)?;
        }
        Ok(())
    }

    fn read_quality(&mut self, fields: &Fields) -> Result<(), String> {
        let Some(rule) = &self.mapping.quality else { return Ok(()) };
        let cell = self.columns.quality.map_or("", |index| fields.get(index));
        set(&mut self.reading.source_quality, cell);
        let mapped = rule.map.iter().find(|(text, _)| text.eq_ignore_ascii_case(cell));
        self.quality = mapped.map_or(rule.default, |(_, quality)| *quality);
        Ok(())
    }

    fn version(&self, fields: &Fields) -> Result<i64, String> {
        let Some(index) = self.columns.version else { return Ok(self.constant_version) };
        let cell = fields.get(index);
        if cell.is_empty() {
            return Ok(self.constant_version);
        }
        let number = cell.parse().ok();
        let version = number.or_else(|| self.local_time(cell).ok().map(clock::version_of));
        version.ok_or_else(|| format!("version '{}' is neither a whole number nor a time", quote(cell)))
    }

    fn local_time(&self, cell: &str) -> Result<NaiveDateTime, String> {
        let time = self.parse_time(cell)?;
        let is_plausible = clock::plausible(time.and_utc()).is_some();
        if is_plausible { Ok(time) } else { Err(format!("the time {time} is out of range")) }
    }

    fn parse_time(&self, cell: &str) -> Result<NaiveDateTime, String> {
        let formats = &self.mapping.time.formats;
        if formats.is_empty() {
            let date =
                || NaiveDate::parse_from_str(cell, "%Y-%m-%d").ok().map(|date| date.and_time(NaiveTime::MIN));
            return clock::iso(cell).or_else(date).ok_or_else(|| not_a_time(cell, "2012-10-12 00:30:00"));
        }
        let parse = |format: &String| {
            let time = NaiveDateTime::parse_from_str(cell, format).ok();
            time.or_else(|| {
                NaiveDate::parse_from_str(cell, format).ok().map(|date| date.and_time(NaiveTime::MIN))
            })
        };
        formats.iter().find_map(parse).ok_or_else(|| not_a_time(cell, &formats.join("' or '")))
    }
}

fn not_a_time(cell: &str, expected: &str) -> String {
    format!("'{}' is not a time such as '{expected}'", quote(cell))
}

fn text<'t>(rule: &'t TextRule, index: Option<usize>, fields: &'t Fields) -> &'t str {
    match index {
        Some(index) => rule.apply(fields.get(index)),
        None => rule.constant.as_deref().unwrap_or(""),
    }
}

/// Sets an optional text, keeping its memory.
fn set(target: &mut Option<String>, text: &str) {
    match target {
        _ if text.is_empty() => *target = None,
        Some(target) => text.clone_into(target),
        None => *target = Some(text.to_owned()),
    }
}

/// Returns the start of the interval that a time names; a time that is no
/// multiple of the interval since midnight is refused.
fn interval_start(mapping: &Mapping, local: NaiveDateTime, interval_s: u32) -> Result<DateTime<Utc>, String> {
    let off_grid = interval_s <= 86_400 && !local.num_seconds_from_midnight().is_multiple_of(interval_s);
    if off_grid || local.nanosecond() != 0 {
        return Err(format!("the time {local} is off the grid of {interval_s} seconds"));
    }
    let labelled = utc(mapping.time.zone, local)?;
    match mapping.time.label {
        Label::Start => Ok(labelled),
        Label::End => Ok(labelled - TimeDelta::seconds(i64::from(interval_s))),
    }
}

fn utc(zone: Zone, local: NaiveDateTime) -> Result<DateTime<Utc>, String> {
    match zone {
        Zone::Fixed(east_s) => {
            clock::utc(local, east_s).ok_or_else(|| format!("the time {local} is out of range"))
        }
        Zone::Named(zone) => match zone.from_local_datetime(&local) {
            chrono::LocalResult::Single(time) => Ok(time.to_utc()),
            chrono::LocalResult::Ambiguous(..) => {
                Err(format!("{local} came twice in {zone}; which is meant is unknown"))
            }
            chrono::LocalResult::None => Err(format!("{local} did not exist in {zone}")),
        },
    }
}

fn value(mapping: &Mapping, column: &ValueColumn, fields: &Fields) -> Result<Option<Decimal>, String> {
    let cell = fields.get(column.index);
    if mapping.null.iter().any(|null| null.eq_ignore_ascii_case(cell)) {
        return Ok(None);
    }
    parse(cell, column).map(Some).map_err(|error| format!("value '{}' {error}", quote(cell)))
}

fn parse(cell: &str, column: &ValueColumn) -> Result<Decimal, DecimalError> {
    let value = Decimal::parse(cell)?;
    match (column.scaling.apply(value), column.decimals) {
        (Err(DecimalError::NotRepresentable), Some(decimals)) => {
            column.scaling.apply(value.restored(decimals)?)
        }
        (applied, _) => applied,
    }
}
