//! Measures how many readings a second one core parses, each format beside the
//! plainest loop that has to look at the same bytes, in the same run:
//! `cargo run --release --example parsing_speed -- [READINGS [FORMAT]]`.

use std::fmt::Write as _;
use std::hint::black_box;
use std::ops::ControlFlow;

use sanso_reading::{Event, ReadOptions};

/// How often each loop runs; the fastest counts, the others met noise.
const ROUNDS: usize = 5;

/// One format: its file and the loop that it is held against.
struct Case {
    name: &'static str,
    against: &'static str,
    file: String,
    plain: fn(&str) -> u64,
}

#[allow(clippy::print_stdout, reason = "an example's purpose is to print")]
fn main() {
    let readings = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let only = std::env::args().nth(2).unwrap_or_default();
    println!("format        M readings/s   MB/s   plain loop: M readings/s  (time ratio)");
    for case in cases(readings).into_iter().filter(|case| case.name.starts_with(&only)) {
        let (ours_s, count) = fastest(|| parsed(&case.file));
        let (plain_s, _) = fastest(|| (case.plain)(&case.file));
        let rate = |seconds: f64| count as f64 / seconds / 1e6;
        println!(
            "{:<12} {:>13.2} {:>6.0} {:>12.2} ({:.2}) {}",
            case.name,
            rate(ours_s),
            case.file.len() as f64 / ours_s / 1e6,
            rate(plain_s),
            ours_s / plain_s,
            case.against
        );
    }
}

fn cases(readings: usize) -> Vec<Case> {
    let fields = "csv crate: split and parse decimals";
    let events = "quick-xml: read all events";
    let case = |name, against, file, plain| Case { name, against, file, plain };
    vec![
        case("nem12 5 min", fields, nem12(readings), csv_loop),
        case("espi", events, espi(readings), xml_loop),
        case("mscons", "split into segments", mscons(readings), segment_loop),
        case("csv (lcl)", fields, lcl(readings), csv_loop),
    ]
}

/// Returns the seconds of the fastest run, and what it counted.
fn fastest(mut run: impl FnMut() -> u64) -> (f64, u64) {
    let mut best = (f64::INFINITY, 0);
    for _ in 0..ROUNDS {
        let begun_s = core_s();
        let count = black_box(run());
        best = (best.0.min(core_s() - begun_s), count);
    }
    best
}

/// Returns how long this thread has had a core, so that other work on the
/// machine is not counted.
fn core_s() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts it");
    let nanos: f64 = text.split(' ').next().and_then(|first| first.parse().ok()).expect("a number");
    nanos / 1e9
}

fn parsed(file: &str) -> u64 {
    let mut count = 0;
    let summary = sanso_reading::read_bytes("speed", file.as_bytes(), &ReadOptions::default(), |event| {
        match event {
            Event::Reading(reading) => {
                black_box(reading);
                count += 1;
            }
            Event::Refused(refused) => panic!("a sound file was refused: {refused}"),
        }
        ControlFlow::Continue(())
    });
    summary.expect("a sound file is read");
    count
}

/// Splits lines into fields and parses those that are decimals.
fn csv_loop(file: &str) -> u64 {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(file.as_bytes());
    let mut record = csv::ByteRecord::new();
    let mut sum = 0.0;
    while reader.read_byte_record(&mut record).expect("a sound file") {
        for field in &record {
            if field.contains(&b'.') {
                sum +=
                    std::str::from_utf8(field).ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
            }
        }
    }
    sum as u64
}

/// Reads all events and does nothing with them.
fn xml_loop(file: &str) -> u64 {
    let mut reader = quick_xml::Reader::from_reader(file.as_bytes());
    let (mut buffer, mut events) = (Vec::new(), 0);
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer).expect("a sound file") {
            quick_xml::events::Event::Eof => return events,
            _ => events += 1,
        }
    }
}

/// Looks at each segment and element and parses the numbers.
fn segment_loop(file: &str) -> u64 {
    let elements = file.split('\'').flat_map(|segment| segment.split(['+', ':']));
    elements.filter_map(|text| text.parse::<f64>().ok()).sum::<f64>() as u64
}

/// A value such as a meter shows, different each time.
fn value(n: usize) -> String {
    let mixed = n.wrapping_mul(2_654_435_761) % 4000;
    format!("{}.{:03}", mixed / 1000, mixed % 1000)
}

