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
    /// Whether the token before was a `Close`, or a reading was taken.
    behind_close: bool,
}

impl<'i, 'a> Xml<'i, 'a> {
    pub(super) fn new(input: &'i Input<'a>, shapes: Shapes) -> Result<Self, FileError> {
        let (budget, spent) = Budget::new(input.pass()?);
        let mut reader = quick_xml::Reader::from_reader(budget);
        let config = reader.config_mut();
        config.expand_empty_elements = true;
        config.check_end_names = true;
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
            behind_close: false,
        })
    }

    /// Takes the next `IntervalReading` as a whole, if it follows another element of its
    /// `IntervalBlock` and is of a known shape; else nothing has happened, and
    /// [`Xml::next`] goes on. All tokens within it are those of `IntervalReading`,
    /// `TimePeriod`, `ReadingQuality`, fields and others without meaning.
    pub(super) fn take_reading(&mut self, take: impl FnOnce(Shaped<'_>)) -> Result<bool, FileError> {
        let is_place = self.behind_close && self.parent() == Some(Name::IntervalBlock);
        if !is_place || self.path.len() + SHAPE_DEPTH_MAX > DEPTH_MAX {
            return Ok(false);
        }
        self.spent.set(0);
        let position = self.position();
        let mut stream = self.reader.stream();
        let bytes = match stream.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(false),
            Err(error) => return Err(self.io(&error)),
        };
        let Some((shaped, length)) = self.shapes.recognise(bytes, position) else { return Ok(false) };
        take(shaped);
        stream.consume(length);
        Ok(true)
    }

    /// Returns the next token. Behind a `Close` the element is no longer in the path.
    pub(super) fn next(&mut self) -> Result<Token, FileError> {
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
                Err(reason) => break Err(self.input.broken(Place::Byte(self.position()), reason)),
            }
        };
        self.buffer = buffer;
        self.behind_close = matches!(token, Ok(Token::Close(_)));
        token
    }

    fn io(&self, error: &std::io::Error) -> FileError {
        let text = error.to_string();
        if error.get_ref().is_some() {
            return self.input.broken(Place::Byte(self.position()), text);
        }
        self.input.io(std::io::Error::new(error.kind(), text))
    }

    fn take(&mut self, event: Event<'_>) -> Result<Option<Token>, String> {
        match event {
            Event::Start(start) => {
                let name = Name::of(start.local_name().as_ref());
                self.open(name, &start)?;
                Ok(Some(Token::Open(name)))
            }
            Event::End(_) => {
                let name = self.path.pop().ok_or("an element is closed that was not open")?;
                self.ended = self.path.is_empty();
                Ok(Some(Token::Close(name)))
            }
            Event::Text(text) => self.push_text(&text.into_inner()).map(|()| None),
            Event::CData(text) => self.push_text(&text.into_inner()).map(|()| None),
            Event::GeneralRef(_) => {
                // Numbers and times hold no references; one in a title doesn't matter.
                self.text.push('\u{fffd}');
                Ok(None)
            }
            Event::Eof if self.ended => Ok(Some(Token::End)),
            Event::Eof => Err("the file was cut: the XML document is not closed".into()),
            Event::Empty(_) => Err("an empty element was not expanded".into()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => Ok(None),
        }
    }

    fn open(&mut self, name: Name, start: &BytesStart<'_>) -> Result<(), String> {
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
