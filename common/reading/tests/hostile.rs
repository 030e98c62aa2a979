//! Bytes that no sender meant: nothing panics, and what is read stays canonical.

use std::io::Write;
use std::ops::ControlFlow;

use proptest::prelude::*;
use sanso_reading::{Event, FileError, Format, Mapping, Quality, ReadOptions, Reading};

const NEM12: &str = "100,NEM12,200405011135,MDA1,Ret1\r\n200,NMI1,E1Q1,1,E1,N1,METER,Wh,30,20050505\r\n\
300,20040301,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,V,,,20040330095001,20041111100000\r\n\
400,1,10,F51,0,TESTING\r\n400,11,48,E52,,\r\n500,O,S00010,20040304050505,00012345678\r\n900\r\n";
const NEM13: &str = "100,NEM13,200401101030,MDA1,Ret1\n250,VABC005890,11,1,11,11,METSER123,E,006342.8,20031005093055,A,,,\
007654.9,20040107100333,A,,,1312.1,kWh,20040407, 20040108100333,20040108091133\n900\n";
const ESPI: &str = r#"<?xml version="1.0"?><feed xmlns="a" xmlns:e="b"><updated>2024-01-01</updated>
<entry><link rel="self" href="/U"/><link rel="related" href="/M"/><content><e:UsagePoint><e:ServiceCategory><e:kind>0</e:kind></e:ServiceCategory></e:UsagePoint></content></entry>
<entry><link rel="self" href="/M"/><link rel="related" href="/B"/><link rel="related" href="/T"/><content><e:MeterReading/></content></entry>
<entry><link rel="self" href="/T"/><content><e:ReadingType><e:flowDirection>1</e:flowDirection><e:powerOfTenMultiplier>0</e:powerOfTenMultiplier><e:uom>72</e:uom></e:ReadingType></content></entry>
<entry><link rel="self" href="/B"/><content><e:IntervalBlock><e:IntervalReading><e:timePeriod><e:duration>900</e:duration><e:start>1704067200</e:start></e:timePeriod><e:value>282</e:value><e:ReadingQuality><e:quality>8</e:quality></e:ReadingQuality></e:IntervalReading></e:IntervalBlock></content><updated>2024-01-02T00:00:00Z</updated></entry></feed>"#;
const MSCONS: &str = "UNA:+,? 'UNB+UNOC:3+1:500+2:500+160112:1347+R++TL'UNH+1+MSCONS:D:04B:UN:2.2e'BGM+7+1-1+9'DTM+137:201601121347:203'\
LOC+172+US1'LIN+1'PIA+5+1-1?:1.10.0:SRW'QTY+220:0,125'DTM+163:201512010000?+01:303'DTM+164:201512010015?+01:303'UNT+10+1'UNZ+1+R'";
const CSV: &str = "LCLid,DateTime,KWH/hh (per half hour) \r\nMAC1,2012-10-12 00:30:00.0000000, 0.5 \r\nMAC1,2012-10-12 01:00:00,Null\r\nMAC1,2012-10-12 01:30:00,1.4529999\r\n";
const LONG: &str = "AccountNumber,NMI,DeviceNumber,DeviceType,RegisterCode,RateTypeDescription,StartDate,EndDate,ProfileReadValue,RegisterReadValue,QualityFlag\n\
1,N1,M1,COMMS,M1#E1,Usage,7/10/2018 1:30,7/10/2018 1:59,0.5,0,A\n1,\"N,1\",M1,COMMS,M1#E1,Usage,7/10/2018 11:30:00 PM,x,0.5,0,A\n";
const WIDE: &str = "NMI,METER SERIAL NUMBER,CON/GEN,DATE,ESTIMATED?,00:00 - 00:30,23:30 - 00:00\nN1,M1,Consumption,5/03/2019,No,1.5,\n";

const SAMPLES: [(Format, &str); 7] = [
    (Format::Nem, NEM12),
    (Format::Nem, NEM13),
    (Format::Espi, ESPI),
    (Format::Mscons, MSCONS),
    (Format::Csv, CSV),
    (Format::Csv, LONG),
    (Format::Csv, WIDE),
];

fn check(reading: &Reading) {
    assert!(!reading.usage_point.is_empty() && !reading.channel.is_empty());
    assert!(reading.duration_s > 0);
    assert_eq!(reading.value.is_none(), reading.quality == Quality::Missing);
    if let Some(value) = reading.value {
        value.micro().expect("a canonical value fits DECIMAL(18,6)");
    }
    let mut json = Vec::new();
    reading.write_json(&mut json);
    let back: Reading = serde_json::from_slice(&json).expect("the canonical form is JSON");
    assert_eq!(&back, reading);
}

