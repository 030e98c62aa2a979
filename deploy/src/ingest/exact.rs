//! Exact decimals as text and scaled integers, for totals that must be equal.

use std::fmt;

/// Reads a plain decimal as an integer of 10^-`scale`; `None` when it is no
/// number, has more digits than that, or is too large.
pub(crate) fn scaled(text: &str, scale: u32) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let missing = scale.checked_sub(u32::try_from(fraction.len()).ok()?)?;
    let joined: i128 = format!("{whole}{fraction}").parse().ok()?;
    let value = joined.checked_mul(10_i128.checked_pow(missing)?)?;
    Some(if negative { -value } else { value })
}

/// An exact sum of decimals of any scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    mantissa: i128,
    scale: u32,
    /// Set when the sum no longer fits 128 bits: then it says so.
    overflowed: bool,
}

impl Sum {
    /// Adds an integer of 10^-`scale`.
    pub(crate) fn add(&mut self, mantissa: i128, scale: u32) {
        let wide = self.scale.max(scale);
        let at_wide = |value: i128, from: u32| 10_i128.checked_pow(wide - from)?.checked_mul(value);
        let sum = at_wide(self.mantissa, self.scale)
            .zip(at_wide(mantissa, scale))
            .and_then(|(mine, other)| mine.checked_add(other));
        match sum {
            Some(sum) => (self.mantissa, self.scale) = (sum, wide),
            None => self.overflowed = true,
        }
    }

    /// Adds another sum.
    pub(crate) fn merge(&mut self, other: &Sum) {
        self.overflowed |= other.overflowed;
        self.add(other.mantissa, other.scale);
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.overflowed {
            return f.pad("too large");
        }
        let scale = self.scale as usize;
        let digits = format!("{:0>width$}", self.mantissa.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let sign = if self.mantissa < 0 { "-" } else { "" };
        let point = if scale == 0 { "" } else { "." };
        f.pad(&format!("{sign}{whole}{point}{fraction}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_exactly_or_not_at_all() {
        for (text, scale, expected) in [
            ("0", 3, Some(0)),
            ("12.5", 3, Some(12_500)),
            ("-0.125000", 3, Some(-125)),
            ("7.000000", 0, Some(7)),
            ("0.1234", 3, None),
            ("1e3", 3, None),
            ("", 3, None),
            (".5", 3, None),
            ("--5", 3, None),
        ] {
            assert_eq!(scaled(text, scale), expected, "{text}");
        }
    }

    #[test]
    fn sums_keep_every_digit() {
        let mut sum = Sum::default();
        assert_eq!(sum.to_string(), "0");
        sum.add(125, 3);
        sum.add(2, 0);
        assert_eq!(sum.to_string(), "2.125");
        sum.add(-30_000_001, 7);
        assert_eq!(sum.to_string(), "-0.8750001");
    }

    #[test]
    fn a_sum_that_does_not_fit_says_so() {
        let mut sum = Sum::default();
        sum.add(i128::MAX, 0);
        sum.add(1, 6);
        assert_eq!(sum.to_string(), "too large");
    }
}
