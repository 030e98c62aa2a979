//! NEM13: one 250 record is one reading between two reads of a register.

use super::{NEM_EAST_S, non_empty, reason_of, scaling_of, version_of};
use crate::clock;
use crate::decimal::Decimal;
use crate::event::quote;
use crate::input::Fields;
use crate::quality::Quality;
use crate::reading::Reading;

/// Fills the reading from a 250 record. Its quality is that of the current
/// read, which closes the interval.
pub(super) fn read(fields: &Fields, header_version: i64, reading: &mut Reading) -> Result<(), String> {
    let (usage_point, channel) = (fields.get(1), fields.get(4));
    if usage_point.is_empty() || channel.is_empty() {
        return Err("the 250 record lacks the NMI or the suffix".into());
    }
    let time = |index: usize| {
        let text = fields.get(index);
        let local = clock::date_time(text).filter(|_| text.len() == 14);
        local.ok_or_else(|| format!("'{}' is not a time such as 20240131093055", quote(text)))
    };
    let (start, end) = (time(9)?, time(14)?);
    let duration = u32::try_from((end - start).num_seconds()).ok().filter(|seconds| *seconds > 0);
    let duration = duration.ok_or("the current read is not later than the previous one")?;
    let flag = fields.get(15);
    let quality = Quality::of_nem(flag).ok_or_else(|| format!("'{}' is not a quality", quote(flag)))?;
    let scaling = scaling_of(fields.get(19), channel);
    let quantity = fields.get(18);
    let value = if quantity.is_empty() {
        None
    } else {
        let value = Decimal::parse(quantity).and_then(|value| scaling.apply(value));
        Some(value.map_err(|error| format!("quantity '{}' {error}", quote(quantity)))?)
    };
    reading.start_utc = clock::utc(start, NEM_EAST_S).ok_or("the previous read's time is out of range")?;
    reading.duration_s = duration;
    reading.usage_point = usage_point.to_owned();
    reading.channel = channel.to_owned();
    reading.meter = non_empty(fields.get(6));
    reading.unit = scaling.unit;
    reading.set_value(value, quality);
    reading.source_quality = Some(flag.to_owned());
    reading.reason = reason_of(fields.get(16), fields.get(17));
    reading.source_version = version_of(fields.get(21), fields.get(22), header_version);
    Ok(())
}
