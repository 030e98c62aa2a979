//! Exact decimal numbers as they stand in meter files.
//!
//! No value passes through a float. A number that the platform's
//! `DECIMAL(18,6)` can't hold is an error, never rounded.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The digits behind the point that a canonical value may have.
pub const SCALE: u32 = 6;
/// The digits that a canonical value may have.
pub const PRECISION: u32 = 18;

/// The largest power of ten that an `i128` holds.
const POWER_MAX: u32 = 38;
/// Exponents beyond this are refused, so that nothing is ever printed at absurd length.
const EXPONENT_MAX: u32 = 400;

/// An exact decimal number, `mantissa * 10^exponent`.
///
/// Always in lowest terms (a mantissa other than zero doesn't end in the digit
/// zero; zero has the exponent zero), so that equality is equality of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Decimal {
    mantissa: i128,
    exponent: i32,
}

/// Why a text or number is no canonical value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// The text isn't a decimal number.
    #[error("is not a decimal number")]
    NotANumber,
    /// The number can't be held exactly.
    #[error("cannot be held exactly with 12 digits before and 6 behind the decimal point")]
    NotRepresentable,
}

impl Decimal {
    /// The number zero.
    pub const ZERO: Self = Self { mantissa: 0, exponent: 0 };

    /// Creates `mantissa * 10^exponent`.
    pub fn new(mantissa: i128, exponent: i32) -> Self {
        let (mut mantissa, mut exponent) = (mantissa, exponent);
        if mantissa == 0 {
            return Self::ZERO;
        }
        while mantissa % 10 == 0 {
            mantissa /= 10;
            exponent = exponent.saturating_add(1);
        }
        Self { mantissa, exponent }
    }

    /// Creates the number of `micro` millionths.
    pub fn from_micro(micro: i64) -> Self {
        Self::new(i128::from(micro), -(SCALE as i32))
    }

    /// Parses `-12.5`, `.5`, `5.`, `1.25e-3` and the like. Blanks, thousands
    /// separators, infinities and empty texts are no numbers.
    ///
    /// # Errors
    /// [`DecimalError::NotANumber`], and [`DecimalError::NotRepresentable`]
    /// for more significant digits than an `i128` holds.
    pub fn parse(text: &str) -> Result<Self, DecimalError> {
        Self::parse_marked(text, b'.', b'.')
    }

    /// Parses as [`Decimal::parse`], with either of two characters as the decimal mark.
    ///
    /// # Errors
    /// As [`Decimal::parse`].
    pub fn parse_marked(text: &str, mark: u8, other_mark: u8) -> Result<Self, DecimalError> {
        Self::parse_bytes(text.as_bytes(), [mark, other_mark])
    }

