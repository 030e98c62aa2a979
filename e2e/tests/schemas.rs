//! Avro and Protobuf on a real Kafka, with a schema registry that knows, does not know yet, or is away:
//! records of other producers are read exactly, what no schema reads is quarantined, and what the
//! registry withholds is waited for and said.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use sanso_broker::{Cluster, available};
use sanso_e2e::{Client, Node, binary, micro_of};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const USER: &str = "reader";
const PASSWORD: &str = "registry-password-never-shown";
/// `reader:registry-password-never-shown` in base64.
const LOGIN: &str = "cmVhZGVyOnJlZ2lzdHJ5LXBhc3N3b3JkLW5ldmVyLXNob3du";

const AVRO: &str = r#"{"type":"record","name":"Reading","namespace":"meters","fields":[
  {"name":"usage_point","type":"string"},
  {"name":"start_utc","type":{"type":"long","logicalType":"timestamp-micros"}},
  {"name":"value","type":{"type":"bytes","logicalType":"decimal","precision":18,"scale":6}},
  {"name":"source_version","type":"long"}]}"#;

const PROTOBUF: &str = r#"syntax = "proto3"; package meters;
import "google/protobuf/timestamp.proto";
import "confluent/type/decimal.proto";
message Reading {
  string usage_point = 1;
  google.protobuf.Timestamp start_utc = 2;
  confluent.type.Decimal value = 3;
  int64 source_version = 4;
}"#;

/// The application; `{registry}` is the registry's address.
const APP: &str = "
CREATE SOURCE by_avro (usage_point TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), source_version BIGINT, note TEXT)
  WITH (format = 'avro', registry = '{registry}', key = 'usage_point', identity = 'usage_point, start_utc',
        version = 'source_version', segment = '64', partitions = '2');
CREATE SOURCE by_protobuf (usage_point TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), source_version BIGINT, note TEXT)
  WITH (format = 'protobuf', registry = '{registry}', key = 'usage_point', identity = 'usage_point, start_utc',
        version = 'source_version', segment = '64', partitions = '2');
CREATE VIEW avro_daily AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 day') AS day, SUM(value) AS kwh, COUNT(*) AS readings
  FROM by_avro GROUP BY usage_point, day;
CREATE VIEW protobuf_daily AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 day') AS day, SUM(value) AS kwh, COUNT(*) AS readings
  FROM by_protobuf GROUP BY usage_point, day;
";

/// Source, its view, the id of its schema, and how a reading is written by it.
const SOURCES: [(&str, &str, u32, Encode); 2] =
    [("by_avro", "avro_daily", 7, avro), ("by_protobuf", "protobuf_daily", 8, protobuf)];
/// 1 January 2026, in seconds since 1970.
const FIRST_DAY_S: i64 = 1_767_225_600;
const METERS: u64 = 12;

type Encode = fn(&Reading) -> Vec<u8>;

#[derive(Clone, Debug)]
struct Reading {
    meter: String,
    half_hour: i64,
    /// In millionths.
    value: i64,
}

/// A day of all meters: values of either sign, of one digit and of many.
fn day(number: i64) -> Vec<Reading> {
    let half_hours = (0..METERS).flat_map(|meter| (0..48).map(move |half_hour| (meter, half_hour)));
    let reading = |(meter, half_hour): (u64, i64)| {
        let spread = meter.cast_signed() * 7 + half_hour * 11 + number * 13;
        let value = [spread, -spread, 125_000, 999_999_999_999_999_999, 256 - spread][spread as usize % 5];
        Reading { meter: format!("M{meter:02}"), half_hour: number * 48 + half_hour, value }
    };
    half_hours.map(reading).collect()
}

/// Sum and count by meter and day.
fn fold<'a>(readings: impl IntoIterator<Item = &'a Reading>) -> BTreeMap<(String, String), (i128, i64)> {
    let mut groups = BTreeMap::new();
    for reading in readings {
        let day = format!("2026-01-{:02}T00:00:00Z", reading.half_hour / 48 + 1);
        let group = groups.entry((reading.meter.clone(), day)).or_insert((0, 0));
        *group = (group.0 + i128::from(reading.value), group.1 + 1);
    }
    groups
}

