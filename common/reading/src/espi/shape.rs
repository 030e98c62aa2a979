//! Shapes: the markup that one `IntervalReading` after the other repeats.
//!
//! A program wrote the feed, so its readings differ in nothing but numbers:
//!
//! ```text
//!  ↵   <IntervalReading><timePeriod><duration>900</duration><start>1704067200</start> … </IntervalReading>
//!  └─────────────── literal ─────────────────┘slot└──── literal ──────┘   slot   └─ literal ──┘
//! ```
//!
//! A shape is learnt from one reading, by quick-xml, and then recognises bytes
//! that differ from it in the slots alone. What may stand in a slot can neither
//! begin nor end markup and is no reference, so quick-xml would see the same
//! events with those texts. Everything else (an odd value, a comment that grew a
//! hyphen, a reading that the buffer holds in part) has no shape and is read event
//! by event; the answer is the same either way, only later.
//!
//! Shapes hold whatever is around an `IntervalBlock`: they are of elements that
//! mean something within an `IntervalReading` alone.

use quick_xml::events::Event;

use super::xml::Name;

/// How many shapes one pass keeps; a feed has as many as its readings have optional parts.
pub(super) const SHAPES_MAX: usize = 8;
/// The longest reading that is learnt, in bytes.
const SAMPLE_MAX: usize = 4096;
/// Elements within a learnt reading beyond this depth are not learnt.
pub(super) const SHAPE_DEPTH_MAX: usize = 8;
/// The longest text in a slot.
const SLOT_MAX: usize = 64;
/// Matches that pay for learning one shape, so that a feed without regular shape isn't parsed twice.
const LEARNING_COST: u32 = 8;
/// Matches that are kept to pay with.
const CREDIT_MAX: u32 = 256;

/// A text of a reading that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Start,
    Duration,
    Value,
    Quality,
}

/// How many fields there are.
const FIELDS: usize = 4;

impl Field {
    /// Says which field an element within an `IntervalReading` is, if any.
    pub(super) fn of(parent: Option<Name>, name: Name) -> Option<Self> {
        match (parent, name) {
            (Some(Name::TimePeriod), Name::Start) => Some(Self::Start),
            (Some(Name::TimePeriod), Name::Duration) => Some(Self::Duration),
            (Some(Name::IntervalReading), Name::Value) => Some(Self::Value),
            (Some(Name::ReadingQuality), Name::Quality) => Some(Self::Quality),
            _ => None,
        }
    }
}

/// What may differ between two readings of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    /// The text of an element: a number.
    Number(Option<Field>),
    /// What a comment says; often the start, for people.
    Comment,
}

impl Slot {
    /// Returns how many of the bytes stand in the slot; `None` if they may go on beyond
    /// what is there, or are too many.
    // A call would cost as much as the work.
    #[inline(always)]
    fn length(self, bytes: &[u8]) -> Option<usize> {
        let mut length = 0;
        loop {
            length += digits(&bytes[length..]);
            let byte = *bytes.get(length)?;
            let belongs = match self {
                Self::Number(_) => matches!(byte, b'.' | b'-' | b'+'),
                // No hyphen, so that nothing in it ends the comment.
                Self::Comment => byte.is_ascii_alphabetic() || matches!(byte, b' ' | b'.' | b':' | b'/'),
            };
            if !belongs {
                return (length <= SLOT_MAX).then_some(length);
            }
            length += 1;
        }
    }
}

/// Returns how many digits the bytes begin with.
#[inline]
fn digits(bytes: &[u8]) -> usize {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let (eights, rest) = bytes.as_chunks::<8>();
    for (at, eight) in eights.iter().enumerate() {
        // A digit becomes 0 to 9; the addition sets the high bit of anything above, and
        // what it may carry reaches only bytes behind one that is none.
        let numbers = u64::from_le_bytes(*eight) ^ (0x30 * EACH);
        let others = (numbers.wrapping_add(0x76 * EACH) | numbers) & (0x80 * EACH);
        if others != 0 {
            return at * 8 + others.trailing_zeros() as usize / 8;
        }
    }
    eights.len() * 8 + rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// The markup of one reading, from behind the element before it to its own end.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    /// Each slot with the literal before it.
    pieces: Vec<(Vec<u8>, Slot)>,
    tail: Vec<u8>,
    /// Bytes up to the end of the opening tag.
    opening: usize,
}