fn nem12(readings: usize) -> String {
    let mut file = String::from("100,NEM12,202401010000,SENDER,RECEIVER\n");
    let days = readings.div_ceil(288);
    for day in 0..days {
        if day % 28 == 0 {
            let series = day / 28;
            let _ = writeln!(file, "200,NMI{series:07},E1,1,E1,N1,METER{series},KWH,5,");
        }
        let _ = write!(file, "300,202402{:02}", day % 28 + 1);
        for slot in 0..288 {
            let _ = write!(file, ",{}", value(day * 288 + slot));
        }
        file.push_str(",A,,,20240301000000,\n");
    }
    file.push_str("900\n");
    file
}

fn espi(readings: usize) -> String {
    let mut file = String::from(ESPI_HEAD);
    for block in 0..readings.div_ceil(96) {
        let midnight = 1_700_000_000 / 86_400 * 86_400 + block * 86_400;
        let _ = write!(
            file,
            "<entry><link rel=\"self\" href=\"u/1/m/1/b/{block}\"/><link rel=\"up\" href=\"u/1/m/1/b\"/>\
             <link rel=\"related\" href=\"u/1/m/1\"/>\n <content><IntervalBlock>\n"
        );
        for slot in 0..96 {
            let n = block * 96 + slot;
            let _ = write!(
                file,
                "  <IntervalReading>\n   <ReadingQuality><quality>0</quality></ReadingQuality>\n   \
                 <timePeriod>\n    <duration>900</duration>\n    <start>{}</start>\n   </timePeriod>\n   \
                 <value>{}</value>\n  </IntervalReading>\n",
                midnight + slot * 900,
                n.wrapping_mul(2_654_435_761) % 4000
            );
        }
        file.push_str(" </IntervalBlock></content>\n <updated>2024-03-01T00:00:00Z</updated></entry>\n");
    }
    file.push_str("</feed>\n");
    file
}

const ESPI_HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom" xmlns:espi="http://naesb.org/espi">
<entry><link rel="self" href="u/1"/><link rel="related" href="u/1/m"/>
 <content><UsagePoint xmlns="http://naesb.org/espi"><ServiceCategory><kind>0</kind></ServiceCategory></UsagePoint></content></entry>
<entry><link rel="self" href="u/1/m/1"/><link rel="up" href="u/1/m"/><link rel="related" href="t/1"/>
 <content><MeterReading xmlns="http://naesb.org/espi"/></content></entry>
<entry><link rel="self" href="t/1"/>
 <content><ReadingType xmlns="http://naesb.org/espi"><flowDirection>1</flowDirection><intervalLength>900</intervalLength><powerOfTenMultiplier>0</powerOfTenMultiplier><uom>72</uom></ReadingType></content></entry>
"#;

fn mscons(readings: usize) -> String {
    let mut file = String::from(
        "UNA:+.? 'UNB+UNOC:3+9900000000001:500+9900000000002:500+240301:0000+1'\
         UNH+1+MSCONS:D:04B:UN:2.4c'BGM+7+1+9'DTM+137:202403010000?+00:303'UNS+D'NAD+DP'\
         LOC+172+51238696781'LIN+1'PIA+5+1-1?:1.29.0:SRW'",
    );
    let mut segments = 14;
    let begin = chrono::DateTime::from_timestamp(1_700_000_100, 0).expect("a time");
    for n in 0..readings {
        let start = begin + chrono::TimeDelta::seconds(900 * n as i64);
        let end = start + chrono::TimeDelta::seconds(900);
        let form = "%Y%m%d%H%M?+00:303";
        let _ =
            write!(file, "QTY+220:{}'DTM+163:{}'DTM+164:{}'", value(n), start.format(form), end.format(form));
        segments += 3;
    }
    let _ = write!(file, "UNT+{}+1'UNZ+1+1'", segments - 5);
    file
}

fn lcl(readings: usize) -> String {
    let mut file = String::from("LCLid,stdorToU,DateTime,KWH/hh (per half hour) \n");
    let begin = chrono::DateTime::from_timestamp(1_340_000_000 / 1800 * 1800, 0).expect("a time");
    for n in 0..readings {
        let time = begin + chrono::TimeDelta::seconds(1800 * (n % 17_520) as i64);
        let stamp = time.format("%Y-%m-%d %H:%M:%S.0000000");
        let _ = writeln!(file, "MAC{:06},Std,{stamp},{} ", n / 17_520, value(n));
    }
    file
}