fn zigzag(value: i64) -> Vec<u8> {
    varint(((value << 1) ^ (value >> 63)).cast_unsigned())
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Two's complement, big-endian: always eight bytes, which is more than the shortest.
fn unscaled(value: i64) -> [u8; 8] {
    value.to_be_bytes()
}

fn avro(reading: &Reading) -> Vec<u8> {
    let micros = (FIRST_DAY_S + reading.half_hour * 1_800) * 1_000_000;
    let text = |bytes: &[u8]| [&zigzag(bytes.len() as i64), bytes].concat();
    [text(reading.meter.as_bytes()), zigzag(micros), text(&unscaled(reading.value)), zigzag(1)].concat()
}

fn protobuf(reading: &Reading) -> Vec<u8> {
    let bytes = |tag: u8, bytes: &[u8]| [&[tag << 3 | 2][..], &varint(bytes.len() as u64), bytes].concat();
    let number = |tag: u8, value: i64| [&[tag << 3][..], &varint(value.cast_unsigned())].concat();
    let start = number(1, FIRST_DAY_S + reading.half_hour * 1_800);
    let value = [bytes(1, &unscaled(reading.value)), number(2, 18), number(3, 6)].concat();
    // The file's first message.
    let index = vec![0];
    [index, bytes(1, reading.meter.as_bytes()), bytes(2, &start), bytes(3, &value), number(4, 1)].concat()
}

/// Begins a record as Confluent's serializers do.
fn framed(id: u32, payload: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], payload].concat()
}

/// What the registry answers, by path; nothing while it is away.
type Answers = Arc<Mutex<Option<BTreeMap<String, Value>>>>;

/// A stand-in for a registry, which asks for a login.
struct Registry {
    url: String,
    answers: Answers,
    kept: BTreeMap<String, Value>,
}

impl Registry {
    /// Starts one that is away: it closes every connection.
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let answers = Answers::default();
        let answering = Arc::clone(&answers);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                // A client that is gone is no failure of the registry.
                let _ = answer(connection, &answering).await;
            }
        });
        Ok(Self { url, answers, kept: BTreeMap::new() })
    }

    fn register(&mut self, subject: &str, id: u32, schema: &str) {
        let kind = if schema.starts_with('{') { "AVRO" } else { "PROTOBUF" };
        let document =
            json!({ "subject": subject, "id": id, "version": 1, "schemaType": kind, "schema": schema });
        self.kept.insert(format!("/schemas/ids/{id}"), document.clone());
        self.kept.insert(format!("/subjects/{subject}/versions/latest"), document);
        self.come();
    }

    fn come(&self) {
        *self.answers.lock().expect("no panic while it is held") = Some(self.kept.clone());
    }

    fn go(&self) {
        *self.answers.lock().expect("no panic while it is held") = None;
    }
}

async fn answer(
    mut connection: TcpStream,
    answers: &Mutex<Option<BTreeMap<String, Value>>>,
) -> anyhow::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(connection.read_buf(&mut head).await? > 0, "the client went away");
    }
    let head = String::from_utf8(head)?;
    let path = head.split(' ').nth(1).context("a path")?;
    let Some(known) = answers.lock().expect("no panic while it is held").clone() else { return Ok(()) };
    let may = head.contains(&format!("Basic {LOGIN}"));
    let (status, body) = match known.get(path) {
        _ if !may => ("401 Unauthorized", json!({ "message": "who are you?" })),
        Some(document) => ("200 OK", document.clone()),
        None => ("404 Not Found", json!({ "error_code": 40403, "message": "Schema not found" })),
    };
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    Ok(connection.write_all((head + &body).as_bytes()).await?)
}

/// A cluster, a registry, an application and a data folder.
struct World {
    cluster: Cluster,
    registry: Registry,
    folder: tempfile::TempDir,
    producer: BaseProducer,
    /// Readings in the log, by source.
    sent: BTreeMap<&'static str, Vec<Reading>>,
}

