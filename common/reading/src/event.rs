//! What reading a file tells: readings, refused records, and how it ended.

use std::fmt;
use std::io;
use std::ops::ControlFlow;

use serde::Serialize;

use crate::reading::Reading;

/// The longest piece of a record that a refusal quotes, in bytes.
pub const QUOTE_MAX: usize = 240;

/// A meter format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// AEMO NEM12 or NEM13.
    Nem,
    /// Green Button, NAESB ESPI.
    Espi,
    /// EDIFACT MSCONS.
    Mscons,
    /// CSV with a mapping.
    Csv,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nem => "NEM12/NEM13",
            Self::Espi => "Green Button ESPI",
            Self::Mscons => "MSCONS",
            Self::Csv => "CSV",
        })
    }
}

/// A place in a file, after decompression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A line, counted from 1.
    Line(u64),
    /// An EDIFACT segment, counted from 1.
    Segment(u64),
    /// A byte, counted from 0.
    Byte(u64),
    /// The file as a whole.
    File,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Segment(segment) => write!(f, "segment {segment}"),
            Self::Byte(byte) => write!(f, "byte {byte}"),
            Self::File => f.write_str("whole file"),
        }
    }
}

/// A record of a sound file that could not be used, for the quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The file's name.
    pub file: String,
    /// Where the record begins.
    pub place: Place,
    /// The record's text, cut to [`QUOTE_MAX`] bytes.
    pub record: String,
    /// What is wrong with it.
    pub reason: String,
    /// What a person can do.
    pub remedy: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}; {}", self.file, self.place, self.reason, self.remedy)
    }
}

/// One thing found in a file. Borrowed: parsers reuse what they hand out.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A sound reading.
    Reading(&'a Reading),
    /// A record that was refused.
    Refused(&'a Refused),
}

/// How reading a file ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSummary {
    /// The file's name.
    pub file: String,
    /// The format found.
    pub format: Format,
    /// The name of the CSV mapping used.
    pub mapping: Option<String>,
    /// Readings handed out.
    pub readings: u64,
    /// Records refused.
    pub refused: u64,
    /// Records that hold no readings by design, such as NEM12's 500, and
    /// readings of channels that weren't asked for.
    pub ignored: u64,
    /// What is odd about the file as a whole, at most one line of each kind.
    pub warnings: Vec<String>,
}

/// Why a file gave no readings at all.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file can't be read.
    #[error("{file}: read the file")]
    Io {
        /// The file's name.
        file: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// No format matches the content.
    #[error("{file}: format not recognised: {found}; {remedy}")]
    UnknownFormat {
        /// The file's name.
        file: String,
        /// What the content looks like.
        found: String,
        /// What a person can do.
        remedy: String,
    },
    /// The file is cut, damaged or not what it claims to be. Nothing of it is trusted.
    #[error("{file}: {place}: {reason}; {remedy}")]
    Broken {
        /// The file's name.
        file: String,
        /// Where that shows.
        place: Place,
        /// What is wrong.
        reason: String,
        /// What a person can do.
        remedy: String,
    },
    /// The sink asked to stop.
    #[error("{file}: stopped by the receiver of the readings")]
    Stopped {
        /// The file's name.
        file: String,
    },
}

/// What a person can do about a damaged file.
pub(crate) const GET_AGAIN: &str = "nothing of it was taken; fetch the file again from its sender";

/// Where a parser puts what it finds.
pub(crate) struct Outlet<'s> {
    pub(crate) summary: FileSummary,
    channels: &'s [String],
    sink: &'s mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
}

impl<'s> Outlet<'s> {
    pub(crate) fn new(
        file: &str,
        format: Format,
        channels: &'s [String],
        sink: &'s mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Self {
        let summary = FileSummary {
            file: file.to_owned(),
            format,
            mapping: None,
            readings: 0,
            refused: 0,
            ignored: 0,
            warnings: Vec::new(),
        };
        Self { summary, channels, sink }
    }

    pub(crate) fn reading(&mut self, reading: &Reading) -> Result<(), FileError> {
        if !self.channels.is_empty() && !self.channels.contains(&reading.channel) {
            self.summary.ignored += 1;
            return Ok(());
        }
        self.summary.readings += 1;
        let flow = (self.sink)(Event::Reading(reading));
        self.go_on(flow)
    }

    pub(crate) fn refuse(
        &mut self,
        place: Place,
        record: &str,
        reason: String,
        remedy: &str,
    ) -> Result<(), FileError> {
        self.summary.refused += 1;
        let file = self.summary.file.clone();
        let refused =
            Refused { file, place, record: quote(record).to_owned(), reason, remedy: remedy.to_owned() };
        let flow = (self.sink)(Event::Refused(&refused));
        self.go_on(flow)
    }

    pub(crate) fn warn(&mut self, warning: String) {
        if !self.summary.warnings.contains(&warning) {
            self.summary.warnings.push(warning);
        }
    }

    /// Sums up a file that was read to its end.
    pub(crate) fn finish(mut self) -> FileSummary {
        if self.summary.readings == 0 && self.summary.refused == 0 {
            self.warn("the file holds no readings".into());
        }
        self.summary
    }

    fn go_on(&self, flow: ControlFlow<()>) -> Result<(), FileError> {
        match flow {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(FileError::Stopped { file: self.summary.file.clone() }),
        }
    }
}

/// Cuts a text to [`QUOTE_MAX`] bytes, at a character's edge.
pub(crate) fn quote(text: &str) -> &str {
    let mut end = text.len().min(QUOTE_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