    /// Parses as [`Decimal::parse_marked`] does, text that need not be known to be UTF-8.
    pub(crate) fn parse_bytes(bytes: &[u8], marks: [u8; 2]) -> Result<Self, DecimalError> {
        let (negative, bytes) = match bytes.split_first() {
            Some((b'-', rest)) => (true, rest),
            Some((b'+', rest)) => (false, rest),
            _ => (false, bytes),
        };
        if let Some(number) = Self::parse_short(negative, bytes, marks) {
            return Ok(number);
        }
        let mut digits = Digits::default();
        let mut seen_mark = false;
        let mut exponent = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            match byte {
                b'0'..=b'9' => digits.push(byte - b'0', seen_mark)?,
                b'e' | b'E' if digits.count > 0 => {
                    exponent = parse_exponent(&bytes[at + 1..])?;
                    break;
                }
                _ if marks.contains(&byte) && !seen_mark => seen_mark = true,
                _ => return Err(DecimalError::NotANumber),
            }
        }
        if digits.count == 0 {
            return Err(DecimalError::NotANumber);
        }
        digits.finish(negative, exponent)
    }

    /// Parses what nearly every value is, at most [`PRECISION`] characters,
    /// in 64 bits, several times as fast; `None` leaves it to the general way.
    fn parse_short(negative: bool, bytes: &[u8], marks: [u8; 2]) -> Option<Self> {
        if bytes.len() > PRECISION as usize {
            return None;
        }
        let (mut mantissa, mut digits, mut behind_mark) = (0_i64, 0, None);
        for &byte in bytes {
            if byte.is_ascii_digit() {
                mantissa = mantissa * 10 + i64::from(byte - b'0');
                digits += 1;
            } else if marks.contains(&byte) && behind_mark.is_none() {
                behind_mark = Some(digits);
            } else {
                return None;
            }
        }
        if digits == 0 {
            return None;
        }
        if mantissa == 0 {
            return Some(Self::ZERO);
        }
        let mut exponent = behind_mark.map_or(0, |before| before - digits);
        while mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        Some(Self { mantissa: i128::from(if negative { -mantissa } else { mantissa }), exponent })
    }

    /// Returns the number times `10^power`.
    #[must_use]
    pub fn shifted(self, power: i32) -> Self {
        if self.mantissa == 0 {
            return self;
        }
        Self { mantissa: self.mantissa, exponent: self.exponent.saturating_add(power) }
    }

    /// Returns the number of millionths.
    ///
    /// # Errors
    /// [`DecimalError::NotRepresentable`] when that is not a whole number of
    /// at most 18 digits.
    pub fn micro(self) -> Result<i64, DecimalError> {
        if self.mantissa == 0 {
            return Ok(0);
        }
        let power = self.exponent.saturating_add(SCALE as i32);
        let power = u32::try_from(power).map_err(|_| DecimalError::NotRepresentable)?;
        if power > PRECISION {
            return Err(DecimalError::NotRepresentable);
        }
        // All that has at most 18 digits fits 64 bits, before scaling and after it.
        let mantissa = i64::try_from(self.mantissa).map_err(|_| DecimalError::NotRepresentable)?;
        let scaled = mantissa.checked_mul(10_i64.pow(power)).ok_or(DecimalError::NotRepresentable)?;
        if scaled.unsigned_abs() >= 10_u64.pow(PRECISION) {
            return Err(DecimalError::NotRepresentable);
        }
        Ok(scaled)
    }

    /// Returns the power of ten of the first digit.
    fn magnitude(self) -> i64 {
        let digits = self.mantissa.unsigned_abs().checked_ilog10().unwrap_or(0);
        i64::from(digits) + i64::from(self.exponent)
    }

    /// Brings a number that went through a float of single precision
    /// (`1.4529999`) back to the decimal that was meant (`1.453`), given the
    /// digits behind the point at which it was measured.
    ///
    /// # Errors
    /// [`DecimalError::NotRepresentable`] when the nearest such decimal is a
    /// millionth or more away.
    pub fn restored(self, decimals: u32) -> Result<Self, DecimalError> {
        let lost = i64::from(self.exponent) + i64::from(decimals);
        if lost >= 0 {
            return Ok(self);
        }
        let power = u32::try_from(-lost).ok().filter(|power| *power < POWER_MAX);
        let unit = 10_i128.pow(power.ok_or(DecimalError::NotRepresentable)?);
        let (floor, rest) = (self.mantissa.div_euclid(unit), self.mantissa.rem_euclid(unit));
        let (nearest, distance) = if rest > unit / 2 { (floor + 1, unit - rest) } else { (floor, rest) };
        let away = Self::new(distance, self.exponent);
        let is_near = distance == 0 || away.magnitude() < -i64::from(SCALE);
        if is_near {
            Ok(Self::new(nearest, -(i32::try_from(decimals).map_err(|_| DecimalError::NotRepresentable)?)))
        } else {
            Err(DecimalError::NotRepresentable)
        }
    }

    /// Returns the number itself if `DECIMAL(18,6)` holds it exactly.
    ///
    /// # Errors
    /// [`DecimalError::NotRepresentable`].
    pub fn canonical(self) -> Result<Self, DecimalError> {
        self.micro().map(|_| self)
    }
}

