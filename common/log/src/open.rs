//! Picks the log that an address names.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{EmbeddedConfig, EmbeddedLog, KafkaLog, Log, LogError, MemoryLog, Result, without_secrets};

/// Opens the log that `address` names: `embedded:DIR`, `embedded:DIR?file_bytes=BYTES` (the size at
/// which the next file is started), `memory:`, or
/// `kafka://HOST:PORT,HOST:PORT?option=value&…` with options passed to librdkafka as they are.
///
/// Blocks while an embedded log is checked; call it at start, or from a blocking thread.
pub fn open(address: &str) -> Result<Arc<dyn Log>> {
    open_with(address, &BTreeMap::new())
}

/// Opens the log that `address` names; one in Kafka with these properties of librdkafka where the
/// address doesn't say otherwise. See [`open`] and [`KafkaLog::with_settings`].
pub fn open_with(address: &str, kafka: &BTreeMap<String, String>) -> Result<Arc<dyn Log>> {
    let refuse = |reason: &str| {
        Err(LogError::Address { address: without_secrets(address), reason: reason.to_owned() })
    };
    match address.split_once(':') {
        Some(("memory", "")) => Ok(Arc::new(MemoryLog::new())),
        Some(("embedded", place)) => {
            let (dir, file_bytes) = match place.split_once("?file_bytes=") {
                Some((dir, bytes)) => (dir, bytes.parse().ok()),
                None => (place, Some(EmbeddedConfig::default().file_bytes)),
            };
            let Some(file_bytes) = file_bytes else { return refuse("file_bytes is not a number of bytes") };
            if dir.is_empty() {
                return refuse("the directory is missing");
            }
            let config = EmbeddedConfig { file_bytes, ..EmbeddedConfig::default() };
            Ok(Arc::new(EmbeddedLog::open_with(dir, config)?))
        }
        Some(("kafka", _)) => Ok(Arc::new(KafkaLog::with_settings(address, kafka)?)),
        Some((kind, _)) => refuse(&format!("'{kind}' is not a kind of log")),
        None => refuse("it has no kind"),
    }
}