impl World {
    /// Makes a world whose registry is away and knows nothing.
    async fn new() -> anyhow::Result<Self> {
        let cluster = Cluster::start(1)?;
        let registry = Registry::start().await?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("app.sql"), APP.replace("{registry}", &registry.url))?;
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.servers())
            .set("partitioner", "murmur2_random")
            .create()?;
        Ok(Self { cluster, registry, folder, producer, sent: BTreeMap::new() })
    }

    /// Registers the schemas of both sources.
    fn register(&mut self) {
        self.registry.register("by_avro-value", 7, AVRO);
        self.registry.register("by_protobuf-value", 8, PROTOBUF);
    }

    fn start(&self) -> anyhow::Result<Node> {
        let log = format!("kafka://{}", self.cluster.servers());
        let settings = self.folder.path().join("own.toml");
        std::fs::write(&settings, "[batch]\ninterval_ms = 50\n[speed]\nretry_ms = 50\n")?;
        let settings = settings.to_str().context("a path in UTF-8")?;
        let mut command = Command::new(binary());
        command.env("SANSO_REGISTRY_USER", USER).env("SANSO_REGISTRY_PASSWORD", PASSWORD);
        let (app, data) = (self.folder.path().join("app.sql"), self.folder.path().join("data"));
        Node::start_as(command, &app, &data, &["--log", &log, "--config", settings])
    }

    /// Produces bytes as they are.
    fn put(&self, topic: &str, key: &str, payload: &[u8]) -> anyhow::Result<()> {
        let record = BaseRecord::to(topic).key(key).payload(payload);
        self.producer.send(record).map_err(|(error, _)| error)?;
        Ok(self.producer.flush(Duration::from_secs(30))?)
    }

    /// Produces readings to a source as another program would.
    fn produce(
        &mut self,
        (source, _, id, encode): (&'static str, &str, u32, Encode),
        readings: Vec<Reading>,
    ) -> anyhow::Result<()> {
        for reading in &readings {
            let payload = framed(id, &encode(reading));
            let record = BaseRecord::to(source).key(&reading.meter).payload(&payload);
            self.producer.send(record).map_err(|(error, _)| error)?;
        }
        self.producer.flush(Duration::from_secs(30))?;
        self.sent.entry(source).or_default().extend(readings);
        Ok(())
    }

    /// Returns where the partitions of a topic end.
    fn ends(&self, source: &str) -> anyhow::Result<Vec<u64>> {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", self.cluster.servers()).create()?;
        let mut ends = Vec::new();
        for partition in 0..2 {
            let (_, end) = consumer.fetch_watermarks(source, partition, Duration::from_secs(30))?;
            ends.push(end.cast_unsigned());
        }
        Ok(ends)
    }

    /// Returns a token of all that a topic has.
    fn session(&self, source: &str) -> anyhow::Result<String> {
        let name: String = source.bytes().map(|byte| format!("{byte:02x}")).collect();
        let ends: String = self.ends(source)?.iter().map(|end| format!("-{end:x}")).collect();
        Ok(format!("v1.{name}{ends}"))
    }

    /// Holds the views of both sources against a fold of what was sent.
    async fn verdict(&self, client: &Client) -> anyhow::Result<()> {
        for (source, view, ..) in SOURCES {
            let session = self.session(source)?;
            let found = groups(client, view, &session).await?;
            let expected = fold(self.sent.get(source).into_iter().flatten());
            ensure!(found == expected, "{view}: {found:?}, expected {expected:?}");
        }
        let status = client.get("/v1/status").await?;
        ensure!(status["audit"]["differing"] == 0, "the audit found {}", status["audit"]);
        Ok(())
    }
}

async fn groups(
    client: &Client,
    view: &str,
    session: &str,
) -> anyhow::Result<BTreeMap<(String, String), (i128, i64)>> {
    let answer =
        client.query_at(&format!("SELECT usage_point, day, kwh, readings FROM {view}"), session).await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let group =
        |row: &Value| ((text(&row[0]), text(&row[1])), (micro_of(&row[2]), row[3].as_i64().unwrap_or(-1)));
    Ok(answer.rows().iter().map(group).collect())
}

