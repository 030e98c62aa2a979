//! The node's settings: the commented `default.toml`, then a file of one's own.

use std::path::Path;

use anyhow::Context;
use sanso_batch::BatchConfig;
use sanso_serving::ServingConfig;
use sanso_speed::SpeedConfig;
use serde::Deserialize;

/// The default settings, also the documentation of every key.
pub(crate) const DEFAULT: &str = include_str!("../default.toml");

/// The layers' settings. Unknown keys are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The batch layer's.
    pub(crate) batch: BatchConfig,
    /// The speed layer's.
    pub(crate) speed: SpeedConfig,
    /// The serving layer's.
    pub(crate) serving: ServingConfig,
}

impl Settings {
    /// Reads the defaults, overlaid with a file where one is given.
    pub(crate) fn read(file: Option<&Path>) -> anyhow::Result<Settings> {
        let mut settings: toml::Table = DEFAULT.parse().context("read the built-in settings")?;
        if let Some(file) = file {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("read settings {}", file.display()))?;
            let own: toml::Table =
                text.parse().with_context(|| format!("parse settings {}", file.display()))?;
            overlay(&mut settings, own);
        }
        settings.try_into().context("settings: see `sanso dev --print-settings` for all keys")
    }
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
    fn unknown_keys_are_refused() {
        let folder = tempfile::tempdir().expect("make a folder");
        let file = folder.path().join("own.toml");
        std::fs::write(&file, "[speed]\nflush_mss = 5\n").expect("write settings");
        let error = format!("{:#}", Settings::read(Some(&file)).expect_err("an unknown key"));
        assert!(error.contains("flush_mss"), "{error}");
    }
}
