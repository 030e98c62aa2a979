//! What an `IntervalReading` says, and the reading that it becomes.

use std::borrow::Cow;
use std::fmt;

use super::series::Series;
use super::shape::{Field, Shaped};
use crate::clock;
use crate::decimal::Decimal;
use crate::event::quote;
use crate::quality::Quality;
use crate::reading::Reading;

/// The texts of an `IntervalReading`, in UTF-8; empty where it says nothing.
pub(super) struct Texts<'t> {
    /// The byte behind its opening tag.
    pub(super) at: u64,
    start: &'t [u8],
    duration: &'t [u8],
    value: &'t [u8],
    /// Codes with commas between them.
    qualities: &'t [u8],
}

impl<'t> Texts<'t> {
    pub(super) fn of_shaped(shaped: &Shaped<'t>) -> Self {
        Self {
            at: shaped.at,
            start: shaped.text(Field::Start),
            duration: shaped.text(Field::Duration),
            value: shaped.text(Field::Value),
            qualities: shaped.text(Field::Quality),
        }
    }

    /// Fills in what a reading has of its own; an error says what is wrong with it.
    pub(super) fn fill(&self, reading: &mut Reading, series: &Series) -> Result<(), String> {
        reading.start_utc = clock::seconds(self.start).ok_or_else(|| {
            format!("start '{}' is not a time in whole seconds since 1970", quote(&shown(self.start)))
        })?;
        let stated = if self.duration.is_empty() {
            series.interval_s
        } else {
            clock::whole(self.duration).and_then(|seconds| u32::try_from(seconds).ok())
        };
        let duration = stated.filter(|seconds| *seconds > 0);
        reading.duration_s = duration.ok_or_else(|| {
            format!("duration '{}' is not a number of seconds", quote(&shown(self.duration)))
        })?;
        let value = if self.value.is_empty() {
            None
        } else {
            let value = Decimal::parse_bytes(self.value, [b'.'; 2]);
            let value = value.and_then(|value| series.scaling.apply(value));
            Some(value.map_err(|error| format!("value '{}' {error}", quote(&shown(self.value))))?)
        };
        let mut quality = Quality::Unqualified;
        if self.qualities.is_empty() {
            reading.source_quality = None;
        } else {
            let stated = reading.source_quality.get_or_insert_default();
            stated.clear();
            stated.push_str(&shown(self.qualities));
            let codes = stated.split(',').filter(|code| !code.is_empty());
            quality = codes.map(Quality::of_espi).reduce(Quality::worse).unwrap_or(quality);
        }
        reading.set_value(value, quality);
        Ok(())
    }
}

impl fmt::Display for Texts<'_> {
    /// Shows the record as a refusal quotes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [start, duration, value, qualities] =
            [self.start, self.duration, self.value, self.qualities].map(shown);
        write!(f, "IntervalReading start={start} duration={duration} value={value} quality={qualities}")
    }
}

fn shown(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(text)
}

/// The texts of a reading that is read event by event.
#[derive(Default)]
pub(super) struct Found {
    at: u64,
    start: String,
    duration: String,
    value: String,
    qualities: String,
}

impl Found {
    /// Forgets the reading before, but keeps its memory for the next.
    pub(super) fn restart(&mut self, at: u64) {
        self.at = at;
        for text in [&mut self.start, &mut self.duration, &mut self.value, &mut self.qualities] {
            text.clear();
        }
    }

    /// Takes in a field. The last of several counts, but all qualities.
    pub(super) fn note(&mut self, field: Field, text: &str) {
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

    pub(super) fn texts(&self) -> Texts<'_> {
        Texts {
            at: self.at,
            start: self.start.as_bytes(),
            duration: self.duration.as_bytes(),
            value: self.value.as_bytes(),
            qualities: self.qualities.as_bytes(),
        }
    }
}
