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

/// What a cursor takes records from, in order.
pub(super) trait Fetch {
    /// Returns what comes next, none when nothing comes in time; a record may lie below the place
    /// that was moved to.
    fn next(&mut self, wait: Duration) -> KafkaResult<Option<Record>>;

    /// Moves to a place; nothing of the old one comes after.
    fn seek(&mut self, position: u64) -> KafkaResult<()>;
}

/// Fetches ahead from one place of one partition.
pub(super) struct Fetcher {
    topic: String,
    partition: i32,
    consumer: Arc<BaseConsumer<Context>>,
    /// Longest that a move waits for the broker.
    timeout: Duration,
    queue: Queue,
}

impl Fetcher {
    /// Starts to fetch from `position`; `arrived` is told when something comes to an empty queue.
    fn start(
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
        let fetcher =
            Self { topic: topic.to_owned(), partition, consumer: Arc::clone(consumer), timeout, queue };
        fetcher.consumer.incremental_assign(&fetcher.place(position)?)?;
        Ok(fetcher)
    }

    fn place(&self, position: u64) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(1);
        let offset = Offset::Offset(position.cast_signed());
        list.add_partition_offset(&self.topic, self.partition, offset)?;
        Ok(list)
    }
}

impl Fetch for Fetcher {
    fn next(&mut self, wait: Duration) -> KafkaResult<Option<Record>> {
        self.queue.poll(wait).transpose().map(|message| message.as_ref().map(record))
    }

    fn seek(&mut self, position: u64) -> KafkaResult<()> {
        let sought = self.consumer.seek_partitions(self.place(position)?, self.timeout)?;
        sought.elements().iter().try_for_each(|element| element.error())
    }
}

/// A place, and what was fetched from it.
pub(super) struct Cursor<F = Fetcher> {
    fetcher: F,
    /// Longest that a read waits for the broker.
    timeout: Duration,
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
#[derive(Debug, PartialEq, Eq)]
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
        place: (&str, u32),
        position: u64,
        timeout: Duration,
        arrived: Arc<Notify>,
    ) -> KafkaResult<Self> {
        Ok(Self::new(Fetcher::start(consumer, place, position, timeout, arrived)?, position, timeout))
    }

    /// Gives the partition up; nothing is fetched any more.
    pub(super) fn stop(&self) {
        let Fetcher { topic, partition, consumer, queue, .. } = &self.fetcher;
        let stopped =
            self.fetcher.place(self.position).and_then(|place| consumer.incremental_unassign(&place));
        if let Err(error) = stopped {
            tracing::debug!(topic, partition, %error, "unassign");
        }
        // What was fetched must not be met by the next cursor of this partition.
        while queue.poll(Duration::ZERO).is_some() {}
    }
}

impl<F: Fetch> Cursor<F> {
    fn new(fetcher: F, position: u64, timeout: Duration) -> Self {
        Self { fetcher, timeout, position, pending: None, ended: false, failed: false }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Says whether the cursor must not be used again.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Moves to `position`. After an error the cursor must not be used again.
    pub(super) fn seek(&mut self, position: u64) -> KafkaResult<()> {
        self.fetcher.seek(position)?;
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
                // The fetcher was at the end between two records: more may follow in the queue.
                Err(KafkaError::PartitionEOF(_)) if !take.is_empty() => self.ended = true,
                Ok(None) if !take.is_empty() => return Ok(Reached::Records),
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
        while let Some(record) = self.fetcher.next(wait)? {
            // A fetch may begin below the offset asked for.
            if record.offset >= self.position {
                self.ended = false;
                return Ok(Some(record));
            }
        }
        Ok(None)
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::take::Limit;

    /// Gives what it was told to; each move says that the end was reached.
    struct Script {
        events: VecDeque<KafkaResult<Option<Record>>>,
        sought: Vec<u64>,
    }

    impl Fetch for Script {
        fn next(&mut self, _wait: Duration) -> KafkaResult<Option<Record>> {
            self.events.pop_front().unwrap_or(Ok(None))
        }

        fn seek(&mut self, position: u64) -> KafkaResult<()> {
            self.sought.push(position);
            self.events = VecDeque::from([end()]);
            Ok(())
        }
    }

    fn end() -> KafkaResult<Option<Record>> {
        Err(KafkaError::PartitionEOF(0))
    }

    fn at(offset: u64) -> KafkaResult<Option<Record>> {
        Ok(Some(Record { offset, append_time_us: 0, key: None, payload: Bytes::from_static(b"x") }))
    }

    fn read(
        events: impl IntoIterator<Item = KafkaResult<Option<Record>>>,
        records_max: usize,
    ) -> (KafkaResult<Reached>, Vec<u64>, Cursor<Script>) {
        let script = Script { events: events.into_iter().collect(), sought: Vec::new() };
        let mut cursor = Cursor::new(script, 3, Duration::ZERO);
        let mut take = Take::new(3, Limit { records_max, bytes_max: usize::MAX });
        let reached = cursor.read(9, &mut take);
        (reached, take.batch(9).records.iter().map(|record| record.offset).collect(), cursor)
    }

    #[test]
    fn records_that_came_one_by_one_are_read_together() {
        let (reached, offsets, cursor) = read([at(3), end(), at(4), end(), end(), at(5), end()], 100);
        assert_eq!((reached, offsets), (Ok(Reached::Records), vec![3, 4, 5]));
        assert_eq!((cursor.position(), cursor.fetcher.sought.len()), (6, 0));
    }

    #[test]
    fn what_does_not_fit_is_given_next() {
        let (reached, offsets, mut cursor) = read([at(3), end(), at(4), at(5)], 1);
        assert_eq!((reached, offsets, cursor.position()), (Ok(Reached::Records), vec![3], 4));
        let mut take = Take::new(4, Limit { records_max: 9, bytes_max: usize::MAX });
        assert_eq!(cursor.read(9, &mut take), Ok(Reached::Records));
        assert_eq!(take.batch(9).records.iter().map(|record| record.offset).collect::<Vec<_>>(), [4, 5]);
    }

    #[test]
    fn an_end_counts_only_after_a_move() {
        let (reached, offsets, cursor) = read([end(), at(3)], 100);
        assert_eq!((reached, offsets), (Ok(Reached::End), vec![]));
        assert_eq!((cursor.fetcher.sought, cursor.position), (vec![3], 9));
    }

    #[test]
    fn what_lies_below_the_place_is_passed_over() {
        let (reached, offsets, _) = read([at(1), at(2), at(4)], 100);
        assert_eq!((reached, offsets), (Ok(Reached::Records), vec![4]));
    }

    #[test]
    fn after_an_error_the_cursor_is_given_up_with_what_it_had() {
        let broken = || Err(KafkaError::NoMessageReceived);
        let (reached, offsets, cursor) = read([at(3), broken(), at(5)], 100);
        assert_eq!((reached, offsets, cursor.has_failed()), (Ok(Reached::Records), vec![3], true));
        assert_eq!(read([broken()], 100).0, Err(KafkaError::NoMessageReceived));
    }
}
