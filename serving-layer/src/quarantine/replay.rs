//! Replays quarantined records after their cause is mended: appends them to the log anew.
//!
//! ```text
//!   finish what broke off ─▶ select ─▶ check each ─▶ write the plan ─▶ append what is missing ─▶ done
//! ```
//!
//! The log is the only way in, so a replay is an append like any other. It happens once for each
//! record, also when the process dies in between: the plan says where the log ended, and whatever of
//! it is found from there on is not appended again. Replays of one process are done one at a time;
//! of two processes one gets its plan's number, the other is told to try again. What another node of a
//! cluster has planned is left to it for a minute, then claimed ([`Hold`]) and finished here.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use sanso_dataset::{ReplayDone, ReplayPlan, ReplayRecord};
use sanso_log::{Append, LogError, partition_for_key};
use sanso_state::{Offset, Quarantined, Refusal, ValueType};
use sanso_view::Source;
use serde_json::{Map, Value};

use crate::problem::Problem;
use crate::quarantine::Hold;
use crate::quarantine::read::{Ask, Wanted, failed, read};
use crate::routes::ingest::log_problem;
use crate::service::Shared;

/// Records and bytes in one read of the log while what a broken-off replay appended is looked for.
const READ_RECORDS: usize = 4_096;
const READ_BYTES: usize = 4 << 20;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Which records; those replayed before are left out.
    pub(crate) wanted: Wanted,
    /// Where to begin: after this position.
    pub(crate) after: Option<(u32, Offset)>,
    /// Most records.
    pub(crate) limit: usize,
    /// The source to append to.
    pub(crate) into: Arc<Source>,
    /// The version to give every record.
    pub(crate) version: Option<i64>,
    /// Mended payloads of some records.
    pub(crate) payloads: BTreeMap<(u32, Offset), Map<String, Value>>,
    /// Whether a record of a source without versions may become the newest of its identity.
    pub(crate) as_newest: bool,
}

/// What became of it.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// The replay's number; none when nothing was appended.
    pub(crate) number: Option<u64>,
    /// What was appended for which record, and its new offset.
    pub(crate) appended: Vec<(ReplayRecord, Offset)>,
    /// Records that can't be replayed as asked, and why.
    pub(crate) refused: Vec<(Quarantined, String)>,
    /// Where to go on.
    pub(crate) next: Option<(u32, Offset)>,
    /// Log partitions of which records may have been passed over; see [`crate::quarantine::read`].
    pub(crate) missing: Vec<u32>,
    /// The nodes that don't answer, and why.
    pub(crate) unanswered: Vec<Value>,
}

/// Replays records of a source.
pub(crate) async fn replay(
    shared: &Shared,
    source: &Arc<Source>,
    asked: &Asked,
) -> Result<Replayed, Problem> {
    let mut held = shared.replaying.lock().await;
    let dataset = &shared.context.dataset;
    // Looked at before the records are: who replays some of them meanwhile takes the number that is next here.
    let known = shared.replays.look(dataset, &source.name).await.map_err(failed)?;
    let number = known.last + 1;
    for plan in known.open {
        let hold = Hold::take(shared, &source.name, &plan, held.get(&source.name)).await?;
        carry_out(shared, source, &plan, keep(&mut held, source, hold)).await?;
    }
    let wanted = Wanted { replayed: Some(false), ..asked.wanted.clone() };
    let found = read(shared, source, &wanted, Ask::After(asked.after), asked.limit).await?;
    let last = found.records.last().map(|record| (record.partition, record.offset));
    let mut replayed = Replayed {
        next: last.filter(|_| found.more),
        missing: found.missing,
        unanswered: found.unanswered,
        ..Replayed::default()
    };
    let mut records = Vec::new();
    for record in found.records {
        match prepare(source, asked, &record) {
            Ok(prepared) => records.push(prepared),
            Err(reason) => replayed.refused.push((record, reason)),
        }
    }
    if records.is_empty() {
        return Ok(replayed);
    }
    let hold = Hold::planning(number);
    let plan = ReplayPlan {
        number,
        planned_us: chrono::Utc::now().timestamp_micros(),
        into: asked.into.name.clone(),
        ends: ends(shared, &asked.into).await?,
        records,
    };
    if !dataset.plan_replay(&source.name, &plan).await.map_err(failed)? {
        return Err(Problem::busy("replays"));
    }
    let offsets = carry_out(shared, source, &plan, keep(&mut held, source, hold)).await?;
    metrics::counter!(crate::metrics::REPLAYED, "source" => source.name.clone())
        .increment(plan.records.len() as u64);
    replayed.number = Some(number);
    replayed.appended = plan.records.into_iter().zip(offsets).collect();
    Ok(replayed)
}

