//! Files as streams that can be read more than once.
//!
//! A file is opened once and read by position, so that the check of its
//! structure and the later passes see the same bytes even if the path is
//! replaced or the file grows in between.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use crate::event::{FileError, GET_AGAIN, Place};

/// The longest single record (line, segment, XML piece) in bytes.
pub(crate) const RECORD_MAX: usize = 1 << 20;
const BUFFER: usize = 128 << 10;

/// A named content.
pub(crate) struct Input<'a> {
    pub(crate) name: String,
    content: Content<'a>,
    gzip: bool,
    /// How many bytes of a file the pass under way has read.
    position: Arc<AtomicU64>,
}

enum Content<'a> {
    File { file: Arc<File>, length: u64 },
    Bytes(&'a [u8]),
}

/// A reader's error that says that the file is damaged rather than unreadable.
#[derive(Debug, thiserror::Error)]
#[error("one record is longer than {RECORD_MAX} bytes")]
struct RecordTooLong;

impl<'a> Input<'a> {
    pub(crate) fn open(path: &Path, position: Arc<AtomicU64>) -> Result<Self, FileError> {
        let name = path.display().to_string();
        let opened = File::open(path).and_then(|file| {
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
            }
            Ok(Content::File { file: Arc::new(file), length: metadata.len() })
        });
        let content = opened.map_err(|source| FileError::Io { file: name.clone(), source })?;
        Self::with_content(name, content, position)
    }

    pub(crate) fn of_bytes(name: &str, bytes: &'a [u8]) -> Result<Self, FileError> {
        Self::with_content(name.to_owned(), Content::Bytes(bytes), Arc::default())
    }

    fn with_content(name: String, content: Content<'a>, position: Arc<AtomicU64>) -> Result<Self, FileError> {
        let mut input = Self { name, content, gzip: false, position };
        let mut magic = [0; 2];
        let mut raw = input.raw();
        let read = raw.read_exact(&mut magic);
        drop(raw);
        match read {
            Ok(()) => input.gzip = magic == [0x1f, 0x8b],
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(input.io(error)),
        }
        Ok(input)
    }

    fn raw(&self) -> Box<dyn BufRead + 'a> {
        match &self.content {
            Content::File { file, length } => {
                let told = Arc::clone(&self.position);
                let at = ReadAt { file: Arc::clone(file), position: 0, end: *length, told };
                Box::new(BufReader::with_capacity(BUFFER, at))
            }
            Content::Bytes(bytes) => Box::new(*bytes),
        }
    }

    /// Starts a pass over the content: decompressed, without a byte-order mark.
    pub(crate) fn pass(&self) -> Result<Box<dyn BufRead + 'a>, FileError> {
        let raw = self.raw();
        let mut reader: Box<dyn BufRead + 'a> = if self.gzip {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(raw)))
        } else {
            raw
        };
        let start = reader.fill_buf().map_err(|error| self.io(error))?;
        if start.starts_with(b"\xef\xbb\xbf") {
            reader.consume(3);
        }
        Ok(reader)
    }

    /// Turns a reader's error into the file's error.
    pub(crate) fn io(&self, error: io::Error) -> FileError {
        let damaged = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
        );
        if error.get_ref().is_some_and(|inner| inner.is::<RecordTooLong>()) {
            return self.broken(Place::File, RecordTooLong.to_string());
        }
        if self.gzip && damaged {
            return self.broken(Place::File, format!("the compressed file is cut or damaged ({error})"));
        }
        FileError::Io { file: self.name.clone(), source: error }
    }

    pub(crate) fn broken(&self, place: Place, reason: impl Into<String>) -> FileError {
        self.broken_with(place, reason, GET_AGAIN)
    }

    pub(crate) fn broken_with(&self, place: Place, reason: impl Into<String>, remedy: &str) -> FileError {
        FileError::Broken { file: self.name.clone(), place, reason: reason.into(), remedy: remedy.to_owned() }
    }

    /// Starts a pass line by line.
    pub(crate) fn lines(&self) -> Result<Lines<'_, 'a>, FileError> {
        Ok(Lines { input: self, reader: self.pass()?, buffer: Vec::new(), number: 0 })
    }
}

/// Reads a file by position, up to the length it had when opened.
struct ReadAt {
    file: Arc<File>,
    position: u64,
    end: u64,
    told: Arc<AtomicU64>,
}

impl Read for ReadAt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..wanted], self.position)?;
        self.position += u64::try_from(read).expect("a length fits 64 bits");
        self.told.store(self.position, Ordering::Relaxed);
        Ok(read)
    }
}

/// A pass over a content's lines.
pub(crate) struct Lines<'i, 'a> {
    input: &'i Input<'a>,
    reader: Box<dyn BufRead + 'a>,
    buffer: Vec<u8>,
    number: u64,
}

/// One line without its end.
pub(crate) struct Line<'b> {
    /// Counted from 1.
    pub(crate) number: u64,
    pub(crate) bytes: &'b [u8],
    /// Whether a line feed ended it; a last line may lack it.
    pub(crate) terminated: bool,
}

