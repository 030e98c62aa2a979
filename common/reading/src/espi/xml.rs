//! XML as a sequence of named openings and closings, checked to be whole.

use std::cell::Cell;
use std::io::{BufRead, ErrorKind};
use std::rc::Rc;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};

use crate::event::{FileError, Place};
use crate::input::{Budget, Input};

use super::shape::{SHAPE_DEPTH_MAX, Shaped, Shapes};

/// Elements within elements beyond this depth are refused.
const DEPTH_MAX: usize = 64;
/// The longest text of an element that is kept.
const TEXT_MAX: usize = 4096;

/// The elements that matter, by local name; namespace prefixes vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Feed,
    Entry,
    Link,
    Updated,
    Content,
    UsagePoint,
    ServiceCategory,
    Kind,
    MeterReading,
    ReadingType,
    AccumulationBehaviour,
    Commodity,
    FlowDirection,
    IntervalLength,
    PowerOfTenMultiplier,
    Uom,
    IntervalBlock,
    IntervalReading,
    TimePeriod,
    Duration,
    Start,
    Value,
    ReadingQuality,
    Quality,
    Other,
}

impl Name {
    pub(super) fn of(local: &str) -> Self {
        match local {
            "feed" => Self::Feed,
            "entry" => Self::Entry,
            "link" => Self::Link,
            "updated" => Self::Updated,
            "content" => Self::Content,
            "UsagePoint" => Self::UsagePoint,
            "ServiceCategory" => Self::ServiceCategory,
            "kind" => Self::Kind,
            "MeterReading" => Self::MeterReading,
            "ReadingType" => Self::ReadingType,
            "accumulationBehaviour" => Self::AccumulationBehaviour,
            "commodity" => Self::Commodity,
            "flowDirection" => Self::FlowDirection,
            "intervalLength" => Self::IntervalLength,
            "powerOfTenMultiplier" => Self::PowerOfTenMultiplier,
            "uom" => Self::Uom,
            "IntervalBlock" => Self::IntervalBlock,
            "IntervalReading" => Self::IntervalReading,
            "timePeriod" => Self::TimePeriod,
            "duration" => Self::Duration,
            "start" => Self::Start,
            "value" => Self::Value,
            "ReadingQuality" => Self::ReadingQuality,
            "quality" => Self::Quality,
            _ => Self::Other,
        }
    }
}

/// One step through the document. Empty elements open and close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Open(Name),
    Close(Name),
    /// The document ended as it should.
    End,
}

/// A pass over an XML document.
pub(super) struct Xml<'i, 'a> {
    input: &'i Input<'a>,
    reader: quick_xml::Reader<Budget<Box<dyn BufRead + 'a>>>,
    spent: Rc<Cell<usize>>,
    buffer: Vec<u8>,
    /// The open elements around the current token.
    path: Vec<Name>,
    /// The text of the element that was opened last.
    text: String,
    /// `rel` and `href` of the link that was opened last.
    rel: String,
    href: String,
    ended: bool,
    shapes: Shapes,
    /// Whether the element that was opened last is an empty one and closes next.
    is_empty: bool,
}

impl<'i, 'a> Xml<'i, 'a> {
    pub(super) fn new(input: &'i Input<'a>, shapes: Shapes) -> Result<Self, FileError> {
        let (budget, spent) = Budget::new(input.pass()?);
        let mut reader = quick_xml::Reader::from_reader(budget);
        reader.config_mut().check_end_names = true;
        Ok(Self {
            input,
            reader,
            spent,
            buffer: Vec::new(),
            path: Vec::new(),
            text: String::new(),
            rel: String::new(),
            href: String::new(),
            ended: false,
            shapes,
            is_empty: false,
        })
    }

    /// Takes the `IntervalReading`s that follow in an `IntervalBlock`, each as a whole, as
    /// long as they are of a known shape; [`Xml::next`] goes on behind them. The tokens that
    /// are left out are of `IntervalReading`, `TimePeriod`, `ReadingQuality`, fields, and
    /// elements without meaning.
    pub(super) fn take_readings(
        &mut self,
        mut take: impl FnMut(Shaped<'_>) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        let is_place = !self.is_empty && self.parent() == Some(Name::IntervalBlock);
        if !is_place || self.path.len() + SHAPE_DEPTH_MAX > DEPTH_MAX {
            return Ok(());
        }
        self.spent.set(0);
        let mut position = self.position();
        let mut stream = self.reader.stream();
        let bytes = match stream.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(self.io(&error)),
        };
        let mut rest = bytes;
        while let Some(shaped) = self.shapes.recognise(rest, position) {
            let length = shaped.length;
            take(shaped)?;
            rest = &rest[length..];
            position += u64::try_from(length).expect("a length fits 64 bits");
        }
        let taken = bytes.len() - rest.len();
        stream.consume(taken);
        Ok(())
    }

