use std::ops::ControlFlow;

use super::scout::ReadingType;
use super::series::channel_of;
use crate::{Event, FileError, Quality, ReadOptions, Reading, Refused};

fn read(text: &str) -> (Vec<Reading>, Vec<Refused>) {
    let (mut readings, mut refused) = (Vec::new(), Vec::new());
    let summary = crate::read_bytes("test.xml", text.as_bytes(), &ReadOptions::default(), |event| {
        match event {
            Event::Reading(reading) => readings.push(reading.clone()),
            Event::Refused(record) => refused.push(record.clone()),
        }
        ControlFlow::Continue(())
    });
    summary.expect("a sound feed");
    (readings, refused)
}

fn broken(text: &str) -> String {
    let result = crate::read_bytes("test.xml", text.as_bytes(), &ReadOptions::default(), |event| {
        panic!("a broken file gives nothing, but gave {event:?}")
    });
    match result {
        Err(error @ FileError::Broken { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn entry(href: &str, up: &str, related: &[&str], content: &str, updated: &str) -> String {
    let related: String =
        related.iter().map(|href| format!(r#"<link href="{href}" rel="related"></link>"#)).collect();
    format!(
        r#"<entry><link rel="self" href="{href}"/><link rel="up" href="{up}"/>{related}
           <content>{content}</content><updated>{updated}</updated></entry>"#
    )
}

fn interval_reading(start: &str, value: &str, more: &str) -> String {
    format!(
        "<e:IntervalReading><e:timePeriod><e:duration>900</e:duration><e:start>{start}</e:start></e:timePeriod>\
         <e:value>{value}</e:value>{more}</e:IntervalReading>"
    )
}

const USAGE_POINT: &str =
    "<e:UsagePoint><e:ServiceCategory><e:kind>0</e:kind></e:ServiceCategory></e:UsagePoint>";
const READING_TYPE: &str = "<e:ReadingType><e:flowDirection>19</e:flowDirection>\
    <e:powerOfTenMultiplier>3</e:powerOfTenMultiplier><e:uom>72</e:uom></e:ReadingType>";

/// A feed whose interval blocks come before what they refer to.
fn feed(readings: &str) -> String {
    let entries = [
        entry(
            "/UP/1/MR/1/IB/7",
            "/UP/1/MR/1/IB",
            &[],
            &format!("<e:IntervalBlock>{readings}</e:IntervalBlock>"),
            "2024-01-02T03:04:05Z",
        ),
        entry("/RT/1", "/RT", &[], READING_TYPE, "2024-01-01T00:00:00Z"),
        entry(
            "/UP/1/MR/1",
            "/UP/1/MR",
            &["/UP/1/MR/1/IB", "/RT/1"],
            "<e:MeterReading/>",
            "2024-01-01T00:00:00Z",
        ),
        entry("/UP/1?a=1&amp;b=2", "/UP", &["/UP/1/MR"], USAGE_POINT, "2024-01-01T00:00:00Z"),
    ];
    format!(
        r#"<?xml version="1.0"?><feed xmlns="a" xmlns:e="b"><updated>2024-01-01</updated>{}</feed>"#,
        entries.concat()
    )
}

#[test]
fn resources_are_joined_in_any_order_and_under_any_prefix() {
    let (readings, refused) = read(&feed(&interval_reading("1704067200", "5", "")));
    assert_eq!(refused, []);
    let reading = &readings[0];
    assert_eq!(reading.usage_point, "/UP/1?a=1&b=2");
    assert_eq!((reading.channel.as_str(), reading.unit.as_str()), ("electricity_received", "kWh"));
    // 5 * 10^3 Wh.
    assert_eq!(reading.value.expect("a value").to_string(), "5");
    assert_eq!(
        (reading.duration_s, reading.start_utc.to_rfc3339().as_str()),
        (900, "2024-01-01T00:00:00+00:00")
    );
    assert_eq!(reading.source_version, 20_240_102_030_405);
    assert_eq!(reading.quality, Quality::Unqualified);
}

#[test]
fn the_most_doubtful_of_several_qualities_counts() {
    let quality = |code: &str| format!("<e:ReadingQuality><e:quality>{code}</e:quality></e:ReadingQuality>");
    let more = [quality("17"), quality("8")].concat();
    let (readings, _) = read(&feed(&interval_reading("1704067200", "5", &more)));
    assert_eq!(
        (readings[0].quality, readings[0].source_quality.as_deref()),
        (Quality::Estimated, Some("17,8"))
    );
}

#[test]
fn bad_readings_are_refused_alone() {
    let readings = [
        interval_reading("1721154384.66136", "1", ""),
        interval_reading("1704067200", "1", ""),
        interval_reading("1704068100", "1.2.3", ""),
        interval_reading("", "1", ""),
        interval_reading("1704069000", "", ""),
        interval_reading("1704069900", "1&amp;2", ""),
    ];
    let (readings, refused) = read(&feed(&readings.concat()));
    assert_eq!((readings.len(), refused.len()), (2, 4));
    assert!(refused[0].reason.contains("1721154384.66136"), "{}", refused[0]);
    assert!(refused[1].record.contains("1.2.3"), "{}", refused[1]);
    assert_eq!((readings[1].value, readings[1].quality), (None, Quality::Missing));
}

#[test]
fn readings_that_belong_to_nothing_are_refused_with_the_missing_link() {
    let text = feed(&interval_reading("1704067200", "5", ""));
    for (from, to, reason) in [
        (
            r#"href="/UP/1/MR/1/IB" rel="related""#,
            r#"href="/elsewhere" rel="related""#,
            "belongs to no MeterReading",
        ),
        (r#"rel="self" href="/RT/1""#, r#"rel="self" href="/RT/2""#, "no ReadingType"),
        (r#"href="/UP/1/MR" rel="related""#, r#"href="/UP/2/MR" rel="related""#, "no UsagePoint"),
        ("<e:powerOfTenMultiplier>3", "<e:powerOfTenMultiplier>x", "powerOfTenMultiplier"),
    ] {
        let (readings, refused) = read(&text.replace(from, to));
        assert_eq!((readings.len(), refused.len()), (0, 1), "{to}");
        assert!(refused[0].reason.contains(reason), "{}", refused[0]);
    }
}

#[test]
fn xml_that_is_not_whole_gives_one_error_and_nothing_else() {
    let text = feed(&interval_reading("1704067200", "5", ""));
    assert!(broken(text.trim_end_matches("</feed>")).contains("not closed"));
    assert!(broken(&text.replace("</e:timePeriod>", "</e:timeperiod>")).contains("not well-formed"));
    assert!(broken(&format!("{text}{text}")).contains("second document"));
    assert!(broken(&text.replacen("<feed", "<x/><feed", 1)).contains("root element"));
    let deep = "<e:a>".repeat(100);
    assert!(broken(&text.replacen("</feed>", &deep, 1)).contains("nested deeper"));
    let other_type = READING_TYPE.replace("19", "1");
    let twice = entry("/RT/1", "/RT", &[], &other_type, "2024-01-01T00:00:00Z");
    assert!(
        broken(&text.replace("</feed>", &format!("{twice}</feed>"))).contains("two different ReadingTypes")
    );
    let endless = format!("<!--{}-->", "x".repeat(3 << 20));
    assert!(broken(&text.replace("</feed>", &format!("{endless}</feed>"))).contains("longer than"));
}

#[test]
fn channels_are_named_by_what_is_measured() {
    let reading_type = |flow: &str, accumulation: &str, length: &str| ReadingType {
        flow_direction: flow.into(),
        accumulation: accumulation.into(),
        interval_length: length.into(),
        ..ReadingType::default()
    };
    for (kind, flow, accumulation, length, unit, name) in [
        ("0", "1", "4", "900", "kWh", "electricity_delivered"),
        ("0", "19", "4", "900", "kWh", "electricity_received"),
        ("0", "4", "4", "3600", "kWh", "electricity_net"),
        ("0", "1", "4", "900", "kvarh", "electricity_delivered_kvarh"),
        ("0", "1", "3", "900", "kWh", "electricity_delivered_cumulative"),
        ("0", "1", "4", "86400", "kWh", "electricity_delivered_daily"),
        ("0", "1", "4", "2592000", "kWh", "electricity_delivered_2592000s"),
        ("1", "", "", "", "therm", "gas"),
        ("7", "21", "", "", "x", "service_7_flow_21"),
    ] {
        assert_eq!(channel_of(kind, &reading_type(flow, accumulation, length), unit), name);
    }
}
