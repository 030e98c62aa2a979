//! Picks the log that an address names.

use std::sync::Arc;

use crate::{EmbeddedLog, KafkaLog, Log, LogError, MemoryLog, Result};

/// Opens the log that `address` names: `embedded:DIR`, `memory:`, or
/// `kafka://HOST:PORT,HOST:PORT?option=value&…` with options passed to librdkafka as they are.
///
/// Blocks while an embedded log is checked; call it at start, or from a blocking thread.
pub fn open(address: &str) -> Result<Arc<dyn Log>> {
    let refuse =
        |reason: &str| Err(LogError::Address { address: address.to_owned(), reason: reason.to_owned() });
    match address.split_once(':') {
        Some(("memory", "")) => Ok(Arc::new(MemoryLog::new())),
        Some(("embedded", "")) => refuse("the directory is missing"),
        Some(("embedded", dir)) => Ok(Arc::new(EmbeddedLog::open(dir)?)),
        Some(("kafka", _)) => Ok(Arc::new(KafkaLog::new(address)?)),
        Some((kind, _)) => refuse(&format!("'{kind}' is not a kind of log")),
        None => refuse("it has no kind"),
    }
}
