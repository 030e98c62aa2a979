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

/// A pass over the segments of a file. `UNA` is taken in and not handed out.
pub(super) struct Segments<'i, 'a> {
    input: &'i Input<'a>,
    reader: Box<dyn BufRead + 'a>,
    separators: Separators,
    number: u64,
    buffer: Vec<u8>,
}

/// One segment; its texts are unescaped.
#[derive(Default)]
pub(super) struct Segment {
    /// Counted from 1 over the whole file.
    pub(super) number: u64,
    raw: String,
    text: String,
    /// Element number, start and end in `text` of each component.
    parts: Vec<(usize, usize, usize)>,
}

impl Segment {
    /// Returns the three-letter name.
    pub(super) fn tag(&self) -> &str {
        self.get(0, 0)
    }

    /// Returns a component of an element, empty if it isn't there. Element 0 is the tag.
    pub(super) fn get(&self, element: usize, component: usize) -> &str {
        let mut parts = self.parts.iter().filter(|part| part.0 == element);
        parts.nth(component).map_or("", |&(_, start, end)| &self.text[start..end])
    }

    /// Returns the segment as it stands in the file, without its terminator.
    pub(super) fn raw(&self) -> &str {
        &self.raw
    }

    fn parse(&mut self, separators: Separators) {
        self.text.clear();
        self.parts.clear();
        let (mut element, mut start, mut released) = (0, 0, false);
        for character in self.raw.chars() {
            let byte = u8::try_from(character).unwrap_or(0x80);
            if released {
                self.text.push(character);
                released = false;
            } else if byte == separators.release {
                released = true;
            } else if byte == separators.component || byte == separators.element {
                self.parts.push((element, start, self.text.len()));
                start = self.text.len();
                element += usize::from(byte == separators.element);
            } else {
                self.text.push(character);
            }
        }
        self.parts.push((element, start, self.text.len()));
    }
}

impl<'i, 'a> Segments<'i, 'a> {
    pub(super) fn new(input: &'i Input<'a>) -> Result<Self, FileError> {
        let mut reader = input.pass()?;
        let mut separators = Separators { component: b':', element: b'+', release: b'?', terminator: b'\'' };
        skip_blanks(&mut reader).map_err(|error| input.io(error))?;
        let start = reader.fill_buf().map_err(|error| input.io(error))?;
        if start.starts_with(b"UNA") {
            let mut advice = [0; 9];
            reader
                .read_exact(&mut advice)
                .map_err(|_| input.broken(Place::File, "the UNA segment is cut"))?;
            separators = Separators {
                component: advice[3],
                element: advice[4],
                release: advice[6],
                terminator: advice[8],
            };
            let distinct = [advice[3], advice[4], advice[6], advice[8]];
            let clash = (1..4).any(|at| distinct[..at].contains(&distinct[at]));
            if clash || distinct.iter().any(|byte| !byte.is_ascii() || byte.is_ascii_alphanumeric()) {
                return Err(input.broken(Place::File, "the UNA segment names no usable separators"));
            }
        }
        Ok(Self { input, reader, separators, number: 0, buffer: Vec::new() })
    }

    /// Reads the next segment; false at the end of the file.
    pub(super) fn next(&mut self, segment: &mut Segment) -> Result<bool, FileError> {
        skip_blanks(&mut self.reader).map_err(|error| self.input.io(error))?;
        self.buffer.clear();
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
        Ok(true)
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
