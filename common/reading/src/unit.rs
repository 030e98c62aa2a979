//! Units: scaled to one base unit per quantity, by powers of ten only.

use crate::decimal::{Decimal, DecimalError};

/// The base unit of a quantity and the power of ten that leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// The unit in which canonical values are given, e.g. `kWh`.
    pub unit: String,
    /// `canonical = value in the file * 10^power`.
    pub power: i32,
}

impl Scaling {
    /// Finds the base unit of a unit as written in a file, whatever its case:
    /// `Wh`, `WH`, `KWH`, `MWh` are scaled to `kWh`. A unit that isn't known is
    /// kept as it is, and so is an empty one (where a format implies a unit,
    /// its parser fills it in before).
    pub fn of(unit: &str) -> Self {
        let unit = unit.trim();
        let lower = unit.to_ascii_lowercase();
        let known = |base: &str, power| Self { unit: base.to_owned(), power };
        if let Some(base) = plain(&lower) {
            return known(base, 0);
        }
        for (quantity, base) in
            [("wh", "kWh"), ("varh", "kvarh"), ("vah", "kVAh"), ("w", "kW"), ("var", "kvar"), ("va", "kVA")]
        {
            match lower.strip_suffix(quantity) {
                Some("") => return known(base, -3),
                Some("k") => return known(base, 0),
                // Lower-case m would be milli, which no meter file means for energy.
                Some("m") => return known(base, 3),
                Some("g") => return known(base, 6),
                _ => {}
            }
        }
        for (quantity, base) in [("v", "V"), ("a", "A")] {
            match lower.strip_suffix(quantity) {
                Some("") => return known(base, 0),
                Some("k") => return known(base, 3),
                Some("m") if unit.starts_with('m') => return known(base, -3),
                _ => {}
            }
        }
        Self { unit: unit.to_owned(), power: 0 }
    }

    /// Returns the canonical value of a number in the file's unit.
    ///
    /// # Errors
    /// [`DecimalError::NotRepresentable`] when scaling leaves `DECIMAL(18,6)`.
    pub fn apply(&self, value: Decimal) -> Result<Decimal, DecimalError> {
        value.shifted(self.power).canonical()
    }
}

/// Units that are base units themselves and are only respelt.
fn plain(lower: &str) -> Option<&'static str> {
    Some(match lower {
        "hz" => "Hz",
        "m3" | "m^3" | "m³" => "m3",
        "ft3" | "cf" => "ft3",
        "therm" | "therms" => "therm",
        "mj" => "MJ",
        "gj" => "GJ",
        "pf" => "pf",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_scaled_to_one_base_unit_whatever_their_case() {
        for (unit, base, power) in [
            ("kWh", "kWh", 0),
            ("KWH", "kWh", 0),
            ("KWh", "kWh", 0),
            ("WH", "kWh", -3),
            (" Wh ", "kWh", -3),
            ("MWh", "kWh", 3),
            ("kVArh", "kvarh", 0),
            ("VARH", "kvarh", -3),
            ("VAh", "kVAh", -3),
            ("kW", "kW", 0),
            ("W", "kW", -3),
            ("kVAr", "kvar", 0),
            ("V", "V", 0),
            ("kV", "V", 3),
            ("mA", "A", -3),
            ("therm", "therm", 0),
            ("", "", 0),
            ("furlong", "furlong", 0),
        ] {
            assert_eq!(Scaling::of(unit), Scaling { unit: base.into(), power }, "{unit}");
        }
    }

    #[test]
    fn scaling_never_rounds() {
        let wh = Scaling::of("Wh");
        let milli = Decimal::parse("0.001").expect("a number");
        assert_eq!(wh.apply(milli).expect("fits").to_string(), "0.000001");
        let finer = Decimal::parse("0.0001").expect("a number");
        assert_eq!(wh.apply(finer), Err(DecimalError::NotRepresentable));
    }
}
