//! A Protobuf message to JSON text.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

use crate::Mismatch;
use crate::number::{
    bounded, bytes_text, decimal_text, double_text, float_text, from_twos_complement, instant_text,
};

type Result<T = ()> = std::result::Result<T, Mismatch>;

/// Writes all fields of the message, in the order of their numbers.
pub(super) fn object(message: &DynamicMessage, out: &mut String) -> Result {
    out.push('{');
    for (index, field) in message.descriptor().fields().enumerate() {
        if index > 0 {
            out.push(',');
        }
        text(field.name(), out);
        out.push(':');
        if field.supports_presence() && !message.has_field(&field) {
            out.push_str("null");
        } else {
            value(&field, &message.get_field(&field), out).map_err(|m| m.within(field.name()))?;
        }
    }
    out.push('}');
    Ok(())
}

fn value(field: &FieldDescriptor, found: &Value, out: &mut String) -> Result {
    bounded(out)?;
    match found {
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::I32(value) => out.push_str(&value.to_string()),
        Value::I64(value) => out.push_str(&value.to_string()),
        Value::U32(value) => out.push_str(&value.to_string()),
        Value::U64(value) => out.push_str(&value.to_string()),
        Value::F32(value) => number(float_text(*value), out)?,
        Value::F64(value) => number(double_text(*value), out)?,
        Value::String(value) => text(value, out),
        Value::Bytes(value) => text(&bytes_text(value), out),
        Value::EnumNumber(number) => match field.kind().as_enum().and_then(|kind| kind.get_value(*number)) {
            Some(value) => text(value.name(), out),
            None => out.push_str(&number.to_string()),
        },
        Value::Message(value) => message(value, out)?,
        Value::List(values) => {
            out.push('[');
            for (index, item) in values.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                value(field, item, out)?;
            }
            out.push(']');
        }
        Value::Map(values) => {
            let Kind::Message(entry) = field.kind() else {
                return Err(Mismatch::new("a map without entries"));
            };
            let kind = entry.map_entry_value_field();
            // The map's own order is random; reading again must give the same text.
            let mut values: Vec<_> = values.iter().collect();
            values.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (index, (key, item)) in values.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                text(&key_text(key), out);
                out.push(':');
                value(&kind, item, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

/// Writes a nested message; those that stand for one value as that value.
fn message(message: &DynamicMessage, out: &mut String) -> Result {
    let whole = |number| match message.get_field_by_number(number).as_deref() {
        Some(Value::I32(value)) => i64::from(*value),
        Some(Value::I64(value)) => *value,
        _ => 0,
    };
    match message.descriptor().full_name() {
        "google.protobuf.Timestamp" => {
            let (seconds, nanos) = (whole(1), whole(2));
            let ticks = Some(nanos).filter(|nanos| (0..1_000_000_000).contains(nanos));
            let ticks = ticks.and_then(|nanos| seconds.checked_mul(1_000_000_000)?.checked_add(nanos));
            let ticks =
                ticks.ok_or_else(|| Mismatch::new(format!("{seconds} s and {nanos} ns is no timestamp")))?;
            text(&instant_text(ticks, 1_000_000_000)?, out);
        }
        "google.type.Date" => {
            let (year, month, day) = (whole(1), whole(2), whole(3));
            let date = u32::try_from(month).ok().zip(u32::try_from(day).ok());
            let date = date.and_then(|(month, day)| chrono::NaiveDate::from_ymd_opt(year as i32, month, day));
            let date = date.ok_or_else(|| Mismatch::new(format!("{year}-{month}-{day} is no date")))?;
            text(&date.to_string(), out);
        }
        "confluent.type.Decimal" => {
            let value = message.get_field_by_number(1);
            let bytes =
                value.as_deref().and_then(Value::as_bytes).map(AsRef::<[u8]>::as_ref).unwrap_or_default();
            let scale = u32::try_from(whole(3)).ok().filter(|scale| *scale <= 38);
            let unscaled = if bytes.is_empty() { Some(0) } else { from_twos_complement(bytes) };
            let (unscaled, scale) = unscaled.zip(scale).ok_or_else(|| {
                Mismatch::new(format!(
                    "a decimal of {} bytes and scale {} does not fit",
                    bytes.len(),
                    whole(3)
                ))
            })?;
            out.push_str(&decimal_text(unscaled, scale));
        }
        _ => object(message, out)?,
    }
    Ok(())
}

fn number(found: Option<String>, out: &mut String) -> Result {
    let found = found.ok_or_else(|| Mismatch::new("found no number (NaN or infinite)"))?;
    out.push_str(&found);
    Ok(())
}

fn text(found: &str, out: &mut String) {
    out.push_str(&serde_json::to_string(found).expect("text is always JSON"));
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}
