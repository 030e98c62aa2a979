//! What a broker is told. Pure.

use std::fmt::Write;
use std::path::Path;

use crate::credentials::{Credentials, PASSWORD, USER};

/// The loopback ports of one broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) plain: u16,
    pub(crate) tls: u16,
    pub(crate) sasl: u16,
    pub(crate) controller: u16,
}

/// Log lines go to standard output, where the line that says "started" is waited for.
pub(crate) const LOGGING: &str = "\
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c{1}: %m%n
rootLogger.level=INFO
rootLogger.appenderRef.out.ref=out
";

/// Writes the properties of broker `node` (from 1), among brokers with these ports.
pub(crate) fn properties(node: usize, all: &[Ports], data: &Path, credentials: &Credentials) -> String {
    let mine = all[node - 1];
    let replicas = all.len();
    let voters: Vec<String> =
        (1..).zip(all).map(|(id, ports)| format!("{id}@127.0.0.1:{}", ports.controller)).collect();
    let clients = format!(
        "PLAINTEXT://127.0.0.1:{},SSL://127.0.0.1:{},SASL_SSL://127.0.0.1:{}",
        mine.plain, mine.tls, mine.sasl
    );
    let login = "org.apache.kafka.common.security";
    let settings = [
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", node.to_string()),
        ("controller.quorum.voters", voters.join(",")),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT".to_owned(),
        ),
        ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
        ("listeners", format!("{clients},CONTROLLER://127.0.0.1:{}", mine.controller)),
        ("advertised.listeners", clients),
        ("log.dirs", data.display().to_string()),
        ("auto.create.topics.enable", "false".to_owned()),
        ("num.partitions", "1".to_owned()),
        // Few, since each is a folder that is opened at every start.
        ("offsets.topic.num.partitions", "1".to_owned()),
        ("offsets.topic.replication.factor", replicas.to_string()),
        ("transaction.state.log.num.partitions", "1".to_owned()),
        ("transaction.state.log.replication.factor", replicas.to_string()),
        ("transaction.state.log.min.isr", replicas.min(2).to_string()),
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        // A broker that was killed is missed soon where others can take its place, also where it was the controller.
        ("broker.session.timeout.ms", if replicas > 1 { "2000" } else { "3000" }.to_owned()),
        ("broker.heartbeat.interval.ms", "500".to_owned()),
        ("controller.quorum.fetch.timeout.ms", "1000".to_owned()),
        ("controller.quorum.election.timeout.ms", "500".to_owned()),
        ("ssl.keystore.type", "PEM".to_owned()),
        ("ssl.keystore.location", credentials.broker.display().to_string()),
        ("ssl.truststore.type", "PEM".to_owned()),
        ("ssl.truststore.location", credentials.ca.display().to_string()),
        ("listener.name.ssl.ssl.client.auth", "required".to_owned()),
        ("sasl.enabled.mechanisms", "SCRAM-SHA-512,PLAIN".to_owned()),
        (
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config",
            format!("{login}.scram.ScramLoginModule required;"),
        ),
        (
            "listener.name.sasl_ssl.plain.sasl.jaas.config",
            format!("{login}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";"),
        ),
    ];
    let mut text = String::new();
    for (name, value) in settings {
        writeln!(text, "{name}={value}").expect("write to a string");
    }
    text
}
