//! Avro bytes to JSON text. Whatever the bytes claim, no more is allocated than they have.

use std::str;

use super::{Avro, DEPTH_MAX, Type};
use crate::Mismatch;
use crate::frame::take_zigzag;
use crate::number::{
    bounded, bytes_text, date_text, decimal_text, double_text, float_text, from_twos_complement, instant_text,
};

type Result<T = ()> = std::result::Result<T, Mismatch>;

impl Avro {
    /// Reads one record as a JSON object. Bytes left over are a mismatch.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Result<String> {
        let mut reader =
            Reader { types: &self.types, bytes, out: String::with_capacity(bytes.len() * 3), depth: 0 };
        reader.value(self.root)?;
        match reader.bytes.len() {
            0 => Ok(reader.out),
            left => Err(Mismatch::new(format!("{left} bytes are left over after the record"))),
        }
    }
}

struct Reader<'a> {
    types: &'a [Type],
    bytes: &'a [u8],
    out: String,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, at: usize) -> Result {
        if self.depth == DEPTH_MAX {
            return Err(Mismatch::new(format!("values are nested deeper than {DEPTH_MAX}")));
        }
        bounded(&self.out)?;
        self.depth += 1;
        let types = self.types;
        match &types[at] {
            Type::Null => self.out.push_str("null"),
            Type::Boolean => match self.take(1)? {
                [0] => self.out.push_str("false"),
                [1] => self.out.push_str("true"),
                other => {
                    return Err(Mismatch::new(format!("found byte {:#04x}, expected a boolean", other[0])));
                }
            },
            Type::Int => {
                let value = self.int()?;
                self.out.push_str(&value.to_string());
            }
            Type::Long => {
                let value = take_zigzag(&mut self.bytes)?;
                self.out.push_str(&value.to_string());
            }
            Type::Float => {
                let value = f32::from_le_bytes(self.array()?);
                self.number(float_text(value))?;
            }
            Type::Double => {
                let value = f64::from_le_bytes(self.array()?);
                self.number(double_text(value))?;
            }
            Type::Bytes => {
                let bytes = self.counted()?;
                self.text(&bytes_text(bytes));
            }
            Type::Fixed(size) => {
                let bytes = self.take(*size)?;
                self.text(&bytes_text(bytes));
            }
            Type::Text => {
                let text = self.utf8()?;
                self.text(text);
            }
            Type::Decimal { size, scale, .. } => self.decimal(*size, *scale)?,
            Type::Date => {
                let days = self.int()?;
                self.text(&date_text(days)?);
            }
            Type::Instant { per_second } => {
                let ticks = take_zigzag(&mut self.bytes)?;
                self.text(&instant_text(ticks, *per_second)?);
            }
            Type::Enum(symbols) => {
                let symbol = self.choice(symbols)?;
                self.text(symbol);
            }
            Type::Array(items) => self.blocks('[', |reader| reader.value(*items), ']')?,
            Type::Map(values) => self.blocks('{', |reader| reader.entry(*values), '}')?,
            Type::Union(variants) => {
                let variant = *self.choice(variants)?;
                self.value(variant)?;
            }
            Type::Record(_) => self.record(at)?,
        }
        self.depth -= 1;
        Ok(())
    }

    fn record(&mut self, at: usize) -> Result {
        let types = self.types;
        let Type::Record(fields) = &types[at] else { return Ok(()) };
        self.out.push('{');
        for (index, field) in fields.iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            self.text(&field.name);
            self.out.push(':');
            self.value(field.type_at).map_err(|mismatch| mismatch.within(&field.name))?;
        }
        self.out.push('}');
        Ok(())
    }

    fn entry(&mut self, values: usize) -> Result {
        let key = self.utf8()?;
        self.text(key);
        self.out.push(':');
        self.value(values)
    }

    /// Reads blocks of items. An item without bytes (null, an empty record) costs memory but no
    /// input, so a block never has more items than there are bytes left; what many such blocks
    /// amount to is bounded by the text.
    fn blocks(&mut self, open: char, item: impl Fn(&mut Self) -> Result, close: char) -> Result {
        self.out.push(open);
        let mut is_first = true;
        loop {
            let mut count = take_zigzag(&mut self.bytes)?;
            if count < 0 {
                take_zigzag(&mut self.bytes)?;
                count = count.checked_neg().ok_or_else(|| Mismatch::new("a block has too many items"))?;
            }
            if count == 0 {
                break;
            }
            if count as u64 > self.bytes.len() as u64 {
                return Err(Mismatch::new(format!(
                    "a block claims {count} items, {} bytes are left",
                    self.bytes.len()
                )));
            }
            for _ in 0..count {
                if !is_first {
                    self.out.push(',');
                }
                is_first = false;
                item(self)?;
            }
        }
        self.out.push(close);
        Ok(())
    }

    fn decimal(&mut self, size: Option<usize>, scale: u32) -> Result {
        let bytes = match size {
            Some(size) => self.take(size)?,
            None => self.counted()?,
        };
        let unscaled = from_twos_complement(bytes).ok_or_else(|| {
            Mismatch::new(format!("a decimal of {} bytes does not fit 128 bits", bytes.len()))
        })?;
        self.out.push_str(&decimal_text(unscaled, scale));
        Ok(())
    }

    fn choice<'t, T>(&mut self, choices: &'t [T]) -> Result<&'t T> {
        let index = take_zigzag(&mut self.bytes)?;
        let found = usize::try_from(index).ok().and_then(|index| choices.get(index));
        found.ok_or_else(|| Mismatch::new(format!("found choice {index}, there are {}", choices.len())))
    }

    fn number(&mut self, text: Option<String>) -> Result {
        let text = text.ok_or_else(|| Mismatch::new("found no number (NaN or infinite)"))?;
        self.out.push_str(&text);
        Ok(())
    }

    fn text(&mut self, text: &str) {
        let quoted = serde_json::to_string(text).expect("text is always JSON");
        self.out.push_str(&quoted);
    }

    fn int(&mut self) -> Result<i32> {
        let value = take_zigzag(&mut self.bytes)?;
        i32::try_from(value)
            .map_err(|_| Mismatch::new(format!("found {value}, expected a number of 32 bits")))
    }

    fn utf8(&mut self) -> Result<&'a str> {
        str::from_utf8(self.counted()?)
            .map_err(|error| Mismatch::new(format!("a string is not UTF-8: {error}")))
    }

    fn counted(&mut self) -> Result<&'a [u8]> {
        let length = take_zigzag(&mut self.bytes)?;
        let length =
            usize::try_from(length).map_err(|_| Mismatch::new(format!("found the length {length}")))?;
        self.take(length)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were taken"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let left = self.bytes.len();
        let (taken, rest) = self
            .bytes
            .split_at_checked(length)
            .ok_or_else(|| Mismatch::new(format!("{length} bytes are claimed, {left} are left")))?;
        self.bytes = rest;
        Ok(taken)
    }
}