/// A reading that was recognised by its shape.
pub(super) struct Shaped<'b> {
    /// The byte behind its opening tag, in the file.
    pub(super) at: u64,
    /// How many bytes it has, from the first that was given.
    pub(super) length: usize,
    bytes: &'b [u8],
    fields: &'b Fields,
}

/// Where in the bytes each field begins and ends.
type Fields = [(usize, usize); FIELDS];

impl<'b> Shaped<'b> {
    /// Returns a field's text, which is ASCII; empty where there is none.
    pub(super) fn text(&self, field: Field) -> &'b [u8] {
        let (start, end) = self.fields[field as usize];
        &self.bytes[start..end]
    }
}

impl Shape {
    /// Learns from the reading that the bytes begin with, unless it is too odd for one.
    fn learn(bytes: &[u8]) -> Option<Self> {
        let sample = &bytes[..bytes.len().min(SAMPLE_MAX)];
        // Read as a stream, as the feed is, so that it is the same code that finds the events.
        let mut reader = quick_xml::Reader::from_reader(sample);
        let mut draft = Draft { sample, ..Draft::default() };
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            let begin = usize::try_from(reader.buffer_position()).ok()?;
            let event = reader.read_event_into(&mut buffer).ok()?;
            let end = usize::try_from(reader.buffer_position()).ok()?;
            match event {
                Event::Start(start) => draft.open(Name::of(start.local_name().as_ref()), end)?,
                Event::Empty(start) => draft.empty(Name::of(start.local_name().as_ref()))?,
                Event::End(_) => draft.close(begin)?,
                Event::Text(_) => {}
                Event::Comment(_) => {
                    draft.slot(Slot::Comment, begin + "<!--".len(), end - "-->".len());
                }
                _ => return None,
            }
            if draft.path.is_empty() && draft.opening > 0 {
                let tail = sample[draft.literal_from..end].to_owned();
                return Some(Self { pieces: draft.pieces, tail, opening: draft.opening });
            }
        }
    }

    /// Returns the length of the reading that the bytes begin with, if it is of this
    /// shape; finds its fields.
    fn matches(&self, bytes: &[u8], fields: &mut Fields) -> Option<usize> {
        *fields = Fields::default();
        let mut at = 0;
        for (literal, slot) in &self.pieces {
            at = behind(literal, bytes, at)?;
            let start = at;
            at += slot.length(&bytes[start..])?;
            if let Slot::Number(Some(field)) = slot {
                fields[*field as usize] = (start, at);
            }
        }
        behind(&self.tail, bytes, at)
    }
}

/// Returns where a literal ends that begins at a place.
#[inline]
fn behind(literal: &[u8], bytes: &[u8], at: usize) -> Option<usize> {
    let end = at + literal.len();
    is_same(literal, bytes.get(at..end)?).then_some(end)
}

/// Compares markup of one length. Pieces are too short for a call of `memcmp` to pay.
#[inline]
fn is_same(literal: &[u8], bytes: &[u8]) -> bool {
    let (Some(literal_end), Some(end)) = (literal.last_chunk::<16>(), bytes.last_chunk()) else {
        return literal == bytes;
    };
    let (chunks, _) = literal.as_chunks::<16>();
    let same = chunks.iter().zip(bytes.as_chunks().0).all(|(literal, bytes)| literal == bytes);
    same && literal_end == end
}

/// A shape that is being learnt.
#[derive(Default)]
struct Draft<'s> {
    sample: &'s [u8],
    pieces: Vec<(Vec<u8>, Slot)>,
    literal_from: usize,
    opening: usize,
    path: Vec<Name>,
    /// Behind the opening tag of the innermost element, while it holds no other.
    leaf_from: Option<usize>,
}

