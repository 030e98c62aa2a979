//! Sends batches in order, one request at a time, and takes the answers in.

use std::time::Duration;

use anyhow::Context;
use sanso_reading::{ReadOptions, Reading};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::files::InputFile;
use super::progress::Progress;
use super::reader::{self, Batch, Found};
use super::settle::Positions;
use super::summary::{RefusedRecord, Summary};
use crate::http::{Backoff, Client};

/// Batches that are read ahead of the one being sent.
const READ_AHEAD: usize = 4;
/// How long a node may be out of reach before the command gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How sending ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Everything was sent.
    Complete,
    /// The user stopped it.
    Interrupted,
    /// The node could not be reached or refused a whole request.
    Failed(anyhow::Error),
}

/// The sending of files to one source.
pub(crate) struct Upload<'a> {
    client: &'a Client,
    source: &'a str,
    /// Whether progress is shown nowhere.
    quiet: bool,
    positions: Positions,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(client: &'a Client, source: &'a str, quiet: bool) -> Self {
        Self { client, source, quiet, positions: Positions::default() }
    }

    /// Sends the files; returns how it ended and what was acknowledged up to where.
    pub(crate) async fn run(
        mut self,
        files: &[InputFile],
        options: &ReadOptions,
        summary: &mut Summary,
    ) -> (Ended, Positions) {
        let mut progress = Progress::new(files, self.quiet);
        let (out, mut found) = mpsc::channel(READ_AHEAD);
        let reader = spawn_reader(files.to_vec(), options.clone(), out);
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        let ended = loop {
            let next = tokio::select! {
                _ = &mut interrupt => break Ended::Interrupted,
                next = found.recv() => next,
            };
            match next {
                None => break Ended::Complete,
                Some(Found::Refused(refused)) => summary.refuse(RefusedRecord::of_file(&refused)),
                Some(Found::End(read)) => {
                    progress.file_done();
                    summary.file_ended(read);
                }
                Some(Found::Batch(batch)) => {
                    let sent = tokio::select! {
                        _ = &mut interrupt => break Ended::Interrupted,
                        sent = self.send(&batch) => sent,
                    };
                    let position = batch.position;
                    match sent {
                        Ok(answer) => self.acknowledged(&answer, batch, summary),
                        Err(error) => break Ended::Failed(error),
                    }
                    progress.file_at(position, summary.tally.readings, summary.refused_count());
                }
            }
        };
        // With the channel closed the reader stops at its next record.
        drop(found);
        let ended = match reader.await {
            Ok(()) => ended,
            Err(error) => Ended::Failed(anyhow::Error::from(error).context("read the files")),
        };
        progress.finish();
        (ended, self.positions)
    }

    /// Sends one batch, again where that may help. Sending twice is harmless.
    async fn send(&self, batch: &Batch) -> anyhow::Result<Value> {
        let mut backoff = Backoff::new(PATIENCE);
        loop {
            match self.client.ingest(self.source, batch.body.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_transient() => match backoff.next_pause() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error).context("the node stays out of reach"),
                },
                Err(error) => return Err(error).with_context(|| format!("send readings of {}", batch.file)),
            }
        }
    }

    fn acknowledged(&mut self, answer: &Value, mut batch: Batch, summary: &mut Summary) {
        self.positions.advance(&answer["positions"]);
        let listed = answer["refused"].as_array().map(Vec::as_slice).unwrap_or_default();
        let count = answer["refused_count"].as_u64().unwrap_or(listed.len() as u64);
        if count > 0 {
            let lines: Vec<&[u8]> = batch.body.split(|byte| *byte == b'\n').collect();
            for refused in listed {
                let line =
                    refused["line"].as_u64().and_then(|line| usize::try_from(line.checked_sub(1)?).ok());
                let line = line.and_then(|line| lines.get(line)).copied().unwrap_or_default();
                if let Ok(reading) = serde_json::from_slice::<Reading>(line) {
                    batch.tally.remove(&reading);
                }
                let reason = refused["reason"].as_str().unwrap_or("no reason given");
                summary.refuse(RefusedRecord::of_node(&batch.file, line, reason));
            }
            summary.refuse_unlisted(count.saturating_sub(listed.len() as u64));
        }
        summary.tally.merge(batch.tally);
    }
}

fn spawn_reader(files: Vec<InputFile>, options: ReadOptions, out: mpsc::Sender<Found>) -> JoinHandle<()> {
    tokio::task::spawn_blocking(move || reader::read(&files, &options, &out))
}
