use proptest::prelude::*;

use super::*;

#[test]
fn decimals_are_parsed_exactly_or_not_at_all() {
    for (text, precision, scale, expected) in [
        ("0", 18, 6, Some(0)),
        ("-0.0", 18, 6, Some(0)),
        ("1", 18, 6, Some(1_000_000)),
        ("1.5", 18, 6, Some(1_500_000)),
        ("-1.000001", 18, 6, Some(-1_000_001)),
        ("1.50000000", 18, 6, Some(1_500_000)),
        ("1e3", 18, 6, Some(1_000_000_000)),
        ("1.25E-2", 18, 6, Some(12_500)),
        ("12500e-2", 18, 0, Some(125)),
        ("+2", 18, 0, Some(2)),
        (".5", 3, 1, Some(5)),
        ("5.", 3, 1, Some(50)),
        ("0e999999999999999999999", 18, 6, Some(0)),
        ("99999999999999999999999999999999999999", 38, 0, Some(10_i128.pow(38) - 1)),
        ("100000000000000000000000000000000000000", 38, 0, None),
        ("0.0000001", 18, 6, None),
        ("1.0000001", 18, 6, None),
        ("1000000000000", 18, 6, None),
        ("999999999999.999999", 18, 6, Some(10_i128.pow(18) - 1)),
        ("1e-999999999999999999999", 18, 6, None),
        ("1e999999999999999999999", 18, 6, None),
        ("1e", 18, 6, None),
        ("", 18, 6, None),
        (".", 18, 6, None),
        ("1.2.3", 18, 6, None),
        ("0x10", 18, 6, None),
        ("NaN", 18, 6, None),
        ("1 ", 18, 6, None),
        ("--1", 18, 6, None),
        ("1e+-5", 18, 6, None),
    ] {
        assert_eq!(parse_decimal(text, precision, scale).ok(), expected, "{text}");
    }
}

#[test]
fn timestamps_are_taken_in_any_offset_to_the_microsecond() {
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("2024-07-01T10:00:00+10:00", Some(1_719_792_000_000_000)),
        ("2024-07-01T00:00:00.000001Z", Some(1_719_792_000_000_001)),
        ("2024-07-01T00:00:00.0000001Z", None),
        ("2024-07-01T00:00:00", None),
        ("2024-07-01", None),
        ("2024-02-30T00:00:00Z", None),
        ("2016-12-31T23:59:60Z", None),
        ("0000-12-31T23:59:59Z", None),
        ("0001-01-01T00:00:00Z", Some(FIRST_US)),
        ("9999-12-31T23:59:59.999999Z", Some(LAST_US - 1)),
        ("2024-07-01T24:00:00Z", None),
        ("2024-07-01T00:60:00Z", None),
        ("2024-13-01T00:00:00Z", None),
        ("20x4-07-01T00:00:00Z", None),
        ("2024-07-01t00:00:00z", Some(1_719_792_000_000_000)),
        ("", None),
    ] {
        assert_eq!(parse_timestamp(text).ok(), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn formatting_and_parsing_a_decimal_gives_it_back(
        mantissa in -10_i128.pow(37)..10_i128.pow(37),
        scale in 0_i8..=38,
    ) {
        let text = format_decimal(mantissa, scale);
        prop_assert_eq!(parse_decimal(&text, 38, scale), Ok(mantissa), "{}", text);
    }

    #[test]
    fn formatting_and_parsing_a_timestamp_gives_it_back(micros in FIRST_US..LAST_US) {
        prop_assert_eq!(parse_timestamp(&format_timestamp(micros)), Ok(micros));
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in ".{0,60}", precision in 1_u8..=38, scale in 0_i8..=38) {
        let _ = parse_decimal(&text, precision, scale.min(precision as i8));
        let _ = parse_timestamp(&text);
        let _ = parse_date(&text);
        let _ = quote(&text);
    }

    #[test]
    fn no_number_makes_the_decimal_parser_panic(
        text in "[-+]?[0-9]{0,45}(\\.[0-9]{0,45})?([eE][-+]?[0-9]{1,22})?",
        precision in 1_u8..=38,
    ) {
        if let Ok(mantissa) = parse_decimal(&text, precision, 0) {
            prop_assert!(mantissa.unsigned_abs() < 10_u128.pow(u32::from(precision)));
        }
    }
}
