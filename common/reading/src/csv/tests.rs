use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Event, FileError, FileSummary, Mapping, Quality, ReadOptions, Reading, Refused};

fn read_with(text: &str, options: &ReadOptions) -> (Vec<Reading>, Vec<Refused>, FileSummary) {
    let (mut readings, mut refused) = (Vec::new(), Vec::new());
    let summary = crate::read_bytes("test.csv", text.as_bytes(), options, |event| {
        match event {
            Event::Reading(reading) => readings.push(reading.clone()),
            Event::Refused(record) => refused.push(record.clone()),
        }
        ControlFlow::Continue(())
    });
    (readings, refused, summary.expect("a sound file"))
}

fn read(text: &str) -> (Vec<Reading>, Vec<Refused>, FileSummary) {
    read_with(text, &ReadOptions::default())
}

const LCL: &str = "LCLid,DateTime,KWH/hh (per half hour) \n";

#[test]
fn every_shipped_mapping_is_sound_and_named_as_it_is_called() {
    let names: Vec<_> = Mapping::shipped().iter().map(|mapping| mapping.name()).collect();
    assert_eq!(names, ["sgsc", "lcl", "au_retailer_wide", "au_retailer_long"]);
    assert!(Mapping::named_or_loaded("lcl").is_ok());
    let error = Mapping::named_or_loaded("nothing").expect_err("no such mapping").to_string();
    assert!(error.contains("au_retailer_wide"), "{error}");
}

#[test]
fn labels_at_the_end_are_moved_to_the_start() {
    let (readings, refused, _) = read(&format!("{LCL}MAC1,2012-10-12 00:30:00.0000000, 0.5 \n"));
    assert_eq!(refused, []);
    assert_eq!(readings[0].start_utc.to_rfc3339(), "2012-10-12T00:00:00+00:00");
    assert_eq!(
        (readings[0].duration_s, readings[0].value.expect("a value").to_string().as_str()),
        (1800, "0.5")
    );
    assert_eq!(readings[0].source_version, 0);
}

#[test]
fn the_callers_version_is_taken_where_the_file_has_none() {
    let options = ReadOptions { source_version: Some(7), ..ReadOptions::default() };
    let (readings, ..) = read_with(&format!("{LCL}MAC1,2012-10-12 00:30:00,1\n"), &options);
    assert_eq!(readings[0].source_version, 7);
}

#[test]
fn how_much_of_a_file_has_been_read_is_told_while_its_readings_are_given() {
    let row = |meter| format!("MAC{meter},2012-10-12 00:30:00.0000000, 0.5 \n");
    let text: String = std::iter::once(LCL.to_owned()).chain((0..20_000).map(row)).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let (path, position) = (folder.path().join("lcl.csv"), Arc::new(AtomicU64::new(0)));
    std::fs::write(&path, &text).expect("written");
    let mut told = Vec::new();
    let summary = crate::read_file_watched(&path, &ReadOptions::default(), &position, |_| {
        told.push(position.load(Ordering::Relaxed));
        ControlFlow::Continue(())
    });
    summary.expect("a sound file");
    let size = text.len() as u64;
    assert!(
        told.is_sorted() && told[0] < size / 2,
        "it does not begin at the end of the pass before: {}",
        told[0]
    );
    assert_eq!(*told.last().expect("readings"), size);
}

#[test]
fn only_the_channels_asked_for_are_handed_out() {
    let options = ReadOptions { channels: vec!["other".into()], ..ReadOptions::default() };
    let text = "customer_id,reading_datetime,general_supply_kwh,other_kwh\n1,2012-10-12 00:30:00,1,2\n";
    let (readings, refused, summary) = read_with(text, &options);
    assert_eq!((readings.len(), refused.len(), summary.ignored), (1, 0, 1));
    assert_eq!(readings[0].channel, "other");
}

