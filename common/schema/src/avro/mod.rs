//! Avro: a schema compiled once, then bytes ⇄ JSON without a tree between.
//!
//! The schema's text is parsed by the library, its names and rules checked there; the bytes are read
//! here, because what a record claims (lengths, counts, depth) must be bounded by what it has, and
//! because decimals and floats must come out exactly.

mod decode;
mod encode;

use std::collections::BTreeMap;

use apache_avro::schema::{Name, Namespace};
use serde_json::Value;

use crate::Mismatch;

/// How deep values may be nested.
const DEPTH_MAX: usize = 64;

/// A compiled schema of one record type.
#[derive(Debug)]
pub(crate) struct Avro {
    types: Vec<Type>,
    root: usize,
}

/// One type; others are named by their place.
#[derive(Debug)]
enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    /// `size` bytes, or as many as the length before them says.
    Decimal {
        size: Option<usize>,
        scale: u32,
        precision: usize,
    },
    Date,
    Instant {
        per_second: i64,
    },
    Enum(Vec<String>),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(Vec<Field>),
}

#[derive(Debug)]
struct Field {
    name: String,
    type_at: usize,
    default: Option<Value>,
}

impl Avro {
    /// Compiles a schema; `known` are the schemas it refers to, what refers to others after them.
    pub(crate) fn compile(text: &str, known: &[String]) -> Result<Self, Mismatch> {
        let broken = |error: apache_avro::Error| Mismatch::new(format!("the Avro schema is broken: {error}"));
        let (schema, known) = if known.is_empty() {
            (apache_avro::Schema::parse_str(text).map_err(broken)?, Vec::new())
        } else {
            apache_avro::Schema::parse_str_with_list(text, known).map_err(broken)?
        };
        let mut compiler = Compiler { types: Vec::new(), names: BTreeMap::new() };
        for known in &known {
            compiler.compile(known, &None)?;
        }
        let root = compiler.compile(&schema, &None)?;
        if !matches!(compiler.types[root], Type::Record(_)) {
            return Err(Mismatch::new("the Avro schema is no record, so that its values have no columns"));
        }
        Ok(Self { types: compiler.types, root })
    }

    /// Returns the names of the record's fields.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        let fields = match &self.types[self.root] {
            Type::Record(fields) => fields.as_slice(),
            _ => &[],
        };
        fields.iter().map(|field| field.name.as_str())
    }
}

struct Compiler {
    types: Vec<Type>,
    names: BTreeMap<String, usize>,
}

impl Compiler {
    fn add(&mut self, value: Type) -> usize {
        self.types.push(value);
        self.types.len() - 1
    }

    /// Takes a place for a named type before what it holds, which may refer to it.
    fn name(&mut self, name: &Name, space: &Namespace) -> (usize, Namespace) {
        let name = name.fully_qualified_name(space);
        let at = self.add(Type::Null);
        self.names.insert(name.fullname(None), at);
        (at, name.namespace)
    }

    fn compile(&mut self, schema: &apache_avro::Schema, space: &Namespace) -> Result<usize, Mismatch> {
        use apache_avro::Schema as S;
        let plain = match schema {
            S::Null => Type::Null,
            S::Boolean => Type::Boolean,
            S::Int | S::TimeMillis => Type::Int,
            S::Long
            | S::TimeMicros
            | S::LocalTimestampMillis
            | S::LocalTimestampMicros
            | S::LocalTimestampNanos => Type::Long,
            S::Float => Type::Float,
            S::Double => Type::Double,
            S::Bytes | S::BigDecimal => Type::Bytes,
            S::String | S::Uuid => Type::Text,
            S::Date => Type::Date,
            S::TimestampMillis => Type::Instant { per_second: 1_000 },
            S::TimestampMicros => Type::Instant { per_second: 1_000_000 },
            S::TimestampNanos => Type::Instant { per_second: 1_000_000_000 },
            S::Duration => Type::Fixed(12),
            S::Decimal(decimal) => self.decimal(decimal, space)?,
            S::Array(array) => Type::Array(self.compile(&array.items, space)?),
            S::Map(map) => Type::Map(self.compile(&map.types, space)?),
            S::Union(union) => {
                let variants = union.variants().iter().map(|variant| self.compile(variant, space));
                Type::Union(variants.collect::<Result<_, _>>()?)
            }
            S::Record(_) | S::Enum(_) | S::Fixed(_) => return self.named(schema, space),
            S::Ref { name } => {
                let name = name.fully_qualified_name(space).fullname(None);
                let unknown =
                    || Mismatch::new(format!("the Avro schema refers to {name}, which it does not have"));
                return self.names.get(&name).copied().ok_or_else(unknown);
            }
        };
        Ok(self.add(plain))
    }

    fn named(&mut self, schema: &apache_avro::Schema, space: &Namespace) -> Result<usize, Mismatch> {
        use apache_avro::Schema as S;
        let at = match schema {
            S::Enum(symbols) => {
                let (at, _) = self.name(&symbols.name, space);
                self.types[at] = Type::Enum(symbols.symbols.clone());
                at
            }
            S::Fixed(fixed) => {
                let (at, _) = self.name(&fixed.name, space);
                self.types[at] = Type::Fixed(fixed.size);
                at
            }
            S::Record(record) => {
                let (at, space) = self.name(&record.name, space);
                let mut fields = Vec::new();
                for field in &record.fields {
                    let type_at = self.compile(&field.schema, &space)?;
                    fields.push(Field { name: field.name.clone(), type_at, default: field.default.clone() });
                }
                self.types[at] = Type::Record(fields);
                at
            }
            other => return self.compile(other, space),
        };
        Ok(at)
    }

    fn decimal(
        &mut self,
        decimal: &apache_avro::schema::DecimalSchema,
        space: &Namespace,
    ) -> Result<Type, Mismatch> {
        let size = match decimal.inner.as_ref() {
            apache_avro::Schema::Fixed(fixed) => {
                self.named(&decimal.inner, space)?;
                Some(fixed.size)
            }
            _ => None,
        };
        if decimal.scale > 38 {
            return Err(Mismatch::new(format!(
                "a decimal has {} digits after the point, at most 38 fit",
                decimal.scale
            )));
        }
        Ok(Type::Decimal { size, scale: decimal.scale as u32, precision: decimal.precision })
    }
}

#[cfg(test)]
mod tests;
