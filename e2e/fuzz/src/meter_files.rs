//! Meter files: nothing panics, a damaged file gives nothing, readings are canonical.

use std::ops::ControlFlow;
use std::sync::Arc;

use sanso_reading::{Decimal, Event, Format, Mapping, Quality, ReadOptions, Reading};

/// NEM12 and NEM13.
pub(crate) fn nem(bytes: &[u8]) {
    read(bytes, ReadOptions { format: Some(Format::Nem), ..ReadOptions::default() });
}

/// Green Button: by the shape of readings and event by event, the same is told.
pub(crate) fn espi(bytes: &[u8]) {
    let options = ReadOptions { format: Some(Format::Espi), ..ReadOptions::default() };
    let mut told = Vec::new();
    let end = sanso_reading::read_bytes("fuzzed", bytes, &options, |event| {
        told.push(format!("{event:?}"));
        ControlFlow::Continue(())
    });
    let mut expected = Vec::new();
    let expected_end = sanso_reading::read_espi_by_events("fuzzed", bytes, &options, |event| {
        expected.push(format!("{event:?}"));
        ControlFlow::Continue(())
    });
    assert_eq!(told, expected);
    assert_eq!(format!("{end:?}"), format!("{expected_end:?}"));
    read(bytes, options);
}

/// MSCONS.
pub(crate) fn mscons(bytes: &[u8]) {
    read(bytes, ReadOptions { format: Some(Format::Mscons), ..ReadOptions::default() });
}

/// CSV; the first byte chooses one of the shipped mappings.
pub(crate) fn csv(bytes: &[u8]) {
    let Some((choice, file)) = bytes.split_first() else { return };
    let shipped = Mapping::shipped();
    let mapping = Arc::clone(&shipped[usize::from(*choice) % shipped.len()]);
    read(file, ReadOptions { format: Some(Format::Csv), mapping: Some(mapping), ..ReadOptions::default() });
}

/// A mapping in TOML and, behind a NUL, a CSV file to read by it.
pub(crate) fn mapping(bytes: &[u8]) {
    let at = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (mapping, file) = bytes.split_at(at);
    let Ok(text) = std::str::from_utf8(mapping) else { return };
    let Ok(mapping) = Mapping::parse("fuzzed.toml", text) else { return };
    let mapping = Some(Arc::new(mapping));
    let file = file.get(1..).unwrap_or_default();
    read(file, ReadOptions { format: Some(Format::Csv), mapping, ..ReadOptions::default() });
}

/// A file of unknown format, perhaps compressed.
pub(crate) fn detect(bytes: &[u8]) {
    read(bytes, ReadOptions::default());
}

/// A number: its full spelling is the same number, and so are its millionths.
pub(crate) fn decimal(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(value) = Decimal::parse(text) else { return };
    assert_eq!(Decimal::parse(&value.to_string()), Ok(value), "{text}");
    if let Ok(micro) = value.micro() {
        assert_eq!(Decimal::from_micro(micro), value, "{text}");
    }
}

fn read(bytes: &[u8], options: ReadOptions) {
    let (mut readings, mut refused) = (0, 0);
    let result = sanso_reading::read_bytes("fuzzed", bytes, &options, |event| {
        match event {
            Event::Reading(reading) => {
                readings += 1;
                check(reading);
            }
            Event::Refused(_) => refused += 1,
        }
        ControlFlow::Continue(())
    });
    match result {
        Ok(summary) => assert_eq!((summary.readings, summary.refused), (readings, refused)),
        Err(error) => assert_eq!((readings, refused), (0, 0), "a damaged file gave something: {error}"),
    }
}

fn check(reading: &Reading) {
    assert!(!reading.usage_point.is_empty() && !reading.channel.is_empty(), "{reading:?}");
    assert!(reading.duration_s > 0, "{reading:?}");
    assert_eq!(reading.value.is_none(), reading.quality == Quality::Missing, "{reading:?}");
    if let Some(value) = reading.value {
        value.micro().expect("a canonical value fits DECIMAL(18,6)");
    }
    let mut json = Vec::new();
    reading.write_json(&mut json);
    let back: Reading = serde_json::from_slice(&json).expect("the canonical form is JSON");
    assert_eq!(&back, reading);
}