#[test]
fn bad_rows_are_refused_alone_and_whole() {
    for (row, reason) in [
        ("MAC1,2012-12-19 12:37:27.0000000,Null", "off the grid"),
        ("MAC1,2012-10-12 00:30:00.5000000,1", "off the grid"),
        ("MAC1,12/10/2012,1", "is not a time"),
        ("MAC1,2012-10-12 00:30:00,1.2.3", "value '1.2.3' is not a decimal number"),
        ("MAC1,2012-10-12 00:30:00,0.1234567", "cannot be held exactly"),
        (",2012-10-12 00:30:00,1", "usage point is empty"),
        ("MAC1,2012-10-12 00:30:00", "2 fields, but the header has 3"),
        ("MAC1,2012-10-12 00:30:00,1,2", "4 fields"),
        ("\"MAC1,2012-10-12 00:30:00,1", "quoted field"),
        ("MAC1,1012-10-12 00:30:00,1", "out of range"),
    ] {
        let (readings, refused, _) = read(&format!("{LCL}{row}\nMAC1,2012-10-12 01:00:00,2\n"));
        assert_eq!((readings.len(), refused.len()), (1, 1), "{row}");
        assert!(refused[0].reason.contains(reason), "{}", refused[0]);
        assert_eq!(refused[0].record, row);
        assert_eq!(refused[0].place, crate::Place::Line(2));
    }
}

#[test]
fn a_last_line_without_an_end_is_never_trusted() {
    let whole = format!("{LCL}MAC1,2012-10-12 00:30:00,1\nMAC1,2012-10-12 01:00:00,2.345\n");
    assert_eq!(read(&whole).0.len(), 2);
    // Its last digits may be missing.
    for text in [&whole[..whole.len() - 1], &whole[..whole.len() - 3]] {
        let (readings, refused, _) = read(text);
        assert_eq!((readings.len(), refused.len()), (1, 1));
        assert!(refused[0].reason.contains("no line end"), "{}", refused[0]);
    }
    // A field is missing: the file was cut, and what else is missing isn't known.
    let cut = whole.rfind(',').expect("a comma");
    let result = crate::read_bytes("test.csv", &whole.as_bytes()[..cut], &ReadOptions::default(), |event| {
        panic!("a broken file gives nothing, but gave {event:?}")
    });
    assert!(matches!(result, Err(FileError::Broken { .. })), "{result:?}");
}

#[test]
fn wide_rows_take_their_intervals_from_the_header() {
    let text = "NMI,METER SERIAL NUMBER,CON/GEN,DATE,ESTIMATED?,00:00 - 00:30,23:30 - 00:00\n\
                N1,M1,Consumption,5/03/2019,No,1.5,\nN1,M1,Generation,05/Mar/2019,Yes,0.5,2\n";
    let (readings, refused, summary) = read(text);
    assert_eq!(refused, []);
    assert_eq!(summary.mapping.as_deref(), Some("au_retailer_wide"));
    let found: Vec<_> = readings
        .iter()
        .map(|r| (r.channel.as_str(), r.start_utc.format("%d %H:%M").to_string(), r.quality, r.duration_s))
        .collect();
    assert_eq!(
        found,
        [
            ("consumption", "04 14:00".to_owned(), Quality::Actual, 1800),
            ("consumption", "05 13:30".to_owned(), Quality::Missing, 1800),
            ("generation", "04 14:00".to_owned(), Quality::Estimated, 1800),
            ("generation", "05 13:30".to_owned(), Quality::Estimated, 1800),
        ]
    );
    assert_eq!(readings[0].meter.as_deref(), Some("M1"));
}

