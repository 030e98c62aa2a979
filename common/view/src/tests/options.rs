use super::*;
use sanso_state::{Replicas, Storage, StorageLevel, ValueType};

const COLUMNS: &str = "(id TEXT, at TIMESTAMP, received_at TIMESTAMP, amount DECIMAL(9,3), n BIGINT)";

fn parse_source(options: &str) -> Result<Application, crate::SqlError> {
    Application::parse(&format!("CREATE SOURCE s {COLUMNS} WITH ({options})"))
}

#[test]
fn a_source_has_defaults_for_what_is_not_said() {
    let application = parse_source("key = 'id', identity = 'id, at'").expect("a valid source");
    let source = application.source("s").expect("it is declared");
    assert_eq!((source.topic.as_str(), source.segment_size, source.partitions), ("s", 65_536, 4));
    assert_eq!((source.lateness_us, source.ahead_us_max), (3_600_000_000, 86_400_000_000));
    assert_eq!((source.event_time_column, source.version_column), (1, None));
    assert_eq!(source.ignored_columns, [2]);
    assert_eq!(
        source.columns.iter().map(|c| c.nullable).collect::<Vec<_>>(),
        [false, false, true, true, true]
    );
    assert_eq!(source.columns[3].value_type, ValueType::Decimal { precision: 9, scale: 3 });
}

#[test]
fn a_source_is_what_its_options_say() {
    let application = parse_source(
        "topic = 'raw', FORMAT = 'JSON', key = 'id', identity = 'id', version = 'n', event_time = 'at',
         segment = 100, partitions = '7', lateness = '0 seconds', ahead = '2 days', ignore = 'amount'",
    )
    .expect("a valid source");
    let source = application.source("s").expect("it is declared");
    assert_eq!((source.topic.as_str(), source.segment_size, source.partitions), ("raw", 100, 7));
    assert_eq!((source.lateness_us, source.ahead_us_max), (0, 172_800_000_000));
    assert_eq!((source.version_column, source.ignored_columns.as_slice()), (Some(4), [3].as_slice()));
    assert_eq!(source.segments().size(), 100);
}

#[test]
fn a_source_says_where_its_table_is_kept() {
    let named = "key = 'id', identity = 'id, at'";
    let source =
        |options: &str| parse_source(&format!("{named}{options}")).map(|a| Arc::clone(&a.sources[0]));
    let default = source("").expect("a valid source");
    assert_eq!(default.storage, Storage::DEFAULT);
    let spilled = source(", storage = 'Memory, Disk', replicas = 2").expect("a valid source");
    let storage = Storage { level: StorageLevel::MemoryDisk, replicas: Replicas::Count(2) };
    assert_eq!(spilled.storage, storage);
    assert_eq!(spilled.definition(), default.definition(), "it changes no view");
    let refusal = source(", storage = 'ssd'").expect_err("no level").to_string();
    assert!(refusal.contains("'memory,disk' or 'none'"), "{refusal}");
    let measured = source(", replicas = 'auto'").expect("a valid source");
    assert_eq!(measured.storage.replicas, Replicas::Auto);
    let refusal = source(", replicas = '0'").expect_err("no replica").to_string();
    assert!(refusal.contains("expected 1 to 7, or 'auto'"), "{refusal}");
    let refusal = source(", storage = 'none', replicas = 2").expect_err("nothing to copy").to_string();
    assert!(refusal.contains("leave replicas out"), "{refusal}");
}

