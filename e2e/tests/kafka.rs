//! The platform on a real Kafka: nothing acknowledged is lost when it or the broker is killed,
//! the log may forget what is archived, and ordinary tools write and read beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Context;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sanso_broker::{Cluster, PASSWORD, USER, available};
use sanso_e2e::{Client, Node, micro, micro_of};
use serde_json::Value;

const PARTITIONS: usize = 3;
const SEGMENT: u64 = 64;
const METERS: usize = 20;

const APP: &str = "
CREATE SOURCE readings (usage_point TEXT, channel TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), source_version BIGINT)
  WITH (topic = 'readings', key = 'usage_point', identity = 'usage_point, channel, start_utc',
        version = 'source_version', segment = '64', partitions = '3');
CREATE VIEW meter_daily AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 day') AS day, SUM(value) AS kwh, COUNT(*) AS readings
  FROM readings GROUP BY usage_point, day;
";

/// One meter's reading of a half hour, as JSON.
fn reading(meter: usize, day: u32, half_hour: u32, value: &str) -> String {
    let (hour, minute) = (half_hour / 2, half_hour % 2 * 30);
    format!(
        r#"{{"usage_point":"M{meter:02}","channel":"E1","start_utc":"2026-01-{day:02}T{hour:02}:{minute:02}:00Z","value":{value},"source_version":1}}"#
    )
}

fn day(day: u32, value: &str) -> String {
    let readings = (0..METERS).flat_map(|meter| (0..48).map(move |half_hour| (meter, half_hour)));
    readings.map(|(meter, half_hour)| reading(meter, day, half_hour, value) + "\n").collect()
}

/// Sends a day; returns a token of what is then acknowledged.
async fn send(client: &Client, lines: String) -> anyhow::Result<String> {
    let (status, answer) = client.ingest("readings", lines).await?;
    assert_eq!((status, answer["acknowledged"].as_u64()), (200, Some(960)), "{answer}");
    Ok(answer["session"].as_str().context("an acknowledgement has a token")?.to_owned())
}

/// Kilowatt-hours and readings of all meters, by day.
async fn totals(client: &Client, session: &str) -> anyhow::Result<Vec<(i128, i64)>> {
    let sql =
        "SELECT day, SUM(kwh) AS kwh, SUM(readings) AS readings FROM meter_daily GROUP BY day ORDER BY day";
    let answer = client.query_at(sql, session).await?;
    Ok(answer.rows().iter().map(|row| (micro_of(&row[1]), row[2].as_i64().expect("a count"))).collect())
}

fn expected(days: usize) -> Vec<(i128, i64)> {
    vec![(960 * micro("0.125"), 960); days]
}

/// A cluster, an application and a data folder.
struct World {
    cluster: Cluster,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> anyhow::Result<World> {
        let world = World { cluster: Cluster::start(1)?, folder: tempfile::tempdir()? };
        std::fs::write(world.path("app.sql"), APP)?;
        Ok(world)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, more: &[&str]) -> anyhow::Result<Node> {
        let log = format!("kafka://{}", self.cluster.servers());
        Node::start(&self.path("app.sql"), &self.path("data"), &[&["--log", &log], more].concat())
    }

    /// Lets the cluster forget what lies below these offsets, as its retention does.
    async fn trim(&self, before: &[u64]) -> anyhow::Result<()> {
        let admin: AdminClient<_> =
            ClientConfig::new().set("bootstrap.servers", self.cluster.servers()).create()?;
        let mut offsets = TopicPartitionList::new();
        for (partition, before) in (0..).zip(before) {
            offsets.add_partition_offset("readings", partition, Offset::Offset(before.cast_signed()))?;
        }
        for deleted in admin.delete_records(&offsets, &AdminOptions::new()).await?.elements() {
            deleted.error()?;
        }
        Ok(())
    }

    /// What the node has logged so far.
    fn logged(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.path("node.log"))?)
    }

    /// Waits until the node has logged a line with this text.
    async fn logged_line(&self, text: &str) -> anyhow::Result<String> {
        loop {
            if let Some(line) = self.logged()?.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            tokio::task::yield_now().await;
        }
    }
}

