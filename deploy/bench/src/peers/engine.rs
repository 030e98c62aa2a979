//! A program that others would use for the batch layer's work: a script for it, and its run.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::batch::{Answers, Archive, text};

const PRELUDE: &str = include_str!("prelude.py");

/// A program, which a package of Python brings.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) name: &'static str,
    module: &'static str,
    script: &'static str,
}

pub(crate) const DUCKDB: Engine =
    Engine { name: "DuckDB", module: "duckdb", script: include_str!("duckdb.py") };
pub(crate) const POLARS: Engine =
    Engine { name: "Polars", module: "polars", script: include_str!("polars.py") };
pub(crate) const SPARK: Engine =
    Engine { name: "Spark, local", module: "pyspark", script: include_str!("spark.py") };

/// How the three levels are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Each of the readings, as three views that don't know each other.
    Each,
    /// Feeders and substations of the transformers' totals: a person knows that this comes to the same.
    Up,
}

/// How it went.
#[derive(Debug, Deserialize)]
pub(crate) struct Run {
    pub(crate) version: String,
    /// Seconds, in a program that is started but has not read anything.
    pub(crate) first_s: f64,
    /// The same once more in the same program.
    pub(crate) again_s: f64,
    pub(crate) peak_mb: f64,
    answers: Vec<Vec<Value>>,
}

impl Run {
    /// Holds the answers against others.
    pub(crate) fn compared(&self, expected: &Answers) -> anyhow::Result<()> {
        let rows = self.answers.iter().map(|row| row.iter().map(text).collect());
        let answers: Answers = rows.collect();
        ensure!(answers == *expected, "its answers differ: {answers:?}, not {expected:?}");
        Ok(())
    }
}

impl Engine {
    /// Says why it can't take part here; nothing when it can.
    pub(crate) fn absent(&self) -> Option<String> {
        let python = python();
        let found = Command::new(&python).args(["-c", &format!("import {}", self.module)]).output();
        match found {
            Ok(output) if output.status.success() => None,
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr);
                Some(format!("{}: {}", python.display(), why.lines().last().unwrap_or("no reason given")))
            }
            Err(error) => Some(format!("{}: {error}", python.display())),
        }
    }

    /// Runs it over what is archived.
    pub(crate) fn run(&self, archive: &Archive, how: How) -> anyhow::Result<Run> {
        let how = if how == How::Up { "up" } else { "each" };
        let output = Command::new(python())
            .args(["-c", &format!("{PRELUDE}\n{}", self.script)])
            .args([archive.readings(), archive.network(), how.into()])
            .output()
            .context("start Python")?;
        ensure!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).with_context(|| format!("read what {} found", self.name))
    }
}

fn python() -> PathBuf {
    std::env::var_os("SANSO_PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_equal_whatever_zeros_they_end_with_and_else_refused() {
        let run = r#"{"version": "1", "first_s": 2.5, "again_s": 2, "peak_mb": 80.5,
                      "answers": [["480", "103.500000"], ["10", "7.000000"]]}"#;
        let run: Run = serde_json::from_str(run).expect("as the scripts print it");
        let answers = |sum: &str| [["480", sum], ["10", "7"]].map(|row| row.map(str::to_owned).into()).into();
        run.compared(&answers("103.5")).expect("the same");
        assert!(run.compared(&answers("103.50001")).is_err());
    }
}
