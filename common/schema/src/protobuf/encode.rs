//! JSON to a Protobuf message, exactly or not at all.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Proto};
use serde_json::{Map, Value};

use crate::Mismatch;
use crate::number::{
    Exact, date_days, double, float, instant_ticks, number_text, shown, text_bytes, twos_complement, whole,
};

type Result<T> = std::result::Result<T, Mismatch>;

/// The most digits that 128 bits always hold.
const DIGITS_MAX: i32 = 38;

/// Makes a message of an object. A column that is null must have a field that can be absent.
pub(super) fn message(
    descriptor: &MessageDescriptor,
    json: &Map<String, Value>,
    columns: &[String],
) -> Result<DynamicMessage> {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        match json.get(field.name()).unwrap_or(&Value::Null) {
            Value::Null if field.supports_presence() || !columns.iter().any(|c| c == field.name()) => {}
            Value::Null => {
                let reason = "null would read back as the default: declare it optional in the schema";
                return Err(Mismatch::new(reason).within(field.name()));
            }
            json => message.set_field(&field, field_value(&field, json).map_err(|m| m.within(field.name()))?),
        }
    }
    Ok(message)
}

fn field_value(field: &FieldDescriptor, json: &Value) -> Result<Proto> {
    match json {
        Value::Array(items) if field.is_list() => {
            let items = items.iter().map(|item| value(&field.kind(), item));
            items.collect::<Result<_>>().map(Proto::List)
        }
        Value::Object(members) if field.is_map() => map(field, members),
        other if field.is_list() || field.is_map() => {
            Err(unexpected(other, "as many values as the schema has"))
        }
        json => value(&field.kind(), json),
    }
}

fn map(field: &FieldDescriptor, members: &Map<String, Value>) -> Result<Proto> {
    let Kind::Message(entry) = field.kind() else { return Err(Mismatch::new("a map without entries")) };
    let (keys, values) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
    let entries = members.iter().map(|(name, json)| {
        let key = match &keys {
            Kind::String => Some(MapKey::String(name.clone())),
            Kind::Bool => name.parse().ok().map(MapKey::Bool),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => name.parse().ok().map(MapKey::I32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => name.parse().ok().map(MapKey::I64),
            Kind::Uint32 | Kind::Fixed32 => name.parse().ok().map(MapKey::U32),
            Kind::Uint64 | Kind::Fixed64 => name.parse().ok().map(MapKey::U64),
            _ => None,
        };
        let key =
            key.ok_or_else(|| Mismatch::new(format!("found the key {name:?}, which the map can't hold")))?;
        Ok((key, value(&values, json)?))
    });
    entries.collect::<Result<_>>().map(Proto::Map)
}

fn value(kind: &Kind, json: &Value) -> Result<Proto> {
    let found = match (kind, json) {
        (Kind::Bool, Value::Bool(value)) => Some(Proto::Bool(*value)),
        (Kind::Int32 | Kind::Sint32 | Kind::Sfixed32, json) => integer(json).map(Proto::I32),
        (Kind::Int64 | Kind::Sint64 | Kind::Sfixed64, json) => integer(json).map(Proto::I64),
        (Kind::Uint32 | Kind::Fixed32, json) => integer(json).map(Proto::U32),
        (Kind::Uint64 | Kind::Fixed64, json) => integer(json).map(Proto::U64),
        (Kind::Float, json) => float(json).map(Proto::F32),
        (Kind::Double, json) => double(json).map(Proto::F64),
        (Kind::String, Value::String(text)) => Some(Proto::String(text.clone())),
        (Kind::String, Value::Number(number)) => Some(Proto::String(number.to_string())),
        (Kind::Bytes, json) => text_bytes(json).map(|bytes| Proto::Bytes(bytes.into())),
        (Kind::Enum(kind), Value::String(name)) => {
            kind.get_value_by_name(name).map(|value| Proto::EnumNumber(value.number()))
        }
        (Kind::Enum(_), json) => integer(json).map(Proto::EnumNumber),
        (Kind::Message(descriptor), json) => nested(descriptor, json)?.map(Proto::Message),
        _ => None,
    };
    found.ok_or_else(|| unexpected(json, &format!("{kind:?}")))
}

fn integer<T: TryFrom<i128>>(json: &Value) -> Option<T> {
    whole(json).and_then(|value| T::try_from(value).ok())
}

/// Makes a nested message; those that stand for one value of that value.
fn nested(descriptor: &MessageDescriptor, json: &Value) -> Result<Option<DynamicMessage>> {
    let mut message = DynamicMessage::new(descriptor.clone());
    match (descriptor.full_name(), json) {
        ("google.protobuf.Timestamp", json) => {
            let Some(ticks) = instant_ticks(json, 1_000_000_000) else { return Ok(None) };
            message.set_field_by_number(1, Proto::I64(ticks.div_euclid(1_000_000_000)));
            message.set_field_by_number(2, Proto::I32(ticks.rem_euclid(1_000_000_000) as i32));
        }
        ("google.type.Date", json) => {
            use chrono::Datelike;
            let date = date_days(json).and_then(|_| json.as_str()?.parse::<chrono::NaiveDate>().ok());
            let Some(date) = date else { return Ok(None) };
            message.set_field_by_number(1, Proto::I32(date.year()));
            message.set_field_by_number(2, Proto::I32(date.month() as i32));
            message.set_field_by_number(3, Proto::I32(date.day() as i32));
        }
        ("confluent.type.Decimal", json) => {
            let Some(exact) = number_text(json).and_then(|text| Exact::parse(&text)) else { return Ok(None) };
            let fits = (0..=DIGITS_MAX).find_map(|scale| Some((scale, exact.unscaled(scale as u32)?)));
            let Some((scale, unscaled)) = fits else { return Ok(None) };
            let digits = unscaled.unsigned_abs().to_string().len() as u32;
            message.set_field_by_number(1, Proto::Bytes(twos_complement(unscaled).into()));
            message.set_field_by_number(2, Proto::U32(digits));
            message.set_field_by_number(3, Proto::I32(scale));
        }
        (_, Value::Object(members)) => return self::message(descriptor, members, &[]).map(Some),
        _ => return Ok(None),
    }
    Ok(Some(message))
}

fn unexpected(json: &Value, expected: &str) -> Mismatch {
    Mismatch::new(format!("found {}, expected {expected}", shown(json)))
}
