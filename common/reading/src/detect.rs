//! Finds a file's format from its beginning, never from its name.

use std::io::Read;
use std::sync::Arc;

use crate::ReadOptions;
use crate::csv::Mapping;
use crate::event::{FileError, Format, quote};
use crate::input::{Fields, Input};

/// How much of the beginning is looked at.
const START: u64 = 64 << 10;

/// What a file was found to be.
pub(crate) enum Found {
    Nem,
    Espi,
    Mscons,
    Csv(Arc<Mapping>),
}

impl Found {
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Nem => Format::Nem,
            Self::Espi => Format::Espi,
            Self::Mscons => Format::Mscons,
            Self::Csv(_) => Format::Csv,
        }
    }
}

pub(crate) fn detect(input: &Input<'_>, options: &ReadOptions) -> Result<Found, FileError> {
    match (options.format, &options.mapping) {
        (Some(Format::Csv), Some(mapping)) => return Ok(Found::Csv(Arc::clone(mapping))),
        (Some(Format::Nem), _) => return Ok(Found::Nem),
        (Some(Format::Espi), _) => return Ok(Found::Espi),
        (Some(Format::Mscons), _) => return Ok(Found::Mscons),
        (None, _) | (Some(Format::Csv), None) => {}
    }
    let mut start = Vec::new();
    input.pass()?.take(START).read_to_end(&mut start).map_err(|error| input.io(error))?;
    by_content(&start, options).map_err(|(found, remedy)| FileError::UnknownFormat {
        file: input.name.clone(),
        found,
        remedy: remedy.into(),
    })
}

type Unknown = (String, &'static str);

fn by_content(start: &[u8], options: &ReadOptions) -> Result<Found, Unknown> {
    let start = start.trim_ascii_start();
    for (magic, found, remedy) in [
        (&b""[..], "the file is empty", "nothing to do, unless its sender says otherwise"),
        (b"PK\x03\x04", "a ZIP archive or a spreadsheet", "unpack it, or export it as CSV"),
        (b"PAR1", "a Parquet file", "export it as CSV"),
        (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
        (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
        (b"{", "JSON", "send readings in JSON to POST /v1/ingest/{source}"),
    ] {
        if start.starts_with(magic) && (!magic.is_empty() || start.is_empty()) {
            return Err((found.into(), remedy));
        }
    }
    if start.starts_with(b"UNA") || start.starts_with(b"UNB") {
        return Ok(Found::Mscons);
    }
    let text = String::from_utf8_lossy(start);
    if text.starts_with('<') {
        if text.contains("<feed")
            || text.contains(":feed")
            || text.contains("naesb.org/espi")
            || text.contains("<entry")
        {
            return Ok(Found::Espi);
        }
        return Err(("XML that is not an Atom feed".into(), "of XML formats, Green Button (ESPI) is read"));
    }
    // Blank lines and lines of commas alone may come first.
    let line = text.lines().find(|line| !line.trim_matches([' ', ',', ';', '\t']).is_empty()).unwrap_or("");
    let mut fields = Fields::default();
    let split = fields.split(line, ',');
    let is_nem = match fields.get(0) {
        "100" => fields.get(1).starts_with("NEM"),
        "200" => fields.len() >= 9,
        "250" => fields.len() >= 20,
        "300" | "400" | "500" | "550" | "900" => true,
        _ => false,
    };
    if is_nem && split.is_ok() && options.format.is_none() {
        return Ok(Found::Nem);
    }
    if let Some(mapping) = &options.mapping {
        return Ok(Found::Csv(Arc::clone(mapping)));
    }
    let shipped = Mapping::shipped();
    let mapping = options.mappings.iter().chain(shipped).find(|mapping| mapping.fits(line));
    mapping.map(|mapping| Found::Csv(Arc::clone(mapping))).ok_or_else(|| {
        let found = format!("no known format begins with '{}'", quote(line));
        (found, "if it is CSV, describe its columns in a mapping (--mapping FILE.toml)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(start: &[u8]) -> Result<Format, String> {
        by_content(start, &ReadOptions::default()).map(|found| found.format()).map_err(|(found, _)| found)
    }

    #[test]
    fn formats_are_told_by_their_beginning() {
        assert_eq!(found(b"100,NEM12,200405011135,MDA1,Ret1\r\n"), Ok(Format::Nem));
        assert_eq!(found(b"\r\n200,VABD000163,E1Q1,1,E1,N1,METSER123,kWh,30,\r\n"), Ok(Format::Nem));
        assert_eq!(found(b"UNA:+.? 'UNB+UNOC:3"), Ok(Format::Mscons));
        assert_eq!(found(b"UNB+UNOC:3"), Ok(Format::Mscons));
        assert_eq!(found(b"<?xml version='1.0'?><ns:feed xmlns:ns='x'>"), Ok(Format::Espi));
        assert_eq!(found(b"LCLid,DateTime,KWH/hh (per half hour) \r\n"), Ok(Format::Csv));
        assert_eq!(found(b"customer_id,READING_DATETIME,CALENDAR_KEY,general_supply_kwh\n"), Ok(Format::Csv));
    }

    #[test]
    fn a_given_mapping_is_for_what_is_no_other_format() {
        let options = ReadOptions { mapping: Mapping::shipped_by_name("sgsc"), ..ReadOptions::default() };
        let found = |start: &[u8]| by_content(start, &options).map(|found| found.format());
        assert_eq!(found(b"some,header\n"), Ok(Format::Csv));
        assert_eq!(found(b"100,NEM12,200405011135,MDA1,Ret1\r\n"), Ok(Format::Nem));
        assert!(found(b"PK\x03\x04").is_err());
    }

    #[test]
    fn what_is_not_read_is_named() {
        for (start, named) in [
            (&b""[..], "empty"),
            (b"PK\x03\x04abc", "ZIP"),
            (b"PAR1", "Parquet"),
            (b"<html><body>", "XML"),
            (b"{\"a\":1}", "JSON"),
            (b"hello,world\n", "hello,world"),
            (b"\xff\xfe1\0", "UTF-16"),
        ] {
            let error = found(start).expect_err("not a meter format");
            assert!(error.contains(named), "{error}");
        }
    }
}