/// The end of each log partition and what of it is archived, once all complete segments are; with all that was
/// acknowledged.
async fn archived(client: &Client, session: &str) -> anyhow::Result<(Vec<u64>, Vec<u64>)> {
    let acknowledged = session.split('-').skip(1).map(|position| u64::from_str_radix(position, 16));
    let acknowledged = acknowledged.collect::<Result<Vec<_>, _>>().context("positions in a token")?;
    let numbers = |value: &Value| value.as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    loop {
        let status = client.get("/v1/status").await?;
        let source = &status["sources"][0];
        let cut: Vec<u64> = numbers(&source["batch"]["cut"]);
        let partitions = source["partitions"].as_array().cloned().unwrap_or_default();
        let ends: Vec<u64> = partitions.iter().filter_map(|partition| partition["end"].as_u64()).collect();
        let complete = ends.iter().map(|end| end / SEGMENT * SEGMENT);
        // What a node says of the log may be older than an acknowledgement.
        let is_all = ends.len() == PARTITIONS && ends.iter().zip(&acknowledged).all(|(end, to)| end >= to);
        if is_all && complete.eq(cut.iter().copied()) {
            return Ok((ends, cut));
        }
    }
}

#[tokio::test]
async fn killing_the_node_and_the_broker_keeps_totals_exact() -> anyhow::Result<()> {
    if !available("killing_the_node_and_the_broker_keeps_totals_exact") {
        return Ok(());
    }
    let mut world = World::new()?;
    let file = world.path("meters.csv");
    std::fs::write(&file, nem12())?;
    let file = file.to_str().context("a path in UTF-8")?.to_owned();
    let node = world.start(&[])?;
    let (code, summary) = sanso_e2e::ingest(&node.client, &[&file])?;
    assert_eq!(code, 0, "{summary}");
    let first = totals(&node.client, "").await?;
    // The utility's day begins at 14:00 UTC: 20 of the 48 half hours lie on the 4th.
    let halves = |count: i64| (i128::from(count) * micro("0.125"), count);
    assert_eq!(first, [halves(2 * 20), halves(2 * 28)]);
    // The node dies, then the broker while the node is away.
    node.kill()?;
    world.cluster.kill(0);
    world.cluster.restart()?;
    let node = world.start(&[])?;
    // The broker dies under the running node: what is sent meanwhile is not acknowledged by it.
    world.cluster.kill(0);
    let client = node.client.clone();
    let sent = tokio::spawn(async move { client.ingest("readings", day(2, "0.125")).await });
    world.cluster.restart()?;
    sent.await??;
    // A producer without an acknowledgement sends again; what was there already is a duplicate.
    let session = send(&node.client, day(2, "0.125")).await?;
    let both = [expected(1)[0], first[0], first[1]];
    assert_eq!(totals(&node.client, &session).await?, both);
    node.kill()?;
    let node = world.start(&[])?;
    assert_eq!(totals(&node.client, &session).await?, both);
    node.stop()
}

/// Two meters' half hours of 5 January 2026, as an Australian utility delivers them.
fn nem12() -> String {
    let mut file = "100,NEM12,202601060000,UNITED,RETAILER\n".to_owned();
    for meter in ["NMI0000001", "NMI0000002"] {
        writeln!(file, "200,{meter},E1,E1,E1,N1,METER1,KWH,30,").expect("write to a string");
        writeln!(file, "300,20260105{},A,,,20260106000000,", ",0.125".repeat(48)).expect("write to a string");
    }
    file + "900\n"
}

