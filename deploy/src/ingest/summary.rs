//! What became of an ingestion, for people and as JSON.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use chrono::{DateTime, SecondsFormat, Utc};
use sanso_reading::{FileError, FileSummary, Refused};
use serde::Serialize;
use serde_json::{Value, json};

use super::reader::Tally;

/// Refused records, broken files and warnings that are printed; all are counted.
const LISTED_MAX: usize = 20;
/// Refused records kept for the JSON summary.
const KEPT_MAX: usize = 1000;

/// A record that did not get into the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RefusedRecord {
    /// The file.
    file: String,
    /// The place in the file, where it is known.
    place: Option<Value>,
    /// Who refused it: `file` while reading, `node` on arrival.
    by: &'static str,
    /// Why.
    reason: String,
    /// What to do.
    remedy: Option<String>,
    /// The record, perhaps in part.
    record: String,
}

impl RefusedRecord {
    /// A record that could not be read from its file.
    pub(crate) fn of_file(refused: &Refused) -> Self {
        Self {
            file: refused.file.clone(),
            place: serde_json::to_value(refused.place).ok(),
            by: "file",
            reason: refused.reason.clone(),
            remedy: Some(refused.remedy.clone()),
            record: refused.record.clone(),
        }
    }

    /// A reading that the node did not take.
    pub(crate) fn of_node(file: &str, line: &[u8], reason: &str) -> Self {
        Self {
            file: file.to_owned(),
            place: None,
            by: "node",
            reason: reason.to_owned(),
            remedy: None,
            record: String::from_utf8_lossy(line).into_owned(),
        }
    }

    fn text(&self) -> String {
        let place = match &self.place {
            Some(Value::Object(place)) => place.iter().map(|(kind, at)| format!(": {kind} {at}")).collect(),
            _ => String::new(),
        };
        let remedy = self.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
        let record =
            if self.place.is_none() { format!(" in {}", clean(&self.record)) } else { String::new() };
        format!("{}{place}: {}{remedy}{record}", clean(&self.file), clean(&self.reason))
    }
}

/// A record that is in the log, but was put in quarantine by the speed layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Quarantined {
    /// The file it came from, once found.
    pub(crate) file: Option<String>,
    /// `conflict`, `undecodable`, `misplaced` or `expression`.
    pub(crate) kind: String,
    /// Why.
    pub(crate) reason: String,
    /// The record as it is in the log.
    pub(crate) payload: String,
}

/// How a source's counters changed, whoever sent the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Changes {
    new: u64,
    corrections: u64,
    duplicates: u64,
    stale: u64,
    conflicts: u64,
    late: u64,
}

impl Changes {
    /// Subtracts a source's counters before from those after.
    pub(crate) fn between(before: &Value, after: &Value) -> Self {
        let change = |name: &str| {
            let of = |counts: &Value| counts[name].as_u64().unwrap_or(0);
            of(after).saturating_sub(of(before))
        };
        Self {
            new: change("new"),
            corrections: change("corrections"),
            duplicates: change("duplicates"),
            stale: change("stale"),
            conflicts: change("conflicts"),
            late: change("late"),
        }
    }
}

/// What became of an ingestion.
pub(crate) struct Summary {
    /// The source.
    pub(crate) source: String,
    /// What was acknowledged.
    pub(crate) tally: Tally,
    /// Whether the speed layer has processed all of it.
    pub(crate) settled: bool,
    /// The change of the source's counters, where known.
    pub(crate) changes: Option<Changes>,
    /// What went to quarantine.
    pub(crate) quarantined: Vec<Quarantined>,
    /// Whether the user stopped it.
    pub(crate) interrupted: bool,
    files: Vec<FileSummary>,
    broken: Vec<String>,
    unrecognised: Vec<String>,
    refused: Vec<RefusedRecord>,
    refused_count: u64,
    unlisted: u64,
    warnings: Vec<String>,
    refused_file: Option<BufWriter<File>>,
}

