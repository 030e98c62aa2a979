//! A source's records and rows: what is read can be written and reads back as the same; what a view
//! makes of rows together is what it makes of each by itself, and can be taken back.

use std::sync::{Arc, LazyLock};

use sanso_state::Groups;
use sanso_view::{Application, Source, View, oracle};

/// One column of each type, an identity of several, and a view with one aggregate of each kind.
const APPLICATION: &str = "
CREATE SOURCE readings (meter TEXT, day DATE, at TIMESTAMP NOT NULL, value DECIMAL(18,6), wide DECIMAL(38,0),
                        small DECIMAL(3,3), good BOOLEAN, version BIGINT, note TEXT)
  WITH (key = 'meter', identity = 'meter, at, good', version = 'version', event_time = 'at',
        ignore = 'note', partitions = '1');
CREATE VIEW daily AS
  SELECT meter, good, day, TUMBLE(at, INTERVAL '1 day') AS start, COUNT(*) AS readings, SUM(value) AS total,
         AVG(small) AS mean, MIN(wide) AS least, MAX(note) AS last_note, LAST(value) AS newest,
         COUNT(DISTINCT version) AS versions, SUM(version + 1) FILTER (WHERE good) AS shifted
  FROM readings WHERE note IS NULL OR note <> 'skip' GROUP BY meter, good, day, start;
CREATE VIEW sliding AS
  SELECT HOP(at, INTERVAL '7 minutes', INTERVAL '21 minutes') AS start, SUM(value * small) AS product,
         COUNT(*) AS readings
  FROM readings GROUP BY start;
CREATE VIEW local AS
  SELECT meter, TUMBLE(at, INTERVAL '1 month', 'Europe/Berlin') AS start, SUM(value) AS total
  FROM readings GROUP BY meter, start;
";

static VIEWS: LazyLock<Vec<Arc<View>>> = LazyLock::new(|| {
    let application = Application::parse(APPLICATION).expect("a good application");
    application.bind(std::path::Path::new(".")).expect("it has no tables")
});

/// Records, one a line.
pub(crate) fn records(bytes: &[u8]) {
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let source = &VIEWS[0].source;
    check_decoding(source, &lines);
    VIEWS.iter().for_each(|view| check_lifting(view, &lines));
}

/// One row of the index of newest versions.
pub(crate) fn row(bytes: &[u8]) {
    let source = &VIEWS[0].source;
    let Ok(rows) = source.decode_rows([bytes]) else { return };
    let encoded = source.encode_rows(&rows);
    let again = source.decode_rows([&*encoded[0]]).expect("what is written reads back");
    assert_eq!(again, rows);
    assert!(encoded[0].len() <= bytes.len(), "there is no shorter spelling");
}

/// Decodes lines together and each alone.
pub(crate) fn check_decoding(source: &Source, lines: &[&[u8]]) {
    let decoded = source.decode(lines.iter().copied());
    assert_eq!(decoded.rows.num_rows(), decoded.index.len());
    let mut met: Vec<usize> =
        decoded.rejected.iter().map(|(at, _)| *at).chain(decoded.index.clone()).collect();
    met.sort_unstable();
    assert!(met.into_iter().eq(0..lines.len()), "each line is a row or rejected");
    for (row, &at) in decoded.index.iter().enumerate() {
        let alone = source.decode([lines[at]]).rows;
        assert_eq!(alone, decoded.rows.slice(row, 1));
        let json = source.to_json(&decoded.rows, row).to_string();
        let again = source.decode([json.as_bytes()]);
        assert_eq!(again.rejected, [], "{json}");
        assert_eq!(again.rows, alone, "{json}");
    }
    let encoded = source.encode_rows(&decoded.rows);
    let again = source.decode_rows(encoded.iter().map(|row| &**row)).expect("what is written reads back");
    assert_eq!(again, decoded.rows);
    assert_eq!(source.contents(&again), source.contents(&decoded.rows));
    assert_eq!(source.identities(&again), source.identities(&decoded.rows));
}

/// Lifts lines together, adds them by column, and takes them back.
pub(crate) fn check_lifting(view: &View, lines: &[&[u8]]) {
    let rows = view.source.decode(lines.iter().copied()).rows;
    let lifted = view.lift(&rows);
    let chosen: Vec<u32> = lifted.rows().map(|row| row.at).collect();
    let mut groups = Groups::new();
    groups.update(&view.kinds, &lifted.grouped, &chosen, 1);
    let mut one_by_one = Groups::new();
    for row in 0..rows.num_rows() {
        let alone = view.lift(&rows.slice(row, 1));
        for lifted in alone.rows() {
            let (id, inputs) = alone.grouped.row(lifted.at as usize);
            one_by_one.update_one(&view.kinds, &id, &inputs, 1);
        }
    }
    assert_eq!(groups, one_by_one);
    // A total that doesn't fit is said, so this may fail; it may not panic.
    let finished = view.finish(&groups.iter().collect::<Vec<_>>());
    if let Ok(finished) = finished {
        assert_eq!(finished.schema(), view.output_schema());
    }
    let history: Vec<oracle::Record<'_>> = (0..).zip(lines.iter().copied()).collect();
    let folded = oracle::fold(view, &[&history]);
    assert!(folded.iter().all(|(_, state)| state.rows >= 0));
    groups.update(&view.kinds, &lifted.grouped, &chosen, -1);
    assert!(groups.is_empty(), "what is taken back leaves nothing");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzzer_begins_with_records_and_rows_that_are_read() {
        let source = &VIEWS[0].source;
        let seeds = crate::seeds("record");
        let decoded = source.decode(seeds["plain"].split(|byte| *byte == b'\n'));
        assert_eq!((decoded.rows.num_rows(), decoded.rejected), (3, Vec::new()));
        let refused = source.decode(seeds["refused"].split(|byte| *byte == b'\n'));
        assert!(refused.rejected.len() > 5, "{:?}", refused.rejected);
        for (name, row) in crate::seeds("row") {
            assert!(source.decode_rows([&*row]).is_ok(), "{name}");
        }
    }
}
