//! The log, with the topics of an application's sources as they are written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sanso_log::{Log, TopicSpec};
use sanso_schema::{Format, Registry, RegistryConfig, TopicFormat, TranscodingLog};
use sanso_view::{RecordFormat, Source};

use crate::application::Declared;

/// The environment's names of the schema registries' login.
const REGISTRY_USER: &str = "SANSO_REGISTRY_USER";
const REGISTRY_PASSWORD: &str = "SANSO_REGISTRY_PASSWORD";
/// How long a subject's latest schema is taken for the latest.
const LATEST_SCHEMA_MAX: Duration = Duration::from_secs(10);

/// Opens the log at an address, and makes the sources' topics; `kafka` are properties of its client.
pub(crate) async fn open(
    address: &str,
    kafka: BTreeMap<String, String>,
    declared: &Declared,
) -> anyhow::Result<Arc<dyn Log>> {
    let (address, shown) = (address.to_owned(), sanso_log::without_secrets(address));
    let log = tokio::task::spawn_blocking(move || sanso_log::open_with(&address, &kafka))
        .await
        .context("open the log")?
        .with_context(|| format!("open log {shown}"))?;
    for source in &declared.application.sources {
        let topic = TopicSpec::new(&source.topic, source.partitions);
        log.ensure_topic(&topic).await.with_context(|| format!("prepare topic {}", source.topic))?;
    }
    let formats: BTreeMap<_, _> = declared.application.sources.iter().filter_map(topic_format).collect();
    if formats.is_empty() {
        return Ok(log);
    }
    Ok(Arc::new(TranscodingLog::new(log, formats)))
}

/// Says how a source's topic is read and written, if not as JSON.
fn topic_format(source: &Arc<Source>) -> Option<(String, TopicFormat)> {
    let (format, registered) = match &source.format {
        RecordFormat::Json | RecordFormat::Windows { .. } => return None,
        RecordFormat::Avro(registered) => (Format::Avro, registered),
        RecordFormat::Protobuf(registered) => (Format::Protobuf, registered),
    };
    let login = std::env::var(REGISTRY_USER).ok().zip(std::env::var(REGISTRY_PASSWORD).ok());
    let config = RegistryConfig { url: registered.registry.clone(), login, latest_max: LATEST_SCHEMA_MAX };
    let topic = TopicFormat {
        registry: Registry::new(config, format),
        subject: registered.subject.clone(),
        columns: source.columns.iter().map(|column| column.name.clone()).collect(),
        refused_schemas: registered.refused_schemas.clone(),
    };
    Some((source.topic.clone(), topic))
}
