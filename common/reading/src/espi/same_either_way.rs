//! By shape or event by event: a feed gives the same readings, refusals and errors, at the same places.

use std::io::Write;
use std::ops::ControlFlow;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::read_with;
use super::shape::{SHAPES_MAX, Shaped, Shapes};
use super::xml::{Name, Token, Xml};
use crate::event::Outlet;
use crate::input::Input;
use crate::{Event, Format, ReadOptions, Reading, Refused};

/// All that reading a feed tells; the end with its place, text or summary.
type Told = (Vec<Reading>, Vec<Refused>, String);

fn told(shapes: usize, bytes: &[u8]) -> Told {
    let (mut readings, mut refused) = (Vec::new(), Vec::new());
    let mut sink = |event: Event<'_>| {
        match event {
            Event::Reading(reading) => readings.push(reading.clone()),
            Event::Refused(record) => refused.push(record.clone()),
        }
        ControlFlow::Continue(())
    };
    let mut outlet = Outlet::new("feed", Format::Espi, &[], &mut sink);
    let result = Input::of_bytes("feed", bytes)
        .and_then(|input| read_with(shapes, &input, &ReadOptions::default(), &mut outlet));
    let end = format!("{result:?} {:?}", outlet.summary);
    (readings, refused, end)
}

/// Compresses each part by itself, so that a pass is given part by part.
fn in_parts(bytes: &[u8], mut cuts: Vec<usize>) -> Vec<u8> {
    cuts.extend([0, bytes.len()]);
    cuts.iter_mut().for_each(|cut| *cut = (*cut).min(bytes.len()));
    cuts.sort_unstable();
    let mut whole = Vec::new();
    for part in cuts.windows(2) {
        let mut gzip = GzEncoder::new(&mut whole, Compression::fast());
        gzip.write_all(&bytes[part[0]..part[1]]).and_then(|()| gzip.finish()).expect("a vector takes all");
    }
    whole
}

/// How many readings of a document are taken by their shape.
fn taken(document: &str) -> usize {
    let input = Input::of_bytes("feed", document.as_bytes()).expect("bytes are read");
    let mut xml = Xml::new(&input, Shapes::with_room(SHAPES_MAX)).expect("bytes are read");
    let mut count = 0;
    loop {
        let count_one = |_: Shaped<'_>| {
            count += 1;
            Ok(())
        };
        xml.take_readings(count_one).expect("a sound feed");
        match xml.next().expect("a sound feed") {
            Token::End => return count,
            Token::Close(Name::IntervalReading) => panic!("a reading was left to the events"),
            _ => {}
        }
    }
}

const HEAD: &str = r#"<?xml version="1.0"?><feed xmlns="a" xmlns:e="b"><updated>2024-01-01</updated>
<entry><link rel="self" href="/U"/><link rel="related" href="/M"/><content><UsagePoint><ServiceCategory><kind>0</kind></ServiceCategory></UsagePoint></content></entry>
<entry><link rel="self" href="/M"/><link rel="related" href="/B"/><link rel="related" href="/T"/><content><MeterReading/></content></entry>
<entry><link rel="self" href="/T"/><content><ReadingType><flowDirection>1</flowDirection><powerOfTenMultiplier>0</powerOfTenMultiplier><uom>72</uom><intervalLength>900</intervalLength></ReadingType></content></entry>
<entry><link rel="self" href="/B"/><content>"#;
const TAIL: &str = "</content><updated>2024-01-02T00:00:00Z</updated></entry></feed>\n";

/// One reading in the way of one program: `{}` is where its numbers are.
fn ways() -> impl Strategy<Value = String> {
    let part = |parts: &'static [&'static str]| prop::sample::select(parts);
    let quality = part(&[
        "",
        "<ReadingQuality><quality>{}</quality></ReadingQuality>",
        "<ReadingQuality/>",
        "<ReadingQuality><quality>8</quality><quality>{}</quality></ReadingQuality>",
        "<quality>{}</quality>",
    ]);
    let duration = part(&["<duration>900</duration>", "<duration>{}</duration>", "<duration/>", ""]);
    let start = part(&[
        "<start>{}</start>",
        "<start> {} </start>",
        "<start>{}</start><!-- 1/1/2014 5:00:00 AM -->",
        "<start><!--from-->{}</start>",
        "<start><![CDATA[{}]]></start>",
        "<start>{}</start><start>17040{}</start>",
        "<start a='{}'>{}</start >",
    ]);
    let value =
        part(&["<value>{}</value>", "<value>&#49;{}</value>", "<value><b>{}</b></value>", "<value/>"]);
    let around = part(&[
        "",
        "<cost>{}</cost>",
        "<updated>{}</updated>",
        "<link rel='self' href='/{}'/>",
        "<IntervalReading><value>{}</value></IntervalReading>",
        "<IntervalBlock/>",
        "<entry><updated>2024-01-0{}</updated></entry>",
        "<content><ReadingType><uom>{}</uom></ReadingType></content>",
        "<!-- {} -- -->",
        "<a><b><c><d><f><g>{}</g></f></d></c></b></a>",
        "text",
    ]);
    let before = part(&["", "", "", "<IntervalReading/>", "<cost>{}</cost>", "<!-- {} -->"]);
    let layout = (part(&["", "\n  "]), prop::bool::weighted(0.3));
    (before, quality, duration, start, value, around, layout).prop_map(
        |(before, quality, duration, start, value, around, (blank, prefixed))| {
            let parts = [around, quality, "<timePeriod>", duration, start, "</timePeriod>", value];
            let inner = parts.join(blank);
            let reading = format!("{before}{blank}<IntervalReading>{inner}{blank}</IntervalReading>");
            if prefixed { with_prefix(&reading) } else { reading }
        },
    )
}

