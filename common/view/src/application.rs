//! An application: sources, reference tables and views from one SQL file.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use datafusion::execution::SessionState;
use sanso_state::{Replicas, Storage, StorageLevel, ValueType};

use crate::definition::ViewDefinition;
use crate::error::{BindError, Place, SqlError};
use crate::interval::Interval;
use crate::plan;
use crate::source::{Column, RecordFormat, Registered, Source};
use crate::stage;
use crate::syntax::{self, Declaration, Named, Options, StageDeclaration, Statement, ViewStatement};
use crate::table::{Table, TableDefinition};
use crate::view::View;

/// A parsed and checked application.
#[derive(Clone, Debug)]
pub struct Application {
    /// The sources, in order of declaration.
    pub sources: Vec<Arc<Source>>,
    /// The reference tables, in order of declaration.
    pub tables: Vec<Arc<TableDefinition>>,
    /// The views, in order of declaration.
    pub views: Vec<Arc<ViewDefinition>>,
}

impl Application {
    /// Parses an application and checks all of it but the content of
    /// reference tables: names, types, and that each view can be merged.
    pub fn parse(sql: &str) -> Result<Application, SqlError> {
        let mut this = Self { sources: Vec::new(), tables: Vec::new(), views: Vec::new() };
        let session = plan::session();
        for statement in syntax::parse(sql)? {
            match statement {
                Statement::Source(declaration) => {
                    this.refuse_taken(&declaration.name)?;
                    let topic = declaration.options.get("topic").unwrap_or(&declaration.name).clone();
                    let source = source(declaration)?;
                    this.refuse_output_topic(&source.topic, topic.place)?;
                    this.sources.push(Arc::new(source));
                }
                Statement::Stage(declaration) => {
                    this.refuse_taken(&declaration.name)?;
                    let source = this.stage(declaration)?;
                    this.sources.push(Arc::new(source));
                }
                Statement::Table(declaration) => {
                    this.refuse_taken(&declaration.name)?;
                    this.tables.push(Arc::new(table(declaration)?));
                }
                Statement::View(statement) => {
                    this.refuse_taken(&statement.name)?;
                    let view = this.view(&session, statement)?;
                    this.views.push(Arc::new(view));
                }
            }
        }
        Ok(this)
    }

    /// Reads the reference tables' files, relative to `base_dir`, and makes
    /// every view ready to run.
    pub fn bind(&self, base_dir: &Path) -> Result<Vec<Arc<View>>, BindError> {
        self.bind_reading(base_dir, |path| std::fs::read(path))
    }