/// Digits on their way into a mantissa; zeros wait, because they may be trailing.
#[derive(Default)]
struct Digits {
    mantissa: i128,
    zeros: u32,
    count: u32,
    behind_mark: i32,
}

impl Digits {
    fn push(&mut self, digit: u8, behind_mark: bool) -> Result<(), DecimalError> {
        self.count = self.count.saturating_add(1);
        self.behind_mark = self.behind_mark.saturating_add(i32::from(behind_mark));
        if digit == 0 {
            self.zeros = self.zeros.saturating_add(u32::from(self.mantissa != 0));
            return Ok(());
        }
        let power = self.zeros.saturating_add(1);
        if power > POWER_MAX {
            return Err(DecimalError::NotRepresentable);
        }
        let shift = if power == 1 { 10 } else { 10_i128.pow(power) };
        let shifted = self.mantissa.checked_mul(shift);
        let sum = shifted.and_then(|mantissa| mantissa.checked_add(i128::from(digit)));
        self.mantissa = sum.ok_or(DecimalError::NotRepresentable)?;
        self.zeros = 0;
        Ok(())
    }

    fn finish(self, negative: bool, exponent: i32) -> Result<Decimal, DecimalError> {
        if self.mantissa == 0 {
            return Ok(Decimal::ZERO);
        }
        let zeros = i32::try_from(self.zeros).unwrap_or(i32::MAX);
        let exponent = exponent.saturating_add(zeros).saturating_sub(self.behind_mark);
        if exponent.unsigned_abs() > EXPONENT_MAX {
            return Err(DecimalError::NotRepresentable);
        }
        let mantissa = if negative { -self.mantissa } else { self.mantissa };
        Ok(Decimal { mantissa, exponent })
    }
}

fn parse_exponent(bytes: &[u8]) -> Result<i32, DecimalError> {
    let (negative, digits) = match bytes.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, bytes),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(DecimalError::NotANumber);
    }
    let fold = |value: i32, digit: &u8| value.saturating_mul(10).saturating_add(i32::from(digit - b'0'));
    let value = digits.iter().fold(0, fold);
    Ok(if negative { -value } else { value })
}

impl FromStr for Decimal {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, DecimalError> {
        Self::parse(text)
    }
}

impl From<i64> for Decimal {
    fn from(number: i64) -> Self {
        Self::new(i128::from(number), 0)
    }
}