/// Gives all elements a namespace prefix.
fn with_prefix(markup: &str) -> String {
    let mut prefixed = String::new();
    for piece in markup.split_inclusive('<') {
        match piece.strip_prefix('/') {
            Some(rest) => prefixed.push_str(&format!("/e:{rest}")),
            None if piece.starts_with(|first: char| first.is_alphabetic()) && prefixed.ends_with('<') => {
                prefixed.push_str(&format!("e:{piece}"));
            }
            None => prefixed.push_str(piece),
        }
    }
    prefixed
}

/// Numbers as they are, and as they should not be.
fn numbers() -> impl Strategy<Value = String> {
    let odd = ["", "0", "-12.5", "1.2.3", "1e3", "x", "é", "&amp;", "]]>", "1 2", "+7", "1-", "-"];
    prop_oneof![
        40 => (1_704_000_000_u32..1_704_999_999).prop_map(|number| number.to_string()),
        20 => (0_u32..5000).prop_map(|number| number.to_string()),
        4 => prop::sample::select(odd.to_vec()).prop_map(str::to_owned),
        1 => prop::sample::select(vec![20, 64, 65, 5000]).prop_map(|length| format!("{}1", "0".repeat(length))),
        // Few of these, because they break the whole feed.
        1 => prop::sample::select(vec!["<", "&x;", "-->"]).prop_map(str::to_owned),
    ]
}

/// Blocks, or what looks like one, of readings in few ways.
fn blocks() -> impl Strategy<Value = String> {
    let around = prop::sample::select(vec![
        ("<IntervalBlock>", "</IntervalBlock>"),
        ("<IntervalBlock><interval><duration>86400</duration></interval>", "</IntervalBlock>"),
        ("<IntervalBlock/>", ""),
        ("<IntervalBlock><b><i/>", "</b></IntervalBlock>"),
        ("<b><i/>", "</b>"),
    ]);
    let readings = prop::collection::vec((any::<prop::sample::Index>(), numbers(), numbers()), 0..24);
    let blocks = prop::collection::vec((around, readings), 1..5);
    (prop::collection::vec(ways(), 1..4), blocks).prop_map(|(ways, blocks)| {
        // The first two places get one number, the others another.
        let put_in = |(way, first, second): &(prop::sample::Index, String, String)| {
            way.get(&ways).replacen("{}", first, 2).replace("{}", second)
        };
        let block = |((begin, end), readings): &((&str, &str), Vec<_>)| {
            format!("{begin}{}{end}", readings.iter().map(put_in).collect::<String>())
        };
        blocks.iter().map(block).collect()
    })
}

/// What happens to a feed on its way: bytes are replaced, by nothing or by others.
fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, usize, Vec<u8>)>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..3),
        prop::sample::select(vec![
            "<",
            ">",
            "/",
            "-",
            "0",
            "<!--",
            "</value>",
            "<e:start>",
            "\u{feff}",
            "\0"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    let place = any::<prop::sample::Index>();
    prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec((place, 0_usize..4, piece), 1..4)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_feed_tells_the_same_by_shape_and_event_by_event(
        blocks in blocks(),
        damage in damage(),
        end in prop_oneof![4 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)],
        cuts in prop::collection::vec(0_usize..6000, 0..12),
    ) {
        let mut bytes = format!("{HEAD}{blocks}{TAIL}").into_bytes();
        for (at, length, piece) in damage {
            let at = at.index(bytes.len());
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, piece);
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        let expected = told(0, &bytes);
        for room in [1, SHAPES_MAX] {
            prop_assert_eq!(&told(room, &bytes), &expected);
        }
        let parts = in_parts(&bytes, cuts);
        prop_assert_eq!(told(SHAPES_MAX, &parts), told(0, &parts));
    }
}

#[test]
fn readings_of_regular_feeds_are_taken_by_their_shape() {
    for (reading, why) in [
        (
            "<IntervalReading><timePeriod><start>{}</start></timePeriod><value>{}</value></IntervalReading>",
            "plain",
        ),
        (
            "\n<e:IntervalReading a='1'>\n<e:value>{}</e:value>\n</e:IntervalReading >",
            "prefix, attribute, blanks",
        ),
        ("<IntervalReading><start>{}</start><!-- 1/{}/2014 5:00:00 AM  --></IntervalReading>", "comment"),
        (
            "<IntervalReading><ReadingQuality/><cost>{}</cost><value>-{}.5</value></IntervalReading>",
            "negative",
        ),
    ] {
        let readings: String = (0..200).map(|n| reading.replace("{}", &(n * n).to_string())).collect();
        let block = format!("<IntervalBlock><interval/>{readings}</IntervalBlock>");
        assert_eq!(taken(&format!("<feed>{block}{block}</feed>")), 400, "{why}");
    }
}
