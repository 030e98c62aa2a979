use chrono_tz::Tz;
use proptest::prelude::*;
use sanso_state::Windows;

use super::*;

fn us(text: &str) -> i64 {
    crate::scalar::parse_timestamp(text).expect("a test writes valid timestamps")
}

fn calendar(unit: CalendarUnit, zone: &str) -> Window {
    let zone: Tz = zone.parse().expect("a test names a real zone");
    Window::Calendar { unit, zone }
}

const HOUR: i64 = 3_600_000_000;

#[test]
fn a_local_day_has_23_24_or_25_hours() {
    for (zone, inside, start, hours) in [
        ("Europe/Berlin", "2024-03-31T12:00:00Z", "2024-03-30T23:00:00Z", 23),
        ("Europe/Berlin", "2024-10-27T12:00:00Z", "2024-10-26T22:00:00Z", 25),
        ("Europe/Berlin", "2024-07-01T12:00:00Z", "2024-06-30T22:00:00Z", 24),
        ("Australia/Sydney", "2024-10-06T03:00:00Z", "2024-10-05T14:00:00Z", 23),
        ("Australia/Sydney", "2024-04-07T03:00:00Z", "2024-04-06T13:00:00Z", 25),
        ("UTC", "2024-10-06T03:00:00Z", "2024-10-06T00:00:00Z", 24),
        // The clocks go forward at midnight: the day begins at 01:00 local time.
        ("America/Santiago", "2024-09-08T12:00:00Z", "2024-09-08T04:00:00Z", 23),
        // The day that Samoa skipped leaves no gap between its neighbours.
        ("Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z", 24),
        ("Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", 24),
    ] {
        let window = calendar(CalendarUnit::Day, zone);
        let found = window.pane_of(us(inside));
        assert_eq!(found, us(start), "{zone} {inside}: {}", crate::scalar::format_timestamp(found));
        assert_eq!((window.end_of(found) - found) / HOUR, hours, "{zone} {inside}");
        assert_eq!(window.windows_of(found), vec![(found, found + hours * HOUR)]);
    }
}

#[test]
fn weeks_months_and_years_begin_at_local_midnight() {
    for (unit, start, end) in [
        (CalendarUnit::Week, "2024-03-24T23:00:00Z", "2024-03-31T22:00:00Z"),
        (CalendarUnit::Month, "2024-02-29T23:00:00Z", "2024-03-31T22:00:00Z"),
        (CalendarUnit::Year, "2023-12-31T23:00:00Z", "2024-12-31T23:00:00Z"),
    ] {
        let window = calendar(unit, "Europe/Berlin");
        let found = window.pane_of(us("2024-03-30T12:00:00Z"));
        assert_eq!((found, window.end_of(found)), (us(start), us(end)), "{unit:?}");
    }
}

#[test]
fn fixed_windows_are_aligned_to_the_epoch_and_weeks_to_monday() {
    let half_hour = Window::fixed(HOUR / 2, HOUR / 2).expect("a positive size");
    assert_eq!(half_hour.pane_of(us("2024-07-01T00:59:59.999999Z")), us("2024-07-01T00:30:00Z"));
    assert_eq!(half_hour.pane_of(us("1969-12-31T23:59:59Z")), us("1969-12-31T23:30:00Z"));
    let week = Window::fixed(7 * DAY_US, 7 * DAY_US).expect("a positive size");
    assert_eq!(week.pane_of(us("2024-07-07T23:00:00Z")), us("2024-07-01T00:00:00Z"));
}

#[test]
fn a_sliding_window_is_the_sum_of_its_panes() {
    let window = Window::fixed(HOUR, HOUR / 6).expect("the size is a multiple of the slide");
    assert!(window.is_sliding());
    let pane = window.pane_of(us("2024-07-01T10:25:00Z"));
    assert_eq!(pane, us("2024-07-01T10:20:00Z"));
    let windows = window.windows_of(pane);
    assert_eq!(windows.len(), 6);
    assert_eq!(windows[0], (us("2024-07-01T09:30:00Z"), us("2024-07-01T10:30:00Z")));
    assert_eq!(windows[5], (us("2024-07-01T10:20:00Z"), us("2024-07-01T11:20:00Z")));
    let from = us("2024-07-01T09:00:00Z");
    assert_eq!(window.pane_range(from, from + 1), (from, from + HOUR - HOUR / 6 + 1));
}

#[test]
fn a_slide_that_does_not_divide_the_size_is_no_window() {
    assert_eq!(Window::fixed(HOUR, HOUR / 2 + 1), None);
    assert_eq!(Window::fixed(0, 0), None);
    assert_eq!(Window::fixed(HOUR, -HOUR), None);
}

fn any_window() -> impl Strategy<Value = Window> {
    let zone = prop_oneof![
        Just("Europe/Berlin"),
        Just("Australia/Sydney"),
        Just("Australia/Lord_Howe"),
        Just("Asia/Kolkata"),
        Just("America/Santiago"),
    ];
    let unit = prop_oneof![
        Just(CalendarUnit::Day),
        Just(CalendarUnit::Week),
        Just(CalendarUnit::Month),
        Just(CalendarUnit::Year),
    ];
    prop_oneof![
        (1_i64..100, 1_i64..5).prop_map(|(slide, times)| {
            Window::fixed(slide * times * 60_000_000, slide * 60_000_000).expect("a multiple")
        }),
        (zone, unit).prop_map(|(zone, unit)| calendar(unit, zone)),
    ]
}

proptest! {
    #[test]
    fn every_instant_lies_in_its_pane_and_in_all_windows_of_it(
        window in any_window(),
        at in 0_i64..2_000_000_000_000_000,
    ) {
        let pane = window.pane_of(at);
        prop_assert!(pane <= at && at < window.pane_end(pane));
        prop_assert_eq!(window.pane_of(pane), pane);
        prop_assert_eq!(window.pane_of(window.pane_end(pane)), window.pane_end(pane));
        let windows = window.windows_of(pane);
        prop_assert!(!windows.is_empty());
        for (start, end) in windows {
            prop_assert!(start <= at && at < end);
            prop_assert_eq!(window.end_of(start), end);
            let (from, to) = window.pane_range(start, start + 1);
            prop_assert!(from <= pane && pane < to);
        }
    }

    #[test]
    fn no_instant_makes_a_window_panic(window in any_window(), at in any::<i64>()) {
        let pane = window.pane_of(at);
        let _ = (window.pane_end(pane), window.windows_of(pane), window.pane_range(at, pane));
    }
}
