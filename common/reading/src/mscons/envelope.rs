//! The first pass: do all counters and references of the envelope agree?

use crate::event::{FileError, Place, quote};
use crate::input::Input;

use super::segment::{Segment, Segments};
use super::utc_of;

/// An open interchange or message.
struct Open {
    reference: String,
    /// Messages in the interchange, or segments in the message.
    count: u64,
}

struct Envelope {
    interchange: Option<Open>,
    message: Option<Open>,
    interchanges: u64,
    usual: Vec<Vote>,
    start: Option<i64>,
    in_quantity: bool,
}

/// A majority vote on a series' interval in constant memory (Boyer and Moore).
#[derive(Default)]
struct Vote {
    seconds: u32,
    lead: u32,
}

impl Vote {
    fn cast(&mut self, seconds: u32) {
        if self.lead == 0 {
            self.seconds = seconds;
        }
        self.lead = if self.seconds == seconds { self.lead.saturating_add(1) } else { self.lead - 1 };
    }
}

/// Checks the envelope and returns the usual interval of each series (`LIN`) in
/// seconds, in file order; 0 where no interval prevails.
pub(super) fn check(input: &Input<'_>) -> Result<Vec<u32>, FileError> {
    let mut segments = Segments::new(input)?;
    let mut segment = Segment::default();
    let mut envelope = Envelope {
        interchange: None,
        message: None,
        interchanges: 0,
        usual: Vec::new(),
        start: None,
        in_quantity: false,
    };
    while segments.next(&mut segment)? {
        let step = envelope.step(&segment);
        step.map_err(|reason| input.broken(Place::Segment(segment.number), reason))?;
    }
    if envelope.interchange.is_some() || envelope.interchanges == 0 {
        return Err(input.broken(Place::Segment(segment.number), "the file was cut: no UNZ segment ends it"));
    }
    Ok(envelope.usual.into_iter().map(|vote| if vote.lead == 0 { 0 } else { vote.seconds }).collect())
}

impl Envelope {
    fn step(&mut self, segment: &Segment) -> Result<(), String> {
        if let Some(message) = &mut self.message {
            message.count += 1;
        }
        match segment.tag() {
            "UNB" if self.interchange.is_none() => {
                self.interchange = Some(Open { reference: segment.get(5, 0).to_owned(), count: 0 });
                Ok(())
            }
            "UNB" => Err("a second UNB before the UNZ".into()),
            _ if self.interchange.is_none() => Err("a segment outside an interchange (UNB to UNZ)".into()),
            "UNH" if self.message.is_none() => {
                self.message = Some(Open { reference: segment.get(1, 0).to_owned(), count: 1 });
                if let Some(interchange) = &mut self.interchange {
                    interchange.count += 1;
                }
                Ok(())
            }
            "UNH" => Err("a second UNH before the UNT".into()),
            "UNT" => close(self.message.take(), segment, "UNT", "segments"),
            "UNZ" if self.message.is_some() => Err("the last message has no UNT".into()),
            "UNZ" => {
                self.interchanges += 1;
                close(self.interchange.take(), segment, "UNZ", "messages")
            }
            _ if self.message.is_none() => Err("a segment outside a message (UNH to UNT)".into()),
            tag => {
                self.watch(tag, segment);
                Ok(())
            }
        }
    }

    /// Notes the intervals of quantities.
    fn watch(&mut self, tag: &str, segment: &Segment) {
        match tag {
            "LIN" => {
                self.usual.push(Vote::default());
                self.in_quantity = false;
            }
            "QTY" => {
                self.in_quantity = true;
                self.start = None;
            }
            "DTM" if self.in_quantity => {
                let time = utc_of(segment.get(1, 1), segment.get(1, 2)).ok().map(|time| time.timestamp());
                match (segment.get(1, 0), time, self.start, self.usual.last_mut()) {
                    ("163", time, ..) => self.start = time,
                    ("164", Some(end), Some(start), Some(vote)) => {
                        if let Ok(seconds) = u32::try_from(end - start) {
                            vote.cast(seconds);
                        }
                    }
                    _ => {}
                }
            }
            _ => self.in_quantity = false,
        }
    }
}

fn close(open: Option<Open>, segment: &Segment, tag: &str, what: &str) -> Result<(), String> {
    let Some(open) = open else { return Err(format!("a {tag} segment that ends nothing")) };
    let (stated, reference) = (segment.get(1, 0), segment.get(2, 0));
    if stated.parse() != Ok(open.count) {
        return Err(format!("{tag} states {} {what}, but there are {}", quote(stated), open.count));
    }
    if reference != open.reference {
        return Err(format!("{tag} refers to '{}', expected '{}'", quote(reference), quote(&open.reference)));
    }
    Ok(())
}
