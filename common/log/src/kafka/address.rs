//! Reads a Kafka address and makes the clients' settings of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;

use super::secret::{resolve, without_secrets};
use crate::{LogError, Result};

/// What exactness rests on; an address that says otherwise is refused.
const FIXED: [(&str, &str); 8] = [
    ("acks", "all"),
    ("request.required.acks", "all"),
    ("enable.idempotence", "true"),
    ("isolation.level", "read_committed"),
    ("auto.offset.reset", "error"),
    ("check.crcs", "true"),
    ("enable.auto.commit", "false"),
    ("batch.num.messages", BATCH_MESSAGES_MAX),
];

/// Messages of one request. Where a repeated request has lost its offsets, librdkafka counts up from
/// -1001 instead: with more messages than this it would reach offsets that look real.
const BATCH_MESSAGES_MAX: &str = "1000";

/// A cluster, and how to talk to it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct KafkaAddress {
    servers: String,
    options: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<_> = self.options.keys().collect();
        f.debug_struct("KafkaAddress").field("servers", &self.servers).field("options", &options).finish()
    }
}

impl KafkaAddress {
    /// Reads `kafka://HOST:PORT,HOST:PORT?option=value&…`, over the options in `settings`. Values
    /// may use `%XX`. A secret may come from `NAME.file` or `NAME.env`, which are read now.
    pub(super) fn parse(address: &str, settings: &BTreeMap<String, String>) -> Result<Self> {
        let refuse = |reason: String| Err(LogError::Address { address: without_secrets(address), reason });
        let Some(rest) = address.strip_prefix("kafka://") else {
            return refuse("it does not start with kafka://".to_owned());
        };
        let (servers, query) = rest.split_once('?').unwrap_or((rest, ""));
        let servers = servers.trim_end_matches('/');
        if servers.is_empty() || servers.split(',').any(str::is_empty) {
            return refuse("a host is missing".to_owned());
        }
        if servers.contains('@') {
            return refuse(
                "a user and a password are the options sasl.username and sasl.password".to_owned(),
            );
        }
        let mut options = settings.clone();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                // It may be the rest of a password with a bare '&', so it is not shown.
                return refuse("an option has no value; a '&' within a value is written %26".to_owned());
            };
            let Some(value) = decode(value) else {
                return refuse(format!("the value of option '{key}' is not percent-encoded UTF-8"));
            };
            options.insert(key.to_owned(), value);
        }
        for (name, fixed) in FIXED {
            if options.get(name).is_some_and(|value| value != fixed) {
                return refuse(format!("option {name} is always {fixed}, exactness rests on it"));
            }
        }
        resolve(address, &mut options)?;
        Ok(Self { servers: servers.to_owned(), options })
    }

    /// Bytes that one message may have.
    pub(super) fn message_bytes_max(&self) -> usize {
        let given = self.options.get("message.max.bytes").and_then(|v| v.parse().ok());
        given.unwrap_or(1_000_000)
    }

    /// Longest that one question to the cluster may take: `socket.timeout.ms` where it is given.
    pub(super) fn request_timeout(&self) -> Duration {
        let given = self.options.get("socket.timeout.ms").and_then(|v| v.parse().ok());
        given.map_or(Duration::from_secs(10), Duration::from_millis)
    }

    /// Settings of the producer.
    pub(super) fn producer(&self) -> ClientConfig {
        self.config(&[
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("batch.num.messages", BATCH_MESSAGES_MAX),
            ("linger.ms", "2"),
            ("message.timeout.ms", "30000"),
            ("queue.buffering.max.kbytes", "65536"),
            ("queue.buffering.max.messages", "500000"),
            ("compression.type", "lz4"),
        ])
    }

    /// Settings of a consumer.
    pub(super) fn consumer(&self) -> ClientConfig {
        self.config(&[
            // Only names the reader in the cluster's logs: it joins no group and commits nothing.
            ("group.id", "sanso"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("isolation.level", "read_committed"),
            ("auto.offset.reset", "error"),
            ("check.crcs", "true"),
            ("enable.partition.eof", "true"),
            ("allow.auto.create.topics", "false"),
            ("fetch.queue.backoff.ms", "5"),
            // A seek takes effect when the fetch under way returns, at the end of a topic only
            // after this time; a new record ends it at once.
            ("fetch.wait.max.ms", "50"),
            ("queued.min.messages", "100000"),
            ("queued.max.messages.kbytes", "16384"),
        ])
    }

    fn config(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers);
        config.set("client.id", "sanso");
        for (key, value) in defaults {
            config.set(*key, *value);
        }
        for (key, value) in &self.options {
            config.set(key, value);
        }
        config
    }
}

/// Resolves `%XX`.
fn decode(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        // Parsing alone would take a sign.
        let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hexadecimal)?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_librdkafka_as_they_are() {
        let address = "kafka://a:9092,b:9093?security.protocol=sasl_ssl&sasl.password=x%26y%3D+z";
        let settings = [("security.protocol", "ssl"), ("ssl.ca.location", "/ca.pem")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let address = KafkaAddress::parse(address, &settings).expect("an address");
        for config in [address.producer(), address.consumer()] {
            assert_eq!(config.get("bootstrap.servers"), Some("a:9092,b:9093"));
            assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
            assert_eq!(config.get("sasl.password"), Some("x&y=+z"));
            assert_eq!(config.get("ssl.ca.location"), Some("/ca.pem"));
        }
        let shown = format!("{address:?}");
        assert!(shown.contains("sasl.password") && !shown.contains("x&y"), "{shown}");
        assert_eq!(address.producer().get("acks"), Some("all"));
        assert_eq!(address.consumer().get("isolation.level"), Some("read_committed"));
    }

    #[test]
    fn what_would_break_exactness_or_names_no_cluster_is_refused() {
        for (address, reason) in [
            ("kafka://", "host"),
            ("kafka://a:1,,b:2", "host"),
            ("kafka:/a:1", "kafka://"),
            ("kafka://a:1?acks=1", "always all"),
            ("kafka://a:1?isolation.level=read_uncommitted", "always read_committed"),
            ("kafka://a:1?batch.num.messages=10000", "always 1000"),
            ("kafka://a:1?sasl.username", "no value"),
            ("kafka://a:1?sasl.username=%4", "percent-encoded"),
            ("kafka://a:1?sasl.username=%+4", "percent-encoded"),
            ("kafka://user:password@a:1", "sasl.username"),
        ] {
            let error = KafkaAddress::parse(address, &BTreeMap::new()).expect_err(address).to_string();
            assert!(error.contains(reason), "{address}: {error}");
        }
    }

    #[test]
    fn a_password_with_a_bare_ampersand_is_refused_and_not_shown() {
        let address = "kafka://a:1?sasl.password=ge&heim";
        let error = KafkaAddress::parse(address, &BTreeMap::new()).expect_err(address).to_string();
        assert!(error.contains("%26") && !error.contains("heim"), "{error}");
    }
}
