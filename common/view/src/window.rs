//! Windows of event time: fixed, sliding (kept as panes) and calendar windows.
//!
//! ```text
//!   HOP(ts, 10 min, 30 min): pane = gcd(10, 30) = 10 min
//!   panes     |  p0 |  p1 |  p2 |  p3 |  p4 |
//!   windows   [  p0    p1    p2 )
//!                   [  p1    p2    p3 )
//!                         [  p2    p3    p4 )
//! ```
//!
//! A group is stored by pane; a pane's start is a pure function of the event
//! time. Windows and panes are `[start, end)` in microseconds UTC.

use std::fmt;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, TimeZone};
use chrono_tz::Tz;
use sanso_state::Windows;

/// The unit of a calendar window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalendarUnit {
    /// A local day: 23, 24 or 25 hours.
    Day,
    /// Seven local days from a Monday.
    Week,
    /// A local month.
    Month,
    /// A local year.
    Year,
}

/// A view's window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Window {
    /// The view has no window: every group's window start is 0.
    None,
    /// Windows of one length, aligned to `origin_us`.
    Fixed {
        /// The length in microseconds.
        size_us: i64,
        /// How far apart windows start; equal to the size when tumbling.
        slide_us: i64,
        /// The length of a pane: the greatest common divisor of both.
        pane_us: i64,
        /// A window starts here and at every multiple of the slide from here.
        origin_us: i64,
    },
    /// Calendar windows in a time zone.
    Calendar {
        /// The unit.
        unit: CalendarUnit,
        /// The time zone by its IANA name.
        zone: Tz,
    },
}

/// The Monday of the week of 1970-01-01, in days and microseconds.
const MONDAY_DAYS: i64 = -3;
/// Microseconds in a day.
pub(crate) const DAY_US: i64 = 86_400_000_000;

impl Window {
    /// Creates windows of one length; `None` when the length is not a
    /// positive multiple of a positive slide.
    pub(crate) fn fixed(size_us: i64, slide_us: i64) -> Option<Self> {
        if size_us <= 0 || slide_us <= 0 || size_us % slide_us != 0 {
            return None;
        }
        // Whole weeks start on a Monday; the epoch was a Thursday.
        let origin_us = if size_us % (7 * DAY_US) == 0 { MONDAY_DAYS * DAY_US } else { 0 };
        Some(Window::Fixed { size_us, slide_us, pane_us: gcd(size_us, slide_us), origin_us })
    }

    /// Returns the start of the pane that holds an event.
    pub fn pane_of(&self, event_us: i64) -> i64 {
        match self {
            Window::None => 0,
            Window::Fixed { pane_us, origin_us, .. } => align(event_us, *pane_us, *origin_us),
            Window::Calendar { unit, zone } => calendar_bounds(*unit, *zone, event_us).0,
        }
    }

    /// Returns the end of the pane that starts at `pane_start`.
    pub fn pane_end(&self, pane_start: i64) -> i64 {
        match self {
            Window::None => i64::MAX,
            Window::Fixed { pane_us, .. } => pane_start.saturating_add(*pane_us),
            Window::Calendar { unit, zone } => calendar_bounds(*unit, *zone, pane_start).1,
        }
    }

    /// Returns about how long a pane is; without windows, longer than any.
    pub(crate) fn pane_about_us(&self) -> i64 {
        match self {
            Window::None => i64::MAX,
            Window::Fixed { pane_us, .. } => *pane_us,
            Window::Calendar { unit, .. } => match unit {
                CalendarUnit::Day => DAY_US,
                CalendarUnit::Week => 7 * DAY_US,
                CalendarUnit::Month => 30 * DAY_US,
                CalendarUnit::Year => 365 * DAY_US,
            },
        }
    }

    /// Returns the end of the window that starts at `start`.
    pub fn end_of(&self, start: i64) -> i64 {
        match self {
            Window::Fixed { size_us, .. } => start.saturating_add(*size_us),
            _ => self.pane_end(start),
        }
    }

    /// Returns the panes `[from, to)` that windows with `from <= start < to` need.
    pub fn pane_range(&self, from: i64, to: i64) -> (i64, i64) {
        match self {
            Window::None => (0, 1),
            Window::Calendar { .. } => (from, to),
            Window::Fixed { size_us, pane_us, .. } => (from, to.saturating_add(size_us - pane_us)),
        }
    }

    /// Says whether windows overlap, so that one is the sum of several panes.
    pub fn is_sliding(&self) -> bool {
        matches!(self, Window::Fixed { size_us, pane_us, .. } if size_us != pane_us)
    }

    /// Says whether the view has windows at all.
    pub fn is_some(&self) -> bool {
        !matches!(self, Window::None)
    }
}