#[test]
fn long_rows_on_a_local_clock_are_placed_or_refused() {
    let text = "AccountNumber,NMI,DeviceNumber,DeviceType,RegisterCode,RateTypeDescription,StartDate,EndDate,\
                ProfileReadValue,RegisterReadValue,QualityFlag\n\
                1,N1,M1,COMMS,M1#E1,Usage,7/10/2018 1:30,7/10/2018 1:59,0.5,0,A\n\
                1,N1,M1,COMMS,M1#E1,Usage,7/10/2018 2:30,7/10/2018 2:59,0.5,0,A\n\
                1,N1,M1,COMMS,M1#B1,Usage,7/10/2018 3:00,7/10/2018 3:29,0.5,0,E\n\
                1,N1,M1,COMMS,M1#B1,Usage,1/04/2018 2:00,1/04/2018 2:29,0.5,0,A\n";
    let (readings, refused, _) = read(text);
    let found: Vec<_> = readings.iter().map(|r| (r.channel.as_str(), r.start_utc.to_rfc3339())).collect();
    assert_eq!(
        found,
        [("E1", "2018-10-06T15:30:00+00:00".to_owned()), ("B1", "2018-10-06T16:00:00+00:00".to_owned()),]
    );
    let reasons: Vec<_> = refused.iter().map(|refused| &refused.reason).collect();
    assert!(reasons[0].contains("did not exist"), "{reasons:?}");
    assert!(reasons[1].contains("came twice"), "{reasons:?}");
}

const TEXAS: &str = r#"
    name = "texas"
    delimiter = ";"
    null = ["", "n/a"]
    [usage_point]
    column = "ESIID"
    [channel]
    column = "KIND"
    map = { Consumption = "in", "Surplus" = "out" }
    [time]
    columns = ["START"]
    formats = ["%m/%d/%Y %H:%M"]
    zone = "-06:00"
    interval_s = 900
    [[values]]
    column = "WH"
    unit = "Wh"
    [version]
    column = "REVISION"
    [quality]
    column = "EA"
    map = { A = "actual", E = "estimated" }
"#;

#[test]
fn a_users_mapping_is_found_by_the_header() {
    let mapping = Mapping::parse("texas.toml", TEXAS).expect("a mapping");
    let options = ReadOptions { mappings: vec![Arc::new(mapping)], ..ReadOptions::default() };
    let text = "esiid;KIND;START;WH;REVISION;EA\n\
                \"10;1\";Surplus;01/31/2024 23:45;12;3;e\n10;Other;01/31/2024 23:45;N/A;01/02/2024 10:30;x\n\
                10;Surplus;01/31/2024 23:45;1;soon;A\n";
    let (readings, refused, summary) = read_with(text, &options);
    assert_eq!(summary.mapping.as_deref(), Some("texas"));
    let first = &readings[0];
    assert_eq!((first.usage_point.as_str(), first.channel.as_str()), ("10;1", "out"));
    assert_eq!(first.start_utc.to_rfc3339(), "2024-02-01T05:45:00+00:00");
    assert_eq!(first.value.expect("a value").to_string(), "0.012");
    assert_eq!((first.source_version, first.quality), (3, Quality::Estimated));
    let second = &readings[1];
    assert_eq!((second.channel.as_str(), second.value), ("Other", None));
    assert_eq!((second.source_version, second.source_quality.as_deref()), (20_240_102_103_000, Some("x")));
    assert_eq!(refused.len(), 1);
    assert!(refused[0].reason.contains("version 'soon'"), "{}", refused[0]);
}

#[test]
fn faulty_mappings_name_what_is_wrong() {
    for (from, to, reason) in [
        ("interval_s = 900", "", "interval_s"),
        ("zone = \"-06:00\"", "zone = \"Texas\"", "neither an offset"),
        ("columns = [\"START\"]", "columns = []", "at least one"),
        ("unit = \"Wh\"", "units = \"Wh\"", "units"),
        ("column = \"ESIID\"", "", "either column or constant"),
    ] {
        let error = Mapping::parse("texas.toml", &TEXAS.replacen(from, to, 1)).expect_err("a faulty mapping");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn a_header_without_the_mapped_columns_breaks_the_file() {
    let options = ReadOptions { mapping: Mapping::shipped_by_name("sgsc"), ..ReadOptions::default() };
    let result = crate::read_bytes("test.csv", b"a,b\n1,2\n", &options, |_| panic!("nothing is given"));
    let error = result.expect_err("a broken file").to_string();
    assert!(error.contains("mapping 'sgsc'") && error.contains("READING_DATETIME"), "{error}");
    let result = crate::read_bytes("test.csv", b"a,b\n1,2\n", &ReadOptions::default(), |_| panic!("nothing"));
    assert!(matches!(result, Err(FileError::UnknownFormat { .. })));
}
