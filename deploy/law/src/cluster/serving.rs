//! The serving layer on one node: an answer of several view partitions for a caller with a session,
//! as `serving-layer/src/fetch.rs` makes it.

use std::rc::Rc;

use sanso_core::{PartitionId, ReadReply, ReadRequest};
use sanso_state::Offset;

use super::process::{Process, Wish};

const POLL_US: u64 = 5_000;

/// What a caller wants.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) reader: usize,
    pub(super) attempt: u64,
    pub(super) reads: Vec<(PartitionId, ReadRequest)>,
    /// What the caller has seen, if it says so.
    pub(super) seen: Option<Vec<Offset>>,
    /// How long the answer may take.
    pub(super) within_us: u64,
}

/// Answers a request.
pub(super) async fn serve(process: Rc<Process>, request: Request) {
    let until_us = process.now_us() + request.within_us;
    let (reader, attempt) = (request.reader, request.attempt);
    let answer = process.by(fetch(&process, &request), until_us).await.flatten();
    process.wish(Wish::Respond(reader, attempt, answer));
}

async fn fetch(process: &Process, request: &Request) -> Option<Vec<ReadReply>> {
    let is_scan = |(_, read): &(PartitionId, ReadRequest)| matches!(read, ReadRequest::Scan { .. });
    let mut wait_first = request.seen.is_some() && request.reads.iter().any(is_scan);
    let seen = request.seen.as_deref().unwrap_or_default();
    loop {
        if wait_first {
            wait(process, request, seen).await?;
        }
        let reads: Vec<_> =
            request.reads.iter().map(|(id, read)| process.read(*id, read.clone(), seen)).collect();
        let replies: Vec<ReadReply> = all(reads).await.into_iter().collect::<Option<_>>()?;
        // Another replica may have answered than the one that was waited for.
        if replies.iter().all(|reply| reply.progress.covers(seen)) {
            return Some(replies);
        }
        wait_first = true;
    }
}

/// Waits until every view partition has what the caller has seen; not where it would be in vain.
async fn wait(process: &Process, request: &Request, seen: &[Offset]) -> Option<()> {
    loop {
        let reads: Vec<_> =
            request.reads.iter().map(|(id, _)| process.read(*id, ReadRequest::Progress, seen)).collect();
        let replies = all(reads).await;
        if replies.iter().flatten().all(|reply| reply.progress.covers(seen)) {
            return Some(());
        }
        if !process.is_in_touch() {
            return None;
        }
        process.sleep(POLL_US).await;
    }
}

/// Waits for all of several, at the same time; none for one that failed.
async fn all<T, E>(reads: Vec<impl Future<Output = Result<T, E>>>) -> Vec<Option<T>> {
    let mut reads: Vec<_> = reads.into_iter().map(|read| (Box::pin(read), None)).collect();
    std::future::poll_fn(|context| {
        for (read, found) in reads.iter_mut().filter(|(_, found)| found.is_none()) {
            if let std::task::Poll::Ready(answer) = read.as_mut().poll(context) {
                *found = Some(answer.ok());
            }
        }
        if reads.iter().any(|(_, found)| found.is_none()) {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(())
    })
    .await;
    reads.into_iter().filter_map(|(_, found)| found).collect()
}
