//! NEM12: series (200), days (300) and their quality (400).

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};

use super::{NEM_EAST_S, non_empty, reason_of, scaling_of, version_of};
use crate::clock;
use crate::decimal::Decimal;
use crate::event::{FileError, Outlet, Place, quote};
use crate::input::Fields;
use crate::quality::Quality;
use crate::reading::Reading;
use crate::unit::Scaling;

/// What a 200 record says.
pub(super) struct Series {
    usage_point: String,
    channel: String,
    meter: Option<String>,
    scaling: Scaling,
    interval_s: u32,
    /// Values per day.
    slots: usize,
}

/// One statement of quality.
struct Mark {
    quality: Quality,
    source_quality: String,
    reason: Option<String>,
}

/// What a 300 record and its 400 records say.
pub(super) struct Day {
    pub(super) place: Place,
    pub(super) text: String,
    /// Why the day can't be used.
    pub(super) fault: Option<String>,
    midnight: DateTime<Utc>,
    version: i64,
    values: Vec<Option<Decimal>>,
    /// The statements; the first is the 300 record's.
    marks: Vec<Mark>,
    /// For each value the index of its statement.
    marked: Vec<usize>,
}

impl Series {
    pub(super) fn parse(fields: &Fields) -> Result<Self, String> {
        let (usage_point, channel) = (fields.get(1), fields.get(4));
        if usage_point.is_empty() || channel.is_empty() {
            return Err("the 200 record lacks the NMI or the suffix".into());
        }
        let minutes = fields.get(8);
        let interval_s = match minutes {
            "5" => 300,
            "15" => 900,
            "30" => 1800,
            // Not in the specification; seen nowhere, but without doubt.
            "1" => 60,
            "10" => 600,
            "60" => 3600,
            _ => return Err(format!("interval length '{}' is not 5, 15 or 30", quote(minutes))),
        };
        Ok(Self {
            usage_point: usage_point.to_owned(),
            channel: channel.to_owned(),
            meter: non_empty(fields.get(6)),
            scaling: scaling_of(fields.get(7), channel),
            interval_s,
            slots: usize::try_from(86_400 / interval_s).expect("a small number"),
        })
    }

    /// Hands out the readings of a sound day.
    pub(super) fn emit(
        &self,
        day: &Day,
        reading: &mut Reading,
        outlet: &mut Outlet<'_>,
    ) -> Result<(), FileError> {
        reading.usage_point.clone_from(&self.usage_point);
        reading.channel.clone_from(&self.channel);
        reading.meter.clone_from(&self.meter);
        reading.unit.clone_from(&self.scaling.unit);
        reading.duration_s = self.interval_s;
        reading.source_version = day.version;
        let step = TimeDelta::seconds(i64::from(self.interval_s));
        let mut start = day.midnight;
        let mut current = None;
        for (value, &mark) in day.values.iter().zip(&day.marked) {
            let stated = &day.marks[mark];
            if current != Some(mark) {
                current = Some(mark);
                reading.source_quality = Some(stated.source_quality.clone());
                reading.reason.clone_from(&stated.reason);
            }
            reading.start_utc = start;
            reading.set_value(*value, stated.quality);
            outlet.reading(reading)?;
            start += step;
        }
        Ok(())
    }
}

impl Day {
    /// Parses a 300 record; what is wrong with it stands in `fault`.
    pub(super) fn parse(
        series: &Series,
        fields: &Fields,
        header_version: i64,
        place: Place,
        text: &str,
    ) -> Self {
        let mut day = Self {
            place,
            text: quote(text).to_owned(),
            fault: None,
            midnight: DateTime::UNIX_EPOCH,
            version: 0,
            values: Vec::with_capacity(series.slots),
            marks: Vec::with_capacity(1),
            marked: vec![0; series.slots],
        };
        day.fault = day.read(series, fields, header_version).err();
        day
    }

    fn read(&mut self, series: &Series, fields: &Fields, header_version: i64) -> Result<(), String> {
        let date = fields.get(1);
        self.midnight = clock::date8(date)
            .and_then(|date| clock::utc(date.and_time(NaiveTime::MIN), NEM_EAST_S))
            .ok_or_else(|| format!("'{}' is not a date such as 20240131", quote(date)))?;
        let behind = 2 + series.slots;
        let flag = fields.get(behind);
        let is_surplus = |index: usize| !fields.get(index).is_empty();
        let Some(quality) = Quality::of_nem(flag) else {
            return Err(wrong_count(series, fields));
        };
        if (behind + 5..fields.len()).any(is_surplus) {
            return Err(wrong_count(series, fields));
        }
        for slot in 0..series.slots {
            self.values.push(value_of(series, fields.get(2 + slot), slot)?);
        }
        let reason = reason_of(fields.get(behind + 1), fields.get(behind + 2));
        self.marks.push(Mark { quality, source_quality: flag.to_owned(), reason });
        self.version = version_of(fields.get(behind + 3), fields.get(behind + 4), header_version);
        Ok(())
    }

    /// Applies a 400 record, which overrides the quality of some intervals.
    pub(super) fn qualify(&mut self, fields: &Fields, place: Place) {
        if self.fault.is_some() {
            return;
        }
        let position = |index| fields.get(index).parse::<usize>().ok();
        let quality = Quality::of_nem(fields.get(3));
        let slots = self.marked.len();
        match (position(1), position(2), quality) {
            (Some(from), Some(to), Some(quality)) if from >= 1 && from <= to && to <= slots => {
                let reason = reason_of(fields.get(4), fields.get(5));
                self.marked[from - 1..to].fill(self.marks.len());
                self.marks.push(Mark { quality, source_quality: fields.get(3).to_owned(), reason });
            }
            _ => {
                let fault = format!(
                    "its 400 record at {place} does not name intervals within 1 to {slots} and a quality ('{}', '{}', '{}')",
                    quote(fields.get(1)),
                    quote(fields.get(2)),
                    quote(fields.get(3)),
                );
                self.fault = Some(fault);
            }
        }
    }
}

fn value_of(series: &Series, text: &str, slot: usize) -> Result<Option<Decimal>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let value = Decimal::parse(text).and_then(|value| series.scaling.apply(value));
    value.map(Some).map_err(|error| format!("value {} '{}' {error}", slot + 1, quote(text)))
}

/// Says how many values were found where the quality should follow them.
fn wrong_count(series: &Series, fields: &Fields) -> String {
    let found = (2..fields.len()).find(|&index| Quality::of_nem(fields.get(index)).is_some());
    let wanted = series.slots;
    match found {
        Some(index) if index - 2 != wanted => {
            let minutes = series.interval_s / 60;
            format!("{} values, but {wanted} of {minutes} minutes make a day", index - 2)
        }
        Some(_) => "more fields than a 300 record has".into(),
        None => format!("no quality flag behind {wanted} values"),
    }
}
