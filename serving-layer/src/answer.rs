//! Merges the replies of view partitions and says how fresh and complete they are; pure.

use std::collections::BTreeMap;

use sanso_core::ReadReply;
use sanso_state::{GroupId, GroupState, Offset};
use serde::Serialize;

use crate::json::time_text;
use crate::session::Session;

/// What one view (or one table of the master dataset) contributed to an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The view or table.
    pub name: String,
    /// `view` or `dataset`.
    pub kind: &'static str,
    /// The view's version; empty for a table of the dataset.
    pub version: String,
    /// The source.
    pub source: String,
    /// The least batch version among the partitions that answered.
    pub batch_version: u64,
    /// The least cut, for each log partition.
    pub cut: Vec<Offset>,
    /// What every partition that answered has applied, for each log partition.
    pub applied: Vec<Offset>,
    /// What the furthest partition has applied, for each log partition.
    pub applied_most: Vec<Offset>,
    /// The least watermark, in microseconds.
    pub watermark_us: Option<i64>,
    /// Partitions that answered.
    pub answered: usize,
    /// Partitions that were asked.
    pub total: usize,
}

impl Evidence {
    /// Sums up the replies of a view's partitions; absent ones did not answer.
    pub fn of_view(name: &str, version: String, source: &str, replies: &[Option<ReadReply>]) -> Self {
        let answered: Vec<_> = replies.iter().flatten().map(|reply| &reply.progress).collect();
        let least = |vectors: Vec<&[Offset]>| fold(&vectors, Ord::min);
        Self {
            name: name.to_owned(),
            kind: "view",
            version,
            source: source.to_owned(),
            batch_version: answered.iter().map(|p| p.version).min().unwrap_or(0),
            cut: least(answered.iter().map(|p| p.cut.offsets()).collect()),
            applied: least(answered.iter().map(|p| p.applied.as_slice()).collect()),
            applied_most: fold(&answered.iter().map(|p| p.applied.as_slice()).collect::<Vec<_>>(), Ord::max),
            watermark_us: answered.iter().map(|p| p.watermark_us).min().flatten(),
            answered: answered.len(),
            total: replies.len(),
        }
    }
}

fn fold(vectors: &[&[Offset]], choose: fn(Offset, Offset) -> Offset) -> Vec<Offset> {
    let Some((first, rest)) = vectors.split_first() else { return Vec::new() };
    rest.iter().fold(first.to_vec(), |mut out, next| {
        out.iter_mut().zip(*next).for_each(|(mine, &theirs)| *mine = choose(*mine, theirs));
        out
    })
}

/// Merges the groups of all replies into order of key and window. Partitions
/// hold disjoint keys, so nothing is combined here.
pub fn merge(mut replies: Vec<Option<ReadReply>>) -> Vec<(GroupId, GroupState)> {
    if let [reply] = &mut replies[..] {
        // Those of one partition are in order.
        return reply.take().map(|reply| reply.groups).unwrap_or_default();
    }
    let mut groups: Vec<_> = replies.into_iter().flatten().flat_map(|reply| reply.groups).collect();
    groups.sort_by(|a, b| a.0.cmp(&b.0));
    groups
}

/// What is known of the end of a source's log when an answer is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogEnd {
    /// The newest end seen, for each log partition.
    pub offsets: Vec<Offset>,
    /// At most so long ago, in milliseconds, everything in the log was in the answer.
    pub staleness_ms_max: Option<u64>,
}

/// One view's part of [`Freshness`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ViewFreshness {
    view: String,
    kind: &'static str,
    version: String,
    source: String,
    batch_version: u64,
    cut: Vec<Offset>,
    applied: Vec<Offset>,
    lag_records: u64,
    watermark: Option<String>,
    partitions_answered: usize,
    partitions_total: usize,
}

/// How fresh an answer is: the least over everything that contributed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Freshness {
    /// The least batch version used.
    pub batch_version: u64,
    /// The least cut used, by source.
    pub cut: BTreeMap<String, Vec<Offset>>,
    /// What is certainly in the answer, by source: all offsets below these.
    pub applied: BTreeMap<String, Vec<Offset>>,
    /// The end of the log when last seen, by source.
    pub log_end: BTreeMap<String, Vec<Offset>>,
    /// Records in the log that are not in the answer yet.
    pub lag_records: u64,
    /// Whether such records may still correct the answer.
    pub corrections_pending: bool,
    /// The least watermark.
    pub watermark: Option<String>,
    /// At most so old, in milliseconds; null when not known.
    pub staleness_ms_max: Option<u64>,
    /// Partitions that answered.
    pub partitions_answered: usize,
    /// Partitions that were asked.
    pub partitions_total: usize,
    /// The session token: give it with the next request to never go back in time.
    pub session: String,
    /// The same for each view and table by itself.
    pub views: Vec<ViewFreshness>,
}