/// Waits until a source's master dataset has all complete segments of a log that ends here; returns how many
/// readings.
async fn archived(client: &Client, source: &str, log_ends: &[u64]) -> anyhow::Result<u64> {
    loop {
        let found = client.get(&format!("/v1/sources/{source}")).await?;
        let numbers = |value: &Value, name: &str| -> Vec<u64> {
            value.as_array().into_iter().flatten().filter_map(|part| part[name].as_u64()).collect()
        };
        let ends = numbers(&found["partitions"], "end");
        let cut: Vec<u64> =
            found["batch"]["cut"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        // What a node says of the log may be older than the log.
        if ends == log_ends && cut.iter().copied().eq(ends.iter().map(|end| end / 64 * 64)) {
            return Ok(cut.iter().sum());
        }
        tokio::task::yield_now().await;
    }
}

/// Waits until `/readyz` answers a status, and returns what it says.
async fn ready(client: &Client, wanted: u16, text: &str) -> anyhow::Result<String> {
    loop {
        let (status, said) = client.get_text("/readyz").await?;
        if status == wanted && said.contains(text) {
            return Ok(said);
        }
        tokio::task::yield_now().await;
    }
}

/// Waits until something that holds a log partition of a source is told; returns all of it.
async fn trouble(client: &Client, source: &str, text: &str) -> anyhow::Result<Value> {
    loop {
        let found = client.get(&format!("/v1/sources/{source}")).await?;
        if found["troubles"].to_string().contains(text) {
            return Ok(found["troubles"].clone());
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn records_of_other_producers_are_exact_in_every_layer() -> anyhow::Result<()> {
    if !available("records_of_other_producers_are_exact_in_every_layer") {
        return Ok(());
    }
    let mut world = World::new().await?;
    world.register();
    let node = world.start()?;
    for source in SOURCES {
        world.produce(source, [day(0), day(1)].concat())?;
    }
    // One more of each by kcat, which sends a file as it is.
    for (source, _, id, encode) in SOURCES {
        let reading = Reading { meter: "M03".into(), half_hour: 96, value: -1 };
        let file = world.folder.path().join("record");
        std::fs::write(&file, framed(id, &encode(&reading)))?;
        let file = file.to_str().context("a path in UTF-8")?;
        let murmur2 = "topic.partitioner=murmur2_random";
        world.cluster.kcat(&["-P", "-t", source, "-k", "M03", "-X", murmur2, file], "")?;
        world.sent.entry(source).or_default().push(reading);
    }
    world.verdict(&node.client).await?;
    for (source, ..) in SOURCES {
        let count = archived(&node.client, source, &world.ends(source)?).await?;
        let answer = node.client.query(&format!("SELECT COUNT(*) FROM {source}")).await?;
        assert_eq!(answer.rows()[0][0].as_u64(), Some(count));
    }
    world.verdict(&node.client).await?;
    node.kill()?;
    std::fs::remove_dir_all(world.folder.path().join("data/speed"))?;
    let node = world.start()?;
    world.verdict(&node.client).await?;
    assert!(!node.log().iter().any(|line| line.contains(PASSWORD) || line.contains(LOGIN)));
    node.stop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn ingested_lines_are_written_by_the_latest_schema_or_refused_one_by_one() -> anyhow::Result<()> {
    if !available("ingested_lines_are_written_by_the_latest_schema_or_refused_one_by_one") {
        return Ok(());
    }
    let mut world = World::new().await?;
    world.register();
    let node = world.start()?;
    for (source, _, id, _) in SOURCES {
        let line = |value: &str, note: &str| {
            format!(
                r#"{{"usage_point":"M01","start_utc":"2026-01-01T00:30:00Z","value":{value},"source_version":1,"note":{note}}}"#
            )
        };
        // Neither schema has room for a note: it is not left out, the line is refused.
        let lines = [line("0.000125", "null"), line("1", "\"estimated\""), "{".to_owned()].join("\n");
        let (status, answer) = node.client.ingest(source, lines).await?;
        assert_eq!((status, answer["acknowledged"].as_u64()), (200, Some(1)), "{answer}");
        let refused: BTreeSet<u64> = answer["refused"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|line| line["line"].as_u64())
            .collect();
        assert_eq!(refused, BTreeSet::from([2, 3]), "{answer}");
        assert!(answer.to_string().contains("the schema has no field note"), "{answer}");
        world.sent.entry(source).or_default().push(Reading { meter: "M01".into(), half_hour: 1, value: 125 });
        let sizes = world.cluster.kcat(&["-C", "-q", "-e", "-t", source, "-f", "%S %k"], "")?;
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", world.cluster.servers())
            .set("group.id", "reader")
            .set("auto.offset.reset", "earliest")
            .create()?;
        consumer.subscribe(&[source])?;
        let record = consumer.iter().next().context("a record")??;
        let payload = rdkafka::Message::payload(&record).context("a payload")?;
        assert_eq!(payload[..5], framed(id, &[])[..], "it begins as Confluent's do");
        assert_eq!(sizes, format!("{} M01", payload.len()));
    }
    world.verdict(&node.client).await?;
    node.stop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_no_schema_reads_is_quarantined_with_its_reason_and_bytes() -> anyhow::Result<()> {
    if !available("what_no_schema_reads_is_quarantined_with_its_reason_and_bytes") {
        return Ok(());
    }
    let mut world = World::new().await?;
    world.register();
    let node = world.start()?;
    for source in SOURCES {
        let (name, _, id, encode) = source;
        world.produce(source, day(0))?;
        let whole = framed(id, &encode(&Reading { meter: "M01".into(), half_hour: 50, value: 1 }));
        world.put(name, "M01", b"{\"usage_point\":\"M01\"}")?;
        world.put(name, "M01", &whole[..whole.len() - 3])?;
        world.put(name, "M01", &framed(15 - id, &whole[5..]))?;
        world.produce(source, day(1))?;
    }
    world.verdict(&node.client).await?;
    for (source, _, id, _) in SOURCES {
        let listed = node.client.get(&format!("/v1/quarantine/{source}")).await?;
        assert_eq!(listed["count"], 3, "{listed}");
        let reason = |at: usize| listed["records"][at]["reason"].as_str().unwrap_or_default().to_owned();
        assert!(reason(0).contains("begins with byte 0x7b"), "{listed}");
        assert!(reason(1).contains(&format!("schema {id}: ")), "{listed}");
        assert!(reason(2).contains("the source is declared"), "{listed}");
        let payload: Value =
            serde_json::from_str(listed["records"][0]["payload"].as_str().unwrap_or_default())?;
        assert_eq!(payload["$undecodable"]["bytes"], "eyJ1c2FnZV9wb2ludCI6Ik0wMSJ9");
        // The batch layer judges alike, and the audit compares.
        archived(&node.client, source, &world.ends(source)?).await?;
        let again = node.client.get(&format!("/v1/quarantine/{source}")).await?;
        assert_eq!(again["count"], 3, "{again}");
    }
    world.verdict(&node.client).await?;
    node.stop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_unknown_schema_holds_its_partition_and_says_so_until_it_is_registered() -> anyhow::Result<()> {
    if !available("an_unknown_schema_holds_its_partition_and_says_so_until_it_is_registered") {
        return Ok(());
    }
    let mut world = World::new().await?;
    world.register();
    let node = world.start()?;
    let [source, other] = SOURCES;
    world.produce(source, day(0))?;
    world.verdict(&node.client).await?;
    // The next schema is in use before the registry has it.
    let (name, view, _, encode) = source;
    let early = vec![Reading { meter: "M01".into(), half_hour: 60, value: 5 }];
    world.produce(source, day(1).into_iter().filter(|reading| reading.meter == "M01").take(9).collect())?;
    let before = fold(&world.sent[name]);
    world.produce((name, view, 9, encode), early)?;
    world.produce(source, day(2).into_iter().filter(|reading| reading.meter == "M01").collect())?;
    let said = trouble(&node.client, name, "/schemas/ids/9").await?;
    assert_eq!(said.as_object().map(serde_json::Map::len), Some(1), "one log partition is held: {said}");
    // All that lies before it is visible, and the other source goes on.
    while groups(&node.client, view, "").await? != before {
        tokio::task::yield_now().await;
    }
    let (_, metrics) = node.client.get_text("/metrics").await?;
    assert!(metrics.contains("sanso_speed_held{source=\"by_avro\""), "{metrics}");
    world.produce(other, day(0))?;
    let found = groups(&node.client, other.1, &world.session(other.0)?).await?;
    assert_eq!(found, fold(&world.sent[other.0]));
    // A node that starts meanwhile is not ready, and says why.
    node.kill()?;
    let node = world.start()?;
    ready(&node.client, 503, "/schemas/ids/9").await?;
    world.registry.register("by_avro-value", 9, AVRO);
    ready(&node.client, 200, "").await?;
    world.verdict(&node.client).await?;
    let told = node.client.get(&format!("/v1/sources/{name}")).await?;
    assert!(told["troubles"].as_object().is_none_or(serde_json::Map::is_empty), "{told}");
    let (_, metrics) = node.client.get_text("/metrics").await?;
    assert!(!metrics.contains("sanso_speed_held{"), "{metrics}");
    archived(&node.client, name, &world.ends(name)?).await?;
    world.verdict(&node.client).await?;
    node.stop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_node_outlives_its_registry_and_starts_before_it() -> anyhow::Result<()> {
    if !available("a_node_outlives_its_registry_and_starts_before_it") {
        return Ok(());
    }
    let mut world = World::new().await?;
    let [source, other] = SOURCES;
    let node = world.start()?;
    for source in [source, other] {
        world.produce(source, day(0))?;
    }
    trouble(&node.client, source.0, "is out of reach").await?;
    let line = r#"{"usage_point":"M01","start_utc":"2026-01-09T00:30:00Z","value":1,"source_version":1}"#;
    let (status, answer) = node.client.ingest(source.0, line.to_owned()).await?;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.to_string().contains("is out of reach"), "{answer}");
    node.kill()?;
    let node = world.start()?;
    ready(&node.client, 503, "is out of reach").await?;
    world.register();
    ready(&node.client, 200, "").await?;
    world.verdict(&node.client).await?;
    // It goes away again: whoever knows the schemas needs it no longer.
    world.registry.go();
    for source in [source, other] {
        world.produce(source, day(1))?;
    }
    world.verdict(&node.client).await?;
    for (source, ..) in SOURCES {
        archived(&node.client, source, &world.ends(source)?).await?;
    }
    world.verdict(&node.client).await?;
    node.stop()
}