    /// Returns the next token. Behind a `Close` the element is no longer in the path.
    pub(super) fn next(&mut self) -> Result<Token, FileError> {
        if self.is_empty {
            self.is_empty = false;
            return self.close().map_err(|reason| self.broken(reason));
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let token = loop {
            buffer.clear();
            self.spent.set(0);
            let event = match self.reader.read_event_into(&mut buffer) {
                Ok(event) => event,
                Err(quick_xml::Error::Io(error)) => break Err(self.io(&error)),
                Err(error) => {
                    let place = Place::Byte(self.reader.error_position());
                    break Err(self.input.broken(place, format!("the XML is not well-formed: {error}")));
                }
            };
            match self.take(event) {
                Ok(None) => {}
                Ok(Some(token)) => break Ok(token),
                Err(reason) => break Err(self.broken(reason)),
            }
        };
        self.buffer = buffer;
        token
    }

    fn io(&self, error: &std::io::Error) -> FileError {
        let text = error.to_string();
        if error.get_ref().is_some() {
            return self.broken(text);
        }
        self.input.io(std::io::Error::new(error.kind(), text))
    }

    fn broken(&self, reason: String) -> FileError {
        self.input.broken(Place::Byte(self.position()), reason)
    }

    fn take(&mut self, event: Event<'_>) -> Result<Option<Token>, String> {
        match event {
            Event::Start(start) => self.open(&start).map(Some),
            Event::Empty(start) => {
                self.is_empty = true;
                self.open(&start).map(Some)
            }
            Event::End(_) => self.close().map(Some),
            Event::Text(text) => self.push_text(&text.into_inner()).map(|()| None),
            Event::CData(text) => self.push_text(&text.into_inner()).map(|()| None),
            Event::GeneralRef(_) => {
                // Numbers and times hold no references; one in a title doesn't matter.
                self.text.push('\u{fffd}');
                Ok(None)
            }
            Event::Eof if self.ended => Ok(Some(Token::End)),
            Event::Eof => Err("the file was cut: the XML document is not closed".into()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => Ok(None),
        }
    }

    fn close(&mut self) -> Result<Token, String> {
        let name = self.path.pop().ok_or("an element is closed that was not open")?;
        self.ended = self.path.is_empty();
        Ok(Token::Close(name))
    }

    fn open(&mut self, start: &BytesStart<'_>) -> Result<Token, String> {
        let name = Name::of(start.local_name().as_ref());
        if self.ended {
            return Err("a second document follows the first".into());
        }
        if self.path.is_empty() && !matches!(name, Name::Feed | Name::Entry) {
            return Err("the root element is neither an Atom feed nor an entry".into());
        }
        if self.path.len() >= DEPTH_MAX {
            return Err(format!("elements are nested deeper than {DEPTH_MAX}"));
        }
        self.path.push(name);
        self.text.clear();
        if name == Name::Link {
            self.read_link(start)?;
        }
        Ok(Token::Open(name))
    }

    fn read_link(&mut self, start: &BytesStart<'_>) -> Result<(), String> {
        self.rel.clear();
        self.href.clear();
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| format!("the XML is not well-formed: {error}"))?;
            let target = match attribute.key.as_ref() {
                "rel" => &mut self.rel,
                "href" => &mut self.href,
                _ => continue,
            };
            let value = attribute.normalized_value(XmlVersion::Implicit1_0);
            let value = value.map_err(|error| format!("the XML is not well-formed: {error}"))?;
            if value.len() > TEXT_MAX {
                return Err(format!("a link is longer than {TEXT_MAX} bytes"));
            }
            target.push_str(&value);
        }
        Ok(())
    }

    fn push_text(&mut self, text: &str) -> Result<(), String> {
        if self.path.is_empty() && !text.trim().is_empty() {
            return Err("text outside the document".into());
        }
        let room = TEXT_MAX.saturating_sub(self.text.len());
        if text.len() <= room {
            self.text.push_str(text);
        } else if room > 0 {
            // Too long for any text that is used; what is kept will not parse.
            self.text.extend(text.chars().take(room / 4));
            self.text.push('…');
        }
        Ok(())
    }

    /// Returns the text of the element that was just closed, trimmed.
    pub(super) fn text(&self) -> &str {
        self.text.trim()
    }

    /// Returns `rel` and `href` of the link that was opened last.
    pub(super) fn link(&self) -> (&str, &str) {
        (&self.rel, &self.href)
    }

    /// Returns the innermost open element.
    pub(super) fn parent(&self) -> Option<Name> {
        self.path.last().copied()
    }

    /// Returns the element around the innermost open one.
    pub(super) fn grandparent(&self) -> Option<Name> {
        self.path.iter().rev().nth(1).copied()
    }

    pub(super) fn is_inside(&self, name: Name) -> bool {
        self.path.contains(&name)
    }

    /// Returns how many bytes were read.
    pub(super) fn position(&self) -> u64 {
        self.reader.buffer_position()
    }
}