impl Line<'_> {
    /// Returns the text, or why it is none.
    pub(crate) fn text(&self) -> Result<&str, &'static str> {
        match std::str::from_utf8(self.bytes) {
            Ok(text) if text.contains('\0') => Err("the line holds a NUL byte"),
            Ok(text) => Ok(text),
            Err(_) => Err("the line is not UTF-8 text"),
        }
    }

    /// Says whether there is nothing on it but blanks, commas and semicolons.
    pub(crate) fn is_blank(&self) -> bool {
        self.bytes.iter().all(|byte| matches!(byte, b' ' | b'\t' | b',' | b';' | b'\r'))
    }
}

impl Lines<'_, '_> {
    /// Returns the next line.
    pub(crate) fn next(&mut self) -> Result<Option<Line<'_>>, FileError> {
        self.buffer.clear();
        let limit = u64::try_from(RECORD_MAX).expect("a small number");
        let read = (&mut self.reader).take(limit).read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|error| self.input.io(error))?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let terminated = self.buffer.last() == Some(&b'\n');
        if !terminated && read == RECORD_MAX {
            return Err(self.input.broken(Place::Line(self.number), RecordTooLong.to_string()));
        }
        if terminated {
            self.buffer.pop();
        }
        if self.buffer.last() == Some(&b'\r') {
            self.buffer.pop();
        }
        Ok(Some(Line { number: self.number, bytes: &self.buffer, terminated }))
    }
}

/// Counts what is read since the last reset and fails beyond [`RECORD_MAX`],
/// so that one endless record can't fill the memory.
pub(crate) struct Budget<R> {
    inner: R,
    spent: Rc<Cell<usize>>,
}

impl<R> Budget<R> {
    pub(crate) fn new(inner: R) -> (Self, Rc<Cell<usize>>) {
        let spent = Rc::new(Cell::new(0));
        (Self { inner, spent: Rc::clone(&spent) }, spent)
    }
}

impl<R: BufRead> Read for Budget<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Budget<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let left = RECORD_MAX.saturating_sub(self.spent.get());
        if left == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, RecordTooLong));
        }
        let buffer = self.inner.fill_buf()?;
        Ok(&buffer[..buffer.len().min(left)])
    }

    fn consume(&mut self, count: usize) {
        self.spent.set(self.spent.get().saturating_add(count));
        self.inner.consume(count);
    }
}

/// The fields of one delimited record, unquoted and trimmed.
#[derive(Default)]
pub(crate) struct Fields {
    text: String,
    ends: Vec<(usize, usize)>,
}

impl Fields {
    /// Splits a line. A quoted field may hold the delimiter and doubled quotes
    /// and must end on its line; otherwise an error says so.
    pub(crate) fn split(&mut self, line: &str, delimiter: char) -> Result<(), &'static str> {
        self.text.clear();
        self.ends.clear();
        if line.contains('"') {
            return self.split_quoted(line, delimiter);
        }
        self.text.push_str(line);
        let mut start = 0;
        if let Ok(delimiter) = u8::try_from(delimiter)
            && delimiter.is_ascii()
        {
            // By bytes, which costs a fraction of a search for each field: fields are short.
            for (at, &byte) in line.as_bytes().iter().enumerate() {
                if byte == delimiter {
                    self.push(start, at);
                    start = at + 1;
                }
            }
        } else {
            for (at, found) in line.match_indices(delimiter) {
                self.push(start, at);
                start = at + found.len();
            }
        }
        self.push(start, line.len());
        Ok(())
    }

    fn split_quoted(&mut self, line: &str, delimiter: char) -> Result<(), &'static str> {
        let mut start = 0;
        let mut quoted = false;
        let mut characters = line.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '"' if quoted && characters.peek() == Some(&'"') => {
                    characters.next();
                    self.text.push('"');
                }
                '"' => quoted = !quoted,
                _ if character == delimiter && !quoted => {
                    let end = self.text.len();
                    self.push(start, end);
                    start = end;
                }
                _ => self.text.push(character),
            }
        }
        self.push(start, self.text.len());
        if quoted { Err("a quoted field does not end on its line") } else { Ok(()) }
    }

    fn push(&mut self, start: usize, end: usize) {
        let field = &self.text[start..end];
        // Nearly no field has anything to trim; a graphic character at both ends says so.
        if let [first, .., last] | [first @ last] = field.as_bytes()
            && first.is_ascii_graphic()
            && last.is_ascii_graphic()
        {
            self.ends.push((start, end));
            return;
        }
        let left = field.len() - field.trim_start().len();
        let length = field.trim().len();
        self.ends.push((start + left, start + left + length));
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns a field; one that isn't there is empty.
    pub(crate) fn get(&self, index: usize) -> &str {
        self.ends.get(index).map_or("", |&(start, end)| &self.text[start..end])
    }
}