#[test]
fn a_view_says_where_its_groups_are_kept() {
    let view = |options: &str| {
        let source = format!("CREATE SOURCE s {COLUMNS} WITH (key = 'id', identity = 'id, at');");
        let view = format!("CREATE VIEW v {options} AS SELECT id, SUM(amount) AS total FROM s GROUP BY id");
        let application = Application::parse(&format!("{source} {view}"))?;
        Ok::<_, crate::SqlError>(application.bind(std::path::Path::new(".")).expect("no tables").remove(0))
    };
    let default = view("").expect("a valid view");
    assert_eq!(default.storage, StorageLevel::Memory);
    let level = |level: &str| view(&format!("WITH (storage = '{level}')"));
    let disk = level("disk").expect("a valid view");
    assert_eq!(disk.storage, StorageLevel::Disk);
    assert_eq!(disk.fingerprint, default.fingerprint, "it changes no answer");
    assert_eq!(level("disk, memory").expect("a valid view").storage, StorageLevel::MemoryDisk);
    let refusal = |options: &str| view(options).expect_err(options).to_string();
    assert!(refusal("WITH (storage = 'none')").contains("kept nowhere"));
    assert!(refusal("WITH (storage = 'tape')").contains("'memory,disk' or 'none'"));
    assert!(refusal("WITH (storage = 'disk', replicas = 2)").contains("as many replicas as all others"));
    let windows = "GROUP BY id, TUMBLE(at, INTERVAL '1 hour')";
    let emits = format!(
        "CREATE SOURCE s {COLUMNS} WITH (key = 'id', identity = 'id, at'); \
         CREATE VIEW v WITH (output_topic = 'o', storage = 'disk') AS SELECT id, COUNT(*) AS n FROM s {windows}"
    );
    let refusal = Application::parse(&emits).map(|_| ()).expect_err("it emits").to_string();
    assert!(refusal.contains("is kept in memory"), "{refusal}");
}

#[test]
fn a_source_says_where_its_schemas_are() {
    let named = "key = 'id', identity = 'id, at', topic = 'raw'";
    let source = |options: &str| {
        let application = parse_source(&format!("{named}, {options}")).expect("a valid source");
        application.source("s").expect("it is declared").as_ref().clone()
    };
    let avro = source("format = 'avro', registry = 'http://r:8081', refused_schemas = '17, 99'");
    assert_eq!(avro.format.to_string(), "avro (subject raw-value at http://r:8081)");
    let refused = &avro.format.registered().expect("a registry").refused_schemas;
    assert_eq!(refused.iter().copied().collect::<Vec<_>>(), [17, 99]);
    let moved = source("format = 'AVRO', registry = 'http://elsewhere'");
    assert_eq!(moved.definition(), avro.definition());
    let json = source("format = 'json'");
    assert_ne!(json.definition(), avro.definition());
    let refusal =
        |options: &str| parse_source(&format!("{named}, {options}")).expect_err("refused").to_string();
    assert!(refusal("format = 'protobuf'").contains("lacks the option registry"));
    assert!(refusal("format = 'avro', registry = 'https://r'").contains("no registry's address"));
    assert!(
        refusal("format = 'avro', registry = 'http://r', refused_schemas = 'x'")
            .contains("no list of schema ids")
    );
    assert!(refusal("registry = 'http://r'").contains("registry"));
}

