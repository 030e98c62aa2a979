//! The API keeps to its OpenAPI document, whatever it is asked: schemathesis
//! (a property-based client in Python) makes the requests from the document and
//! holds every answer against it.

use std::process::Command;

use anyhow::Context;
use sanso_e2e::{Node, package, schemathesis};

const APP: &str = "
CREATE SOURCE readings (usage_point TEXT, channel TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), source_version BIGINT)
  WITH (topic = 'readings', key = 'usage_point', identity = 'usage_point, channel, start_utc',
        version = 'source_version', segment = '64', partitions = '2');
CREATE VIEW load AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 hour') AS window, SUM(value) AS kwh, COUNT(*) AS readings
  FROM readings GROUP BY usage_point, window;
CREATE VIEW total AS SELECT channel, SUM(value) AS kwh, MAX(value) AS most FROM readings GROUP BY channel;
";

/// Requests made for each operation and kind of data.
const EXAMPLES: &str = "20";
/// Decides every request.
const SEED: &str = "3";

#[test]
fn every_answer_is_as_the_openapi_document_says() -> anyhow::Result<()> {
    let Some(schemathesis) = schemathesis() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let app = folder.path().join("app.sql");
    std::fs::write(&app, APP)?;
    let node = Node::start(&app, &folder.path().join("data"), &[])?;
    let run = Command::new(schemathesis)
        .current_dir(folder.path())
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", package().join("openapi"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg("--config-file")
        .arg(package().join("openapi/schemathesis.toml"))
        .arg("run")
        .arg(format!("{}/openapi.json", node.client.base()))
        .args(["--seed", SEED, "--max-examples", EXAMPLES, "--phases", "coverage,fuzzing"])
        .args(["--generation-database", "none", "--request-timeout", "90"])
        // It never ends, which is what it is for; serving-layer's own tests read it.
        .args(["--exclude-operation-id", "streamView"])
        // Which keys, columns and SQL are good depends on the views, not on the document.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .output()
        .context("run schemathesis")?;
    let report = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{report}\n{}", String::from_utf8_lossy(&run.stderr));
    assert!(report.contains("Fuzzing"), "nothing was tried:\n{report}");
    node.stop()
}
