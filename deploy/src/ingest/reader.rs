//! Reads the files on a thread of its own and cuts the readings into batches.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use sanso_reading::{Event, FileError, FileSummary, ReadOptions, Reading, Refused, read_file_watched};
use tokio::sync::mpsc::Sender;

use super::exact::Sum;
use super::files::InputFile;

/// Records in one request.
const BATCH_RECORDS_MAX: usize = 5000;
/// Bytes in one request.
const BATCH_BYTES_MAX: usize = 2 << 20;

/// What the reader found, in file order.
#[derive(Debug)]
pub(crate) enum Found {
    /// Readings to send.
    Batch(Batch),
    /// A record of a sound file that can't be used.
    Refused(Refused),
    /// The end of a file.
    End(Result<FileSummary, FileError>),
}

/// Readings as JSON lines, and what they come to.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The file's name.
    pub(crate) file: String,
    /// The lines.
    pub(crate) body: Vec<u8>,
    /// What they come to.
    pub(crate) tally: Tally,
    /// The bytes of the file that had been read when it was full; somewhat more than they take.
    pub(crate) position: u64,
}

/// What readings come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How many there are.
    pub(crate) readings: u64,
    /// Their usage points.
    pub(crate) usage_points: BTreeSet<String>,
    /// The start of the first and the end of the last interval.
    pub(crate) span: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// Sums by channel and unit.
    pub(crate) channels: BTreeMap<(String, String), ChannelTally>,
}

/// What the readings of one channel come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChannelTally {
    /// How many there are.
    pub(crate) readings: u64,
    /// How many of them have no value.
    pub(crate) missing: u64,
    /// The sum of the values.
    pub(crate) sum: Sum,
}

impl Tally {
    /// Takes in one reading.
    pub(crate) fn add(&mut self, reading: &Reading) {
        self.readings += 1;
        if !self.usage_points.contains(&reading.usage_point) {
            self.usage_points.insert(reading.usage_point.clone());
        }
        let end = reading.start_utc + TimeDelta::seconds(i64::from(reading.duration_s));
        self.cover(reading.start_utc, end);
        let channel = self.channels.entry((reading.channel.clone(), reading.unit.clone())).or_default();
        channel.readings += 1;
        match reading.value.map(|value| value.micro()) {
            Some(Ok(micro)) => channel.sum.add(i128::from(micro), sanso_reading::SCALE),
            // The reader hands out no value that a canonical reading can't hold.
            Some(Err(_)) | None => channel.missing += 1,
        }
    }

    /// Takes one reading out again, but for its usage point and time.
    pub(crate) fn remove(&mut self, reading: &Reading) {
        self.readings = self.readings.saturating_sub(1);
        let key = (reading.channel.clone(), reading.unit.clone());
        let Some(channel) = self.channels.get_mut(&key) else { return };
        channel.readings = channel.readings.saturating_sub(1);
        match reading.value.map(|value| value.micro()) {
            Some(Ok(micro)) => channel.sum.add(-i128::from(micro), sanso_reading::SCALE),
            Some(Err(_)) | None => channel.missing = channel.missing.saturating_sub(1),
        }
        if channel.readings == 0 {
            self.channels.remove(&key);
        }
    }

    /// Takes in another tally.
    pub(crate) fn merge(&mut self, other: Tally) {
        self.readings += other.readings;
        self.usage_points.extend(other.usage_points);
        if let Some((first, last)) = other.span {
            self.cover(first, last);
        }
        for (key, theirs) in other.channels {
            let mine = self.channels.entry(key).or_default();
            mine.readings += theirs.readings;
            mine.missing += theirs.missing;
            mine.sum.merge(&theirs.sum);
        }
    }

    fn cover(&mut self, first: DateTime<Utc>, last: DateTime<Utc>) {
        let (from, to) = self.span.unwrap_or((first, last));
        self.span = Some((from.min(first), to.max(last)));
    }
}

/// Reads files in order and sends what it finds; stops early when nobody
/// listens any longer. Blocks: run it on a thread of its own.
pub(crate) fn read(files: &[InputFile], options: &ReadOptions, out: &Sender<Found>) {
    for file in files {
        let mut batch = Batch::default();
        let position = Arc::new(AtomicU64::new(0));
        let read = read_file_watched(&file.path, options, &position, |event| match event {
            Event::Reading(reading) => {
                reading.write_json(&mut batch.body);
                batch.body.push(b'\n');
                batch.tally.add(reading);
                if batch.tally.readings as usize >= BATCH_RECORDS_MAX || batch.body.len() >= BATCH_BYTES_MAX {
                    send(out, (file, position.as_ref()), &mut batch)
                } else {
                    ControlFlow::Continue(())
                }
            }
            Event::Refused(refused) => put(out, Found::Refused(refused.clone())),
        });
        let sent = if batch.body.is_empty() {
            ControlFlow::Continue(())
        } else {
            send(out, (file, position.as_ref()), &mut batch)
        };
        if sent.is_break() || put(out, Found::End(read)).is_break() {
            return;
        }
    }
}

fn send(
    out: &Sender<Found>,
    (file, position): (&InputFile, &AtomicU64),
    batch: &mut Batch,
) -> ControlFlow<()> {
    batch.position = position.load(Ordering::Relaxed);
    batch.file = file.path.display().to_string();
    put(out, Found::Batch(std::mem::take(batch)))
}

fn put(out: &Sender<Found>, found: Found) -> ControlFlow<()> {
    match out.blocking_send(found) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}
