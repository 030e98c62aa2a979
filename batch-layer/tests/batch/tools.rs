//! Ordinary tools read the files: DuckDB and Polars, through their Python packages.

use std::process::Command;
use std::sync::Arc;

use sanso_dataset::Dataset;

use crate::support::{Reading, SMALL, SOURCE, World, hasty};

/// Reads all segments by pattern, and the newest-version table by the list in the newest manifest.
const SCRIPT: &str = r#"
import duckdb, sys
root = sys.argv[1]
db = duckdb.connect()
print(db.execute(f"""SELECT count(*), sum(value), count(DISTINCT _offset), min(epoch_us(_append_time))
  FROM read_parquet('{root}/segments/*/*.parquet')""").fetchall())
db.execute(f"""SET VARIABLE files = (SELECT list('{root}/' || file.path) FROM (
  SELECT unnest(manifest.newest) AS file FROM (
    SELECT manifest FROM read_json('{root}/manifests/*.json', filename = true) ORDER BY filename DESC LIMIT 1)))""")
print(db.execute("""SELECT count(*), sum(value), count(DISTINCT (usage_point, channel, start_utc)),
  min(typeof(value)), max(typeof(start_utc)) FROM read_parquet(getvariable('files'))""").fetchall())
"#;

/// The same by Polars, with the partitions of the paths as columns.
const POLARS: &str = r#"
import glob, json, sys
import polars as pl
root = sys.argv[1]
history = pl.scan_parquet(f"{root}/segments/", hive_partitioning=True)
print(history.select(pl.len(), pl.col("value").sum(), pl.col("_offset").n_unique(),
  pl.col("_append_time").min().dt.epoch("us"), pl.col("log_partition").n_unique()).collect().row(0))
manifest = json.load(open(max(glob.glob(f"{root}/manifests/*.json"))))["manifest"]
newest = pl.scan_parquet([f"{root}/{file['path']}" for file in manifest["newest"]])
print(newest.select(pl.len(), pl.col("value").sum(), pl.struct("usage_point", "channel", "start_utc").n_unique()).collect().row(0))
print(newest.collect_schema()["value"], newest.collect_schema()["start_utc"])
"#;

/// Returns a Python that has a package.
///
/// # Panics
/// When there is none and the environment has `CI`: there every test must run.
#[allow(clippy::print_stderr, reason = "a test that can't run here says so")]
fn python(package: &str) -> Option<String> {
    let python = std::env::var("SANSO_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&python).args(["-c", &format!("import {package}")]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let reason = format!("neither $SANSO_PYTHON nor python3 has the package {package}");
    assert!(std::env::var_os("CI").is_none(), "{reason}; in CI that is a failure");
    eprintln!("SKIPPED: {package} does not read the dataset in this run: {reason}; `make test` brings it");
    None
}

/// Archives three versions of each of three readings, 9 records, 3 newest with the value 30.25, and
/// returns what a script prints of it, line by line.
async fn read_by(package: &str, script: &str) -> Option<Vec<String>> {
    let python = python(package)?;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut world = World::new(SMALL).await;
    world.objects = Arc::new(
        object_store::local::LocalFileSystem::new_with_prefix(folder.path()).expect("a folder for objects"),
    );
    for version in 0..3 {
        for hour in [0, 30, 54] {
            let value = Some(10 * (i16::from(version) + 1));
            world.append(&Reading { meter: 1, channel: 0, hour, value, version });
        }
    }
    let life = world.start(hasty()).await.expect("start");
    life.run_to_end().await.expect("run");
    let root = folder.path().join("data").join(SOURCE);
    let output = Command::new(python).args(["-c", script]).arg(&root).output().expect("python runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(text.lines().map(str::to_owned).collect())
}

#[tokio::test]
async fn duckdb_reads_the_history_and_the_newest_readings() {
    let Some(lines) = read_by("duckdb", SCRIPT).await else { return };
    assert_eq!(lines[0], "[(9, Decimal('182.250'), 9, 1720000000000000)]");
    assert_eq!(lines[1], "[(3, Decimal('90.750'), 3, 'DECIMAL(18,3)', 'TIMESTAMP WITH TIME ZONE')]");
}

#[tokio::test]
async fn polars_reads_the_history_and_the_newest_readings() {
    let Some(lines) = read_by("polars", POLARS).await else { return };
    assert_eq!(lines[0], "(9, Decimal('182.250'), 9, 1720000000000000, 1)");
    assert_eq!(lines[1], "(3, Decimal('90.750'), 3)");
    assert_eq!(lines[2], "Decimal(precision=18, scale=3) Datetime(time_unit='us', time_zone='UTC')");
}

#[tokio::test]
async fn a_local_dataset_is_written_through_its_own_handle() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut world = World::new(SMALL).await;
    world.fill(3, 0);
    let dataset = Dataset::open_local(folder.path()).expect("open");
    world.objects = dataset.object_store();
    world.start(hasty()).await.expect("start").run_to_end().await.expect("run");
    assert!(folder.path().join("data/readings/segments/log_partition=00000/000000000000.parquet").is_file());
}
