//! A mapping's columns found in a file's header.

use chrono::TimeDelta;

use crate::input::Fields;
use crate::unit::Scaling;

use super::mapping::{Mapping, TextRule};

/// Where the columns of a mapping are in one file.
pub(super) struct Columns {
    /// Columns of the header.
    pub(super) width: usize,
    pub(super) usage_point: Option<usize>,
    pub(super) meter: Option<usize>,
    pub(super) channel: Option<usize>,
    pub(super) time: usize,
    pub(super) quality: Option<usize>,
    pub(super) version: Option<usize>,
    pub(super) values: Vec<ValueColumn>,
}

/// One value column.
pub(super) struct ValueColumn {
    pub(super) index: usize,
    /// `None` when the row names the channel.
    pub(super) channel: Option<String>,
    pub(super) scaling: Scaling,
    /// Digits behind the point that the source measured, if it lost them in floats.
    pub(super) decimals: Option<u32>,
    /// Start within the day and length, where the header names an interval.
    pub(super) slot: Option<(TimeDelta, u32)>,
}

impl Columns {
    pub(super) fn find(mapping: &Mapping, header: &Fields) -> Result<Self, String> {
        let position =
            |name: &str| (0..header.len()).find(|&index| header.get(index).eq_ignore_ascii_case(name.trim()));
        let required =
            |name: &str| position(name).ok_or_else(|| format!("the header has no column '{name}'"));
        let text =
            |rule: Option<&TextRule>| rule.and_then(|rule| rule.column.as_deref()).map(required).transpose();
        let time = mapping.time.columns.iter().find_map(|name| position(name));
        let time = time.ok_or_else(|| {
            format!("the header has none of the columns '{}'", mapping.time.columns.join("', '"))
        })?;
        let quality = mapping.quality.as_ref().and_then(|rule| rule.column.as_deref());
        let version = mapping.version.as_ref().and_then(|rule| rule.column.as_deref());
        let mut values = Vec::new();
        for rule in &mapping.values {
            let Some(index) = position(&rule.column) else {
                if rule.optional {
                    continue;
                }
                return Err(format!("the header has no column '{}'", rule.column));
            };
            let scaling = Scaling::of(&rule.unit);
            let (channel, decimals) = (rule.channel.clone(), rule.decimals);
            values.push(ValueColumn { index, channel, scaling, decimals, slot: None });
        }
        if let Some(rule) = &mapping.slots {
            let scaling = Scaling::of(&rule.unit);
            for index in 0..header.len() {
                if let Some(slot) = slot(header.get(index)) {
                    let (scaling, decimals) = (scaling.clone(), rule.decimals);
                    values.push(ValueColumn { index, channel: None, scaling, decimals, slot: Some(slot) });
                }
            }
        }
        if values.is_empty() {
            return Err("the header has no value column".into());
        }
        Ok(Self {
            width: header.len(),
            usage_point: text(Some(&mapping.usage_point))?,
            meter: text(mapping.meter.as_ref())?,
            channel: text(mapping.channel.as_ref())?,
            time,
            quality: quality.map(required).transpose()?,
            version: version.map(required).transpose()?,
            values,
        })
    }
}

/// Parses a header such as `23:30 - 00:00` into start and length.
fn slot(header: &str) -> Option<(TimeDelta, u32)> {
    let (from, to) = header.split_once('-')?;
    let (from, to) = (minutes(from.trim())?, minutes(to.trim())?);
    let to = if to == 0 { 1440 } else { to };
    let length = to.checked_sub(from).filter(|length| *length > 0)?;
    Some((TimeDelta::minutes(i64::from(from)), length * 60))
}

fn minutes(clock: &str) -> Option<u32> {
    let (hours, minutes) = clock.split_once(':')?;
    let two_digits = |text: &str| text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !two_digits(hours) || !two_digits(minutes) {
        return None;
    }
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours <= 24 && minutes < 60 && hours * 60 + minutes <= 1440).then_some(hours * 60 + minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_slots_up_to_midnight() {
        assert_eq!(slot("00:00 - 00:30"), Some((TimeDelta::zero(), 1800)));
        assert_eq!(slot("23:30 - 00:00"), Some((TimeDelta::minutes(1410), 1800)));
        assert_eq!(slot("23:45-24:00"), Some((TimeDelta::minutes(1425), 900)));
        for header in ["DATE", "CON/GEN", "00:30 - 00:30", "25:00 - 25:30", "1:2 - :", "-", "é:0 - 0:1"] {
            assert_eq!(slot(header), None, "{header}");
        }
    }
}