impl Draft<'_> {
    fn open(&mut self, name: Name, end: usize) -> Option<()> {
        let is_known = match name {
            Name::IntervalReading => self.path.is_empty(),
            Name::TimePeriod
            | Name::Duration
            | Name::Start
            | Name::Value
            | Name::ReadingQuality
            | Name::Quality
            | Name::Other => !self.path.is_empty(),
            // These mean something to a pass wherever they stand.
            _ => false,
        };
        if !is_known || self.path.len() >= SHAPE_DEPTH_MAX {
            return None;
        }
        if self.path.is_empty() {
            self.opening = end;
        }
        self.path.push(name);
        self.leaf_from = Some(end);
        Some(())
    }

    /// Takes in an empty element, which leaves no room for a slot.
    fn empty(&mut self, name: Name) -> Option<()> {
        if name == Name::IntervalReading {
            return None;
        }
        self.open(name, 0)?;
        self.leaf_from = None;
        self.close(0)
    }

    fn close(&mut self, begin: usize) -> Option<()> {
        let name = self.path.pop()?;
        let field = Field::of(self.path.last().copied(), name);
        let slot = Slot::Number(field);
        if field.is_some() && self.pieces.iter().any(|(_, other)| *other == slot) {
            return None;
        }
        let is_slot = self.leaf_from.take().is_some_and(|from| self.slot(slot, from, begin));
        // A field must be where it can be read, once.
        (is_slot || field.is_none()).then_some(())
    }

    /// Makes a slot of a part of the sample, if all of it may stand in one.
    fn slot(&mut self, slot: Slot, from: usize, to: usize) -> bool {
        let is_slot = slot.length(&self.sample[from..]) == Some(to - from);
        if is_slot {
            self.pieces.push((self.sample[self.literal_from..from].to_owned(), slot));
            self.literal_from = to;
        }
        is_slot
    }
}

/// The shapes that one pass has learnt.
pub(super) struct Shapes {
    known: Vec<Shape>,
    /// How many may be known.
    room: usize,
    /// The one that was met last.
    latest: usize,
    /// What learning costs and matches earn.
    credit: u32,
    fields: Fields,
}

impl Shapes {
    /// Keeps so many shapes; with none, all is read event by event.
    pub(super) fn with_room(room: usize) -> Self {
        Self { known: Vec::new(), room, latest: 0, credit: CREDIT_MAX, fields: Fields::default() }
    }

    /// Recognises the reading that the bytes begin with. `position` is that of the first byte.
    pub(super) fn recognise<'b>(&'b mut self, bytes: &'b [u8], position: u64) -> Option<Shaped<'b>> {
        let length = match self.known.get(self.latest) {
            Some(shape) => shape.matches(bytes, &mut self.fields),
            None => None,
        };
        let length = length.or_else(|| self.recall(bytes)).or_else(|| self.learn(bytes))?;
        self.credit = CREDIT_MAX.min(self.credit + 1);
        let opening = u64::try_from(self.known[self.latest].opening).expect("a length fits 64 bits");
        Some(Shaped { at: position + opening, length, bytes, fields: &self.fields })
    }

    /// Finds another shape than the latest.
    fn recall(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut others = self.known.iter().enumerate().filter(|(at, _)| *at != self.latest);
        let (at, length) =
            others.find_map(|(at, shape)| Some((at, shape.matches(bytes, &mut self.fields)?)))?;
        self.latest = at;
        Some(length)
    }

    fn learn(&mut self, bytes: &[u8]) -> Option<usize> {
        let is_opening = matches!(bytes.trim_ascii_start(), [b'<', name, ..] if name.is_ascii_alphabetic());
        if !is_opening || self.room == 0 || self.credit < LEARNING_COST {
            return None;
        }
        self.credit -= LEARNING_COST;
        let shape = Shape::learn(bytes)?;
        if self.known.len() < self.room {
            self.latest = self.known.len();
            self.known.push(shape);
        } else {
            self.latest = (self.latest + 1) % self.room;
            self.known[self.latest] = shape;
        }
        self.known[self.latest].matches(bytes, &mut self.fields)
    }
}
