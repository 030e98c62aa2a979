//! Reads entries without their readings: links, time and small resources.

use crate::event::FileError;
use crate::input::Input;

use super::shape::Shapes;
use super::xml::{Name, Token, Xml};

/// The most `related` links that are kept of one entry.
const LINKS_MAX: usize = 100_000;

/// One entry of a feed.
#[derive(Default, Debug)]
pub(super) struct Entry {
    pub(super) href: String,
    pub(super) up: String,
    pub(super) related: Vec<String>,
    pub(super) updated: Option<String>,
    /// The service kind, if the entry holds a `UsagePoint`.
    pub(super) usage_point: Option<String>,
    pub(super) is_meter_reading: bool,
    pub(super) reading_type: Option<ReadingType>,
}

/// The fields of a `ReadingType` that matter; empty where absent.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(super) struct ReadingType {
    pub(super) accumulation: String,
    pub(super) commodity: String,
    pub(super) flow_direction: String,
    pub(super) interval_length: String,
    pub(super) power_of_ten: String,
    pub(super) unit: String,
}

/// A pass over the entries.
pub(super) struct Scout<'i, 'a> {
    xml: Xml<'i, 'a>,
    feed_updated: Option<String>,
}

impl<'i, 'a> Scout<'i, 'a> {
    pub(super) fn new(input: &'i Input<'a>, shapes: Shapes) -> Result<Self, FileError> {
        Ok(Self { xml: Xml::new(input, shapes)?, feed_updated: None })
    }

    /// Returns the next entry.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, FileError> {
        let mut entry = Entry::default();
        loop {
            self.xml.take_readings(|_| Ok(()))?;
            match self.xml.next()? {
                Token::Open(Name::Link) if self.xml.grandparent() == Some(Name::Entry) => {
                    self.link(&mut entry)
                }
                Token::Open(name) if self.xml.grandparent() == Some(Name::Content) => match name {
                    Name::UsagePoint => entry.usage_point = Some(String::new()),
                    Name::MeterReading => entry.is_meter_reading = true,
                    Name::ReadingType => entry.reading_type = Some(ReadingType::default()),
                    _ => {}
                },
                Token::Close(Name::Entry) => return Ok(Some(entry)),
                Token::Close(name) => self.note(name, &mut entry),
                Token::Open(_) => {}
                Token::End => return Ok(None),
            }
        }
    }

    fn link(&self, entry: &mut Entry) {
        let (rel, href) = self.xml.link();
        match rel {
            "self" => href.clone_into(&mut entry.href),
            "up" => href.clone_into(&mut entry.up),
            "related" if entry.related.len() < LINKS_MAX => entry.related.push(href.to_owned()),
            _ => {}
        }
    }

    fn note(&mut self, name: Name, entry: &mut Entry) {
        let text = self.xml.text();
        match (self.xml.parent(), name) {
            (Some(Name::Entry), Name::Updated) => entry.updated = Some(text.to_owned()),
            (Some(Name::Feed), Name::Updated) => self.feed_updated = Some(text.to_owned()),
            (Some(Name::ServiceCategory), Name::Kind) => {
                if let (Some(kind), Some(Name::UsagePoint)) = (&mut entry.usage_point, self.xml.grandparent())
                {
                    text.clone_into(kind);
                }
            }
            (Some(Name::ReadingType), name) => {
                let Some(reading_type) = &mut entry.reading_type else { return };
                let field = match name {
                    Name::AccumulationBehaviour => &mut reading_type.accumulation,
                    Name::Commodity => &mut reading_type.commodity,
                    Name::FlowDirection => &mut reading_type.flow_direction,
                    Name::IntervalLength => &mut reading_type.interval_length,
                    Name::PowerOfTenMultiplier => &mut reading_type.power_of_ten,
                    Name::Uom => &mut reading_type.unit,
                    _ => return,
                };
                text.clone_into(field);
            }
            _ => {}
        }
    }

    /// Returns the feed's own `updated`, once it was passed.
    pub(super) fn feed_updated(&self) -> Option<&str> {
        self.feed_updated.as_deref()
    }

    pub(super) fn position(&self) -> u64 {
        self.xml.position()
    }
}
