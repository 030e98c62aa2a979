//! Lengths of time as SQL writes them: `1 hour`, `30 minutes`, `1 month`.

use std::fmt;

use crate::window::DAY_US;

/// A length of time. Days are kept apart from hours, because a local day may
/// have 23 or 25 of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) months: i64,
    pub(crate) days: i64,
    pub(crate) micros: i64,
}

/// A text that is no interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotAnInterval(pub(crate) String);

impl fmt::Display for NotAnInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "found {:?}, expected an interval such as '30 minutes' or '1 day'", self.0)
    }
}

impl Interval {
    /// Parses pairs of a whole number and a unit.
    pub(crate) fn parse(text: &str) -> Result<Self, NotAnInterval> {
        Self::read(text).ok_or_else(|| NotAnInterval(text.to_owned()))
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace().peekable();
        let mut interval = Self::default();
        words.peek()?;
        while let Some(number) = words.next() {
            let number: i64 = number.parse().ok()?;
            interval = interval.plus(number, &words.next()?.to_ascii_lowercase())?;
        }
        Some(interval)
    }

    fn plus(mut self, number: i64, unit: &str) -> Option<Self> {
        let unit = unit.strip_suffix('s').filter(|unit| unit.len() > 1).unwrap_or(unit);
        let (field, factor) = match unit {
            "year" => (&mut self.months, 12),
            "month" => (&mut self.months, 1),
            "week" => (&mut self.days, 7),
            "day" => (&mut self.days, 1),
            "hour" => (&mut self.micros, 3_600_000_000),
            "minute" | "min" => (&mut self.micros, 60_000_000),
            "second" | "sec" => (&mut self.micros, 1_000_000),
            "millisecond" => (&mut self.micros, 1_000),
            "microsecond" => (&mut self.micros, 1),
            _ => return None,
        };
        *field = field.checked_add(number.checked_mul(factor)?)?;
        Some(self)
    }

    /// Returns the length in microseconds, a day being 24 hours; `None` when
    /// it has months, whose lengths differ.
    pub(crate) fn fixed_us(self) -> Option<i64> {
        if self.months != 0 {
            return None;
        }
        self.days.checked_mul(DAY_US)?.checked_add(self.micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_in_any_unit() {
        for (text, months, days, micros) in [
            ("1 hour", 0, 0, 3_600_000_000),
            ("30 minutes", 0, 0, 1_800_000_000),
            ("1 day 2 hours", 0, 1, 7_200_000_000),
            ("2 WEEKS", 0, 14, 0),
            ("1 month", 1, 0, 0),
            ("1 year", 12, 0, 0),
            ("5 microseconds", 0, 0, 5),
        ] {
            assert_eq!(Interval::parse(text), Ok(Interval { months, days, micros }), "{text}");
        }
    }

    #[test]
    fn other_text_is_no_interval() {
        for text in ["", "hour", "1", "1 fortnight", "1.5 hours", "9223372036854775807 years"] {
            assert_eq!(Interval::parse(text), Err(NotAnInterval(text.into())), "{text}");
        }
    }
}
