//! How a CSV file's columns become readings; written in TOML.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use chrono_tz::Tz;
use serde::Deserialize;

use crate::input::Fields;
use crate::quality::Quality;

use super::columns::Columns;

/// A checked description of a CSV layout, written in TOML:
///
/// ```toml
/// name = "example"
/// delimiter = ","                       # default
/// null = ["", "Null"]                   # texts that stand for no value; default [""]
///
/// [usage_point]                         # also [meter]
/// column = "CUSTOMER_ID"                # or constant = "M1"
/// after = "#"                           # keep what follows the last of it; optional
///
/// [time]
/// columns = ["fixed", "READING_DATETIME"]   # the first that the file has
/// formats = ["%d/%m/%Y %H:%M"]          # chrono's; default 2012-10-12 00:30:00
/// zone = "+10:00"                       # offset, or a name such as Europe/London
/// label = "end"                         # the time names the interval's end, or "start"
/// interval_s = 1800
///
/// [[values]]                            # one channel for each value column
/// column = "GENERAL_SUPPLY_KWH"
/// channel = "general_supply"            # or a [channel] table as usage_point
/// unit = "kWh"
/// optional = true                       # the column may be absent; default false
/// decimals = 3                          # digits measured; undoes 1.4529999 for 1.453, see below
///
/// [slots]                               # instead of [[values]]: the header names
/// unit = "kWh"                          # intervals, "00:00 - 00:30"; [time] holds the date
///
/// [quality]                             # optional
/// column = "ESTIMATED?"
/// map = { Yes = "estimated", No = "actual" }
/// default = "unqualified"
///
/// [version]                             # optional
/// column = "REVISION"                   # a whole number, or a time by `formats`
/// constant = 1
/// ```
/// A value that `DECIMAL(18,6)` can't hold is refused. `decimals` states that the
/// source passed values through single-precision floats: such a value is taken
/// for the decimal of so many digits less than a millionth away, if there is one.
/// Column names are compared without regard to case and surrounding blanks.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    name: String,
    #[serde(default = "comma")]
    delimiter: char,
    #[serde(default = "blank")]
    pub(super) null: Vec<String>,
    pub(super) usage_point: TextRule,
    pub(super) meter: Option<TextRule>,
    pub(super) channel: Option<TextRule>,
    pub(super) time: TimeRule,
    #[serde(default)]
    pub(super) values: Vec<ValueRule>,
    pub(super) slots: Option<SlotRule>,
    pub(super) quality: Option<QualityRule>,
    pub(super) version: Option<VersionRule>,
}

/// Where a text comes from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextRule {
    pub(super) column: Option<String>,
    pub(super) constant: Option<String>,
    pub(super) after: Option<String>,
    #[serde(default)]
    pub(super) map: BTreeMap<String, String>,
}

/// Which instant a time names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Label {
    Start,
    End,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimeRule {
    pub(super) columns: Vec<String>,
    #[serde(default)]
    pub(super) formats: Vec<String>,
    pub(super) zone: Zone,
    #[serde(default = "start")]
    pub(super) label: Label,
    pub(super) interval_s: Option<u32>,
}

