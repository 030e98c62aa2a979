//! Performs a plan against the partition store, waiting for progress where the caller asks for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use futures::future::{join_all, try_join_all};
use sanso_core::{Progress, ReadReply, ReadRequest};
use sanso_state::Offset;
use sanso_view::View;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep_until};

use crate::answer::{Evidence, LogEnd};
use crate::looks::LOOK;
use crate::plan::PartitionRead;
use crate::problem::Problem;
use crate::service::Shared;
use crate::session::Session;

/// What the caller requires of every partition that answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Need {
    /// What the caller has seen.
    pub(crate) session: Session,
    /// The answer may be at most so old.
    pub(crate) staleness: Option<Duration>,
    /// Whether partitions may be missing from the answer.
    pub(crate) partial: bool,
    /// What a read waits for; shared by the clones, so that whoever ends the
    /// request at its deadline can say it.
    awaited: Arc<Mutex<Option<Problem>>>,
}

impl Need {
    pub(crate) fn new(session: Session, staleness: Option<Duration>, partial: bool) -> Self {
        Self { session, staleness, partial, awaited: Arc::default() }
    }

    /// Returns what a read is waiting for, if one is.
    pub(crate) fn awaited(&self) -> Option<Problem> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn awaits(&self, progress: Option<Problem>) {
        *self.awaited.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    fn is_met_at_once(&self, source: &str) -> bool {
        self.staleness.is_none() && self.session.seen(source).is_none()
    }
}

/// Reads all partitions of a plan; an absent reply is of a partition that is
/// not live, which happens only where `need.partial` allows it.
pub(crate) async fn fetch(
    shared: &Shared,
    view: &View,
    reads: &[PartitionRead],
    need: &Need,
    deadline: Instant,
) -> Result<Vec<Option<ReadReply>>, Problem> {
    let at_once = need.is_met_at_once(&view.source.name);
    check_session(view, &need.session)?;
    // Copying a whole partition only to find it behind would be a waste.
    let mut wait_first = !at_once && reads.iter().any(is_scan);
    loop {
        if wait_first {
            wait(shared, view, reads, need, deadline).await?;
        } else if need.staleness.is_some() {
            shared.look_at_end(&view.source).await?;
        }
        let replies = reads.iter().map(|read| read_one(shared, read, need.session.seen(&view.source.name)));
        let replies: Vec<Option<ReadReply>> = try_join_all(replies).await?;
        let missing = replies.iter().filter(|reply| reply.is_none()).count();
        if missing > 0 && !need.partial {
            return Err(not_live(view, missing, reads.len()));
        }
        if at_once {
            return Ok(replies);
        }
        // Another replica may have answered than the one that was waited for.
        let progress = replies.iter().flatten().map(|reply| &reply.progress);
        match unmet(shared, view, progress, need) {
            None => return Ok(replies),
            Some(unmet) if Instant::now() >= deadline => return Err(unmet),
            Some(_) => wait_first = true,
        }
    }
}

fn is_scan(read: &PartitionRead) -> bool {
    matches!(read.request, ReadRequest::Scan { .. })
}

/// About the memory of a group that is copied out of a view partition.
const GROUP_BYTES: usize = 128;

/// Estimates the memory of what the scans of a plan copy, in bytes. One with a
/// range of time copies a part that nobody knows beforehand: it counts as none.
pub(crate) async fn copied_bytes(shared: &Shared, reads: &[PartitionRead]) -> usize {
    let whole = |read: &&PartitionRead| match read.request {
        ReadRequest::Scan { from: i64::MIN, to: i64::MAX } => true,
        // A view without windows has all its groups at 0.
        ReadRequest::Scan { from: 0, to: 1 } => true,
        _ => false,
    };
    let store = &shared.context.store;
    let replies = reads.iter().filter(whole).map(|read| store.read(read.id, &ReadRequest::Progress));
    let replies = join_all(replies).await;
    let held = replies.iter().flatten().map(|reply| reply.progress.base_groups + reply.progress.speed_groups);
    let groups: usize = held.sum();
    groups.saturating_mul(GROUP_BYTES)
}

/// Waits for the turn of a plan that scans, of which only few run at once.
pub(crate) async fn turn<'a>(
    shared: &'a Shared,
    reads: &[PartitionRead],
) -> Result<Option<SemaphorePermit<'a>>, Problem> {
    if !reads.iter().any(is_scan) {
        return Ok(None);
    }
    shared.scans.acquire().await.map(Some).map_err(|_| Problem::busy("reads of whole views"))
}

/// Reads one partition; a scan, which copies all of it, away from the threads that answer requests.
async fn read_one(
    shared: &Shared,
    read: &PartitionRead,
    seen: Option<&[Offset]>,
) -> Result<Option<ReadReply>, Problem> {
    let seen = seen.unwrap_or_default();
    if !is_scan(read) {
        return Ok(shared.context.store.read_as_seen(read.id, &read.request, seen).await.ok());
    }
    let (store, read, seen) = (shared.context.store.clone(), read.clone(), seen.to_vec());
    let reading = async move { store.read_as_seen(read.id, &read.request, &seen).await.ok() };
    shared.query_threads.run(reading).await
}

