//! What a drill records: every operation of every client, and when which fault was there. Plain data.
//!
//! All times are microseconds since the load began.

use std::collections::BTreeSet;

use serde::Serialize;

/// One meter; readings are written and asked for by it.
pub type Key = u32;

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Write one reading: number `sequence` of its key. Asking again writes nothing twice.
    Write {
        /// The meter.
        key: Key,
        /// Counts the key's readings from 0.
        sequence: u32,
    },
    /// Read the key's count in the session of this client, which includes the write that was just
    /// acknowledged. Due when that write was due, so that it times ingestion to visibility.
    Visible {
        /// The meter.
        key: Key,
    },
    /// Read the key's count and sum.
    Point {
        /// The meter.
        key: Key,
    },
    /// Read all of the key's readings.
    Range {
        /// The meter.
        key: Key,
    },
    /// Read the count of all readings of all keys.
    Total,
}

/// Requests that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Answers to questions.
    Read,
    /// Acknowledgements of readings.
    Write,
    /// From a reading's due time to an answer that has it.
    Visible,
}

impl Class {
    /// All classes, in the order of reports.
    pub const ALL: [Class; 3] = [Class::Read, Class::Write, Class::Visible];

    /// Returns the name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Class::Read => "read",
            Class::Write => "write",
            Class::Visible => "visible",
        }
    }
}

impl Request {
    /// Returns the class that it is measured in.
    pub fn class(self) -> Class {
        match self {
            Request::Write { .. } => Class::Write,
            Request::Visible { .. } => Class::Visible,
            Request::Point { .. } | Request::Range { .. } | Request::Total => Class::Read,
        }
    }

    /// Returns its key; none when it is about all of them.
    pub fn key(self) -> Option<Key> {
        match self {
            Request::Write { key, .. }
            | Request::Visible { key }
            | Request::Point { key }
            | Request::Range { key } => Some(key),
            Request::Total => None,
        }
    }
}

/// One try of an operation at one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// The node that was asked, from 0; none where the client's library found one by itself.
    pub node: Option<usize>,
    /// When it was sent.
    pub began_us: u64,
    /// When the answer came, or the client stopped waiting for it.
    pub ended_us: u64,
    /// Why it is no good answer; none for a good one, which is always an operation's last attempt.
    pub error: Option<String>,
}

/// What a good answer to a question said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The number of readings in it.
    pub readings: u64,
    /// How old it says that it may be at most, if it says so.
    pub staleness_ms_max: Option<u64>,
}

/// A request with all that was done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// The client, from 0. A client is a session.
    pub client: usize,
    /// What it wanted.
    pub request: Request,
    /// When it was due, whatever became of requests before it.
    pub due_us: u64,
    /// When the instrument got round to it, before it waited for anything.
    pub taken_up_us: u64,
    /// What was tried, in order. Never empty.
    pub attempts: Vec<Attempt>,
    /// What the good answer said; none for writes, and where there was none.
    pub seen: Option<Seen>,
}

impl Operation {
    /// Returns the attempt that was answered well; none when the client gave up.
    pub fn good(&self) -> Option<&Attempt> {
        self.attempts.last().filter(|attempt| attempt.error.is_none())
    }

    /// Returns when the client stopped caring: at the good answer, or when it gave up.
    pub fn ended_us(&self) -> u64 {
        self.attempts.last().map_or(self.due_us, |attempt| attempt.ended_us)
    }
}

/// A time in which something was wrong with some nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// What was done, to whom: `kill: node 1`.
    pub what: String,
    /// To which nodes, from 0.
    pub nodes: BTreeSet<usize>,
    /// When it began.
    pub from_us: u64,
    /// When the nodes were well again.
    pub to_us: u64,
}

/// A whole drill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct History {
    /// All operations, in no order.
    pub operations: Vec<Operation>,
    /// What was wrong when.
    pub marks: Vec<Mark>,
    /// When the last operation had ended.
    pub ended_us: u64,
}

impl History {
    /// Returns the first and last moment at which something was wrong; none when nothing ever was.
    pub fn fault_us(&self) -> Option<(u64, u64)> {
        let from = self.marks.iter().map(|mark| mark.from_us).min()?;
        let to = self.marks.iter().map(|mark| mark.to_us).max()?;
        Some((from, to))
    }
}