    /// Makes every view ready to run, with reference tables' files that `read` gives.
    pub fn bind_reading(
        &self,
        base_dir: &Path,
        read: impl Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Vec<Arc<View>>, BindError> {
        let mut tables: BTreeMap<&str, Arc<Table>> = BTreeMap::new();
        for definition in &self.tables {
            tables.insert(&definition.name, Arc::new(definition.load(base_dir, &read)?));
        }
        let bind = |definition: &Arc<ViewDefinition>| {
            let used = definition.plan.joins.iter().map(|join| Arc::clone(&tables[join.table.as_str()]));
            Arc::new(View::new(definition, used.collect()))
        };
        Ok(self.views.iter().map(bind).collect())
    }

    /// Returns a source by its name.
    pub fn source(&self, name: &str) -> Option<&Arc<Source>> {
        self.sources.iter().find(|source| source.name == name)
    }

    /// Returns a reference table by its name.
    pub fn table(&self, name: &str) -> Option<&Arc<TableDefinition>> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Returns a view's definition by its name.
    pub fn view_definition(&self, name: &str) -> Option<&Arc<ViewDefinition>> {
        self.views.iter().find(|view| view.name == name)
    }

    fn refuse_taken(&self, name: &Named) -> Result<(), SqlError> {
        let taken = self.source(&name.text).is_some()
            || self.table(&name.text).is_some()
            || self.view_definition(&name.text).is_some();
        if taken {
            return Err(SqlError::new(
                name.place,
                format!("the name {} is declared twice", name.text),
                "give it another name",
            ));
        }
        Ok(())
    }

    /// Refuses a topic that holds a view's closed windows.
    fn refuse_output_topic(&self, topic: &str, place: Place) -> Result<(), SqlError> {
        let writes = self.views.iter().find(|view| view.output_topic.as_deref() == Some(topic));
        writes.map_or(Ok(()), |view| {
            Err(SqlError::new(
                place,
                format!("topic {topic} is what view {} writes its closed windows to", view.name),
                format!("to read them, write CREATE SOURCE … FROM VIEW {}", view.name),
            ))
        })
    }

    /// Makes the source of a view's closed windows.
    fn stage(&self, declaration: StageDeclaration) -> Result<Source, SqlError> {
        let StageDeclaration { name, view: view_name, mut options } = declaration;
        let Some(view) = self.view_definition(&view_name.text) else {
            let known: Vec<_> = self.views.iter().map(|view| view.name.as_str()).collect();
            return Err(SqlError::new(
                view_name.place,
                format!("no view {} is declared before this source", view_name.text),
                format!("views: {}", known.join(", ")),
            ));
        };
        let inherited = |micros: i64| format!("{micros} microseconds");
        let (lateness, ahead) = (inherited(view.source.lateness_us), inherited(view.source.ahead_us_max));
        let shape = stage::Shape {
            segment_size: count(options.take("segment"), view.source.segment_size, 1, 1 << 32)?,
            lateness_us: length(options.take("lateness"), &lateness)?,
            ahead_us_max: length(options.take("ahead"), &ahead)?,
            storage: storage(&mut options)?,
        };
        options.finish("segment, lateness, ahead, storage, replicas")?;
        stage::source_of(name, view, &view_name, shape)
    }

    fn view(&self, session: &SessionState, mut statement: ViewStatement) -> Result<ViewDefinition, SqlError> {
        let mut options = std::mem::take(&mut statement.options);
        let output_topic = match options.take("output_topic") {
            None => None,
            Some(topic) => {
                let text = checked_topic(&topic)?;
                self.refuse_output_topic(&text, topic.place)?;
                if let Some(source) = self.sources.iter().find(|source| source.topic == text) {
                    return Err(SqlError::new(
                        topic.place,
                        format!("topic {text} holds the readings of source {}", source.name),
                        "write closed windows to a topic of their own",
                    ));
                }
                Some(text)
            }
        };
        let partitions = count(options.take("partitions"), 4, 1, 4096)? as u32;
        let storage = view_storage(&mut options, output_topic.is_some())?;
        options.finish("output_topic, partitions, storage")?;
        let plan = plan::plan(self, session, &statement, output_topic.is_some())?;
        Ok(ViewDefinition {
            name: statement.name.text,
            source: Arc::clone(&plan.source),
            output_topic,
            partitions,
            storage,
            sql: statement.query.to_string(),
            plan: Arc::new(plan),
        })
    }
}

const SOURCE_OPTIONS: &str = "topic, format, registry, subject, refused_schemas, key, identity, version, event_time, segment, \
                              partitions, lateness, ahead, ignore, storage, replicas";

fn source(declaration: Declaration) -> Result<Source, SqlError> {
    let Declaration { name, mut columns, mut options } = declaration;
    let topic = checked_topic(&options.take("topic").unwrap_or_else(|| name.clone()))?;
    let format = record_format(&mut options, &topic)?;
    let segment_size = count(options.take("segment"), 65_536, 1, 1 << 32)?;
    let partitions = count(options.take("partitions"), 4, 1, 4096)? as u32;
    let lateness_us = length(options.take("lateness"), "1 hour")?;
    let ahead_us_max = length(options.take("ahead"), "1 day")?;
    let names = |option: &Named| column_list(&columns, option);

    let Some(key) = options.take("key") else {
        return Err(missing(&name, "key", "the column producers partition by, such as key = 'usage_point'"));
    };
    let key_column = single(names(&key)?, &key)?;
    demand(&columns, key_column, &key, &[ValueType::Text], "the partitioner hashes UTF-8 text")?;

    let Some(identity) = options.take("identity") else {
        let hint = "the columns that name a reading, such as identity = 'usage_point, channel, start_utc'";
        return Err(missing(&name, "identity", hint));
    };
    let identity_columns = names(&identity)?;
    if !identity_columns.contains(&key_column) {
        return Err(SqlError::new(
            identity.place,
            format!(
                "the identity lacks the key column {}, so versions of one reading could lie in several log partitions",
                key.text
            ),
            "add the key column to the identity",
        ));
    }
    let version_column = options.take("version").map(|option| version(&columns, &option)).transpose()?;
    let event_time_column = event_time(&columns, &identity_columns, options.take("event_time"), &name)?;
    let ignored_columns = ignored(&columns, options.take("ignore"))?;
    let ignored_but_needed =
        ignored_columns.iter().find(|c| identity_columns.contains(c) || version_column == Some(**c));
    if let Some(column) = ignored_but_needed {
        let (column, place) = &columns[*column];
        return Err(SqlError::new(
            *place,
            format!("column {} is ignored, but it is part of the identity or the version", column.name),
            "take it out of the ignore option",
        ));
    }
    let storage = storage(&mut options)?;
    options.finish(SOURCE_OPTIONS)?;
    for index in identity_columns.iter().chain([&key_column, &event_time_column]) {
        columns[*index].0.nullable = false;
    }
    let columns: Vec<Column> = columns.into_iter().map(|(column, _)| column).collect();
    Ok(Source {
        schema: Source::schema_of(&columns),
        name: name.text,
        topic,
        format,
        columns,
        segment_size,
        partitions,
        lateness_us,
        ahead_us_max,
        key_column,
        identity_columns,
        version_column,
        event_time_column,
        ignored_columns,
        storage,
    })
}

fn version(columns: &[(Column, Place)], option: &Named) -> Result<usize, SqlError> {
    let column = single(column_list(columns, option)?, option)?;
    let allowed = [ValueType::Int, ValueType::Timestamp];
    demand(columns, column, option, &allowed, "versions are compared as 64-bit numbers")?;
    Ok(column)
}

/// Returns the columns that are no part of a record's content: the option's,
/// or one named `received_at`.
fn ignored(columns: &[(Column, Place)], option: Option<Named>) -> Result<Vec<usize>, SqlError> {
    match option {
        Some(option) => column_list(columns, &option),
        None => Ok(columns.iter().position(|(c, _)| c.name == "received_at").into_iter().collect()),
    }
}

/// Returns the event time's column: the option's, or the first TIMESTAMP of
/// the identity, or one named `start_utc`.
fn event_time(
    columns: &[(Column, Place)],
    identity: &[usize],
    option: Option<Named>,
    source: &Named,
) -> Result<usize, SqlError> {
    if let Some(option) = option {
        let column = single(column_list(columns, &option)?, &option)?;
        demand(columns, column, &option, &[ValueType::Timestamp], "event time is an instant")?;
        return Ok(column);
    }
    let is_time = |index: &usize| columns[*index].0.value_type == ValueType::Timestamp;
    let of_identity = identity.iter().copied().find(|index| is_time(index));
    let by_name = || columns.iter().position(|(c, _)| c.name == "start_utc").filter(is_time);
    of_identity
        .or_else(by_name)
        .ok_or_else(|| missing(source, "event_time", "a TIMESTAMP column, such as event_time = 'start_utc'"))
}

fn table(declaration: Declaration) -> Result<TableDefinition, SqlError> {
    let Declaration { name, columns, mut options } = declaration;
    let Some(path) = options.take("path") else {
        return Err(missing(&name, "path", "a CSV file, such as path = 'network.csv'"));
    };
    options.finish("path")?;
    let columns = columns.into_iter().map(|(column, _)| column).collect();
    Ok(TableDefinition::new(name.text, columns, path.text))
}

fn missing(name: &Named, option: &str, hint: &str) -> SqlError {
    SqlError::new(name.place, format!("{} lacks the option {option}", name.text), format!("add {hint}"))
}

/// Reads how the topic holds its records, and where their schemas are.
fn record_format(options: &mut Options, topic: &str) -> Result<RecordFormat, SqlError> {
    let Some(format) = options.take("format").filter(|f| !f.text.eq_ignore_ascii_case("json")) else {
        // A registry of JSON records stays in the options and is refused as unknown.
        return Ok(RecordFormat::Json);
    };
    let make = match format.text.to_ascii_lowercase().as_str() {
        "avro" => RecordFormat::Avro,
        "protobuf" => RecordFormat::Protobuf,
        _ => {
            return Err(SqlError::new(
                format.place,
                format!("format {:?} is not supported", format.text),
                "records are 'json', 'avro' or 'protobuf'; files of meters come in by sanso ingest",
            ));
        }
    };
    let Some(registry) = options.take("registry") else {
        return Err(missing(
            &format,
            "registry",
            "where the schemas are, such as registry = 'http://registry:8081'",
        ));
    };
    if !registry.text.starts_with("http://") {
        return Err(SqlError::new(
            registry.place,
            format!("{:?} is no registry's address", registry.text),
            "use http://HOST:PORT; TLS is not built in",
        ));
    }
    let subject = options.take("subject").map_or_else(|| format!("{topic}-value"), |subject| subject.text);
    let refused = options.take("refused_schemas");
    let refused_schemas = match &refused {
        None => Ok(Default::default()),
        Some(ids) => ids.text.split(',').map(|id| id.trim().parse()).collect::<Result<_, _>>(),
    };
    let refused_schemas = refused_schemas.map_err(|error: std::num::ParseIntError| {
        let place = refused.map(|option| option.place).unwrap_or_default();
        SqlError::new(place, format!("no list of schema ids: {error}"), "write ids, such as '17, 99'")
    })?;
    Ok(make(Registered { registry: registry.text, subject, refused_schemas }))
}

fn storage(options: &mut Options) -> Result<Storage, SqlError> {
    let Storage { mut level, mut replicas } = Storage::DEFAULT;
    if let Some(option) = options.take("storage") {
        level = parsed(&option)?;
    }
    if let Some(option) = options.take("replicas") {
        replicas = parsed(&option)?;
        if level == StorageLevel::None && replicas != Replicas::Count(1) {
            let what = "what is kept nowhere has no replicas".to_owned();
            return Err(SqlError::new(option.place, what, "give it another storage, or leave replicas out"));
        }
    }
    Ok(Storage { level, replicas })
}

/// Reads where a view's groups are kept.
fn view_storage(options: &mut Options, emits: bool) -> Result<StorageLevel, SqlError> {
    if let Some(option) = options.take("replicas") {
        let what = "a view has as many replicas as all others in its cluster".to_owned();
        return Err(SqlError::new(
            option.place,
            what,
            "leave it out; the nodes' files say how many, as replicas = 3",
        ));
    }
    let Some(option) = options.take("storage") else { return Ok(StorageLevel::Memory) };
    let level = parsed(&option)?;
    let refused = |what: &str, hint: &str| Err(SqlError::new(option.place, what.to_owned(), hint));
    match level {
        StorageLevel::None => refused(
            "a view that is kept nowhere can't be asked",
            "say 'memory', 'disk' or 'memory,disk', or leave the view out",
        ),
        StorageLevel::Disk | StorageLevel::MemoryDisk if emits => refused(
            "a view whose closed windows are written to a topic is kept in memory",
            "leave storage out, or write the windows of another view with the same SELECT",
        ),
        level => Ok(level),
    }
}

fn parsed<T: FromStr<Err: Display>>(option: &Named) -> Result<T, SqlError> {
    let read = option.text.parse();
    read.map_err(|error| SqlError::new(option.place, format!("{:?} is {error}", option.text), ""))
}

/// Checks a topic's name as Kafka does.
fn checked_topic(topic: &Named) -> Result<String, SqlError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let text = &topic.text;
    if text.is_empty()
        || text.len() > 249
        || matches!(text.as_str(), "." | "..")
        || !text.chars().all(allowed)
    {
        return Err(SqlError::new(
            topic.place,
            format!("{text:?} is no topic name"),
            "use up to 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-'",
        ));
    }
    Ok(topic.text.clone())
}