/// Refuses a session that knows another number of log partitions than the source has.
fn check_session(view: &View, session: &Session) -> Result<(), Problem> {
    let source = &view.source;
    let Some(seen) = session.seen(&source.name).filter(|seen| seen.len() != source.partitions as usize)
    else {
        return Ok(());
    };
    Err(Problem::parameter(
        "session",
        format!(
            "the session token knows {} log partitions of {}, not {}",
            seen.len(),
            source.name,
            source.partitions
        ),
        "start a new session: leave the token out",
    ))
}

/// How long a node that does not hear from its cluster is waited for: after a moment in which the whole machine stood
/// still, it hears again at once.
const ALONE: Duration = Duration::from_millis(100);

/// Waits until every partition of the plan meets the need; not where it would be in vain.
async fn wait(
    shared: &Shared,
    view: &View,
    reads: &[PartitionRead],
    need: &Need,
    deadline: Instant,
) -> Result<(), Problem> {
    let store = &shared.context.store;
    let seen = need.session.seen(&view.source.name).unwrap_or_default();
    let mut alone_since = None;
    loop {
        if need.staleness.is_some() {
            shared.look_at_end(&view.source).await?;
        }
        let now = Instant::now();
        let found = join_all(reads.iter().map(|read| shared.looks.look(store, read.id, seen, now))).await;
        let unmet = unmet(shared, view, found.iter().flatten(), need);
        need.awaits(unmet.clone());
        let Some(unmet) = unmet else { return Ok(()) };
        let next = Instant::now() + LOOK;
        if next >= deadline {
            return Err(unmet);
        }
        if store.is_in_touch() {
            alone_since = None;
        } else if now >= *alone_since.get_or_insert(now) + ALONE {
            return Err(unmet.hint("ask another node: this one does not hear from its cluster"));
        }
        sleep_until(next).await;
    }
}

fn unmet<'a>(
    shared: &Shared,
    view: &View,
    progress: impl Iterator<Item = &'a Progress>,
    need: &Need,
) -> Option<Problem> {
    let source = view.source.name.as_str();
    for partition in progress {
        let applied = partition.applied.as_slice();
        if let Some(seen) = need.session.seen(source).filter(|seen| !partition.covers(seen)) {
            return Some(behind_session(view, seen, applied));
        }
        if let Some(allowed) = need.staleness {
            let age = shared.ends.age(source, applied);
            if age.is_none_or(|age| age > allowed) {
                return Some(too_stale(view, allowed, age));
            }
        }
    }
    None
}

fn not_live(view: &View, missing: usize, total: usize) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "partition-not-live", "Part of the view is not available")
        .detail(format!("{missing} of {total} partitions of view {} are not live", view.name))
        .hint("try again shortly, or accept an incomplete answer with partial=allow")
        .with("partitions_answered", total - missing)
        .with("partitions_total", total)
        .retry_after_s(1)
}

fn behind_session(view: &View, seen: &[Offset], applied: &[Offset]) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "behind-session",
        "The view has not come as far as this session",
    )
    .detail(format!("view {} did not reach the offsets of the session token within the deadline", view.name))
    .hint("try again, give a longer deadline=<milliseconds>, or leave the session token out")
    .with("seen", seen.to_vec())
    .with("applied", applied.to_vec())
    .retry_after_s(1)
}

fn too_stale(view: &View, allowed: Duration, age: Option<Duration>) -> Problem {
    let found = match age {
        Some(age) => format!("is up to {} ms old", age.as_millis()),
        None => "is older than can be told".to_owned(),
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-stale", "The view is older than allowed")
        .detail(format!("view {} {found}, and at most {} ms are allowed", view.name, allowed.as_millis()))
        .hint("try again, allow more staleness, or give a longer deadline=<milliseconds>")
        .retry_after_s(1)
}

/// Describes what a view contributed.
pub(crate) fn evidence(view: &View, replies: &[Option<ReadReply>]) -> Evidence {
    Evidence::of_view(&view.name, view.fingerprint.to_string(), &view.source.name, replies)
}

/// Returns what is known of the ends of the logs behind some evidence.
pub(crate) fn ends(shared: &Shared, evidence: &[Evidence]) -> BTreeMap<String, LogEnd> {
    let mut out: BTreeMap<String, LogEnd> = BTreeMap::new();
    for part in evidence {
        let age = shared.ends.age(&part.source, &part.applied).map(|age| age.as_millis() as u64);
        let entry = out.entry(part.source.clone()).or_insert_with(|| LogEnd {
            offsets: newest_end(shared, &part.source, part.applied.len()),
            staleness_ms_max: Some(0),
        });
        entry.staleness_ms_max = entry.staleness_ms_max.zip(age).map(|(a, b)| a.max(b));
    }
    out
}

/// The newest end known: what the speed layer posted or what was looked up here, whichever is larger.
fn newest_end(shared: &Shared, source: &str, partitions: usize) -> Vec<Offset> {
    let mut ends = shared.ends.newest(source).unwrap_or_default();
    ends.resize(partitions.max(ends.len()), 0);
    for (partition, posted) in shared.context.board.log_ends(source) {
        if let Some(end) = ends.get_mut(partition as usize) {
            *end = (*end).max(posted);
        }
    }
    ends
}

/// Finds the view that serves under a name.
pub(crate) fn serving(shared: &Shared, name: &str) -> Result<Arc<View>, Problem> {
    let catalog = shared.context.catalog.current();
    catalog.serving(name).cloned().ok_or_else(|| {
        Problem::unknown("view", name, catalog.serving_views().map(|view| view.name.clone()).collect())
    })
}