/// Each day of each meter goes to a topic once it is closed, and once more when a correction
/// changes it, whatever is killed meanwhile: no content twice, none missing.
#[tokio::test]
async fn closed_windows_reach_their_topic_once_through_kills() -> anyhow::Result<()> {
    if !available("closed_windows_reach_their_topic_once_through_kills") {
        return Ok(());
    }
    let world = World::new()?;
    let emitting = APP.replace("meter_daily AS", "meter_daily WITH (output_topic = 'closed') AS");
    std::fs::write(world.path("app.sql"), emitting)?;
    let mut node = world.start(&[])?;
    send(&node.client, day(1, "0.125")).await?;
    for number in 2..=4 {
        // Each day closes the one before it; the node dies while that is being written.
        send(&node.client, day(number, "0.125")).await?;
        node.kill()?;
        node = world.start(&[])?;
    }
    // The topic is made with its first window; until then there is none to read.
    let emitted = || world.cluster.kcat(&["-C", "-q", "-e", "-t", "closed", "-f", "%s\n"], "");
    while emitted().map_or(0, |windows| windows.lines().count()) < 3 * METERS {
        tokio::task::yield_now().await;
    }
    let corrected = reading(7, 1, 0, "1.125").replace("\"source_version\":1", "\"source_version\":2");
    let (status, answer) = node.client.ingest("readings", corrected).await?;
    assert_eq!(status, 200, "{answer}");
    while emitted()?.lines().count() <= 3 * METERS {
        tokio::task::yield_now().await;
    }
    node.stop()?;
    let mut windows: BTreeMap<String, Vec<(u64, i128, i64)>> = BTreeMap::new();
    for line in emitted()?.lines() {
        let window: Value = serde_json::from_str(line)?;
        let name = format!("{} {}", window["key"]["usage_point"], window["window_start"]);
        let readings = window["values"]["readings"].as_i64().context("a count")?;
        let revision = window["revision"].as_u64().context("a revision")?;
        windows.entry(name).or_default().push((revision, micro_of(&window["values"]["kwh"]), readings));
    }
    assert_eq!(windows.len(), 3 * METERS, "{windows:?}");
    let once = vec![(micro("6"), 48)];
    for (name, contents) in windows {
        let amended = name.starts_with("\"M07\" \"2026-01-01");
        let wanted = if amended { [once.clone(), vec![(micro("7"), 48)]].concat() } else { once.clone() };
        assert!(contents.is_sorted_by(|(one, ..), (next, ..)| one < next), "{name}: {contents:?}");
        let contents: Vec<_> = contents.into_iter().map(|(_, kwh, readings)| (kwh, readings)).collect();
        assert_eq!(contents, wanted, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn the_log_may_forget_what_is_archived_and_what_is_not_is_missed_loudly() -> anyhow::Result<()> {
    if !available("the_log_may_forget_what_is_archived_and_what_is_not_is_missed_loudly") {
        return Ok(());
    }
    let world = World::new()?;
    let node = world.start(&[])?;
    send(&node.client, day(1, "0.125")).await?;
    let session = send(&node.client, day(2, "0.125")).await?;
    let (_, cut) = archived(&node.client, &session).await?;
    node.kill()?;
    // Retention has taken all that is archived, and the machine has lost its index.
    world.trim(&cut).await?;
    std::fs::remove_dir_all(world.path("data").join("speed"))?;
    let node = world.start(&[])?;
    let session = send(&node.client, day(3, "0.125")).await?;
    assert_eq!(totals(&node.client, &session).await?, expected(3), "from the master dataset and the rest");
    let (ends, cut) = archived(&node.client, &session).await?;
    node.kill()?;
    // Now it takes readings that nobody has archived: they are gone, and that is said.
    assert_ne!(ends, cut, "some log partition ends within a segment");
    world.trim(&ends).await?;
    std::fs::remove_dir_all(world.path("data").join("speed"))?;
    std::fs::remove_file(world.path("node.log"))?;
    let node = world.start(&[])?;
    let logged = world.logged_line("stopped: a person must act").await?;
    for part in ["readings/", "starts at", "newest-version table ends at"] {
        assert!(logged.contains(part), "{logged}");
    }
    let ready = node.client.get_text("/readyz").await?;
    assert_ne!(ready.0, 200, "a node that misses readings does not call itself ready: {}", ready.1);
    node.kill()
}

#[tokio::test]
async fn kcat_writes_and_reads_beside_the_node() -> anyhow::Result<()> {
    if !available("kcat_writes_and_reads_beside_the_node") {
        return Ok(());
    }
    let world = World::new()?;
    let node = world.start(&[])?;
    send(&node.client, day(1, "0.125")).await?;
    // As Java producers do: the partition by murmur2 of the key.
    let murmur2 = ["-P", "-t", "readings", "-K", "\t", "-X", "topic.partitioner=murmur2_random"];
    world.cluster.kcat(&murmur2, &keyed(2))?;
    // kcat's own default is another function: most land where their meter's other versions are not.
    let own_default = ["-P", "-t", "readings", "-K", "\t", "-X", "topic.partitioner=consistent_random"];
    world.cluster.kcat(&own_default, &keyed(3))?;
    let read = world.cluster.kcat(&["-C", "-q", "-e", "-t", "readings", "-f", "%p %k %s\n"], "")?;
    let mut homes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let (mut count, mut misplaced) = (0, 0);
    for line in read.lines() {
        let (partition, rest) = line.split_once(' ').context("a partition")?;
        let (key, json) = rest.split_once(' ').context("a key")?;
        let document: Value = serde_json::from_str(json)?;
        assert_eq!(document["usage_point"], key, "the key is the usage point");
        let home = homes.entry(key).or_default();
        if document["start_utc"].as_str().is_some_and(|start| start.starts_with("2026-01-03")) {
            misplaced += u64::from(!home.contains(partition));
        } else {
            home.insert(partition);
        }
        count += 1;
    }
    assert_eq!((count, homes.len()), (3 * 960, METERS));
    assert!(homes.values().all(|partitions| partitions.len() == 1), "kcat and the node agree: {homes:?}");
    assert!(misplaced > 0 && misplaced < 960, "{misplaced}");
    // Its acknowledgement lies behind all of them; it changes nothing.
    let session = send(&node.client, day(1, "0.125")).await?;
    let day_3 = 960 - i64::try_from(misplaced)?;
    let all = [expected(1)[0], expected(1)[0], (i128::from(day_3) * micro("0.125"), day_3)];
    assert_eq!(totals(&node.client, &session).await?, all);
    let quarantine = node.client.get("/v1/quarantine/readings?limit=1000").await?;
    assert_eq!(quarantine["count"].as_u64(), Some(misplaced), "{quarantine}");
    node.stop()
}

/// A day's readings as kcat takes them: key, tab, value.
fn keyed(day: u32) -> String {
    let mut lines = String::new();
    for meter in 0..METERS {
        for half_hour in 0..48 {
            let value = reading(meter, day, half_hour, "0.125");
            writeln!(lines, "M{meter:02}\t{value}").expect("write to a string");
        }
    }
    lines
}

#[tokio::test]
async fn a_login_from_the_settings_opens_the_log_and_its_password_is_never_shown() -> anyhow::Result<()> {
    if !available("a_login_from_the_settings_opens_the_log_and_its_password_is_never_shown") {
        return Ok(());
    }
    let world = World::new()?;
    std::fs::write(world.path("password"), format!("{PASSWORD}\n"))?;
    let settings = world.path("own.toml");
    let text = format!(
        "[kafka]\nsecurity.protocol = 'sasl_ssl'\nssl.ca.location = '{}'\nsasl.mechanism = 'SCRAM-SHA-512'\n\
         sasl.username = '{USER}'\nsasl.password.file = '{}'\nsocket.timeout.ms = 20000\n",
        world.cluster.credentials().ca.display(),
        world.path("password").display(),
    );
    std::fs::write(&settings, text)?;
    let config = settings.to_str().context("a path in UTF-8")?;
    let log = format!("kafka://{}", world.cluster.sasl_servers());
    let start =
        || Node::start(&world.path("app.sql"), &world.path("data"), &["--log", &log, "--config", config]);
    let node = start()?;
    let session = send(&node.client, day(1, "0.125")).await?;
    assert_eq!(totals(&node.client, &session).await?, expected(1));
    node.stop()?;
    std::fs::write(world.path("password"), "another&geheim")?;
    let refused = format!("{:#}", start().expect_err("the password is wrong"));
    assert!(refused.contains("uthentication failed"), "{refused}");
    let logged = world.logged()?;
    for secret in [PASSWORD, "another&geheim"] {
        assert!(!refused.contains(secret) && !logged.contains(secret), "{secret} is shown");
    }
    Ok(())
}
