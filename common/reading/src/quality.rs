//! One vocabulary for the quality statements of all formats.
//!
//! | quality | NEM12/13 | ESPI | MSCONS QTY | AU retailer CSV |
//! |---|---|---|---|---|
//! | `actual` | A | 14 raw | 220 | not estimated |
//! | `validated` | | 0 valid, 17, 18 verified | | |
//! | `final_substituted` | F | | | |
//! | `substituted` | S | 7 manually edited | 67 | |
//! | `estimated` | E | 8, 9, 12 projected | 187, 201, Z18 | estimated |
//! | `derived` | | 11, 15 normalised for weather | 79 sum | |
//! | `mixed` | | 13 | | |
//! | `questionable` | | 10 | 20 unusable | |
//! | `missing` | N, or no value | no value | no value | no value |
//! | `unqualified` | no statement | none, 16 other | anything else | anything else |
//!
//! A reading is `missing` exactly if its value is null. The file's own code
//! stays in `source_quality`, so nothing is lost by the mapping.

use serde::{Deserialize, Serialize};

/// What a source says about how a value came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// Checked by the source and found good.
    Validated,
    /// Read from the meter.
    Actual,
    /// Computed from other readings, such as a sum.
    Derived,
    /// Replaced by the source for good.
    FinalSubstituted,
    /// Replaced by the source, may be restated.
    Substituted,
    /// Estimated or forecast, to be restated.
    Estimated,
    /// Of several qualities within one interval.
    Mixed,
    /// The source makes no statement that is known here.
    Unqualified,
    /// The source itself doubts it.
    Questionable,
    /// There is no value; null, not zero.
    Missing,
}

impl Quality {
    /// Returns the name used in readings, e.g. `final_substituted`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validated => "validated",
            Self::Actual => "actual",
            Self::Derived => "derived",
            Self::FinalSubstituted => "final_substituted",
            Self::Substituted => "substituted",
            Self::Estimated => "estimated",
            Self::Mixed => "mixed",
            Self::Unqualified => "unqualified",
            Self::Questionable => "questionable",
            Self::Missing => "missing",
        }
    }

    /// Maps a NEM quality-method flag such as `A`, `S14` or `V`. `None` means
    /// that the text isn't such a flag. `V` (variable) states nothing of its own.
    pub fn of_nem(flag: &str) -> Option<Self> {
        let (letter, method) = flag.split_at_checked(1)?;
        let method_is_sound = method.is_empty() || (method.len() == 2 && is_digits(method));
        let quality = match letter {
            "A" => Self::Actual,
            "E" => Self::Estimated,
            "F" => Self::FinalSubstituted,
            "S" => Self::Substituted,
            "N" => Self::Missing,
            "V" => Self::Unqualified,
            _ => return None,
        };
        method_is_sound.then_some(quality)
    }

    /// Maps an ESPI `ReadingQuality/quality` code.
    pub fn of_espi(code: &str) -> Self {
        match code {
            "0" | "17" | "18" => Self::Validated,
            "14" => Self::Actual,
            "7" => Self::Substituted,
            "8" | "9" | "12" => Self::Estimated,
            "11" | "15" => Self::Derived,
            "13" => Self::Mixed,
            "10" => Self::Questionable,
            _ => Self::Unqualified,
        }
    }

    /// Maps an MSCONS `QTY` qualifier.
    pub fn of_mscons(qualifier: &str) -> Self {
        match qualifier {
            "220" => Self::Actual,
            "67" => Self::Substituted,
            "187" | "201" | "Z18" => Self::Estimated,
            "79" => Self::Derived,
            "20" => Self::Questionable,
            _ => Self::Unqualified,
        }
    }

    /// Returns the more doubtful of two statements about one value.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        self.max(other)
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nem_flags_are_a_letter_and_perhaps_two_digits() {
        for (flag, quality) in [
            ("A", Some(Quality::Actual)),
            ("E52", Some(Quality::Estimated)),
            ("F14", Some(Quality::FinalSubstituted)),
            ("S15", Some(Quality::Substituted)),
            ("N", Some(Quality::Missing)),
            ("V", Some(Quality::Unqualified)),
            ("", None),
            ("1.5", None),
            ("A1", None),
            ("Sxx", None),
            ("É", None),
        ] {
            assert_eq!(Quality::of_nem(flag), quality, "{flag}");
        }
    }

    #[test]
    fn names_in_json_are_those_of_as_str() {
        for quality in [Quality::Actual, Quality::FinalSubstituted, Quality::Unqualified, Quality::Missing] {
            let json = serde_json::to_value(quality).expect("serialise");
            assert_eq!(json, quality.as_str());
        }
    }
}
