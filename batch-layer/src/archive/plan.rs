//! Which segments to archive next. Pure.

use sanso_state::{Cut, LogPartition, Offset, SegmentId, Segments};

/// The segments that the next version adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArchivePlan {
    /// The segments, in order of log partition and index; those of one log partition are contiguous
    /// and begin at its cut.
    pub(crate) segments: Vec<SegmentId>,
    /// The cut once they are archived.
    pub(crate) cut: Cut,
    /// Whether complete segments remain for the version after.
    pub(crate) backlog: bool,
}

/// Plans at most `max` complete segments from the cut on, one of each log partition in turn, so that
/// no log partition starves. `ends`: the log's end of each log partition.
///
/// A segment is complete when the log's end is at or beyond its end: offsets without a record count.
pub(crate) fn plan(cut: &Cut, ends: &[Offset], segments: Segments, max: usize) -> ArchivePlan {
    let mut next = cut.offsets().to_vec();
    let mut planned = Vec::new();
    let complete = |from: Offset, end: Offset| from + segments.size() <= end;
    loop {
        let before = planned.len();
        for (partition, (from, &end)) in next.iter_mut().zip(ends).enumerate() {
            if planned.len() < max && complete(*from, end) {
                let partition = LogPartition(partition as u32);
                planned.push(SegmentId { partition, index: segments.index_of(*from) });
                *from += segments.size();
            }
        }
        if planned.len() == before {
            break;
        }
    }
    planned.sort_unstable();
    let backlog = next.iter().zip(ends).any(|(&from, &end)| complete(from, end));
    let next = Cut::new(next);
    assert!(cut.may_be_followed_by(&next, segments), "a cut grows by whole segments");
    ArchivePlan { segments: planned, cut: next, backlog }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(cut: &[u64], ends: &[u64], max: usize) -> (Vec<(u32, u64)>, Vec<u64>, bool) {
        let plan = plan(&Cut::new(cut.to_vec()), ends, Segments::new(4), max);
        let segments = plan.segments.iter().map(|s| (s.partition.0, s.index)).collect();
        (segments, plan.cut.offsets().to_vec(), plan.backlog)
    }

    #[test]
    fn only_complete_segments_are_archived() {
        assert_eq!(planned(&[0, 0], &[3, 4], 9), (vec![(1, 0)], vec![0, 4], false));
        assert_eq!(planned(&[4, 4], &[7, 4], 9), (vec![], vec![4, 4], false));
        assert_eq!(planned(&[4], &[12], 9), (vec![(0, 1), (0, 2)], vec![12], false));
    }

    #[test]
    fn a_backlog_is_taken_in_turn_and_in_bounded_steps() {
        let expected = (vec![(0, 0), (0, 1), (1, 2)], vec![8, 12], true);
        assert_eq!(planned(&[0, 8], &[400, 12], 3), expected);
        assert!(!planned(&[0, 0], &[8, 8], 4).2);
        assert!(planned(&[0, 0], &[8, 8], 3).2);
    }

    #[test]
    fn a_log_that_ends_below_the_cut_adds_nothing() {
        assert_eq!(planned(&[8], &[2], 9), (vec![], vec![8], false));
    }
}
