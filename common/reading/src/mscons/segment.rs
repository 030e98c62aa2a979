//! EDIFACT segments: separators from `UNA`, release characters undone.

use std::io::BufRead;
use std::io::Read;

use crate::event::{FileError, Place};
use crate::input::{Input, RECORD_MAX};

/// The separators in force.
#[derive(Clone, Copy)]
struct Separators {
    component: u8,
    element: u8,
    release: u8,
    terminator: u8,
}

const DEFAULT: Separators = Separators { component: b':', element: b'+', release: b'?', terminator: b'\'' };

/// A pass over the segments of a file. `UNA` is taken in and not handed out.
pub(super) struct Segments<'i, 'a> {
    input: &'i Input<'a>,
    reader: Box<dyn BufRead + 'a>,
    separators: Separators,
    number: u64,
    buffer: Vec<u8>,
    /// Whether an interchange may begin here, and with it a `UNA`.
    is_start: bool,
}

/// One segment; its texts are unescaped.
#[derive(Default)]
pub(super) struct Segment {
    /// Counted from 1 over the whole file.
    pub(super) number: u64,
    raw: String,
    text: String,
    /// Start and end in `text` of each component.
    parts: Vec<(usize, usize)>,
    /// The first part of each element.
    elements: Vec<usize>,
}

impl Segment {
    /// Returns the three-letter name.
    pub(super) fn tag(&self) -> &str {
        self.get(0, 0)
    }

    /// Returns a component of an element, empty if it isn't there. Element 0 is the tag.
    pub(super) fn get(&self, element: usize, component: usize) -> &str {
        let next = self.elements.get(element + 1).copied().unwrap_or(self.parts.len());
        let part = self.elements.get(element).map(|first| first + component);
        part.filter(|part| *part < next).map_or("", |part| {
            let (start, end) = self.parts[part];
            &self.text[start..end]
        })
    }

    /// Returns the segment as it stands in the file, without its terminator.
    pub(super) fn raw(&self) -> &str {
        &self.raw
    }

    fn parse(&mut self, separators: Separators) {
        self.text.clear();
        self.parts.clear();
        self.elements.clear();
        self.elements.push(0);
        // What lies between two marks is copied at once. Marks are ASCII, so a byte that
        // looks like one is one, and what it divides is whole characters.
        let (mut start, mut copied, mut released) = (0, 0, None);
        for (at, &byte) in self.raw.as_bytes().iter().enumerate() {
            if released == Some(at) {
                continue;
            }
            let is_component = byte == separators.component;
            if !is_component && byte != separators.element && byte != separators.release {
                continue;
            }
            self.text.push_str(&self.raw[copied..at]);
            copied = at + 1;
            if byte == separators.release {
                released = Some(at + 1);
                continue;
            }
            self.parts.push((start, self.text.len()));
            start = self.text.len();
            if !is_component {
                self.elements.push(self.parts.len());
            }
        }
        self.text.push_str(&self.raw[copied..]);
        self.parts.push((start, self.text.len()));
    }
}

impl<'i, 'a> Segments<'i, 'a> {
    pub(super) fn new(input: &'i Input<'a>) -> Result<Self, FileError> {
        let reader = input.pass()?;
        Ok(Self { input, reader, separators: DEFAULT, number: 0, buffer: Vec::new(), is_start: true })
    }

    /// Reads the next segment; false at the end of the file.
    pub(super) fn next(&mut self, segment: &mut Segment) -> Result<bool, FileError> {
        self.buffer.clear();
        self.skip_blanks()?;
        if self.is_start {
            self.take_advice()?;
        }
        let terminator = self.separators.terminator;
        loop {
            let left = u64::try_from(RECORD_MAX.saturating_sub(self.buffer.len())).expect("a small number");
            let read = (&mut self.reader).take(left).read_until(terminator, &mut self.buffer);
            let read = read.map_err(|error| self.input.io(error))?;
            if read == 0 || self.buffer.last() != Some(&terminator) {
                return self.end();
            }
            self.buffer.pop();
            let releases =
                self.buffer.iter().rev().take_while(|byte| **byte == self.separators.release).count();
            if releases % 2 == 0 {
                break;
            }
            self.buffer.push(terminator);
        }
        self.number += 1;
        segment.number = self.number;
        segment.raw.clear();
        match std::str::from_utf8(&self.buffer) {
            Ok(text) => segment.raw.push_str(text),
            // UNOC is ISO 8859-1.
            Err(_) => segment.raw.extend(self.buffer.iter().map(|byte| char::from(*byte))),
        }
        segment.parse(self.separators);
        self.is_start = segment.tag() == "UNZ";
        Ok(true)
    }

    /// Reads the service string advice, `UNA`, that may precede an interchange;
    /// without one the default separators hold again.
    fn take_advice(&mut self) -> Result<(), FileError> {
        self.separators = DEFAULT;
        let read = (&mut self.reader).take(3).read_to_end(&mut self.buffer);
        read.map_err(|error| self.input.io(error))?;
        if self.buffer != b"UNA" {
            return Ok(());
        }
        self.buffer.clear();
        let place = Place::Segment(self.number + 1);
        let mut advice = [0; 6];
        let cut = |_| self.input.broken(place, "the file was cut within its UNA segment");
        self.reader.read_exact(&mut advice).map_err(cut)?;
        let [component, element, _, release, _, terminator] = advice;
        let distinct = [component, element, release, terminator];
        let clash = (1..4).any(|at| distinct[..at].contains(&distinct[at]));
        if clash || distinct.iter().any(|byte| !byte.is_ascii() || byte.is_ascii_alphanumeric()) {
            return Err(self.input.broken(place, "the UNA segment names no usable separators"));
        }
        self.separators = Separators { component, element, release, terminator };
        self.skip_blanks()
    }

    fn skip_blanks(&mut self) -> Result<(), FileError> {
        skip_blanks(&mut self.reader).map_err(|error| self.input.io(error))
    }

    fn end(&self) -> Result<bool, FileError> {
        if self.buffer.is_empty() {
            return Ok(false);
        }
        let reason = if self.buffer.len() >= RECORD_MAX {
            "one segment is longer than a mebibyte"
        } else {
            "the file was cut: the last segment has no end"
        };
        Err(self.input.broken(Place::Segment(self.number + 1), reason))
    }
}

fn skip_blanks(reader: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        let blanks = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let more = blanks > 0 && blanks == buffer.len();
        reader.consume(blanks);
        if !more {
            return Ok(());
        }
    }
}
