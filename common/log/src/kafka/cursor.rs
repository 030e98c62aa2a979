//! A place in one partition from which a consumer fetches ahead.
//!
//! A cursor must never take records that are still to come for a hole. Four rules:
//! its queue is split off before the partition is assigned, so no record goes elsewhere; moving it
//! is a seek that is waited for, so no record of the old place comes after; "end of partition"
//! counts only when it was said after a seek that was made after the end was asked for, since an
//! older one may precede newer records in the queue; and after an error it is given up, since the
//! client goes on behind what it could not read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, Timestamp};
use tokio::sync::Notify;

use super::context::Context;
use crate::Record;
use crate::take::Take;

type Queue = PartitionQueue<Context>;

/// Wait for records that should be there, before making sure.
const SURE_AFTER: Duration = Duration::from_secs(2);

/// Fetches ahead from one place of one partition.
pub(super) struct Cursor {
    topic: String,
    partition: i32,
    consumer: Arc<BaseConsumer<Context>>,
    /// Longest that a read or a move waits for the broker.
    timeout: Duration,
    queue: Queue,
    /// Offset of the next record to give.
    position: u64,
    /// A record that was fetched but not yet given.
    pending: Option<Record>,
    /// The fetcher said that it is at the end, and no record came since.
    ended: bool,
    /// An error was met: what the queue gives next may lie behind records that were not given.
    failed: bool,
}

/// What a cursor found.
pub(super) enum Reached {
    /// Some records.
    Records,
    /// Nothing but holes up to the end that was given.
    End,
}

impl Cursor {
    /// Starts to fetch from `position`; `arrived` is told when something comes to an empty queue.
    pub(super) fn start(
        consumer: &Arc<BaseConsumer<Context>>,
        (topic, partition): (&str, u32),
        position: u64,
        timeout: Duration,
        arrived: Arc<Notify>,
    ) -> KafkaResult<Self> {
        let partition = partition.cast_signed();
        let mut queue =
            consumer.split_partition_queue(topic, partition).ok_or(KafkaError::NoMessageReceived)?;
        queue.set_nonempty_callback(move || arrived.notify_waiters());
        let consumer = consumer.clone();
        let topic = topic.to_owned();
        let (pending, ended, failed) = (None, false, false);
        let cursor = Self { topic, partition, consumer, timeout, queue, position, pending, ended, failed };
        cursor.consumer.incremental_assign(&cursor.place(position)?)?;
        Ok(cursor)
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Says whether the cursor must not be used again.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    fn place(&self, position: u64) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(1);
        let offset = Offset::Offset(position.cast_signed());
        list.add_partition_offset(&self.topic, self.partition, offset)?;
        Ok(list)
    }

    /// Moves to `position`. After an error the cursor must not be used again.
    pub(super) fn seek(&mut self, position: u64) -> KafkaResult<()> {
        let sought = self.consumer.seek_partitions(self.place(position)?, self.timeout)?;
        for element in sought.elements() {
            element.error()?;
        }
        self.position = position;
        self.pending = None;
        self.ended = false;
        Ok(())
    }

    /// Takes what there is in `[position, …)`, waiting for the first record; `end` was asked for
    /// before the call and is above the position. After an error the cursor must not be used again.
    pub(super) fn read(&mut self, end: u64, take: &mut Take) -> KafkaResult<Reached> {
        let deadline = Instant::now() + self.timeout;
        let mut sure = false;
        loop {
            let wait = match (take.is_empty(), sure) {
                (false, _) => Duration::ZERO,
                (true, false) if self.ended => Duration::ZERO,
                (true, false) => SURE_AFTER,
                (true, true) => deadline.saturating_duration_since(Instant::now()),
            };
            match self.next(wait) {
                Ok(Some(record)) if take.fits(record.bytes()) => {
                    self.position = record.offset + 1;
                    take.push(record);
                }
                Ok(Some(record)) => {
                    self.pending = Some(record);
                    return Ok(Reached::Records);
                }
                Ok(None) | Err(KafkaError::PartitionEOF(_)) if !take.is_empty() => {
                    return Ok(Reached::Records);
                }
                Ok(None) | Err(KafkaError::PartitionEOF(_)) if !sure => {
                    self.seek(self.position)?;
                    sure = true;
                }
                Err(KafkaError::PartitionEOF(_)) => {
                    // The fetcher is at the end already and goes on from there.
                    self.position = end;
                    return Ok(Reached::End);
                }
                Ok(None) => return Err(KafkaError::NoMessageReceived),
                // What was taken is good; the next cursor at this place meets the error again.
                Err(_) if !take.is_empty() => {
                    self.failed = true;
                    return Ok(Reached::Records);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks whether a record has arrived and gives its offset, without taking it. When there is
    /// none, the next arrival is told.
    pub(super) fn arrived(&mut self) -> KafkaResult<Option<u64>> {
        loop {
            match self.next(Duration::ZERO) {
                Ok(Some(record)) => return Ok(Some(self.pending.insert(record).offset)),
                Ok(None) => return Ok(None),
                Err(KafkaError::PartitionEOF(_)) => self.ended = true,
                Err(error) => return Err(error),
            }
        }
    }

    fn next(&mut self, wait: Duration) -> KafkaResult<Option<Record>> {
        if let Some(record) = self.pending.take() {
            return Ok(Some(record));
        }
        loop {
            match self.queue.poll(wait) {
                None => return Ok(None),
                Some(Err(error)) => return Err(error),
                Some(Ok(message)) => {
                    let record = record(&message);
                    // A fetch may begin below the offset asked for.
                    if record.offset >= self.position {
                        self.ended = false;
                        return Ok(Some(record));
                    }
                }
            }
        }
    }

    /// Gives the partition up; nothing is fetched any more.
    pub(super) fn stop(&self) {
        let stopped = self.place(self.position).and_then(|place| self.consumer.incremental_unassign(&place));
        if let Err(error) = stopped {
            tracing::debug!(topic = self.topic, partition = self.partition, %error, "unassign");
        }
        // What was fetched must not be met by the next cursor of this partition.
        while self.queue.poll(Duration::ZERO).is_some() {}
    }
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let append_time_us = match message.timestamp() {
        Timestamp::LogAppendTime(ms) | Timestamp::CreateTime(ms) => ms.saturating_mul(1000),
        Timestamp::NotAvailable => 0,
    };
    Record {
        offset: message.offset().cast_unsigned(),
        append_time_us,
        key: message.key().map(Bytes::copy_from_slice),
        // A tombstone has no payload; to a log that isn't compacted it is an empty one.
        payload: message.payload().map(Bytes::copy_from_slice).unwrap_or_default(),
    }
}