impl Freshness {
    /// Sums up. `before` is the session that the caller came with.
    pub fn of(evidence: &[Evidence], ends: &BTreeMap<String, LogEnd>, before: &Session) -> Self {
        let mut session = before.clone();
        let mut cut = BTreeMap::new();
        let mut applied = BTreeMap::new();
        for part in evidence {
            if part.kind == "view" {
                session.see(&part.source, &part.applied_most);
            }
            least_into(&mut cut, &part.source, &part.cut);
            least_into(&mut applied, &part.source, &part.applied);
        }
        let lag = |source: &str, applied: &[Offset]| lag_records(ends.get(source), applied);
        let lag_records = applied.iter().map(|(source, applied)| lag(source, applied)).sum();
        let staleness = |source: &String| ends.get(source).and_then(|end| end.staleness_ms_max);
        let staleness_ms_max = applied.keys().map(staleness).collect::<Option<Vec<_>>>();
        Self {
            batch_version: evidence.iter().map(|part| part.batch_version).min().unwrap_or(0),
            log_end: applied
                .keys()
                .filter_map(|source| Some((source.clone(), ends.get(source)?.offsets.clone())))
                .collect(),
            lag_records,
            corrections_pending: lag_records > 0,
            watermark: evidence.iter().map(|part| part.watermark_us).min().flatten().and_then(time_text),
            staleness_ms_max: staleness_ms_max.and_then(|ages| ages.into_iter().max()),
            partitions_answered: evidence.iter().map(|part| part.answered).sum(),
            partitions_total: evidence.iter().map(|part| part.total).sum(),
            session: session.token(),
            views: evidence
                .iter()
                .map(|part| view_freshness(part, lag(&part.source, &part.applied)))
                .collect(),
            cut,
            applied,
        }
    }

    /// Says whether every partition answered.
    pub fn is_complete(&self) -> bool {
        self.partitions_answered == self.partitions_total
    }
}

fn view_freshness(part: &Evidence, lag_records: u64) -> ViewFreshness {
    ViewFreshness {
        view: part.name.clone(),
        kind: part.kind,
        version: part.version.clone(),
        source: part.source.clone(),
        batch_version: part.batch_version,
        cut: part.cut.clone(),
        applied: part.applied.clone(),
        lag_records,
        watermark: part.watermark_us.and_then(time_text),
        partitions_answered: part.answered,
        partitions_total: part.total,
    }
}

fn least_into(all: &mut BTreeMap<String, Vec<Offset>>, source: &str, offsets: &[Offset]) {
    let least = all.entry(source.to_owned()).or_insert_with(|| offsets.to_vec());
    least.iter_mut().zip(offsets).for_each(|(mine, &theirs)| *mine = (*mine).min(theirs));
}

fn lag_records(end: Option<&LogEnd>, applied: &[Offset]) -> u64 {
    let ends = end.map(|end| end.offsets.as_slice()).unwrap_or_default();
    ends.iter().zip(applied).map(|(end, applied)| end.saturating_sub(*applied)).sum()
}

#[cfg(test)]
mod tests {
    use sanso_core::Progress;
    use sanso_state::Cut;

    use super::*;

    fn reply(
        version: u64,
        cut: &[Offset],
        applied: &[Offset],
        watermark_us: Option<i64>,
    ) -> Option<ReadReply> {
        let progress = Progress {
            version,
            cut: Cut::new(cut.to_vec()),
            applied: applied.to_vec(),
            watermark_us,
            base_groups: 0,
            speed_groups: 0,
            late_groups: 0,
        };
        Some(ReadReply { groups: Vec::new(), progress })
    }

    fn freshness(replies: &[Option<ReadReply>], ends: &[Offset]) -> Freshness {
        let evidence = Evidence::of_view("v", "f".to_owned(), "s", replies);
        let end = LogEnd { offsets: ends.to_vec(), staleness_ms_max: Some(3) };
        Freshness::of(&[evidence], &BTreeMap::from([("s".to_owned(), end)]), &Session::default())
    }

    #[test]
    fn an_answer_is_as_fresh_as_its_least_fresh_partition() {
        let replies = [reply(3, &[4, 8], &[9, 8], Some(5)), reply(2, &[4, 4], &[7, 12], Some(4))];
        let fresh = freshness(&replies, &[10, 12]);
        assert_eq!(fresh.batch_version, 2);
        assert_eq!(fresh.cut["s"], [4, 4]);
        assert_eq!(fresh.applied["s"], [7, 8]);
        assert_eq!(fresh.lag_records, 3 + 4);
        assert!(fresh.corrections_pending);
        assert_eq!(fresh.watermark.as_deref(), Some("1970-01-01T00:00:00.000004Z"));
        assert!(fresh.is_complete());
    }

    #[test]
    fn the_session_is_as_far_as_the_furthest_partition() {
        let fresh =
            freshness(&[reply(1, &[0, 0], &[9, 8], None), reply(1, &[0, 0], &[7, 12], None)], &[9, 12]);
        let session = Session::parse(&fresh.session).expect("own token");
        assert_eq!(session.seen("s"), Some(&[9, 12][..]));
    }

    #[test]
    fn a_partition_that_did_not_answer_makes_the_answer_incomplete() {
        let fresh = freshness(&[reply(1, &[0], &[9], Some(1)), None], &[9]);
        assert!(!fresh.is_complete());
        assert_eq!((fresh.partitions_answered, fresh.partitions_total), (1, 2));
        assert!(!fresh.corrections_pending);
        assert!(!freshness(&[None], &[9]).is_complete());
    }
}
