//! Read requests and replies: plain data, so that they can cross a network.

use sanso_state::{Cut, GroupId, GroupState, Offset, Part, Reading, RunError, ViewPartition};

/// What to read from one view partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadRequest {
    /// The groups of some keys with `from <= window start < to` (microseconds).
    Keys {
        /// Encoded grouping keys.
        keys: Vec<Box<[u8]>>,
        /// The first window start.
        from: i64,
        /// The first window start no longer wanted.
        to: i64,
    },
    /// All groups with `from <= window start < to`.
    Scan {
        /// The first window start.
        from: i64,
        /// The first window start no longer wanted.
        to: i64,
    },
    /// No groups, only the progress.
    Progress,
}

/// How far one view partition has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The batch version it stands on.
    pub version: u64,
    /// That version's cut.
    pub cut: Cut,
    /// Offsets applied, one for each log partition.
    pub applied: Vec<Offset>,
    /// The watermark in microseconds.
    pub watermark_us: Option<i64>,
    /// Groups in the batch base; one that is in several runs counts in each.
    pub base_groups: usize,
    /// Groups in the speed state.
    pub speed_groups: usize,
    /// Groups changed after their window had closed.
    pub late_groups: u64,
}

impl Progress {
    /// Says whether these offsets are applied; of those that are not named, nothing is asked.
    pub fn covers(&self, seen: &[Offset]) -> bool {
        seen.iter().zip(&self.applied).all(|(seen, applied)| applied >= seen)
    }

    pub(crate) fn of(partition: &ViewPartition) -> Self {
        let (base_groups, speed_groups) = partition.group_counts();
        Self {
            version: partition.version(),
            cut: partition.cut().clone(),
            applied: partition.applied().to_vec(),
            watermark_us: partition.watermark_us(),
            base_groups: base_groups + partition.run_groups() as usize,
            speed_groups,
            late_groups: partition.late_groups(),
        }
    }
}

/// The groups asked for, in order of key and window, and the progress they stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadReply {
    /// The combined states of groups that have rows.
    pub groups: Vec<(GroupId, GroupState)>,
    /// How far the view partition had come, at the same instant.
    pub progress: Progress,
}

/// A read that was begun: what is in memory was found at one instant, and the rest never changes.
#[derive(Debug)]
pub struct Begun<'a> {
    readings: Vec<Reading<'a>>,
    progress: Progress,
}

impl<'a> Begun<'a> {
    pub(crate) fn of(partition: &ViewPartition, request: &'a ReadRequest) -> Self {
        let readings = match request {
            ReadRequest::Keys { keys, from, to } => {
                keys.iter().map(|key| partition.reading(Part::of(Some(key), *from, *to))).collect()
            }
            ReadRequest::Scan { from, to } => vec![partition.reading(Part::of(None, *from, *to))],
            ReadRequest::Progress => Vec::new(),
        };
        Self { readings, progress: Progress::of(partition) }
    }

    /// Says whether groups are to be read from disk.
    pub fn takes_long(&self) -> bool {
        self.readings.iter().any(Reading::takes_long)
    }

    /// Reads what is not in memory; an error is of the disk.
    pub fn finish(self) -> Result<ReadReply, RunError> {
        let mut groups = Vec::new();
        for reading in self.readings {
            groups.append(&mut reading.finish()?);
        }
        Ok(ReadReply { groups, progress: self.progress })
    }
}
