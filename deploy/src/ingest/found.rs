//! What became of the readings behind the log: judged by the speed layer, in
//! quarantine or not, and from which file.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::Context;
use sanso_reading::{Event, ReadOptions, read_file};
use serde_json::Value;

use super::files::InputFile;
use super::settle::{self, Positions};
use super::summary::{Changes, Quarantined, Summary};
use crate::http::{Client, HttpError};

/// Records of a log partition's quarantine that are looked at.
const QUARANTINED_MAX: usize = 1000;

/// Waits until what was acknowledged is processed, and notes how the source's
/// counters changed and what went to quarantine since `before`. A node that
/// goes away meanwhile leaves these unknown.
pub(crate) async fn conclude(
    client: &Client,
    summary: &mut Summary,
    before: &Value,
    positions: &Positions,
    patience: Duration,
) {
    let outcome = async {
        summary.settled = settle::wait(client, &summary.source, positions, patience).await?;
        let after = client.get(&["v1", "sources", &summary.source]).await?;
        summary.changes = Some(Changes::between(&before["counts"], &after["counts"]));
        // The count is null until the layers have posted it, as in the first moments of a node.
        if after["quarantined"].is_null() || after["quarantined"] != before["quarantined"] {
            for partition in settle::partitions(&after) {
                let number = &partition["partition"];
                // A partition that nothing was said of before, as in a node's first moments, was empty.
                let known = settle::partitions(before).find(|known| known["partition"] == *number);
                let from = known.and_then(|known| known["end"].as_u64()).unwrap_or(0);
                let listed = quarantined(client, &summary.source, number.as_u64().unwrap_or(0), from);
                summary.quarantined.append(&mut listed.await?);
            }
        }
        Ok::<_, HttpError>(())
    };
    if let Err(error) = outcome.await {
        summary.warn(format!("what became of the readings is not known: {error}"));
    }
}

/// Lists what went to quarantine of a log partition from an offset on.
async fn quarantined(
    client: &Client,
    source: &str,
    partition: u64,
    from: u64,
) -> Result<Vec<Quarantined>, HttpError> {
    let number = partition.to_string();
    let limit = QUARANTINED_MAX.to_string();
    let mut parameters = vec![("limit", limit.as_str()), ("partition", number.as_str())];
    // Positions are exclusive.
    let after = from.checked_sub(1).map(|last| format!("{number}:{last}"));
    if let Some(after) = &after {
        parameters.push(("after", after));
    }
    let answer = client.get_with(&["v1", "quarantine", source], &parameters).await?;
    let records = answer["records"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(records
        .map(|record| Quarantined {
            file: None,
            kind: text(&record["kind"]),
            reason: text(&record["reason"]),
            payload: text(&record["payload"]),
        })
        .collect())
}

/// Finds the file of each quarantined record by reading the files once more.
/// Records of other senders are not found in any and left out.
pub(crate) async fn locate(
    summary: &mut Summary,
    files: &[InputFile],
    options: &ReadOptions,
) -> anyhow::Result<()> {
    if summary.quarantined.is_empty() {
        return Ok(());
    }
    let sought = std::mem::take(&mut summary.quarantined);
    let (files, options) = (files.to_vec(), options.clone());
    let found = tokio::task::spawn_blocking(move || search(sought, &files, &options)).await;
    summary.quarantined = found.context("look for quarantined records")?;
    Ok(())
}

fn search(sought: Vec<Quarantined>, files: &[InputFile], options: &ReadOptions) -> Vec<Quarantined> {
    let mut by_payload: BTreeMap<Vec<u8>, Vec<Quarantined>> = BTreeMap::new();
    for record in sought {
        by_payload.entry(record.payload.clone().into_bytes()).or_default().push(record);
    }
    let mut found = Vec::new();
    let mut line = Vec::new();
    for file in files {
        let name = file.path.display().to_string();
        // A file that could not be read is known already.
        let _ = read_file(&file.path, options, |event| {
            if let Event::Reading(reading) = event {
                line.clear();
                reading.write_json(&mut line);
                for mut record in by_payload.remove(&line).unwrap_or_default() {
                    record.file = Some(name.clone());
                    found.push(record);
                }
            }
            if by_payload.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if by_payload.is_empty() {
            break;
        }
    }
    found
}
