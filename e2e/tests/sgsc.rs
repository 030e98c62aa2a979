//! A year and a half of 101 real households through transformer and feeder
//! views: every half hour and every day equals the reference to the last digit.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use sanso_e2e::{Client, Node, ingest, micro, micro_of, python, shared_data};

const APP: &str = include_str!("../apps/sgsc.sql");

/// Writes what the test compares with as plain CSV: the readings as published,
/// the network, and the expected totals.
const PREPARE: &str = r#"
import duckdb, sys
data, out = sys.argv[1:]
def write(sql, name):
    duckdb.sql(f"COPY ({sql}) TO '{out}/{name}' (HEADER, DELIMITER ',')")
write(f"""SELECT customer_id, reading_datetime, reading_datetime_fixed, general_supply_kwh
          FROM '{data}/interval/sgsc/sgsc_101_dev.parquet'""", "readings.csv")
# The expected loads of transformers and feeders hold controlled load too, which one household has.
write(f"""SELECT customer_id, reading_datetime, reading_datetime_fixed, general_supply_kwh, controlled_load_kwh
          FROM '{data}/interval/sgsc/sgsc_101_dev.parquet' WHERE customer_id = 10006572""", "controlled.csv")
write(f"""SELECT meter_id AS usage_point, transformer_id AS transformer, mv_feeder_id AS feeder,
                 zone_substation_id AS substation, NULL AS valid_from, NULL AS valid_to
          FROM read_csv('{data}/topology/meter_assignment_sgsc.csv', all_varchar = true)""", "network.csv")
for level in ("transformer", "mv_feeder"):
    write(f"""SELECT {level}_id AS place,
                     CAST(epoch(reading_datetime_fixed) AS BIGINT) - 36000 - 1800 AS start_s,
                     n_meters, CAST(CAST(kwh AS DECIMAL(18,3)) AS VARCHAR) AS kwh
              FROM '{data}/expected/sgsc/dev_{level}_halfhourly.parquet'""", f"{level}.csv")
write(f"""SELECT customer_id, CAST(date AS VARCHAR) AS date, n, general_supply_kwh
          FROM read_csv('{data}/expected/sgsc/dev_daily_by_interval_end_date.csv.gz', all_varchar = true)""", "daily.csv")
"#;

type Totals = BTreeMap<(String, i64), (i64, i128)>;

fn prepare(data: &Path, folder: &Path) -> Option<()> {
    let output =
        Command::new(python()?).args(["-c", PREPARE]).arg(data).arg(folder).output().expect("run python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

fn expected(path: &Path) -> Totals {
    let mut reader = csv::Reader::from_path(path).expect("open the expected totals");
    let rows = reader.records().map(|row| row.expect("a row"));
    rows.map(|row| {
        let start = row[1].parse().expect("a time");
        ((row[0].to_owned(), start), (row[2].parse().expect("a count"), micro(&row[3])))
    })
    .collect()
}

async fn found(client: &Client, view: &str, place: &str, session: &str) -> anyhow::Result<Totals> {
    let sql = format!("SELECT {place}, CAST(window AS BIGINT) / 1000000 AS start_s, meters, kwh FROM {view}");
    let answer = client.query_at(&sql, session).await?;
    let row = |row: &serde_json::Value| {
        let key = (row[0].as_str().expect("a place").to_owned(), row[1].as_i64().expect("a time"));
        (key, (row[2].as_i64().expect("a count"), micro_of(&row[3])))
    };
    Ok(answer.rows().iter().map(row).collect())
}

/// Says where two maps of totals first differ, rather than printing both.
fn assert_same(found: &Totals, wanted: &Totals, what: &str) {
    let keys = found.keys().chain(wanted.keys());
    let different: Vec<_> = keys.filter(|key| found.get(key) != wanted.get(key)).take(5).collect();
    let show =
        |key: &&(String, i64)| format!("{key:?}: found {:?}, wanted {:?}", found.get(key), wanted.get(key));
    assert!(different.is_empty(), "{what}: {:#?}", different.iter().map(show).collect::<Vec<_>>());
    assert_eq!(found.len(), wanted.len(), "{what}");
}

#[tokio::test]
async fn households_roll_up_to_the_reference_totals() -> anyhow::Result<()> {
    let Some(data) = shared_data() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let Some(()) = prepare(&data, folder.path()) else { return Ok(()) };
    let app = folder.path().join("app.sql");
    std::fs::write(&app, APP)?;
    let node = Node::start(&app, &folder.path().join("data"), &[])?;
    for file in ["readings.csv", "controlled.csv"] {
        let file = folder.path().join(file);
        let (code, summary) =
            ingest(&node.client, &["--mapping", "sgsc", file.to_str().expect("a plain path")])?;
        assert_eq!(code, 0, "{summary}");
    }
    let session = compare(&node.client, folder.path(), "").await?;

    // A restart answers the same from batch blocks and the log after their cut:
    // one who brings what it has seen never goes back in time.
    node.stop()?;
    let node = Node::start(&app, &folder.path().join("data"), &[])?;
    compare(&node.client, folder.path(), &session).await?;
    node.stop()
}

/// Holds every total against the reference; returns a token of what was seen.
async fn compare(client: &Client, folder: &Path, session: &str) -> anyhow::Result<String> {
    let transformers = found(client, "transformer_load", "transformer", session).await?;
    assert_same(&transformers, &expected(&folder.join("transformer.csv")), "transformers");
    let feeders = found(client, "feeder_load", "feeder", session).await?;
    assert_same(&feeders, &expected(&folder.join("mv_feeder.csv")), "feeders");
    let total: i128 = feeders.values().map(|(_, kwh)| kwh).sum();
    assert_eq!(total, micro("371464.671"));

    let answer = client
        .query_at(
            "SELECT usage_point, to_char(day + INTERVAL '10 hours', '%Y-%m-%d') AS date, readings, kwh FROM meter_daily",
            session,
        )
        .await?;
    let found: BTreeMap<(String, String), (i64, i128)> = answer
        .rows()
        .iter()
        .map(|row| {
            let text = |column: usize| row[column].as_str().expect("a text").to_owned();
            ((text(0), text(1)), (row[2].as_i64().expect("a count"), micro_of(&row[3])))
        })
        .collect();
    let mut reader = csv::Reader::from_path(folder.join("daily.csv"))?;
    for row in reader.records() {
        let row = row?;
        let wanted = Some((row[2].parse()?, micro(&row[3])));
        assert_eq!(found.get(&(row[0].to_owned(), row[1].to_owned())).copied(), wanted, "{row:?}");
    }
    let session = answer.document["freshness"]["session"].as_str();
    Ok(session.expect("an answer has a token").to_owned())
}