/// Says what to append for a record, or why nothing can be. Pure.
fn prepare(source: &Source, asked: &Asked, record: &Quarantined) -> Result<ReplayRecord, String> {
    let into = &asked.into;
    let mended = asked.payloads.get(&(record.partition, record.offset));
    let same_source = into.name == source.name;
    match record.kind {
        Refusal::Expression if same_source && mended.is_none() => {
            return Err(
                "the source has it already: change the view, whose new version is computed over all history"
                    .into(),
            );
        }
        Refusal::Conflict if same_source && mended.is_none() && asked.version.is_none() => {
            return Err("it would conflict again: give it a higher version, or a mended payload".into());
        }
        _ => {}
    }
    if into.version_column.is_none() && !asked.as_newest {
        return Err(format!(
            "source {} declares no version, so what is appended last is the newest of its identity, whatever came since: confirm with as_newest",
            into.name
        ));
    }
    let payload = match (mended, asked.version) {
        (None, None) => record.payload.clone(),
        (mended, version) => {
            let mut object = match mended {
                Some(object) => object.clone(),
                None => serde_json::from_slice(&record.payload)
                    .map_err(|error| format!("not one JSON object: {error}"))?,
            };
            if let Some(version) = version {
                object.insert(version_column(into)?.to_owned(), version.into());
            }
            serde_json::to_vec(&object).map_err(|error| error.to_string())?
        }
    };
    let decoded = into.decode([payload.as_slice()]);
    if let Some((_, reason)) = decoded.rejected.first() {
        return Err(format!("it is no record of source {}: {reason}", into.name));
    }
    let key = into.keys(&decoded.rows).value(0).to_owned();
    let to = partition_for_key(key.as_bytes(), into.partitions);
    let payload = String::from_utf8(payload).map_err(|error| error.to_string())?;
    Ok(ReplayRecord { partition: record.partition, offset: record.offset, to, key, payload })
}

fn version_column(source: &Source) -> Result<&str, String> {
    let column = source.version_column.map(|index| &source.columns[index]);
    match column {
        Some(column) if column.value_type == ValueType::Int => Ok(&column.name),
        _ => Err(format!("source {} has no version column of whole numbers", source.name)),
    }
}

async fn ends(shared: &Shared, source: &Source) -> Result<Vec<Offset>, Problem> {
    let mut ends = Vec::new();
    for partition in 0..source.partitions {
        let end = shared.context.log.end_offset(&source.topic, partition).await;
        ends.push(end.map_err(|error| log_problem(&error))?);
    }
    Ok(ends)
}

/// Remembers what this process holds of a source.
fn keep<'a>(held: &'a mut BTreeMap<String, Hold>, source: &Source, hold: Hold) -> &'a mut Hold {
    held.insert(source.name.clone(), hold);
    held.get_mut(&source.name).expect("it was put there")
}

/// Appends what of a plan is not in the log yet, and writes down where all of it is.
async fn carry_out(
    shared: &Shared,
    source: &Source,
    plan: &ReplayPlan,
    hold: &mut Hold,
) -> Result<Vec<Offset>, Problem> {
    let catalog = shared.context.catalog.current();
    let Some(into) = catalog.sources.get(&plan.into) else {
        let existing = catalog.sources.keys().cloned().collect();
        return Err(Problem::unknown("source", &plan.into, existing).with("replay", plan.number));
    };
    let mut offsets: Vec<Option<Offset>> = vec![None; plan.records.len()];
    for (partition, &end) in (0..).zip(&plan.ends) {
        let mine = |(at, record): (usize, &ReplayRecord)| (record.to == partition).then_some(at);
        let mine: Vec<usize> = plan.records.iter().enumerate().filter_map(mine).collect();
        if mine.is_empty() {
            continue;
        }
        find(shared, into, (partition, end), (&mine, plan), &mut offsets).await?;
        let missing: Vec<usize> = mine.into_iter().filter(|at| offsets[*at].is_none()).collect();
        let appends = missing.iter().map(|&at| {
            let record = &plan.records[at];
            Append::keyed(Bytes::from(record.key.clone()), Bytes::from(record.payload.clone()))
        });
        hold.keep(shared, &source.name).await?;
        let appended = shared.context.log.append(&into.topic, partition, appends.collect()).await;
        let appended = appended.map_err(|error| log_problem(&error))?;
        missing.into_iter().zip(appended).for_each(|(at, offset)| offsets[at] = Some(offset));
    }
    let offsets: Vec<Offset> =
        offsets.into_iter().map(|offset| offset.expect("every record was found or appended")).collect();
    let done = ReplayDone { number: plan.number, offsets: offsets.clone() };
    shared.context.dataset.finish_replay(&source.name, &done).await.map_err(failed)?;
    Ok(offsets)
}

/// Finds records of a plan that are in one log partition already, at or after where it ended.
async fn find(
    shared: &Shared,
    into: &Source,
    (partition, end): (u32, Offset),
    (mine, plan): (&[usize], &ReplayPlan),
    offsets: &mut [Option<Offset>],
) -> Result<(), Problem> {
    let mut sought: HashMap<&[u8], VecDeque<usize>> = HashMap::new();
    for &at in mine {
        sought.entry(plan.records[at].payload.as_bytes()).or_default().push_back(at);
    }
    let mut next = end;
    loop {
        let read = shared.context.log.read(&into.topic, partition, next, READ_RECORDS, READ_BYTES).await;
        let batch = match read {
            Ok(batch) => batch,
            // Batch has what was trimmed; of it nothing can be found any longer.
            Err(LogError::Truncated { start, .. }) => {
                next = start;
                continue;
            }
            Err(error) => return Err(log_problem(&error)),
        };
        for record in &batch.records {
            if let Some(at) = sought.get_mut(&record.payload[..]).and_then(VecDeque::pop_front) {
                offsets[at] = Some(record.offset);
            }
        }
        if batch.next >= batch.end {
            return Ok(());
        }
        next = batch.next;
    }
}