impl fmt::Display for Decimal {
    /// Writes the number in full, without an exponent and without needless zeros.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mantissa < 0 {
            f.write_str("-")?;
        }
        let digits = self.mantissa.unsigned_abs();
        if self.exponent >= 0 {
            let zeros = usize::try_from(self.exponent).unwrap_or(0);
            return write!(f, "{digits}{:0<zeros$}", "");
        }
        let behind = usize::try_from(self.exponent.unsigned_abs()).unwrap_or(usize::MAX);
        match u32::try_from(behind).ok().filter(|power| *power <= POWER_MAX) {
            Some(power) => {
                let unit = 10_u128.pow(power);
                write!(f, "{}.{:0>behind$}", digits / unit, digits % unit)
            }
            None => write!(f, "0.{digits:0>behind$}"),
        }
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number: serde_json::Number = self.to_string().parse().map_err(serde::ser::Error::custom)?;
        number.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        Self::parse(&number.to_string()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_exponent_is_too_far_to_be_refused() {
        for text in [".000000007e-677230167288204447", "1e-2147483648", "1e2147483648", "1e-401"] {
            assert_eq!(Decimal::parse(text), Err(DecimalError::NotRepresentable), "{text}");
        }
    }

    #[test]
    fn the_short_way_and_the_general_way_agree() {
        for digits in ["0", "7", "10", "1200", "000120", "999999999999999999", "100000000000000000"] {
            for at in 0..=digits.len() {
                for sign in ["", "-", "+"] {
                    let text = format!("{sign}{}.{}", &digits[..at], &digits[at..]);
                    // An exponent of nothing asks for the general way.
                    let general = Decimal::parse(&format!("{text}e0"));
                    assert!(general.is_ok(), "{text}");
                    assert_eq!(Decimal::parse(&text), general, "{text}");
                }
            }
        }
        for text in ["", ".", "-", "1..2", "1.2.3", "--1", "1 2"] {
            assert_eq!(Decimal::parse(text), Err(DecimalError::NotANumber), "{text}");
        }
        let nineteen = "1234567890123456789";
        assert_eq!(Decimal::parse(nineteen).map(|value| value.to_string()), Ok(nineteen.to_owned()));
    }

    fn shown(text: &str) -> String {
        Decimal::parse(text).expect(text).to_string()
    }

    #[test]
    fn numbers_are_read_exactly_and_printed_in_full() {
        for (text, printed) in [
            ("0", "0"),
            ("-0.000", "0"),
            ("1.500", "1.5"),
            (".005", "0.005"),
            ("5.", "5"),
            ("+7", "7"),
            ("006342.8", "6342.8"),
            ("1.25e-3", "0.00125"),
            ("12E3", "12000"),
            ("0e99999999999", "0"),
            ("-10.000", "-10"),
            ("100000000000000000000000000000000000000000", "100000000000000000000000000000000000000000"),
        ] {
            assert_eq!(shown(text), printed, "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_numbers() {
        for text in
            ["", " ", "-", ".", "1,5", "1.2.3", "NaN", "inf", "1e", "1e+", "1e5.0", "e5", "0x10", "1 2"]
        {
            assert_eq!(Decimal::parse(text), Err(DecimalError::NotANumber), "{text}");
        }
        assert_eq!(Decimal::parse("1e999999"), Err(DecimalError::NotRepresentable));
        assert_eq!(Decimal::parse(&"123456789".repeat(6)), Err(DecimalError::NotRepresentable));
    }

    #[test]
    fn nothing_is_rounded_into_the_canonical_scale() {
        let micro = |text: &str| Decimal::parse(text).expect(text).micro();
        assert_eq!(micro("0.000001"), Ok(1));
        assert_eq!(micro("0.0000001"), Err(DecimalError::NotRepresentable));
        assert_eq!(micro("999999999999.999999"), Ok(999_999_999_999_999_999));
        assert_eq!(micro("1000000000000"), Err(DecimalError::NotRepresentable));
        assert_eq!(micro("-0.125000000"), Ok(-125_000));
        assert_eq!(Decimal::parse("125").expect("a number").shifted(-3).micro(), Ok(125_000));
    }

    #[test]
    fn single_precision_is_undone_at_the_measured_digits_only() {
        let restored =
            |text: &str| Decimal::parse(text).expect(text).restored(3).map(|value| value.to_string());
        assert_eq!(restored("1.4529999"), Ok("1.453".into()));
        assert_eq!(restored("2.1600001"), Ok("2.16".into()));
        assert_eq!(restored("-0.9999999"), Ok("-1".into()));
        assert_eq!(restored("12"), Ok("12".into()));
        assert_eq!(restored("1.453001"), Err(DecimalError::NotRepresentable));
        assert_eq!(restored("1.4525"), Err(DecimalError::NotRepresentable));
    }

    #[test]
    fn decimals_are_json_numbers_in_full() {
        let value = Decimal::parse("123456789012.345678").expect("a number");
        let json = serde_json::to_string(&value).expect("serialise");
        assert_eq!(json, "123456789012.345678");
        assert_eq!(serde_json::from_str::<Decimal>(&json).expect("parse"), value);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(micro in any::<i64>()) {
            let value = Decimal::from_micro(micro);
            prop_assert_eq!(Decimal::parse(&value.to_string()), Ok(value));
            if micro.unsigned_abs() < 10_u64.pow(PRECISION) {
                prop_assert_eq!(value.micro(), Ok(micro));
            }
        }

        #[test]
        fn any_text_is_judged_without_panic(text in "[-+0-9.eE,]{0,60}") {
            if let Ok(value) = Decimal::parse(&text) {
                prop_assert_eq!(Decimal::parse(&value.to_string()), Ok(value));
            }
        }
    }
}
