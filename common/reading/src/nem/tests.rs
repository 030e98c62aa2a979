use std::ops::ControlFlow;

use crate::{Event, FileError, FileSummary, Quality, ReadOptions, Reading, Refused};

/// Reads a text and expects the file as a whole to be sound.
fn read(text: &str) -> (Vec<Reading>, Vec<Refused>, FileSummary) {
    let (mut readings, mut refused) = (Vec::new(), Vec::new());
    let summary = crate::read_bytes("test.csv", text.as_bytes(), &ReadOptions::default(), |event| {
        match event {
            Event::Reading(reading) => readings.push(reading.clone()),
            Event::Refused(record) => refused.push(record.clone()),
        }
        ControlFlow::Continue(())
    });
    (readings, refused, summary.expect("a sound file"))
}

fn broken(text: &str) -> String {
    let result = crate::read_bytes("test.csv", text.as_bytes(), &ReadOptions::default(), |event| {
        panic!("a broken file gives nothing, but gave {event:?}")
    });
    match result {
        Err(error @ FileError::Broken { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

/// A file of one series with the given records below its 200 record.
fn file(records: &str) -> String {
    format!("100,NEM12,200405011135,MDA1,Ret1\n200,NMI1,E1,1,E1,N1,METER,Wh,30,\n{records}\n900\n")
}

/// A 300 record with 48 equal values.
fn day(date: &str, value: &str, tail: &str) -> String {
    format!("300,{date},{}{tail}", format!("{value},").repeat(48))
}

#[test]
fn positions_end_their_intervals_on_a_clock_ten_hours_ahead() {
    let (readings, refused, _) = read(&file(&day("20040201", "250", "A,,,20040202120025,20040203000000")));
    assert_eq!((readings.len(), refused.len()), (48, 0));
    assert_eq!(readings[0].start_utc.to_rfc3339(), "2004-01-31T14:00:00+00:00");
    assert_eq!(readings[47].start_utc.to_rfc3339(), "2004-02-01T13:30:00+00:00");
    assert_eq!(readings[0].value.expect("a value").to_string(), "0.25");
    assert_eq!((readings[0].duration_s, readings[0].unit.as_str()), (1800, "kWh"));
    assert_eq!(readings[0].source_version, 20_040_202_120_025);
}

#[test]
fn unusable_update_times_fall_back_to_load_then_file_time() {
    let version = |tail: &str| read(&file(&day("20040201", "1", tail))).0[0].source_version;
    assert_eq!(version("A,,,2.01811E+13,20040203000000"), 20_040_203_000_000);
    assert_eq!(version("A,,,,"), 20_040_501_113_500);
    assert_eq!(version("A"), 20_040_501_113_500);
    let download = format!("200,NMI1,E1,1,E1,N1,METER,Wh,30,\n{}\n900\n", day("20040201", "1", "A,,,,"));
    assert_eq!(read(&download).0[0].source_version, 0);
}

#[test]
fn quality_records_override_their_intervals_whatever_the_flag() {
    for flag in ["V", "A"] {
        let records =
            format!("{}\n400,3,4,S14,79,hot\n400,48,48,N,,", day("20040201", "1", &format!("{flag},,,,")));
        let (readings, refused, _) = read(&file(&records));
        assert_eq!(refused, []);
        let uncovered = if flag == "V" { Quality::Unqualified } else { Quality::Actual };
        assert_eq!(readings[1].quality, uncovered);
        assert_eq!(readings[1].reason, None);
        for reading in &readings[2..4] {
            assert_eq!(reading.quality, Quality::Substituted);
            assert_eq!(reading.source_quality.as_deref(), Some("S14"));
            assert_eq!(reading.reason.as_deref(), Some("79 hot"));
        }
        assert_eq!(readings[4].quality, uncovered);
        assert_eq!((readings[47].value, readings[47].quality), (None, Quality::Missing));
    }
}

#[test]
fn blanks_are_null_and_not_zero() {
    let (readings, refused, _) = read(&file(&day("20040201", "", "A,,,,")));
    assert_eq!((readings.len(), refused.len()), (48, 0));
    assert!(readings.iter().all(|reading| reading.value.is_none() && reading.quality == Quality::Missing));
}

#[test]
fn a_bad_day_is_refused_whole_and_alone() {
    for (bad, reason) in [
        (day("20040231", "1", "A,,,,"), "is not a date"),
        (day("20040201", "1.2.3", "A,,,,"), "value 1 '1.2.3' is not a decimal number"),
        (day("20040201", "0.0000001", "A,,,,"), "cannot be held exactly"),
        (day("20040201", "1", "1,A,,,,"), "49 values, but 48 of 30 minutes"),
        (day("20040201", "1", "Q,,,,"), "no quality flag"),
        (format!("{}\n400,48,49,A,,", day("20040201", "1", "V,,,,")), "400 record at line 4"),
        (format!("{}\n400,0,9,A,,", day("20040201", "1", "V,,,,")), "400 record at line 4"),
        ("300,20040201,V,,,20040202120025,".into(), "0 values"),
    ] {
        let (readings, refused, _) = read(&file(&format!("{bad}\n{}", day("20040301", "1", "A,,,,"))));
        assert_eq!((readings.len(), refused.len()), (48, 1), "{bad}");
        assert!(refused[0].reason.contains(reason), "{}", refused[0]);
        assert!(refused[0].record.starts_with("300,2004") && refused[0].record.len() <= crate::QUOTE_MAX);
        assert_eq!(refused[0].place, crate::Place::Line(3));
    }
}

#[test]
fn days_of_an_unreadable_series_are_refused_with_it() {
    let records = format!(
        "200,NMI1,E1,1,E2,N1,METER,Wh,31,\n{0}\n400,1,2,A,,\n200,NMI1,E1,1,E3,N1,METER,Wh,30,\n{0}\n2OO,NMI1,E1,1,E4\n{0}",
        day("20040201", "1", "A,,,,")
    );
    let (readings, refused, _) = read(&file(&records));
    assert!(readings.iter().all(|reading| reading.channel == "E3"));
    assert_eq!(readings.len(), 48);
    let reasons: Vec<_> = refused.iter().map(|refused| refused.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "interval length '31' is not 5, 15 or 30",
            "its series is unknown, because the record at line 3 was refused",
            "unknown record type '2OO'",
            "its series is unknown, because the record at line 8 was refused",
        ]
    );
}

#[test]
fn a_day_in_no_character_set_is_refused_without_harm_to_others() {
    let good = day("20040202", "1", "A,,,,");
    let mut bytes = file(&format!("{}\n{good}", day("20040201", "1", "A,5,M@,,"))).into_bytes();
    let at = bytes.iter().position(|byte| *byte == b'@').expect("a mark");
    bytes[at] = 0xfc;
    let (mut readings, mut refused) = (0, 0);
    let result = crate::read_bytes("test.csv", &bytes, &ReadOptions::default(), |event| {
        match event {
            Event::Reading(_) => readings += 1,
            Event::Refused(record) => {
                assert!(record.reason.contains("UTF-8"));
                refused += 1;
            }
        }
        ControlFlow::Continue(())
    });
    assert!(result.is_ok());
    assert_eq!((readings, refused), (48, 1));
}

#[test]
fn files_that_are_not_whole_give_one_error_and_nothing_else() {
    let whole = file(&day("20040201", "1", "A,,,,"));
    let without_end = whole.replace("900\n", "");
    assert!(broken(&without_end).contains("no 900 record"));
    assert!(broken(&format!("{without_end}{whole}")).contains("second 100 record"));
    let headless: String = whole.lines().skip(2).flat_map(|line| [line, "\n"]).collect();
    assert!(broken(&headless).contains("the beginning of the file is missing"));
    assert!(broken(&whole.replace("NEM12", "NEM15")).contains("NEM15"));
    // A customer's download without 100 and 900 must at least end with a line end.
    let download: String = without_end.lines().skip(1).collect::<Vec<_>>().join("\n");
    assert!(broken(&download).contains("no line end"));
    let (readings, _, summary) = read(&format!("{download}\n"));
    assert_eq!((readings.len(), summary.warnings.len()), (48, 2));
}

#[test]
fn blocks_may_follow_each_other_with_blank_lines_and_crlf() {
    let one = file(&day("20040201", "1", "A,,,,")).replace('\n', "\r\n");
    let text = format!("\u{feff}\r\n{one},,,\r\n{one}500,O,,20040304050505,1\r\n");
    // The 500 stands behind the last 900.
    assert!(broken(&text).contains("a 500 record before any 200"));
    let text = format!("\u{feff}\r\n{one},,,\r\n{one}");
    let (readings, refused, summary) = read(&text);
    assert_eq!((readings.len(), refused.len(), summary.warnings.len()), (96, 0, 0));
}

#[test]
fn empty_units_follow_from_the_suffix() {
    for (suffix, unit) in [("E1", "kWh"), ("B1", "kWh"), ("Q1", "kvarh"), ("K2", "kvarh"), ("V1", "")] {
        let text = file(&day("20040201", "1", "A,,,,"))
            .replace(",E1,N1,METER,Wh,", &format!(",{suffix},N1,METER,,"));
        let reading = &read(&text).0[0];
        assert_eq!((reading.channel.as_str(), reading.unit.as_str()), (suffix, unit));
        assert_eq!(reading.value.expect("a value").to_string(), "1");
    }
}

#[test]
fn accumulation_reads_span_the_time_between_two_reads() {
    let record = "250,NMI2,11,1,11,11,M1,E,10.0,20041001000001,A,,,27.0,20041002000001,E62,81,Alarm,17.000,KWH,,20041003000000,";
    let text = format!("100,NEM13,200406061036,A,B\n{record}\n550,O,,O,\n900\n");
    let (readings, refused, summary) = read(&text);
    assert_eq!((readings.len(), refused.len(), summary.ignored), (1, 0, 1));
    let reading = &readings[0];
    assert_eq!(reading.start_utc.to_rfc3339(), "2004-09-30T14:00:01+00:00");
    assert_eq!((reading.duration_s, reading.channel.as_str()), (86_400, "11"));
    assert_eq!((reading.quality, reading.reason.as_deref()), (Quality::Estimated, Some("81 Alarm")));
    assert_eq!(reading.value.expect("a value").to_string(), "17");
    assert_eq!(reading.source_version, 20_041_003_000_000);

    let backwards = text.replace("20041002000001", "20040902000001");
    let (readings, refused, _) = read(&backwards);
    assert_eq!((readings.len(), refused.len()), (0, 1));
    assert!(refused[0].reason.contains("not later"), "{}", refused[0]);
}

#[test]
fn the_receiver_may_stop_at_any_event() {
    let text = file(&day("20040201", "1", "A,,,,"));
    let mut seen = 0;
    let result = crate::read_bytes("test.csv", text.as_bytes(), &ReadOptions::default(), |_| {
        seen += 1;
        if seen == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(result, Err(FileError::Stopped { .. })));
    assert_eq!(seen, 5);
}
