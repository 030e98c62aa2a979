//! The node's settings: the commented `default.toml`, then a file of one's own.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use sanso_batch::BatchConfig;
use sanso_dataset::DatasetConfig;
use sanso_serving::ServingConfig;
use sanso_speed::SpeedConfig;
use serde::Deserialize;

/// The default settings, also the documentation of every key.
pub(crate) const DEFAULT: &str = include_str!("../default.toml");

/// The layers' settings. Unknown keys are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Where the master dataset is.
    pub(crate) dataset: DatasetConfig,
    /// The batch layer's.
    pub(crate) batch: BatchConfig,
    /// The speed layer's.
    pub(crate) speed: SpeedConfig,
    /// The serving layer's.
    pub(crate) serving: ServingConfig,
    /// Properties of librdkafka, for a log in Kafka.
    #[serde(skip)]
    pub(crate) kafka: BTreeMap<String, String>,
}

impl Settings {
    /// Reads the defaults, overlaid with a file where one is given.
    pub(crate) fn read(file: Option<&Path>) -> anyhow::Result<Settings> {
        let Some(file) = file else { return Self::over_defaults(toml::Table::new()) };
        let text =
            std::fs::read_to_string(file).with_context(|| format!("read settings {}", file.display()))?;
        let own = text.parse().with_context(|| format!("parse settings {}", file.display()))?;
        Self::over_defaults(own)
    }

    /// Overlays the defaults.
    pub(crate) fn over_defaults(own: toml::Table) -> anyhow::Result<Settings> {
        let mut settings: toml::Table = DEFAULT.parse().context("read the built-in settings")?;
        overlay(&mut settings, own);
        let mut kafka = BTreeMap::new();
        if let Some(table) = settings.remove("kafka") {
            flatten("", table, &mut kafka).context("settings: [kafka]")?;
        }
        let read = settings.try_into().context("settings: see `sanso dev --print-settings` for all keys");
        read.map(|settings: Settings| Settings { kafka, ..settings })
    }
}

/// Joins the names of nested tables with dots: TOML takes `sasl.username = "…"` for a table `sasl`.
fn flatten(name: &str, value: toml::Value, into: &mut BTreeMap<String, String>) -> anyhow::Result<()> {
    let text = match value {
        toml::Value::Table(table) => {
            let joined = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
            return table.into_iter().try_for_each(|(key, value)| flatten(&joined(&key), value, into));
        }
        toml::Value::String(text) => text,
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(yes) => yes.to_string(),
        _ => bail!("{name} is a text, a whole number, true or false"),
    };
    into.insert(name.to_owned(), text);
    Ok(())
}

fn overlay(base: &mut toml::Table, own: toml::Table) {
    for (key, value) in own {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(own)) => overlay(base, own),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_complete() {
        Settings::read(None).expect("the built-in settings parse");
    }

    #[test]
    fn properties_of_librdkafka_are_passed_by_their_own_names() {
        let folder = tempfile::tempdir().expect("make a folder");
        let file = folder.path().join("own.toml");
        let text = "[kafka]\nsasl.mechanism = 'PLAIN'\n'sasl.password.file' = 'p'\nsocket.timeout.ms = 5\n";
        std::fs::write(&file, text).expect("write settings");
        let kafka = Settings::read(Some(&file)).expect("read settings").kafka;
        let expected = [("sasl.mechanism", "PLAIN"), ("sasl.password.file", "p"), ("socket.timeout.ms", "5")];
        assert!(kafka.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected), "{:?}", kafka.keys());
        std::fs::write(&file, "[kafka]\nsasl.username = [1]\n").expect("write settings");
        let error = format!("{:#}", Settings::read(Some(&file)).expect_err("a list"));
        assert!(error.contains("sasl.username"), "{error}");
    }

    #[test]
    fn unknown_keys_are_refused() {
        let folder = tempfile::tempdir().expect("make a folder");
        let file = folder.path().join("own.toml");
        std::fs::write(&file, "[speed]\nflush_mss = 5\n").expect("write settings");
        let error = format!("{:#}", Settings::read(Some(&file)).expect_err("an unknown key"));
        assert!(error.contains("flush_mss"), "{error}");
    }
}
