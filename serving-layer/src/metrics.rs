//! Metrics of this layer, and the board's gauges as they are rendered at a scrape.

use std::fmt::Write;

pub use metrics_exporter_prometheus::PrometheusHandle;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use sanso_catalog::{AuditCounts, LimitUse, PartitionProgress, RecordCounts, StatusBoard};
use sanso_state::{Refusal, RefusalCounts};

use crate::cluster::Figure;

/// Histogram, seconds: time to answer a request, by `route`, `method` and `status`.
pub const REQUEST_SECONDS: &str = "sanso_http_request_seconds";
/// Counter: records acknowledged over HTTP, by `source`.
pub const INGEST_ACKNOWLEDGED: &str = "sanso_ingest_acknowledged_total";
/// Counter: lines refused over HTTP, by `source`.
pub const INGEST_REFUSED: &str = "sanso_ingest_refused_total";
/// Counter: quarantined records appended anew, by `source`.
pub const REPLAYED: &str = "sanso_quarantine_replayed_total";
/// Gauge: live update streams open.
pub const STREAMS: &str = "sanso_http_streams";

/// Upper bounds of [`REQUEST_SECONDS`].
const REQUEST_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Configures a recorder for this layer's histograms.
pub fn with_buckets(builder: PrometheusBuilder) -> PrometheusBuilder {
    let name = Matcher::Full(REQUEST_SECONDS.to_owned());
    builder.set_buckets_for_metric(name, &REQUEST_BUCKETS).expect("there are buckets")
}

/// Installs the recorder of this process and returns what renders it, for
/// [`crate::ServingLayer::with_metrics`]. Once in a process; by the binary.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    with_buckets(PrometheusBuilder::new()).install_recorder()
}

/// Describes this layer's metrics to the installed recorder.
pub(crate) fn describe() {
    metrics::describe_histogram!(REQUEST_SECONDS, metrics::Unit::Seconds, "Time to answer a request");
    metrics::describe_counter!(INGEST_ACKNOWLEDGED, "Records acknowledged over HTTP");
    metrics::describe_counter!(INGEST_REFUSED, "Lines refused over HTTP");
    metrics::describe_counter!(REPLAYED, "Quarantined records appended anew");
    metrics::describe_gauge!(STREAMS, "Live update streams open");
}

/// Writes what the layers posted on the board in the Prometheus text format, and how many records of
/// which source are in quarantine.
pub(crate) fn board_text(board: &StatusBoard, quarantined: &[(String, RefusalCounts)]) -> String {
    let mut out = String::new();
    speed_text(board, &mut out);
    batch_text(board, &mut out);
    audit_text(board, &mut out);
    limits_text(board, &mut out);
    quarantine_text(quarantined, &mut out);
    out
}

fn quarantine_text(quarantined: &[(String, RefusalCounts)], out: &mut String) {
    head(out, "sanso_quarantined_records", "gauge", "Records in quarantine, replayed ones too, by kind");
    for (source, counts) in quarantined {
        for kind in Refusal::ALL {
            let (source, count) = (escape(source), counts.at(kind));
            let _ = writeln!(out, "sanso_quarantined_records{{source=\"{source}\",kind=\"{kind}\"}} {count}");
        }
    }
}

fn speed_text(board: &StatusBoard, out: &mut String) {
    type Read = fn(&PartitionProgress) -> Option<String>;
    let gauges: [(&str, &str, Read); 5] = [
        ("sanso_log_end_offset", "First offset not yet appended", |p| Some(p.end.to_string())),
        ("sanso_speed_position_offset", "First offset not yet judged", |p| Some(p.position.to_string())),
        ("sanso_speed_lag_records", "Records appended and not yet judged", |p| {
            Some(p.end.saturating_sub(p.position).to_string())
        }),
        ("sanso_speed_watermark_seconds", "Watermark, seconds since 1970", |p| {
            Some(format!("{:.6}", p.watermark_us? as f64 / 1e6))
        }),
        ("sanso_speed_idle", "1 while the log partition is quiet", |p| Some(u8::from(p.idle).to_string())),
    ];
    let speed = board.speed();
    for (name, help, read) in gauges {
        head(out, name, "gauge", help);
        for (source, partitions) in &speed {
            for (partition, progress) in partitions {
                if let Some(value) = read(progress) {
                    let _ = writeln!(
                        out,
                        "{name}{{source=\"{}\",partition=\"{partition}\"}} {value}",
                        escape(source)
                    );
                }
            }
        }
    }
    held_text(board, out);
    head(out, "sanso_records_total", "counter", "Records read, by how they were judged");
    for (source, partitions) in &speed {
        for (partition, progress) in partitions {
            for (verdict, count) in verdicts(&progress.counts) {
                let _ = writeln!(
                    out,
                    "sanso_records_total{{source=\"{}\",partition=\"{partition}\",verdict=\"{verdict}\"}} {count}",
                    escape(source)
                );
            }
        }
    }
    head(out, "sanso_late_records_total", "counter", "Readings whose window had closed when they came");
    for (source, partitions) in &speed {
        let late: u64 = partitions.values().map(|p| p.counts.late).sum();
        let _ = writeln!(out, "sanso_late_records_total{{source=\"{}\"}} {late}", escape(source));
    }
}