fn count(option: Option<Named>, default: u64, least: u64, most: u64) -> Result<u64, SqlError> {
    let Some(option) = option else { return Ok(default) };
    match option.text.parse() {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(SqlError::new(
            option.place,
            format!("found {:?}, expected a whole number from {least} to {most}", option.text),
            "",
        )),
    }
}

fn length(option: Option<Named>, default: &str) -> Result<i64, SqlError> {
    let (text, place) = match &option {
        Some(option) => (option.text.as_str(), option.place),
        None => (default, Place::default()),
    };
    let micros = Interval::parse(text)
        .map_err(|error| SqlError::new(place, error.to_string(), ""))?
        .fixed_us()
        .filter(|micros| *micros >= 0);
    micros.ok_or_else(|| {
        SqlError::new(place, format!("{text:?} has no fixed length"), "use days, hours, minutes or seconds")
    })
}

fn column_list(columns: &[(Column, Place)], option: &Named) -> Result<Vec<usize>, SqlError> {
    let mut indexes = Vec::new();
    for name in option.text.split(',').map(str::trim) {
        let index = columns.iter().position(|(column, _)| column.name == name);
        let index =
            index.or_else(|| columns.iter().position(|(column, _)| column.name == name.to_lowercase()));
        let Some(index) = index else {
            let known: Vec<_> = columns.iter().map(|(c, _)| c.name.as_str()).collect();
            return Err(SqlError::new(
                option.place,
                format!("no column {name:?} is declared"),
                format!("declared are {}", known.join(", ")),
            ));
        };
        if indexes.contains(&index) {
            return Err(SqlError::new(option.place, format!("column {name} stands twice"), ""));
        }
        indexes.push(index);
    }
    Ok(indexes)
}

fn single(indexes: Vec<usize>, option: &Named) -> Result<usize, SqlError> {
    match indexes.as_slice() {
        [index] => Ok(*index),
        _ => Err(SqlError::new(option.place, "expected one column", "name exactly one column")),
    }
}

fn demand(
    columns: &[(Column, Place)],
    index: usize,
    option: &Named,
    allowed: &[ValueType],
    why: &str,
) -> Result<(), SqlError> {
    let column = &columns[index].0;
    if allowed.contains(&column.value_type) {
        return Ok(());
    }
    let names: Vec<_> = allowed.iter().map(|t| crate::scalar::sql_type(*t)).collect();
    Err(SqlError::new(
        option.place,
        format!(
            "column {} is {}, expected {}",
            column.name,
            crate::scalar::sql_type(column.value_type),
            names.join(" or ")
        ),
        why,
    ))
}