/// Reads bytes; whatever comes out must hold the promises.
fn survive(bytes: &[u8], options: &ReadOptions) -> (u64, Result<(), FileError>) {
    let mut events = 0;
    let mut counted = (0, 0);
    let result = sanso_reading::read_bytes("hostile", bytes, options, |event| {
        events += 1;
        match event {
            Event::Reading(reading) => {
                counted.0 += 1;
                check(reading);
            }
            Event::Refused(refused) => {
                counted.1 += 1;
                assert!(!refused.reason.is_empty() && !refused.remedy.is_empty());
                assert!(refused.record.len() <= sanso_reading::QUOTE_MAX);
            }
        }
        ControlFlow::Continue(())
    });
    match result {
        Ok(summary) => {
            assert_eq!((summary.readings, summary.refused), counted);
            (events, Ok(()))
        }
        Err(error) => {
            assert_eq!(events, 0, "a file that fails gives nothing: {error}");
            (events, Err(error))
        }
    }
}

fn forced(format: Format) -> Vec<ReadOptions> {
    match format {
        Format::Csv => Mapping::shipped()
            .iter()
            .map(|mapping| ReadOptions { mapping: Some(mapping.clone()), ..ReadOptions::default() })
            .collect(),
        format => vec![ReadOptions { format: Some(format), ..ReadOptions::default() }],
    }
}

/// A change to some bytes.
#[derive(Clone, Debug)]
enum Change {
    Set(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Repeat(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..6),
        prop::sample::select(vec![
            "\n",
            "\r\n",
            ",",
            "\"",
            "'",
            "+",
            "?",
            ":",
            "-",
            "0",
            "9999999999999999999",
            "1e400",
            "1e-400",
            "300,",
            "200,",
            "400,1,48,",
            "900\n",
            "100,NEM12,\n",
            "UNA",
            "UNH+1+MSCONS'",
            "<entry>",
            "</entry>",
            "<!--",
            "&amp;",
            "&x;",
            "<![CDATA[",
            "]]>",
            "\u{feff}",
            "é",
            "\0",
            "20240230",
            "24:00",
            "-1",
            "+14",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<usize>(), piece).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<usize>(), 1_usize..40).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<usize>(), 1_usize..400).prop_map(|(at, length)| Change::Repeat(at, length)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match change {
        Change::Set(at, byte) => bytes[at % length] = *byte,
        Change::Insert(at, piece) => {
            bytes.splice(at % length..at % length, piece.iter().copied());
        }
        Change::Remove(at, count) => {
            let at = at % length;
            bytes.drain(at..(at + count).min(length));
        }
        Change::Repeat(at, count) => {
            let at = at % length;
            let piece = bytes[at..(at + count).min(length)].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}

#[test]
fn the_samples_themselves_are_read() {
    for (format, sample) in SAMPLES {
        let (events, result) = survive(sample.as_bytes(), &ReadOptions::default());
        assert!(result.is_ok() && events > 0, "{format}: {result:?}");
    }
}

#[test]
fn files_with_an_end_mark_cut_at_any_byte_give_no_reading() {
    for (format, sample) in SAMPLES.into_iter().filter(|(format, _)| *format != Format::Csv) {
        let bytes = sample.trim_end().as_bytes();
        for cut in 0..bytes.len() {
            let (events, result) = survive(&bytes[..cut], &ReadOptions::default());
            assert!(result.is_err(), "{format} cut at {cut} gave {events} events");
        }
    }
}

#[test]
fn compressed_files_cut_at_any_byte_give_no_reading() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(CSV.as_bytes()).expect("compress");
    let bytes = gzip.finish().expect("compress");
    assert!(survive(&bytes, &ReadOptions::default()).1.is_ok());
    for cut in 2..bytes.len() {
        assert!(survive(&bytes[..cut], &ReadOptions::default()).1.is_err(), "cut at {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn altered_files_never_panic(
        sample in 0..SAMPLES.len(),
        changes in prop::collection::vec(change(), 1..8),
    ) {
        let (format, text) = SAMPLES[sample];
        let mut bytes = text.as_bytes().to_vec();
        for change in &changes {
            apply(&mut bytes, change);
        }
        let _ = survive(&bytes, &ReadOptions::default());
        for options in forced(format) {
            let _ = survive(&bytes, &options);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = survive(&bytes, &ReadOptions::default());
        for format in [Format::Nem, Format::Espi, Format::Mscons, Format::Csv] {
            for options in forced(format) {
                let _ = survive(&bytes, &options);
            }
        }
    }
}