fn held_text(board: &StatusBoard, out: &mut String) {
    let name = "sanso_speed_held";
    head(out, name, "gauge", "1 for a log partition that something holds, see troubles in /v1/sources");
    for (source, held) in board.troubles() {
        for partition in held.keys() {
            let _ = writeln!(out, "{name}{{source=\"{}\",partition=\"{partition}\"}} 1", escape(&source));
        }
    }
}

fn verdicts(counts: &RecordCounts) -> [(&'static str, u64); 7] {
    [
        ("new", counts.new),
        ("correction", counts.corrections),
        ("duplicate", counts.duplicates),
        ("conflict", counts.conflicts),
        ("stale", counts.stale),
        ("undecodable", counts.undecodable),
        ("misplaced", counts.misplaced),
    ]
}

fn batch_text(board: &StatusBoard, out: &mut String) {
    type Read = fn(&sanso_catalog::BatchProgress) -> String;
    let metrics: [(&str, &str, Read); 5] = [
        ("sanso_batch_version", "Newest published batch version", |b| b.version.to_string()),
        ("sanso_batch_published_seconds", "When it was published, seconds since 1970", |b| {
            format!("{:.6}", b.published_us as f64 / 1e6)
        }),
        ("sanso_batch_run_seconds", "How long the last run took", |b| {
            format!("{:.3}", b.run_ms as f64 / 1e3)
        }),
        ("sanso_batch_newest_rows", "Rows of the newest-version table", |b| b.newest_rows.to_string()),
        ("sanso_batch_failing", "1 when the last run failed", |b| u8::from(b.error.is_some()).to_string()),
    ];
    let batch = board.batch();
    for (name, help, read) in metrics {
        head(out, name, "gauge", help);
        for (source, progress) in &batch {
            let _ = writeln!(out, "{name}{{source=\"{}\"}} {}", escape(source), read(progress));
        }
    }
    head(out, "sanso_batch_cut_offset", "gauge", "Offsets below this are covered by batch");
    for (source, progress) in &batch {
        for (partition, offset) in progress.cut.offsets().iter().enumerate() {
            let _ = writeln!(
                out,
                "sanso_batch_cut_offset{{source=\"{}\",partition=\"{partition}\"}} {offset}",
                escape(source)
            );
        }
    }
}

/// Writes what the audit has counted, whenever this process drove the batch layer: counters that don't fall.
fn audit_text(board: &StatusBoard, out: &mut String) {
    type Read = fn(&AuditCounts) -> u64;
    let counters: [(&str, &str, Read); 3] = [
        ("sanso_audit_compared_total", "Segments of view partitions compared", |audit| audit.compared),
        ("sanso_audit_skipped_total", "Segments no longer held by speed", |audit| audit.skipped),
        ("sanso_audit_differing_total", "Segments that differed", |audit| audit.differing),
    ];
    let audited = board.audited();
    for (name, help, read) in counters {
        head(out, name, "counter", help);
        for (source, audit) in &audited {
            let _ = writeln!(out, "{name}{{source=\"{}\"}} {}", escape(source), read(audit));
        }
    }
}

fn limits_text(board: &StatusBoard, out: &mut String) {
    type Read = fn(&LimitUse) -> u64;
    let gauges: [(&str, &str, Read); 2] = [
        ("sanso_limit_used", "Current use of a bound", |limit| limit.used),
        ("sanso_limit_max", "The bound", |limit| limit.max),
    ];
    let limits = board.limits().read();
    for (name, help, read) in gauges {
        head(out, name, "gauge", help);
        for limit in &limits {
            let _ =
                writeln!(out, "{name}{{limit=\"{}\",unit=\"{}\"}} {}", limit.name, limit.unit, read(limit));
        }
    }
}

/// Writes a node's part in its cluster.
pub(crate) fn figures_text(figures: &[Figure]) -> String {
    let (mut out, mut last) = (String::new(), "");
    for Figure { name, help, labels, value } in figures {
        if *name != last {
            head(&mut out, name, "gauge", help);
            last = name;
        }
        let labels: Vec<String> =
            labels.iter().map(|(label, of)| format!("{label}=\"{}\"", escape(of))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(out, "{name}{labels} {value}");
    }
    out
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn escape(label: &str) -> String {
    label.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}
