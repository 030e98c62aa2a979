//! Prepares a chunk of lines for the log: decodes, refuses, partitions; pure.

use std::collections::BTreeMap;

use arrow::array::{Array, RecordBatch};
use bytes::{BufMut, Bytes, BytesMut};
use sanso_log::{Append, partition_for_key};
use sanso_view::Source;

use crate::json::time_text;

/// Longest reason in an answer, in characters.
const REASON_CHARS_MAX: usize = 300;
/// The column that holds when a record was received.
const RECEIVED_AT: &str = "received_at";

/// Lines of a body with their numbers, from 1.
pub(crate) struct Chunk {
    /// How many lines of the body this chunk covers, blank ones too.
    pub(crate) count: u64,
    /// The lines.
    pub(crate) lines: Vec<(u64, Bytes)>,
    /// Lines refused before decoding, with the reason.
    pub(crate) refused: Vec<(u64, String)>,
}

/// A chunk ready to be appended.
pub(crate) struct Prepared {
    /// For each log partition the line numbers and the records, in order.
    pub(crate) by_partition: BTreeMap<u32, (Vec<u64>, Vec<Append>)>,
    /// Refused lines and why, in order.
    pub(crate) refused: Vec<(u64, String)>,
}

/// Decodes every line as a record of the source. A good line goes to the log
/// as it came, but for `received_at`, which is added where the source has it
/// and the line does not say.
pub(crate) fn prepare(source: &Source, chunk: Chunk, now_us: i64) -> Prepared {
    let decoded = source.decode(chunk.lines.iter().map(|(_, line)| &line[..]));
    let mut refused = chunk.refused;
    refused
        .extend(decoded.rejected.into_iter().map(|(index, reason)| (chunk.lines[index].0, bounded(&reason))));
    refused.sort_by_key(|(line, _)| *line);
    let keys = source.keys(&decoded.rows);
    let unreceived = unreceived(source, &decoded.rows);
    let stamp = time_text(now_us);
    let mut by_partition: BTreeMap<u32, (Vec<u64>, Vec<Append>)> = BTreeMap::new();
    for (row, &index) in decoded.index.iter().enumerate() {
        let (number, line) = &chunk.lines[index];
        let payload = match &stamp {
            Some(stamp) if unreceived(row) => received(line, stamp),
            _ => line.clone(),
        };
        let key = Bytes::copy_from_slice(keys.value(row).as_bytes());
        let partition = partition_for_key(&key, source.partitions);
        let (numbers, records) = by_partition.entry(partition).or_default();
        numbers.push(*number);
        records.push(Append { key: Some(key), payload });
    }
    Prepared { by_partition, refused }
}

/// Says of a row whether it lacks the time of receipt.
fn unreceived<'a>(source: &Source, rows: &'a RecordBatch) -> impl Fn(usize) -> bool + 'a {
    let column = source.column_index(RECEIVED_AT).map(|index| rows.column(index));
    move |row| column.is_some_and(|column| column.is_null(row))
}

/// Adds the time of receipt as the object's first member; every other byte stays.
fn received(line: &Bytes, stamp: &str) -> Bytes {
    let quoted = format!("\"{RECEIVED_AT}\"");
    let named = line.windows(quoted.len()).any(|window| window == quoted.as_bytes());
    let Some(open) = line.iter().position(|byte| *byte == b'{') else { return line.clone() };
    if named {
        // It says null itself; a second member of the name would be ambiguous.
        return line.clone();
    }
    let rest = &line[open + 1..];
    let is_empty = rest.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
    let mut out = BytesMut::with_capacity(line.len() + 48);
    out.put_slice(&line[..=open]);
    out.put_slice(format!("{quoted}:\"{stamp}\"").as_bytes());
    if !is_empty {
        out.put_u8(b',');
    }
    out.put_slice(rest);
    out.freeze()
}

fn bounded(reason: &str) -> String {
    if reason.chars().count() <= REASON_CHARS_MAX {
        return reason.to_owned();
    }
    // The beginning says what is wrong; the rest quotes the record.
    let at = reason.char_indices().nth(REASON_CHARS_MAX).map_or(reason.len(), |(at, _)| at);
    format!("{}…", &reason[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_receipt_is_added_and_nothing_else_changes() {
        let check = |line: &'static str, expected: &str| {
            let out = received(&Bytes::from_static(line.as_bytes()), "T");
            assert_eq!(std::str::from_utf8(&out).expect("text"), expected);
        };
        check(r#" {"value": 0.10}"#, r#" {"received_at":"T","value": 0.10}"#);
        check("{ }", r#"{"received_at":"T" }"#);
        check(r#"{"received_at": null}"#, r#"{"received_at": null}"#);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(bounded("short"), "short");
        assert_eq!(bounded(&"é".repeat(400)).chars().count(), REASON_CHARS_MAX + 1);
    }
}
