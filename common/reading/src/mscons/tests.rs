use std::ops::ControlFlow;

use crate::{Event, FileError, Quality, ReadOptions, Reading, Refused};

fn read(text: &str) -> (Vec<Reading>, Vec<Refused>) {
    let (mut readings, mut refused) = (Vec::new(), Vec::new());
    let summary = crate::read_bytes("test.edi", text.as_bytes(), &ReadOptions::default(), |event| {
        match event {
            Event::Reading(reading) => readings.push(reading.clone()),
            Event::Refused(record) => refused.push(record.clone()),
        }
        ControlFlow::Continue(())
    });
    summary.expect("a sound interchange");
    (readings, refused)
}

fn broken(text: &str) -> String {
    let result = crate::read_bytes("test.edi", text.as_bytes(), &ReadOptions::default(), |event| {
        panic!("a broken file gives nothing, but gave {event:?}")
    });
    match result {
        Err(error @ FileError::Broken { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

/// One quantity from `HHMM` to `HHMM` of a day.
fn quantity(value: &str, from: &str, to: &str) -> String {
    format!("QTY+{value}'DTM+163:20240115{from}?+01:303'DTM+164:20240115{to}?+01:303'")
}

/// An interchange of one message with the given quantities, counted rightly.
fn interchange(quantities: &str) -> String {
    let message = format!(
        "UNH+1+MSCONS:D:04B:UN:2.4b'BGM+Z45+1+9'DTM+137:202401161200?+01:303'NAD+MS+99::293'UNS+D'NAD+DP'\
         LOC+172+DE?'01'DTM+163:202401150000?+01:303'DTM+164:202401160000?+01:303'LIN+1'PIA+5+1-1?:1.29.0:SRW'{quantities}"
    );
    let segments = message.replace("?'", "").matches('\'').count() + 1;
    format!("UNA:+.? '\nUNB+UNOC:3+1:500+2:500+240116:1200+REF1'\n{message}UNT+{segments}+1'\nUNZ+1+REF1'\n")
}

#[test]
fn offsets_separators_and_releases_are_understood() {
    let text = interchange(&quantity("220:1.5:KWH", "0000", "0015"));
    let (readings, refused) = read(&text);
    assert_eq!(refused, []);
    let reading = &readings[0];
    assert_eq!(reading.usage_point, "DE'01");
    assert_eq!((reading.channel.as_str(), reading.unit.as_str()), ("1-1:1.29.0", "kWh"));
    assert_eq!(reading.start_utc.to_rfc3339(), "2024-01-14T23:00:00+00:00");
    assert_eq!(reading.duration_s, 900);
    assert_eq!(reading.source_version, 20_240_116_110_000);
    let other = text.replacen("UNA:+.? '", "UNA;*,! |", 1);
    let (head, body) = other.split_at(9);
    let translated: String = body
        .chars()
        .map(|c| match c {
            ':' => ';',
            '+' => '*',
            '?' => '!',
            '\'' => '|',
            other => other,
        })
        .collect();
    let translated =
        translated.replace("1!;1", "1:1").replace("!*01", "+01").replace("!|", "'").replace("1.5", "1,5");
    assert_eq!(read(&format!("{head}{translated}")).0, readings);
}

#[test]
fn qualifiers_units_and_blanks_become_quality_unit_and_null() {
    let quantities = [
        quantity("220:1", "0000", "0015"),
        quantity("67:2:WHR", "0015", "0030"),
        quantity("20:3:MWH", "0030", "0045"),
        quantity("220:", "0045", "0100"),
    ];
    let (readings, refused) = read(&interchange(&quantities.concat()));
    assert_eq!(refused, []);
    let found: Vec<_> = readings.iter().map(|r| (r.quality, r.unit.as_str())).collect();
    let expected = [
        (Quality::Actual, "kWh"),
        (Quality::Substituted, "WHR"),
        (Quality::Questionable, "kWh"),
        (Quality::Missing, "kWh"),
    ];
    assert_eq!(found, expected);
    assert_eq!(readings[2].value.expect("a value").to_string(), "3000");
}

#[test]
fn irregular_intervals_are_refused_with_their_place() {
    let quantities = [
        quantity("220:1", "0000", "0015"),
        quantity("220:1", "0015", "0031"),
        quantity("220:1", "0031", "0045"),
        quantity("220:1", "0045", "0050"),
        quantity("220:1", "0100", "0115"),
        quantity("220:1", "0200", "0145"),
        quantity("220:1", "0115", "0130"),
        quantity("220:1", "0130", "0145"),
        quantity("220:1", "0145", "0200"),
    ];
    let (readings, refused) = read(&interchange(&quantities.concat()));
    assert_eq!((readings.len(), refused.len()), (5, 4));
    for (refusal, reason) in refused.iter().zip(["16 minutes", "14 minutes", "5 minutes", "not later"]) {
        assert!(refusal.reason.contains(reason), "{refusal}");
        assert!(refusal.record.starts_with("QTY+220:1'DTM+163:20240115"), "{}", refusal.record);
    }
    assert_eq!(refused[0].place, crate::Place::Segment(16));
}

#[test]
fn quantities_without_place_product_or_time_are_refused() {
    let text = interchange(&quantity("220:1", "0000", "0015"));
    for (from, to, reason) in [
        ("LOC+172+", "LOC+237+", "no metering or market location"),
        ("PIA+5+", "PIA+1+", "no PIA+5"),
        ("QTY+220:1", "QTY+220:x", "not a decimal number"),
        ("DTM+164:202401150015", "DTM+165:202401150015", "no DTM+164"),
        ("202401150015?+01:303", "202401150015:203", "no offset from UTC"),
        ("202401150015?+01:303", "202401150015?+1:303", "not a time in format 303"),
    ] {
        let (readings, refused) = read(&text.replace(from, to));
        assert_eq!((readings.len(), refused.len()), (0, 1), "{to}");
        assert!(refused[0].reason.contains(reason), "{}", refused[0]);
    }
}

#[test]
fn an_envelope_that_does_not_agree_breaks_the_file() {
    let text = interchange(&quantity("220:1", "0000", "0015"));
    for (from, to, reason) in [
        ("QTY+220:1'", "", "UNT states"),
        ("UNZ+1+REF1'", "", "no UNZ"),
        ("UNZ+1+", "UNZ+2+", "UNZ states 2 messages"),
        ("UNZ+1+REF1", "UNZ+1+REF2", "expected 'REF1'"),
        ("UNZ+1+REF1'", "UNZ+1+REF1", "the last segment has no end"),
        ("UNH+1", "UNX+1", "outside a message"),
        ("UNB", "UNC", "outside an interchange"),
        ("UNA:+.? '", "UNA::.? '", "no usable separators"),
    ] {
        let error = broken(&text.replacen(from, to, 1));
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn interchanges_may_follow_each_other_with_separators_of_their_own() {
    let text = interchange(&quantity("220:1.5", "0000", "0015"));
    let plain = text.replacen("UNA:+.? '\n", "", 1);
    let (readings, refused) = read(&format!("{text}{plain}{text}"));
    assert_eq!((readings.len(), refused.len()), (3, 0));
    assert!(broken(&format!("{text}{}", &plain[..plain.len() - 8])).contains("cut"));
}

#[test]
fn messages_of_other_types_are_left_out_with_a_warning() {
    let text = interchange(&quantity("220:1", "0000", "0015")).replace("MSCONS", "UTILMD");
    let mut events = 0;
    let summary = crate::read_bytes("test.edi", text.as_bytes(), &ReadOptions::default(), |_| {
        events += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(events, 0);
    assert!(summary.expect("sound").warnings.iter().any(|warning| warning.contains("UTILMD")));
}