#[test]
fn wrong_options_are_refused_where_they_stand() {
    let good = "key = 'id', identity = 'id, at'";
    for (options, at, fragments) in [
        (format!("{good}, colour = 'red'"), "colour", ["unknown option colour", "known here: topic"]),
        (format!("{good}, segment = '0'"), "'0'", ["expected a whole number from 1", ""]),
        (format!("{good}, partitions = 'many'"), "'many'", ["\"many\"", "1 to 4096"]),
        (format!("{good}, lateness = 'a while'"), "'a while'", ["a while", "expected an interval"]),
        (format!("{good}, lateness = '1 month'"), "'1 month'", ["no fixed length", "use days"]),
        (format!("{good}, format = 'xml'"), "'xml'", ["xml", "'avro' or 'protobuf'"]),
        (format!("{good}, format = 'avro'"), "'avro'", ["lacks the option registry", "http://registry"]),
        (format!("{good}, topic = 'a b'"), "'a b'", ["no topic name", "a-z"]),
        (format!("{good}, version = 'id'"), "'id'", ["column id is TEXT", "BIGINT or TIMESTAMP"]),
        (format!("{good}, event_time = 'n'"), "'n'", ["column n is BIGINT", "TIMESTAMP"]),
        (format!("{good}, ignore = 'at'"), "at TIMESTAMP", ["column at is ignored", "identity"]),
        (format!("{good}, key = 'id'"), "key = 'id')", ["option key stands twice", ""]),
        ("identity = 'id'".to_owned(), "s (", ["lacks the option key", "partition by"]),
        ("key = 'id'".to_owned(), "s (", ["lacks the option identity", "name a reading"]),
        ("key = 'id', identity = 'at'".to_owned(), "'at'", ["lacks the key column", "add the key column"]),
        ("key = 'n', identity = 'n'".to_owned(), "'n', identity", ["column n is BIGINT", "UTF-8"]),
        (
            "key = 'id', identity = 'id, nope'".to_owned(),
            "'id, nope'",
            ["no column \"nope\"", "declared are id"],
        ),
        ("key = 'id', identity = 'id', event_time".to_owned(), ")", ["expected = after", ""]),
        ("key = id".to_owned(), "id", ["expected a value in single quotes", ""]),
    ] {
        let sql = format!("CREATE SOURCE s {COLUMNS} WITH ({options})");
        let error = parse_source(&options).map(|_| ()).expect_err(&options);
        let text = error.to_string();
        fragments.iter().for_each(|f| assert!(text.contains(f), "{options}: {text:?} lacks {f:?}"));
        // A column's declaration stands first, what an option says last.
        let found = if at.starts_with("at ") { sql.find(at) } else { sql.rfind(at) };
        let found = found.unwrap_or_else(|| panic!("{at} is not in {sql}"));
        assert_eq!((error.line, error.column), (1, found as u64 + 1), "{text}");
    }
}

#[test]
fn broken_statements_are_refused_where_they_break() {
    for (sql, line, column, fragment) in [
        ("CREATE SOURCE s (a DOUBLE) WITH (key = 'a')", 1, 20, "not exact"),
        ("CREATE SOURCE s (a FLOAT) WITH (key = 'a')", 1, 20, "not exact"),
        ("CREATE SOURCE s (a DECIMAL) WITH (key = 'a')", 1, 20, "precision and scale"),
        ("CREATE SOURCE s (a DECIMAL(39,2)) WITH (key = 'a')", 1, 20, "precision and scale"),
        ("CREATE SOURCE s (a DECIMAL(3,4)) WITH (key = 'a')", 1, 20, "precision and scale"),
        ("CREATE SOURCE s (a BLOB) WITH (key = 'a')", 1, 20, "not supported"),
        ("CREATE SOURCE s (a TEXT,\n  a TEXT)", 2, 3, "declared twice"),
        ("CREATE TABLE t (a TEXT)", 1, 14, "lacks the option path"),
        ("CREATE TABLE t (a TEXT) WITH (path = 'x', delimiter = ';')", 1, 43, "unknown option delimiter"),
        (
            "CREATE TABLE t (a TEXT) WITH (path = 'x');\nCREATE TABLE t (a TEXT) WITH (path = 'x')",
            2,
            14,
            "declared twice",
        ),
        ("DROP TABLE t", 1, 1, "expected CREATE SOURCE"),
        ("CREATE INDEX i", 1, 8, "expected CREATE SOURCE"),
        ("CREATE VIEW v SELECT 1", 1, 15, "expected AS"),
        ("CREATE VIEW v AS SELECT FROM", 1, 29, "Expected: identifier"),
        ("CREATE VIEW v AS", 1, 17, "the end of the file"),
        ("CREATE SOURCE s (a TEXT", 1, 24, "the end of the file"),
        ("CREATE TABLE t (a TEXT) WITH (path = 'x') nonsense", 1, 43, "expected a semicolon"),
        ("CREATE TABLE t (a TEXT) WITH (path = 'x", 1, 38, "Unterminated"),
    ] {
        let error = Application::parse(sql).map(|_| ()).expect_err(sql);
        assert!(error.to_string().contains(fragment), "{sql}\n{error}");
        assert_eq!((error.line, error.column), (line, column), "{sql}\n{error}");
    }
}

#[test]
fn an_empty_application_is_no_error() {
    for sql in ["", ";;", "-- nothing yet\n"] {
        let application = Application::parse(sql).expect("nothing is wrong with it");
        assert!(application.views.is_empty());
    }
}
