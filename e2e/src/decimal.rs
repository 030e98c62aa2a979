//! Exact decimals as millionths: totals are compared to the last digit.

use serde_json::Value;

/// Reads a decimal in plain notation as millionths.
///
/// # Panics
/// When the text is not a decimal of at most six digits after the point.
pub fn micro(text: &str) -> i128 {
    let text = text.trim();
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    assert!(fraction.len() <= 6, "{text} has more than six digits after the point");
    let number: i128 =
        format!("{whole}{fraction:0<6}").parse().unwrap_or_else(|_| panic!("{text} is a decimal"));
    sign * number
}

/// Reads a JSON number as millionths; null is zero.
///
/// # Panics
/// When it is neither.
pub fn micro_of(value: &Value) -> i128 {
    match value {
        Value::Null => 0,
        Value::Number(number) => micro(&number.to_string()),
        other => panic!("{other} is not a number"),
    }
}

#[cfg(test)]
mod tests {
    use super::micro;

    #[test]
    fn decimals_are_read_exactly() {
        assert_eq!(micro("367126.775"), 367_126_775_000);
        assert_eq!(micro("-0.000001"), -1);
        assert_eq!(micro("12"), 12_000_000);
        assert_eq!(micro("1.500000000"), 1_500_000);
    }
}