/// What the file's clock shows.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum Zone {
    /// Seconds east of Greenwich all year.
    Fixed(i32),
    /// A clock that people set.
    Named(Tz),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ValueRule {
    pub(super) column: String,
    pub(super) channel: Option<String>,
    #[serde(default)]
    pub(super) unit: String,
    #[serde(default)]
    pub(super) optional: bool,
    pub(super) decimals: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SlotRule {
    #[serde(default)]
    pub(super) unit: String,
    pub(super) decimals: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QualityRule {
    pub(super) column: Option<String>,
    #[serde(default)]
    pub(super) map: BTreeMap<String, Quality>,
    #[serde(default = "unqualified")]
    pub(super) default: Quality,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionRule {
    pub(super) column: Option<String>,
    #[serde(default)]
    pub(super) constant: i64,
}

fn comma() -> char {
    ','
}

fn blank() -> Vec<String> {
    vec![String::new()]
}

fn start() -> Label {
    Label::Start
}

fn unqualified() -> Quality {
    Quality::Unqualified
}

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "UTC" || text == "Z" {
            return Ok(Self::Fixed(0));
        }
        if let Some(east_s) = offset(&text) {
            return Ok(Self::Fixed(east_s));
        }
        text.parse().map(Self::Named).map_err(|_| {
            format!("'{text}' is neither an offset such as +10:00 nor a time zone such as Europe/London")
        })
    }
}

/// Parses `+10:00`.
fn offset(text: &str) -> Option<i32> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    ((0..=14).contains(&hours) && (0..60).contains(&minutes)).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Why a mapping can't be used.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// The file can't be read.
    #[error("read the mapping {file}")]
    Io {
        /// The file's name.
        file: String,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The text isn't a mapping; the message names the place.
    #[error("mapping {file}: {reason}")]
    Invalid {
        /// The file's or mapping's name.
        file: String,
        /// What is wrong.
        reason: String,
    },
}

/// The shipped mappings: name and text.
const SHIPPED: [(&str, &str); 4] = [
    ("sgsc", include_str!("../../mappings/sgsc.toml")),
    ("lcl", include_str!("../../mappings/lcl.toml")),
    ("au_retailer_wide", include_str!("../../mappings/au_retailer_wide.toml")),
    ("au_retailer_long", include_str!("../../mappings/au_retailer_long.toml")),
];

static PARSED: LazyLock<Vec<Arc<Mapping>>> = LazyLock::new(|| {
    let parse = |(name, text): &(&str, &str)| {
        Arc::new(Mapping::parse(name, text).expect("a test parses every shipped mapping"))
    };
    SHIPPED.iter().map(parse).collect()
});

impl Mapping {
    /// Returns the mappings that come with the platform: `sgsc`, `lcl`,
    /// `au_retailer_wide`, `au_retailer_long`.
    pub fn shipped() -> &'static [Arc<Self>] {
        &PARSED
    }

    /// Finds a shipped mapping by its name.
    pub fn shipped_by_name(name: &str) -> Option<Arc<Self>> {
        Self::shipped().iter().find(|mapping| mapping.name == name).cloned()
    }

    /// Finds a shipped mapping by its name, or loads one from a TOML file.
    ///
    /// # Errors
    /// When there is neither, or the file isn't a mapping.
    pub fn named_or_loaded(name_or_path: &str) -> Result<Arc<Self>, MappingError> {
        if let Some(mapping) = Self::shipped_by_name(name_or_path) {
            return Ok(mapping);
        }
        let path = Path::new(name_or_path);
        if !path.exists() {
            let names: Vec<_> = Self::shipped().iter().map(|mapping| mapping.name.as_str()).collect();
            let reason = format!("no such file, and no such mapping among {}", names.join(", "));
            return Err(MappingError::Invalid { file: name_or_path.to_owned(), reason });
        }
        Self::load(path).map(Arc::new)
    }

    /// Reads a mapping from a TOML file.
    ///
    /// # Errors
    /// When it can't be read or isn't a mapping.
    pub fn load(path: &Path) -> Result<Self, MappingError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&file, &text),
            Err(source) => Err(MappingError::Io { file, source }),
        }
    }

    /// Parses and checks a mapping; `file` is for messages.
    ///
    /// # Errors
    /// When it isn't a mapping.
    pub fn parse(file: &str, text: &str) -> Result<Self, MappingError> {
        let invalid = |reason: String| MappingError::Invalid { file: file.to_owned(), reason };
        let mapping: Self = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        mapping.check().map_err(invalid)?;
        Ok(mapping)
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn delimiter(&self) -> char {
        self.delimiter
    }

    /// Says whether a header line has the columns that this mapping needs.
    pub(crate) fn fits(&self, header: &str) -> bool {
        let mut fields = Fields::default();
        fields.split(header, self.delimiter).is_ok() && Columns::find(self, &fields).is_ok()
    }

    fn check(&self) -> Result<(), String> {
        self.usage_point.check("usage_point")?;
        self.meter.as_ref().map_or(Ok(()), |rule| rule.check("meter"))?;
        self.channel.as_ref().map_or(Ok(()), |rule| rule.check("channel"))?;
        if self.time.columns.is_empty() {
            return Err("[time] needs at least one of columns".into());
        }
        match (&self.slots, self.values.is_empty(), self.time.interval_s) {
            (Some(_), true, None) | (None, false, Some(1..=31_622_400)) => {}
            (Some(_), true, Some(_)) => {
                return Err("[slots] name their intervals; leave interval_s out".into());
            }
            (None, false, _) => return Err("[time] needs interval_s, the interval in seconds".into()),
            _ => return Err("give either [[values]] or [slots]".into()),
        }
        if self.slots.is_some() && self.channel.is_none() {
            return Err("[slots] need a [channel]".into());
        }
        for value in &self.values {
            if value.channel.is_none() && self.channel.is_none() {
                return Err(format!("value column '{}' needs a channel", value.column));
            }
        }
        Ok(())
    }
}

impl TextRule {
    fn check(&self, name: &str) -> Result<(), String> {
        match (&self.column, &self.constant) {
            (Some(_), None) | (None, Some(_)) => Ok(()),
            _ => Err(format!("[{name}] needs either column or constant")),
        }
    }

    /// Applies `after` and `map` to a cell; a text not in `map` stays as it is.
    pub(super) fn apply<'t>(&'t self, cell: &'t str) -> &'t str {
        let text = match &self.after {
            Some(mark) => cell.rsplit_once(mark.as_str()).map_or(cell, |(_, rest)| rest.trim()),
            None => cell,
        };
        self.map.get(text).map_or(text, String::as_str)
    }
}
