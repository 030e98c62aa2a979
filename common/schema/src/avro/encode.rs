//! JSON to Avro bytes, exactly or not at all.

use serde_json::Value;

use super::{Avro, DEPTH_MAX, Field, Type};
use crate::Mismatch;
use crate::frame::put_zigzag;
use crate::number::{
    Exact, date_days, double, float, instant_ticks, number_text, shown, text_bytes, twos_complement, whole,
};

type Result<T = ()> = std::result::Result<T, Mismatch>;

impl Avro {
    /// Writes a JSON object as one record. Members that the schema does not have are left out.
    pub(crate) fn encode(&self, json: &Value, out: &mut Vec<u8>) -> Result {
        Writer { types: &self.types, out, depth: 0 }.value(self.root, json)
    }
}

struct Writer<'a> {
    types: &'a [Type],
    out: &'a mut Vec<u8>,
    depth: usize,
}

impl Writer<'_> {
    fn value(&mut self, at: usize, json: &Value) -> Result {
        if self.depth == DEPTH_MAX {
            return Err(Mismatch::new(format!("values are nested deeper than {DEPTH_MAX}")));
        }
        self.depth += 1;
        let written = self.nested(at, json);
        self.depth -= 1;
        written
    }

    fn nested(&mut self, at: usize, json: &Value) -> Result {
        let types = self.types;
        match (&types[at], json) {
            (Type::Array(items), Value::Array(values)) => {
                self.count(values.len());
                values.iter().try_for_each(|value| self.value(*items, value))?;
                self.end(values.len());
                Ok(())
            }
            (Type::Map(types), Value::Object(values)) => {
                self.count(values.len());
                for (key, value) in values {
                    self.counted(key.as_bytes());
                    self.value(*types, value)?;
                }
                self.end(values.len());
                Ok(())
            }
            (Type::Union(variants), json) => self.union(variants, json),
            (Type::Record(fields), Value::Object(members)) => {
                fields.iter().try_for_each(|field| self.field(field, members.get(&field.name)))
            }
            (scalar, json) => self.scalar(scalar, json),
        }
    }

    fn field(&mut self, field: &Field, json: Option<&Value>) -> Result {
        let json = json.or(field.default.as_ref()).unwrap_or(&Value::Null);
        self.value(field.type_at, json).map_err(|mismatch| mismatch.within(&field.name))
    }

    /// Takes the first variant that the value fits; one it fits only as a string's text comes last.
    fn union(&mut self, variants: &[usize], json: &Value) -> Result {
        let is_loose = |at: &usize| matches!(self.types[*at], Type::Text) && !json.is_string();
        let (loose, strict): (Vec<_>, Vec<_>) = (0..).zip(variants).partition(|(_, at)| is_loose(at));
        let mut refusals = Vec::new();
        for (index, at) in strict.into_iter().chain(loose) {
            let before = self.out.len();
            put_zigzag(index, self.out);
            match self.value(*at, json) {
                Ok(()) => return Ok(()),
                Err(mismatch) => refusals.push(mismatch.to_string()),
            }
            self.out.truncate(before);
        }
        Err(Mismatch::new(refusals.join("; ")))
    }

    fn scalar(&mut self, wanted: &Type, json: &Value) -> Result {
        let written = match (wanted, json) {
            (Type::Null, Value::Null) => Some(()),
            (Type::Boolean, Value::Bool(value)) => {
                self.out.push(u8::from(*value));
                Some(())
            }
            (Type::Int, json) => {
                whole(json).and_then(|value| i32::try_from(value).ok()).map(|value| self.long(value.into()))
            }
            (Type::Long, json) => {
                whole(json).and_then(|value| i64::try_from(value).ok()).map(|v| self.long(v))
            }
            (Type::Float, json) => float(json).map(|value| self.out.extend(value.to_le_bytes())),
            (Type::Double, json) => double(json).map(|value| self.out.extend(value.to_le_bytes())),
            (Type::Bytes, json) => text_bytes(json).map(|bytes| self.counted(&bytes)),
            (Type::Fixed(size), json) => {
                text_bytes(json).filter(|bytes| bytes.len() == *size).map(|bytes| self.out.extend(bytes))
            }
            (Type::Text, Value::String(text)) => {
                self.counted(text.as_bytes());
                Some(())
            }
            (Type::Text, Value::Number(number)) => {
                self.counted(number.to_string().as_bytes());
                Some(())
            }
            (Type::Decimal { size, scale, precision }, json) => decimal(json, *size, *scale, *precision)
                .map(|bytes| if size.is_some() { self.out.extend(bytes) } else { self.counted(&bytes) }),
            (Type::Date, json) => date_days(json).map(|days| self.long(days.into())),
            (Type::Instant { per_second }, json) => instant_ticks(json, *per_second).map(|t| self.long(t)),
            (Type::Enum(symbols), Value::String(text)) => {
                symbols.iter().position(|symbol| symbol == text).map(|index| self.long(index as i64))
            }
            _ => None,
        };
        written
            .ok_or_else(|| Mismatch::new(format!("found {}, expected {}", shown(json), expectation(wanted))))
    }

    fn long(&mut self, value: i64) {
        put_zigzag(value, self.out);
    }

    fn counted(&mut self, bytes: &[u8]) {
        self.long(bytes.len() as i64);
        self.out.extend(bytes);
    }

    /// Begins the one block that holds all items.
    fn count(&mut self, items: usize) {
        self.long(items as i64);
    }

    /// Ends the blocks; without items the count was the end already.
    fn end(&mut self, items: usize) {
        if items > 0 {
            self.long(0);
        }
    }
}

fn decimal(json: &Value, size: Option<usize>, scale: u32, precision: usize) -> Option<Vec<u8>> {
    let unscaled = Exact::parse(&number_text(json)?)?.unscaled(scale)?;
    if unscaled.unsigned_abs().to_string().len() > precision {
        return None;
    }
    let bytes = twos_complement(unscaled);
    let Some(size) = size else { return Some(bytes) };
    let sign = if unscaled < 0 { 0xff } else { 0 };
    let front = size.checked_sub(bytes.len())?;
    Some([vec![sign; front], bytes].concat())
}

fn expectation(wanted: &Type) -> String {
    match wanted {
        Type::Null => "null".into(),
        Type::Boolean => "true or false".into(),
        Type::Int => "a whole number of 32 bits".into(),
        Type::Long => "a whole number of 64 bits".into(),
        Type::Float => "a number that a float holds with all its digits".into(),
        Type::Double => "a number that a double holds with all its digits".into(),
        Type::Bytes => "bytes in base64".into(),
        Type::Fixed(size) => format!("{size} bytes in base64"),
        Type::Text => "a string".into(),
        Type::Decimal { scale, precision, .. } => format!("a number for decimal({precision}, {scale})"),
        Type::Date => "a date such as \"2024-07-01\"".into(),
        Type::Instant { per_second } => format!("an RFC 3339 timestamp in steps of 1/{per_second} s"),
        Type::Enum(symbols) => format!("one of {}", symbols.join(", ")),
        Type::Array(_) => "an array".into(),
        Type::Map(_) | Type::Record(_) => "an object".into(),
        Type::Union(_) => "one of a union's types".into(),
    }
}