impl Summary {
    /// Creates an empty summary; refused records are also written to a file where one is given.
    pub(crate) fn new(source: &str, refused_file: Option<&Path>) -> anyhow::Result<Self> {
        let create = |path: &Path| File::create(path).with_context(|| format!("create {}", path.display()));
        Ok(Self {
            source: source.to_owned(),
            tally: Tally::default(),
            settled: false,
            changes: None,
            quarantined: Vec::new(),
            interrupted: false,
            files: Vec::new(),
            broken: Vec::new(),
            unrecognised: Vec::new(),
            refused: Vec::new(),
            refused_count: 0,
            unlisted: 0,
            warnings: Vec::new(),
            refused_file: refused_file.map(create).transpose()?.map(BufWriter::new),
        })
    }

    /// Takes in a refused record.
    pub(crate) fn refuse(&mut self, refused: RefusedRecord) {
        self.refused_count += 1;
        if let Some(out) = &mut self.refused_file {
            let line = serde_json::to_string(&refused).unwrap_or_default();
            if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
                self.refused_file = None;
                self.warn(format!("the list of refused records is not whole: {error}"));
            }
        }
        if self.refused.len() < KEPT_MAX {
            self.refused.push(refused);
        }
    }

    /// Takes in refusals of which only the number is known.
    pub(crate) fn refuse_unlisted(&mut self, count: u64) {
        self.refused_count += count;
        self.unlisted += count;
    }

    /// Takes in how reading a file ended.
    pub(crate) fn file_ended(&mut self, read: Result<FileSummary, FileError>) {
        match read {
            Ok(summary) => {
                let warnings = summary.warnings.iter().map(|warning| format!("{}: {warning}", summary.file));
                self.warnings.extend(warnings);
                self.files.push(summary);
            }
            Err(FileError::Stopped { .. }) => {}
            Err(error @ FileError::UnknownFormat { .. }) => self.unrecognised.push(error.to_string()),
            Err(error) => self.broken.push(format!("{:#}", anyhow::Error::from(error))),
        }
    }

    /// Adds a warning.
    pub(crate) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// Says whether every record of every file is in, without contradiction.
    pub(crate) fn is_clean(&self) -> bool {
        self.broken.is_empty()
            && self.unrecognised.is_empty()
            && self.refused_count == 0
            && self.quarantined.is_empty()
    }

    /// Counts the records refused so far.
    pub(crate) fn refused_count(&self) -> u64 {
        self.refused_count
    }

    /// Writes the summary as one JSON object.
    pub(crate) fn json(&self) -> Value {
        let number = |text: String| serde_json::from_str::<Value>(&text).unwrap_or(Value::String(text));
        let energy = self.tally.channels.iter().map(|((channel, unit), tally)| {
            json!({
                "channel": channel,
                "unit": unit,
                "readings": tally.readings,
                "missing": tally.missing,
                "sum": number(tally.sum.to_string()),
            })
        });
        json!({
            "source": self.source,
            "files": self.files,
            "broken_files": self.broken,
            "unrecognised_files": self.unrecognised,
            "readings": self.tally.readings,
            "meters": self.tally.usage_points.len(),
            "first": self.tally.span.map(|(first, _)| rfc3339(first)),
            "last": self.tally.span.map(|(_, last)| rfc3339(last)),
            "energy": energy.collect::<Vec<_>>(),
            "energy_exact": self.unlisted == 0,
            "source_changes": self.changes,
            "refused_count": self.refused_count,
            "refused": self.refused,
            "quarantined": self.quarantined,
            "warnings": self.warnings,
            "settled": self.settled,
            "interrupted": self.interrupted,
        })
    }

    /// Writes the summary for people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = self.write_text(&mut text);
        text
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let (files, meters) = (self.files.len(), self.tally.usage_points.len());
        if self.interrupted {
            writeln!(out, "Interrupted. What is counted here is acknowledged; run it again for the rest.\n")?;
        }
        writeln!(
            out,
            "{} acknowledged from {} of {}.",
            counted(self.tally.readings, "reading"),
            counted(files as u64, "file"),
            counted(meters as u64, "meter")
        )?;
        if let Some((first, last)) = self.tally.span {
            writeln!(out, "From {} to {}.", rfc3339(first), rfc3339(last))?;
        }
        self.write_energy(out)?;
        if let Some(changes) = &self.changes {
            writeln!(out, "\nSource {} since the start, all senders together:", self.source)?;
            let Changes { new, corrections, duplicates, stale, conflicts, late } = changes;
            writeln!(
                out,
                "  {} new, {} corrected, {} duplicate, {} stale, {} in conflict; {} of them late",
                grouped(*new),
                grouped(*corrections),
                grouped(*duplicates),
                grouped(*stale),
                grouped(*conflicts),
                grouped(*late)
            )?;
        }
        if !self.settled && self.tally.readings > 0 {
            writeln!(out, "  not all of it is in the views yet: what is counted here may still grow")?;
        }
        self.write_refused(out)?;
        let quarantined = self.quarantined.iter().map(|record| {
            let file = record.file.as_deref().unwrap_or("?");
            let what = identity(&record.payload);
            format!("{}: {} {}: {}", clean(file), record.kind, clean(&what), clean(&record.reason))
        });
        list(out, "in quarantine, with the first version standing", quarantined.collect())?;
        list(out, "broken, nothing of them was sent", self.broken.iter().map(|file| clean(file)).collect())?;
        list(out, "left out, no meter files", self.unrecognised.iter().map(|file| clean(file)).collect())?;
        list(out, "to note", self.warnings.iter().map(|warning| clean(warning)).collect())
    }

    fn write_energy(&self, out: &mut String) -> std::fmt::Result {
        if self.tally.channels.is_empty() {
            return Ok(());
        }
        let header = ["channel", "unit", "readings", "missing", "sum"].map(str::to_owned);
        let rows = self.tally.channels.iter().map(|((channel, unit), tally)| {
            let (readings, missing) = (grouped(tally.readings), grouped(tally.missing));
            [clean(channel), clean(unit), readings, missing, tally.sum.to_string()]
        });
        let rows: Vec<[String; 5]> = std::iter::once(header).chain(rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 5] = std::array::from_fn(width);
        writeln!(out, "\nAs in the files, repeated and corrected readings included:")?;
        for row in &rows {
            let [a, b, c, d, e] = widths;
            let [channel, unit, readings, missing, sum] = row;
            writeln!(out, "  {channel:<a$}  {unit:<b$}  {readings:>c$}  {missing:>d$}  {sum:>e$}")?;
        }
        if self.unlisted > 0 {
            writeln!(
                out,
                "  with {} that the node refused without a list",
                counted(self.unlisted, "reading")
            )?;
        }
        Ok(())
    }

    fn write_refused(&self, out: &mut String) -> std::fmt::Result {
        if self.refused_count == 0 {
            return Ok(());
        }
        writeln!(out, "\n{} refused:", counted(self.refused_count, "record"))?;
        for refused in self.refused.iter().take(LISTED_MAX) {
            writeln!(out, "  {}", refused.text())?;
        }
        let more = self.refused_count.saturating_sub(LISTED_MAX as u64);
        if more > 0 {
            writeln!(out, "  and {} more; --refused FILE writes all of them", grouped(more))?;
        }
        Ok(())
    }
}

fn list(out: &mut String, what: &str, lines: Vec<String>) -> std::fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{} {what}:", lines.len())?;
    lines.iter().take(LISTED_MAX).try_for_each(|line| writeln!(out, "  {line}"))?;
    match lines.len().saturating_sub(LISTED_MAX) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more"),
    }
}

/// Names a reading in the log: its identity and value; the beginning of what is none.
fn identity(payload: &str) -> String {
    let Ok(reading) = serde_json::from_str::<Value>(payload) else {
        return payload.chars().take(120).collect();
    };
    let text = |field: &str| match &reading[field] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!("{} {} {} = {}", text("usage_point"), text("channel"), text("start_utc"), text("value"))
}

/// Takes control characters out of text that comes from files.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// Writes a number with thousands separated.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