impl Windows for Window {
    fn windows_of(&self, pane_start: i64) -> Vec<(i64, i64)> {
        match self {
            Window::None => Vec::new(),
            Window::Calendar { .. } => vec![(pane_start, self.pane_end(pane_start))],
            Window::Fixed { size_us, slide_us, origin_us, .. } => {
                let last = align(pane_start, *slide_us, *origin_us);
                let count = size_us / slide_us;
                (0..count)
                    .rev()
                    .map(|back| last.saturating_sub(back * slide_us))
                    .map(|start| (start, start.saturating_add(*size_us)))
                    .collect()
            }
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Window::None => f.write_str("none"),
            Window::Fixed { size_us, slide_us, .. } if size_us == slide_us => {
                write!(f, "tumbling, {}", Length(*size_us))
            }
            Window::Fixed { size_us, slide_us, pane_us, .. } => write!(
                f,
                "sliding, {} every {}, kept as panes of {}",
                Length(*size_us),
                Length(*slide_us),
                Length(*pane_us)
            ),
            Window::Calendar { unit, zone } => {
                let unit = match unit {
                    CalendarUnit::Day => "days",
                    CalendarUnit::Week => "weeks",
                    CalendarUnit::Month => "months",
                    CalendarUnit::Year => "years",
                };
                write!(f, "calendar {unit} of {}", zone.name())
            }
        }
    }
}

/// Writes a length of time in the largest unit that divides it.
struct Length(i64);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(i64, &str); 6] = [
            (DAY_US, "day"),
            (3_600_000_000, "hour"),
            (60_000_000, "minute"),
            (1_000_000, "second"),
            (1_000, "millisecond"),
            (1, "microsecond"),
        ];
        let (unit, name) =
            UNITS.into_iter().find(|(unit, _)| self.0 % unit == 0).unwrap_or((1, "microsecond"));
        let count = self.0 / unit;
        write!(f, "{count} {name}{}", if count == 1 { "" } else { "s" })
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn align(at: i64, step: i64, origin: i64) -> i64 {
    let past = (at.rem_euclid(step) - origin.rem_euclid(step)).rem_euclid(step);
    at.saturating_sub(past)
}

/// Returns the calendar window `[start, end)` that holds an instant.
///
/// An instant outside chrono's years (about ±262,000) falls into one window
/// of its own; decoding admits the years 1 to 9999 only.
fn calendar_bounds(unit: CalendarUnit, zone: Tz, at_us: i64) -> (i64, i64) {
    let Some(at) = DateTime::from_timestamp_micros(at_us) else {
        return (at_us, at_us.saturating_add(1));
    };
    let date = at.with_timezone(&zone).date_naive();
    let first = first_day(unit, date);
    let next = match unit {
        CalendarUnit::Day => first.checked_add_days(Days::new(1)),
        CalendarUnit::Week => first.checked_add_days(Days::new(7)),
        CalendarUnit::Month => first.checked_add_months(Months::new(1)),
        CalendarUnit::Year => first.checked_add_months(Months::new(12)),
    };
    let start = midnight(zone, first);
    let end = next.map_or(i64::MAX, |next| midnight(zone, next));
    (start, end)
}

fn first_day(unit: CalendarUnit, date: NaiveDate) -> NaiveDate {
    let first = match unit {
        CalendarUnit::Day => Some(date),
        CalendarUnit::Week => {
            date.checked_sub_days(Days::new(u64::from(date.weekday().num_days_from_monday())))
        }
        CalendarUnit::Month => date.with_day(1),
        CalendarUnit::Year => date.with_day(1).and_then(|date| date.with_month(1)),
    };
    first.unwrap_or(date)
}

/// Returns the instant at which a local date begins: its first moment, which
/// is not 00:00 where the clocks go forward at midnight.
fn midnight(zone: Tz, date: NaiveDate) -> i64 {
    let naive = date.and_time(chrono::NaiveTime::MIN);
    if let Some(instant) = zone.from_local_datetime(&naive).earliest() {
        return instant.timestamp_micros();
    }
    // 00:00 does not exist: the day begins at the transition, which is the
    // first instant whose local date is this one.
    let mut before = naive.and_utc().timestamp() - 2 * 86_400;
    let mut after = naive.and_utc().timestamp() + 2 * 86_400;
    while after - before > 1 {
        let middle = before + (after - before) / 2;
        let local = DateTime::from_timestamp(middle, 0).map(|t| t.with_timezone(&zone).naive_local());
        if local.is_some_and(|local| local >= naive) {
            after = middle;
        } else {
            before = middle;
        }
    }
    after * 1_000_000
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
