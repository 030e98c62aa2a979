//! The dashboard and the alerts of `deploy/` ask for metrics that a node has, by labels that it gives.

use std::collections::BTreeSet;

use anyhow::Context;
use sanso_e2e::{Node, package};

const APP: &str = "
CREATE SOURCE readings (usage_point TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), source_version BIGINT)
  WITH (topic = 'readings', key = 'usage_point', identity = 'usage_point, start_utc',
        version = 'source_version', segment = '4', partitions = '1');
CREATE VIEW load AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 hour') AS window, SUM(value) AS kwh
  FROM readings GROUP BY usage_point, window;
";

/// Returns the names of Sanso's metrics in some text.
fn names(text: &str) -> BTreeSet<&str> {
    let part_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !part_of_a_name(c)).filter(|word| word.starts_with("sanso_")).collect()
}

/// Says whether only a node of a cluster has a metric: `cluster/status.rs` looks for those.
fn is_of_cluster(name: &str) -> bool {
    name.starts_with("sanso_cluster_") || name.starts_with("sanso_replication_")
}

#[tokio::test]
async fn dashboards_and_alerts_ask_for_metrics_that_exist() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let app = folder.path().join("app.sql");
    std::fs::write(&app, APP)?;
    let node = Node::start(&app, &folder.path().join("data"), &[])?;
    // One line is refused; the rest makes a segment, so a batch version follows.
    let line = |hour: u32| {
        format!(
            "{{\"usage_point\":\"M\",\"start_utc\":\"2026-02-01T{hour:02}:00:00Z\",\"value\":1,\"source_version\":1}}\n"
        )
    };
    let (status, refusal) =
        node.client.ingest("readings", (0..4).map(line).chain(["no reading\n".to_owned()]).collect()).await?;
    assert_eq!(status, 200, "{refusal}");
    node.client.view("load?key=M").await?;
    let metrics = loop {
        let (_, metrics) = node.client.get_text("/metrics").await?;
        if ["sanso_batch_cut_offset{", "sanso_speed_flush_seconds{"].iter().all(|last| metrics.contains(last))
        {
            break metrics;
        }
    };
    let known = names(&metrics);
    for file in ["grafana/dashboards/sanso.json", "prometheus/alerts.yml"] {
        let path = package().join("../deploy").join(file);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let asked = names(&text);
        let unknown: Vec<_> = asked.difference(&known).filter(|name| !is_of_cluster(name)).collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}; there are {known:?}");
        for limit in text.split("limit=\\\"").skip(1).filter_map(|rest| rest.split('\\').next()) {
            assert!(metrics.contains(&format!("limit=\"{limit}\"")), "{file} asks for the limit {limit}");
        }
    }
    node.stop()
}
